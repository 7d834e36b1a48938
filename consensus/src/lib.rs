//! A replicated log of opaque entries, on raft-rs, without I/O of its own.
//!
//! [`Core`] decides: one thread owns it, gives it messages, ticks and proposals, and takes work out of it with
//! [`Core::ready`]. [`LogWriter`] stores: another thread owns it, appends the [`Write`]s to a journal and syncs, while the
//! core goes on. [`LogView`] is what both share: the log as it will be when everything is written.
//! It knows nothing of runs, and has no clock, no threads and no network.
//!
//! ```text
//!   messages, ticks, proposals ─▶ Core ──Write──▶ LogWriter (write, sync) ──persisted(n)──▶ Core
//!                                  │ └──messages──▶ network
//!                                  └──committed──▶ state machine ──applied(i)──▶ Core
//! ```
//!
//! Rules for the owner:
//! 1. `Write`s go to the `LogWriter` in order; `persisted(number)` is called only after `sync` returned for that write.
//! 2. The state machine applies what is committed, in order, and may be behind. What it stores durably, it stores together with
//!    the [`Position`] it stands for and with the last [`ConfState`] it was given.
//! 3. The log is compacted (`Core::compact`, then `LogWriter::compact`) only up to what is durable in the state machine.
//! 4. An incoming snapshot becomes durable in the state machine *before* the log begins anew. A crash in between leaves a log
//!    that is behind the state; [`LogWriter::repair`] at start makes it fit.
//! 5. Any [`Error`] means: stop this node.

mod core;
mod error;
mod log;
mod membership;
mod options;
mod ready;
mod wire;

pub use crate::core::{Core, MAX_INDEX};
pub use error::{Dropped, Error, Refused};
pub use log::{Compaction, LogOptions, LogView, LogWriter, Recovered, Repair};
pub use membership::{ChangeKind, ConfState, MembershipChange};
pub use options::Options;
pub use ready::{
    Committed, Leadership, Outgoing, PeerState, PeerStatus, Position, Ready, Role, SnapshotMeta,
    SnapshotStep, Status, Write,
};

/// The identity of a node, unique for ever. Never 0.
pub type NodeId = u64;
