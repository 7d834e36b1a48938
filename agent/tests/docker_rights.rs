//! What containers may do on a real Docker daemon: least without asking, what they ask for where the
//! machine allows it, and nothing at all where it does not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use serde_json::{Value, json};
use support::{Machine, docker};
use tenon_agent::policy::Policy;
use tenon_proto::agent::v1::Ending;
use tenon_proto::agent::v1::ended::Outcome;

const STATUS: &str = "grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'";

fn granting(grants: &[&str]) -> Policy {
    let grants = grants.iter().map(|grant| grant.parse().unwrap()).collect();
    Policy { grants, ..Policy::default() }
}

#[track_caller]
fn refusal(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Refused(refused) if refused.reason == "PodAdmissionFailed" => &refused.message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_container_has_least_without_asking() {
    let machine = Machine::with(Policy { pids_limit: 100, ..Policy::default() }).await;
    let script = format!(
        "{STATUS}; mknod /d c 1 3 2>/dev/null || echo no-mknod
         cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null || true
         touch /f && chown 7:7 /f && chmod 600 /f && cat /f && su -s /bin/sh root -c 'echo su'
         mkdir /r && chroot / true && tar c /f 2>/dev/null | tar x -C /r && ls -n /r/f"
    );
    let ran = machine.run(json!({"steps": [{"script": script}]})).await;
    let log = ran.log("s0");
    assert_eq!(ran.ending("s0"), (0, Ending::Completed), "{log}");
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE, SYS_CHROOT, SETFCAP.
    let first = "CapBnd:00000000800404fb\nNoNewPrivs:1\nSeccomp:2\nno-mknod\n100\n";
    assert!(log.starts_with(first), "{log}");
    assert!(log.contains("\nsu\n") && log.contains(" 7        7 "), "{log}");
}

#[tokio::test]
async fn the_baseline_is_had_for_the_asking() {
    let machine = Machine::new().await;
    let step =
        |security: Value, script: &str| json!({"script": script, "securityContext": security});
    let ran = machine
        .run(json!({"steps": [
            step(json!({"capabilities": {"add": ["MKNOD"], "drop": ["ALL"]}}), STATUS),
            step(json!({"allowPrivilegeEscalation": true}), STATUS),
            step(json!({"readOnlyRootFilesystem": true}), "touch /x 2>/dev/null || echo sealed; touch /workspace/x && echo open"),
            step(json!({"runAsUser": 77, "runAsNonRoot": true}), "id -u; grep CapEff /proc/self/status"),
        ]}))
        .await;
    assert_eq!(ran.log("s0"), "CapBnd:0000000008000000\nNoNewPrivs:1\nSeccomp:2");
    assert!(ran.log("s1").ends_with("NoNewPrivs:0\nSeccomp:2"), "{}", ran.log("s1"));
    assert_eq!(ran.log("s2"), "sealed\nopen");
    assert_eq!(ran.log("s3"), "77\nCapEff:\t0000000000000000");
}

#[tokio::test]
async fn beyond_it_the_machines_owner_decides() {
    let privileged = json!({"steps": [{
        "script": STATUS, "securityContext": {"privileged": true},
    }]});
    let machine = Machine::new().await;
    let ran = machine.run(privileged.clone()).await;
    let message = refusal(&ran.outcome);
    assert!(message.contains("securityContext.privileged") && ran.reports.is_empty(), "{message}");
    assert!(message.ends_with("`tenon agent --allow-privileged` does"), "{message}");

    let machine = Machine::with(granting(&["privileged"])).await;
    let ran = machine.run(privileged).await;
    match &ran.outcome {
        // A daemon that has not all rights of a machine cannot give them: it was asked, at least.
        Outcome::Refused(refused) => assert_eq!(refused.reason, "CreateContainerError"),
        _ => assert!(ran.log("s0").ends_with("NoNewPrivs:0\nSeccomp:0"), "{}", ran.log("s0")),
    }

    let bare = json!({"steps": [{"script": STATUS, "securityContext": {
        "seccompProfile": {"type": "Unconfined"}, "capabilities": {"add": ["NET_ADMIN"]},
    }}]});
    let half = Machine::with(granting(&["capability=NET_ADMIN"])).await;
    let ran = half.run(bare.clone()).await;
    assert!(refusal(&ran.outcome).ends_with("--allow-unconfined` does"), "{:?}", ran.outcome);
    let machine = Machine::with(granting(&["capability=ALL", "unconfined"])).await;
    let ran = machine.run(bare).await;
    assert_eq!(ran.log("s0"), "CapBnd:00000000800414fb\nNoNewPrivs:1\nSeccomp:0");
}

#[tokio::test]
async fn a_path_of_the_machine_is_where_it_leads() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let (open, closed) = (dir.join("open"), dir.join("closed"));
    std::fs::create_dir(&open).unwrap();
    std::fs::create_dir(&closed).unwrap();
    std::fs::write(closed.join("file"), "x").unwrap();
    std::os::unix::fs::symlink(&closed, open.join("out")).unwrap();
    let machine = Machine::with(granting(&[&format!("host-path={}", open.display())])).await;
    let pod = |path: String, driver: bool| {
        let source = match driver {
            true => json!({"driver": "directory.tenon.dev", "volumeAttributes": {"path": path}}),
            false => json!({"path": path}),
        };
        let kind = if driver { "csi" } else { "hostPath" };
        json!({
            "steps": [{"script": "ls /v", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", kind: source}],
        })
    };
    let path = |path: &std::path::Path| path.display().to_string();
    let ran = machine.run(pod(path(&open), false)).await;
    assert_eq!(ran.log("s0"), "out");
    let made = open.join("made/here");
    assert!(matches!(machine.run(pod(path(&made), false)).await.outcome, Outcome::Ran(_)));
    for driver in [false, true] {
        for closed in [closed.clone(), open.join("../closed"), open.join("out"), "/".into()] {
            let ran = machine.run(pod(path(&closed), driver)).await;
            assert!(refusal(&ran.outcome).contains("--allow-"), "{closed:?}: {:?}", ran.outcome);
        }
    }
    let socket = pod("/var/run/docker.sock".to_owned(), false);
    let ran = machine.run(socket.clone()).await;
    assert!(refusal(&ran.outcome).ends_with("--allow-docker-socket` does"), "{:?}", ran.outcome);
    let machine = Machine::with(granting(&["docker-socket"])).await;
    let ran = machine.run(socket).await;
    assert_eq!(ran.log("s0"), "/v", "{:?}", ran.outcome);
}

#[tokio::test]
async fn only_images_that_are_listed_are_run() {
    let images = vec!["tenon-agent-test:*".to_owned()];
    let machine = Machine::with(Policy { images, ..Policy::default() }).await;
    let ran = machine.run(json!({"steps": [{"script": "echo fine"}]})).await;
    assert_eq!(ran.log("s0"), "fine");
    let ran = machine.run(json!({"steps": [{"image": "other:1", "script": "echo"}]})).await;
    assert!(refusal(&ran.outcome).ends_with("--allow-image=other:1` does"), "{:?}", ran.outcome);
    assert_eq!(docker(&["image", "ls", "-q", "other"]), "");
}
