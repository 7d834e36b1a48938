//! Sidecars on a real Docker daemon, output in bulk, and what the agent's loop makes of it all.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use serde_json::json;
use support::Machine;
use tenon_agent::backend::Backend;
use tenon_agent::{Agent, AgentOptions};
use tenon_proto::agent::v1::ended::Outcome;
use tenon_proto::agent::v1::report::What;
use tenon_proto::agent::v1::{
    Acknowledge, AgentMessage, CoordinatorMessage, EndRun, Ending, SidecarEnded, agent_message,
    coordinator_message,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

fn sidecar_end<'a>(ran: &'a support::Ran, name: &str) -> &'a SidecarEnded {
    ran.reports
        .iter()
        .find_map(|what| match what {
            What::SidecarEnded(ended) if ended.sidecar == name => Some(ended),
            _ => None,
        })
        .unwrap()
}

#[tokio::test]
async fn the_first_step_waits_for_readiness_and_shares_the_network() {
    let machine = Machine::new().await;
    let ran = machine
        .run(json!({
            "volumes": [{"name": "shared", "emptyDir": {}}],
            "steps": [{"script": "cat /shared/ready; wget -qO- http://localhost:8321/index.html; ls /tekton/results | wc -l",
                       "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}],
            "sidecars": [{
                "script": "mkdir /www; echo served > /www/index.html; sleep 1; echo yes > /shared/ready; trap 'echo stopping; exit 0' TERM; httpd -f -p 8321 -h /www & wait",
                "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
                "ports": [{"name": "web", "containerPort": 8321}],
                "readinessProbe": {"httpGet": {"path": "/index.html", "port": "web"}, "periodSeconds": 1},
            }],
        }))
        .await;
    assert!(matches!(ran.outcome, Outcome::Ran(_)), "{:?}", ran.outcome);
    assert_eq!(ran.log("s0"), "yes\nserved\n0");
    assert_eq!(ran.log("sc0"), "stopping");
    assert!(sidecar_end(&ran, "sc0").stopped);
    let order = ran.order();
    assert_eq!(order.first().unwrap(), "start sc0");
    assert_eq!(order.last().unwrap(), "end sc0");
}

#[tokio::test]
async fn a_sidecar_that_fails_by_itself_is_told_and_holds_up_nothing() {
    let machine = Machine::new().await;
    let ran = machine
        .run(json!({
            "steps": [{"script": "sleep 1; echo ok"}],
            "sidecars": [{"script": "echo broken; exit 4",
                          "readinessProbe": {"exec": {"command": ["true"]}, "initialDelaySeconds": 300}}],
        }))
        .await;
    assert_eq!(ran.ending("s0"), (0, Ending::Completed));
    let ended = sidecar_end(&ran, "sc0");
    assert_eq!((ended.exit_code, ended.stopped), (4, false));
}

#[tokio::test]
async fn much_output_is_whole() {
    let machine = Machine::new().await;
    let ran = machine
        .run(json!({"steps": [
            {"script": "seq 1 200000; head -c 3000000 /dev/zero | tr '\\0' x; echo; head -c 100000 /dev/urandom; printf end"},
        ]}))
        .await;
    let log = ran.log("s0");
    assert!(log.starts_with("1\n2\n3\n") && log.contains("\n199999\n200000\n"));
    assert_eq!(log.matches('x').count() / 3_000_000, 1);
    assert!(log.ends_with("end"));
}

#[tokio::test]
async fn a_container_that_is_killed_from_outside_fails_its_step() {
    let machine = Machine::new().await;
    let (ran, ()) = tokio::join!(
        machine.run(json!({"steps": [{"script": "sleep 100"}, {"script": "echo never"}]})),
        async {
            // Its name is known once it runs.
            for _ in 0..300 {
                let listed = support::docker(&[
                    "ps",
                    "-q",
                    "--filter",
                    "label=tenon.container=step-s0",
                    "--filter",
                    &format!("label=tenon.owner={}", tenon_agent::owner::owner()),
                ]);
                if let Some(id) = listed.lines().next()
                    && support::docker(&["top", id]).contains("sleep 100")
                {
                    support::docker(&["kill", id]);
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            panic!("it never ran");
        }
    );
    assert_eq!(ran.ending("s0"), (137, Ending::Error));
    assert_eq!(ran.ending("s1"), (1, Ending::Skipped));
    assert!(matches!(ran.outcome, Outcome::Ran(_)));
}

#[tokio::test]
async fn what_dead_agents_left_is_reaped() {
    let machine = Machine::new().await;
    let name = format!("tenon-agent-test-left-{}", std::process::id());
    support::docker(&[
        "create",
        "--name",
        &name,
        "--label",
        "tenon.owner=other-boot/1/1/1",
        support::IMAGE,
    ]);
    let left = machine.data.path().join("pods/left");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("owner"), "other-boot/1/1/1").unwrap();
    assert!(machine.backend.reap().await.unwrap() >= 2);
    assert_eq!(support::docker(&["ps", "-aq", "--filter", &format!("name={name}")]), "");
    assert!(!left.exists());
}

#[tokio::test]
async fn the_agents_loop_numbers_and_ends() {
    let machine = Machine::new().await;
    let (to_agent, inbox) = mpsc::channel(16);
    let (outbox, mut from_agent) = mpsc::channel::<AgentMessage>(16);
    let options = AgentOptions { name: "local".to_owned(), slots: 2, ..AgentOptions::default() };
    let agent = Agent::new(options, machine.backend.clone());
    let send = |message| CoordinatorMessage { message: Some(message) };
    let task = support::invocation(json!({"steps": [{"script": "echo hi"}]}), vec![], vec![]);
    let attempt = task.attempt.clone().unwrap();
    let coordinator = async {
        to_agent.send(send(coordinator_message::Message::Start(task))).await.unwrap();
        let mut numbers = Vec::new();
        let mut kinds = Vec::new();
        while let Some(message) = from_agent.recv().await {
            let Some(agent_message::Message::Report(report)) = message.message else { continue };
            numbers.push(report.number);
            assert_eq!(report.attempt.as_ref(), Some(&attempt));
            let what = report.what.unwrap();
            let ended = matches!(what, What::Ended(_));
            kinds.push(what);
            let number = report.number;
            to_agent
                .send(send(coordinator_message::Message::Acknowledge(Acknowledge { number })))
                .await
                .unwrap();
            if ended {
                break;
            }
        }
        let run_id = attempt.run_id.clone();
        to_agent
            .send(send(coordinator_message::Message::EndRun(EndRun {
                run_id,
                ..EndRun::default()
            })))
            .await
            .unwrap();
        drop(to_agent);
        (numbers, kinds, from_agent)
    };
    let ((), (numbers, kinds, _rest)) =
        tokio::join!(agent.run(inbox, outbox, CancellationToken::new()), coordinator);
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert!(matches!(kinds.first(), Some(What::Started(_))));
    assert!(matches!(kinds.last(), Some(What::Ended(_))));
    machine.assert_nothing_left(&tenon_agent::pod::attempt_key(&attempt));
}
