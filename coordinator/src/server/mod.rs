//! The server of a node: gRPC for agents, peers, programs and operators, and HTTP with JSON, all on
//! one port.
//!
//! It parses, checks, limits and formats; what a request does is the node's ([`ControlPlane`]).

mod control_plane;
mod fault;
mod metrics;

pub use control_plane::{
    Cancel, Change, ControlPlane, EventSource, Items, Once, Readiness, Session, Started,
};
pub use fault::{Fault, Result};
pub use metrics::{Gauges, Metrics};
