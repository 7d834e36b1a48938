//! Probes and hooks of sidecars, on both backends.

use tenon_tests::{Said, Tenon};

const TASK_RUN: &str = r#"
apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {name: hooks}
spec:
  taskSpec:
    volumes: [{name: v, emptyDir: {}}]
    steps:
    - name: s
      image: busybox
      volumeMounts: [{name: v, mountPath: /shared}]
      script: |
        cat /shared/started
        cat /shared/probed
    sidecars:
    - name: side
      image: busybox
      volumeMounts: [{name: v, mountPath: /shared}]
      script: |
        trap 'cat /shared/stopping; exit 0' TERM
        while :; do sleep 0.05; done
      lifecycle:
        postStart: {exec: {command: [sh, -c, "POST_START"]}}
        preStop: {exec: {command: [sh, -c, "echo hook before the end > /shared/stopping"]}}
      startupProbe: {exec: {command: [sh, -c, "test -e /shared/probed || { echo probed > /shared/probed; exit 1; }"]}}
"#;

fn run(tenon: &Tenon, post_start: &str) -> Said {
    tenon.run(&TASK_RUN.replace("POST_START", post_start), &["-o", "json"])
}

#[test]
fn hooks_and_probes_run_inside_the_sidecar() {
    for tenon in [Tenon::host(), Tenon::docker()] {
        let said = run(&tenon, "sleep 0.3; echo hook after the start > /shared/started").expect(0);
        let mut log = said.log();
        // What the machine's shell says of the `sleep` that the same signal ended.
        log.retain(|line| line != "Terminated");
        assert_eq!(log, ["hook after the start", "probed", "hook before the end"]);
    }
}

#[test]
fn a_failed_hook_after_the_start_ends_the_sidecar() {
    for tenon in [Tenon::host(), Tenon::docker()] {
        let said = run(&tenon, "exit 1").expect(5);
        let events = said.events();
        let end = events.iter().find(|event| event["kind"] == "sidecar-end").unwrap();
        assert_ne!(end["exitCode"], 0, "{end}");
    }
}
