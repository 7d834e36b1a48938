//! Steps on a real Docker daemon: order, outcomes, Tekton's directories, what is left behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use serde_json::json;
use support::{IMAGE, Machine, WITH_ENTRYPOINT};
use tenon_agent::backend::Cancel;
use tenon_proto::agent::v1::Ending;
use tenon_proto::agent::v1::ended::Outcome;

#[tokio::test]
async fn one_step() {
    let machine = Machine::new().await;
    let ran =
        machine.run(json!({"steps": [{"script": "echo hello $FROM_IMAGE; echo err >&2"}]})).await;
    assert!(matches!(ran.outcome, Outcome::Ran(_)), "{:?}", ran.outcome);
    assert_eq!(ran.ending("s0"), (0, Ending::Completed));
    assert!(ran.log("s0").contains("hello yes"), "{}", ran.log("s0"));
    assert_eq!(ran.order(), ["start s0", "log s0", "end s0"]);
    let step = ran.step("s0");
    assert!(step.container_id.starts_with("docker://"));
    assert!(step.image_id.contains("sha256:"), "{}", step.image_id);
}

#[tokio::test]
async fn steps_run_in_order_and_share_what_tekton_shares() {
    let machine = Machine::new().await;
    let ran = machine
        .run(json!({
            "results": ["sum"],
            "steps": [
                {"script": "echo one > /workspace/file; printf 3 > /tekton/results/sum\n(hostname; nc -l -p 8123 </dev/null >/workspace/got & ) \necho a > /tekton/home/x"},
                {"script": "cat /workspace/file /tekton/home/x; cat /tekton/steps/0/exitCode /tekton/steps/step-s0/exitCode; hostname; touch /tekton/run/0/out 2>&1 || echo EROFS; touch /tekton/steps/x 2>&1 || echo EROFS; touch /tekton/bin/x || true; ls /tekton"},
                {"script": "exit 7", "onError": "continue"},
                {"script": "exit 3"},
                {"script": "echo never"},
            ],
        }))
        .await;
    assert_eq!(ran.ending("s0"), (0, Ending::Completed));
    assert_eq!(ran.step("s0").task_results["sum"], "3");
    let log = ran.log("s1");
    assert!(log.starts_with("one\na\n00"), "{log}");
    assert_eq!(log.matches("EROFS").count(), 2, "{log}");
    assert!(log.contains("tr-pod"), "{log}");
    assert_eq!(ran.ending("s2"), (7, Ending::Continued));
    assert_eq!(ran.ending("s3"), (3, Ending::Error));
    assert_eq!(ran.ending("s4"), (1, Ending::Skipped));
    assert_eq!(ran.step("s4").started_at_ms, None);
    assert_eq!(ran.log("s4"), "");
    let order = ran.order();
    let at = |what: &str| order.iter().position(|one| one == what).unwrap();
    assert!(at("end s0") < at("start s1") && at("log s1") < at("end s1"), "{order:?}");
    assert!(at("end s3") < at("end s4"), "{order:?}");
}

#[tokio::test]
async fn a_step_says_what_it_has_used() {
    let machine = Machine::new().await;
    let ran = machine
        .run(json!({"steps": [
            {"script": "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done"},
            {"script": "dd if=/dev/zero of=/file bs=1M count=8 2>/dev/null; sync"},
            {"script": "x=$(head -c 30000000 /dev/zero | tr '\\0' x); exit 3"},
            {"script": "never"},
        ]}))
        .await;
    let usage = |step: &str| ran.step(step).usage.unwrap_or_default();
    // Neither is measured: loops and files of this size cost at least so much on any machine.
    assert!(usage("s0").cpu_micros > Some(10_000), "{:?}", usage("s0"));
    assert!(usage("s1").io_write_bytes >= Some(8 << 20), "{:?}", usage("s1"));
    assert!(usage("s2").memory_peak_bytes >= Some(30_000_000), "{:?}", usage("s2"));
    assert_eq!(ran.step("s3").usage, None);
}

#[tokio::test]
async fn commands_of_images() {
    let machine = Machine::new().await;
    let ran = machine
        .run(json!({"steps": [
            {"image": WITH_ENTRYPOINT},
            {"image": WITH_ENTRYPOINT, "args": ["x$(V)", "$$(V)", "$(NO)"], "env": [{"name": "V", "value": "1"}]},
            {"image": IMAGE, "args": ["-c", "echo cmd-is-kept $0", "arg"]},
            {"image": IMAGE, "command": ["echo"], "args": ["a"]},
            {"image": WITH_ENTRYPOINT, "command": ["id", "-u"]},
            {"image": WITH_ENTRYPOINT, "command": ["id"], "securityContext": {"runAsUser": 77, "runAsGroup": 88}},
            {"command": ["pwd"], "workingDir": "/a/path/too/far"},
            {"command": ["pwd"], "workingDir": "below"},
            {"command": ["no-such-command"], "onError": "continue"},
        ]}))
        .await;
    for (step, log) in [
        ("s0", "entry cmd"),
        ("s1", "entry x1 $(V) $(NO)"),
        ("s2", "cmd-is-kept arg"),
        ("s3", "a"),
        ("s4", "12345"),
        ("s5", "uid=77 gid=88 groups=88"),
        ("s6", "/a/path/too/far"),
        ("s7", "/workspace/below"),
    ] {
        assert_eq!(ran.log(step), log, "{step}");
    }
    assert_eq!(ran.ending("s8").1, Ending::Error);
}

#[tokio::test]
async fn timeouts_results_and_non_root() {
    let machine = Machine::new().await;
    let ran = machine
        .run(json!({"steps": [
            {"script": "echo data > /workspace/f; printf v > $(step.results.r.path || echo /tekton/run/0/status/results/r)",
             "results": [{"name": "r"}], "securityContext": {"runAsUser": 4321}},
            {"script": "sleep 60", "timeout": "300ms", "onError": "continue"},
        ]}))
        .await;
    assert_eq!(ran.ending("s0"), (0, Ending::Completed), "{}", ran.log("s0"));
    assert_eq!(ran.step("s0").step_results["r"], "v");
    assert_eq!(ran.ending("s1").1, Ending::TimeoutExceeded);
}

#[tokio::test]
async fn what_cannot_run_is_refused() {
    let machine = Machine::new().await;
    let ran = machine
        .run(json!({"steps": [{"image": "localhost:1/none:1", "imagePullPolicy": "Never"}]}))
        .await;
    let Outcome::Refused(refused) = ran.outcome else { panic!("{:?}", ran.outcome) };
    assert_eq!(refused.reason, "TaskRunImagePullFailed");
    assert!(
        refused.message.contains("the step \"s0\" in TaskRun \"tr\" failed to pull the image"),
        "{}",
        refused.message
    );

    let ran = machine
        .run(json!({"steps": [{"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "k"}}}]}]}))
        .await;
    let Outcome::Refused(refused) = ran.outcome else { panic!("{:?}", ran.outcome) };
    assert_eq!(refused.reason, "CreateContainerConfigError");
    assert!(refused.message.contains("secret \"gone\" not found"), "{}", refused.message);

    let ran = machine
        .run(json!({"steps": [{"command": ["id"], "securityContext": {"runAsNonRoot": true}}]}))
        .await;
    assert!(matches!(ran.outcome, Outcome::Refused(_)), "{:?}", ran.outcome);
}

#[tokio::test]
async fn volumes_and_masking() {
    let machine = Machine::new().await;
    let secret = json!({"kind": "Secret", "metadata": {"name": "s"},
        "stringData": {"token": "t0p-s3cret!", "multi": "first line\nsecond line"}});
    let config = json!({"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "value"}});
    let ran = machine
        .run_with(
            json!({
                "volumes": [
                    {"name": "sec", "secret": {"secretName": "s", "items": [{"key": "token", "path": "deep/er", "mode": 256}]}},
                    {"name": "conf", "configMap": {"name": "c"}},
                    {"name": "pvc", "persistentVolumeClaim": {"claimName": "claim"}},
                    {"name": "mem", "emptyDir": {"medium": "Memory"}},
                ],
                "steps": [
                    {"script": "cat /sec/deep/er; echo; stat -c %a /sec/deep/er; cat /conf/k; echo $TOKEN | base64; echo \"$MULTI\"; touch /conf/x || echo RO; echo shared > /pvc/f; echo m > /mem/f; df /mem | tail -1",
                     "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}},
                             {"name": "MULTI", "valueFrom": {"secretKeyRef": {"name": "s", "key": "multi"}}}],
                     "volumeMounts": [{"name": "sec", "mountPath": "/sec"}, {"name": "conf", "mountPath": "/conf"},
                                      {"name": "pvc", "mountPath": "/pvc", "subPath": "a/b"}, {"name": "mem", "mountPath": "/mem"}]},
                    {"script": "cat /pvc/a/b/f /mem/f", "volumeMounts": [{"name": "pvc", "mountPath": "/pvc"}, {"name": "mem", "mountPath": "/mem"}]},
                ],
            }),
            vec![secret],
            vec![config],
            &Cancel::default(),
        )
        .await;
    let log = ran.log("s0");
    assert!(
        !log.contains("t0p") && !log.contains("first line") && !log.contains("second"),
        "{log}"
    );
    assert!(log.starts_with("***\n400\nvalue***"), "{log}");
    assert!(log.contains("RO") && log.contains("tmpfs") || log.contains("shm"), "{log}");
    assert_eq!(ran.log("s1"), "shared\nm");
}

#[tokio::test]
async fn cancelling_ends_everything_at_once() {
    let machine = Machine::new().await;
    let cancel = Cancel::default();
    let stop = cancel.clone();
    let pod = json!({
        "steps": [{"script": "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done"}, {"script": "echo never"}],
        "sidecars": [{"command": ["sleep", "1000"]}],
    });
    let began = std::time::Instant::now();
    let (ran, ()) = tokio::join!(machine.run_with(pod, vec![], vec![], &cancel), async {
        machine.printed.notified().await;
        stop.stop.cancel();
    });
    assert!(matches!(ran.outcome, Outcome::Stopped(_)), "{:?}", ran.outcome);
    let log = ran.log("s0");
    assert!(log.contains("up") && log.contains("bye"), "{log}");
    assert_eq!(ran.ending("s0").1, Ending::Cancelled);
    assert_eq!(ran.ending("s1").1, Ending::Cancelled);
    assert!(began.elapsed().as_secs() < 15);
}

#[tokio::test]
async fn a_step_that_ignores_the_signal_is_killed() {
    let machine = Machine::new().await;
    let cancel = Cancel::default();
    let stop = cancel.clone();
    let pod = json!({"steps": [{"script": "trap 'echo no' TERM; echo up; while :; do sleep 0.1; done"}, {"script": "true"}]});
    let (ran, ()) = tokio::join!(machine.run_with(pod, vec![], vec![], &cancel), async {
        machine.printed.notified().await;
        stop.stop.cancel();
        machine.printed.notified().await;
        stop.kill.cancel();
    });
    assert!(matches!(ran.outcome, Outcome::Stopped(_)), "{:?}", ran.outcome);
    assert_eq!(ran.ending("s0").1, Ending::Cancelled);
}

#[tokio::test]
async fn without_grace_nothing_is_asked_to_end() {
    let machine = Machine::new().await;
    let cancel = Cancel::default();
    let stop = cancel.clone();
    let pod = json!({"steps": [{"script": "trap 'echo term' TERM; echo up; while :; do sleep 0.1; done"}, {"script": "true"}]});
    let (ran, ()) = tokio::join!(machine.run_with(pod, vec![], vec![], &cancel), async {
        machine.printed.notified().await;
        stop.kill.cancel();
        stop.stop.cancel();
    });
    assert!(matches!(ran.outcome, Outcome::Stopped(_)), "{:?}", ran.outcome);
    assert_eq!((ran.log("s0"), ran.ending("s0")), ("up".to_owned(), (137, Ending::Cancelled)));
    let never = ran.step("s1");
    assert_eq!((never.started_at_ms, &*never.message), (None, "Stopped before it began"));
}

#[tokio::test]
async fn a_pod_has_name_servers_of_its_own() {
    let dns =
        json!({"nameservers": ["192.0.2.7"], "searches": ["a.example"], "options": ["ndots:3"]});
    let steps =
        json!([{"command": ["cat", "/etc/resolv.conf"]}, {"command": ["cat", "/etc/resolv.conf"]}]);
    let ran = Machine::new().await.run(json!({"dns": dns, "steps": steps})).await;
    for step in ["s0", "s1"] {
        let log = ran.log(step);
        for line in ["nameserver 192.0.2.7", "search a.example", "options ndots:3"] {
            assert!(log.contains(line), "{log}");
        }
    }
}

#[tokio::test]
async fn out_of_memory_is_told() {
    let machine = Machine::new().await;
    let ran = machine
        .run(json!({"steps": [
            {"script": "exec tail /dev/zero", "computeResources": {"limits": {"memory": "32Mi"}}},
            {"script": "true"},
        ]}))
        .await;
    assert_eq!(ran.ending("s0"), (137, Ending::OomKilled));
    assert_eq!(ran.ending("s1"), (1, Ending::Skipped));
}
