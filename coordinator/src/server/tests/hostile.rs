//! Those who mean harm: refused, within bounds, while others are served.

use tenon_proto::agent::v1::agents_client::AgentsClient;
use tenon_proto::agent::v1::{AgentMessage, Heartbeat, Hello, agent_message};
use tenon_proto::status::from_status;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;

/// What becomes of a session that begins like this; nothing is said where nothing is given.
async fn session(server: &Server, first: Option<agent_message::Message>) -> String {
    let url = format!("http://{}", server.address);
    let mut client = AgentsClient::connect(url).await.unwrap();
    let (outbox, messages) = mpsc::channel(1);
    if let Some(message) = first {
        outbox.send(AgentMessage { message: Some(message) }).await.unwrap();
    }
    let answer = tokio::time::timeout(LATE, client.session(ReceiverStream::new(messages))).await;
    from_status(&answer.unwrap().unwrap_err()).code
}

#[tokio::test]
async fn what_is_no_hello_begins_no_session() {
    let limits = Limits { hello: Duration::from_millis(50), ..Limits::default() };
    let server = Server::start(limits).await;
    assert_eq!(session(&server, None).await, "invalid/hello", "nothing in time");
    let heartbeat =
        agent_message::Message::Heartbeat(Heartbeat { number: 1, ..Heartbeat::default() });
    assert_eq!(session(&server, Some(heartbeat)).await, "invalid/hello");
    server.stop().await;

    let server = Server::start(Limits::default()).await;
    let good = Hello { name: "a1".into(), incarnation: "x".into(), ..Hello::default() };
    let label = |key: &str, value: String| [(key.to_owned(), value)].into();
    for (hello, refused) in [
        (good.clone(), "unavailable/not-leader"),
        (Hello { name: String::new(), ..good.clone() }, "invalid/agent-name"),
        (Hello { name: "../a1".into(), ..good.clone() }, "invalid/agent-name"),
        (Hello { name: "a1\nFAKE LINE".into(), ..good.clone() }, "invalid/agent-name"),
        (Hello { name: "a".repeat(5000), ..good.clone() }, "invalid/agent-name"),
        (Hello { incarnation: "x".repeat(65), ..good.clone() }, "invalid/hello"),
        (Hello { labels: label("zone", "\u{1b}[2J".into()), ..good.clone() }, "invalid/hello"),
        (Hello { labels: label("zone", "x".repeat(2 << 20)), ..good.clone() }, "too-large/hello"),
        // Larger than any message of an agent may be.
        (Hello { software: "x".repeat(17 << 20), ..good }, "invalid/hello"),
    ] {
        let told = session(&server, Some(agent_message::Message::Hello(hello))).await;
        assert_eq!(told, refused);
    }
    assert_eq!(server.get("/healthz").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_thousand_sessions_that_say_nothing_end() {
    let limits = Limits { hello: Duration::from_millis(300), ..Limits::default() };
    let server = Server::start(limits).await;
    let url = format!("http://{}", server.address);
    let client = AgentsClient::connect(url).await.unwrap();
    let mut sessions = JoinSet::new();
    for _ in 0..1000 {
        let mut client = client.clone();
        sessions.spawn(async move {
            let (_outbox, messages) = mpsc::channel::<AgentMessage>(1);
            from_status(&client.session(ReceiverStream::new(messages)).await.unwrap_err()).code
        });
    }
    assert_eq!(server.get("/healthz").await.status, 200);
    let all = tokio::time::timeout(LATE, sessions.join_all()).await.unwrap();
    assert!(all.iter().all(|code| code == "invalid/hello"), "{all:?}");
    server.stop().await;
}

#[tokio::test]
async fn connections_are_bounded_and_room_comes_back() {
    let limits = Limits { connections: 3, ..Limits::default() };
    let server = Server::start(limits).await;
    // They have begun a request, and never end it.
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost:").await.unwrap();
        slow.push(stream);
    }
    // Whether it is refused is seen by that it ends, with nothing said.
    let refused = async {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(LATE, stream.read_to_end(&mut answer)).await.unwrap();
        assert!(read.is_err() || answer.is_empty(), "{answer:?}");
    };
    refused.await;
    drop(slow);
    let again = async {
        loop {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            let mut answer = Vec::new();
            let _ = stream.write_all(request).await;
            if stream.read_to_end(&mut answer).await.is_ok() && answer.starts_with(b"HTTP/1.1 200")
            {
                break;
            }
        }
    };
    tokio::time::timeout(LATE, again).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for() {
    let server = Server::start(Limits { manifest_bytes: 4096, ..Limits::default() }).await;
    let head = "POST /v1/runs HTTP/1.1\r\nhost: x\r\nconnection: close\r\nrequest-timeout: 200ms\r\n\
        content-type: application/json\r\n";
    let promised = format!("{head}content-length: 100\r\n\r\n{{");
    let answer = Answer::parse(&server.raw(promised.as_bytes()).await);
    assert_eq!(answer.fault(), (504, "deadline/body".to_owned()));
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n1\r\n{{\r\n");
    let answer = Answer::parse(&server.raw(chunked.as_bytes()).await);
    assert_eq!(answer.fault(), (504, "deadline/body".to_owned()));
    // One that goes on and on is refused once it is too large.
    let endless = format!(
        "{head}transfer-encoding: chunked\r\n\r\n{}",
        "10\r\n0123456789abcdef\r\n".repeat(600)
    );
    let answer = Answer::parse(&server.raw(endless.as_bytes()).await);
    assert_eq!(answer.fault(), (413, "too-large/body".to_owned()));
    assert!(server.node.runs.lock().unwrap().is_empty());
    server.stop().await;
}

#[tokio::test]
async fn documents_that_are_deep_or_grow_are_refused() {
    let server = Server::start(Limits::default()).await;
    let deep =
        |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    for (body, code) in [
        (deep("{\"a\":", "}"), "invalid/json"),
        (format!("{{\"labels\":{}}}", deep("[", "]")), "invalid/field"),
    ] {
        let answer = server.post("/v1/runs", &body).await;
        assert_eq!(
            (answer.status, answer.fault().1.split('/').next()),
            (400, Some("invalid")),
            "{code}"
        );
    }
    let laughs: String = (1..30)
        .map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", ")))
        .collect();
    for manifest in
        [deep("[", "]"), deep("{a: ", "}"), "- ".repeat(50_000), format!("a0: &a0 [lol]\n{laughs}")]
    {
        let yaml = "content-type: application/yaml\r\n";
        let answer = server.ask("POST", "/v1/runs", yaml, &manifest).await;
        assert_eq!(answer.fault(), (400, "invalid/manifest".to_owned()), "{manifest:.40}");
    }
    assert!(server.node.runs.lock().unwrap().is_empty());
    server.stop().await;
}

#[tokio::test]
async fn frames_that_are_too_large_end_their_connection_only() {
    let server = Server::start(Limits::default()).await;
    let mut said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // A frame of headers that claims 16 MiB, and one of settings with nonsense in it.
    for frame in [&b"\xff\xff\xff\x01\x04\0\0\0\x01"[..], b"\0\0\x05\x04\0\0\0\0\0hello"] {
        said.extend(frame);
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&said).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(LATE, stream.read_to_end(&mut answer)).await.unwrap();
        said.truncate(said.len() - frame.len());
    }
    assert_eq!(server.get("/healthz").await.status, 200);
    server.stop().await;
}
