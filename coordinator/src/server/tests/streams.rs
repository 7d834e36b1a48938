//! Streams of events, over both protocols.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use tenon_proto::control::v1::SubscribeRequest;
use tenon_proto::control::v1::control_client::ControlClient;
use tenon_proto::control::v1::events_client::EventsClient;
use tenon_proto::control::v1::{EventBatch, GetRunRequest};
use tonic::transport::Channel;

use super::*;

/// Two runs with output, documents between their events.
fn story(node: &MadeUp) -> (tenon_engine::RunId, tenon_engine::RunId) {
    let (one, two) = (node.run(1, "succeeded"), node.run(2, "running"));
    let events = &node.events;
    events.document();
    events.event("run-start", 1, one, "");
    events.output(2, one, &["a", "b", "c"]);
    events.document();
    events.event("run-start", 5, two, "");
    events.event("task-start", 6, two, ",\"task\":\"build\",\"taskRun\":\"two-build\"");
    events.event("run-end", 7, one, ",\"status\":\"succeeded\"");
    events.document();
    (one, two)
}

fn seqs(body: &str) -> Vec<u64> {
    let line = |line: &str| -> u64 {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value["seq"].as_u64().unwrap()
    };
    body.lines().map(line).collect()
}

#[tokio::test]
async fn any_part_of_the_stream_can_be_read_again() {
    let server = Server::start(Limits::default()).await;
    let (one, two) = story(&server.node);
    for (path, want) in [
        ("/v1/events".to_owned(), vec![1, 2, 3, 4, 5, 6, 7]),
        ("/v1/events?since=2".to_owned(), vec![3, 4, 5, 6, 7]),
        ("/v1/events?since=3".to_owned(), vec![4, 5, 6, 7]),
        ("/v1/events?since=7".to_owned(), vec![]),
        ("/v1/events?since=900".to_owned(), vec![]),
        ("/v1/events?kind=run-start,run-end".to_owned(), vec![1, 5, 7]),
        ("/v1/events?task=t&step=s".to_owned(), vec![2, 3, 4]),
        ("/v1/events?task=two-build".to_owned(), vec![6]),
        ("/v1/events?namespace=other".to_owned(), vec![]),
        (format!("/v1/events?run={two}"), vec![5, 6]),
        (format!("/v1/runs/{one}/events"), vec![1, 2, 3, 4, 7]),
        (format!("/v1/runs/{one}/events?follow=true&since=3"), vec![4, 7]),
        (format!("/v1/runs/{one}/events?follow=true&since=7"), vec![]),
        (format!("/v1/runs/{one}/events?kind=step-log&follow=true"), vec![2, 3, 4]),
    ] {
        let answer = server.get(&path).await;
        assert_eq!((answer.status, seqs(&answer.body)), (200, want), "{path}");
    }
    let none = server.get("/v1/runs/01JD3ZQ2T9F8V6K4M1N7P5R3S0/events").await;
    assert_eq!(none.fault(), (404, "not-found/run".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn what_is_read_without_following_is_all_that_was_acknowledged() {
    let server = Server::start(Limits::default()).await;
    let (one, two) = story(&server.node);
    server.node.quorum.store(false, Ordering::Relaxed);
    let hurry = "request-timeout: 50ms\r\n";
    let refused = (503, "unavailable/no-quorum".to_owned());
    for path in ["/v1/events".to_owned(), format!("/v1/runs/{one}/events")] {
        assert_eq!(server.ask("GET", &path, hurry, "").await.fault(), refused, "{path}");
        let stale = server.get(&format!("{path}?stale=true")).await;
        assert!(!seqs(&stale.body).is_empty(), "{path}: {stale:?}");
    }
    let request = |stale: bool| {
        let mut request = tonic::Request::new(SubscribeRequest::default());
        request.set_timeout(Duration::from_millis(500));
        if stale {
            request.metadata_mut().insert("tenon-stale", "true".parse().unwrap());
        }
        request
    };
    let mut client = EventsClient::new(channel(&server).await);
    let status = client.subscribe(request(false)).await.unwrap_err();
    assert_eq!(tenon_proto::status::from_status(&status).code, "unavailable/no-quorum");
    client.subscribe(request(true)).await.unwrap();

    // Who follows catches up, but is not told that there is no such run.
    let followed = server.get(&format!("/v1/runs/{one}/events?follow=true")).await;
    assert_eq!(seqs(&followed.body), [1, 2, 3, 4, 7]);
    server.node.runs.lock().unwrap().remove(&two);
    let path = format!("/v1/runs/{two}/events?follow=true");
    assert_eq!(server.ask("GET", &path, hurry, "").await.fault(), refused);
    server.stop().await;
}

#[tokio::test]
async fn server_sent_events_carry_their_seq_and_end() {
    let server = Server::start(Limits::default()).await;
    let (one, _) = story(&server.node);
    let path = format!("/v1/runs/{one}/events");
    let accept = "accept: text/event-stream\r\n";
    let answer = server.ask("GET", &path, accept, "").await;
    assert!(answer.head.contains("content-type: text/event-stream"), "{answer:?}");
    assert!(answer.body.starts_with("id: 1\ndata: {\"kind\":\"run-start\""), "{answer:?}");
    assert!(answer.body.ends_with("event: end\ndata: {}\n\n"), "{answer:?}");
    assert_eq!(answer.body.matches("\n\n").count(), 6);
    let resumed = format!("{accept}last-event-id: 4\r\n");
    let answer = server.ask("GET", &path, &resumed, "").await;
    assert!(answer.body.starts_with("id: 7\n"), "{answer:?}");
    // A browser comes back after the end, and has to be told to stay away.
    let done = format!("{accept}last-event-id: 7\r\n");
    assert_eq!(server.ask("GET", &path, &done, "").await.status, 204);
    let wrong = format!("{accept}last-event-id: x\r\n");
    let answer = server.ask("GET", &path, &wrong, "").await;
    assert_eq!(answer.fault(), (400, "invalid/last-event-id".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn a_stream_with_nothing_to_say_yet_begins_at_once() {
    let server = Server::start(Limits::default()).await;
    let (_, two) = story(&server.node);
    for (path, last) in [
        ("/v1/events".to_owned(), "last-event-id: 99999999\r\n"),
        ("/v1/events?since=900".to_owned(), ""),
        (format!("/v1/runs/{two}/events"), "last-event-id: 6\r\n"),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n{last}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 15];
        let soon = Limits::default().idle / 3;
        let come = tokio::time::timeout(soon, stream.read_exact(&mut head)).await;
        come.unwrap_or_else(|_| panic!("{path}: no head")).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK", "{path}");
    }
    server.stop().await;
}

async fn channel(server: &Server) -> Channel {
    let address = format!("http://{}", server.address);
    Channel::from_shared(address).unwrap().connect().await.unwrap()
}

async fn subscribe(
    server: &Server,
    request: SubscribeRequest,
) -> Result<tonic::Streaming<EventBatch>, tonic::Status> {
    let mut client = EventsClient::new(channel(server).await);
    client.subscribe(request).await.map(tonic::Response::into_inner)
}

async fn next(stream: &mut tonic::Streaming<EventBatch>) -> Option<Result<EventBatch, String>> {
    let next = tokio::time::timeout(LATE, stream.next()).await.expect("nothing came");
    next.map(|result| result.map_err(|status| tenon_proto::status::from_status(&status).code))
}

#[tokio::test]
async fn a_follower_hears_of_what_happens_and_of_the_end() {
    let server = Server::start(Limits::default()).await;
    let (_, two) = story(&server.node);
    let request =
        SubscribeRequest { run: two.to_string(), follow: true, ..SubscribeRequest::default() };
    let mut stream = subscribe(&server, request).await.unwrap();
    let mut lines = Vec::new();
    while lines.len() < 2 {
        lines.extend(next(&mut stream).await.unwrap().unwrap().lines);
    }
    server.node.events.event("run-end", 8, two, "");
    let last = next(&mut stream).await.unwrap().unwrap();
    assert_eq!(last.last_seq, 8);
    assert!(last.lines[0].starts_with(b"{\"kind\":\"run-end\""));
    assert_eq!(next(&mut stream).await, None);
    server.stop().await;
}

#[tokio::test]
async fn an_idle_stream_says_that_it_is_alive() {
    let limits = Limits { idle: Duration::from_millis(20), ..Limits::default() };
    let server = Server::start(limits).await;
    let (_, two) = story(&server.node);
    let request = SubscribeRequest {
        run: two.to_string(),
        follow: true,
        since: 6,
        ..SubscribeRequest::default()
    };
    let mut stream = subscribe(&server, request).await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap().unwrap().lines.len(), 0);
    server.stop().await;
    assert_eq!(last_code(&mut stream).await, "unavailable/stopping");
}

async fn last_code(stream: &mut tonic::Streaming<EventBatch>) -> String {
    loop {
        if let Err(code) = next(stream).await.expect("an end without a reason") {
            return code;
        }
    }
}

#[tokio::test]
async fn a_stopping_server_ends_streams_with_the_reason() {
    let server = Server::start(Limits::default()).await;
    story(&server.node);
    let request = SubscribeRequest { follow: true, ..SubscribeRequest::default() };
    let mut stream = subscribe(&server, request).await.unwrap();
    next(&mut stream).await.unwrap().unwrap();
    server.stop().await;
    assert_eq!(last_code(&mut stream).await, "unavailable/stopping");
}

#[tokio::test]
async fn a_subscriber_that_takes_nothing_loses_its_connection_not_events() {
    let limits = Limits { stall: Duration::from_millis(1), ..Limits::default() };
    let server = Server::start(limits).await;
    let run = server.node.run(1, "running");
    let line = "x".repeat(60_000);
    let big = [line.as_str(); 3];
    for seq in 0..2000 {
        server.node.events.output(1 + 3 * seq, run, &big);
    }
    let request = SubscribeRequest { follow: true, ..SubscribeRequest::default() };
    let mut stream = subscribe(&server, request).await.unwrap();
    let (mut last, mut code) = (0, String::new());
    while code.is_empty() {
        match next(&mut stream).await.unwrap() {
            Ok(batch) => {
                for line in &batch.lines {
                    let seq = crate::server::batch::seq_of(line).unwrap();
                    assert_eq!(seq, last + 1);
                    last = seq;
                }
                // Takes its time.
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            Err(reason) => code = reason,
        }
    }
    assert_eq!(code, "overloaded/slow-subscriber");
    let request = SubscribeRequest { since: last, ..SubscribeRequest::default() };
    let mut stream = subscribe(&server, request).await.unwrap();
    let batch = next(&mut stream).await.unwrap().unwrap();
    assert_eq!(crate::server::batch::seq_of(&batch.lines[0]), Some(last + 1));
    server.stop().await;
}

#[tokio::test]
async fn output_of_many_short_lines_comes_in_messages_of_bounded_size() {
    let server = Server::start(Limits::default()).await;
    let run = server.node.run(1, "running");
    server.node.events.output(1, run, &[""; 30_000]);
    server.node.events.event("step-end", 30_001, run, "");
    let mut stream = subscribe(&server, SubscribeRequest::default()).await.unwrap();
    let (mut seq, mut messages) = (0, 0);
    while let Some(batch) = next(&mut stream).await {
        let batch = batch.unwrap();
        assert!(batch.lines.iter().map(bytes::Bytes::len).sum::<usize>() <= 1 << 20);
        seq += batch.lines.len() as u64;
        assert_eq!(batch.last_seq, seq);
        messages += 1;
    }
    assert_eq!((seq, messages > 3), (30_001, true));
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_kept_any_more_is_said() {
    let server = Server::start(Limits::default()).await;
    story(&server.node);
    server.node.events.forget_before(5);
    for (since, want) in [(2, Err("gone/events".to_owned())), (4, Ok(5)), (0, Ok(5))] {
        let request = SubscribeRequest { since, ..SubscribeRequest::default() };
        let found = match subscribe(&server, request).await {
            Ok(mut stream) => {
                let batch = next(&mut stream).await.unwrap().unwrap();
                Ok(crate::server::batch::seq_of(&batch.lines[0]).unwrap())
            }
            Err(status) => Err(tenon_proto::status::from_status(&status).code),
        };
        assert_eq!(found, want, "since {since}");
    }
    server.stop().await;
}

#[tokio::test]
async fn too_many_subscribers_are_sent_elsewhere() {
    let server = Server::start(Limits { subscribers: 1, ..Limits::default() }).await;
    story(&server.node);
    let request = SubscribeRequest { follow: true, ..SubscribeRequest::default() };
    let mut stream = subscribe(&server, request.clone()).await.unwrap();
    next(&mut stream).await.unwrap().unwrap();
    let refused = subscribe(&server, request).await.unwrap_err();
    assert_eq!(tenon_proto::status::from_status(&refused).code, "overloaded/subscribers");
    server.stop().await;
}

#[tokio::test]
async fn faults_are_whole_over_grpc() {
    let server = Server::start(Limits::default()).await;
    let mut client = ControlClient::new(channel(&server).await);
    let status = client.get_run(GetRunRequest { id: "x".to_owned() }).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    let error = tenon_proto::status::from_status(&status);
    assert_eq!((&*error.code, &*error.details[0].field), ("invalid/run-id", "id"));
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel(&server).await);
    let health = client.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
    assert_eq!(health.into_inner().status, 1);
    server.stop().await;
}
