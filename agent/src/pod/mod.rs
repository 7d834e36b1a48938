//! What every backend does alike for one attempt: the kubelet's part of running a pod.
//!
//! [`PodDir`] is the attempt's directory on the machine, [`ContainerPlan`] says what each container
//! gets. A backend makes containers (or processes) of the plans; it decides nothing about Tekton.

mod dir;
mod plan;

pub use dir::{PodDir, attempt_key};
/// Where a container finds the directory of its spec.
pub const SPEC_DIR: &str = "/tekton/.spec";
/// Where a container finds the directory of its record.
pub const RECORD_DIR: &str = "/tekton/.record";

pub use plan::{
    Bind, ContainerKind, ContainerPlan, Entry, Env, Identity, PodPlan, Probes, PullPolicy, Refusal,
    Resources, StepOrders,
    Tmpfs,
};
