//! Startup and readiness probes of sidecars, with Kubernetes' defaults.
//!
//! HTTP is plain HTTP/1.0 over TCP; an HTTPS or gRPC probe is taken as passed when the port takes a
//! connection.

use std::net::IpAddr;
use std::time::Duration;

use bollard::Docker;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use futures_util::StreamExt as _;
use tenon_tekton::k8s::{IntOrString, Probe};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::pod::ContainerPlan;

/// Where a sidecar is to be found.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its container.
    pub container: String,
    /// The address of the attempt's network.
    pub address: IpAddr,
}

/// Waits until the startup probe, then the readiness probe has passed. False when the startup probe
/// has failed for good: the sidecar is to be killed then.
pub async fn until_ready(docker: &Docker, plan: &ContainerPlan, target: &Target) -> bool {
    if let Some(probe) = &plan.probes.startup
        && !until_passed(docker, plan, target, probe, true).await
    {
        return false;
    }
    match &plan.probes.readiness {
        Some(probe) => until_passed(docker, plan, target, probe, false).await,
        None => true,
    }
}

async fn until_passed(
    docker: &Docker,
    plan: &ContainerPlan,
    target: &Target,
    probe: &Probe,
    may_fail: bool,
) -> bool {
    let or = |value: i32, default: u64| match u64::try_from(value) {
        Ok(value) if value > 0 => value,
        _ => default,
    };
    let period = Duration::from_secs(or(probe.period_seconds, 10));
    let timeout = Duration::from_secs(or(probe.timeout_seconds, 1));
    let wanted = or(probe.success_threshold, 1);
    let allowed = or(probe.failure_threshold, 3);
    tokio::time::sleep(Duration::from_secs(or(probe.initial_delay_seconds, 0))).await;
    let (mut passed, mut failed) = (0, 0);
    loop {
        let ok =
            tokio::time::timeout(timeout, once(docker, plan, target, probe)).await.unwrap_or(false);
        if ok {
            passed += 1;
            failed = 0;
            if passed >= wanted {
                return true;
            }
        } else {
            passed = 0;
            failed += 1;
            if may_fail && failed >= allowed {
                return false;
            }
        }
        // Probing is by the clock, as Kubernetes defines it; but the first second is worth more.
        let early = failed <= 5 && period >= Duration::from_secs(1);
        let pause = if early { Duration::from_millis(200) } else { period };
        tokio::time::sleep(pause).await;
    }
}

async fn once(docker: &Docker, plan: &ContainerPlan, target: &Target, probe: &Probe) -> bool {
    if let Some(exec) = &probe.exec {
        return run(docker, plan, &target.container, &exec.command).await == Some(0);
    }
    if let Some(http) = &probe.http_get {
        let Some(port) = port(plan, http.port.as_ref()) else {
            return false;
        };
        let tls = http.scheme.eq_ignore_ascii_case("https");
        let host = host(&http.host, target);
        if tls {
            return TcpStream::connect((host.as_str(), port)).await.is_ok();
        }
        let mut request = format!(
            "GET /{} HTTP/1.0\r\nUser-Agent: kube-probe/tenon\r\nConnection: close\r\n",
            http.path.trim_start_matches('/')
        );
        let mut has_host = false;
        for header in &http.http_headers {
            has_host |= header.name.eq_ignore_ascii_case("host");
            request.push_str(&format!("{}: {}\r\n", header.name, header.value));
        }
        if !has_host {
            request.push_str(&format!("Host: {host}:{port}\r\n"));
        }
        request.push_str("\r\n");
        return get(&host, port, &request).await.unwrap_or(false);
    }
    if let Some(tcp) = &probe.tcp_socket {
        let Some(port) = port(plan, tcp.port.as_ref()) else {
            return false;
        };
        return TcpStream::connect((host(&tcp.host, target), port)).await.is_ok();
    }
    if let Some(grpc) = &probe.grpc {
        let Ok(port) = u16::try_from(grpc.port) else {
            return false;
        };
        return TcpStream::connect((target.address, port)).await.is_ok();
    }
    true
}

fn host(named: &str, target: &Target) -> String {
    if named.is_empty() { target.address.to_string() } else { named.to_owned() }
}

fn port(plan: &ContainerPlan, port: Option<&IntOrString>) -> Option<u16> {
    match port? {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            plan.probes.ports.get(name).copied().or_else(|| name.parse().ok())
        }
    }
}

/// 200 to 399 is healthy.
async fn get(host: &str, port: u16, request: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((host, port)).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    let mut part = [0; 64];
    // "HTTP/1.1 200" is all that matters.
    while head.len() < 12 {
        let length = stream.read(&mut part).await?;
        if length == 0 {
            break;
        }
        head.extend_from_slice(&part[..length]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let status: Option<u16> = head.split(' ').nth(1).and_then(|word| {
        let digits: String = word.chars().take(3).collect();
        digits.parse().ok()
    });
    Ok(status.is_some_and(|status| (200..400).contains(&status)))
}

/// Runs a command in a container and gives its exit code.
pub async fn run(
    docker: &Docker,
    plan: &ContainerPlan,
    container: &str,
    command: &[String],
) -> Option<i64> {
    let env = plan.env.0.iter().map(|(name, value)| format!("{name}={value}"));
    let options = CreateExecOptions {
        cmd: Some(command.to_vec()),
        env: Some(env.collect()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..CreateExecOptions::default()
    };
    let exec = docker.create_exec(container, options).await.ok()?;
    let started = docker.start_exec(&exec.id, None::<StartExecOptions>).await.ok()?;
    if let StartExecResults::Attached { mut output, .. } = started {
        while output.next().await.is_some() {}
    }
    docker.inspect_exec(&exec.id).await.ok()?.exit_code
}
