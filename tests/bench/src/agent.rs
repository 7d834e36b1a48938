//! Agents that only pretend: a real session over gRPC, with many slots, in which every attempt is
//! over as soon as it is started. They keep the rules of a real one: reports are numbered, kept until
//! they are acknowledged, and sent again in the next session.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use tenon_client::Access;
use tenon_client::connect::connect_for_session;
use tenon_client::route::Route;
use tenon_proto::agent::v1::agents_client::AgentsClient;
use tenon_proto::agent::v1::coordinator_message::Message as Told;
use tenon_proto::agent::v1::report::What;
use tenon_proto::agent::v1::{
    AgentMessage, AttemptId, Ended, Heartbeat, Hello, Ran, Report, Reports, Started, StepEnded,
    StepStarted, agent_message, ended,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;

use crate::load::STEP;

/// Reports that go in one message at most, as of a real agent.
const BATCH: usize = 128;
/// Messages that may wait to be sent.
const WAITING: usize = 64;

/// Pretending agents; they end when this is dropped.
pub struct Fleet {
    board: Arc<Board>,
    _tasks: JoinSet<()>,
}

/// What the agents have seen.
pub struct Board {
    tasks: AtomicU64,
    ended: Mutex<HashSet<String>>,
    /// A permit for each run that is over.
    pub room: Semaphore,
}

impl Board {
    /// Tasks whose end is acknowledged: it is on the disks of a majority, and applied.
    pub fn tasks(&self) -> u64 {
        self.tasks.load(Ordering::Relaxed)
    }

    /// Runs that are over.
    pub fn runs(&self) -> usize {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn run_ended(&self, run: String) {
        // Each agent that had a part in it is told.
        if self.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(run) {
            self.room.add_permits(1);
        }
    }
}

impl Fleet {
    /// Starts so many agents with so many slots each; they find the leader by themselves.
    pub fn start(urls: &[String], agents: usize, slots: u32) -> Fleet {
        let board = Arc::new(Board {
            tasks: AtomicU64::new(0),
            ended: Mutex::default(),
            room: Semaphore::new(0),
        });
        let mut tasks = JoinSet::new();
        for number in 0..agents {
            let agent = Agent {
                name: format!("pretender-{number}"),
                incarnation: format!("{:026}", number + 1),
                slots,
                board: board.clone(),
                last: 0,
                kept: VecDeque::new(),
                sent: 0,
                answered: HashSet::new(),
                runs: HashSet::new(),
                welcomed: false,
            };
            tasks.spawn(agent.serve(Route::new(urls.to_vec(), number as u64 + 1)));
        }
        Fleet { board, _tasks: tasks }
    }

    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }
}

struct Agent {
    name: String,
    incarnation: String,
    slots: u32,
    board: Arc<Board>,
    /// The number of the last report.
    last: u64,
    /// Reports that are not acknowledged.
    kept: VecDeque<Report>,
    /// How many of them this session has sent.
    sent: usize,
    /// Attempts that were started, of runs that go on.
    answered: HashSet<(String, String, u32, u32)>,
    /// Runs that it was told to prepare.
    runs: HashSet<String>,
    /// The session stood.
    welcomed: bool,
}

impl Agent {
    async fn serve(mut self, mut route: Route) {
        loop {
            let next = route.next_try();
            tokio::time::sleep(next.pause).await;
            self.welcomed = false;
            let leader = match self.converse(&next.url).await {
                Ok(()) => None,
                Err(error) => error.leader_url().map(str::to_owned),
            };
            if self.welcomed {
                route.worked(&next.url);
            }
            route.failed(&next.url, leader.as_deref());
        }
    }

    async fn converse(&mut self, url: &str) -> tenon_client::Result<()> {
        let channel = connect_for_session(url, &Access::default()).await?;
        let (outbox, inbox) = mpsc::channel(WAITING);
        let hello = agent_message::Message::Hello(self.hello());
        // The receiver is here.
        let _ = outbox.send(AgentMessage { message: Some(hello) }).await;
        let refused = |status| tenon_client::Error::of_status(url, &status);
        let mut client = AgentsClient::new(channel);
        let session = client.session(ReceiverStream::new(inbox)).await;
        let mut stream = session.map_err(refused)?.into_inner();
        self.sent = 0;
        let mut beat = None;
        let mut every = Duration::ZERO;
        loop {
            let beats = async {
                match beat {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let mut told = tokio::select! {
                told = stream.message() => told.map_err(refused)?,
                () = beats => {
                    beat = Some(Instant::now() + every);
                    let message = agent_message::Message::Heartbeat(Heartbeat::default());
                    let _ = outbox.try_send(AgentMessage { message: Some(message) });
                    continue;
                }
            };
            // Everything that is there is answered together.
            loop {
                let Some(message) = told else { return Ok(()) };
                if let Some(Told::Welcome(welcome)) = &message.message {
                    every = Duration::from_millis(welcome.heartbeat_ms);
                    beat = (!every.is_zero()).then(|| Instant::now() + every);
                }
                message.message.into_iter().for_each(|message| self.told(message));
                told = match stream.message().now_or_never() {
                    Some(told) => told.map_err(refused)?,
                    None => break,
                };
            }
            while self.sent < self.kept.len() {
                let reports: Vec<Report> =
                    self.kept.range(self.sent..).take(BATCH).cloned().collect();
                self.sent += reports.len();
                let message = agent_message::Message::Reports(Reports { reports });
                if outbox.send(AgentMessage { message: Some(message) }).await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            name: self.name.clone(),
            incarnation: self.incarnation.clone(),
            slots: self.slots,
            backends: vec!["host".to_owned()],
            runs: self.runs.iter().cloned().collect(),
            protocol: 1,
            software: "pretender".to_owned(),
            ..Hello::default()
        }
    }

    fn told(&mut self, message: Told) {
        match message {
            Told::Welcome(welcome) => {
                self.welcomed = true;
                self.acknowledge(welcome.acknowledged);
            }
            Told::Acknowledge(acknowledge) => self.acknowledge(acknowledge.number),
            Told::Prepare(spec) => {
                self.runs.insert(spec.run_id);
            }
            Told::EndRun(end) => {
                self.runs.remove(&end.run_id);
                self.answered.retain(|(run, ..)| *run != end.run_id);
                self.board.run_ended(end.run_id);
            }
            Told::Start(invocation) => {
                let Some(attempt) = invocation.attempt else { return };
                let id = (
                    attempt.run_id.clone(),
                    attempt.task_run.clone(),
                    attempt.attempt,
                    attempt.placement,
                );
                // A new leader tells again what the last one had told.
                if self.answered.insert(id) {
                    self.pretend(&attempt);
                }
            }
            // What is to be stopped is over.
            Told::Stop(_) | Told::Heartbeat(_) => {}
        }
    }

    fn pretend(&mut self, attempt: &AttemptId) {
        let step = || STEP.to_owned();
        let time = now_ms();
        let ended = StepEnded { step: step(), started_at_ms: Some(time), ..StepEnded::default() };
        for what in [
            What::Started(Started {}),
            What::StepStarted(StepStarted { step: step() }),
            What::StepEnded(ended),
            What::Ended(Ended { outcome: Some(ended::Outcome::Ran(Ran {})), ..Ended::default() }),
        ] {
            self.last += 1;
            let (number, attempt) = (self.last, Some(attempt.clone()));
            self.kept.push_back(Report { number, attempt, time_ms: time, what: Some(what) });
        }
    }

    fn acknowledge(&mut self, number: u64) {
        let mut tasks = 0;
        while let Some(report) = self.kept.pop_front_if(|report| report.number <= number) {
            self.sent = self.sent.saturating_sub(1);
            tasks += u64::from(matches!(report.what, Some(What::Ended(_))));
        }
        self.board.tasks.fetch_add(tasks, Ordering::Relaxed);
    }
}

fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}
