//! What agents of a fleet run on the host: it lives on without them, is gone on with by the next one, and
//! is frozen without a lease.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

mod host_support;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use host_support::{BOUND, Machine, Reports, backend, life, pod, step};
use serde_json::json;
use tenon_agent::backend::{Backend, Cancel};
use tenon_agent::clock::since_boot;
use tenon_agent::guard::{self, Guard, GuardArgs, GuardOptions, OnExpiry};
use tenon_agent::host::HostBackend;
use tenon_proto::agent::v1::{Ending, TaskInvocation, ended::Outcome, report::What};

/// The next agent in the machine's directory, with the same life.
fn next_agent(machine: &Machine) -> HostBackend {
    backend(machine.data.path(), life(machine.data.path(), "life"))
}

/// Lets an agent go on so often, and no further. None is one that died before its work was done.
async fn until_it_dies<T>(work: impl Future<Output = T>, times: usize) -> Option<T> {
    let (mut work, mut left) = (pin!(work), times);
    let story = poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        work.as_mut().poll(context).map(Some)
    });
    tokio::time::timeout(BOUND, story).await.expect("something happens within the bound")
}

/// An agent that dies once something was printed.
async fn until_it_prints(work: impl Future<Output = Outcome>, reports: &Reports) {
    let printed = async {
        while reports.log().is_empty() {
            reports.printed.notified().await;
        }
    };
    tokio::select! {
        outcome = work => panic!("{outcome:?}"),
        printed = tokio::time::timeout(BOUND, printed) => printed.unwrap(),
    }
}

/// The next agent, after one that died.
async fn go_on(
    next: &HostBackend,
    task: &TaskInvocation,
    reports: &Reports,
    cancel: &Cancel,
) -> Outcome {
    let attempt = task.attempt.as_ref().unwrap();
    if !next.left().await.unwrap().attempts.contains(attempt) {
        return next.run_task(task, reports, cancel).await;
    }
    let marks = reports.marks.lock().unwrap().clone();
    next.adopt(attempt, &marks, reports, cancel).await
}

async fn eventually_no_launcher(machine: &Machine) {
    let gone = async {
        while !machine.launchers().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(BOUND, gone).await.unwrap();
}

#[tokio::test]
async fn agents_that_die_again_and_again_go_on_and_nothing_is_lost_or_doubled() {
    let count = "echo >> /workspace/ran; i=0
                 while [ $i -lt 400 ]; do echo $i; i=$((i+1)); [ $((i % 40)) = 0 ] && sleep 0.01; done
                 printf kept > /tekton/results/r";
    let side = "trap 'echo told; exit 0' TERM; echo up; while :; do sleep 0.02; done";
    let steps =
        json!([step("count", count), step("after", "wc -l < /workspace/ran; printf 'no newline'")]);
    let pod = pod(steps, json!([step("side", side)]));
    let counted: String = (0..400).map(|number| format!("{number}\n")).collect();
    for times in [2, 3, 5, 8, 13, 40] {
        let machine = Machine::of_agent();
        let (reports, cancel) = (Reports::default(), Cancel::default());
        let task = machine.task(&pod).await;
        let mut agents = 0;
        let outcome = loop {
            agents += 1;
            let next = next_agent(&machine);
            let work = go_on(&next, &task, &reports, &cancel);
            if let Some(outcome) = until_it_dies(work, times).await {
                break outcome;
            }
        };
        assert!(matches!(outcome, Outcome::Ran(_)), "{outcome:?}");
        eprintln!("{agents} agents that went on {times} times each");
        assert_eq!(reports.log_of(|container| container == "count"), counted);
        assert_eq!(reports.log_of(|container| container == "after"), "1\nno newline\n");
        let said = reports.log_of(|container| container == "side");
        // Its shell may remark that what it waited for was told to end, too.
        assert_eq!(said.replace("Terminated\n", ""), "up\ntold\n");
        let began = |what: &&What| matches!(what, What::StepStarted(_) | What::SidecarStarted(_));
        assert_eq!(reports.seen.lock().unwrap().iter().filter(began).count(), 3);
        let steps = reports.steps();
        assert_eq!(steps["count"].task_results["r"], "kept");
        assert_eq!(steps["after"].ending(), Ending::Completed);
        let Some(What::SidecarEnded(end)) = reports.seen.lock().unwrap().last().cloned() else {
            panic!("{:?}", reports.seen.lock().unwrap())
        };
        assert!(end.stopped && end.exit_code == 0, "{end:?}");
        machine.clean_up().await;
        assert!(machine.launchers().is_empty());
    }
}

#[tokio::test]
async fn what_another_agent_has_begun_can_be_stopped_and_killed() {
    for kill in [false, true] {
        let machine = Machine::of_agent();
        let (reports, cancel) = (Reports::default(), Cancel::default());
        let script = if kill {
            "trap '' TERM; echo up; while :; do sleep 1; done"
        } else {
            "echo up; sleep 1000"
        };
        let task = machine.task(&pod(json!([step("s", script)]), json!([]))).await;
        until_it_prints(machine.backend.run_task(&task, &reports, &cancel), &reports).await;
        assert_eq!(machine.launchers().len(), 1, "it lives on");
        cancel.stop.cancel();
        if kill {
            cancel.kill.cancel();
        }
        let next = next_agent(&machine);
        let outcome = tokio::time::timeout(BOUND, go_on(&next, &task, &reports, &cancel)).await;
        assert!(matches!(outcome, Ok(Outcome::Stopped(_))), "{outcome:?}");
        assert_eq!(reports.steps()["s"].ending(), Ending::Cancelled);
        assert!(machine.launchers().is_empty());
        machine.clean_up().await;
    }
}

#[tokio::test]
async fn a_timeout_counts_while_no_agent_is_there() {
    let machine = Machine::of_agent();
    let (reports, cancel) = (Reports::default(), Cancel::default());
    let mut slow = step("s", "echo up; sleep 1000");
    slow["timeout"] = json!("1s");
    let task = machine.task(&pod(json!([slow]), json!([]))).await;
    until_it_prints(machine.backend.run_task(&task, &reports, &cancel), &reports).await;
    eventually_no_launcher(&machine).await;
    let next = next_agent(&machine);
    let outcome = go_on(&next, &task, &reports, &cancel).await;
    assert!(matches!(outcome, Outcome::Ran(_)), "{outcome:?}");
    assert_eq!(reports.steps()["s"].ending(), Ending::TimeoutExceeded);
    machine.clean_up().await;
}

#[tokio::test]
async fn processes_that_are_gone_are_not_gone_on_with() {
    let machine = Machine::of_agent();
    let (reports, cancel) = (Reports::default(), Cancel::default());
    let steps = json!([step("s", "echo up; sleep 1000"), step("after", "true")]);
    let task = machine.task(&pod(steps, json!([]))).await;
    until_it_prints(machine.backend.run_task(&task, &reports, &cancel), &reports).await;
    for launcher in machine.launchers() {
        // SAFETY: no memory is involved; the launcher is this test's.
        unsafe { libc::kill(launcher, libc::SIGKILL) };
    }
    eventually_no_launcher(&machine).await;
    let next = next_agent(&machine);
    let outcome = go_on(&next, &task, &reports, &cancel).await;
    let Outcome::Infra(infra) = outcome else { panic!("{outcome:?}") };
    assert_eq!(infra.reason, "infra/agent-restarted");
    assert!(infra.message.contains("step-s are gone"), "{}", infra.message);
    assert!(!reports.steps().contains_key("s"));
    machine.clean_up().await;
}

#[tokio::test]
async fn an_agent_with_another_life_kills_what_the_earlier_one_ran() {
    let machine = Machine::of_agent();
    let (reports, cancel) = (Reports::default(), Cancel::default());
    let task = machine.task(&pod(json!([step("s", "echo up; sleep 1000")]), json!([]))).await;
    until_it_prints(machine.backend.run_task(&task, &reports, &cancel), &reports).await;
    let next = backend(machine.data.path(), life(machine.data.path(), "another"));
    assert!(next.reap().await.unwrap() >= 2);
    assert!(machine.launchers().is_empty());
    assert!(host_support::is_empty(&machine.data.path().join("pods")));
}

#[tokio::test]
async fn what_no_agent_of_a_fleet_runs_dies_with_its_process() {
    let machine = Machine::new();
    let (reports, cancel) = (Reports::default(), Cancel::default());
    let task = machine.task(&pod(json!([step("s", "echo up; sleep 1000")]), json!([]))).await;
    until_it_prints(machine.backend.run_task(&task, &reports, &cancel), &reports).await;
    eventually_no_launcher(&machine).await;
    machine.clean_up().await;
}

/// Elsewhere, because the guard of the test runs on this thread.
async fn renew(guard: Guard, until: Option<Duration>) -> (Guard, bool) {
    let renewed = tokio::task::spawn_blocking(move || {
        let frozen = guard.renew(until).unwrap();
        (guard, frozen)
    });
    renewed.await.unwrap()
}

#[tokio::test]
async fn what_runs_is_frozen_when_the_lease_is_over_and_goes_on_when_it_is_thawed() {
    let machine = Machine::of_agent();
    let owner = life(machine.data.path(), "life").name();
    let data_dir = machine.data.path().to_owned();
    // The guard of this test is a task of it, and not another process.
    let options = GuardOptions {
        data_dir: data_dir.clone(),
        program: "/bin/true".into(),
        on_expiry: OnExpiry::Freeze,
        backend: "host",
        owner: owner.clone(),
    };
    let agents_end = Guard::start(options).unwrap();
    let args = GuardArgs {
        data_dir,
        id: tenon_agent::owner::owner(),
        agent: tenon_agent::owner::owner(),
        owner,
        backend: "host".into(),
        on_expiry: OnExpiry::Freeze,
    };
    let (mut agents_end, _) = renew(agents_end, None).await;
    let mut guard = tokio::task::JoinSet::new();
    guard.spawn(guard::run(args));

    let reports = Reports::default();
    let script = "#!/bin/sh\ni=0\nwhile [ $i -lt 100 ]; do echo $i; i=$((i+1)); sleep 0.02; done\n";
    let steps = json!([{"name": "s", "image": "x", "script": script, "timeout": "20s"}]);
    let cancel = Cancel::default();
    let running = machine.run(pod(steps, json!([])), &reports, &cancel);
    let story = async {
        reports.printed.notified().await;
        (agents_end, _) = renew(agents_end, Some(since_boot())).await;
        let frozen = async {
            let mut frozen = false;
            while !frozen {
                tokio::time::sleep(Duration::from_millis(20)).await;
                (agents_end, frozen) = renew(agents_end, Some(since_boot())).await;
            }
            agents_end
        };
        let agents_end = tokio::time::timeout(BOUND, frozen).await.unwrap();
        // What was printed before it was frozen is read soon; then nothing comes any more.
        let mut log = reports.log();
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = reports.log();
            if now == log {
                break;
            }
            log = now;
        }
        assert!(reports.steps().is_empty() && log.lines().count() < 100, "{log}");
        renew(agents_end, None).await;
        machine.backend.thaw(&machine.attempt()).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(running, story);
    assert!(matches!(outcome, Outcome::Ran(_)), "{outcome:?}");
    let all: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(reports.log().lines().collect::<Vec<_>>(), all);
}
