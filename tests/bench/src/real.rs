//! Real agents: `tenon agent` processes that run steps in Docker.

use std::process::Command;

use crate::Result;
use crate::cluster::Cluster;
use crate::process::Process;
use crate::setting::Setting;

/// Starts agents of a cluster; they end when the processes are dropped.
pub fn agents(setting: &Setting, cluster: &Cluster, count: usize) -> Result<Vec<Process>> {
    let start = |number: usize| {
        let name = format!("agent-{number}");
        let dir = setting.dir(&name)?;
        let mut command = Command::new(&setting.tenon);
        command.arg("agent").args(["--server", &cluster.urls().join(",")]).args(["--name", &name]);
        command.args(["--backend", "docker"]).arg("--data-dir").arg(&dir);
        Process::start(command, &dir.with_extension("log"))
    };
    (1..=count).map(start).collect()
}

/// Says what Docker cannot do, before anything is measured against it.
pub fn docker_has(image: &str) -> Result<()> {
    let mut inspect = Command::new("docker");
    inspect.args(["image", "inspect", "--format", "{{.Id}}", image]);
    let output = inspect.output().map_err(|error| format!("run docker: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "Docker has no image {image} (`cargo xtask images` builds it): {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

/// A `docker run` of a command in a container of its own.
pub fn docker_run(image: &str, command: &[&str]) -> Command {
    let mut run = Command::new("docker");
    run.args(["run", "--rm", image]).args(command).stdin(std::process::Stdio::null());
    run
}
