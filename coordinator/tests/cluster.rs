//! Three nodes with their servers in one process, on real disks and real sockets, with an agent
//! played by the test: a cluster is made, does its work through any node, survives its leader, and
//! brings a node back that the log no longer reaches.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tempfile::TempDir;
use tenon_coordinator::intake::{self, Chance, Front};
use tenon_coordinator::server::{Change, ControlPlane, ServerOptions, Started, serve};
use tenon_coordinator::{Handle, Node, NodeOptions};
use tenon_engine::{RunId, Time};
use tenon_proto::agent::v1::coordinator_message::Message;
use tenon_proto::agent::v1::report::What;
use tenon_proto::agent::v1::{
    AgentMessage, Ended, Hello, Ran, Report, StepEnded, StepStarted, agent_message, ended,
};
use tenon_tekton::load::Source;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const TASK_RUN: &str = "
apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {generateName: hello-, namespace: default}
spec:
  taskSpec:
    steps: [{name: say, image: busybox, script: echo}]
";

struct TestNode {
    node: Option<Node>,
    dir: TempDir,
    name: String,
    url: String,
    serving: CancellationToken,
}

impl TestNode {
    async fn start(name: &str) -> TestNode {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut node = TestNode {
            node: None,
            dir: TempDir::new().unwrap(),
            name: name.to_owned(),
            url,
            serving: CancellationToken::new(),
        };
        node.run(listener);
        node
    }

    fn run(&mut self, listener: TcpListener) {
        let options = NodeOptions::new(self.dir.path().to_owned(), &self.name, &self.url);
        let runtime = tokio::runtime::Handle::current;
        let began = std::time::Instant::now();
        let node = loop {
            match Node::start(options.clone(), runtime()) {
                Ok(node) => break node,
                // Streams of the node before it let go of its files when they end.
                Err(error) if began.elapsed() > Duration::from_secs(10) => panic!("{error}"),
                Err(_) => std::thread::park_timeout(Duration::from_millis(10)),
            }
        };
        let handle = node.handle();
        let metrics = handle.metrics().clone();
        self.serving = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "ends with the token")]
        tokio::spawn(serve(
            Arc::new(handle),
            metrics,
            listener,
            ServerOptions::default(),
            self.serving.clone(),
        ));
        self.node = Some(node);
    }

    async fn stop(&mut self) {
        let node = self.node.take().unwrap();
        tokio::task::spawn_blocking(|| node.stop()).await.unwrap().unwrap();
        self.serving.cancel();
    }

    async fn restart(&mut self) {
        let address = self.url.strip_prefix("http://").unwrap();
        let listener = loop {
            if let Ok(listener) = TcpListener::bind(address).await {
                break listener;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        self.run(listener);
    }

    fn handle(&self) -> Handle {
        self.node.as_ref().unwrap().handle()
    }
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = deadline();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn leader(nodes: &[TestNode]) -> usize {
    until("a leader", async || {
        for (at, node) in nodes.iter().enumerate() {
            let Some(node) = &node.node else { continue };
            let look = node.handle().look(tenon_coordinator::Coordinator::is_leading).await;
            if look == Some(true) {
                return Some(at);
            }
        }
        None
    })
    .await
}

async fn submit(handle: &Handle) -> Started {
    let request = intake::Request {
        sources: vec![Source { name: "test".to_owned(), text: TASK_RUN.into() }],
        pipeline: None,
        task: None,
        run: None,
        params: Vec::new(),
        workspaces: Vec::new(),
        namespace: "default".to_owned(),
        timeout: None,
        parallel: None,
        traceparent: None,
        flags: Default::default(),
        front: Front::Api,
    };
    let millis = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = Time(millis.as_millis() as i64);
    let mut last = millis.as_nanos() as u64;
    let mut random = || {
        last = last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        last
    };
    let mut chance = Chance { now, random: &mut random };
    let prepared = intake::prepare(&request, &mut chance, &mut |_| {}).unwrap().remove(0);
    handle.submit(Box::new(prepared), None, deadline()).await.unwrap()
}

/// An agent that does whatever it is told, at once, until its session ends.
async fn agent(handle: Handle, incarnation: String) {
    let hello = Hello {
        name: "a1".to_owned(),
        slots: 10,
        backends: vec!["host".to_owned()],
        incarnation,
        ..Hello::default()
    };
    let Ok(mut session) = handle.session(hello).await else { return };
    let mut number = 0;
    while let Some(Ok(message)) = session.from_node.next().await {
        let Some(Message::Start(start)) = message.message else { continue };
        let ended = Ended { outcome: Some(ended::Outcome::Ran(Ran {})), ..Ended::default() };
        for what in [
            What::Started(Default::default()),
            What::StepStarted(StepStarted { step: "say".to_owned() }),
            What::StepEnded(StepEnded { step: "say".to_owned(), ..StepEnded::default() }),
            What::Ended(ended),
        ] {
            number += 1;
            let report =
                Report { number, attempt: start.attempt.clone(), time_ms: 1000, what: Some(what) };
            let message = Some(agent_message::Message::Report(report));
            if !session.to_node.said(AgentMessage { message }).await {
                return;
            }
        }
    }
}

async fn succeeded(handle: &Handle, run: &str) {
    let run: RunId = run.parse().unwrap();
    until("the run to succeed", async || {
        let run = handle.get(run).unwrap()?;
        (run.status == "succeeded").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_do_their_work_through_the_death_of_a_leader() {
    let mut nodes = Vec::new();
    for name in ["n1", "n2", "n3"] {
        nodes.push(TestNode::start(name).await);
    }
    let peers = vec![nodes[1].url.clone(), nodes[2].url.clone()];
    nodes[0].handle().change(Change::Init { peers }, deadline()).await.unwrap();

    for (at, incarnation) in ["x", "y", "z"].into_iter().enumerate() {
        let leader = leader(&nodes).await;
        #[expect(clippy::disallowed_methods, reason = "ends with its session")]
        tokio::spawn(agent(nodes[leader].handle(), incarnation.to_owned()));
        // Through every node, the leader and the others.
        for node in nodes.iter().filter(|node| node.node.is_some()) {
            let run = submit(&node.handle()).await.run;
            for other in nodes.iter().filter(|node| node.node.is_some()) {
                succeeded(&other.handle(), &run.id).await;
            }
        }
        if at < 2 {
            nodes[leader].stop().await;
            if at == 1 {
                continue;
            }
            let again = leader;
            leader_other_than(&nodes, again).await;
            nodes[again].restart().await;
        } else {
            break;
        }
        // The node that was away has everything.
        let all = count(&nodes[(leader + 1) % 3].handle());
        until("the restarted node to catch up", async || {
            (count(&nodes[leader].handle()) == all).then_some(())
        })
        .await;
    }
    for node in &mut nodes {
        if node.node.is_some() {
            node.stop().await;
        }
    }
}

async fn leader_other_than(nodes: &[TestNode], old: usize) {
    until("another leader", async || {
        let now = leader(nodes).await;
        (now != old).then_some(())
    })
    .await;
}

fn count(handle: &Handle) -> usize {
    let mut count = 0;
    handle
        .visit_runs(None, &mut |_| {
            count += 1;
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    count
}
