//! What does not belong to a cluster changes nothing in it.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod support;

use serde_json::json;
use support::agent::{Agent, hello};
use support::{TestNode, cluster, leader, stop};
use tenon_proto::agent::v1::coordinator_message::Message;
use tenon_proto::agent::v1::{Acknowledge, AttemptId};
use tenon_proto::raft::v1::peers_client::PeersClient;
use tenon_proto::raft::v1::{
    AdoptRequest, Batch, FetchRequest, Header, PeerMessage, StateDump, fetch_request, peer_message,
};
use tenon_proto::status::from_status;
use tokio_stream::iter;

async fn peers(node: &TestNode) -> PeersClient<tonic::transport::Channel> {
    PeersClient::connect(node.url.clone()).await.unwrap()
}

fn header(header: Header) -> PeerMessage {
    PeerMessage { message: Some(peer_message::Message::Header(header)) }
}

fn batch(messages: &[&[u8]]) -> PeerMessage {
    let messages = messages.iter().map(|bytes| bytes.to_vec().into()).collect();
    PeerMessage { message: Some(peer_message::Message::Batch(Batch { messages })) }
}

#[tokio::test(flavor = "multi_thread")]
async fn raft_messages_of_a_stranger_are_refused() {
    let mut nodes = cluster(3).await;
    let status = nodes[0].get("/v1/cluster").await.json();
    let cluster_id = status["clusterId"].as_str().unwrap();
    let term = status["term"].clone();
    let good = Header {
        cluster_id: cluster_id.to_owned(),
        from: 2,
        to: status["node"].as_u64().unwrap(),
        protocol: status["protocol"].as_u64().unwrap() as u32,
        ..Header::default()
    };
    let strangers = [
        Header { cluster_id: "01JD3ZQ2T9F8V6K4M1N7P5R3S0".to_owned(), ..good.clone() },
        Header { from: 0, ..good.clone() },
        Header { to: 99, ..good.clone() },
        Header { protocol: 9999, ..good.clone() },
        Header { key_fingerprint: "another".to_owned(), ..good.clone() },
    ];
    for stranger in strangers {
        let messages = [header(stranger.clone()), batch(&[b"\x08\x00\x10\x01"])];
        let answer = peers(&nodes[0]).await.exchange(iter(messages)).await;
        let status = match answer {
            Err(status) => status,
            Ok(stream) => match stream.into_inner().message().await {
                Err(status) => status,
                Ok(reply) => panic!("{stranger:?} was let in: {reply:?}"),
            },
        };
        assert!(from_status(&status).code.starts_with("peer/"), "{stranger:?}: {status:?}");
        let request = FetchRequest {
            header: Some(stranger),
            what: Some(fetch_request::What::State(StateDump::default())),
        };
        let refused = peers(&nodes[0]).await.fetch(request).await.unwrap_err();
        assert!(from_status(&refused).code.starts_with("peer/"), "{refused:?}");
    }
    // No header at all.
    let refused = peers(&nodes[0]).await.exchange(iter([batch(&[b"x"])])).await.unwrap_err();
    assert_eq!(from_status(&refused).code, "peer/malformed");
    // A member that sends nonsense: what it sends is dropped, the node goes on.
    let nonsense: [&[u8]; 4] = [b"", b"\xff\xff\xff\xff", b"\x08\xff\x01", &[0x0a; 4096]];
    let messages = [header(good.clone()), batch(&nonsense)];
    let _ = peers(&nodes[0]).await.exchange(iter(messages)).await;
    let adopt = AdoptRequest { cluster_id: "other".to_owned(), id: 7, ..AdoptRequest::default() };
    let refused = peers(&nodes[0]).await.adopt(adopt).await.unwrap_err();
    assert!(from_status(&refused).code.starts_with("conflict/"), "{refused:?}");

    let leads = leader(&nodes).await;
    for node in &nodes {
        node.submit().await;
    }
    assert_eq!(nodes[0].get("/v1/cluster").await.json()["term"], term, "an election for nothing");

    // A member that was removed is a stranger from then on.
    let gone = usize::from(leads != 1);
    let status = nodes[gone].get("/v1/cluster").await.json();
    let id_of_gone = status["node"].as_u64().unwrap();
    let path = format!("/v1/cluster/members/{id_of_gone}");
    let removed = nodes[leads].ask("DELETE", &path, &serde_json::Value::Null).await;
    assert_eq!(removed.status, 200, "{removed:?}");
    let status = nodes[leads].get("/v1/cluster").await.json();
    let header_of_gone = Header { from: id_of_gone, to: status["node"].as_u64().unwrap(), ..good };
    let refused = peers(&nodes[leads]).await.exchange(iter([header(header_of_gone)])).await;
    assert_eq!(from_status(&refused.unwrap_err()).code, "peer/stranger");
    stop(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_reports_only_of_what_it_was_given() {
    let mut nodes = cluster(1).await;
    let run = nodes[0].submit().await;
    let mut owner = Agent::dial(&nodes[0].url, hello("owner", "x")).await.unwrap();
    let attempt = loop {
        if let Message::Start(start) = owner.hear().await.unwrap() {
            break start.attempt.unwrap();
        }
    };
    let mut thief = Agent::dial(&nodes[0].url, hello("thief", "y")).await.unwrap();
    let other_run =
        AttemptId { run_id: "01JD3ZQ2T9F8V6K4M1N7P5R3S0".to_owned(), ..attempt.clone() };
    let later = AttemptId { placement: attempt.placement + 1, ..attempt.clone() };
    for forged in [&attempt, &other_run, &later] {
        thief.end(forged, 1).await;
    }
    // Its numbers are used up, so an agent that is only confused does not repeat itself for ever.
    loop {
        if let Message::Acknowledge(Acknowledge { number: 15 }) = thief.hear().await.unwrap() {
            break;
        }
    }
    assert_eq!(nodes[0].get(&format!("/v1/runs/{run}")).await.json()["status"], "running");
    let lines = nodes[0].get(&format!("/v1/runs/{run}/events?kind=step-log")).await;
    assert_eq!(lines.text(), "");
    owner.succeed(&attempt).await;
    nodes[0].until_run_is(&run, "succeeded").await;
    stop(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_is_sent_again_changes_nothing() {
    let mut nodes = cluster(1).await;
    let run = nodes[0].submit().await;
    let mut agent = Agent::dial(&nodes[0].url, hello("a", "x")).await.unwrap();
    let attempt = loop {
        if let Message::Start(start) = agent.hear().await.unwrap() {
            break start.attempt.unwrap();
        }
    };
    agent.succeed(&attempt).await;
    nodes[0].until_run_is(&run, "succeeded").await;
    let path = format!("/v1/runs/{run}/events");
    let before = nodes[0].get(&path).await;
    // The same numbers with another story, here and in the next session of the same life; and then a
    // new number with it.
    agent.again().end(&attempt, 1).await;
    let mut next = Agent::dial(&nodes[0].url, hello("a", "x")).await.unwrap();
    next.end(&attempt, 1).await;
    next.end(&attempt, 1).await;
    loop {
        if let Message::Acknowledge(Acknowledge { number: 10 }) = next.hear().await.unwrap() {
            break;
        }
    }
    assert_eq!(nodes[0].get(&path).await.text(), before.text());
    stop(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_no_cluster_says_what_it_needs() {
    let mut node = TestNode::start("lonely").await;
    assert_eq!(node.get("/healthz").await.status, 200);
    assert_eq!(node.get("/readyz").await.status, 503);
    assert_eq!(node.get("/v1/cluster").await.json()["role"], "uninitialised");
    let manifest = json!({"manifest": support::TASK_RUN});
    for answer in [
        node.post("/v1/runs", manifest).await,
        node.get("/v1/runs").await,
        node.get("/v1/runs/01JD3ZQ2T9F8V6K4M1N7P5R3S0").await,
        node.get("/v1/runs/01JD3ZQ2T9F8V6K4M1N7P5R3S0/events").await,
        node.get("/v1/events").await,
    ] {
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    assert_eq!(node.get("/v1/events?stale=true").await.body, b"");
    node.stop().await;
}
