//! The audit log: a line for every call that would change something, and for whoever was refused.
//!
//! In `audit/audit.ndjson` of the node's data directory, one JSON object a line; a file that is full
//! becomes `audit-TIME.ndjson`, and the oldest of these go. A line is written before the answer goes
//! out. What concerns trust and membership is on the disk by then; what concerns runs (and is in the
//! replicated log besides) within a second. Never holds a secret.

mod read;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use axum::response::Response;
use serde::Serialize;
use tenon_proto::status::CODE_KEY;
use tokio::sync::oneshot;

use super::access::{Caller, Outcome, changes_something, now};
use crate::error::{Error, Result};

/// A file is full at this size.
const FILE_BYTES: u64 = 16 << 20;
/// So many full files are kept.
const KEEP: usize = 16;
/// What need not be on the disk at once is after this time.
const SYNC: Duration = Duration::from_secs(1);
/// So many refusals a second are written one by one; of more only the number.
const REFUSALS: u32 = 50;

/// Writes lines; cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit {
    entries: Sender<Entry>,
    /// Where the files are.
    dir: Arc<Path>,
}

#[derive(Debug)]
struct Entry {
    line: Line,
    /// It has to be on the disk before it is answered.
    at_once: bool,
    refused: bool,
    written: oneshot::Sender<()>,
}

#[derive(Debug, Serialize)]
struct Line {
    time: String,
    who: String,
    from: String,
    what: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    about: String,
    outcome: String,
}

impl Audit {
    /// The log of the node with this data directory. It ends with the last clone of this.
    pub fn open(data_dir: &Path) -> Result<Audit> {
        let dir = data_dir.join("audit");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(Error::io("create", &dir))?;
        let path = dir.join("audit.ndjson");
        let files = Files::open(&dir).map_err(Error::io("open", &path))?;
        let (sender, entries) = channel();
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || write(files, &entries))
            .map_err(Error::io("start the thread of", &path))?;
        Ok(Audit { entries: sender, dir: dir.into() })
    }

    /// Writes down a call.
    pub(super) async fn note(&self, call: Call) {
        self.write(call.line, call.at_once, call.refused).await;
    }

    /// Writes down a connection that came to nothing.
    pub(super) async fn refused_connection(&self, from: SocketAddr, why: &str) {
        let line = Line {
            time: time(),
            who: "anybody".to_owned(),
            from: from.to_string(),
            what: "connection".to_owned(),
            about: why.to_owned(),
            outcome: "denied/connection".to_owned(),
        };
        self.write(line, false, true).await;
    }

    /// Writes down that an agent has reported of what it was not given.
    pub fn forged_report(&self, agent: &str, about: String) {
        let line = Line {
            time: time(),
            who: format!("agent {agent}"),
            from: String::new(),
            what: "report".to_owned(),
            about,
            outcome: "denied/forged".to_owned(),
        };
        let (written, _) = oneshot::channel();
        // The thread is gone only when the node is ending.
        let _ = self.entries.send(Entry { line, at_once: false, refused: true, written });
    }

    async fn write(&self, line: Line, at_once: bool, refused: bool) {
        let (written, done) = oneshot::channel();
        if self.entries.send(Entry { line, at_once, refused, written }).is_ok() {
            let _ = done.await;
        }
    }
}

/// A call that belongs into the log.
pub(super) struct Call {
    line: Line,
    at_once: bool,
    refused: bool,
}

impl Call {
    /// A call and its answer; `None` for one that is no matter of this log. `name` is its gRPC method;
    /// routes of HTTP say it with their answer.
    pub fn of(caller: &Caller, name: Option<&str>, answer: &Response) -> Option<Call> {
        let outcome = answer.extensions().get::<Outcome>().map(|outcome| outcome.0.clone());
        let called = answer.extensions().get::<Called>().map(|called| called.0);
        let name = name.or(called)?;
        let code = || answer.headers().get(CODE_KEY)?.to_str().ok().map(str::to_owned);
        let failed = || answer.headers().contains_key("grpc-status").then(|| "failed".to_owned());
        let outcome = outcome.or_else(code).or_else(failed).unwrap_or_else(|| "ok".to_owned());
        let family = outcome.split('/').next().unwrap_or_default();
        let refused = matches!(family, "denied" | "unauthenticated" | "peer");
        if !changes_something(name) && !refused {
            return None;
        }
        let of_runs = name.starts_with("tenon.control.v1.Control/");
        let line = Line {
            time: time(),
            who: caller.name(),
            from: caller.from.map(|from| from.to_string()).unwrap_or_default(),
            what: name.to_owned(),
            about: caller.about(),
            outcome,
        };
        Some(Call { line, at_once: !of_runs && !refused, refused })
    }
}

/// The method that a route of HTTP stands for, beside its answer.
#[derive(Clone)]
pub struct Called(pub &'static str);

fn time() -> String {
    tenon_engine::Time(now()).to_string()
}

struct Files {
    dir: PathBuf,
    file: File,
    bytes: u64,
}

impl Files {
    fn open(dir: &Path) -> io::Result<Files> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(dir.join("audit.ndjson"))?;
        let bytes = file.metadata()?.len();
        File::open(dir)?.sync_all()?;
        Ok(Files { dir: dir.to_owned(), file, bytes })
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        if self.bytes + text.len() as u64 > FILE_BYTES {
            self.rotate()?;
        }
        self.bytes += text.len() as u64;
        self.file.write_all(&text)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        let full = format!("audit-{}.ndjson", time().replace(':', "-"));
        fs::rename(self.dir.join("audit.ndjson"), self.dir.join(full))?;
        *self = Files::open(&self.dir)?;
        let mut old: Vec<PathBuf> = fs::read_dir(&self.dir)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                name.starts_with("audit-") && name.ends_with(".ndjson")
            })
            .collect();
        // Their names are in the order of time.
        old.sort();
        for path in &old[..old.len().saturating_sub(KEEP)] {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// The thread: what comes together is written, and synced, together.
fn write(mut files: Files, entries: &Receiver<Entry>) {
    let mut unsynced: Option<Instant> = None;
    let mut second = Instant::now();
    let (mut refusals, mut left_out) = (0, 0u64);
    loop {
        let wait =
            unsynced.map_or(Duration::from_secs(3600), |at| SYNC.saturating_sub(at.elapsed()));
        let first = match entries.recv_timeout(wait) {
            Ok(entry) => Some(entry),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                let _ = files.file.sync_data();
                return;
            }
        };
        let mut at_once = false;
        let mut told = Vec::new();
        for entry in first.into_iter().chain(entries.try_iter().take(1000)) {
            if second.elapsed() >= SYNC {
                second = Instant::now();
                refusals = 0;
                if std::mem::take(&mut left_out) > 0 {
                    tracing::warn!("refusals were left out of the audit log: there were too many");
                }
            }
            refusals += u32::from(entry.refused);
            if entry.refused && refusals > REFUSALS {
                left_out += 1;
            } else if let Err(error) = files.write(&entry.line) {
                tracing::error!(%error, "cannot write the audit log");
            }
            at_once |= entry.at_once;
            told.push(entry.written);
        }
        let began = *unsynced.get_or_insert_with(Instant::now);
        if at_once || began.elapsed() >= SYNC {
            if let Err(error) = files.file.sync_data() {
                tracing::error!(%error, "cannot sync the audit log");
            }
            unsynced = None;
        }
        for written in told {
            // Whoever asked may have gone.
            let _ = written.send(());
        }
    }
}
