//! Times loading, validating and planning a generated Pipeline of 1,000 tasks; prints the median of
//! ten rounds in milliseconds. Run by `cargo xtask bench local`.

use std::time::Instant;

use tenon_engine::command::RunObject;
use tenon_engine::{Command, Engine, RunId, Submission, Time};
use tenon_tekton::Object;
use tenon_tekton::flags::FeatureFlags;
use tenon_tekton::load::{Source, load};
use tenon_tekton::validate::validate;

const TASKS: usize = 1000;
const ROUNDS: usize = 10;

fn main() {
    let yaml = generated();
    let mut millis: Vec<f64> = (0..ROUNDS).map(|_| round(&yaml)).collect();
    millis.sort_by(f64::total_cmp);
    println!("{:.2}", millis[ROUNDS / 2]);
}

/// Ten layers of a hundred tasks; each depends on two of the layer before, once by result.
fn generated() -> String {
    let mut yaml = String::from(
        "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {name: big}\nspec:\n  params: [{name: who, value: you}]\n  pipelineSpec:\n    params: [{name: who}]\n    tasks:\n",
    );
    for task in 0..TASKS {
        yaml += &format!("    - name: t{task}\n");
        if task >= 100 {
            yaml += &format!("      runAfter: [t{}]\n", task - 100);
            let other = task - 100 - task % 100 + (task + 1) % 100;
            yaml += &format!(
                "      params: [{{name: from, value: \"$(tasks.t{other}.results.r)\"}}]\n"
            );
        } else {
            yaml += "      params: [{name: from, value: \"$(params.who)\"}]\n";
        }
        yaml += "      taskSpec:\n        params: [{name: from}]\n        results: [{name: r}]\n        steps:\n        - image: busybox\n          script: echo $(params.from) > $(results.r.path)\n";
    }
    yaml
}

fn round(yaml: &str) -> f64 {
    let flags = FeatureFlags::default();
    let source = Source { name: "big.yaml".to_owned(), text: yaml.into() };
    let start = Instant::now();
    let loaded = load(&[source], &flags);
    assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
    let document = &loaded.bundle.documents[0];
    assert!(validate(&document.object, &flags).is_empty());
    let Object::PipelineRun(run) = &document.object else { panic!("not a PipelineRun") };
    let mut engine = Engine::new();
    let run_id = RunId::default();
    let submission = Submission {
        run_id,
        run: RunObject::PipelineRun(run.clone()),
        tasks: Default::default(),
        pipelines: Default::default(),
        step_actions: Default::default(),
        service_accounts: Default::default(),
        flags,
        parallel: None,
        rerun: None,
        can_be_released: false,
    };
    engine.apply(Command::Submit { time: Time(0), submission: Box::new(submission) });
    assert_eq!(engine.pending_work().len(), 100, "{:?}", engine.outcome(run_id));
    start.elapsed().as_secs_f64() * 1000.0
}
