//! What clients ask of a real cluster, over its real port.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod support;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use support::agent::{Agent, hello};
use support::http::{Answer, ask};
use support::{TASK_RUN, TestNode, cluster, cluster_with, leader, stop, text, until};
use tenon_coordinator::NodeOptions;
use tenon_coordinator::coordinator::{LeaseTimes, Request};
use tenon_coordinator::replica::AgentChange;
use tenon_engine::Time;
use tenon_proto::agent::v1::Hello;
use tenon_proto::agent::v1::coordinator_message::Message;
use tenon_proto::status::from_status;
use tokio::task::JoinSet;

/// Any other node than this one.
fn other_than(at: usize) -> usize {
    usize::from(at == 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_through_any_node_and_looks_the_same_from_all() {
    let mut nodes = cluster(3).await;
    until("three members with a vote", async || {
        let status = nodes[2].get("/v1/cluster").await.json();
        let members = status["members"].as_array().unwrap();
        let voters = members.iter().filter(|member| member["role"] == "voter").count();
        (voters == 3).then_some(())
    })
    .await;

    let leads = leader(&nodes).await;
    let follower = other_than(leads);
    let third = 3 - leads - follower;
    let id = nodes[follower].submit().await;
    // Acknowledged there, so known here.
    let run = nodes[third].get(&format!("/v1/runs/{id}")).await;
    assert_eq!((run.status, &run.json()["labels"]["tier"]), (200, &"web".into()), "{run:?}");
    let explained = nodes[third].get(&format!("/v1/runs/{id}/explain")).await;
    assert_eq!(explained.status, 200, "{explained:?}");
    assert!(explained.text().contains("agent"), "{}", explained.text());

    let mut agents = JoinSet::new();
    let agent = Agent::dial(&nodes[leads].url, hello("a1", "x")).await.unwrap();
    agents.spawn(agent.work());
    // The stream ends by itself with the run.
    let path = format!("/v1/runs/{id}/events?follow=true");
    let followed = nodes[third].get(&path).await;
    assert!(followed.text().lines().last().unwrap().contains("\"run-end\""), "{followed:?}");
    let run = nodes[follower].until_run_is(&id, "succeeded").await;
    assert_eq!((&run["exitCode"], &run["tasks"]["succeeded"]), (&0.into(), &1.into()), "{run}");
    let last = run["lastSeq"].as_u64().unwrap();
    let mut streams: Vec<Answer> = Vec::new();
    for node in &nodes {
        until("the node to have all", async || {
            let status = node.get("/v1/cluster").await.json();
            (status["lastSeq"].as_u64().unwrap() >= last).then_some(())
        })
        .await;
        streams.push(node.get(&format!("/v1/runs/{id}/events")).await);
        let all = node.get("/v1/events").await;
        let seqs = all.seqs();
        assert!(seqs.is_sorted_by(|one, next| one + 1 == *next), "a gap in {seqs:?}");
        let objects = node.get(&format!("/v1/runs/{id}/objects")).await;
        assert!(objects.text().contains("kind: TaskRun"), "{objects:?}");
    }
    assert!(streams.iter().all(|stream| stream.body == followed.body));
    assert!(followed.text().contains("\"line\":\"two\""), "{}", followed.text());

    for seq in followed.seqs() {
        let rest = nodes[third].get(&format!("/v1/runs/{id}/events?since={seq}")).await;
        assert!(followed.body.ends_with(&rest.body));
        assert!(rest.seqs().iter().all(|it| *it > seq));
    }
    stop(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn however_often_it_is_sent_a_keyed_request_is_one_run() {
    let mut nodes = cluster(3).await;
    let mut asked = JoinSet::new();
    for number in 0..24 {
        let url = nodes[number % 3].url.clone();
        let headers = "content-type: application/json\r\nidempotency-key: commit-1\r\n";
        let body = json!({"manifest": TASK_RUN}).to_string();
        asked.spawn(async move { ask(&url, "POST", "/v1/runs", headers, &body).await });
    }
    let answers = asked.join_all().await;
    let id = text(&answers[0].json()["run"]["id"]);
    assert!(answers.iter().all(|answer| answer.json()["run"]["id"] == *id), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1, "{answers:?}");
    let list = nodes[1].get("/v1/runs").await.json();
    assert_eq!(list["runs"].as_array().unwrap().len(), 1, "{list}");

    let other = json!({"manifest": TASK_RUN, "timeout": "90s", "idempotencyKey": "commit-1"});
    let answer = nodes[2].post("/v1/runs", other).await;
    assert_eq!(answer.fault(), (409, "conflict/idempotency-key".to_owned()));
    assert!(answer.text().contains(&id), "{answer:?}");
    stop(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_quorum_says_so_in_time() {
    let mut nodes = cluster(3).await;
    let id = nodes[0].submit().await;
    nodes[1].stop().await;
    nodes[2].stop().await;
    let begun = Instant::now();
    let headers = "content-type: application/json\r\nrequest-timeout: 300ms\r\n";
    let url = &nodes[0].url;
    let submission = json!({"manifest": TASK_RUN}).to_string();
    for (method, path, body) in [
        ("POST", "/v1/runs".to_owned(), &*submission),
        ("GET", "/v1/runs".to_owned(), ""),
        ("GET", format!("/v1/runs/{id}"), ""),
        ("POST", format!("/v1/runs/{id}/cancel"), "{}"),
    ] {
        let answer = ask(url, method, &path, headers, body).await;
        // A leader that has not noticed yet knows only that time is up.
        let (status, code) = answer.fault();
        assert!(
            (status, &*code) == (503, "unavailable/no-quorum")
                || status == 504 && code.starts_with("deadline/"),
            "{path}: {answer:?}"
        );
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    until("the node to notice", async || {
        let answer = ask(url, "POST", "/v1/runs", headers, &submission).await;
        (answer.fault() == (503, "unavailable/no-quorum".to_owned())).then_some(())
    })
    .await;
    // What needs nobody else is answered.
    let stale = nodes[0].get(&format!("/v1/runs/{id}?stale=true")).await;
    assert_eq!(stale.status, 200, "{stale:?}");
    assert_eq!(nodes[0].get("/healthz").await.status, 200);
    until("the node to be unready", async || {
        (nodes[0].get("/readyz").await.status == 503).then_some(())
    })
    .await;
    assert_eq!(nodes[0].get("/v1/cluster").await.status, 200);
    for path in ["/v1/events".to_owned(), format!("/v1/runs/{id}/events")] {
        let url = &nodes[0].url;
        let refused = ask(url, "GET", &path, "request-timeout: 300ms\r\n", "").await;
        assert_eq!(refused.fault(), (503, "unavailable/no-quorum".to_owned()), "{path}");
        let stale = nodes[0].get(&format!("{path}?stale=true")).await;
        assert!(!stale.seqs().is_empty(), "{path}: {stale:?}");
    }
    stop(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_released_and_repeated() {
    let mut nodes = cluster(1).await;
    let node = &nodes[0];
    let id = node.submit().await;
    let active = node.post(&format!("/v1/runs/{id}/rerun"), json!({"fromFailed": true})).await;
    assert_eq!(active.fault(), (409, "conflict/run-active".to_owned()));
    let released = node.post(&format!("/v1/runs/{id}/release"), Value::Null).await;
    assert_eq!(released.status, 409, "{released:?}");
    let cancel = format!("/v1/runs/{id}/cancel");
    let answer = node.post(&cancel, json!({"message": "not needed"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let run = node.until_run_is(&id, "cancelled").await;
    assert_eq!(run["exitCode"], 130, "{run}");
    // Repeated, because the answer might have been lost.
    assert_eq!(node.post(&cancel, json!({})).await.json()["status"], "cancelled");

    let rerun = format!("/v1/runs/{id}/rerun");
    let again = node.post(&rerun, json!({"idempotencyKey": "again"})).await;
    assert_eq!(again.status, 201, "{again:?}");
    assert_eq!(again.json()["run"]["rerunOf"], *id);
    let replayed = node.post(&rerun, json!({"idempotencyKey": "again"})).await;
    assert_eq!((replayed.status, &replayed.json()["replayed"]), (200, &true.into()));
    assert_eq!(again.json()["run"]["id"], replayed.json()["run"]["id"]);

    let pending = TASK_RUN.replace("spec:\n", "spec:\n  status: TaskRunPending\n");
    let waiting = node.post("/v1/runs", json!({"manifest": pending})).await;
    assert_eq!(waiting.json()["run"]["status"], "pending", "{waiting:?}");
    let id = text(&waiting.json()["run"]["id"]);
    let released = node.post(&format!("/v1/runs/{id}/release"), Value::Null).await;
    assert_eq!(released.status, 200, "{released:?}");
    node.until_run_is(&id, "running").await;
    stop(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_filtered_and_read_page_by_page() {
    let mut nodes = cluster(1).await;
    let node = &nodes[0];
    let mut ids = Vec::new();
    for number in 0..7 {
        let namespace = if number % 2 == 0 { "even" } else { "odd" };
        let body = json!({"manifest": TASK_RUN, "namespace": namespace});
        ids.push(text(&node.post("/v1/runs", body).await.json()["run"]["id"]));
    }
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!("/v1/runs?namespace=even&labels=tier=web&pageSize=3&pageToken={token}");
        let page = node.get(&path).await.json();
        found.extend(page["runs"].as_array().unwrap().iter().map(|run| text(&run["id"])));
        token = text(&page["nextPageToken"]);
        if token.is_empty() {
            break;
        }
    }
    let mut even: Vec<String> = ids.iter().step_by(2).cloned().collect();
    even.sort();
    even.reverse();
    assert_eq!(found, even);
    let prefix = node.get(&format!("/v1/runs?idPrefix={}", &ids[3])).await.json();
    assert_eq!(prefix["runs"].as_array().unwrap().len(), 1);
    stop(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_leader_keeps_sessions_and_only_one_of_a_name() {
    let mut nodes = cluster(3).await;
    let leads = leader(&nodes).await;
    let follower = &nodes[other_than(leads)];
    let refused = Agent::dial(&follower.url, hello("a1", "x")).await.err().unwrap();
    let error = from_status(&refused);
    assert_eq!((&*error.code, &*error.leader_url), ("unavailable/not-leader", &*nodes[leads].url));

    let mut first = Agent::dial(&nodes[leads].url, hello("a1", "x")).await.unwrap();
    assert!(matches!(first.hear().await.unwrap(), Message::Welcome(_)));
    let mut second = Agent::dial(&nodes[leads].url, hello("a1", "y")).await.unwrap();
    assert!(matches!(second.hear().await.unwrap(), Message::Welcome(_)));
    let end = loop {
        if let Err(status) = first.hear().await {
            break from_status(&status);
        }
    };
    assert_eq!(end.code, "conflict/agent-superseded", "{end:?}");
    let nameless = Agent::dial(&nodes[leads].url, hello("", "z")).await.err().unwrap();
    assert_eq!(from_status(&nameless).code, "invalid/agent-name");
    nodes[leads].stop().await;
    let end = loop {
        if let Err(status) = second.hear().await {
            break from_status(&status);
        }
    };
    assert!(end.code.starts_with("unavailable/"), "{end:?}");
    stop(&mut nodes).await;
}

fn short_leases(options: &mut NodeOptions) {
    options.leases = LeaseTimes { lease_ms: 600, margin_ms: 200, heartbeat_ms: 100 };
}

async fn until_agent_is(node: &TestNode, name: &str, state: &str) {
    until(&format!("agent {name} to be {state}"), async || {
        let agent = node.get(&format!("/v1/agents/{name}")).await;
        (agent.status == 200 && agent.json()["state"] == state).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_removed_when_it_is_not_in_contact_any_more() {
    let mut nodes = cluster_with(3, short_leases).await;
    let leads = leader(&nodes).await;
    let (node, other) = (&nodes[leads], &nodes[other_than(leads)]);
    let offer = Hello { cpu_millis: 4000, software: "test".to_owned(), ..hello("a1", "x") };
    let mut agent = Agent::dial(&node.url, offer).await.unwrap();
    assert!(matches!(agent.hear().await.unwrap(), Message::Welcome(_)));

    let listed = other.get("/v1/agents").await.json()["agents"][0].clone();
    let shown = until("the agent in the status", async || {
        node.get("/v1/cluster").await.json()["agents"].get(0).cloned()
    });
    let shown = shown.await;
    assert_eq!((&listed["cpuMillis"], &listed["software"]), (&4000.into(), &"test".into()));
    for key in ["cpuMillis", "memoryBytes", "software", "seenAt", "incarnation"] {
        assert_eq!(shown[key], listed[key], "{key}");
    }

    for asked in [node, other] {
        let refused = asked.ask("DELETE", "/v1/agents/a1", &Value::Null).await;
        assert_eq!(refused.fault(), (409, "conflict/agent-up".to_owned()));
    }
    drop(agent);
    until_agent_is(other, "a1", "down").await;
    let removed = other.ask("DELETE", "/v1/agents/a1", &Value::Null).await;
    assert_eq!(removed.status, 200, "{removed:?}");
    let gone = node.get("/v1/agents/a1").await;
    assert_eq!(gone.fault(), (404, "not-found/agent".to_owned()));
    let mut agent = Agent::dial(&node.url, hello("a1", "x")).await.unwrap();
    assert!(matches!(agent.hear().await.unwrap(), Message::Welcome(_)));
    until_agent_is(other, "a1", "up").await;

    // Removed on the way past that check, it has to dial in again.
    let change = AgentChange::Remove;
    let request = Request::ChangeAgent { agent: "a1".to_owned(), change };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let soon = Time(since.as_millis() as i64 + 10_000);
    node.handle().request(request, soon).await.unwrap();
    let end = loop {
        if let Err(status) = agent.hear().await {
            break from_status(&status);
        }
    };
    assert_eq!(end.code, "unavailable/again", "{end:?}");
    stop(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_is_over_when_another_one_has_had_its_name() {
    let mut nodes = cluster_with(1, short_leases).await;
    let node = &nodes[0];
    leader(&nodes).await;
    let mut other = Agent::dial(&node.url, hello("a1", "y")).await.unwrap();
    assert!(matches!(other.hear().await.unwrap(), Message::Welcome(_)));
    let refused =
        async || from_status(&Agent::dial(&node.url, hello("a1", "x")).await.err().unwrap());
    assert_eq!(refused().await.code, "conflict/agent-superseded");
    drop(other);
    until_agent_is(node, "a1", "down").await;
    assert_eq!(refused().await.code, "conflict/agent-life-over");
    let mut new = Agent::dial(&node.url, hello("a1", "z")).await.unwrap();
    assert!(matches!(new.hear().await.unwrap(), Message::Welcome(_)));
    stop(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_goes_on_at_another_node_without_a_gap() {
    let mut nodes = cluster(3).await;
    let old = leader(&nodes).await;
    nodes[old].submit().await;
    let url = nodes[old].url.clone();
    let mut following = JoinSet::new();
    following.spawn(async move { ask(&url, "GET", "/v1/events?follow=true", "", "").await });
    until("the subscriber to be there", async || {
        let metrics = nodes[old].get("/metrics").await;
        metrics.text().contains("tenon_subscribers 1").then_some(())
    })
    .await;
    // The stream ends when its node does, and says so.
    nodes[old].stop().await;
    let cut = following.join_next().await.unwrap().unwrap();
    let lines = cut.text().lines().map(|line| serde_json::from_str(line).unwrap());
    let mut events: Vec<Value> = lines.collect();
    let last_word = events.pop().unwrap();
    assert_eq!(last_word["error"]["code"], "unavailable/stopping", "{last_word}");
    // It may have stopped before the first event was on its way.
    let last = events.last().map_or(0, |event| event["seq"].as_u64().unwrap());

    let new = leader(&nodes).await;
    let id = nodes[other_than(old)].submit().await;
    let rest = nodes[new].get(&format!("/v1/events?since={last}")).await;
    assert_eq!(rest.seqs().first(), Some(&(last + 1)));
    assert!(rest.text().contains("leader-change") && rest.text().contains(&id));
    stop(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backup_holds_is_there_again() {
    let mut nodes = cluster(1).await;
    let id = nodes[0].submit().await;
    nodes[0].post(&format!("/v1/runs/{id}/cancel"), json!({})).await;
    nodes[0].until_run_is(&id, "cancelled").await;
    let events = nodes[0].get(&format!("/v1/runs/{id}/events")).await;
    let backup = nodes[0].get("/v1/cluster/backup").await;
    assert_eq!(backup.status, 200);
    stop(&mut nodes).await;

    let dir = tempfile::TempDir::new().unwrap();
    let (path, body) = (dir.path().to_owned(), backup.body);
    let restore = move || {
        tenon_coordinator::node::backup::restore(&mut &body[..], &path, "r1", "http://127.0.0.1:1")
            .unwrap()
    };
    tokio::task::spawn_blocking(restore).await.unwrap();
    let mut restored = [TestNode::start_in(dir, "r1").await];
    leader(&restored).await;
    assert_eq!(restored[0].get(&format!("/v1/runs/{id}")).await.json()["status"], "cancelled");
    assert_eq!(restored[0].get(&format!("/v1/runs/{id}/events")).await.body, events.body);
    restored[0].submit().await;
    stop(&mut restored).await;
}
