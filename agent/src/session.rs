//! Sessions with a cluster: dials the coordinators until one of them leads and listens, hands the
//! session to the loop, and dials again when it breaks.
//!
//! It knows nothing of attempts. What the session needs to go on where the last one broke (numbers,
//! what is unacknowledged) is the loop's.

use std::cell::Cell;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tenon_client::connect::{MAX_MESSAGE, connect_for_session, random};
use tenon_client::route::Route;
use tenon_client::{Access, Error};
use tenon_proto::agent::v1::agents_client::AgentsClient;
use tenon_proto::agent::v1::{
    AgentMessage, CoordinatorMessage, Heartbeat, Welcome, agent_message, coordinator_message,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::keeping::disk::Floor;
use crate::lease::Beats;
use crate::spool::SpoolError;
use crate::work::Session;

/// Messages that may wait in either direction.
const WAITING: usize = 64;
/// How long a coordinator may take to welcome an agent.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a coordinator may be silent after a heartbeat: then it hangs, or cannot be reached. Looked at before
/// the next heartbeats.
const SILENCE: Duration = Duration::from_secs(3);
/// And so long after that once more.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Where an agent dials in.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// Nodes of the cluster, some or all: as [`tenon_client::connect::urls`] gives them.
    pub servers: Vec<String>,
    /// What the cluster is shown: the agent's certificate, where it has one.
    pub access: Access,
    /// Where work needs room, told with every heartbeat.
    pub floor: Floor,
}

/// What becomes of an agent's connection, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A coordinator listens.
    Connected {
        /// Which one.
        url: String,
        /// Its name.
        node: String,
    },
    /// None does; the agent goes on trying. Told once until one does again.
    Alone {
        /// Why not.
        why: String,
    },
}

/// The cluster wants no session with this agent, for good, or the agent cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SessionError {
    /// A stable code: the cluster's own.
    pub code: String,
    /// Why.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

impl From<SpoolError> for SessionError {
    fn from(error: SpoolError) -> SessionError {
        SessionError {
            code: error.code().to_owned(),
            message: error.to_string(),
            hint: String::new(),
        }
    }
}

/// Keeps one session after the other going. Returns only when trying again makes no sense.
pub(crate) async fn dial(
    options: ServeOptions,
    sessions: mpsc::Sender<Session>,
    mut on_change: impl FnMut(Change),
) -> SessionError {
    let mut route = Route::new(options.servers.clone(), random());
    let mut cluster = None;
    let mut told = false;
    loop {
        let next = route.next_try();
        tokio::time::sleep(next.pause).await;
        let mut welcomed = |welcome: &Welcome| {
            on_change(Change::Connected { url: next.url.clone(), node: welcome.node_name.clone() });
        };
        let lost = converse(&next.url, &options, &sessions, &mut cluster, &mut welcomed).await;
        let error = match lost {
            Lost::Never(error) => error,
            Lost::After(error) => {
                route.worked(&next.url);
                told = false;
                error
            }
        };
        if let Some(refusal) = for_good(&error) {
            return refusal;
        }
        route.failed(&next.url, error.leader_url());
        // A node that knows the leader is no trouble.
        if !told && error.leader_url().is_none() {
            told = true;
            on_change(Change::Alone { why: error.to_string() });
        }
    }
}

/// How a session ended.
enum Lost {
    /// Nobody listened.
    Never(Error),
    /// It had been welcomed.
    After(Error),
}

/// One session from the first dial to its end.
async fn converse(
    url: &str,
    options: &ServeOptions,
    sessions: &mpsc::Sender<Session>,
    cluster: &mut Option<String>,
    welcomed: &mut dyn FnMut(&Welcome),
) -> Lost {
    let channel = match connect_for_session(url, &options.access).await {
        Ok(channel) => channel,
        Err(error) => return Lost::Never(error),
    };
    let (outbox, mut said) = mpsc::channel::<AgentMessage>(WAITING);
    let (heard, inbox) = mpsc::channel(WAITING);
    let heartbeats = outbox.clone();
    let beats = Arc::new(Beats::default());
    let session = Session { inbox, outbox, beats: Some(beats.clone()) };
    if sessions.send(session).await.is_err() {
        // The loop has ended; so will this.
        return Lost::Never(broken(url, "the agent ends"));
    }
    // The first heartbeat follows the hello, before that is answered.
    let (first, mut hello_said) = (beats.clone(), false);
    let floor = options.floor.clone();
    let mut first_due = false;
    let said = futures_util::stream::poll_fn(move |context| {
        if std::mem::take(&mut first_due) {
            return Poll::Ready(Some(heartbeat(&first, &floor)));
        }
        let next = said.poll_recv(context);
        if matches!(next, Poll::Ready(Some(_))) && !std::mem::replace(&mut hello_said, true) {
            first_due = true;
        }
        next
    });
    let mut client = AgentsClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let answer = timeout(ANSWER, async {
        let mut stream = client.session(said).await?.into_inner();
        let first = stream.message().await?;
        Ok::<_, tonic::Status>((stream, first))
    });
    let (mut stream, welcome) = match answer.await {
        Ok(Ok((stream, Some(first)))) => match first.message {
            Some(coordinator_message::Message::Welcome(welcome)) => (stream, welcome),
            _ => return Lost::Never(broken(url, "it does not say welcome")),
        },
        Ok(Ok((_, None))) => return Lost::Never(broken(url, "it ended the session")),
        Ok(Err(status)) => return Lost::Never(Error::of_status(url, &status)),
        Err(_) => return Lost::Never(broken(url, "it does not answer in time")),
    };
    let known = cluster.get_or_insert_with(|| welcome.cluster_id.clone());
    if *known != welcome.cluster_id {
        let what = format!("it is of cluster {}, not {known}", welcome.cluster_id);
        return Lost::Never(Error::Answer { url: url.to_owned(), what });
    }
    welcomed(&welcome);
    let every = Duration::from_millis(welcome.heartbeat_ms);
    let silence = Silence::default();
    let beating = beat(&heartbeats, &beats, &options.floor, every, &silence);
    let listens = async {
        let mut next = Some(coordinator_message::Message::Welcome(welcome));
        loop {
            if let Some(message) = next.take() {
                let message = CoordinatorMessage { message: Some(message) };
                if heard.send(message).await.is_err() {
                    return broken(url, "the agent ends");
                }
            }
            next = match stream.message().await {
                Ok(Some(message)) => {
                    silence.ends();
                    message.message
                }
                Ok(None) => return broken(url, "it ended the session"),
                Err(status) => return Error::of_status(url, &status),
            };
        }
    };
    tokio::select! {
        error = listens => Lost::After(error),
        () = heard.closed() => Lost::After(broken(url, "the session has ended")),
        why = beating => Lost::After(broken(url, why)),
    }
}

/// Since when nothing was heard of the other side: the first heartbeat that is without an answer.
#[derive(Default)]
struct Silence(Cell<Option<Instant>>);

impl Silence {
    fn begins(&self) {
        self.0.set(self.0.get().or_else(|| Some(Instant::now())));
    }

    fn ends(&self) {
        self.0.set(None);
    }

    fn is_too_long(&self) -> bool {
        self.0.get().is_some_and(|since| since.elapsed() >= SILENCE)
    }
}

/// Gives a sign of life again and again, until the session takes none any more, or none comes back. Returns
/// why it has ended.
async fn beat(
    outbox: &mpsc::Sender<AgentMessage>,
    beats: &Beats,
    floor: &Floor,
    every: Duration,
    silence: &Silence,
) -> &'static str {
    const ENDED: &str = "the session has ended";
    if every.is_zero() {
        outbox.closed().await;
        return ENDED;
    }
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if silence.is_too_long() {
            // If this process was held up, what has come meanwhile was not looked at yet.
            tokio::time::sleep(LOOK_AGAIN).await;
            if silence.is_too_long() {
                return "it does not answer";
            }
        }
        // Counted from before it waits for room.
        if outbox.send(heartbeat(beats, floor)).await.is_err() {
            return ENDED;
        }
        silence.begins();
    }
}

fn heartbeat(beats: &Beats, floor: &Floor) -> AgentMessage {
    let disk_free_bytes = floor.free();
    let heartbeat = Heartbeat { number: beats.next(), disk_free_bytes };
    AgentMessage { message: Some(agent_message::Message::Heartbeat(heartbeat)) }
}

fn broken(url: &str, message: &str) -> Error {
    Error::Unreachable { url: url.to_owned(), message: message.to_owned() }
}

/// The refusal that no other node and no waiting will change.
fn for_good(error: &Error) -> Option<SessionError> {
    let Error::Refused(refusal) = error else { return None };
    let family = refusal.code.split('/').next().unwrap_or_default();
    matches!(family, "conflict" | "denied" | "invalid" | "unauthenticated").then(|| SessionError {
        code: refusal.code.clone(),
        message: refusal.message.clone(),
        hint: refusal.hint.clone(),
    })
}
