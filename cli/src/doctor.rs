//! `tenon doctor`: can this machine run pipelines, and if not, what is to be done?

use std::fs;
use std::path::Path;

use serde::Serialize;
use tenon_reporter::pretty::Paint;

use crate::args::DoctorArgs;
use crate::exit::{Exit, Failure};
use crate::inspect::answer;
use crate::terminal;

/// Where what was found begins, behind its sign and name.
const INDENT: usize = 20;

/// One thing that was looked at.
#[derive(Serialize)]
struct Finding {
    name: String,
    ok: bool,
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
}

/// `tenon doctor`.
pub fn doctor(args: &DoctorArgs, state_dir: &Path) -> Result<Exit, Failure> {
    let data_dir = state_dir.join("agent");
    let state = state(state_dir);
    let mut docker_works = true;
    let mut findings = Vec::new();
    for check in checks(&data_dir)? {
        docker_works &= check.ok || !check.required;
        findings.push(Finding {
            name: check.name.to_owned(),
            ok: check.ok,
            message: check.detail,
            hint: check.hint,
        });
    }
    let host = host(&data_dir);
    // Either backend is enough, but nothing runs on the host where a daemon was named.
    let falls_back = host.ok && tenon_agent::docker::endpoint::named().is_none();
    let works = state.ok && (docker_works || falls_back);
    findings.insert(0, state);
    findings.push(host);
    let value = serde_json::json!({"ok": works, "checks": findings});
    answer(args.output, &value, || {
        let style = terminal::stdout_style();
        let mut text = String::new();
        for finding in &findings {
            let sign = match finding.ok {
                true => style.paint(Paint::GOOD, "✓"),
                false => style.paint(Paint::WARN, "✗"),
            };
            let mut words = terminal::below(&finding.message, INDENT);
            if !finding.hint.is_empty() {
                words.push_str(&terminal::below(&format!("hint: {}", finding.hint), INDENT));
            }
            text.push_str(&format!("{sign} {:<17} {}\n", finding.name, words.trim()));
        }
        text.push_str(match works {
            true => "This machine can run pipelines.\n",
            false => "This machine cannot run pipelines yet.\n",
        });
        text
    })?;
    Ok(if works { Exit::Success } else { Exit::Environment })
}

/// What the agent's Docker backend needs.
fn checks(data_dir: &Path) -> Result<Vec<tenon_agent::doctor::Check>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Environment, format!("cannot start: {error}")))?;
    Ok(runtime.block_on(tenon_agent::doctor::checks(data_dir)))
}

/// Whether steps can run without Docker.
fn host(data_dir: &Path) -> Finding {
    let (ok, message, hint) = match tenon_agent::host::probe(data_dir) {
        Ok(()) => (true, "steps can run without Docker".to_owned(), ""),
        Err(error) => (false, error.to_string(), "only needed where there is no Docker"),
    };
    Finding { name: "host".to_owned(), ok, message, hint: hint.to_owned() }
}

fn state(dir: &Path) -> Finding {
    let probe = dir.join(format!(".doctor-{}", std::process::id()));
    let written = fs::create_dir_all(dir)
        .and_then(|()| fs::write(&probe, b"probe"))
        .and_then(|()| fs::remove_file(&probe));
    let (ok, message, hint) = match written {
        Ok(()) => (true, format!("runs are stored in {}", dir.display()), ""),
        Err(error) => (
            false,
            format!("cannot write in {}: {error}", dir.display()),
            "--state-dir or TENON_STATE_DIR chooses another directory",
        ),
    };
    Finding { name: "state".to_owned(), ok, message, hint: hint.to_owned() }
}
