//! The wire contracts, generated from the `.proto` files beside this crate, and how an error of the
//! control API travels as a gRPC status.

pub mod codec;
mod json;
pub mod status;

/// The session between an agent and the coordinator.
pub mod agent {
    /// Version 1.
    #[allow(missing_docs, reason = "described in the .proto file")]
    #[allow(clippy::all, reason = "generated")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/tenon.agent.v1.rs"));
    }
}

/// Between the nodes of a cluster.
pub mod raft {
    /// Version 1.
    #[allow(missing_docs, reason = "described in the .proto file")]
    #[allow(clippy::all, reason = "generated")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/tenon.raft.v1.rs"));
    }
}

/// What users, programs and operators ask of a cluster.
pub mod control {
    /// Version 1.
    #[allow(missing_docs, reason = "described in the .proto file")]
    #[allow(clippy::all, reason = "generated")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/tenon.control.v1.rs"));
    }
}

/// All `.proto` files, encoded, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
