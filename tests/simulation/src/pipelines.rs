//! Random runs: graphs, retries, `finally`, `when`, matrices, timeouts.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tenon_engine::command::RunObject;
use tenon_engine::{RunId, Submission};
use tenon_journal::disk::sim::Random;
use tenon_tekton::v1::{PipelineRun, TaskRun};

/// A random run of this name. Whether it waits to be released comes with it.
pub fn random_run(random: &mut Random, name: &str, body: u64) -> (Submission, bool) {
    let metadata = json!({
        "name": name, "namespace": "default", "labels": {"body": body.to_string()},
    });
    if random.one_in(5) {
        let mut spec = task_spec(random, &[]);
        if random.one_in(3) {
            spec["steps"].as_array_mut().into_iter().for_each(|steps| {
                steps.push(json!({"name": "last", "image": "busybox", "script": "echo"}));
            });
        }
        let mut run = json!({"metadata": metadata, "spec": {"taskSpec": spec}});
        if random.one_in(3) {
            run["spec"]["retries"] = json!(random.below(3));
        }
        if random.one_in(3) {
            run["spec"]["timeout"] = json!(format!("{}s", 1 + random.below(8)));
        }
        let object: TaskRun = serde_json::from_value(run).expect("a TaskRun");
        return (submission(RunObject::TaskRun(Box::new(object))), false);
    }
    let count = 1 + random.below(6);
    let mut tasks: Vec<Value> = Vec::new();
    for index in 0..count {
        // Results of a fan-out may be used as a whole only: such a reference would be refused.
        let mut next = random_task(random, index, index, false);
        let text = next["params"].to_string();
        let of_matrix = tasks
            .iter()
            .filter(|task| task.get("matrix").is_some())
            .filter_map(|task| task["name"].as_str())
            .any(|name| text.contains(&format!(".{name}.")));
        if of_matrix {
            next["params"] = json!([{"name": "p", "value": "v"}]);
        }
        tasks.push(next);
    }
    let finals: Vec<Value> =
        (0..random.below(3)).map(|index| random_task(random, index, 0, true)).collect();
    let mut spec = json!({"pipelineSpec": {"tasks": tasks, "finally": finals}});
    if random.one_in(3) {
        spec["timeouts"] = json!({"pipeline": "30s", "tasks": "12s"});
    }
    let pending = random.one_in(10);
    let parallel = random.one_in(4).then(|| 1 + random.below(3) as u32);
    if pending {
        spec["status"] = json!("PipelineRunPending");
    }
    if random.one_in(2) {
        share_claims(random, &mut spec);
    }
    let object = json!({"metadata": metadata, "spec": spec});
    let object: PipelineRun = serde_json::from_value(object).expect("a PipelineRun");
    let mut submission = submission(RunObject::PipelineRun(Box::new(object)));
    submission.can_be_released = true;
    submission.parallel = parallel;
    (submission, pending)
}

/// Most tasks write to one of two claims, many of them one after the other; sometimes all do.
fn share_claims(random: &mut Random, spec: &mut Value) {
    let template = |name: &str| json!({"name": name, "volumeClaimTemplate": {"spec": {}}});
    spec["workspaces"] = json!([template("w"), template("v")]);
    spec["pipelineSpec"]["workspaces"] = json!([{"name": "w"}, {"name": "v"}]);
    let chain = random.one_in(3);
    for list in ["tasks", "finally"] {
        let tasks = spec["pipelineSpec"][list].as_array_mut().into_iter().flatten();
        for (index, task) in tasks.enumerate() {
            if list == "tasks" && index > 0 && (chain || random.one_in(2)) {
                task["runAfter"] = json!([format!("t{}", index - 1)]);
            }
            let workspace = match random.below(6) {
                0 => continue,
                1 => "v",
                _ => "w",
            };
            task["workspaces"] = json!([{"name": "x", "workspace": workspace}]);
            task["taskSpec"]["workspaces"] = json!([{"name": "x"}]);
        }
    }
}

fn submission(run: RunObject) -> Submission {
    Submission {
        run_id: RunId::default(),
        run,
        tasks: BTreeMap::new(),
        pipelines: BTreeMap::new(),
        step_actions: BTreeMap::new(),
        service_accounts: BTreeMap::new(),
        flags: Default::default(),
        parallel: None,
        rerun: None,
        can_be_released: false,
    }
}

fn task_spec(random: &mut Random, params: &[Value]) -> Value {
    let params: Vec<Value> =
        params.iter().map(|param| json!({"name": param["name"], "type": "string"})).collect();
    let steps: Vec<Value> = (0..1 + random.below(2))
        .map(|index| json!({"name": format!("s{index}"), "image": "busybox", "script": "echo"}))
        .collect();
    json!({"params": params, "results": [{"name": "r", "type": "string"}], "steps": steps})
}

fn random_task(random: &mut Random, index: u64, earlier: u64, finals: bool) -> Value {
    let mut task = json!({});
    if earlier > 0 && random.one_in(2) && !finals {
        task["runAfter"] = json!([format!("t{}", random.below(earlier))]);
    }
    if earlier > 0 && random.one_in(3) {
        let from = random.below(earlier);
        task["params"] = json!([{"name": "p", "value": format!("$(tasks.t{from}.results.r)")}]);
    } else if random.one_in(5) {
        let values: Vec<String> = (0..random.below(4)).map(|i| format!("{i}")).collect();
        task["matrix"] = json!({"params": [{"name": "m", "value": values}]});
    }
    if random.one_in(6) {
        task["when"] = json!([{"input": "a", "operator": "in", "values": ["b"]}]);
    }
    if random.one_in(4) {
        task["onError"] = json!("continue");
    }
    if random.one_in(4) {
        task["retries"] = json!(random.below(3));
    }
    if random.one_in(6) {
        task["timeout"] = json!(format!("{}s", 1 + random.below(5)));
    }
    let params: Vec<Value> = task["params"]
        .as_array()
        .into_iter()
        .chain(task["matrix"]["params"].as_array())
        .flatten()
        .cloned()
        .collect();
    task["taskSpec"] = task_spec(random, &params);
    task["name"] = json!(if finals { format!("f{index}") } else { format!("t{index}") });
    task
}
