//! A Docker daemon of a test's own, which it may kill. Needs root and `dockerd`.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{processes_with, signal, wait_until};

/// A daemon with a socket, a data directory and a containerd of its own; ended when dropped.
pub struct Daemon {
    dir: TempDir,
    child: Child,
}

impl Daemon {
    /// Starts one and waits until it answers.
    pub fn start() -> Daemon {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name);
        let log = File::create(path("log")).unwrap();
        // In a network of its own: a second daemon would take the bridge of the first one away.
        let child = Command::new("unshare")
            .args(["--net", "dockerd"])
            .arg("--host")
            .arg(format!("unix://{}", path("docker.sock").display()))
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .args(["--iptables=false", "--ip-forward=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("dockerd is there, because `cargo xtask test` installs it");
        let daemon = Daemon { dir, child };
        wait_until("the daemon", || daemon.docker(&["version"]).status().unwrap().success());
        daemon
    }

    /// For `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.dir.path().join("docker.sock").display())
    }

    fn docker(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(args).env("DOCKER_HOST", self.host());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Copies an image from the machine's daemon.
    pub fn copy_image(&self, image: &str) {
        let mut save =
            Command::new("docker").args(["save", image]).stdout(Stdio::piped()).spawn().unwrap();
        let status = self.docker(&["load"]).stdin(save.stdout.take().unwrap()).status().unwrap();
        assert!(save.wait().unwrap().success() && status.success(), "cannot copy {image}");
    }

    /// Kills the daemon at once, as a crash would; its containers live on until this is dropped.
    pub fn kill(&self) {
        signal(self.child.id(), libc::SIGKILL);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        // Reaps it; the status of a killed daemon says nothing.
        let _ = self.child.wait();
        // What it started names its directory: containerd, the shims, and through them the containers.
        let directory = self.dir.path().display().to_string();
        for process in processes_with(&directory) {
            signal(process, libc::SIGKILL);
        }
        // The file systems of its containers; lazily, because what was killed may take a moment.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for mount in below.filter(|mount| mount.starts_with(&directory)) {
            // One that went by itself is no failure.
            let _ = Command::new("umount").arg("-l").arg(mount).status();
        }
    }
}
