//! Running a run again from its failed tasks on.

use serde_json::json;
use tenon_tekton::v1::ParamValue;

use super::sim::*;
use crate::command::{CancelMode, RunObject};
use crate::event::{Event, Kind, Status};
use crate::rerun::{KEPT, NoRerun, Rerun};
use crate::{Claim, Command, RunId, Submission, Time, Work};

const AGAIN: RunId = RunId(ulid::Ulid(8));

/// `a` and a fan-out succeed, `broken` fails; `after` comes after it, `beside` does not.
fn pipeline_of_six() -> Submission {
    pipeline_run(json!({
        "workspaces": [{"name": "w", "volumeClaimTemplate": {"spec": {}}}],
        "pipelineSpec": {
            "workspaces": [{"name": "w"}],
            "results": [
                {"name": "whole", "value": "$(tasks.fan.results.r[*])"},
                {"name": "one", "value": "$(tasks.a.results.r)"},
            ],
            "tasks": [
                task("a", &["r"], json!({})),
                task("fan", &["r"], json!({"matrix": {"params": [{"name": "m", "value": ["x", "y"]}]}})),
                task("never", &[], json!({"when": [{"input": "a", "operator": "in", "values": ["b"]}]})),
                task("beside", &["r"], json!({
                    "params": [{"name": "p", "value": "$(tasks.a.results.r)"}],
                    "runAfter": ["never"],
                })),
                task("broken", &["r"], json!({"params": [
                    {"name": "of-a", "value": "$(tasks.a.results.r)"},
                    {"name": "of-fan", "value": "$(tasks.fan.results.r[*])"},
                ], "taskSpec": {
                    "params": [{"name": "of-a"}, {"name": "of-fan", "type": "array"}],
                    "results": [{"name": "r"}],
                    "steps": [{"name": "s", "image": "busybox", "script": "echo"}],
                }})),
                task("after", &[], json!({
                    "runAfter": ["beside"],
                    "params": [{"name": "p", "value": "$(tasks.broken.results.r)"}],
                    "when": [{"input": "$(tasks.a.results.r)", "operator": "in", "values": ["of-a"]}],
                })),
            ],
            "finally": [task("report", &[], json!({"params": [
                {"name": "status", "value": "$(tasks.a.status) $(tasks.beside.status) $(tasks.status)"},
                {"name": "result", "value": "$(tasks.a.results.r)"},
            ]}))],
        },
    }))
}

fn first_run(submission: &Submission) -> Sim {
    let writes = |value: &str| Does::Succeeds(writes(&[("r", value)]));
    let mut sim = Sim::new(submission.clone())
        .does("a", &[writes("of-a")])
        .does("fan-0", &[writes("fan0")])
        .does("fan-1", &[writes("fan1")])
        .does("broken", &[fails()]);
    assert_eq!(sim.finish().status, Status::Failed);
    sim
}

fn events_of(sim: &Sim, kind: Kind) -> Vec<&Event> {
    sim.events.iter().filter(|event| event.kind == kind).collect()
}

fn tasks_of(sim: &Sim, kind: Kind) -> Vec<&str> {
    events_of(sim, kind).into_iter().filter_map(|event| event.task.as_deref()).collect()
}

#[test]
fn only_what_failed_and_what_follows_runs_again() {
    let submission = pipeline_of_six();
    let first = first_run(&submission);
    let rerun = Rerun::from_failed(&submission, &first.engine.objects(RUN)).expect("a rerun");
    assert_eq!(rerun.keep.keys().collect::<Vec<_>>(), ["a", "beside", "fan"]);
    let claims = rerun.claims.clone().expect("claims");
    assert_eq!(claims.run, RUN);
    let old_claim = first.engine.claims(RUN).count();
    assert_eq!(old_claim, 0, "no task uses the workspace");

    let again = submission.again(AGAIN, rerun);
    assert_eq!((again.claims_run(), submission.claims_run()), (RUN, RUN));
    let mut sim = Sim::new(again).does("broken", &[Does::Succeeds(writes(&[("r", "of-broken")]))]);
    assert_eq!(sim.finish().status, Status::Succeeded);
    assert_eq!(tasks_of(&sim, Kind::TaskStart), ["broken", "after", "report"]);
    assert_eq!(tasks_of(&sim, Kind::TaskSkip), ["a", "fan", "never", "beside"]);
    let kept = events_of(&sim, Kind::TaskSkip)[0];
    assert_eq!(kept.reason.as_deref(), Some("rerun/kept"));
    assert_eq!(kept.status, Some(Status::Skipped));
    let told = format!("succeeded in run {RUN}");
    assert_eq!(kept.message.as_deref(), Some(told.as_str()));
    // Their results are there for params, `when`, `finally` and the Pipeline's results.
    let params = |name: &str| sim.task_runs()[name].spec.params.clone();
    let broken = params("pr-broken");
    assert_eq!(broken[0].value, ParamValue::from("of-a"));
    let whole = ParamValue::Array(vec!["fan0".into(), "fan1".into()]);
    assert_eq!(broken[1].value, whole);
    assert_eq!(params("pr-report")[0].value, ParamValue::from("Succeeded Succeeded Completed"));
    assert_eq!(params("pr-report")[1].value, ParamValue::from("of-a"));
    let status = sim.status();
    assert_eq!(status.results[0].value, whole);
    assert_eq!(
        sim.skipped(),
        map(&[
            ("a", KEPT),
            ("fan", KEPT),
            ("never", "When Expressions evaluated to false"),
            ("beside", KEPT)
        ])
    );
    assert_eq!(sim.condition().2, "Tasks Completed: 6 (Failed: 0, Cancelled 0), Skipped: 1");
}

#[test]
fn a_rerun_of_a_rerun_keeps_what_the_first_run_did() {
    let submission = pipeline_of_six();
    let first = first_run(&submission);
    let rerun = Rerun::from_failed(&submission, &first.engine.objects(RUN)).expect("a rerun");
    let second_submission = submission.again(AGAIN, rerun);
    let mut second = Sim::new(second_submission.clone())
        .does("broken", &[Does::Succeeds(writes(&[("r", "of-broken")]))])
        .does("after", &[fails()]);
    second.finish();
    let objects = second.engine.objects(AGAIN);
    let rerun = Rerun::from_failed(&second_submission, &objects).expect("a rerun");
    assert_eq!(rerun.of, AGAIN);
    let ran_in = |task: &str| rerun.keep[task].ran_in;
    assert_eq!((ran_in("a"), ran_in("broken")), (RUN, AGAIN));
    assert_eq!(rerun.claims.as_ref().map(|claims| claims.run), Some(RUN));
    let mut third = Sim::new(second_submission.again(RunId(ulid::Ulid(9)), rerun));
    assert_eq!(third.finish().status, Status::Succeeded);
    assert_eq!(tasks_of(&third, Kind::TaskStart), ["after", "report"]);
    // Kept tasks survive a move of the run, like everything else.
    let bytes = third.engine.export(third.run).expect("a run");
    assert_eq!(crate::Engine::new().import(&bytes), Ok(third.run));
}

#[test]
fn claims_are_those_of_the_old_run_and_stay_at_home() {
    let shared = json!({
        "workspaces": [{"name": "w", "workspace": "w"}],
        "taskSpec": {
            "workspaces": [{"name": "w"}],
            "steps": [{"name": "s", "image": "busybox", "script": "echo"}],
        },
    });
    let after = json!({"runAfter": ["a"]});
    let mut failing = shared.clone();
    failing["runAfter"] = after["runAfter"].clone();
    let submission = pipeline_run(json!({
        "workspaces": [{"name": "w", "volumeClaimTemplate": {"spec": {}}}],
        "pipelineSpec": {
            "workspaces": [{"name": "w"}],
            "tasks": [task("a", &[], shared), task("b", &[], failing)],
        },
    }));
    let claim_of = |sim: &Sim| match &sim.engine.pending_work()[..] {
        [Work::Place { requirements, .. }] => requirements.clone(),
        other => panic!("one attempt to place: {other:?}"),
    };
    let mut first = Sim::new(submission.clone()).does("b", &[fails()]);
    let before = claim_of(&first);
    assert_eq!((before.claims.len(), before.home.as_deref()), (1, None));
    first.finish();
    let homes: Vec<(String, Claim)> =
        first.engine.claims(RUN).map(|(name, claim)| (name.to_owned(), claim.clone())).collect();
    let claim = format!("default/{}", before.claims.first().expect("a claim"));
    assert_eq!((homes[0].0.as_str(), homes[0].1.home.as_str()), (claim.as_str(), "local"));

    let mut rerun = Rerun::from_failed(&submission, &first.engine.objects(RUN)).expect("a rerun");
    if let Some(claims) = &mut rerun.claims {
        claims.homes = homes.into_iter().collect();
    }
    let again = Sim::new(submission.again(AGAIN, rerun));
    let now = claim_of(&again);
    assert_eq!(now.claims, before.claims);
    assert_eq!((now.home.as_deref(), now.unsaved), (Some("local"), true));
    assert_eq!(again.engine.claims_run(AGAIN), Some(RUN));
    assert_eq!(again.engine.name_of(AGAIN), Some(("default", "pr")));
    let works = again.engine.pending_work();
    let [Work::Place { attempt, .. }] = &works[..] else { panic!("{works:?}") };
    let claim = before.claims.first().expect("a claim").clone();
    let (attempt, mut again) = (attempt.clone(), again);
    let place = |agent: &str| Command::Place {
        time: Time(1_700_000_000_000),
        attempt: attempt.clone(),
        agent: agent.to_owned(),
    };
    again.apply(place("another"));
    assert_eq!(again.engine.placed().count(), 0, "its files are nowhere else");
    again.apply(place("local"));
    let used = again.engine.claim_uses(&attempt);
    assert_eq!((used[0].name.as_str(), used[0].owner, used[0].moves), (claim.as_str(), RUN, 1));

    let whole = Sim::new(submission.again(AGAIN, Rerun::whole(RUN)));
    assert_ne!(claim_of(&whole).claims, before.claims);
    assert_eq!(whole.engine.claims_run(AGAIN), Some(AGAIN));
}

#[test]
fn what_cannot_be_run_again_so() {
    let submission = pipeline(json!({"tasks": [task("t", &[], json!({}))]}));
    let mut sim = Sim::new(submission.clone());
    let rerun = |sim: &Sim, submission: &Submission| {
        Rerun::from_failed(submission, &sim.engine.objects(RUN))
    };
    assert_eq!(rerun(&sim, &submission), Err(NoRerun::NotOver));
    sim.finish();
    assert_eq!(rerun(&sim, &submission), Err(NoRerun::Succeeded));
    let single = task_run(json!({"taskSpec": {"steps": [{"image": "busybox", "script": "echo"}]}}));
    let mut sim = Sim::new(single.clone()).does("tr", &[fails()]);
    sim.finish();
    assert_eq!(rerun(&sim, &single), Err(NoRerun::TaskRun));
    let mut again = Sim::new(single.again(AGAIN, Rerun::whole(RUN)));
    assert_eq!(again.finish().status, Status::Succeeded);
}

#[test]
fn a_cancelled_run_with_a_generated_name_gets_a_new_one() {
    let mut submission = pipeline(json!({"tasks": [task("t", &[], json!({}))]}));
    if let RunObject::PipelineRun(run) = &mut submission.run {
        run.metadata.name = "build-abcde".to_owned();
        run.metadata.generate_name = "build-".to_owned();
    }
    let mut sim = Sim::new(submission.clone());
    sim.cancel(CancelMode::Cancelled);
    sim.finish();
    let rerun = Rerun::from_failed(&submission, &sim.engine.objects(RUN)).expect("a rerun");
    assert!(rerun.keep.is_empty());
    let again = submission.again(AGAIN, rerun.clone());
    assert_eq!(again, submission.again(AGAIN, rerun));
    let RunObject::PipelineRun(run) = &again.run else { panic!("a PipelineRun") };
    assert!(run.metadata.name.starts_with("build-") && run.metadata.name != "build-abcde");
    assert!(run.spec.status.is_empty() && run.metadata.uid.is_empty());
}
