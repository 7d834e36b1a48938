//! Watches the event stream of every node, from its beginning and the whole time.
//!
//! Each watcher knows one node only. What it is given goes into a file, one line an event; and of
//! each event it is checked at once that no other watcher was given other bytes.

use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tenon_client::{Client, Options};
use tenon_proto::control::v1::SubscribeRequest;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Failure;

/// How long a node may not answer before its watcher begins a new subscription.
const DEADLINE: Duration = Duration::from_secs(5);

/// What all watchers together have seen.
#[derive(Default)]
struct Seen {
    /// By `seq`, a hash of the line.
    lines: Mutex<Vec<Option<u64>>>,
    /// What went wrong, in the order in which it was found.
    faults: Mutex<Vec<String>>,
}

/// The watchers of all nodes.
pub struct Watchers {
    seen: Arc<Seen>,
    /// How far each watcher has come.
    reached: Vec<watch::Receiver<u64>>,
    tasks: JoinSet<Result<(), Failure>>,
    stop: CancellationToken,
    dir: PathBuf,
}

impl Watchers {
    /// Begins to watch each of these nodes.
    pub fn start(urls: &[String], dir: &Path) -> Result<Watchers, Failure> {
        let mut watchers = Watchers {
            seen: Arc::default(),
            reached: Vec::new(),
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
            dir: dir.to_owned(),
        };
        for (index, url) in urls.iter().enumerate() {
            let (reached, receiver) = watch::channel(0);
            watchers.reached.push(receiver);
            let file = File::create(watchers.file(index + 1)).map_err(|error| error.to_string())?;
            let client = one_node(url)?;
            let seen = Arc::clone(&watchers.seen);
            let stop = watchers.stop.clone();
            let name = format!("c{}", index + 1);
            watchers.tasks.spawn(async move {
                let mut watcher = Watcher { name, file: BufWriter::new(file), seen, last: 0 };
                tokio::select! {
                    result = watcher.follow(&client, &reached) => result?,
                    () = stop.cancelled() => {}
                }
                watcher.file.flush().map_err(|error| error.to_string())
            });
        }
        Ok(watchers)
    }

    /// What was seen of a node, counted from 1.
    pub fn file(&self, node: usize) -> PathBuf {
        self.dir.join(format!("c{node}.events"))
    }

    /// How far the watchers have come.
    pub fn reached(&self) -> Vec<u64> {
        self.reached.iter().map(|reached| *reached.borrow()).collect()
    }

    /// Ends, once everything that was seen is in the files. Gives what went wrong.
    pub async fn stop(&mut self) -> Result<Vec<String>, Failure> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|error| error.to_string())??;
        }
        Ok(std::mem::take(&mut self.seen.faults.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// A client that asks this node and no other.
pub fn one_node(url: &str) -> Result<Client, Failure> {
    let options = Options { deadline: DEADLINE, attempt: DEADLINE, ..Options::default() };
    Client::new(&[url], options).map_err(|error| error.to_string())
}

struct Watcher {
    name: String,
    file: BufWriter<File>,
    seen: Arc<Seen>,
    last: u64,
}

impl Watcher {
    async fn follow(
        &mut self,
        client: &Client,
        reached: &watch::Sender<u64>,
    ) -> Result<(), Failure> {
        loop {
            let request =
                SubscribeRequest { since: self.last, follow: true, ..SubscribeRequest::default() };
            let mut events = client.events(request);
            loop {
                match events.next().await {
                    Ok(Some(batch)) => {
                        for line in &batch.lines {
                            self.take(line).map_err(|error| format!("{}: {error}", self.name))?;
                        }
                        reached.send_replace(self.last);
                    }
                    Ok(None) => break,
                    // The node is dead, stopped or cut off; or it refuses, which is to be known.
                    Err(error) if error.code().starts_with("unavailable/") => break,
                    Err(error) => {
                        let fault = format!("{} refuses: {error} [{}]", self.name, error.code());
                        self.seen.fault(fault);
                        tokio::time::sleep(DEADLINE).await;
                        break;
                    }
                }
            }
        }
    }

    fn take(&mut self, line: &[u8]) -> std::io::Result<()> {
        let Some(seq) = seq(line) else {
            let text = String::from_utf8_lossy(line).into_owned();
            self.seen.fault(format!("{} gave an event without seq: {text}", self.name));
            return Ok(());
        };
        if seq <= self.last {
            self.seen.fault(format!("{} gave {seq} after {}", self.name, self.last));
        }
        self.last = seq;
        if !self.seen.is_same(seq, line) {
            self.seen.fault(format!("{} gave another event {seq} than others did", self.name));
        }
        self.file.write_all(line)?;
        self.file.write_all(b"\n")
    }
}

impl Seen {
    fn is_same(&self, seq: u64, line: &[u8]) -> bool {
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        let hash = hasher.finish();
        let index = usize::try_from(seq).unwrap_or(usize::MAX);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() <= index {
            lines.resize(index + 1, None);
        }
        *lines[index].get_or_insert(hash) == hash
    }

    fn fault(&self, fault: String) {
        println!("FAULT {fault}");
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }
}

/// Everything that a node gives, up to now, into a file.
pub async fn read_all(url: &str, file: &Path) -> Result<(), Failure> {
    let client = one_node(url)?;
    let mut file = File::create(file).map(BufWriter::new).map_err(|error| error.to_string())?;
    let mut events = client.events(SubscribeRequest::default());
    while let Some(batch) = events.next().await.map_err(|error| error.to_string())? {
        for line in &batch.lines {
            let written = file.write_all(line).and_then(|()| file.write_all(b"\n"));
            written.map_err(|error| error.to_string())?;
        }
    }
    file.flush().map_err(|error| error.to_string())
}

/// The `seq` of an event's line.
pub fn seq(line: &[u8]) -> Option<u64> {
    let event: serde_json::Value = serde_json::from_slice(line).ok()?;
    event["seq"].as_u64()
}
