//! A Docker daemon of a test's own, which it may kill. Needs root and `dockerd`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{children_of, processes_with, signal, wait_until};

/// A daemon with a socket, a data directory and a containerd of its own; ended when dropped.
pub struct Daemon {
    dir: TempDir,
    child: Child,
}

impl Daemon {
    /// Starts one and waits until it answers.
    pub fn start() -> Daemon {
        Daemon::start_with(&[], &[])
    }

    /// The same with more options for `dockerd`, and with these directories as on another machine: what
    /// is in them it does not see.
    pub fn start_with(options: &[&str], hidden: &[&Path]) -> Daemon {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name);
        let log = File::create(path("log")).unwrap();
        let mut script = "ip link set lo up\n".to_owned();
        for dir in hidden {
            script.push_str(&format!("mount -t tmpfs hidden {}\n", dir.display()));
        }
        script.push_str("exec dockerd \"$@\"");
        // In a network of its own: a second daemon would take the bridge of the first one away.
        let child = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-ec", &script, "sh"])
            .arg("--host")
            .arg(format!("unix://{}", path("docker.sock").display()))
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .args(["--iptables=false", "--ip-forward=false"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("dockerd is there, because `cargo xtask test` installs it");
        let daemon = Daemon { dir, child };
        wait_until("the daemon", || daemon.docker(&["version"]).status().unwrap().success());
        daemon
    }

    /// The process in whose network it is.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// What `docker` prints of it, without the last newline.
    pub fn says(&self, args: &[&str]) -> String {
        let said = self.docker(args).stdout(Stdio::piped()).output().unwrap();
        String::from_utf8(said.stdout).unwrap().trim_end().to_owned()
    }

    /// For `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
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
        // What it started names its directory: containerd and the shims, whose children are the containers'.
        let directory = self.dir.path().display().to_string();
        let started = processes_with(&directory);
        let containers: Vec<u32> = started.iter().flat_map(|shim| children_of(*shim)).collect();
        for process in started.into_iter().chain(containers) {
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
