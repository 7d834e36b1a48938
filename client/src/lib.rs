//! Talks to a cluster: finds a node that answers, and the leader where one is needed, by itself.
//!
//! [`Client`] is for users and programs: every call is repeated until it is answered or its deadline
//! is over, and repeating one never does a thing twice. [`route`] and [`connect`] are what agents
//! use to find their coordinator. [`Access`] is what they show:
//! with it connections are TLS, and only the cluster that is meant is told a secret.

mod access;
mod calls;
mod client;
pub mod connect;
mod error;
mod events;
mod notice;
mod ready;
pub mod route;

pub use access::Access;
pub use calls::BackupError;
pub use client::{Client, Options};
pub use error::{Error, Result};
pub use events::Events;
pub use notice::Notice;
pub use ready::ready;
