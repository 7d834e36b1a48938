//! The wire contracts, generated from the `.proto` files beside this crate, and nothing else.

/// The session between an agent and the coordinator.
pub mod agent {
    /// Version 1.
    #[allow(missing_docs, reason = "described in the .proto file")]
    #[allow(clippy::all, reason = "generated")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/tenon.agent.v1.rs"));
    }
}
