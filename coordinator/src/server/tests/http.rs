//! Requests over HTTP, good and bad.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::*;

const MANIFEST: &str = "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: one}\nspec:\n  \
    taskSpec:\n    steps: [{name: s, image: busybox, script: 'true'}]\n";

fn submit(manifest: &str, more: &str) -> String {
    format!("{{\"manifest\":{}{more}}}", serde_json::Value::from(manifest))
}

#[tokio::test]
async fn a_manifest_is_accepted_as_json_and_as_yaml() {
    let server = Server::start(Limits::default()).await;
    let answer = server.post("/v1/runs", &submit(MANIFEST, "")).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = answer.json()["run"]["id"].as_str().unwrap().to_owned();
    assert_eq!(server.get(&format!("/v1/runs/{id}")).await.json()["id"], *id);
    let yaml = "content-type: application/yaml\r\n";
    let answer = server.ask("POST", "/v1/runs?namespace=team&timeout=90s", yaml, MANIFEST).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    server.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_and_changes_nothing() {
    let server = Server::start(Limits { manifest_bytes: 4096, ..Limits::default() }).await;
    let broken = submit("kind: [", "");
    let typo = submit(&MANIFEST.replace("script", "scirpt"), "");
    let large = submit(&"#".repeat(5000), "");
    let cases = [
        ("{\"manifest\": 7}", 400, "invalid/field"),
        ("{\"manifst\": \"x\"}", 400, "invalid/field"),
        ("[\"kind: Task\"]", 400, "invalid/field"),
        ("{", 400, "invalid/json"),
        ("{}", 400, "invalid/nothing-to-run"),
        (&*broken, 400, "invalid/manifest"),
        (&*typo, 400, "invalid/manifest"),
        (&*large, 413, "too-large/manifest"),
    ];
    for (body, status, code) in cases {
        let answer = server.post("/v1/runs", body).await;
        assert_eq!(answer.fault(), (status, code.to_owned()), "{body}: {answer:?}");
    }
    let detail = &server.post("/v1/runs", &typo).await.json()["details"][0];
    assert_eq!((&detail["file"], &detail["line"]), (&"manifest".into(), &6.into()), "{detail}");
    let answer = server.ask("POST", "/v1/runs", "content-type: text/html\r\n", "<p>").await;
    assert_eq!(answer.fault(), (415, "unsupported/media-type".to_owned()));
    // As `curl -d` sends it.
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    let answer = server.ask("POST", "/v1/runs", form, "{}").await;
    assert!(answer.json()["hint"].as_str().unwrap().contains("--json"), "{answer:?}");
    let answer = server.post("/v1/runs", &" ".repeat(9000)).await;
    assert_eq!(answer.fault(), (413, "too-large/body".to_owned()));
    assert!(server.node.runs.lock().unwrap().is_empty());
    server.stop().await;
}

#[tokio::test]
async fn paths_methods_ids_and_parameters_are_checked() {
    let server = Server::start(Limits::default()).await;
    let run = server.node.run(1, "running");
    for (path, status, code) in [
        ("/v2/runs", 404, "not-found/path"),
        ("/v1/runs/nonsense", 400, "invalid/run-id"),
        ("/v1/runs/%2e%2e%2fetc", 400, "invalid/run-id"),
        ("/v1/runs/01JD3ZQ2T9F8V6K4M1N7P5R3S0", 404, "not-found/run"),
        ("/v1/runs?pageToken=abc", 400, "invalid/page-token"),
        ("/v1/runs?pageSize=-1", 400, "invalid/parameter"),
        ("/v1/runs?namespce=x", 400, "invalid/parameter"),
        ("/v1/runs?status=done", 400, "invalid/status"),
        ("/v1/events?kind=step", 400, "invalid/kind"),
        ("/v1/events?since=-1", 400, "invalid/parameter"),
        ("/v1/events?format=xml", 400, "invalid/format"),
    ] {
        assert_eq!(server.get(path).await.fault(), (status, code.to_owned()), "{path}");
    }
    let answer = server.ask("DELETE", "/v1/runs", "", "").await;
    assert_eq!(answer.fault(), (405, "invalid/method".to_owned()));
    assert!(answer.head.contains("allow: "), "{answer:?}");
    let cancel = format!("/v1/runs/{run}/cancel");
    let answer = server.post(&cancel, "{\"mode\":\"Paused\"}").await;
    assert_eq!(answer.fault(), (400, "invalid/mode".to_owned()));
    let answer = server.ask("GET", "/v1/runs", "request-timeout: soon\r\n", "").await;
    assert_eq!(answer.fault(), (400, "invalid/timeout".to_owned()));
    assert_eq!(server.get(&format!("/v1/runs/{run}")).await.json()["status"], "running");
    assert_eq!(server.ask("POST", &cancel, "", "").await.json()["status"], "cancelled");
    server.stop().await;
}

#[tokio::test]
async fn a_key_stands_for_one_request() {
    let server = Server::start(Limits::default()).await;
    let headers = "content-type: application/json\r\nidempotency-key: k1\r\n";
    let body = submit(MANIFEST, "");
    let first = server.ask("POST", "/v1/runs", headers, &body).await;
    let again = server.ask("POST", "/v1/runs", headers, &body).await;
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(first.json()["run"]["id"], again.json()["run"]["id"]);
    let other = submit(MANIFEST, ",\"namespace\":\"other\"");
    let answer = server.ask("POST", "/v1/runs", headers, &other).await;
    assert_eq!(answer.fault(), (409, "conflict/idempotency-key".to_owned()));
    let torn = submit(MANIFEST, ",\"idempotencyKey\":\"k2\"");
    let answer = server.ask("POST", "/v1/runs", headers, &torn).await;
    assert_eq!(answer.fault(), (400, "invalid/idempotency-key".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn without_a_quorum_every_request_is_answered_in_time() {
    let server = Server::start(Limits::default()).await;
    let run = server.node.run(1, "running");
    server.node.quorum.store(false, Ordering::Relaxed);
    let headers = "content-type: application/json\r\nrequest-timeout: 100ms\r\n";
    let begun = Instant::now();
    for (method, path, body) in [
        ("POST", "/v1/runs".to_owned(), submit(MANIFEST, "")),
        ("GET", "/v1/runs".to_owned(), String::new()),
        ("GET", format!("/v1/runs/{run}"), String::new()),
        ("POST", format!("/v1/runs/{run}/cancel"), "{}".to_owned()),
        ("POST", "/v1/cluster/transfer".to_owned(), "{}".to_owned()),
    ] {
        let answer = server.ask(method, &path, headers, &body).await;
        assert_eq!(answer.fault(), (503, "unavailable/no-quorum".to_owned()), "{path}");
        assert!(answer.head.contains("retry-after: 1"), "{answer:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    // What needs no quorum is answered.
    assert_eq!(server.get("/v1/runs?stale=true").await.status, 200);
    assert_eq!(server.get("/healthz").await.status, 200);
    assert_eq!(server.get("/v1/cluster").await.json()["role"], "leader");
    assert_eq!(server.get("/readyz").await.fault(), (503, "unavailable/not-ready".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let server = Server::start(Limits::default()).await;
    for number in 0..25 {
        server.node.run(number, if number % 5 == 0 { "failed" } else { "succeeded" });
    }
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!("/v1/runs?status=succeeded&pageSize=8&pageToken={token}");
        let page = server.get(&path).await.json();
        let runs = page["runs"].as_array().unwrap();
        names.extend(runs.iter().map(|run| run["name"].as_str().unwrap().to_owned()));
        token = page["nextPageToken"].as_str().unwrap().to_owned();
        if token.is_empty() {
            break;
        }
    }
    let want: Vec<String> =
        (0..25).rev().filter(|it| it % 5 != 0).map(|it| format!("run-{it}")).collect();
    assert_eq!(names, want);
    server.stop().await;
}

#[tokio::test]
async fn figures_documents_and_copies_are_served() {
    let server = Server::start(Limits::default()).await;
    server.get("/v1/runs").await;
    let metrics = server.get("/metrics").await.body;
    assert!(metrics.contains("tenon_raft_term 3"), "{metrics}");
    let counted = "tenon_requests_total{protocol=\"http\",operation=\"listRuns\",code=\"ok\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    assert_eq!(server.get("/openapi.json").await.json()["openapi"], "3.1.0");
    assert_eq!(server.get("/v1/cluster/backup").await.body, "onetwo");
    let run = server.node.run(1, "succeeded");
    let objects = server.get(&format!("/v1/runs/{run}/objects")).await;
    assert!(objects.head.contains("application/yaml"), "{objects:?}");
    server.stop().await;
}

#[tokio::test]
async fn nonsense_on_the_wire_ends_that_connection_only() {
    let server = Server::start(Limits::default()).await;
    for nonsense in [&b"\x16\x03\x01\x00\xff\x01"[..], b"GET\r\n\r\n", b"\0\0\0\0\0\0\0\0\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(nonsense).await.unwrap();
        drop(stream);
    }
    assert_eq!(server.get("/healthz").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_answers_what_it_was_asked_before() {
    let server = Server::start(Limits::default()).await;
    server.node.quorum.store(false, Ordering::Relaxed);
    let address = server.address;
    let mut asked = JoinSet::new();
    let body = submit(MANIFEST, "");
    let request = format!(
        "POST /v1/runs HTTP/1.1\r\nhost: x\r\nconnection: close\r\nrequest-timeout: 1s\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    asked.spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        Answer::parse(&answer)
    });
    // The node has the request when it waits for the quorum.
    tokio::time::timeout(LATE, server.node.waiting.notified()).await.unwrap();
    server.shutdown.cancel();
    let refused = server.get("/v1/runs").await;
    assert_eq!(refused.fault(), (503, "unavailable/stopping".to_owned()));
    assert_eq!(server.get("/readyz").await.status, 503);
    assert_eq!(server.get("/healthz").await.status, 200);
    let answer = asked.join_next().await.unwrap().unwrap();
    assert_eq!(answer.fault(), (503, "unavailable/no-quorum".to_owned()));
    server.stop().await;
}

#[test]
fn others_are_let_in_only_if_that_is_said() {
    use crate::server::check_address;
    let check = |address: &str, insecure| check_address(address.parse().unwrap(), insecure);
    assert!(check("127.0.0.1:1", false).is_ok());
    assert!(check("[::1]:1", false).is_ok());
    assert_eq!(check("0.0.0.0:1", false).unwrap_err().code(), "denied/insecure");
    assert!(check("0.0.0.0:1", true).is_ok());
}
