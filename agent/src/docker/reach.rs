//! How probes and hooks reach a sidecar in Docker: by the address of the attempt's network, and with
//! `docker exec`. Where the agent is not on the daemon's machine, or in a network of its own there,
//! the entrypoint in the sidecar's container connects for it.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use bollard::Docker;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters::InspectContainerOptions;
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

use crate::backend::BoxFuture;
use crate::pod::{ContainerPlan, ENTRYPOINT};
use crate::probe::{HEAD, Reach, ask_directly};

/// A sidecar's container.
pub struct Exec<'a> {
    docker: &'a Docker,
    container: String,
    address: IpAddr,
    by_exec: bool,
}

impl<'a> Exec<'a> {
    /// `network` is the container that holds the attempt's network; none for the machine's own. With
    /// `by_exec` connections are made from inside the container.
    pub async fn new(
        docker: &'a Docker,
        container: String,
        network: Option<&str>,
        by_exec: bool,
    ) -> Exec<'a> {
        Exec { docker, container, address: address(docker, network).await, by_exec }
    }

    /// Asks from inside. The request goes over standard input: it may hold what nobody is to read.
    async fn ask_inside(&self, host: &str, port: u16, request: &[u8]) -> io::Result<[u8; HEAD]> {
        let command = [ENTRYPOINT, "ask", host, &port.to_string()].map(str::to_owned);
        let options = CreateExecOptions {
            cmd: Some(command.to_vec()),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            ..CreateExecOptions::default()
        };
        let exec = self.docker.create_exec(&self.container, options).await;
        let exec = exec.map_err(io::Error::other)?;
        let started = self.docker.start_exec(&exec.id, None::<StartExecOptions>).await;
        let mut answer = Vec::new();
        if let StartExecResults::Attached { mut output, mut input } =
            started.map_err(io::Error::other)?
        {
            let length = u32::try_from(request.len()).unwrap_or_default();
            input.write_all(&length.to_le_bytes()).await?;
            input.write_all(request).await?;
            input.flush().await?;
            while let Some(Ok(bytes)) = output.next().await {
                answer.extend_from_slice(&bytes.into_bytes());
            }
        }
        let ended = self.docker.inspect_exec(&exec.id).await.map_err(io::Error::other)?;
        if ended.exit_code != Some(0) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let mut head = [0; HEAD];
        if !request.is_empty() {
            let found = answer.get(..HEAD).ok_or(io::ErrorKind::UnexpectedEof)?;
            head.copy_from_slice(found);
        }
        Ok(head)
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

    fn ask<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        request: &'a [u8],
    ) -> BoxFuture<'a, io::Result<[u8; HEAD]>> {
        match self.by_exec {
            true => Box::pin(self.ask_inside(host, port, request)),
            false => Box::pin(ask_directly(host, port, request)),
        }
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
