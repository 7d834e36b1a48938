//! What the members of a cluster agree on: the commands of the engine, and what concerns the
//! coordinator itself.
//!
//! A command carries every choice that is not a function of the state (times, ids, placements), so
//! that applying it is the same on every member. A member that meets a command it does not know
//! stops applying (see [`crate::entry`]): guessing would make the replicas differ.

use serde::{Deserialize, Serialize};
use tenon_engine::command::CancelMode;
use tenon_engine::{AttemptId, Report, RunId, Submission, Time};

use crate::replica::{AgentChange, Offer};

/// One replicated command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Start a run.
    Submit {
        /// When it was accepted.
        time: Time,
        /// What to run.
        submission: Box<Submission>,
        /// Its ConfigMaps and Secrets, encrypted ([`crate::seal`]). Travels as bytes, not in JSON.
        #[serde(skip)]
        materials: Vec<u8>,
        /// What the client calls this submission, if it does.
        key: Option<IdempotencyKey>,
    },
    /// Give an attempt to an agent.
    Place {
        /// When.
        time: Time,
        /// Which attempt.
        attempt: AttemptId,
        /// The agent's name.
        agent: String,
    },
    /// No agent can take an attempt now.
    Defer {
        /// When.
        time: Time,
        /// Which attempt.
        attempt: AttemptId,
        /// Why, for programs.
        #[serde(default = "no_agent")]
        reason: String,
        /// Why, for people.
        message: String,
    },
    /// An agent has dialled in that was not known, or was down, or offers something else than before, or gets
    /// a longer lease. If this is a new life of it, what an earlier one was running is lost, but for what
    /// this one has found and goes on with.
    Agent {
        /// When.
        time: Time,
        /// The agent's name.
        agent: String,
        /// Which life of the agent: its reports are numbered from 1 in each.
        incarnation: String,
        /// The attempts that it goes on with.
        running: Vec<AttemptId>,
        /// What it has.
        #[serde(default)]
        offer: Box<Offer>,
        /// The lease that it is given, in milliseconds; 0 for none. Leaders keep to the longest one that a
        /// life was given.
        #[serde(default)]
        lease_ms: u64,
        /// The term of the leader that it has dialled. In another term this changes nothing: it was
        /// held up on its way, and the agent may have had another life since.
        term: u64,
    },
    /// An operator has decided something about an agent.
    ChangeAgent {
        /// When.
        time: Time,
        /// The agent's name.
        agent: String,
        /// What.
        change: AgentChange,
    },
    /// A report of an agent. One whose number was applied before changes nothing.
    Report {
        /// When the leader got it.
        time: Time,
        /// The agent's name.
        agent: String,
        /// The life of the agent that numbered it.
        incarnation: String,
        /// Its number.
        number: u64,
        /// Of which attempt.
        attempt: AttemptId,
        /// What it says. The chunk of output in it travels as bytes, not in JSON.
        report: Report,
    },
    /// A report that this release cannot understand: its number is used up.
    Skip {
        /// When the leader got it.
        time: Time,
        /// The agent's name.
        agent: String,
        /// The life of the agent that numbered it.
        incarnation: String,
        /// Its number.
        number: u64,
    },
    /// An agent was not heard from until its lease and the margin were over: what it was given is
    /// lost, and may be placed again.
    Lost {
        /// When it was noticed.
        time: Time,
        /// The agent's name.
        agent: String,
        /// Which life of it: another one has not lost anything.
        incarnation: String,
        /// How long it was not heard from, in milliseconds.
        silent_ms: u64,
        /// The term of the leader that has missed it. In another term this changes nothing: the agent
        /// may have been in contact with a later leader.
        term: u64,
    },
    /// End a run early.
    Cancel {
        /// When.
        time: Time,
        /// Which run.
        run: RunId,
        /// How.
        mode: CancelMode,
        /// Why, for people.
        message: String,
        /// Kill what runs instead of asking it to end.
        now: bool,
    },
    /// Let a run begin that was submitted as pending (Tekton's `PipelineRunPending`).
    Release {
        /// When.
        time: Time,
        /// Which run.
        run: RunId,
    },
    /// Time has passed: what is due takes effect.
    Tick {
        /// Now.
        time: Time,
    },
    /// Nobody will continue a run.
    Abandon {
        /// When.
        time: Time,
        /// Which run.
        run: RunId,
        /// Why.
        message: String,
    },
    /// A member begins to lead; its duties begin when this is applied.
    Lead {
        /// When.
        time: Time,
        /// Its id.
        node: u64,
        /// Its name.
        name: String,
        /// The term.
        term: u64,
    },
    /// Take a Raft id for a node that is about to join; it is never given again.
    NewNode {
        /// When.
        time: Time,
    },
    /// A member is reached elsewhere from now on.
    Move {
        /// When.
        time: Time,
        /// Its Raft id.
        node: u64,
        /// Where it is reached.
        url: String,
    },
    /// Who may speak to the cluster, and who may do what, changes.
    Trust {
        /// When.
        time: Time,
        /// What changes.
        change: tenon_trust::Change,
    },
    /// The spans of the event log before a record are at the tracing backend.
    Traced {
        /// When.
        time: Time,
        /// Index of the record to go on with; never goes back.
        next: u64,
    },
    /// Nothing: commits its payload and measures how long that takes.
    Probe {
        /// When.
        time: Time,
        /// Any bytes.
        #[serde(skip)]
        payload: Vec<u8>,
    },
}

/// A submission's name, given by the client so that sending it twice starts one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyKey {
    /// The client's words.
    pub key: String,
    /// SHA-256 of the request that came with it, hex: another request may not use the same key.
    pub request: String,
}

/// The reason that was given before there were several.
fn no_agent() -> String {
    "infra/no-agent".to_owned()
}

impl Command {
    /// When the command takes effect.
    pub fn time(&self) -> Time {
        match self {
            Command::Submit { time, .. }
            | Command::Place { time, .. }
            | Command::Defer { time, .. }
            | Command::Agent { time, .. }
            | Command::ChangeAgent { time, .. }
            | Command::Report { time, .. }
            | Command::Skip { time, .. }
            | Command::Lost { time, .. }
            | Command::Cancel { time, .. }
            | Command::Release { time, .. }
            | Command::Tick { time }
            | Command::Abandon { time, .. }
            | Command::Lead { time, .. }
            | Command::NewNode { time }
            | Command::Move { time, .. }
            | Command::Trust { time, .. }
            | Command::Traced { time, .. }
            | Command::Probe { time, .. } => *time,
        }
    }

    /// The part that travels as bytes beside the JSON.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Command::Submit { materials, .. } => materials,
            Command::Report { report: Report::Output { chunk, .. }, .. } => chunk,
            Command::Probe { payload, .. } => payload,
            _ => &[],
        }
    }

    pub(crate) fn set_bytes(&mut self, bytes: Vec<u8>) {
        match self {
            Command::Submit { materials, .. } => *materials = bytes,
            Command::Report { report: Report::Output { chunk, .. }, .. } => *chunk = bytes,
            Command::Probe { payload, .. } => *payload = bytes,
            _ => {}
        }
    }
}
