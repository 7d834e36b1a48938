//! From a TaskInvocation to plans and directories: everything before the first container.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use tenon_proto::agent::v1::{AttemptId, TaskInvocation};
use tenon_tekton::pod::Pod;

use crate::policy::Policy;

use super::container::{Context, sidecar_plan, step_plan};
use super::{Claims, Materials, PodDir, PodPlan, Refusal, credentials, volumes};

/// Where things are on this machine.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Directory with the program `entrypoint`.
    pub entrypoint_dir: PathBuf,
    /// Where claims are.
    pub claims: Claims,
    /// What the containers can have of this machine.
    pub sees: Sees,
    /// What tasks may have of it.
    pub policy: Policy,
}

/// What containers can have of the files of the machine that the agent is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sees {
    /// All of them.
    #[default]
    Everything,
    /// The agent's; what a host path means is the daemon's to know.
    Mapped,
    /// Copies of what the agent makes, and none else.
    Copies,
}

/// Why an attempt cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Through the fault of what was asked for.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Through the machine's.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Makes the directories of an attempt, its volumes, scripts and plans.
pub fn build(
    dir: &PodDir,
    place: &Place,
    task: &TaskInvocation,
    pod: &Pod,
) -> Result<PodPlan, BuildError> {
    place.policy.check(pod)?;
    let attempt = task.attempt.clone().unwrap_or_default();
    let materials = Materials::decode(task)?;
    let names: Vec<&str> = pod.steps.iter().map(|step| step.name.as_str()).collect();
    dir.make_tekton(&names)?;
    if !pod.sidecars.is_empty() {
        super::make_dir(&dir.downward(), 0o755)?;
        std::fs::write(dir.ready_file(), b"")?;
    }
    let volumes = volumes::make(dir, place, pod, &materials)?;
    let mut warnings = Vec::new();
    if !dir.private_in_memory() {
        warnings.push(
            "no memory file system found (/dev/shm, $XDG_RUNTIME_DIR): values of Secrets are on \
             disk, in a private directory, while this task runs"
                .to_owned(),
        );
    }
    let (credential_files, credential_warnings) =
        credentials::files(&pod.credential_secrets, &materials);
    warnings.extend(credential_warnings);

    let mut credential_dirs = Vec::new();
    for name in credentials::used(&pod.credential_secrets, &materials) {
        let source = dir.private().join("creds-secrets").join(name);
        volumes::write_values(&source, &materials.secrets[name].values)?;
        credential_dirs.push((name.to_owned(), source));
    }

    let context = Context {
        dir,
        knows_secrets: !materials.secrets.is_empty() || !task.mask.is_empty(),
        place,
        pod,
        attempt: &attempt,
        materials: &materials,
        volumes: &volumes,
        credentials: &credential_files,
        credential_dirs: &credential_dirs,
    };
    let mut plan = PodPlan {
        hostname: host_name(&pod.name),
        host_aliases: pod
            .host_aliases
            .iter()
            .map(|alias| (alias.ip.clone(), alias.hostnames.clone()))
            .collect(),
        dns: pod.dns.clone(),
        host_network: pod.host_network,
        warnings,
        ..PodPlan::default()
    };
    for (index, step) in pod.steps.iter().enumerate() {
        let planned = step_plan(&context, index, step);
        plan.steps.push(planned.map_err(|error| told(error, "step", &step.name, &attempt))?);
    }
    for (index, sidecar) in pod.sidecars.iter().enumerate() {
        let planned = sidecar_plan(&context, index, sidecar);
        plan.sidecars
            .push(planned.map_err(|error| told(error, "sidecar", &sidecar.name, &attempt))?);
    }
    let secret_values = materials.secrets.values().flat_map(|s| s.values.values());
    plan.secrets = secret_values
        .cloned()
        .chain(task.mask.iter().map(|text| text.clone().into_bytes()))
        .collect();
    plan.pull_configs = pull_configs(pod, &materials);
    Ok(plan)
}

/// Tekton's words around the kubelet's.
fn told(error: BuildError, kind: &str, name: &str, attempt: &AttemptId) -> BuildError {
    let BuildError::Refused(refusal) = error else {
        return error;
    };
    let Refusal { reason, message } = refusal;
    let task_run = &attempt.task_run;
    BuildError::Refused(Refusal {
        reason,
        message: format!(
            "the {kind} {name:?} in TaskRun {task_run:?} failed to start. \
             The pod errored with the message: \"{message}.\""
        ),
    })
}

/// Contents of the pull secrets that are there; one that is missing is no error in Kubernetes.
fn pull_configs(pod: &Pod, materials: &Materials) -> Vec<Vec<u8>> {
    let secrets = pod
        .image_pull_secrets
        .iter()
        .filter_map(|reference| materials.secrets.get(&reference.name));
    let contents = secrets.filter_map(|secret| {
        secret.values.get(".dockerconfigjson").or_else(|| secret.values.get(".dockercfg"))
    });
    contents.cloned().collect()
}

/// Kubernetes' host name of a pod: its name, cut to 63 characters.
fn host_name(pod: &str) -> String {
    let cut: String = pod.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// Volumes by name.
pub(super) type Volumes = BTreeMap<String, volumes::Mounted>;
