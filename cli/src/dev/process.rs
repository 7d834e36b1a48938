//! The processes of a fleet for trying out: this program with other arguments, which ends when the one
//! that started it does.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::exit::{Exit, Failure};

/// How long a process may take to end when it is told to.
const GRACE: Duration = Duration::from_secs(40);
/// How long a node may take to listen.
const LISTEN: Duration = Duration::from_secs(60);

/// One process.
pub struct Process {
    /// Its name.
    pub name: String,
    child: Child,
    log: std::path::PathBuf,
}

impl Process {
    /// Starts `tenon` with these arguments. What it says on stderr goes to `log`.
    pub fn start(name: &str, arguments: &[String], log: &Path) -> Result<Process, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::new(Exit::Environment, format!("{name} cannot be started: {error}"))
        };
        let file = File::options().create(true).append(true).open(log).map_err(cannot)?;
        // Also when the program was replaced since.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("tenon")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            // Of its own, so that Ctrl-C is for the one that ends the others in order.
            .process_group(0);
        // What this process was told is not meant for its parts.
        for variable in ["TENON_SERVER", "TENON_TOKEN", "TENON_CA"] {
            command.env_remove(variable);
        }
        // SAFETY: prctl with these arguments touches no memory.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                Ok(())
            });
        }
        let child = command.spawn().map_err(cannot)?;
        Ok(Process { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Waits until a coordinator says where it listens.
    pub async fn listening(&mut self) -> Result<String, Failure> {
        let mut said = String::new();
        if let Some(stdout) = self.child.stdout.take() {
            let mut reader = BufReader::new(stdout);
            // One that says nothing in time has said nothing.
            let _ = tokio::time::timeout(LISTEN, reader.read_line(&mut said)).await;
        }
        match said.trim().strip_prefix("listening on ") {
            Some(url) => Ok(url.to_owned()),
            None => Err(self.failed("did not come up")),
        }
    }

    /// Waits for its end, and says it.
    pub async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => format!("{} has ended ({status}); see {}", self.name, self.log.display()),
            Err(error) => format!("{} cannot be watched: {error}", self.name),
        }
    }

    /// What is wrong with it, and the last that it said.
    pub fn failed(&self, what: &str) -> Failure {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = said.lines().rev().take(3).collect::<Vec<_>>();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("\n  ");
        Failure::new(Exit::Environment, format!("{} {what}:\n  {last}", self.name))
            .hint(format!("all that it said is in {}", self.log.display()))
    }

    /// Tells it to end, and waits until it has; kills it when it takes too long.
    pub async fn end(mut self) {
        if let Some(pid) = self.child.id() {
            signal(pid, libc::SIGTERM);
        }
        if tokio::time::timeout(GRACE, self.child.wait()).await.is_err() {
            // One that has just ended needs no killing.
            let _ = self.child.kill().await;
        }
    }
}

/// Sends a signal to a process; that it is gone is no error.
pub fn signal(pid: u32, signal: i32) {
    if let Ok(pid) = i32::try_from(pid)
        && pid > 1
    {
        // SAFETY: no memory is involved.
        unsafe { libc::kill(pid, signal) };
    }
}
