//! The coordinator: commands are agreed on, applied through the engine, and their consequences done.
//!
//! [`Local`] is a coordinator inside one process whose agreement is a local, durable log. It holds no
//! rules of its own about pipelines: those are the engine's.

mod codec;
mod command_log;
mod driver;
mod duties;
mod error;
mod history;
pub mod intake;
mod local;
mod masking;
mod materials;
mod recovery;
pub mod server;
mod wire;

pub use codec::Undecodable;
pub use error::{Error, Result};
pub use history::objects_to_yaml;
pub use local::{AgentLink, Finished, Local, LocalOptions, RunHandle};
pub use materials::Materials;
