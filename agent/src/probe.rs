//! Startup and readiness probes and the hooks of sidecars, with Kubernetes' defaults. How a command
//! gets into a sidecar is the backend's affair: [`Reach`].
//!
//! HTTP is plain HTTP/1.0 over TCP; an HTTPS or gRPC probe is taken as passed when the port takes a
//! connection. Probes are tried more often than their period says: who waits for them is a step. How
//! long a startup probe may fail goes by the clock all the same.

use std::net::IpAddr;
use std::time::Duration;

use tenon_tekton::k8s::{HttpGetAction, IntOrString, LifecycleHandler, Probe};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::backend::BoxFuture;
use crate::pod::ContainerPlan;

/// The pauses between the first tries and between later ones, if the period is not shorter.
const EARLY: Duration = Duration::from_millis(50);
const LATER: Duration = Duration::from_millis(500);
/// How many tries are early ones.
const EARLY_TRIES: u32 = 20;
/// "HTTP/1.1 200" is all that matters of an answer.
pub const HEAD: usize = 12;

/// A sidecar that runs, as its backend reaches it.
pub trait Reach: Send + Sync {
    /// Where its ports are.
    fn address(&self) -> IpAddr;
    /// Connects to a port and, unless there is nothing to send, gives the first bytes of the answer.
    fn ask<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        request: &'a [u8],
    ) -> BoxFuture<'a, std::io::Result<[u8; HEAD]>> {
        Box::pin(ask_directly(host, port, request))
    }
    /// Runs a command in it; whether it exited with 0.
    fn run<'a>(&'a self, plan: &'a ContainerPlan, command: &'a [String]) -> BoxFuture<'a, bool>;
}

/// Whether a sidecar is ready as soon as it has started.
pub fn is_ready_at_once(plan: &ContainerPlan) -> bool {
    let probes = &plan.probes;
    let hook = probes.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
    probes.startup.is_none() && probes.readiness.is_none() && hook.is_none()
}

/// Runs the `postStart` hook, then waits until the startup probe, then the readiness probe has
/// passed. False when the hook, or the startup probe for good, has failed: the sidecar is to be
/// killed then.
pub async fn until_ready(plan: &ContainerPlan, reach: &dyn Reach) -> bool {
    let hook = plan.probes.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
    if let Some(hook) = hook
        && !run_hook(plan, reach, hook).await
    {
        return false;
    }
    for (probe, may_fail) in [(&plan.probes.startup, true), (&plan.probes.readiness, false)] {
        if let Some(probe) = probe
            && !until_passed(plan, reach, probe, may_fail).await
        {
            return false;
        }
    }
    true
}

/// Runs the `preStop` hook, if there is one. That it fails hinders nothing.
pub async fn before_stop(plan: &ContainerPlan, reach: &dyn Reach) {
    let hook = plan.probes.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if let Some(hook) = hook {
        run_hook(plan, reach, hook).await;
    }
}

async fn run_hook(plan: &ContainerPlan, reach: &dyn Reach, hook: &LifecycleHandler) -> bool {
    if let Some(exec) = &hook.exec {
        return reach.run(plan, &exec.command).await;
    }
    if let Some(http) = &hook.http_get {
        return http_get(plan, reach, http).await;
    }
    if let Some(tcp) = &hook.tcp_socket {
        return connects(&tcp.host, port(plan, tcp.port.as_ref()), reach).await;
    }
    if let Some(seconds) = hook.sleep.get("seconds").and_then(serde_json::Value::as_u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
    true
}

async fn until_passed(
    plan: &ContainerPlan,
    reach: &dyn Reach,
    probe: &Probe,
    may_fail: bool,
) -> bool {
    let or = |value: i32, default: u32| {
        u32::try_from(value).ok().filter(|&value| value > 0).unwrap_or(default)
    };
    let seconds = |value, default| Duration::from_secs(or(value, default).into());
    let period = seconds(probe.period_seconds, 10);
    let timeout = seconds(probe.timeout_seconds, 1);
    let wanted = or(probe.success_threshold, 1);
    tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
    let until = Instant::now() + period.saturating_mul(or(probe.failure_threshold, 3));
    let (mut tries, mut passed) = (0, 0);
    loop {
        let once = tokio::time::timeout(timeout, once(plan, reach, probe));
        if once.await.unwrap_or(false) {
            passed += 1;
            if passed >= wanted {
                return true;
            }
        } else {
            passed = 0;
            if may_fail && Instant::now() >= until {
                return false;
            }
        }
        tries += 1;
        // Probing is by the clock, as Kubernetes defines it.
        tokio::time::sleep(period.min(if tries <= EARLY_TRIES { EARLY } else { LATER })).await;
    }
}

async fn once(plan: &ContainerPlan, reach: &dyn Reach, probe: &Probe) -> bool {
    if let Some(exec) = &probe.exec {
        return reach.run(plan, &exec.command).await;
    }
    if let Some(http) = &probe.http_get {
        return http_get(plan, reach, http).await;
    }
    if let Some(tcp) = &probe.tcp_socket {
        return connects(&tcp.host, port(plan, tcp.port.as_ref()), reach).await;
    }
    if let Some(grpc) = &probe.grpc {
        return connects("", u16::try_from(grpc.port).ok(), reach).await;
    }
    true
}

async fn http_get(plan: &ContainerPlan, reach: &dyn Reach, http: &HttpGetAction) -> bool {
    let port = port(plan, http.port.as_ref());
    if http.scheme.eq_ignore_ascii_case("https") {
        return connects(&http.host, port, reach).await;
    }
    let Some(port) = port else { return false };
    let host = host(&http.host, reach);
    let headers = &http.http_headers;
    let mut request = format!(
        "GET /{} HTTP/1.0\r\nUser-Agent: kube-probe/tenon\r\nConnection: close\r\n",
        http.path.trim_start_matches('/')
    );
    if !headers.iter().any(|header| header.name.eq_ignore_ascii_case("host")) {
        request.push_str(&format!("Host: {host}:{port}\r\n"));
    }
    for header in headers {
        request.push_str(&format!("{}: {}\r\n", header.name, header.value));
    }
    request.push_str("\r\n");
    let head = reach.ask(&host, port, request.as_bytes()).await;
    // 200 to 399 is healthy.
    head.is_ok_and(|head| head.starts_with(b"HTTP/") && matches!(head[9], b'2' | b'3'))
}

async fn connects(named: &str, port: Option<u16>, reach: &dyn Reach) -> bool {
    let Some(port) = port else { return false };
    reach.ask(&host(named, reach), port, &[]).await.is_ok()
}

fn host(named: &str, reach: &dyn Reach) -> String {
    if named.is_empty() { reach.address().to_string() } else { named.to_owned() }
}

fn port(plan: &ContainerPlan, port: Option<&IntOrString>) -> Option<u16> {
    match port? {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            plan.probes.ports.get(name).copied().or_else(|| name.parse().ok())
        }
    }
}

/// Connects from where the agent is.
pub async fn ask_directly(host: &str, port: u16, request: &[u8]) -> std::io::Result<[u8; HEAD]> {
    let mut stream = TcpStream::connect((host, port)).await?;
    let mut head = [0; HEAD];
    if !request.is_empty() {
        stream.write_all(request).await?;
        stream.read_exact(&mut head).await?;
    }
    Ok(head)
}
