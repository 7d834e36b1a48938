//! How probes and hooks reach a sidecar in Docker: by the address of the attempt's network, and with
//! `docker exec`.

use std::net::{IpAddr, Ipv4Addr};

use bollard::Docker;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters::InspectContainerOptions;
use futures_util::StreamExt as _;

use crate::backend::BoxFuture;
use crate::pod::ContainerPlan;
use crate::probe::Reach;

/// A sidecar's container.
pub struct Exec<'a> {
    docker: &'a Docker,
    container: String,
    address: IpAddr,
}

impl<'a> Exec<'a> {
    /// `network` is the container that holds the attempt's network; none for the machine's own.
    pub async fn new(docker: &'a Docker, container: String, network: Option<&str>) -> Exec<'a> {
        Exec { docker, container, address: address(docker, network).await }
    }

    async fn exit_code(&self, plan: &ContainerPlan, command: &[String]) -> Option<i64> {
        let env = plan.env.0.iter().map(|(name, value)| format!("{name}={value}"));
        let options = CreateExecOptions {
            cmd: Some(command.to_vec()),
            env: Some(env.collect()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        let exec = self.docker.create_exec(&self.container, options).await.ok()?;
        let started = self.docker.start_exec(&exec.id, None::<StartExecOptions>).await.ok()?;
        if let StartExecResults::Attached { mut output, .. } = started {
            while output.next().await.is_some() {}
        }
        self.docker.inspect_exec(&exec.id).await.ok()?.exit_code
    }
}

impl Reach for Exec<'_> {
    fn address(&self) -> IpAddr {
        self.address
    }

    fn run<'a>(&'a self, plan: &'a ContainerPlan, command: &'a [String]) -> BoxFuture<'a, bool> {
        Box::pin(async move { self.exit_code(plan, command).await == Some(0) })
    }
}

/// The address of an attempt's network as seen from the machine.
async fn address(docker: &Docker, network: Option<&str>) -> IpAddr {
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let Some(network) = network else { return local };
    let none = None::<InspectContainerOptions>;
    let Ok(inspected) = docker.inspect_container(network, none).await else {
        return local;
    };
    let networks = inspected.network_settings.and_then(|settings| settings.networks);
    let mut addresses = networks
        .into_iter()
        .flatten()
        .filter_map(|(_, endpoint)| endpoint.ip_address?.parse().ok());
    addresses.next().unwrap_or(local)
}
