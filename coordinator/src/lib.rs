//! The coordinator: commands are agreed on, applied through the engine, and their consequences done.
//!
//! [`node`] is a member of a cluster as a process runs it, [`Local`] a cluster of one inside `tenon
//! run`. Both are the same three parts: Raft and its log (`tenon-consensus`), and behind the log the
//! [`Coordinator`] with its [`replica`]. It holds no rules of its own about pipelines: those are the
//! engine's.

pub mod command;
pub mod coordinator;
mod duties;
pub mod entry;
mod error;
pub mod event_log;
mod history;
pub mod intake;
mod local;
mod local_dir;
mod masking;
mod materials;
pub mod node;
mod pack;
pub mod recorder;
mod recovery;
pub mod replica;
pub mod seal;
pub mod server;
mod show;
mod waiting;
mod wire;

pub use coordinator::{Coordinator, PersistPoints};
pub use duties::SessionId;
pub use error::{Error, Result};
pub use history::objects_to_yaml;
pub use local::{AgentLink, Finished, Local, LocalOptions, RunHandle};
pub use materials::Materials;
pub use node::{Handle, Node, NodeOptions};
pub use waiting::Token;
