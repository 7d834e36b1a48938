//! The agent: takes attempts from a coordinator, runs them on a backend, reports every event.
//!
//! [`Agent`] is the component, [`backend::Backend`] the contract of what runs containers,
//! [`pod`] what all backends share. Nothing here decides about pipelines: the engine does.

mod agent;
mod attempt;
pub mod backend;
pub mod clock;
pub mod detect;
pub mod docker;
pub mod doctor;
mod ended;
pub mod entrypoint_binary;
pub mod guard;
pub mod host;
mod image_map;
pub mod keeping;
pub mod lease;
pub mod mask;
mod outgoing;
pub mod owner;
pub mod pod;
pub mod policy;
mod probe;
pub mod record;
mod session;
pub mod spool;
mod work;
mod workspaces;

pub use agent::{Agent, AgentOptions};
pub use image_map::{ImageMap, ImageMapError};
pub use session::{Change, ServeOptions, SessionError};
