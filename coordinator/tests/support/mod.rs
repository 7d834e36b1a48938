//! Real nodes with their servers in one process, on real disks and real sockets, asked over HTTP and
//! gRPC as anybody would.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod agent;
pub mod http;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tenon_coordinator::server::{ServerOptions, serve};
use tenon_coordinator::{Handle, Node, NodeOptions};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use http::Answer;

/// Nothing takes longer than this.
pub const LATE: Duration = Duration::from_secs(60);

/// A TaskRun of one step.
pub const TASK_RUN: &str = "apiVersion: tekton.dev/v1\nkind: TaskRun\n\
    metadata: {generateName: hello-, labels: {tier: web}}\nspec:\n  \
    taskSpec: {steps: [{name: say, image: busybox, script: echo}]}\n";

/// One node with its server.
pub struct TestNode {
    node: Option<Node>,
    pub dir: TempDir,
    pub name: String,
    pub url: String,
    change: fn(&mut NodeOptions),
    shutdown: CancellationToken,
    serving: JoinSet<()>,
}

impl TestNode {
    /// An empty node on a free port.
    pub async fn start(name: &str) -> TestNode {
        TestNode::start_in(TempDir::new().unwrap(), name).await
    }

    /// A node on a directory that may have something in it.
    pub async fn start_in(dir: TempDir, name: &str) -> TestNode {
        TestNode::start_with(dir, name, |_| {}).await
    }

    /// The same with other options than the usual ones.
    pub async fn start_with(dir: TempDir, name: &str, change: fn(&mut NodeOptions)) -> TestNode {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut node = TestNode {
            node: None,
            dir,
            name: name.to_owned(),
            url,
            change,
            shutdown: CancellationToken::new(),
            serving: JoinSet::new(),
        };
        node.run(listener).await;
        node
    }

    async fn run(&mut self, listener: TcpListener) {
        let mut options = NodeOptions::new(self.dir.path().to_owned(), &self.name, &self.url);
        (self.change)(&mut options);
        let runtime = tokio::runtime::Handle::current();
        let start = move || Node::start(options, runtime).unwrap();
        let node = tokio::task::spawn_blocking(start).await.unwrap();
        let handle = node.handle();
        let metrics = handle.metrics().clone();
        self.shutdown = CancellationToken::new();
        let shutdown = self.shutdown.clone();
        let options = ServerOptions::default();
        self.serving.spawn(async move {
            serve(Arc::new(handle), metrics, listener, options, shutdown).await.unwrap();
        });
        self.node = Some(node);
    }

    /// Starts a node that was stopped, where it was.
    pub async fn start_again(&mut self) {
        let address = self.url.strip_prefix("http://").unwrap();
        let listener = until("the port to be free", async || TcpListener::bind(address).await.ok());
        let listener = listener.await;
        self.run(listener).await;
    }

    /// The node itself.
    pub fn handle(&self) -> Handle {
        self.node.as_ref().unwrap().handle()
    }

    /// Stops the server, then the node.
    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        while self.serving.join_next().await.is_some() {}
        if let Some(node) = self.node.take() {
            tokio::task::spawn_blocking(move || node.stop()).await.unwrap().unwrap();
        }
    }

    pub fn is_running(&self) -> bool {
        self.node.is_some()
    }

    /// A JSON request.
    pub async fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        http::ask(&self.url, method, path, "content-type: application/json\r\n", &body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &Value::Null).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask("POST", path, &body).await
    }

    /// Submits [`TASK_RUN`]; the run's id.
    pub async fn submit(&self) -> String {
        let answer = self.post("/v1/runs", json!({"manifest": TASK_RUN})).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        text(&answer.json()["run"]["id"])
    }

    /// Waits until a run has a status.
    pub async fn until_run_is(&self, id: &str, status: &str) -> Value {
        until(&format!("run {id} to be {status}"), async || {
            let run = self.get(&format!("/v1/runs/{id}")).await;
            (run.status == 200 && run.json()["status"] == status).then(|| run.json())
        })
        .await
    }
}

/// Nodes that are one cluster.
pub async fn cluster(count: usize) -> Vec<TestNode> {
    cluster_with(count, |_| {}).await
}

/// The same with other options than the usual ones.
pub async fn cluster_with(count: usize, change: fn(&mut NodeOptions)) -> Vec<TestNode> {
    let mut nodes = Vec::new();
    for number in 1..=count {
        let dir = TempDir::new().unwrap();
        nodes.push(TestNode::start_with(dir, &format!("n{number}"), change).await);
    }
    let peers: Vec<&String> = nodes[1..].iter().map(|node| &node.url).collect();
    let body = json!({"peers": peers}).to_string();
    let headers = "content-type: application/json\r\nrequest-timeout: 60\r\n";
    let made = http::ask(&nodes[0].url, "POST", "/v1/cluster/init", headers, &body).await;
    assert_eq!(made.status, 200, "{made:?}");
    nodes
}

pub async fn stop(nodes: &mut [TestNode]) {
    for node in nodes {
        node.stop().await;
    }
}

/// The node that leads.
pub async fn leader(nodes: &[TestNode]) -> usize {
    until("a leader", async || {
        for (at, node) in nodes.iter().enumerate().filter(|(_, node)| node.is_running()) {
            let status = node.get("/v1/cluster").await.json();
            if status["role"] == "leader" && status["ready"] == true {
                return Some(at);
            }
        }
        None
    })
    .await
}

/// Looks until something is there.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LATE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}
