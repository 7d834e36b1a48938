//! The plan of one attempt of a TaskRun: which containers run, with what, in Kubernetes' terms.
//!
//! Built here, purely, out of a TaskRun whose variables are all applied; carried to an agent as
//! JSON; made real by the agent's backend, which plays the kubelet (environment look-ups, `$(VAR)`
//! expansion, volumes, probes).
//!
//! What is the same for every TaskRun is not in here and is added by the agent:
//! - the mounts /workspace, /tekton/home, /tekton/results, /tekton/steps, /tekton/artifacts, /tekton/bin,
//!   /tekton/run/<i> and /tekton/creds of each *step*, each left out where the step itself mounts
//!   something at that (cleaned) path; sidecars get none of them;
//! - scripts: a step or sidecar with `script` has no `command`; its `args` are the script's arguments;
//! - the image's ENTRYPOINT and CMD for a step without `command` and `script`;
//! - `$(steps.S.results.R…)` in `env`, `command`, `args` and `when`, which the entrypoint fills in;
//! - the credentials of `credential_secrets` that carry Tekton's annotations;
//! - working directories that are relative or below /workspace.
//!
//! `env` may name a variable twice, the later one wins. A volume without a source is an emptyDir.

mod access;
mod check;
mod demands;
mod images;
mod merge;
mod plan;
mod quantity;
mod requests;
mod stepaction;
mod usage;
mod workspaces;

use serde::{Deserialize, Serialize};

use crate::duration::GoDuration;
use crate::k8s::{HostAlias, LocalObjectReference, PodSecurityContext, Volume};
use crate::v1::{Sidecar, Step};

pub use access::ClaimAccess;
pub use demands::{Asked, DIRECTORY_DRIVER, Demand, capability, path_demands};
pub use images::{image_is_allowed, image_matches};
pub use plan::{Plan, PlanError, PlanInput, claims, plan};
pub use requests::Requests;
pub use workspaces::claim_templates;

/// Everything a backend needs to run one attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Pod {
    /// Tekton's pod name: `<taskrun>-pod`, a retry `<taskrun>-pod-retry<n>`.
    pub name: String,
    /// Namespace of the run.
    pub namespace: String,
    /// Name of the TaskRun.
    pub task_run: String,
    /// uid of the TaskRun.
    pub task_run_uid: String,
    /// uid of the whole run: PersistentVolumeClaims made from templates live as long as it.
    pub run_uid: String,
    /// Labels of the TaskRun, plus Tekton's own.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Annotations of the TaskRun.
    pub annotations: std::collections::BTreeMap<String, String>,
    /// The steps, in order, stepTemplate merged, StepActions inlined, variables applied, workspace
    /// mounts added. A step's `name` is filled in (`unnamed-<i>` where the Task gave none), so that
    /// the container is `step-<name>`.
    pub steps: Vec<Step>,
    /// The sidecars, likewise.
    pub sidecars: Vec<Sidecar>,
    /// All volumes that mounts refer to, workspaces and podTemplate included. An
    /// `ephemeral`/template claim appears as `persistentVolumeClaim` with its final claim name.
    pub volumes: Vec<Volume>,
    /// Task results that are files under /tekton/results (those without a `value:`).
    pub results: Vec<String>,
    /// The ServiceAccount's name, also where there is no such account; empty for `default`.
    pub service_account_name: String,
    /// Names of the ServiceAccount's secrets, for git and registry credentials.
    pub credential_secrets: Vec<String>,
    /// Secrets to pull images with: of the podTemplate and of the ServiceAccount.
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Security settings for all containers; a container's own win.
    pub security_context: Option<PodSecurityContext>,
    /// Extra lines of /etc/hosts.
    pub host_aliases: Vec<HostAlias>,
    /// Name servers of its own.
    #[serde(skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
    /// Share the machine's network.
    pub host_network: bool,
    /// Longest termination message of a step, bytes (Tekton: 4096).
    pub max_result_size: u32,
    /// How long the attempt may take, measured by the agent from the moment it starts to prepare;
    /// `None` is for ever. The coordinator enforces it too.
    pub timeout: Option<GoDuration>,
}

/// What a pod asks for in its resolv.conf; what is empty is as everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Dns {
    /// Addresses of name servers.
    pub nameservers: Vec<String>,
    /// Domains to look in.
    pub searches: Vec<String>,
    /// `name` or `name:value`.
    pub options: Vec<String>,
}

impl Dns {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Dns::default()
    }
}
