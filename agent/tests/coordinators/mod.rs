//! Coordinators that are made up: real gRPC servers in this process, which lose their leader again and
//! again, and forget what was not durable.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::Stream;
use tenon_proto::agent::v1::agents_server::{Agents, AgentsServer};
use tenon_proto::agent::v1::{
    Acknowledge, AgentMessage, AttemptId, CoordinatorMessage, EndRun, Hello, Report, RunSpec, Stop,
    TaskInvocation, Welcome, agent_message::Message as Says, coordinator_message::Message, report,
};
use tenon_proto::control::v1::Error;
use tenon_proto::status::to_status;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// The run that all attempts belong to.
pub const RUN: &str = "01JD0000000000000000000000";

/// A seeded source of choices.
pub struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % bound
    }
}

/// What the cluster knows; its nodes only differ in who leads.
pub struct Cluster {
    pub leader: usize,
    pub urls: Vec<String>,
    pub choices: Choices,
    /// Reports by number, from 1; those up to `durable` are never forgotten.
    pub reports: Vec<Report>,
    pub durable: usize,
    pub tasks: Vec<TaskInvocation>,
    pub stops: Vec<Stop>,
    pub ended_runs: Vec<String>,
    pub sessions: u32,
    pub hellos: Vec<Hello>,
    /// Messages that a session lasts at most; none is for ever.
    pub lasts: Option<usize>,
    pub refuse: Option<Error>,
    /// How long a lease is; 0 is none.
    pub lease_ms: u64,
    /// Heartbeats are answered.
    pub answers: bool,
    /// How many have come.
    pub heartbeats: usize,
    pub changed: Arc<Notify>,
}

impl Cluster {
    fn new(seed: u64) -> Cluster {
        Cluster {
            leader: 0,
            urls: Vec::new(),
            choices: Choices(seed | 1),
            reports: Vec::new(),
            durable: 0,
            tasks: Vec::new(),
            stops: Vec::new(),
            ended_runs: Vec::new(),
            sessions: 0,
            hellos: Vec::new(),
            lasts: None,
            refuse: None,
            lease_ms: 0,
            answers: true,
            heartbeats: 0,
            changed: Arc::default(),
        }
    }

    fn take(&mut self, report: Report) {
        let place = usize::try_from(report.number).unwrap() - 1;
        if let Some(known) = self.reports.get(place) {
            assert_eq!(*known, report, "a number stays with its report");
        } else {
            assert_eq!(place, self.reports.len(), "no number is left out");
            self.reports.push(report);
        }
        self.changed.notify_one();
    }

    pub fn has_ended(&self, attempt: &AttemptId) -> bool {
        self.reports.iter().any(|report| {
            report.attempt.as_ref() == Some(attempt)
                && matches!(report.what, Some(report::What::Ended(_)))
        })
    }

    /// What a new leader tells an agent: everything that its state calls for.
    fn greeting(&self, acknowledged: u64) -> VecDeque<CoordinatorMessage> {
        let lease_ms = self.lease_ms;
        let welcome = Welcome { acknowledged, heartbeat_ms: 5, lease_ms, ..Welcome::default() };
        let mut out = VecDeque::from([Message::Welcome(welcome)]);
        out.push_back(Message::Prepare(RunSpec { run_id: RUN.into(), ..RunSpec::default() }));
        let open = |attempt: &Option<AttemptId>| !self.has_ended(attempt.as_ref().unwrap());
        let tasks = self.tasks.iter().filter(|task| open(&task.attempt));
        out.extend(tasks.cloned().map(Message::Start));
        let stops = self.stops.iter().filter(|stop| open(&stop.attempt));
        out.extend(stops.cloned().map(Message::Stop));
        let ended = self.ended_runs.iter();
        out.extend(
            ended.map(|run| Message::EndRun(EndRun { run_id: run.clone(), ..EndRun::default() })),
        );
        out.into_iter().map(|message| CoordinatorMessage { message: Some(message) }).collect()
    }

    fn not_leader(&mut self) -> Status {
        let mut error = Error {
            code: "unavailable/not-leader".into(),
            message: "not I".into(),
            ..Error::default()
        };
        if self.choices.below(2) == 0 {
            error.leader_url = self.urls[self.leader].clone();
        }
        to_status(&error)
    }

    /// The leader dies; what it had not made durable is forgotten.
    fn fail_over(&mut self) {
        let undurable = self.reports.len() - self.durable;
        let kept = self.durable + self.choices.below(undurable + 1);
        self.reports.truncate(kept);
        self.leader = self.choices.below(self.urls.len());
    }
}

/// One node.
#[derive(Clone)]
pub struct Node {
    pub me: usize,
    pub cluster: Arc<Mutex<Cluster>>,
}

impl Node {
    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap()
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<CoordinatorMessage, Status>> + Send>>;

struct Talk {
    node: Node,
    requests: Streaming<AgentMessage>,
    out: VecDeque<CoordinatorMessage>,
    lasts: Option<usize>,
}

impl Talk {
    async fn next(mut self) -> Option<(Result<CoordinatorMessage, Status>, Option<Talk>)> {
        loop {
            if let Some(message) = self.out.pop_front() {
                return Some((Ok(message), Some(self)));
            }
            if self.lasts == Some(0) {
                let mut cluster = self.node.cluster();
                cluster.fail_over();
                // With a word or without one.
                let word = cluster.choices.below(2) == 0;
                let status = cluster.not_leader();
                return word.then_some((Err(status), None));
            }
            let heard = self.requests.message().await.ok()??;
            let mut cluster = self.node.cluster();
            let before = cluster.durable;
            if matches!(heard.message, Some(Says::Heartbeat(_))) {
                cluster.heartbeats += 1;
                cluster.changed.notify_one();
            }
            match heard.message.unwrap() {
                Says::Report(report) => cluster.take(report),
                Says::Reports(batch) => {
                    assert!(batch.reports.len() > 1);
                    batch.reports.into_iter().for_each(|report| cluster.take(report));
                }
                Says::Hello(_) => panic!("one hello is enough"),
                Says::Heartbeat(beat) if cluster.answers => {
                    let message = Some(Message::Heartbeat(beat));
                    self.out.push_back(CoordinatorMessage { message });
                }
                Says::Progress(_) | Says::Heartbeat(_) => {}
            }
            let undurable = cluster.reports.len() - cluster.durable;
            cluster.durable += cluster.choices.below(undurable + 2).min(undurable);
            if cluster.durable > before {
                let number = cluster.durable as u64;
                let message = Some(Message::Acknowledge(Acknowledge { number }));
                self.out.push_back(CoordinatorMessage { message });
            }
            drop(cluster);
            self.lasts = self.lasts.map(|lasts| lasts - 1);
        }
    }
}

#[tonic::async_trait]
impl Agents for Node {
    type SessionStream = Answers;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Answers>, Status> {
        let mut requests = request.into_inner();
        let (out, lasts) = {
            let mut cluster = self.cluster();
            if let Some(error) = &cluster.refuse {
                return Err(to_status(error));
            }
            if cluster.leader != self.me {
                return Err(cluster.not_leader());
            }
            cluster.sessions += 1;
            let lasts = cluster.lasts;
            let lasts = lasts.map(|most| cluster.choices.below(most));
            // A leader knows at least what is durable, and may know more of what it has.
            (cluster.greeting(cluster.durable as u64), lasts)
        };
        let first = requests.message().await?.unwrap();
        let Some(Says::Hello(hello)) = first.message else { panic!("hello comes first") };
        self.cluster().hellos.push(hello);
        let talk = Talk { node: self.clone(), requests, out, lasts };
        let answers = futures_util::stream::unfold(Some(talk), |talk| async { talk?.next().await });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// A cluster of so many nodes, and the tasks that serve them.
pub async fn cluster(nodes: usize, seed: u64, servers: &mut JoinSet<()>) -> Arc<Mutex<Cluster>> {
    println!("seed {seed}");
    let cluster = Arc::new(Mutex::new(Cluster::new(seed)));
    for me in 0..nodes {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        cluster.lock().unwrap().urls.push(url);
        serve(listener, Node { me, cluster: cluster.clone() }, servers);
    }
    cluster
}

pub fn serve(listener: TcpListener, node: Node, servers: &mut JoinSet<()>) {
    let service = AgentsServer::new(node).max_decoding_message_size(64 << 20);
    let server = tonic::transport::Server::builder().add_service(service);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    servers.spawn(async move {
        server.serve_with_incoming(incoming).await.unwrap();
    });
}
