//! The host backend on the real kernel: as root, or with user namespaces. Where neither works the
//! tests fail with the kernel's reason, instead of passing without having tried.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

mod host_support;

use std::path::Path;
use std::time::{Duration, Instant};

use host_support::{Machine, Reports, pod, step};
use serde_json::json;
use tenon_agent::backend::{Backend, Cancel};
use tenon_proto::agent::v1::{
    AttemptId, Ending, RunSpec, TaskInvocation, ended::Outcome, report::What,
};

#[tokio::test]
async fn steps_run_in_order_and_share_what_tekton_shares() {
    let machine = Machine::new();
    let reports = machine
        .steps(json!([
            step("one", "echo data > /workspace/shared; echo x > /leak; mkdir /www; printf %s $$ > /tekton/results/r"),
            step(
                "two",
                "cat /workspace/shared; readlink /tekton/steps/step-one; cat /tekton/steps/step-one/exitCode; echo
                 test ! -e /leak && echo private-root
                 echo x 2>/dev/null > /tekton/run/0/out || echo read-only-run
                 echo pwd=$PWD host=$(hostname)"
            ),
        ]))
        .await;
    assert_eq!(
        reports.log(),
        "data\n/tekton/run/0/status\n0\nprivate-root\nread-only-run\npwd=/ host=t-pod\n"
    );
    assert!(reports.said.lock().unwrap().iter().any(|said| said.contains("images are ignored")));
    let steps = reports.steps();
    assert_eq!(steps["two"].ending(), Ending::Completed);
    assert!(steps["one"].task_results.contains_key("r"));
}

#[tokio::test]
async fn a_step_says_what_it_has_used() {
    let machine = Machine::new();
    let reports = machine
        .steps(json!([
            step("loop", "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done"),
            step("write", "head -c 8388608 /dev/zero > /workspace/file"),
        ]))
        .await;
    let steps = reports.steps();
    let usage = |step: &str| steps[step].usage.unwrap_or_default();
    assert!(usage("loop").cpu_micros > Some(10_000), "{:?}", usage("loop"));
    assert!(usage("loop").memory_peak_bytes > Some(100_000), "{:?}", usage("loop"));
    // The directory may be in memory, where nothing is written to a disk.
    assert!(usage("write").io_write_bytes.is_some(), "{:?}", usage("write"));
}

#[tokio::test]
async fn a_container_has_least_without_asking() {
    let machine = Machine::new();
    let status = "grep -E '^(CapBnd|NoNewPrivs):' /proc/self/status | tr -d '\\t'";
    let with = |mut step: serde_json::Value, security: serde_json::Value| {
        step["securityContext"] = security;
        step
    };
    let reports = machine
        .steps(json!([
            step("least", status),
            with(step("none", status), json!({"capabilities": {"drop": ["ALL"]}})),
            with(
                step("some", status),
                json!({"capabilities": {"add": ["MKNOD"], "drop": ["ALL"]}, "allowPrivilegeEscalation": true})
            ),
            with(
                step("sealed", "touch /x 2>/dev/null || touch /tmp/x 2>/dev/null || touch ~/x 2>/dev/null || echo sealed
                                touch /workspace/x && echo open > /dev/shm/x && cat /dev/shm/x"),
                json!({"readOnlyRootFilesystem": true})
            ),
        ]))
        .await;
    assert_eq!(
        reports.log(),
        "CapBnd:00000000800404fb\nNoNewPrivs:1\nCapBnd:0000000000000000\nNoNewPrivs:1\n\
         CapBnd:0000000008000000\nNoNewPrivs:0\nsealed\nopen\n"
    );
}

#[tokio::test]
async fn a_probe_may_do_what_its_sidecar_may() {
    let machine = Machine::new();
    let reports = Reports::default();
    let mut sidecar = step("s", "sleep 3000");
    let probe = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Uid):' /proc/self/status > /workspace/said";
    sidecar["readinessProbe"] = json!({"exec": {"command": ["sh", "-c", probe]}});
    sidecar["securityContext"] = json!({"capabilities": {"drop": ["ALL"]}});
    let shared = json!([{"name": "w", "mountPath": "/workspace"}]);
    sidecar["volumeMounts"] = shared.clone();
    let mut reader = step("r", "cat /workspace/said");
    reader["volumeMounts"] = shared;
    let mut pod = pod(json!([reader]), json!([sidecar]));
    pod["volumes"] = json!([{"name": "w", "emptyDir": {}}]);
    machine.run(pod, &reports, &Cancel::default()).await;
    let log = reports.log().replace('\t', " ");
    assert!(log.contains("CapEff: 0000000000000000\nCapBnd: 0000000000000000"), "{log}");
    assert!(log.contains("NoNewPrivs: 1"), "{log}");
}

#[tokio::test]
async fn what_a_machine_does_not_allow_is_refused_on_the_host_too() {
    let machine = Machine::new();
    let mut root = step("s", "true");
    root["securityContext"] = json!({"privileged": true});
    let reports = Reports::default();
    let outcome = machine.run(pod(json!([root]), json!([])), &reports, &Cancel::default()).await;
    assert!(
        matches!(&outcome, Outcome::Refused(refused) if refused.reason == "PodAdmissionFailed"),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn the_machine_is_read_only_and_scratch_space_is_private() {
    let machine = Machine::new();
    let marker = tempfile::NamedTempFile::new().unwrap();
    let reports = machine
        .steps(json!([step(
            "s",
            &format!(
                "for d in /usr /etc /var; do touch $d/tenon-test 2>/dev/null && echo wrote $d; done
                 for d in /tmp /var/tmp /dev/shm $HOME; do touch $d/x || echo no $d; done
                 test ! -e {} && echo own-tmp; ls /proc | grep -c '^[0-9]*$' | (read n; test $n -lt 10 && echo own-pids)
                 echo to-null > /dev/null && echo null; test -e {} || echo hidden",
                marker.path().display(),
                machine.data.path().join("pods").display(),
            )
        )]))
        .await;
    assert_eq!(reports.log(), "own-tmp\nown-pids\nnull\nhidden\n");
    assert!(!Path::new("/etc/tenon-test").exists());
}

#[tokio::test]
async fn mount_points_and_working_directories_are_made_anywhere() {
    let machine = Machine::new();
    let mut one = step(
        "s",
        "pwd; touch /etc/tenon-deep/mount/x /vol/x && echo mounted; test -e /etc/passwd && echo rest",
    );
    one["workingDir"] = json!("/a/path/too/far");
    one["volumeMounts"] = json!([{"name": "v", "mountPath": "/etc/tenon-deep/mount"}, {"name": "v", "mountPath": "/vol"}]);
    let mut pod = pod(json!([one]), json!([]));
    pod["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    let reports = Reports::default();
    let outcome = machine.run(pod, &reports, &Cancel::default()).await;
    assert!(matches!(outcome, Outcome::Ran(_)), "{outcome:?}");
    assert_eq!(reports.log(), "/a/path/too/far\nmounted\nrest\n");
    assert!(!Path::new("/etc/tenon-deep").exists());
}

#[tokio::test]
async fn a_failed_step_skips_the_rest() {
    let machine = Machine::new();
    let reports = machine.steps(json!([step("a", "exit 3"), step("b", "echo never")])).await;
    let steps = reports.steps();
    assert_eq!((steps["a"].exit_code, steps["a"].ending()), (3, Ending::Error));
    assert_eq!((steps["b"].exit_code, steps["b"].ending()), (1, Ending::Skipped));
    assert_eq!(reports.log(), "");
}

#[tokio::test]
async fn a_step_that_needs_an_image_is_refused() {
    let machine = Machine::new();
    let reports = Reports::default();
    let pod = pod(json!([{"name": "s", "image": "busybox", "args": ["-c", "x"]}]), json!([]));
    let outcome = machine.run(pod, &reports, &Cancel::default()).await;
    let Outcome::Refused(refused) = outcome else { panic!("{outcome:?}") };
    assert!(
        refused.message.contains("no image \"busybox\" to take a command from"),
        "{}",
        refused.message
    );
}

#[tokio::test]
async fn cancelling_ends_the_whole_tree() {
    for kill in [false, true] {
        let machine = Machine::new();
        let reports = Reports::default();
        let cancel = Cancel::default();
        let script = if kill {
            "trap 'echo term' TERM; echo up; while :; do sleep 0.1; done"
        } else {
            "echo up; sleep 1000"
        };
        let tell = async {
            while reports.log().is_empty() {
                reports.printed.notified().await;
            }
            if kill {
                cancel.kill.cancel();
            }
            cancel.stop.cancel();
        };
        let started = Instant::now();
        let pod = pod(json!([step("s", script)]), json!([]));
        let (outcome, ()) = tokio::join!(machine.run(pod, &reports, &cancel), tell);
        assert!(matches!(outcome, Outcome::Stopped(_)), "{outcome:?}");
        assert!(started.elapsed() < Duration::from_secs(10));
        assert_eq!(reports.steps()["s"].ending(), Ending::Cancelled);
        if kill {
            assert_eq!((reports.log(), reports.steps()["s"].exit_code), ("up\n".to_owned(), 137));
        }
    }
}

#[tokio::test]
async fn a_sidecar_is_ready_before_the_first_step_and_ends_after_the_last() {
    let machine = Machine::new();
    let reports = Reports::default();
    let mut sidecar = step(
        "web",
        "trap 'echo told; exit 0' TERM; echo up; touch /ready; while :; do sleep 0.05; done",
    );
    sidecar["readinessProbe"] =
        json!({"exec": {"command": ["test", "-e", "/ready"]}, "periodSeconds": 1});
    let pod = pod(json!([step("s", "echo step")]), json!([sidecar]));
    let outcome = machine.run(pod, &reports, &Cancel::default()).await;
    assert!(matches!(outcome, Outcome::Ran(_)), "{outcome:?}");
    let log = reports.log();
    for line in ["up\n", "step\n", "told\n"] {
        assert!(log.contains(line), "{log}");
    }
    let seen = reports.seen.lock().unwrap();
    let at = |wanted: fn(&What) -> bool| seen.iter().position(wanted).unwrap();
    let sidecar = at(|what| matches!(what, What::SidecarStarted(_)));
    assert!(sidecar < at(|what| matches!(what, What::StepStarted(_))));
    let Some(What::SidecarEnded(end)) = seen.last() else { panic!("{seen:?}") };
    assert!(end.stopped);
    assert_eq!(end.exit_code, 0);
}

#[tokio::test]
async fn a_one_step_attempt_is_quick() {
    let machine = Machine::new();
    let mut times = Vec::new();
    for _ in 0..11 {
        let start = Instant::now();
        machine.steps(json!([step("s", "true")])).await;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    eprintln!("one step on the host: median {:?}, all {times:?}", times[5]);
    assert!(times[5] < Duration::from_millis(200), "{times:?}");
}

#[tokio::test]
async fn a_run_that_continues_another_finds_its_claims() {
    let machine = Machine::new();
    let unique = machine.data.path().file_name().unwrap().to_string_lossy().into_owned();
    let runs = machine.data.path().join("runs");
    let (old, new) = (format!("{unique}-old"), format!("{unique}-new"));
    let run = async |run: &str, claims_of: &[(&str, &str)], script: &str| {
        let pod = json!({
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "work"}}],
            "steps": [{"name": "s", "image": "x", "script": script,
                       "volumeMounts": [{"name": "v", "mountPath": "/workspace/v"}]}],
        });
        machine
            .backend
            .prepare(&RunSpec { run_id: run.to_owned(), ..RunSpec::default() })
            .await
            .unwrap();
        let attempt =
            AttemptId { run_id: run.to_owned(), task_run: "t".into(), attempt: 1, placement: 1 };
        let task = TaskInvocation {
            attempt: Some(attempt),
            pod_json: pod.to_string(),
            claims_of: claims_of.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
            ..TaskInvocation::default()
        };
        let reports = Reports::default();
        machine.backend.run_task(&task, &reports, &Cancel::default()).await;
        reports.log()
    };
    run(&old, &[], "#!/bin/sh\necho kept > /workspace/v/file").await;
    machine.backend.cleanup(&old, true).await.unwrap();
    assert!(runs.join(&old).join("claims/work/file").exists());
    // Whoever looks for what dead agents left leaves it alone too.
    machine.backend.reap().await.unwrap();
    let log = run(&new, &[("work", &old)], "#!/bin/sh\ncat /workspace/v/file").await;
    assert_eq!(log, "kept\n");
    machine.backend.cleanup(&new, true).await.unwrap();
    assert!(!runs.join(&new).exists(), "it had no claims of its own");
    machine.backend.cleanup(&old, false).await.unwrap();
    assert!(!runs.join(&old).exists());
}
