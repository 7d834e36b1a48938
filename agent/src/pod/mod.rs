//! What every backend does alike for one attempt: the kubelet's part of running a pod.
//!
//! [`PodDir`] is the attempt's directory on the machine, [`ContainerPlan`] says what each container
//! gets, [`build`] makes both of a [`tenon_proto::agent::v1::TaskInvocation`]. A backend makes
//! containers (or processes) of the plans; it decides nothing about Tekton.

mod build;
pub(crate) mod claims;
mod container;
pub mod credentials;
mod dir;
mod env;
mod expand;
mod materials;
mod paths;
mod plan;
mod quantity;
mod scripts;
mod volumes;

pub use build::{BuildError, Place, Sees, build};
pub use claims::Claims;
pub use dir::{PodDir, attempt_key};
pub(crate) use dir::{entries, make_dir, private_base, remove_tree, runs_dir};
pub use materials::{ConfigMapValues, Materials, SecretValues};
pub use plan::{
    Bind, ContainerKind, ContainerPlan, Entry, Env, Identity, PodPlan, Probes, PullPolicy, Refusal,
    Resources, SPEC_FILE, Tmpfs,
};

/// Where a container finds the directory of its spec.
pub const SPEC_DIR: &str = "/tekton/.spec";
/// Where a container finds the directory of its record.
pub const RECORD_DIR: &str = "/tekton/.record";
/// Where a container finds the entrypoint.
pub const ENTRYPOINT: &str = "/tekton/bin/entrypoint";
/// The file that opens the gate of the first step, once it is not empty.
pub const READY_FILE: &str = "/tekton/downward/ready";
