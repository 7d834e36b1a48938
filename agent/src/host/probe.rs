//! Startup and readiness probes of sidecars on the host, with Kubernetes' defaults: HTTP and TCP to
//! localhost, commands inside the sidecar's namespaces.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tenon_tekton::k8s::{IntOrString, Probe};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::pod::ContainerPlan;

/// Waits until the startup probe, then the readiness probe has passed. False when the startup probe
/// has failed for good: the sidecar is to be killed then.
pub async fn until_ready(launcher: &Path, plan: &ContainerPlan, keeper: u32) -> bool {
    for (probe, may_fail) in [(&plan.probes.startup, true), (&plan.probes.readiness, false)] {
        if let Some(probe) = probe
            && !until_passed(launcher, plan, keeper, probe, may_fail).await
        {
            return false;
        }
    }
    true
}

async fn until_passed(
    launcher: &Path,
    plan: &ContainerPlan,
    keeper: u32,
    probe: &Probe,
    may_fail: bool,
) -> bool {
    let or = |value: i32, default: u64| {
        u64::try_from(value).ok().filter(|&value| value > 0).unwrap_or(default)
    };
    let period = Duration::from_secs(or(probe.period_seconds, 10));
    let timeout = Duration::from_secs(or(probe.timeout_seconds, 1));
    tokio::time::sleep(Duration::from_secs(or(probe.initial_delay_seconds, 0))).await;
    let (mut passed, mut failed) = (0, 0);
    loop {
        let once = tokio::time::timeout(timeout, once(launcher, plan, keeper, probe));
        if once.await.unwrap_or(false) {
            (passed, failed) = (passed + 1, 0);
            if passed >= or(probe.success_threshold, 1) {
                return true;
            }
        } else {
            (passed, failed) = (0, failed + 1);
            if may_fail && failed >= or(probe.failure_threshold, 3) {
                return false;
            }
        }
        // Probing is by the clock, as Kubernetes defines it; but the first second is worth more.
        let early = Duration::from_millis(if failed <= 5 { 20 } else { 200 });
        tokio::time::sleep(if may_fail || failed > 25 { period } else { early.min(period) }).await;
    }
}

async fn once(launcher: &Path, plan: &ContainerPlan, keeper: u32, probe: &Probe) -> bool {
    let host =
        |named: &str| if named.is_empty() { "127.0.0.1".to_owned() } else { named.to_owned() };
    let port = |port: Option<&IntOrString>| match port? {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            plan.probes.ports.get(name).copied().or_else(|| name.parse().ok())
        }
    };
    if let Some(exec) = &probe.exec {
        return run(launcher, plan, keeper, &exec.command).await;
    }
    if let Some(http) = &probe.http_get {
        let Some(port) = port(http.port.as_ref()) else { return false };
        let host = host(&http.host);
        if http.scheme.eq_ignore_ascii_case("https") {
            return TcpStream::connect((host.as_str(), port)).await.is_ok();
        }
        let headers: String = http
            .http_headers
            .iter()
            .map(|header| format!("{}: {}\r\n", header.name, header.value))
            .collect();
        let request = format!(
            "GET /{} HTTP/1.0\r\nHost: {host}:{port}\r\nUser-Agent: kube-probe/tenon\r\n{headers}\r\n",
            http.path.trim_start_matches('/')
        );
        return get(&host, port, &request).await.unwrap_or(false);
    }
    if let Some(tcp) = &probe.tcp_socket {
        let Some(port) = port(tcp.port.as_ref()) else { return false };
        return TcpStream::connect((host(&tcp.host), port)).await.is_ok();
    }
    if let Some(grpc) = &probe.grpc {
        let Ok(port) = u16::try_from(grpc.port) else { return false };
        return TcpStream::connect(("127.0.0.1", port)).await.is_ok();
    }
    true
}

/// 200 to 399 is healthy.
async fn get(host: &str, port: u16, request: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((host, port)).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    Ok(matches!(head[9], b'2' | b'3'))
}

/// Runs a command in the namespaces of the container that `keeper` keeps.
pub async fn run(launcher: &Path, plan: &ContainerPlan, keeper: u32, command: &[String]) -> bool {
    let mut enter = Command::new(launcher);
    enter
        .arg("enter")
        .arg(keeper.to_string())
        .args(command)
        .envs(plan.env.0.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    enter.status().await.is_ok_and(|status| status.success())
}
