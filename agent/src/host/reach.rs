//! How probes and hooks reach a sidecar on the host: by localhost, and by entering its namespaces.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

use crate::backend::BoxFuture;
use crate::pod::ContainerPlan;
use crate::probe::Reach;

/// A sidecar's namespaces.
pub struct Enter {
    /// The program that enters them.
    pub launcher: PathBuf,
    /// The process that keeps them, by its number and when it started.
    pub keeper: (u32, String),
}

impl Reach for Enter {
    fn address(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }

    fn run<'a>(&'a self, plan: &'a ContainerPlan, command: &'a [String]) -> BoxFuture<'a, bool> {
        let mut enter = Command::new(&self.launcher);
        enter
            .arg("enter")
            .arg(format!("{}:{}", self.keeper.0, self.keeper.1))
            .args(command)
            .envs(plan.env.0.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        Box::pin(async move { enter.status().await.is_ok_and(|status| status.success()) })
    }
}
