//! From a container's plan to what the launcher is told.

use std::fs;
use std::io;
use std::path::Path;

use tenon_entrypoint::{Launch, Mount, Source};

use super::is_root;
use crate::pod::{ContainerPlan, ENTRYPOINT, Entry, PodPlan, Refusal, SPEC_DIR, SPEC_FILE};

/// Where programs are looked for when a step sets no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The argv of a container. There is no image that could give one.
pub fn argv(plan: &ContainerPlan) -> Result<Vec<String>, Refusal> {
    match &plan.entry {
        Entry::Argv(argv) => Ok(argv.clone()),
        Entry::Image { .. } => Err(Refusal {
            reason: "CreateContainerError",
            message: format!(
                "{}: it has neither command nor script, and the host backend has no image {:?} to take \
                 a command from; give it one, or use Docker",
                plan.container, plan.image
            ),
        }),
    }
}

/// Refuses users that cannot be had.
pub fn check_user(plan: &ContainerPlan) -> Result<(), Refusal> {
    let refusal = |message: String| Refusal { reason: "CreateContainerConfigError", message };
    let identity = &plan.identity;
    if identity.non_root && identity.user.unwrap_or(0) == 0 {
        return Err(refusal(format!(
            "{}: container has runAsNonRoot and would run as root; give it runAsUser",
            plan.container
        )));
    }
    let others = identity.user.unwrap_or(0) != 0 || identity.group.unwrap_or(0) != 0;
    if others && !is_root() {
        return Err(refusal(format!(
            "{}: runAsUser and runAsGroup need an agent that runs as root on the host backend, or Docker",
            plan.container
        )));
    }
    Ok(())
}

/// What the launcher makes of the plan. `root` is an empty directory, `data_dir` is hidden. A container
/// that `outlives` its agent leaves its exit code in that file.
pub fn launch(
    pod: &PodPlan,
    plan: &ContainerPlan,
    root: &Path,
    hosts: Option<&Path>,
    data_dir: &Path,
    outlives: Option<&Path>,
) -> io::Result<Launch> {
    let number = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    let root_user = plan.identity.user.unwrap_or(0) == 0;
    let home = if root_user { home() } else { "/".to_owned() };
    let mut mounts = Vec::new();
    // The machine's scratch space is shared by all, and the agent's own files are nobody's business.
    for scratch in ["/tmp", "/var/tmp", "/dev/shm"] {
        mounts.push(tmpfs(scratch, 0o1777, None));
    }
    // After /tmp, in which it may be.
    if home != "/" {
        mounts.push(tmpfs(&home, 0o700, None));
    }
    let hides = |mount: &Mount| data_dir.starts_with(&mount.target);
    if !mounts.iter().any(hides) {
        mounts.push(tmpfs(&text(data_dir)?, 0o700, None));
    }
    if let Some(hosts) = hosts {
        mounts.push(bind("/etc/hosts", text(hosts)?, true));
    }
    for one in &plan.binds {
        mounts.push(bind(&one.target, text(&fs::canonicalize(&one.source)?)?, one.read_only));
    }
    for one in &plan.tmpfs {
        mounts.push(tmpfs(&one.target, one.mode, one.size));
    }
    let rights = &plan.rights;
    let mut sealed = Vec::new();
    if rights.read_only_root {
        // As an image's own directories are; what is mounted in them stays as it is.
        sealed.extend(["/", "/tmp", "/var/tmp"].map(str::to_owned));
        sealed.extend(Some(home.clone()).filter(|home| home != "/"));
    }
    let has_user = is_root() && (plan.identity.user.is_some() || plan.identity.group.is_some());
    Ok(Launch {
        user_namespace: !is_root(),
        root: text(root)?,
        hostname: pod.hostname.clone(),
        mounts,
        cwd: plan.working_dir.clone().unwrap_or_else(|| "/".to_owned()),
        uid: number(plan.identity.user).filter(|_| has_user),
        gid: if has_user { number(plan.identity.group).or(Some(0)) } else { None },
        groups: if is_root() {
            plan.identity.groups.iter().filter_map(|&group| number(Some(group))).collect()
        } else {
            Vec::new()
        },
        capabilities: if rights.privileged { u64::MAX } else { rights.capabilities.bits() },
        sealed,
        no_new_privileges: rights.no_new_privileges,
        argv: vec![ENTRYPOINT.to_owned(), "run".to_owned(), format!("{SPEC_DIR}/{SPEC_FILE}")],
        env: vec![
            ("PATH".to_owned(), PATH.to_owned()),
            ("HOME".to_owned(), home),
            ("HOSTNAME".to_owned(), pod.hostname.clone()),
        ],
        outlives: outlives.map(text).transpose()?,
    })
}

/// The home directory of root inside: the caller's own place, but empty.
fn home() -> String {
    let home = std::env::var("HOME").unwrap_or_default();
    let usable = home.starts_with('/') && home != "/" && Path::new(&home).is_dir();
    if usable { home.trim_end_matches('/').to_owned() } else { "/root".to_owned() }
}

/// A directory or file of the machine.
pub fn bind(target: &str, path: String, read_only: bool) -> Mount {
    Mount { target: target.to_owned(), source: Source::Bind { path, read_only } }
}

fn tmpfs(target: &str, mode: u32, size: Option<u64>) -> Mount {
    Mount { target: target.to_owned(), source: Source::Tmpfs { mode, size: size.unwrap_or(0) } }
}

/// A path as text; the launcher takes no other.
pub fn text(path: &Path) -> io::Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not UTF-8", path.display()))
    })
}
