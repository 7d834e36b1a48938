//! The plan of one step or sidecar.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tenon_entrypoint::{CredentialFile, Mode, OnError, Spec, WaitFile, When, WhenOperator};
use tenon_proto::agent::v1::AttemptId;
use tenon_tekton::k8s::{ResourceRequirements, SecurityContext, VolumeMount};
use tenon_tekton::pod::Pod;
use tenon_tekton::v1::{Sidecar, Step};

use super::build::{BuildError, Place, Volumes};
use super::env::environment;
use super::expand::expand;
use super::paths::{below, clean, is_below};
use super::plan::{
    Bind, ContainerKind, ContainerPlan, Entry, Env, Identity, Probes, PullPolicy, Refusal,
    Resources,
};
use super::{
    Materials, PodDir, READY_FILE, RECORD_DIR, SPEC_DIR, Sees, quantity, scripts, volumes,
};
use crate::policy::Rights;

/// What all containers of an attempt are planned with.
pub struct Context<'a> {
    pub dir: &'a PodDir,
    /// What the containers print may hold values of Secrets, and is masked only when it is read.
    pub knows_secrets: bool,
    pub place: &'a Place,
    pub pod: &'a Pod,
    pub attempt: &'a AttemptId,
    pub materials: &'a Materials,
    pub volumes: &'a Volumes,
    pub credentials: &'a [CredentialFile],
    pub credential_dirs: &'a [(String, PathBuf)],
}

/// Plans a step.
pub fn step_plan(
    context: &Context<'_>,
    index: usize,
    step: &Step,
) -> Result<ContainerPlan, BuildError> {
    let container = container_name("step", &step.name);
    let env = environment(
        context.pod,
        context.materials,
        &format!("step-{}", step.name),
        &step.env_from,
        &step.env,
        &step.compute_resources,
    )?;
    let entry = entry(context, false, index, &step.script, &step.command, &step.args, &env)?;
    let mut mounts = Mounts::of(context, &step.volume_mounts, &env)?;
    implicit_step_mounts(context, &mut mounts, index, !step.script.is_empty());
    let record = own_mounts(context, &mut mounts, &container)?;
    let working_dir = working_dir(&mut mounts, &step.working_dir)?;
    let run = format!("/tekton/run/{index}");
    let mut wait_files = Vec::new();
    if index > 0 {
        wait_files
            .push(WaitFile { path: format!("/tekton/run/{}/out", index - 1), with_content: false });
    } else if !context.pod.sidecars.is_empty() {
        wait_files.push(WaitFile { path: READY_FILE.to_owned(), with_content: true });
    }
    let spec = Spec {
        mode: Mode::Step,
        env: env.0.clone(),
        record: format!("{RECORD_DIR}/record"),
        wait_files,
        post_file: Some(format!("{run}/out")),
        metadata_dir: Some(format!("{run}/status")),
        results_dir: "/tekton/results".to_owned(),
        results: context.pod.results.clone(),
        step_results: step.results.iter().map(|result| result.name.clone()).collect(),
        steps_dir: "/tekton/steps".to_owned(),
        timeout_nanos: step.timeout.map_or(0, |timeout| timeout.0),
        on_error: match step.on_error.as_str() {
            "continue" => OnError::Continue,
            _ => OnError::StopAndFail,
        },
        when: step
            .when
            .iter()
            .map(|when| When {
                input: when.input.clone(),
                operator: match when.operator.as_str() {
                    "notin" => WhenOperator::NotIn,
                    _ => WhenOperator::In,
                },
                values: when.values.clone(),
                cel: when.cel.clone(),
            })
            .collect(),
        max_message_size: context.pod.max_result_size,
        credentials_dir: "/tekton/creds".to_owned(),
        credentials: context.credentials.to_vec(),
        stdout_path: step.stdout_config.as_ref().map(|config| config.path.clone()),
        stderr_path: step.stderr_config.as_ref().map(|config| config.path.clone()),
        ..Spec::default()
    };
    Ok(ContainerPlan {
        name: step.name.clone(),
        kind: ContainerKind::Step { index },
        image: step.image.clone(),
        pull_policy: pull_policy(&step.image_pull_policy),
        entry,
        env,
        binds: mounts.binds,
        tmpfs: vec![super::Tmpfs { target: "/tekton/creds".to_owned(), mode: 0o1777, size: None }],
        working_dir,
        identity: identity(context.pod, step.security_context.as_ref()),
        rights: rights(context.pod, step.security_context.as_ref())?,
        resources: resources(&step.compute_resources),
        probes: Probes::default(),
        spec,
        spec_dir: context.dir.make_spec_dir(&container)?,
        record,
        container,
    })
}

/// Plans a sidecar.
pub fn sidecar_plan(
    context: &Context<'_>,
    index: usize,
    sidecar: &Sidecar,
) -> Result<ContainerPlan, BuildError> {
    let container = container_name("sidecar", &sidecar.name);
    let env = environment(
        context.pod,
        context.materials,
        &format!("sidecar-{}", sidecar.name),
        &sidecar.env_from,
        &sidecar.env,
        &sidecar.compute_resources,
    )?;
    let entry =
        entry(context, true, index, &sidecar.script, &sidecar.command, &sidecar.args, &env)?;
    let mut mounts = Mounts::of(context, &sidecar.volume_mounts, &env)?;
    mounts.implicit("/tekton/bin", context.place.entrypoint_dir.clone(), true);
    if !sidecar.script.is_empty() {
        mounts.implicit("/tekton/scripts", context.dir.scripts(), true);
    }
    let record = own_mounts(context, &mut mounts, &container)?;
    let working_dir = working_dir(&mut mounts, &sidecar.working_dir)?;
    let ports: BTreeMap<String, u16> = sidecar
        .ports
        .iter()
        .filter_map(|port| Some((port.name.clone(), u16::try_from(port.container_port).ok()?)))
        .collect();
    Ok(ContainerPlan {
        name: sidecar.name.clone(),
        kind: ContainerKind::Sidecar { index },
        image: sidecar.image.clone(),
        pull_policy: pull_policy(&sidecar.image_pull_policy),
        entry,
        binds: mounts.binds,
        tmpfs: Vec::new(),
        working_dir,
        identity: identity(context.pod, sidecar.security_context.as_ref()),
        rights: rights(context.pod, sidecar.security_context.as_ref())?,
        resources: resources(&sidecar.compute_resources),
        probes: Probes {
            readiness: sidecar.readiness_probe.clone(),
            startup: sidecar.startup_probe.clone(),
            ports,
            lifecycle: sidecar.lifecycle.clone(),
        },
        spec: Spec {
            mode: Mode::Sidecar,
            env: env.0.clone(),
            record: format!("{RECORD_DIR}/record"),
            ..Spec::default()
        },
        env,
        spec_dir: context.dir.make_spec_dir(&container)?,
        record,
        container,
    })
}

/// `<prefix>-<name>`, cut to 63 characters that end in a letter or digit.
pub(super) fn container_name(prefix: &str, name: &str) -> String {
    let mut full = format!("{prefix}-{name}");
    if full.len() > 63 {
        full = full.chars().take(63).collect();
        full.truncate(full.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len());
    }
    full
}

fn pull_policy(text: &str) -> PullPolicy {
    // Kubernetes' default for `:latest` is Always. Without a cluster's registry beside it that would
    // refuse images that were built here, so what the machine has is good enough unless asked.
    match text {
        "Always" => PullPolicy::Always,
        "Never" => PullPolicy::Never,
        _ => PullPolicy::IfNotPresent,
    }
}

fn entry(
    context: &Context<'_>,
    sidecar: bool,
    index: usize,
    script: &str,
    command: &[String],
    args: &[String],
    env: &Env,
) -> Result<Entry, BuildError> {
    let expanded = |texts: &[String]| -> Vec<String> {
        texts.iter().map(|text| expand(text, |name| env.get(name))).collect()
    };
    if !script.is_empty() {
        if script.trim_start().starts_with("#!win") {
            return Err(BuildError::Refused(Refusal {
                reason: "CreateContainerConfigError",
                message: "scripts for Windows (`#!win`) cannot run on a Linux machine".to_owned(),
            }));
        }
        let name = scripts::file_name(context.attempt, sidecar, index);
        let path = context.dir.scripts().join(&name);
        fs::write(&path, scripts::text(script))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        let mut argv = vec![format!("/tekton/scripts/{name}")];
        argv.extend(expanded(args));
        return Ok(Entry::Argv(argv));
    }
    if command.is_empty() {
        return Ok(Entry::Image { args: expanded(args) });
    }
    let mut argv = expanded(command);
    argv.extend(expanded(args));
    Ok(Entry::Argv(argv))
}

/// A path below a directory of another machine cannot be looked at, and may lead anywhere.
fn unseen_sub_path(volume: &str) -> Refusal {
    Refusal {
        reason: "CreateContainerConfigError",
        message: format!(
            "volume \"{volume}\" is a hostPath on the machine of the Docker daemon, which is not the \
             agent's: a subPath of it cannot be mounted"
        ),
    }
}

/// The mounts of one container; what the user mounts wins over what Tekton would.
struct Mounts {
    binds: Vec<Bind>,
}

impl Mounts {
    fn of(context: &Context<'_>, mounts: &[VolumeMount], env: &Env) -> Result<Mounts, BuildError> {
        let mut binds: Vec<Bind> = Vec::new();
        for mount in mounts {
            let volume = context.volumes.get(&mount.name).ok_or_else(|| Refusal {
                reason: "PodCreationFailed",
                message: format!("volumeMounts: volume \"{}\" not found", mount.name),
            })?;
            let sub_path = if mount.sub_path_expr.is_empty() {
                mount.sub_path.clone()
            } else {
                expand(&mount.sub_path_expr, |name| env.get(name))
            };
            let source = if sub_path.is_empty() {
                volume.source.clone()
            } else if volume.on_host && context.place.sees != Sees::Everything {
                return Err(unseen_sub_path(&mount.name).into());
            } else {
                below(&volume.source, &sub_path)
                    .map_err(|error| volumes::bad_path(&sub_path, error))?
            };
            let target = clean(&mount.mount_path);
            if target == "/" {
                return Err(BuildError::Refused(Refusal {
                    reason: "CreateContainerConfigError",
                    message: format!("volume \"{}\" cannot be mounted at /", mount.name),
                }));
            }
            binds.retain(|bind| bind.target != target);
            let read_only = mount.read_only || volume.read_only;
            binds.push(Bind { source, target, read_only, on_host: volume.on_host });
        }
        let mut mounts = Mounts { binds };
        mounts.sort();
        Ok(mounts)
    }

    fn implicit(&mut self, target: &str, source: PathBuf, read_only: bool) {
        if self.binds.iter().any(|bind| bind.target == target) {
            return;
        }
        self.binds.push(Bind { source, target: target.to_owned(), read_only, on_host: false });
        self.sort();
    }

    fn sort(&mut self) {
        self.binds.sort_by(|a, b| a.target.cmp(&b.target));
    }

    /// The mount that a path of the container lies in, and the rest of the path.
    fn find<'a>(&self, path: &'a str) -> Option<(&Bind, &'a str)> {
        let bind = self
            .binds
            .iter()
            .filter(|bind| is_below(path, &bind.target))
            .max_by_key(|bind| bind.target.len())?;
        Some((bind, &path[bind.target.len()..]))
    }
}

fn implicit_step_mounts(context: &Context<'_>, mounts: &mut Mounts, index: usize, script: bool) {
    let dir = context.dir;
    mounts.implicit("/workspace", dir.workspace(), false);
    mounts.implicit("/tekton/home", dir.home(), false);
    mounts.implicit("/tekton/results", dir.results(), false);
    mounts.implicit("/tekton/artifacts", dir.artifacts(), false);
    mounts.implicit("/tekton/steps", dir.steps(), true);
    mounts.implicit("/tekton/bin", context.place.entrypoint_dir.clone(), true);
    mounts.implicit("/tekton/run", dir.runs(), true);
    mounts.implicit(&format!("/tekton/run/{index}"), dir.run(index), false);
    if script {
        mounts.implicit("/tekton/scripts", dir.scripts(), true);
    }
    for (secret, source) in context.credential_dirs {
        let target = format!("/tekton/creds-secrets/{secret}");
        mounts.implicit(&target, source.clone(), true);
    }
    if index == 0 && !context.pod.sidecars.is_empty() {
        mounts.implicit("/tekton/downward", dir.downward(), true);
    }
}

/// The directories that only this container has; returns its record.
fn own_mounts(
    context: &Context<'_>,
    mounts: &mut Mounts,
    container: &str,
) -> Result<PathBuf, BuildError> {
    let record = context.dir.make_record(container, context.knows_secrets)?;
    let record_dir = record.parent().map(PathBuf::from).unwrap_or_default();
    mounts.implicit(RECORD_DIR, record_dir, false);
    mounts.implicit(SPEC_DIR, context.dir.make_spec_dir(container)?, false);
    Ok(record)
}

/// A relative directory is taken from /workspace; one in a mount is made there, others are made by
/// whoever starts the container.
fn working_dir(mounts: &mut Mounts, path: &str) -> Result<Option<String>, BuildError> {
    if path.is_empty() {
        return Ok(None);
    }
    let path =
        if path.starts_with('/') { clean(path) } else { clean(&format!("/workspace/{path}")) };
    if is_below(&path, "/workspace")
        && let Some((bind, rest)) = mounts.find(&path)
        && bind.source.is_dir()
    {
        below(&bind.source, rest).map_err(|error| volumes::bad_path(&path, error))?;
    }
    Ok(Some(path))
}

fn identity(pod: &Pod, own: Option<&SecurityContext>) -> Identity {
    let shared = pod.security_context.as_ref();
    let user = own
        .and_then(|own| own.run_as_user)
        .or_else(|| shared.and_then(|shared| shared.run_as_user));
    let group = own
        .and_then(|own| own.run_as_group)
        .or_else(|| shared.and_then(|shared| shared.run_as_group));
    let groups = shared
        .map(|shared| {
            let supplemental = shared.supplemental_groups.iter().copied();
            supplemental.chain(shared.fs_group).collect()
        })
        .unwrap_or_default();
    Identity {
        user,
        group,
        groups,
        non_root: own
            .and_then(|own| own.run_as_non_root)
            .or_else(|| shared.and_then(|shared| shared.run_as_non_root))
            .unwrap_or(false),
    }
}

fn rights(pod: &Pod, own: Option<&SecurityContext>) -> Result<Rights, Refusal> {
    Rights::of(own, pod.security_context.as_ref())
}

fn resources(requirements: &ResourceRequirements) -> Resources {
    let limit = |name: &str| requirements.limits.get(name).map(|q| q.0.as_str());
    let nano_cpus = limit("cpu")
        .and_then(quantity::nanos)
        .and_then(|nanos| i64::try_from(nanos).ok())
        .filter(|&nanos| nanos > 0);
    let cpu_shares = requirements
        .requests
        .get("cpu")
        .and_then(|q| quantity::nanos(&q.0))
        .and_then(|nanos| i64::try_from(nanos * 1024 / 1_000_000_000).ok())
        .map(|shares| shares.clamp(2, 262_144));
    Resources {
        nano_cpus,
        memory: limit("memory").and_then(quantity::units).filter(|&bytes| bytes > 0),
        cpu_shares,
    }
}
