//! What goes into a [`super::Coordinator`], and what comes out of it.

use std::collections::BTreeMap;

use tenon_engine::command::CancelMode;
use tenon_engine::{AttemptId, RunId, Submission, Time};
use tenon_proto::agent::v1::{AgentMessage, CoordinatorMessage, Hello, Progress};
use tenon_proto::raft::v1::{Chunk, FetchRequest};

use crate::command::IdempotencyKey;
use crate::duties::SessionId;
use crate::entry::RequestId;
use crate::error::Result;
use crate::materials::Materials;
use crate::replica::snapshot::Descriptor;
use crate::replica::{AgentChange, Configuration, Member, Reply, Retired};
use crate::waiting::Token;

/// What may be asked of a member.
pub enum Request {
    /// Start a run.
    Submit {
        /// What to run.
        submission: Box<Submission>,
        /// Its ConfigMaps and Secrets.
        materials: Materials,
        /// The client's name for it.
        key: Option<IdempotencyKey>,
    },
    /// End a run early.
    Cancel {
        /// Which run.
        run: RunId,
        /// How.
        mode: CancelMode,
        /// Why, for people.
        message: String,
        /// Kill what runs instead of asking it to end.
        now: bool,
    },
    /// Let a pending run begin.
    Release {
        /// Which run.
        run: RunId,
    },
    /// Commit these bytes, which change nothing.
    Probe {
        /// Any bytes.
        payload: Vec<u8>,
    },
    /// Decide something about an agent.
    ChangeAgent {
        /// Its name.
        agent: String,
        /// What.
        change: AgentChange,
    },
    /// Take an id for a new node.
    NewNode,
    /// Reach a member elsewhere from now on.
    Move {
        /// Its Raft id.
        node: u64,
        /// Where it is reached.
        url: String,
    },
    /// Change whom the cluster trusts.
    Trust {
        /// What changes.
        change: tenon_trust::Change,
    },
    /// Remember how far the event log's spans have been sent.
    Traced {
        /// Index of the record to go on with.
        next: u64,
    },
    /// Wait until this member has applied all that was committed when this was asked.
    Read,
}

/// How a request ended.
pub type Answer = Result<Reply, RequestError>;

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There was no leader, or no quorum, in time.
    #[error(
        "the cluster has no leader: more than half of its nodes must be up and in contact; \
         nothing is lost, and the request may be repeated"
    )]
    NoQuorum,
    /// There is a leader, and yet it was not done in time.
    #[error(
        "the request was not confirmed in time; it may still take effect: repeat it (with the \
         same idempotency key, if it submits a run)"
    )]
    Deadline,
    /// Secrets without a key to encrypt them.
    #[error("the run has Secrets, and this cluster has no key to encrypt them at rest")]
    NoKey,
    /// More than the log takes.
    #[error("the submission takes {bytes} bytes; a cluster takes {limit} at most")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest that is taken.
        limit: usize,
    },
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

impl RequestError {
    /// A stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            RequestError::NoQuorum => "unavailable/no-quorum",
            RequestError::Deadline => "deadline/unconfirmed",
            RequestError::NoKey => "invalid/no-secrets-key",
            RequestError::TooLarge { .. } => "too-large/submission",
            RequestError::Stopping => "unavailable/stopping",
        }
    }
}

/// A committed entry, as the log hands it over.
pub enum Committed {
    /// Proposals.
    Entry {
        /// Log index.
        index: u64,
        /// Term.
        term: u64,
        /// See [`crate::entry`].
        data: bytes::Bytes,
    },
    /// The configuration changes.
    Membership {
        /// Log index.
        index: u64,
        /// Term.
        term: u64,
        /// The configuration from here on.
        configuration: Configuration,
        /// Members that it brings in.
        members: BTreeMap<u64, Member>,
    },
}

/// What a member's clocks show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// The wall clock, in which events and deadlines are told. It may jump.
    pub wall: Time,
    /// A clock that never jumps, in milliseconds since any moment: leases are counted in it.
    pub steady: u64,
}

/// What may happen to a member.
pub enum Input {
    /// Entries are committed and durable here.
    Committed(Vec<Committed>),
    /// Who leads, and in which term.
    Leader {
        /// Its id, if known.
        leader: Option<u64>,
        /// The term.
        term: u64,
    },
    /// A quorum has confirmed a read: it may be answered once this index is applied.
    ReadReady {
        /// Which read.
        id: RequestId,
        /// The index.
        index: u64,
    },
    /// A proposal found no leader.
    Refused(RequestId),
    /// Somebody asks for something.
    Request {
        /// Whom to answer.
        token: Token,
        /// What.
        request: Request,
        /// By when there must be an answer.
        deadline: Time,
    },
    /// An agent dials in.
    Attach {
        /// A number for the session, never used before.
        session: SessionId,
        /// What the agent says of itself.
        hello: Hello,
    },
    /// An agent says something.
    Said {
        /// In which session.
        session: SessionId,
        /// What.
        message: AgentMessage,
    },
    /// A session is over.
    Detached(SessionId),
    /// A snapshot is offered that this member needs.
    Offered {
        /// By whom.
        from: u64,
        /// Its descriptor.
        descriptor: Vec<u8>,
    },
    /// A chunk of the snapshot that is being fetched.
    Chunk(Chunk),
    /// The member that offers it could not be reached; it is tried again.
    FetchBroken,
    /// The snapshot is of no use any more.
    FetchCancelled,
    /// The snapshot is fetched and the log wants its state now.
    Install,
    /// A member needs a snapshot.
    SnapshotWanted,
    /// Persist what is applied, now.
    Persist,
    /// Time has passed.
    Wake,
}

/// What a member wants done.
pub enum Output {
    /// Put this into the log.
    Propose {
        /// Its id.
        id: RequestId,
        /// See [`crate::entry`].
        proposal: Vec<u8>,
    },
    /// Ask a quorum whether reading is safe.
    ReadIndex(RequestId),
    /// Everything up to this index is applied.
    Applied(u64),
    /// Everything up to this index will never be needed from the log by this member.
    Persisted(u64),
    /// Tell an agent.
    ToAgent(SessionId, CoordinatorMessage),
    /// End a session.
    Close(SessionId, CloseReason),
    /// An agent's passing remark.
    Progress(Progress),
    /// Answer a request.
    Answer(Token, Answer),
    /// A run is over.
    Retired(Retired),
    /// A snapshot is there for members that need one.
    SnapshotMade(Descriptor),
    /// Ask the member that offered the snapshot.
    Fetch(u64, FetchRequest),
    /// The snapshot is all here.
    Fetched(Descriptor),
    /// It could not be fetched.
    FetchFailed(Descriptor),
    /// The snapshot's state is installed.
    Installed,
    /// An agent has reported of what another one has been given; it changed nothing.
    Forged {
        /// The agent that did.
        agent: String,
        /// Of which attempt.
        attempt: AttemptId,
    },
    /// The members have changed.
    Members(BTreeMap<u64, Member>),
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// This member does not lead.
    NotLeader,
    /// The same agent has begun another session.
    Superseded,
    /// The life of the agent that dialled in is over: another process has had its name since, and is
    /// gone.
    LifeOver,
    /// Another session has to begin: some of its reports were not taken and have to be sent again, or
    /// the agent was given up, or its heartbeats come too often for the fleet by now.
    Again,
}
