//! Which daemon, and the connection to it: `DOCKER_HOST`, else the context that the Docker command would
//! use, else the socket of Docker or Podman on this machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use serde_json::Value;

use super::ssh;
use crate::backend::BackendError;

/// How long an answer of the daemon may take; pulls and starts on slow disks take long.
const TIMEOUT: Duration = Duration::from_secs(600);
/// How long a daemon may take to say that it is there, on this machine and over a network.
const PING: Duration = Duration::from_secs(5);
const FAR_PING: Duration = Duration::from_secs(30);

/// Where Docker listens by itself.
const SOCKET: &str = "/var/run/docker.sock";

/// A daemon's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `unix://…`
    Unix(PathBuf),
    /// `tcp://…` in the clear.
    Tcp(String),
    /// `tcp://…` with TLS; the directory has `ca.pem`, `cert.pem` and `key.pem`.
    Tls(String, PathBuf),
    /// `ssh://[user@]host[:port][/path of the socket]`
    Ssh(String),
}

impl Endpoint {
    /// The address as people write it.
    pub fn url(&self) -> String {
        match self {
            Endpoint::Unix(path) => format!("unix://{}", path.display()),
            Endpoint::Tcp(url) | Endpoint::Tls(url, _) | Endpoint::Ssh(url) => url.clone(),
        }
    }
}

/// What the choice depends on.
struct Surroundings<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    exists: &'a dyn Fn(&Path) -> bool,
}

/// The daemon that is meant.
pub fn endpoint() -> Result<Endpoint, BackendError> {
    choose(&Surroundings {
        env: &|name| std::env::var(name).ok().filter(|value| !value.is_empty()),
        exists: &Path::exists,
    })
}

/// What the user has named the daemon with, if it is not the one that listens on this machine by itself.
pub fn named() -> Option<Named> {
    named_by(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// Where the name of a daemon stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// In this environment variable.
    Variable(&'static str),
    /// It is the current context in the configuration that is in this directory.
    Context(String, PathBuf),
}

impl Named {
    /// What names the daemon, and how to take the name away.
    pub fn describe(&self) -> String {
        match self {
            Named::Variable(name) => format!("{name} names that daemon: unset it"),
            Named::Context(name, config) => format!(
                "The current context {name:?} in {} names that daemon: take another one with \
                 `docker context use default`",
                config.join("config.json").display()
            ),
        }
    }
}

fn named_by(env: &dyn Fn(&str) -> Option<String>) -> Option<Named> {
    if env("DOCKER_HOST").is_some() {
        return Some(Named::Variable("DOCKER_HOST"));
    }
    let config = config_dir(env);
    let context = context_name(env, &config)?;
    Some(match env("DOCKER_CONTEXT") {
        Some(_) => Named::Variable("DOCKER_CONTEXT"),
        None => Named::Context(context, config),
    })
}

/// The context that is meant, where that is not the machine's own daemon.
fn context_name(env: &dyn Fn(&str) -> Option<String>, config: &Path) -> Option<String> {
    let named = env("DOCKER_CONTEXT").or_else(|| {
        let text = std::fs::read(config.join("config.json")).ok()?;
        let config: Value = serde_json::from_slice(&text).ok()?;
        config["currentContext"].as_str().map(str::to_owned)
    });
    named.filter(|name| name != "default" && !name.is_empty())
}

fn choose(around: &Surroundings<'_>) -> Result<Endpoint, BackendError> {
    let env = around.env;
    let certificates =
        || env("DOCKER_CERT_PATH").map(PathBuf::from).unwrap_or_else(|| config_dir(env).join(""));
    if let Some(host) = env("DOCKER_HOST") {
        let tls = env("DOCKER_TLS_VERIFY").map(|_| certificates());
        return parse(&host, tls, "DOCKER_HOST");
    }
    let config = config_dir(env);
    if let Some(name) = context_name(env, &config) {
        return context(&config, &name);
    }
    let runtime = env("XDG_RUNTIME_DIR").map(PathBuf::from);
    let in_runtime = |path: &str| runtime.as_ref().map(|dir| dir.join(path));
    let places = [
        Some(PathBuf::from(SOCKET)),
        in_runtime("docker.sock"),
        Some(PathBuf::from("/run/podman/podman.sock")),
        in_runtime("podman/podman.sock"),
    ];
    let found = places.into_iter().flatten().find(|path| (around.exists)(path));
    Ok(Endpoint::Unix(found.unwrap_or_else(|| PathBuf::from(SOCKET))))
}

fn config_dir(env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let home = || PathBuf::from(env("HOME").unwrap_or_else(|| "/".to_owned())).join(".docker");
    env("DOCKER_CONFIG").map_or_else(home, PathBuf::from)
}

fn parse(host: &str, tls: Option<PathBuf>, from: &str) -> Result<Endpoint, BackendError> {
    let host = host.trim();
    let Some((scheme, rest)) = host.split_once("://") else {
        return Err(refused(from, host));
    };
    match (scheme, tls) {
        ("unix", _) if rest.starts_with('/') => Ok(Endpoint::Unix(PathBuf::from(rest))),
        ("tcp" | "https" | "http", Some(dir)) if !rest.is_empty() => {
            Ok(Endpoint::Tls(format!("tcp://{}", with_port(rest, 2376)), dir))
        }
        ("tcp" | "http", None) if !rest.is_empty() => {
            Ok(Endpoint::Tcp(format!("tcp://{}", with_port(rest, 2375))))
        }
        ("ssh", _) if !rest.is_empty() && !rest.starts_with('-') => {
            Ok(Endpoint::Ssh(host.to_owned()))
        }
        _ => Err(refused(from, host)),
    }
}

fn refused(from: &str, host: &str) -> BackendError {
    BackendError {
        code: "docker/host",
        message: format!(
            "{from} is {host}: not the address of a daemon; it is unix:///path, tcp://host:port or \
             ssh://[user@]host[:port]"
        ),
    }
}

fn with_port(rest: &str, port: u16) -> String {
    let authority = rest.trim_end_matches('/');
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.chars().all(|c| c.is_ascii_digit()));
    if has_port { authority.to_owned() } else { format!("{authority}:{port}") }
}

/// What `docker context` keeps: a file below a directory that is named by a hash. It is found by what
/// the file says, so that the hash need not be made.
fn context(config: &Path, name: &str) -> Result<Endpoint, BackendError> {
    let missing = || BackendError {
        code: "docker/context",
        message: format!(
            "the Docker context {name:?} is not in {}: `docker context ls` lists those that are",
            config.join("contexts").display()
        ),
    };
    let metas = std::fs::read_dir(config.join("contexts/meta")).map_err(|_| missing())?;
    for entry in metas.flatten() {
        let text = std::fs::read(entry.path().join("meta.json")).unwrap_or_default();
        let meta: Value = serde_json::from_slice(&text).unwrap_or_default();
        if meta["Name"] != name {
            continue;
        }
        let host = meta["Endpoints"]["docker"]["Host"].as_str().ok_or_else(missing)?;
        let tls = config.join("contexts/tls").join(entry.file_name()).join("docker");
        let tls = tls.is_dir().then_some(tls);
        return parse(host, tls, &format!("the host of the Docker context {name:?}"));
    }
    Err(missing())
}

/// Connects and asks for a sign of life.
pub async fn connect(endpoint: &Endpoint) -> Result<Docker, BackendError> {
    let seconds = TIMEOUT.as_secs();
    let mut tunnel = None;
    let connected = match endpoint {
        Endpoint::Unix(_) => {
            Docker::connect_with_unix(&endpoint.url(), seconds, API_DEFAULT_VERSION)
        }
        Endpoint::Tcp(url) => Docker::connect_with_http(url, seconds, API_DEFAULT_VERSION),
        Endpoint::Tls(url, dir) => Docker::connect_with_ssl(
            url,
            &dir.join("key.pem"),
            &dir.join("cert.pem"),
            &dir.join("ca.pem"),
            seconds,
            API_DEFAULT_VERSION,
        ),
        Endpoint::Ssh(url) => {
            let opened = ssh::tunnel(url).map_err(|error| unreachable(endpoint, &error))?;
            let socket = format!("unix://{}", opened.socket.display());
            tunnel = Some(opened);
            Docker::connect_with_unix(&socket, seconds, API_DEFAULT_VERSION)
        }
    };
    let docker = connected.map_err(|error| unreachable(endpoint, &error))?;
    let patience = if matches!(endpoint, Endpoint::Unix(_)) { PING } else { FAR_PING };
    let asked = tokio::time::timeout(patience, docker.negotiate_version()).await;
    let answer = match asked {
        Ok(Ok(docker)) => return Ok(docker),
        Ok(Err(error)) => chain(&error),
        Err(_) => "it does not answer".to_owned(),
    };
    // What ssh says is nearer to the cause than that a connection broke.
    let said = tunnel.and_then(|tunnel| tunnel.said()).unwrap_or(answer);
    Err(unreachable(endpoint, &said))
}

/// An error with its causes: what TLS has against a certificate is the last of them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

fn unreachable(endpoint: &Endpoint, detail: &dyn std::fmt::Display) -> BackendError {
    let advice = match endpoint {
        Endpoint::Unix(_) => {
            "Start one (`systemctl start docker`), give yourself access to its socket, or use the \
             host backend"
        }
        Endpoint::Tcp(_) => "See that it listens there, and that nothing between blocks it",
        Endpoint::Tls(..) => {
            "See that it listens there with TLS, and that ca.pem, cert.pem and key.pem in \
             DOCKER_CERT_PATH belong to it"
        }
        Endpoint::Ssh(_) => {
            "See that `ssh` with that address gets in without a question, and that `docker version` \
             works there"
        }
    };
    BackendError {
        code: "docker/unreachable",
        message: format!("no Docker daemon answers at {}: {detail}. {advice}", endpoint.url()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn chosen(env: &[(&str, &str)], files: &[&str]) -> Result<Endpoint, BackendError> {
        let env: HashMap<&str, &str> = env.iter().copied().collect();
        choose(&Surroundings {
            env: &|name| env.get(name).map(|&value| value.to_owned()),
            exists: &|path| files.iter().any(|file| Path::new(file) == path),
        })
    }

    #[test]
    fn the_address_is_taken_as_docker_takes_it() {
        let none = "/absent";
        for (host, tls, url) in [
            ("unix:///a/b.sock", None, Some("unix:///a/b.sock")),
            ("tcp://h:1", None, Some("tcp://h:1")),
            ("tcp://h", None, Some("tcp://h:2375")),
            ("tcp://h/", Some("1"), Some("tcp://h:2376")),
            ("ssh://u@h:22", None, Some("ssh://u@h:22")),
            ("ssh://-oProxyCommand=x", None, None),
            ("h:1", None, None),
            ("npipe://x", None, None),
            ("tcp://", None, None),
        ] {
            let mut env = vec![("DOCKER_HOST", host), ("HOME", none)];
            env.extend(tls.map(|tls| ("DOCKER_TLS_VERIFY", tls)));
            let found = chosen(&env, &[]);
            assert_eq!(found.as_ref().ok().map(Endpoint::url).as_deref(), url, "{host}");
            assert_eq!(
                tls.is_some(),
                matches!(found, Ok(Endpoint::Tls(..))),
                "TLS only where it is asked for: {host}"
            );
        }
    }

    #[test]
    fn the_machines_own_sockets() {
        let env = [("HOME", "/absent"), ("XDG_RUNTIME_DIR", "/run/user/7")];
        for (files, url) in [
            (&[][..], "unix:///var/run/docker.sock"),
            (&["/run/podman/podman.sock"], "unix:///run/podman/podman.sock"),
            (
                &["/run/user/7/podman/podman.sock", "/run/user/7/docker.sock"],
                "unix:///run/user/7/docker.sock",
            ),
            (&["/run/user/7/podman/podman.sock"], "unix:///run/user/7/podman/podman.sock"),
        ] {
            assert_eq!(chosen(&env, files).unwrap().url(), url);
        }
    }

    #[test]
    fn what_names_a_daemon_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().to_str().unwrap();
        let named = |env: &[(&str, &str)]| {
            let mut env: HashMap<&str, &str> = env.iter().copied().collect();
            env.insert("DOCKER_CONFIG", config);
            named_by(&|name| env.get(name).map(|&value| value.to_owned()))
        };
        assert_eq!(named(&[]), None);
        assert_eq!(named(&[("DOCKER_CONTEXT", "default")]), None);
        let host = ("DOCKER_HOST", "unix:///var/run/docker.sock");
        assert_eq!(named(&[host]), Some(Named::Variable("DOCKER_HOST")));
        assert_eq!(named(&[("DOCKER_CONTEXT", "x")]), Some(Named::Variable("DOCKER_CONTEXT")));
        std::fs::write(dir.path().join("config.json"), r#"{"currentContext":"far"}"#).unwrap();
        let current = Named::Context("far".to_owned(), dir.path().to_owned());
        assert!(current.describe().contains("docker context use default"));
        assert_eq!(named(&[]), Some(current));
        assert_eq!(named(&[("DOCKER_CONTEXT", "default")]), None);
    }

    #[test]
    fn a_context_is_found_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let meta = dir.path().join("contexts/meta/0123");
        std::fs::create_dir_all(&meta).unwrap();
        let text = r#"{"Name":"far","Endpoints":{"docker":{"Host":"ssh://ci@far"}}}"#;
        std::fs::write(meta.join("meta.json"), text).unwrap();
        let config = dir.path().to_str().unwrap();
        let env = [("DOCKER_CONFIG", config), ("DOCKER_CONTEXT", "far")];
        assert_eq!(chosen(&env, &[]).unwrap().url(), "ssh://ci@far");
        let env = [("DOCKER_CONFIG", config), ("DOCKER_CONTEXT", "away")];
        assert!(chosen(&env, &[]).unwrap_err().message.contains("docker context ls"));
        std::fs::write(dir.path().join("config.json"), r#"{"currentContext":"far"}"#).unwrap();
        assert_eq!(chosen(&[("DOCKER_CONFIG", config)], &[]).unwrap().url(), "ssh://ci@far");
        let tls = dir.path().join("contexts/tls/0123/docker");
        std::fs::create_dir_all(&tls).unwrap();
        let text = r#"{"Name":"far","Endpoints":{"docker":{"Host":"tcp://far:2376"}}}"#;
        std::fs::write(meta.join("meta.json"), text).unwrap();
        let found = chosen(&[("DOCKER_CONFIG", config)], &[]).unwrap();
        assert_eq!(found, Endpoint::Tls("tcp://far:2376".to_owned(), tls));
    }
}
