//! A Docker daemon to test with: the one that answers, else one that is installed and started here.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::command::{Failure, as_root, begin, command, done, exists, output, run, target};
use crate::packages;

/// A daemon that we started; it ends with this value.
pub struct Daemon {
    child: Child,
}

/// Makes sure that a daemon answers. Returns it if it had to be started.
pub fn ensure(ask: bool) -> Result<Option<Daemon>, Failure> {
    if answers() {
        return Ok(None);
    }
    let start = begin("Docker daemon");
    if !exists("dockerd") || !exists("docker") {
        let debian_has_apart = output(command("apt-cache", ["show", "docker-cli"])).is_ok();
        let wanted: &[&str] =
            if debian_has_apart { &["docker.io", "docker-cli"] } else { &["docker.io"] };
        packages::install(ask, wanted)?;
    }
    // Where systemd runs, the package starts the daemon; where it does not, we do.
    if std::path::Path::new("/run/systemd/system").exists() && !answers() {
        let _ = run(as_root("systemctl", &["start", "docker"]));
    }
    if answers() {
        done("installed and running", start);
        return Ok(None);
    }
    // The later sets are for places that allow neither packet filters nor overlay mounts (containers in containers).
    let no_network = ["--iptables=false", "--ip6tables=false", "--bridge=none"];
    let plain_files = [&no_network[..], &["--storage-driver=vfs"]].concat();
    let mut reasons = Vec::new();
    for options in [&[][..], &no_network[..], &plain_files[..]] {
        match start_with(options) {
            Ok(daemon) if answers() => {
                done(&format!("started with options {options:?}"), start);
                return Ok(Some(daemon));
            }
            Ok(_) => reasons.push(
                "it runs, but this user may not talk to it: add yourself to the group docker"
                    .to_owned(),
            ),
            Err(error) => reasons.push(error),
        }
    }
    Err(format!("no Docker daemon could be started:\n{}", reasons.join("\n")))
}

fn answers() -> bool {
    let version = command("docker", ["version", "--format", "{{.Server.Version}}"]);
    exists("docker") && output(version).is_ok()
}

fn start_with(options: &[&str]) -> Result<Daemon, Failure> {
    let mut command = as_root("dockerd", options);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot run dockerd: {error}"))?;
    let (ready, is_ready) = mpsc::channel();
    if let Some(stderr) = child.stderr.take() {
        let log = std::fs::create_dir_all(target())
            .and_then(|()| std::fs::File::create(target().join("dockerd.log")));
        std::thread::spawn(move || {
            let mut log = log.ok();
            let mut last = String::new();
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(log) = log.as_mut() {
                    let _ = writeln!(log, "{line}");
                }
                if line.contains("API listen on") {
                    let _ = ready.send(Ok(()));
                }
                last = line;
            }
            let _ = ready.send(Err(last));
        });
    }
    let daemon = Daemon { child };
    match is_ready.recv_timeout(Duration::from_secs(90)) {
        Ok(Ok(())) => Ok(daemon),
        Ok(Err(last)) => Err(format!("dockerd {}: {last}", options.join(" "))),
        Err(_) => Err(format!("dockerd {}: it did not answer within 90 s", options.join(" "))),
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = run(as_root("kill", &["-TERM", &self.child.id().to_string()]));
        let _ = self.child.wait();
    }
}
