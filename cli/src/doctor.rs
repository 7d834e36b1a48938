//! `tenon doctor`: can this machine run pipelines, and if not, what is to be done?

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tenon_reporter::pretty::Paint;

use crate::args::DoctorArgs;
use crate::exit::{Exit, Failure};
use crate::inspect::answer;
use crate::terminal;

/// One thing that was looked at.
#[derive(Serialize)]
struct Finding {
    name: &'static str,
    ok: bool,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Finding {
    fn new(name: &'static str, result: Result<String, (String, &str)>) -> Finding {
        match result {
            Ok(message) => Finding { name, ok: true, message, hint: None },
            Err((message, hint)) => {
                Finding { name, ok: false, message, hint: Some(hint.to_owned()) }
            }
        }
    }
}

/// `tenon doctor`.
pub fn doctor(args: &DoctorArgs, state_dir: &Path) -> Result<Exit, Failure> {
    let findings = [
        Finding::new("state", state(state_dir)),
        Finding::new("docker", docker()),
        Finding::new("host", host()),
    ];
    // Either backend is enough.
    let works = findings[0].ok && (findings[1].ok || findings[2].ok);
    let value = serde_json::json!({"ok": works, "checks": findings});
    answer(args.output, &value, || {
        let style = terminal::stdout_style();
        let mut text = String::new();
        for finding in &findings {
            let sign = match finding.ok {
                true => style.paint(Paint::GOOD, "✓"),
                false => style.paint(Paint::WARN, "✗"),
            };
            text.push_str(&format!("{sign} {:<7} {}\n", finding.name, finding.message));
            if let Some(hint) = &finding.hint {
                text.push_str(&format!("  {:<7} hint: {hint}\n", ""));
            }
        }
        text.push_str(match works {
            true => "This machine can run pipelines.\n",
            false => "This machine cannot run pipelines yet.\n",
        });
        text
    })?;
    Ok(if works { Exit::Success } else { Exit::Environment })
}

fn state(dir: &Path) -> Result<String, (String, &'static str)> {
    let probe = dir.join(format!(".doctor-{}", std::process::id()));
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&probe, b"probe"))
        .and_then(|()| fs::remove_file(&probe))
        .map(|()| format!("runs are stored in {}", dir.display()))
        .map_err(|error| {
            (
                format!("cannot write in {}: {error}", dir.display()),
                "--state-dir or TENON_STATE_DIR chooses another directory",
            )
        })
}

/// The socket that Docker listens on: of `DOCKER_HOST` if that names one.
fn docker() -> Result<String, (String, &'static str)> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let path = match host.strip_prefix("unix://") {
        Some(path) => PathBuf::from(path),
        None if host.is_empty() => PathBuf::from("/var/run/docker.sock"),
        None => {
            let hint =
                "the Docker backend uses a local socket: unset DOCKER_HOST, or use --backend host";
            return Err((format!("DOCKER_HOST is {host}"), hint));
        }
    };
    UnixStream::connect(&path).map(|_| format!("the daemon answers at {}", path.display())).map_err(
        |error| {
            (
                format!("no daemon at {}: {error}", path.display()),
                "start Docker and be in the group of its socket; or use --backend host",
            )
        },
    )
}

/// What steps without containers need: namespaces of their own.
fn host() -> Result<String, (String, &'static str)> {
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        return Ok("steps can run without Docker (as root)".to_owned());
    }
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let clone =
        fs::read_to_string("/proc/sys/kernel/unprivileged_userns_clone").unwrap_or_default();
    if limit.trim() == "0" || clone.trim() == "0" {
        return Err((
            "user namespaces are switched off for you".to_owned(),
            "sysctl user.max_user_namespaces=10000 kernel.unprivileged_userns_clone=1, or use Docker",
        ));
    }
    Ok("steps can run without Docker, in user namespaces".to_owned())
}
