//! What one container of an attempt gets, after everything that a kubelet looks up is looked up.
//!
//! Plans are data: nothing here touches a disk or a daemon. Values of secrets may be inside
//! (environment), so plans are never logged; `Debug` of an environment shows names only.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tenon_entrypoint::Spec;
use tenon_tekton::k8s::{Lifecycle, Probe};
use tenon_tekton::pod::Dns;

use crate::policy::Rights;

/// Name of the spec file in [`ContainerPlan::spec_dir`].
pub const SPEC_FILE: &str = "spec";

/// All containers of one attempt.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PodPlan {
    /// Pod name, also the host name inside.
    pub hostname: String,
    /// The steps, in order.
    pub steps: Vec<ContainerPlan>,
    /// The sidecars.
    pub sidecars: Vec<ContainerPlan>,
    /// Extra lines of `/etc/hosts`: address and names.
    pub host_aliases: Vec<(String, Vec<String>)>,
    /// Name servers of its own.
    #[serde(default)]
    pub dns: Dns,
    /// Share the machine's network.
    pub host_network: bool,
    /// Values that output must not show.
    pub secrets: Vec<Vec<u8>>,
    /// Credentials for pulls: contents of `.dockerconfigjson` files.
    pub pull_configs: Vec<Vec<u8>>,
    /// Remarks for the user that change nothing.
    pub warnings: Vec<String>,
}

/// One container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerPlan {
    /// Kubernetes' container name: `step-build`, `sidecar-db`; at most 63 characters.
    pub container: String,
    /// The step's or sidecar's own name, as reports carry it.
    pub name: String,
    /// Step or sidecar.
    pub kind: ContainerKind,
    /// The image as the Task names it (before any image map).
    pub image: String,
    /// When to pull.
    pub pull_policy: PullPolicy,
    /// What to run.
    pub entry: Entry,
    /// Variables, looked up and expanded, that go on top of the image's own. Also in the spec.
    pub env: Env,
    /// Directories and files of the machine that appear in the container, parents before children.
    pub binds: Vec<Bind>,
    /// Memory file systems of this container alone.
    pub tmpfs: Vec<Tmpfs>,
    /// Working directory, absolute; `None` is the image's own. Not in the spec: whoever starts the
    /// container makes it.
    pub working_dir: Option<String>,
    /// User and groups.
    pub identity: Identity,
    /// What it may do. Needed only to create the container.
    #[serde(skip)]
    pub rights: Rights,
    /// Limits.
    pub resources: Resources,
    /// Readiness, then startup probe of a sidecar, and the ports that probes may name.
    pub probes: Probes,
    /// The orders for the entrypoint: complete but for `argv`, which may need the image's
    /// configuration. Paths are those inside the container. Needed once, before the container is.
    #[serde(skip)]
    pub spec: Spec,
    /// Directory of the machine with this container's spec (memory-backed, writable by the
    /// container, which unlinks the spec once read). Mounted at [`crate::pod::SPEC_DIR`].
    pub spec_dir: PathBuf,
    /// The record file on the machine. Its directory is mounted at [`crate::pod::RECORD_DIR`].
    pub record: PathBuf,
}

impl ContainerPlan {
    /// Writes the spec, with this argv, where the entrypoint reads it. `own_cgroup`: the container
    /// sees a control group that is its own.
    pub fn write_spec(&self, argv: Vec<String>, own_cgroup: bool) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let mut spec = self.spec.clone();
        spec.argv = argv;
        spec.own_cgroup = own_cgroup;
        let path = self.spec_dir.join(SPEC_FILE);
        std::fs::write(&path, spec.encode())?;
        // Any user may be the one who reads it; the directories above are closed to all others.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))
    }

    /// The step's index, when it is a step.
    pub fn step_index(&self) -> Option<usize> {
        match self.kind {
            ContainerKind::Step { index } => Some(index),
            ContainerKind::Sidecar { .. } => None,
        }
    }

    /// Whether it is a sidecar.
    pub fn is_sidecar(&self) -> bool {
        matches!(self.kind, ContainerKind::Sidecar { .. })
    }
}

/// What a container is to its TaskRun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerKind {
    /// Runs in its turn.
    Step {
        /// 0-based.
        index: usize,
    },
    /// Runs beside the steps.
    Sidecar {
        /// 0-based.
        index: usize,
    },
}

/// When to pull an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Always ask the registry.
    Always,
    /// Only when the machine has none of it.
    IfNotPresent,
    /// Never.
    Never,
}

/// The command of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// Final argv.
    Argv(Vec<String>),
    /// The image's ENTRYPOINT and CMD by Tekton's rules, followed by these arguments.
    Image {
        /// The container's `args`, expanded.
        args: Vec<String>,
    },
}

impl Entry {
    /// The final argv, by Tekton's rules for images: an image without ENTRYPOINT has its CMD as
    /// entrypoint even when arguments are given; CMD follows ENTRYPOINT only without arguments.
    pub fn resolve(&self, image_entrypoint: &[String], image_cmd: &[String]) -> Vec<String> {
        match self {
            Entry::Argv(argv) => argv.clone(),
            Entry::Image { args } => {
                let mut argv = image_entrypoint.to_vec();
                if argv.is_empty() || args.is_empty() {
                    argv.extend_from_slice(image_cmd);
                }
                argv.extend(args.iter().cloned());
                argv
            }
        }
    }
}

/// Environment variables, in order. `Debug` shows names only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Env(pub Vec<(String, String)>);

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Env {
    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Sets a variable, in place where it exists.
    pub fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }
}

/// A path of the machine inside a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute path on the machine; exists.
    pub source: PathBuf,
    /// Absolute, clean path in the container.
    pub target: String,
    /// The container cannot write there.
    pub read_only: bool,
    /// The source is the user's name for it, on the machine where the container runs.
    #[serde(default)]
    pub on_host: bool,
}

/// A memory file system of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Absolute, clean path in the container.
    pub target: String,
    /// Permission bits of its root.
    pub mode: u32,
    /// Bytes; `None` is the kernel's default.
    pub size: Option<u64>,
}

/// Who the processes are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `runAsUser`; `None` is the image's user.
    pub user: Option<i64>,
    /// `runAsGroup`.
    pub group: Option<i64>,
    /// `supplementalGroups` and `fsGroup`.
    pub groups: Vec<i64>,
    /// `runAsNonRoot`: user 0 is refused.
    pub non_root: bool,
}

/// Limits of one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Billionths of a CPU.
    pub nano_cpus: Option<i64>,
    /// Bytes.
    pub memory: Option<i64>,
    /// From the CPU request: relative weight.
    pub cpu_shares: Option<i64>,
}

/// How to see that a sidecar is ready.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Probes {
    /// `readinessProbe`.
    pub readiness: Option<Probe>,
    /// `startupProbe`.
    pub startup: Option<Probe>,
    /// Declared ports by name.
    pub ports: BTreeMap<String, u16>,
    /// `postStart` and `preStop`.
    pub lifecycle: Option<Lifecycle>,
}

/// An attempt cannot run through the fault of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Refusal {
    /// Kubernetes' or Tekton's reason: `CreateContainerConfigError`, …
    pub reason: &'static str,
    /// What, why, and what to do.
    pub message: String,
}
