//! The event stream keeps its contract: order, numbers without gaps, the same bytes when replayed.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::collections::BTreeMap;

use serde_json::Value;
use tenon_tests::{Said, Tenon};

const PIPELINE: &str = r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: all-kinds}
spec:
  workspaces: [{name: w, volumeClaimTemplate: {spec: {resources: {requests: {storage: 1Mi}}}}}]
  pipelineSpec:
    workspaces: [{name: w}]
    tasks:
    - name: rows
      displayName: the rows
      retries: 1
      matrix: {params: [{name: row, value: ["1", "2"]}]}
      workspaces: [{name: w}]
      taskSpec:
        params: [{name: row}]
        workspaces: [{name: w}]
        results: [{name: r}]
        steps:
        - name: one
          image: busybox
          script: |
            echo out $(params.row); echo err $(params.row) >&2
            printf $(params.row) > $(results.r.path)
        - name: two
          image: busybox
          script: test -e $(workspaces.w.path)/$(params.row) || { touch $(workspaces.w.path)/$(params.row); exit 3; }
    - name: never
      when: [{input: a, operator: in, values: [b]}]
      matrix: {params: [{name: row, value: ["1", "2"]}]}
      taskSpec: {params: [{name: row}], steps: [{image: busybox, script: echo}]}
"#;

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["kind"] == kind).collect()
}

fn position(events: &[Value], wanted: impl Fn(&Value) -> bool) -> usize {
    events.iter().position(wanted).unwrap()
}

fn run(tenon: &Tenon) -> Said {
    tenon.run(PIPELINE, &["-o", "json"]).expect(0)
}

fn keeps_the_contract(tenon: &Tenon) {
    let said = run(tenon);
    let events = said.events();

    for (position, event) in events.iter().enumerate() {
        assert_eq!(event["runSeq"], position + 1, "{event}");
        assert_eq!(event["traceId"].as_str().unwrap().len(), 32);
        assert_eq!(event["time"].as_str().unwrap().len(), "2026-01-01T00:00:00.000Z".len());
    }
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(events.first().unwrap()["kind"], "run-start");
    assert_eq!(of_kind(&events, "run-end").len(), 1);
    assert_eq!(events.last().unwrap()["kind"], "run-end");
    assert_eq!(events.last().unwrap()["status"], "succeeded");

    for kind in ["task-start", "task-retry", "task-end"] {
        for event in of_kind(&events, kind) {
            assert_eq!(event["matrix"]["parent"], "rows", "{event}");
            assert_eq!(event["matrix"]["of"], 2, "{event}");
        }
    }
    assert_eq!(of_kind(&events, "task-start").len(), 4);
    assert_eq!(of_kind(&events, "task-retry").len(), 2);
    assert_eq!(of_kind(&events, "task-end").len(), 2);
    for skip in of_kind(&events, "task-skip") {
        assert_eq!(skip["task"], "never");
        assert_eq!(skip["reason"], "When Expressions evaluated to false");
    }
    for end in of_kind(&events, "task-end") {
        let row = end["matrix"]["params"]["row"].clone();
        assert_eq!(end["attempt"], 2);
        assert_eq!(end["results"]["r"], row);
        assert!(end["durationMs"].is_u64());
    }
    for retry in of_kind(&events, "task-retry") {
        assert_eq!((&retry["attempt"], &retry["reason"]), (&1.into(), &"StepFailed".into()));
    }
    let codes: Vec<_> = of_kind(&events, "step-end").iter().map(|end| &end["exitCode"]).collect();
    assert_eq!(codes.iter().filter(|code| **code == 3).count(), 2);
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 6);

    let mut by_step: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for event in events.iter().filter(|event| event.get("step").is_some()) {
        let step = format!("{} {} {}", event["taskRun"], event["attempt"], event["step"]);
        by_step.entry(step).or_default().push(event);
    }
    for (step, of_step) in &by_step {
        let (first, rest) = of_step.split_first().unwrap();
        let (last, lines) = rest.split_last().unwrap();
        assert_eq!(first["kind"], "step-start", "{step}");
        assert_eq!(last["kind"], "step-end", "{step}");
        assert!(lines.iter().all(|line| line["kind"] == "step-log"), "{step}");
        let end = position(&events, |event| event == *last);
        let task_over = position(&events, |event| {
            (event["kind"] == "task-end" || event["kind"] == "task-retry")
                && event["taskRun"] == last["taskRun"]
                && event["attempt"] == last["attempt"]
        });
        assert!(end < task_over, "{step}");
    }
    let streams: Vec<_> = of_kind(&events, "step-log").iter().map(|log| &log["stream"]).collect();
    assert_eq!(streams.iter().filter(|stream| **stream == "stderr").count(), 4);

    let replay = tenon.tenon(&["logs", "latest", "-o", "json"]).expect(0);
    assert_eq!(replay.stdout, said.stdout, "a replay is the same bytes");
}

#[test]
fn on_docker() {
    keeps_the_contract(&Tenon::docker());
}

#[test]
fn on_the_host() {
    keeps_the_contract(&Tenon::host());
}
