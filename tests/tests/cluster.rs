//! Stories of a cluster: real coordinators, an agent, and `tenon` with `--server`.

#![allow(clippy::unwrap_used, reason = "a test may end where its story breaks")]

use std::fs;

use serde_json::Value;
use tenon_tests::fleet::Fleet;
use tenon_tests::{Said, Tenon, finish, signal, wait_until};

fn task(name: &str, script: &str) -> String {
    format!(
        "    - name: {name}\n      taskSpec: {{steps: [{{name: s, image: x, script: '{script}'}}]}}\n"
    )
}

fn pipeline(tasks: &str) -> String {
    format!(
        "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {{name: p}}\nspec:\n  pipelineSpec:\n    tasks:\n{tasks}"
    )
}

/// No line of the run is missing, none is there twice.
fn assert_complete(events: &[Value]) {
    let numbers: Vec<u64> = events.iter().map(|event| event["runSeq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(seqs.is_sorted_by(|one, next| one < next), "{seqs:?}");
    assert_eq!(events.last().unwrap()["kind"], "run-end");
}

#[test]
fn the_same_commands_work_on_a_cluster() {
    let fleet = Fleet::start(1);
    let yaml = pipeline(
        &(task("one", "echo hello; echo world >&2") + &task("two", "echo second; exit 3")),
    );
    let said = fleet.run(&yaml, &["-o", "json"]).expect(5);
    let events = said.events();
    assert_complete(&events);
    let mut log = said.log();
    log.sort();
    assert_eq!(log, ["hello", "second", "world"]);
    let run = events[0]["runId"].as_str().unwrap().to_owned();

    let listed = fleet.json(&["runs", "list"]);
    assert_eq!((&listed[0]["id"], &listed[0]["status"]), (&run.as_str().into(), &"failed".into()));
    assert_eq!(listed[0]["tasks"]["failed"], 1);
    assert_eq!(fleet.json(&["runs", "list", "--status", "succeeded"]), Value::Array(vec![]));
    let table = fleet.ask(&["runs", "list"]).expect(0).stdout;
    assert!(
        table.contains(&run) && table.lines().all(|line| line.chars().count() <= 80),
        "{table}"
    );
    assert_eq!(fleet.json(&["runs", "show", &run[..20]])["exitCode"], 5);
    let shown = fleet.ask(&["runs", "show", "latest"]).expect(0).stdout;
    assert!(shown.contains("two") && shown.contains("failed"), "{shown}");
    let objects = fleet.ask(&["runs", "show", "p", "-o", "yaml"]).expect(0).stdout;
    assert!(
        objects.contains("kind: PipelineRun") && objects.contains("kind: TaskRun"),
        "{objects}"
    );

    // The same bytes again, from anywhere on.
    assert_eq!(fleet.ask(&["logs", &run, "-o", "json"]).expect(0).stdout, said.stdout);
    assert_eq!(fleet.ask(&["events", &run]).expect(0).stdout, said.stdout);
    let since = events[4]["seq"].to_string();
    let rest = fleet.ask(&["events", &run, "--since", &since]).expect(0).stdout;
    assert!(said.stdout.ends_with(&rest) && rest.lines().count() == events.len() - 5, "{rest}");
    let ends = fleet.ask(&["events", "--kind", "run-end"]).expect(0).events();
    assert_eq!(ends.len(), 1);
    let steps = fleet.ask(&["logs", &run, "--task", "one"]).expect(0).stdout;
    assert!(steps.contains("hello") && !steps.contains("second"), "{steps}");

    // Again, as a whole and from where it failed.
    let whole = fleet.json(&["runs", "rerun", &run])["id"].as_str().unwrap().to_owned();
    let followed = fleet.ask(&["logs", &whole, "--follow", "-o", "json"]).expect(0);
    assert_complete(&followed.events());
    assert_eq!(followed.log().len(), 3);
    let rest = fleet.json(&["runs", "rerun", &run, "--from-failed"]);
    let rest = rest["id"].as_str().unwrap();
    assert_eq!(fleet.ask(&["logs", rest, "--follow", "-o", "json"]).expect(0).log(), ["second"]);
    let explained = fleet.json(&["runs", "explain", rest]);
    assert_eq!(explained["run"]["rerunOf"], run.as_str());

    // Bad questions.
    for (args, code, says) in [
        (&["runs", "show", "nothing"][..], 2, "no run \"nothing\""),
        (&["runs", "show", "01ARZ3NDEKTSV4RRFFQ69G5FAV"], 2, "not-found/run"),
        (&["runs", "cancel", &run], 2, "conflict/run-ended"),
        (&["cluster", "remove", "c9"], 2, "c9"),
    ] {
        let said = fleet.ask(args).expect(code);
        assert!(said.stderr.contains(says), "{args:?}: {}", said.stderr);
    }
}

#[test]
fn submissions_with_a_key_are_one_run_and_can_be_left_alone() {
    let fleet = Fleet::start(1);
    let yaml = pipeline(&task("one", "echo once"));
    let args = ["--detach", "--idempotency-key", "build-17"];
    let first = fleet.run(&yaml, &args).expect(0).stdout;
    assert_eq!(fleet.run(&yaml, &args).expect(0).stdout, first);
    let refused = fleet.run(&yaml.replace("once", "twice"), &args).expect(2);
    assert!(refused.stderr.contains("conflict/idempotency-key"), "{}", refused.stderr);
    let log = fleet.ask(&["logs", first.trim(), "--follow", "-o", "json"]).expect(0);
    assert_eq!(log.log(), ["once"]);
    assert_eq!(fleet.json(&["runs", "list"]).as_array().unwrap().len(), 1);
    // The answer of a run that has ended is the end of that run.
    let again = fleet.run(&yaml, &["--idempotency-key", "build-17", "-o", "json"]).expect(0);
    assert_eq!(again.stdout, log.stdout);
}

#[test]
fn a_run_can_be_cancelled_from_here_and_from_there() {
    let fleet = Fleet::start(1);
    let slow = pipeline(&task("slow", "echo started; sleep 600"))
        + "    finally:\n"
        + &task("f", "echo cleaned");
    let (child, out) = fleet.start_run(&slow, &[]);
    wait_until("the step to print", || fs::read_to_string(&out).unwrap().contains("started"));
    signal(child.id(), libc::SIGINT);
    let said = finish(child);
    assert_eq!(said.code, 130, "{}", said.stderr);
    let printed = fs::read_to_string(&out).unwrap();
    assert!(printed.contains("\"line\":\"cleaned\""), "{printed}");

    let id = fleet.run(&slow, &["--detach"]).expect(0).stdout.trim().to_owned();
    wait_until("the step to run", || fleet.ask(&["logs", &id]).stdout.contains("started"));
    let explained = fleet.ask(&["runs", "explain", &id]).expect(0).stdout;
    assert!(explained.contains("slow") && explained.contains("running"), "{explained}");
    fleet.ask(&["runs", "cancel", &id, "--now", "--message", "enough"]).expect(0);
    let log = fleet.ask(&["logs", &id, "--follow", "-o", "json"]).expect(0);
    assert_eq!(log.events().last().unwrap()["status"], "cancelled");
    assert_eq!(log.log(), ["started"]);
    // Again changes nothing.
    fleet.ask(&["runs", "cancel", &id]).expect(0);
}

#[test]
fn a_run_survives_the_death_of_the_leader() {
    let mut fleet = Fleet::start(3);
    let lines = "for i in $(seq 1 40); do echo $i; sleep 0.05; done";
    let yaml = pipeline(
        &(task("one", lines)
            + &task("two", lines)
            + "    - name: three\n      runAfter: [one, two]\n      taskSpec: {steps: [{name: s, image: x, script: 'echo done'}]}\n"),
    );
    let (child, out) = fleet.start_run(&yaml, &[]);
    wait_until("the first lines", || {
        fs::read_to_string(&out).unwrap().matches("step-log").count() > 10
    });
    let leader = fleet.leader();
    signal(fleet.coordinators[leader].child.id(), libc::SIGKILL);
    let said = finish(child);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let printed = fs::read_to_string(&out).unwrap();
    let said = Said { stdout: printed, ..said };
    assert_complete(&said.events());
    for name in ["one", "two"] {
        let log: Vec<String> = said
            .events()
            .iter()
            .filter(|event| event["kind"] == "step-log" && event["task"] == name)
            .map(|event| event["line"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(log, (1..=40).map(|line: u32| line.to_string()).collect::<Vec<_>>());
    }
    let starts = said.events().iter().filter(|event| event["kind"] == "task-start").count();
    assert_eq!(starts, 3, "no task ran twice");

    // The dead node comes back, and tells the same story as the others.
    fleet.restart(leader);
    let run = said.events()[0]["runId"].as_str().unwrap().to_owned();
    for node in &fleet.coordinators {
        wait_until("the node to have everything", || fleet.status(&node.url)["ready"] == true);
        let told = fleet.tenon.tenon(&["events", &run, "--server", &node.url]).expect(0);
        assert_eq!(told.stdout, said.stdout, "{}", node.name);
    }
    let changes = fleet.ask(&["events", "--kind", "leader-change"]).expect(0).events();
    assert!(changes.len() >= 2, "{changes:?}");
}

#[test]
fn nodes_are_restarted_one_after_the_other_and_no_request_fails() {
    let mut fleet = Fleet::start(3);
    for position in 0..3 {
        // The agent and clients go elsewhere meanwhile.
        let node = &fleet.coordinators[position];
        signal(node.child.id(), libc::SIGTERM);
        let yaml = pipeline(&task("t", "echo ok"));
        let said = fleet.run(&yaml, &["-o", "json"]).expect(0);
        assert_eq!(said.log(), ["ok"]);
        assert_complete(&said.events());
        let code = fleet.coordinators[position].child.wait().unwrap();
        assert!(code.success(), "{code}");
        fleet.restart(position);
        wait_until("the node to be back", || {
            fleet.status(&fleet.coordinators[position].url)["ready"] == true
        });
    }
    assert_eq!(fleet.json(&["runs", "list"]).as_array().unwrap().len(), 3);
    let to = fleet.coordinators[(fleet.leader() + 1) % 3].name.clone();
    fleet.ask(&["cluster", "transfer", &to]).expect(0);
    wait_until("the new leader", || fleet.coordinators[fleet.leader()].name == to);
    // The agent follows it.
    wait_until("the agent at the new leader", || {
        let status = fleet.ask(&["cluster", "status"]).expect(0).stdout;
        status.contains("leads") && status.contains("a1")
    });
}

#[test]
fn an_agent_that_is_stopped_leaves_nothing_and_another_one_goes_on() {
    let mut fleet = Fleet::start(1);
    let (child, out) =
        fleet.start_run(&pipeline(&task("slow", "echo started; sleep 3; echo ended")), &[]);
    wait_until("the step to print", || fs::read_to_string(&out).unwrap().contains("started"));
    let mut agent = fleet.agent.take().unwrap();
    fleet.agent = Some(fleet.agent("a2"));
    signal(agent.child.id(), libc::SIGTERM);
    assert!(agent.child.wait().unwrap().success());
    let said = finish(child);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let printed = Said { stdout: fs::read_to_string(&out).unwrap(), ..said };
    assert_complete(&printed.events());
    assert_eq!(printed.log().last().unwrap(), "ended");
    assert!(printed.events().iter().any(|event| event["kind"] == "task-lost"));
}

#[test]
fn a_cluster_is_backed_up_restored_grown_shrunk_and_recovered() {
    let mut fleet = Fleet::start(1);
    let first = fleet.run(&pipeline(&task("t", "echo first")), &["-o", "json"]).expect(0);
    let run = first.events()[0]["runId"].as_str().unwrap().to_owned();
    fleet.ask(&["cluster", "backup", "saved"]).expect(0);
    let again = fleet.ask(&["cluster", "backup", "saved"]).expect(2);
    assert!(again.stderr.contains("there already"), "{}", again.stderr);

    // The machine burns down; another one takes its place, and its address.
    fleet.agent = None;
    let url = fleet.coordinators.remove(0).url.clone();
    let dir = fleet.tenon.dir().join("r1");
    let restore = [
        "cluster",
        "restore",
        "saved",
        "--name",
        "r1",
        "--data-dir",
        dir.to_str().unwrap(),
        "--advertise",
        &url,
    ];
    fleet.tenon.tenon(&restore).expect(0);
    fleet.tenon.tenon(&restore).expect(3);
    let node = fleet.coordinator("r1", url.strip_prefix("http://").unwrap());
    fleet.coordinators.push(node);
    fleet.leader();
    assert_eq!(fleet.ask(&["events", &run]).expect(0).stdout, first.stdout);

    // It gets company, and the company can do without it.
    for name in ["r2", "r3"] {
        let node = fleet.coordinator(name, "127.0.0.1:0");
        fleet.ask(&["cluster", "add", &node.url]).expect(0);
        fleet.coordinators.push(node);
    }
    fleet.agent = Some(fleet.agent("a2"));
    fleet.ask(&["cluster", "remove", "r1"]).expect(0);
    let mut gone = fleet.coordinators.remove(0);
    gone.kill();
    let second = fleet.run(&pipeline(&task("t", "echo second")), &["-o", "json"]).expect(0);
    assert_complete(&second.events());
    let members = fleet.json(&["cluster", "status"])["members"].as_array().unwrap().len();
    assert_eq!(members, 2);

    // One of the two is lost for ever: alone the other one can do nothing, until it is told to.
    let other = (fleet.leader() + 1) % 2;
    fleet.coordinators.remove(other);
    let mut survivor = fleet.coordinators.remove(0);
    survivor.kill();
    let dir = fleet.tenon.dir().join(&survivor.name);
    let recover = ["cluster", "recover", "--data-dir", dir.to_str().unwrap()];
    let unsure = fleet.tenon.tenon(&recover).expect(2);
    assert!(unsure.stderr.contains("--i-know"), "{}", unsure.stderr);
    fleet.tenon.tenon(&[&recover[..], &["--i-know-that-the-others-are-lost"]].concat()).expect(0);
    fleet.agent = None;
    let address = survivor.url.strip_prefix("http://").unwrap().to_owned();
    let node = fleet.coordinator(&survivor.name, &address);
    fleet.coordinators.push(node);
    fleet.leader();
    for said in [&first, &second] {
        let run = said.events()[0]["runId"].as_str().unwrap().to_owned();
        assert_eq!(fleet.ask(&["events", &run]).expect(0).stdout, said.stdout);
    }
    fleet.agent = Some(fleet.agent("a3"));
    let third = fleet.run(&pipeline(&task("t", "echo third")), &["-o", "json"]).expect(0);
    assert_eq!(third.log(), ["third"]);
}

/// A PipelineRun with one task and these annotations.
fn annotated(name: &str, annotations: &str, script: &str) -> String {
    pipeline(&task("t", script)).replace(
        "metadata: {name: p}",
        &format!("metadata: {{name: {name}, annotations: {{{annotations}}}}}"),
    )
}

#[test]
fn an_agent_is_cordoned_drained_and_removed() {
    let args = ["--lease-ms", "2000", "--lease-margin-ms", "1000"];
    let mut fleet = Fleet::start_on(Tenon::host(), 3, &args);
    let table = fleet.ask(&["agents", "list"]).expect(0).stdout;
    assert!(table.contains("a1") && table.contains("up"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    fleet.ask(&["agents", "cordon", "a1"]).expect(0);
    // Every node knows of it.
    for node in &fleet.coordinators {
        let said =
            fleet.tenon.tenon(&["agents", "show", "a1", "-o", "json", "--server", &node.url]);
        let agent: Value = serde_json::from_str(&said.expect(0).stdout).unwrap();
        assert_eq!((&agent["state"], &agent["labels"]["zone"]), (&"cordoned".into(), &"b".into()));
    }
    let id = fleet.run(&pipeline(&task("t", "echo ran")), &["--detach"]).expect(0);
    let id = id.stdout.trim().to_owned();
    wait_until("a reason", || {
        let explained = fleet.ask(&["runs", "explain", &id]).expect(0).stdout;
        explained.contains("1 agent: 1 is cordoned")
    });
    wait_until("an event that says so", || {
        let told = fleet.ask(&["events", "--kind", "task-queued"]).expect(0).events();
        told.iter().any(|event| {
            event["reason"] == "infra/no-agent"
                && event["message"].as_str().is_some_and(|text| text.contains("cordoned"))
        })
    });
    fleet.ask(&["agents", "uncordon", "a1"]).expect(0);
    let log = fleet.ask(&["logs", &id, "--follow", "-o", "json"]).expect(0);
    assert_eq!(log.log(), ["ran"]);

    // What runs at the deadline of a drain runs again elsewhere, and costs no retry.
    let slow = pipeline(&task("slow", "echo began; sleep 4; echo ended"));
    let (child, out) = fleet.start_run(&slow, &[]);
    wait_until("the step to print", || fs::read_to_string(&out).unwrap().contains("began"));
    let refused = fleet.ask(&["agents", "remove", "a1"]).expect(2);
    assert!(refused.stderr.contains("conflict/agent-in-use"), "{}", refused.stderr);
    let second = fleet.agent("a2");
    fleet.ask(&["agents", "drain", "a1", "--deadline", "0s"]).expect(0);
    let said = finish(child);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let printed = Said { stdout: fs::read_to_string(&out).unwrap(), ..said };
    assert_complete(&printed.events());
    let events = printed.events();
    let lost = events.iter().find(|event| event["kind"] == "task-lost").unwrap();
    assert_eq!((&lost["reason"], &lost["agent"]), (&"infra/drained".into(), &"a1".into()));
    assert_eq!(events.iter().rev().find(|e| e["kind"] == "task-end").unwrap()["agent"], "a2");
    assert_eq!(fleet.json(&["agents", "show", "a1"])["state"], "drained");

    // Gone for good, once it is not in contact any more.
    let refused = fleet.ask(&["agents", "remove", "a1"]).expect(2);
    assert!(refused.stderr.contains("conflict/agent-up"), "{}", refused.stderr);
    fleet.agent = Some(second);
    wait_until("a1 to be down", || fleet.json(&["agents", "show", "a1"])["state"] == "down");
    fleet.ask(&["agents", "remove", "a1"]).expect(0);
    let unknown = fleet.ask(&["agents", "show", "a1"]).expect(2);
    assert!(unknown.stderr.contains("not-found/agent"), "{}", unknown.stderr);
    assert_eq!(fleet.json(&["agents", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn runs_of_a_group_wait_for_each_other_cancel_each_other_or_are_refused() {
    let fleet = Fleet::start(1);
    let group = |policy: &str| {
        format!("tenon.dev/concurrency-key: deploy, tenon.dev/concurrency-policy: {policy}")
    };
    let slow = annotated("first", &group("queue"), "echo began; sleep 600");
    let first = fleet.run(&slow, &["--detach"]).expect(0).stdout.trim().to_owned();
    wait_until("the first to run", || fleet.ask(&["logs", &first]).stdout.contains("began"));

    let refused = fleet.run(&annotated("refused", &group("reject"), "true"), &[]).expect(4);
    let told = refused.stdout + &refused.stderr;
    assert!(told.contains("is full: 1 runs (first)"), "{told}");
    let second = annotated("second", &group("queue"), "echo second");
    let second = fleet.run(&second, &["--detach"]).expect(0).stdout.trim().to_owned();
    let explained = fleet.ask(&["runs", "explain", &second]).expect(0).stdout;
    assert!(explained.contains("\"deploy\" is full: 1 runs (first)"), "{explained}");
    let listed = fleet.json(&["runs", "list", "--status", "pending"]);
    assert_eq!(listed[0]["id"], second.as_str());

    // The third takes the place of both.
    let third = annotated("third", &group("cancel-running"), "echo third");
    let third = fleet.run(&third, &["-o", "json"]).expect(0);
    assert_eq!(third.log(), ["third"]);
    assert_eq!(third.events()[0]["kind"], "run-queued");
    assert_eq!(third.events()[0]["reason"], "ConcurrencyLimit");
    for run in [&first, &second] {
        assert_eq!(fleet.json(&["runs", "show", run])["status"], "cancelled", "{run}");
    }
}

#[test]
fn who_has_more_priority_goes_first() {
    let mut fleet = Fleet::start(1);
    fleet.agent = None;
    let submit = |name: &str, priority: u32| {
        let yaml = annotated(name, &format!("tenon.dev/priority: \"{priority}\""), "echo ran");
        fleet.run(&yaml, &["--detach"]).expect(0).stdout.trim().to_owned()
    };
    let runs = [("low", 10), ("middle", 50), ("high", 90)].map(|(name, it)| submit(name, it));
    wait_until("all to wait", || {
        let explained = fleet.ask(&["runs", "explain", &runs[0], "-o", "json"]).expect(0).stdout;
        explained.contains("2 before it in its namespace, 3 wait in all")
    });
    fleet.agent = Some(fleet.agent_with("a2", &["--slots", "1"]));
    for run in &runs {
        fleet.ask(&["logs", run, "--follow", "-o", "json"]).expect(0);
    }
    let starts = fleet.ask(&["events", "--kind", "task-start"]).expect(0).events();
    let order: Vec<&str> =
        starts.iter().map(|event| event["pipelineRun"].as_str().unwrap()).collect();
    assert_eq!(order, ["high", "middle", "low"]);
}

#[test]
fn a_pending_run_waits_to_be_released_and_says_so() {
    let fleet = Fleet::start(1);
    let yaml = pipeline(&task("t", "echo ran"))
        .replace("spec:\n", "spec:\n  status: PipelineRunPending\n");
    let id = fleet.run(&yaml, &["--detach"]).expect(0).stdout.trim().to_owned();
    for command in ["show", "explain"] {
        let said = fleet.ask(&["runs", command, &id]).expect(0).stdout;
        assert!(said.contains(&format!("tenon runs release {id}")), "{said}");
    }
    fleet.ask(&["runs", "release", &id]).expect(0);
    let log = fleet.ask(&["logs", &id, "--follow", "-o", "json"]).expect(0);
    assert_eq!(log.log(), ["ran"]);
    assert!(fleet.ask(&["runs", "release", &id]).expect(2).stderr.contains("has ended"));
}

#[test]
fn a_run_whose_output_nobody_reads_any_more_goes_on() {
    let fleet = Fleet::start(1);
    let yaml = pipeline(&task("t", "echo one; sleep 2; echo two; sleep 2; echo three"));
    let file = fleet.tenon.file("p.yaml", &yaml);
    let server = fleet.servers();
    let args = ["run", "-f", file.to_str().unwrap(), "--server", &server];
    let mut child = fleet.tenon.command(&args).spawn().unwrap();
    drop(child.stdout.take());
    let said = finish(child);
    assert_eq!(said.code, 130, "{}", said.stderr);
    assert!(said.stderr.contains("the run goes on"), "{}", said.stderr);
    let log = fleet.ask(&["logs", "latest", "--follow", "-o", "json"]).expect(0);
    assert_eq!(log.log(), ["one", "two", "three"]);
}
