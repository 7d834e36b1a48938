//! What the entrypoint and the agent say to each other: the orders of one container ([`Spec`],
//! agent to entrypoint) and the record of what happened in it ([`frame`], entrypoint to agent).
//!
//! Where agent and daemon share no files, [`relay`] carries both.
//!
//! Both travel through files that agent and container share, so neither depends on the substrate.
//! Only std and the C library, so that the static program stays tiny; the program itself is the `tenon-entrypoint`
//! binary of this crate.

pub mod frame;
mod launch;
pub mod relay;
mod spec;
mod wire;

pub use launch::{KILL_SIGNAL, Launch, Mount, Source};
pub use spec::{CredentialFile, Mode, OnError, Spec, WaitFile, When, WhenOperator};
pub use wire::Malformed;
