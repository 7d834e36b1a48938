//! Looks at the machine the way an attempt will need it, and says what to do about what is missing.

use std::fs;
use std::path::Path;

use bollard::Docker;

use crate::docker::endpoint::{self, Endpoint};
use crate::docker::site::{self, Site};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What, in a word or two.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// Without it nothing runs on Docker; else it only makes things worse.
    pub required: bool,
    /// What was found.
    pub detail: String,
    /// What to do; empty when it is as it should be.
    pub hint: String,
}

/// All checks of the agent's machine.
pub async fn checks(data_dir: &Path) -> Vec<Check> {
    let mut checks = daemon(data_dir).await;
    checks.push(data_directory(data_dir));
    checks.push(memory_file_system());
    checks.push(file_events());
    checks
}

async fn daemon(data_dir: &Path) -> Vec<Check> {
    let check = |ok, detail, hint: &str| Check {
        name: "docker",
        ok,
        required: true,
        detail,
        hint: hint.to_owned(),
    };
    let endpoint = match endpoint::endpoint() {
        Ok(endpoint) => endpoint,
        Err(error) => return vec![check(false, error.message, "unset it, or say another one")],
    };
    let named = endpoint::named()
        .map(|named| format!("{}, or use `--backend host`, to do without it", named.describe()));
    let docker = match endpoint::connect(&endpoint).await {
        Ok(docker) => docker,
        Err(error) => {
            let is_here = matches!(endpoint, Endpoint::Unix(_));
            let hint = if is_here && error.message.contains("ermission denied") {
                "add yourself to the group `docker` and log in again, or run as root"
            } else {
                named
                    .as_deref()
                    .unwrap_or("start it with `systemctl start docker`, or use `--backend host`")
            };
            return vec![check(false, error.message, hint)];
        }
    };
    let info = match docker.info().await {
        Ok(info) => info,
        Err(error) => return vec![check(false, error.to_string(), "look at the daemon's log")],
    };
    let text = |value: Option<String>| value.unwrap_or_else(|| "?".to_owned());
    let cgroups = info.cgroup_version.map(|version| version.to_string());
    let mut checks = vec![check(
        true,
        format!(
            "{} at {}, storage {}, cgroup v{}",
            text(info.server_version),
            endpoint.url(),
            text(info.driver),
            text(cgroups)
        ),
        "",
    )];
    let site = files(&docker, data_dir).await;
    let is_here = site.1 == Some(Site::Same);
    checks.push(site.0);
    let root = text(info.docker_root_dir);
    if is_here && let Some(free) = free_bytes(Path::new(&root)) {
        let gib = free >> 30;
        checks.push(Check {
            name: "docker disk",
            ok: gib >= 2,
            required: false,
            detail: format!("{gib} GiB free in {root}"),
            hint: hint(gib >= 2, "free some space: `docker system prune`"),
        });
    }
    checks
}

/// How steps get the agent's files.
async fn files(docker: &Docker, data_dir: &Path) -> (Check, Option<Site>) {
    let check = |ok, detail, hint: &str| Check {
        name: "docker files",
        ok,
        required: true,
        detail,
        hint: hint.to_owned(),
    };
    let found = crate::pod::make_dir(data_dir, 0o700).and_then(|()| fs::canonicalize(data_dir));
    let Ok(data_dir) = found else {
        return (check(false, "the agent's directory cannot be made".to_owned(), ""), None);
    };
    match site::find(docker, &data_dir).await {
        Ok(site) => {
            let hint = match site {
                Site::Apart => {
                    "a little slower; in a container, mount the agent's directory and /dev/shm from \
                     the machine to avoid it"
                }
                Site::Same | Site::Mapped(_) => "",
            };
            (check(true, site.describe(&data_dir), hint), Some(site))
        }
        Err(error) => (check(false, error.message, "look at the daemon's log"), None),
    }
}

fn data_directory(data_dir: &Path) -> Check {
    let probe = data_dir.join(".probe");
    let written = crate::pod::make_dir(data_dir, 0o700).and_then(|()| fs::write(&probe, b"x"));
    let _ = fs::remove_file(&probe);
    Check {
        name: "agent directory",
        ok: written.is_ok(),
        required: true,
        detail: match &written {
            Ok(()) => format!("{} is writable", data_dir.display()),
            Err(error) => format!("{} is not writable: {error}", data_dir.display()),
        },
        hint: hint(written.is_ok(), "set TENON_STATE_DIR to a directory of yours"),
    }
}

fn memory_file_system() -> Check {
    let ok = Path::new("/dev/shm").is_dir() || std::env::var_os("XDG_RUNTIME_DIR").is_some();
    Check {
        name: "secrets in memory",
        ok,
        required: false,
        detail: if ok {
            "values of Secrets stay off the disk".to_owned()
        } else {
            "neither /dev/shm nor $XDG_RUNTIME_DIR is there".to_owned()
        },
        hint: hint(ok, "mount a tmpfs at /dev/shm"),
    }
}

fn file_events() -> Check {
    let path = "/proc/sys/fs/inotify/max_user_instances";
    let limit = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let ok = limit.is_some_and(|limit| limit >= 128);
    Check {
        name: "file events",
        ok,
        required: false,
        detail: match limit {
            Some(limit) => format!("{limit} inotify instances a user"),
            None => "this kernel has no inotify".to_owned(),
        },
        hint: hint(ok, "sysctl fs.inotify.max_user_instances=512"),
    }
}

fn hint(ok: bool, text: &str) -> String {
    if ok { String::new() } else { text.to_owned() }
}

fn free_bytes(path: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: an all-zero statvfs is valid, the path ends with NUL, and both outlive the call.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &mut stat) == 0).then(|| stat.f_bavail * stat.f_frsize)
    }
}
