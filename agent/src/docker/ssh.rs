//! A daemon behind `ssh://`: as the Docker command does it, each connection is `ssh … docker system
//! dial-stdio` on the other machine. Here they are taken at a socket in a private directory, so that
//! everything else speaks to a Unix socket. Keys, host keys and jumps are ssh's own business.
//!
//! Connections share one login, which ends with this process; one that finds no room in it logs in by
//! itself.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// Lines of ssh's that are remembered.
const REMEMBERED: usize = 3;

/// Where the daemon can be reached while this process lives.
pub struct Tunnel {
    /// The socket.
    pub socket: PathBuf,
    said: Said,
}

type Said = Arc<Mutex<VecDeque<String>>>;

impl Tunnel {
    /// What ssh complained of last.
    pub fn said(&self) -> Option<String> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<&str> = said.iter().map(String::as_str).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }
}

/// Opens a way to the daemon at `ssh://[user@]host[:port][/path]`. It serves for as long as the process
/// lives.
pub fn tunnel(url: &str) -> io::Result<Tunnel> {
    let dir = private_dir()?;
    let socket = dir.join("docker.sock");
    let listener = UnixListener::bind(&socket)?;
    let said = Said::default();
    let (command, heard) = (arguments(url, &dir), said.clone());
    let dir = Removed(dir);
    let mut login = start_login(&command);
    let serve = async move {
        let _dir = dir;
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                taken = listener.accept() => match taken {
                    Ok((stream, _)) => {
                        if login.as_mut().is_none_or(|login| !matches!(login.try_wait(), Ok(None))) {
                            login = start_login(&command);
                        }
                        let (command, heard) = (command.clone(), heard.clone());
                        open.spawn(async move { carry(stream, &command, &heard).await });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the way to the daemon takes no connections");
                        return;
                    }
                },
                Some(_) = open.join_next(), if !open.is_empty() => {}
            }
        }
    };
    // It belongs to the process, as the connection that it stands for does.
    tokio::runtime::Handle::current().spawn(serve);
    Ok(Tunnel { socket, said })
}

/// A directory that goes with this value.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // What is left of it goes at another start.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The login that connections share. That it fails is said by the first connection.
fn start_login(command: &[String]) -> Option<Child> {
    let host = command.iter().position(|word| word == "--")?;
    Command::new(&command[0])
        .args(["-M", "-N"])
        .args(&command[1..host + 2])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()
}

/// A directory that only this user can look into. Sockets have short names, so it is in /tmp.
fn private_dir() -> io::Result<PathBuf> {
    let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
    let base = base.unwrap_or_else(std::env::temp_dir);
    let name =
        format!("tenon-ssh-{}-{}", std::process::id(), crate::clock::since_boot().as_nanos());
    let dir = base.join(name);
    std::fs::create_dir(&dir)?;
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))?;
    remove_stale(&base);
    Ok(dir)
}

/// What processes have left that are no more.
fn remove_stale(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("tenon-ssh-").and_then(|rest| rest.split('-').next());
        let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        if crate::owner::start_time(pid).is_none() {
            // Another user's cannot be removed, and need not be.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// How ssh is called, program and all.
fn arguments(url: &str, dir: &Path) -> Vec<String> {
    let rest = url.strip_prefix("ssh://").unwrap_or(url);
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) if !path.is_empty() => (authority, Some(format!("/{path}"))),
        Some((authority, _)) => (authority, None),
        None => (rest, None),
    };
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => (host, Some(port)),
        _ => (host, None),
    };
    let mut arguments: Vec<String> =
        ["ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30"].map(str::to_owned).to_vec();
    arguments.extend(["-o", "ControlPersist=no"].map(str::to_owned));
    arguments.push("-o".to_owned());
    arguments.push(format!("ControlPath={}", dir.join("%C").display()));
    // A connection over which nothing comes back is given up after a while.
    arguments.extend(["-o", "ServerAliveInterval=15"].map(str::to_owned));
    if let Some(user) = user {
        arguments.extend(["-l".to_owned(), user.to_owned()]);
    }
    if let Some(port) = port {
        arguments.extend(["-p".to_owned(), port.to_owned()]);
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    arguments.extend(["--".to_owned(), host.to_owned(), "docker".to_owned()]);
    if let Some(path) = path {
        arguments.extend(["--host".to_owned(), format!("unix://{path}")]);
    }
    arguments.extend(["system".to_owned(), "dial-stdio".to_owned()]);
    arguments
}

/// Carries one connection.
async fn carry(stream: UnixStream, command: &[String], said: &Said) {
    let mut child = match Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
    {
        Ok(child) => child,
        Err(error) => return remember(said, &format!("`ssh` cannot be run: {error}")),
    };
    let (Some(mut input), Some(mut output), Some(errors)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return;
    };
    let (mut from, mut to) = stream.into_split();
    let there = async {
        let _ = tokio::io::copy(&mut from, &mut input).await;
        // Its end is the other side's to see.
        drop(input);
    };
    let back = async {
        let _ = tokio::io::copy(&mut output, &mut to).await;
        let _ = to.shutdown().await;
    };
    let listen = async {
        let mut lines = BufReader::new(errors).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            remember(said, &line);
        }
    };
    tokio::pin!(there, listen);
    tokio::pin!(back);
    let (mut sent, mut heard) = (false, false);
    // The daemon's end ends it all: nothing that is sent after it is answered.
    loop {
        tokio::select! {
            () = &mut back => break,
            () = &mut there, if !sent => sent = true,
            () = &mut listen, if !heard => heard = true,
        }
    }
    if !heard {
        // What it has said by now; a master in the background keeps the pipe open.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(50), listen).await;
    }
}

fn remember(said: &Said, line: &str) {
    let line = line.trim().to_owned();
    if line.is_empty() {
        return;
    }
    tracing::debug!(%line, "ssh");
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() >= REMEMBERED {
        said.pop_front();
    }
    said.push_back(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_is_called_as_docker_calls_it() {
        for (url, tail) in [
            ("ssh://h", "-- h docker system dial-stdio"),
            ("ssh://u@h:2222", "-l u -p 2222 -- h docker system dial-stdio"),
            ("ssh://u@h/", "-l u -- h docker system dial-stdio"),
            ("ssh://h/run/x.sock", "-- h docker --host unix:///run/x.sock system dial-stdio"),
            ("ssh://[::1]:22", "-p 22 -- ::1 docker system dial-stdio"),
        ] {
            let text = arguments(url, Path::new("/private")).join(" ");
            assert!(text.ends_with(tail), "{text}");
        }
    }
}
