//! A client and a cluster whose nodes refuse, lag, cut off and die: real gRPC servers in this process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::Stream;
use tenon_client::{Client, Notice, Options};
use tenon_proto::control::v1::control_server::{Control, ControlServer};
use tenon_proto::control::v1::events_server::{Events, EventsServer};
use tenon_proto::control::v1::{
    CancelRunRequest, Error, EventBatch, ExplainRunRequest, ExplainRunResponse,
    GetRunObjectsRequest, GetRunRequest, ListRunsRequest, ListRunsResponse, ReleaseRunRequest,
    RerunRunRequest, RerunRunResponse, Run, RunObjects, SubmitRequest, SubmitResponse,
    SubscribeRequest,
};
use tenon_proto::status::to_status;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

const BOUND: Duration = Duration::from_secs(60);

struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % bound
    }
}

/// How nodes answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// As they should.
    Well,
    /// They do what they are asked, and half of the time say that they did not.
    Forgetful,
    /// Only the leader answers, and is named.
    Strict,
    /// Nobody does anything.
    NoQuorum,
    /// They take requests and never answer.
    Silent,
}

struct Cluster {
    mood: Mood,
    leader: usize,
    urls: Vec<String>,
    choices: Choices,
    /// Runs by idempotency key.
    runs: BTreeMap<String, Run>,
    asked: u32,
    /// How many events there are, in the end.
    events: u64,
    cuts: u32,
}

#[derive(Clone)]
struct Node {
    me: usize,
    cluster: Arc<Mutex<Cluster>>,
}

fn error(code: &str) -> Error {
    Error { code: code.into(), message: format!("this is {code}"), ..Error::default() }
}

impl Node {
    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap()
    }

    /// Whether this node says that it did what it did.
    async fn mood(&self) -> Result<(), Status> {
        let (mood, silent) = {
            let mut cluster = self.cluster();
            cluster.asked += 1;
            let lost = cluster.mood == Mood::Forgetful && cluster.choices.below(2) == 0;
            let answer = match cluster.mood {
                Mood::Strict if cluster.leader != self.me => {
                    let leader_url = cluster.urls[cluster.leader].clone();
                    Err(Error { leader_url, ..error("unavailable/not-leader") })
                }
                Mood::NoQuorum => Err(error("unavailable/no-quorum")),
                _ if lost => Err(error("deadline/exceeded")),
                _ => Ok(()),
            };
            (answer, cluster.mood == Mood::Silent)
        };
        if silent {
            std::future::pending::<()>().await;
        }
        mood.map_err(|error| to_status(&error))
    }
}

#[tonic::async_trait]
impl Control for Node {
    async fn submit(
        &self,
        request: Request<SubmitRequest>,
    ) -> Result<Response<SubmitResponse>, Status> {
        let request = request.into_inner();
        let key = request.idempotency_key.unwrap();
        let (run, replayed) = {
            let mut cluster = self.cluster();
            if cluster.mood == Mood::Strict && cluster.leader != self.me {
                (Run::default(), false)
            } else {
                let id = format!("run-{}", cluster.runs.len());
                let replayed = cluster.runs.contains_key(&key);
                let run = cluster.runs.entry(key).or_insert(Run { id, ..Run::default() }).clone();
                (run, replayed)
            }
        };
        self.mood().await?;
        Ok(Response::new(SubmitResponse { run: Some(run), replayed, ..SubmitResponse::default() }))
    }

    async fn get_run(&self, request: Request<GetRunRequest>) -> Result<Response<Run>, Status> {
        self.mood().await?;
        match request.into_inner().id.as_str() {
            "none" => {
                let hint = "look".to_owned();
                Err(to_status(&Error { hint, ..error("not-found/run") }))
            }
            id => Ok(Response::new(Run { id: id.into(), ..Run::default() })),
        }
    }

    async fn list_runs(
        &self,
        _: Request<ListRunsRequest>,
    ) -> Result<Response<ListRunsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn cancel_run(&self, _: Request<CancelRunRequest>) -> Result<Response<Run>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn rerun_run(
        &self,
        _: Request<RerunRunRequest>,
    ) -> Result<Response<RerunRunResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn release_run(&self, _: Request<ReleaseRunRequest>) -> Result<Response<Run>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn explain_run(
        &self,
        _: Request<ExplainRunRequest>,
    ) -> Result<Response<ExplainRunResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_run_objects(
        &self,
        _: Request<GetRunObjectsRequest>,
    ) -> Result<Response<RunObjects>, Status> {
        Err(Status::unimplemented(""))
    }
}

type Batches = Pin<Box<dyn Stream<Item = Result<EventBatch, Status>> + Send>>;

#[tonic::async_trait]
impl Events for Node {
    type SubscribeStream = Batches;

    /// Batches of random size; cuts off after some of them, with or without a word.
    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Batches>, Status> {
        self.mood().await?;
        let request = request.into_inner();
        let node = self.clone();
        let answers = futures_util::stream::unfold(Some(request.since), move |since| {
            let node = node.clone();
            let follows_all = request.follow && request.run.is_empty();
            async move {
                let since = since?;
                let mut cluster = node.cluster();
                if since >= cluster.events && !follows_all {
                    return None;
                }
                if cluster.choices.below(4) == 0 {
                    cluster.cuts += 1;
                    // Without a word only where the stream could not have ended by itself.
                    let word = !follows_all || cluster.choices.below(2) == 0;
                    let status = Status::unavailable("the node stops");
                    return word.then_some((Err(status), None));
                }
                let size = cluster.choices.below(20) as u64;
                let last = (since + size).min(cluster.events);
                // A careless node repeats what it sent before.
                let first = since.saturating_sub(cluster.choices.below(3) as u64);
                let lines = (first + 1..=last).filter(|seq| seq % 3 != 0).map(|seq| {
                    let time = "2026-01-01T00:00:00.000Z";
                    format!("{{\"kind\":\"step-log\",\"time\":\"{time}\",\"seq\":{seq}}}").into()
                });
                let batch = EventBatch { lines: lines.collect(), last_seq: last };
                Some((Ok(batch), Some(last)))
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

async fn cluster(nodes: usize, seed: u64, servers: &mut JoinSet<()>) -> Arc<Mutex<Cluster>> {
    println!("seed {seed}");
    let cluster = Arc::new(Mutex::new(Cluster {
        mood: Mood::Well,
        leader: 0,
        urls: Vec::new(),
        choices: Choices(seed | 1),
        runs: BTreeMap::new(),
        asked: 0,
        events: 1000,
        cuts: 0,
    }));
    for me in 0..nodes {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        cluster.lock().unwrap().urls.push(url);
        let node = Node { me, cluster: cluster.clone() };
        let server = tonic::transport::Server::builder()
            .add_service(ControlServer::new(node.clone()))
            .add_service(EventsServer::new(node));
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        servers.spawn(async move {
            server.serve_with_incoming(incoming).await.unwrap();
        });
    }
    cluster
}

fn urls(cluster: &Arc<Mutex<Cluster>>) -> Vec<String> {
    cluster.lock().unwrap().urls.clone()
}

fn quick(deadline: Duration) -> Options {
    Options { deadline, attempt: Duration::from_millis(200), ..Options::default() }
}

fn get(id: &str) -> GetRunRequest {
    GetRunRequest { id: id.to_owned() }
}

#[tokio::test]
async fn a_submission_is_one_run_however_often_it_has_to_be_sent() {
    for seed in [3, 77, 4242] {
        let mut servers = JoinSet::new();
        let cluster = cluster(3, seed, &mut servers).await;
        cluster.lock().unwrap().mood = Mood::Forgetful;
        let client = Client::new(&urls(&cluster), quick(BOUND)).unwrap();
        let mut ids = Vec::new();
        for _ in 0..20 {
            let answer = client.submit(SubmitRequest::default()).await.unwrap();
            ids.push(answer.run.unwrap().id);
        }
        let wanted: Vec<String> = (0..20).map(|number| format!("run-{number}")).collect();
        assert_eq!(ids, wanted);
        let cluster = cluster.lock().unwrap();
        assert!(cluster.asked > 25, "{} questions are no test", cluster.asked);
        assert_eq!(cluster.runs.len(), 20);
    }
}

#[tokio::test]
async fn the_leader_is_found_also_where_nobody_listed_it() {
    let mut servers = JoinSet::new();
    let cluster = cluster(3, 1, &mut servers).await;
    {
        let mut cluster = cluster.lock().unwrap();
        cluster.mood = Mood::Strict;
        cluster.leader = 2;
    }
    let known = vec![urls(&cluster)[0].clone()];
    let client = Client::new(&known, quick(BOUND)).unwrap();
    client.submit(SubmitRequest::default()).await.unwrap();
    client.submit(SubmitRequest::default()).await.unwrap();
    // Once to be told, then always the right one.
    assert_eq!(cluster.lock().unwrap().asked, 3);
    assert_eq!(client.nodes().len(), 2);
    assert_eq!(cluster.lock().unwrap().runs.len(), 2);
}

#[tokio::test]
async fn every_event_comes_once_and_in_order_whatever_happens_to_streams() {
    for seed in [1, 99, 0xbeef] {
        let mut servers = JoinSet::new();
        let cluster = cluster(3, seed, &mut servers).await;
        let client = Client::new(&urls(&cluster), quick(BOUND)).unwrap();
        let request = SubscribeRequest { since: 10, follow: true, ..SubscribeRequest::default() };
        let mut events = client.events(request);
        let mut seen = Vec::new();
        while events.seq() < 1000 {
            for line in events.next().await.unwrap().unwrap().lines {
                let line = String::from_utf8(line.to_vec()).unwrap();
                let seq: u64 =
                    line.rsplit(':').next().unwrap().trim_end_matches('}').parse().unwrap();
                seen.push(seq);
            }
        }
        let wanted: Vec<u64> = (11..=1000).filter(|seq| seq % 3 != 0).collect();
        assert_eq!(seen, wanted);
        assert!(cluster.lock().unwrap().cuts > 5);
        // Of one run, and without following, it ends by itself.
        for (run, follow) in [("r", true), ("", false)] {
            let request =
                SubscribeRequest { run: run.into(), follow, ..SubscribeRequest::default() };
            let mut events = client.events(request);
            let mut count = 0;
            while let Some(batch) = events.next().await.unwrap() {
                count += batch.lines.len();
            }
            assert_eq!((count, events.seq()), (667, 1000));
        }
    }
}

#[tokio::test]
async fn refusals_come_at_once_and_as_they_were_said() {
    let mut servers = JoinSet::new();
    let cluster = cluster(2, 1, &mut servers).await;
    let client = Client::new(&urls(&cluster), quick(BOUND)).unwrap();
    let error = client.get_run(get("none")).await.unwrap_err();
    assert_eq!(error.code(), "not-found/run");
    assert_eq!(error.to_string(), "this is not-found/run");
    assert_eq!(error.hint(), Some("look"));
    assert_eq!(cluster.lock().unwrap().asked, 1);
}

#[tokio::test]
async fn a_cluster_that_can_do_nothing_is_an_error_within_the_deadline() {
    let mut servers = JoinSet::new();
    let cluster = cluster(3, 1, &mut servers).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    for (mood, nodes, says) in [
        (Mood::NoQuorum, urls(&cluster), "no-quorum"),
        (Mood::Silent, urls(&cluster), "in time"),
        (Mood::Well, vec![nobody], "refused"),
    ] {
        cluster.lock().unwrap().mood = mood;
        let client = Client::new(&nodes, quick(Duration::from_millis(700))).unwrap();
        let began = Instant::now();
        let error = client.submit(SubmitRequest::default()).await.unwrap_err();
        assert_eq!(error.code(), "unavailable/cluster", "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        let mut events = client.events(SubscribeRequest { follow: true, ..Default::default() });
        if mood == Mood::NoQuorum {
            assert_eq!(events.next().await.unwrap_err().code(), "unavailable/cluster");
        }
    }
}

#[tokio::test]
async fn the_user_hears_once_of_trouble_and_once_of_its_end() {
    let mut servers = JoinSet::new();
    let cluster = cluster(1, 1, &mut servers).await;
    cluster.lock().unwrap().mood = Mood::NoQuorum;
    let (notices, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let options = Options {
        on_notice: Arc::new(move |notice| notices.send(notice).unwrap()),
        ..quick(BOUND)
    };
    let client = Client::new(&urls(&cluster), options).unwrap();
    let mend = async {
        let first = heard.recv().await.unwrap();
        while cluster.lock().unwrap().asked < 5 {
            tokio::task::yield_now().await;
        }
        cluster.lock().unwrap().mood = Mood::Well;
        (first, heard.recv().await.unwrap(), heard)
    };
    let (run, (first, second, mut heard)) = tokio::join!(client.get_run(get("x")), mend);
    assert_eq!(run.unwrap().id, "x");
    assert_eq!(first, Notice::Retrying { why: "this is unavailable/no-quorum".into() });
    assert_eq!(second, Notice::Answering { url: urls(&cluster)[0].clone() });
    assert!(heard.try_recv().is_err());
}
