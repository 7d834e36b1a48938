//! How many entries a second one node, and three nodes in one process, commit: real journals, real fsync, a thread each for the
//! core and for its log. `cargo run --release -p tenon-consensus --example log_throughput`
//!
//! Each proposal is an entry of its own here; an owner that puts many proposals into one entry gets that many times more.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tenon_consensus::{
    Committed, ConfState, Core, LogOptions, LogWriter, NodeId, Options, Outgoing, Write,
};

const BYTES: usize = 300;
const TICK: Duration = Duration::from_millis(20);

type Failure = Box<dyn std::error::Error + Send + Sync>;

enum Input {
    Message(NodeId, Outgoing),
    Persisted(u64),
    Propose(Vec<u8>),
    Stop,
}

/// What the clients hear from a node.
enum Said {
    Leads(NodeId),
    Applied(usize),
}

fn main() -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(std::env::current_dir()?)?;
    println!("entries of {BYTES} bytes, synced; logs in {}", dir.path().display());
    for nodes in [1, 3] {
        for outstanding in [1, 64, 256, 1024] {
            let place = dir.path().join(format!("{nodes}-{outstanding}"));
            measure(&place, nodes, outstanding)?;
        }
    }
    Ok(())
}

fn measure(dir: &Path, nodes: u64, outstanding: usize) -> Result<(), Failure> {
    let channels: Vec<_> = (0..nodes).map(|_| channel::<Input>()).collect();
    let inboxes: Vec<Sender<Input>> = channels.iter().map(|(inbox, _)| inbox.clone()).collect();
    let (said, hears) = channel();
    let members = ConfState::of_voters(1..=nodes);
    let mut threads = Vec::new();
    for (id, (_, receiver)) in (1..).zip(channels) {
        let dir = dir.join(id.to_string());
        LogWriter::bootstrap(&dir, LogOptions::default(), &members)?;
        let (log, view, _) = LogWriter::open(&dir, LogOptions::default())?;
        let core = Core::new(Options::new(id), view, 1, members.clone())?;
        let (to_log, writes) = channel();
        let back = inboxes[id as usize - 1].clone();
        threads.push(thread::spawn(move || run_log(log, &writes, &back)));
        let (peers, said) = (inboxes.clone(), said.clone());
        threads.push(thread::spawn(move || run_core(core, id, &receiver, &peers, &to_log, &said)));
    }
    let leader = loop {
        if let Said::Leads(id) = hears.recv()? {
            break &inboxes[id as usize - 1];
        }
    };
    let mut sent = VecDeque::new();
    let mut times = Vec::new();
    let begin = Instant::now();
    let run_for = Duration::from_secs(3);
    while begin.elapsed() < run_for {
        while sent.len() < outstanding {
            sent.push_back(Instant::now());
            leader.send(Input::Propose(vec![7; BYTES]))?;
        }
        if let Said::Applied(count) = hears.recv()? {
            times.extend(sent.drain(..count.min(sent.len())).map(|at| at.elapsed()));
        }
    }
    let rate = times.len() as f64 / begin.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    println!(
        "{nodes} nodes, {outstanding:4} outstanding: {rate:8.0} entries/s, p50 {:?}, p99 {:?}",
        at(50),
        at(99)
    );
    for inbox in &inboxes {
        let _ = inbox.send(Input::Stop);
    }
    drop(inboxes);
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked")??;
    }
    Ok(())
}

fn run_log(
    mut log: LogWriter,
    writes: &Receiver<Write>,
    core: &Sender<Input>,
) -> Result<(), Failure> {
    while let Ok(first) = writes.recv() {
        log.write(&first)?;
        for write in writes.try_iter().take(256) {
            log.write(&write)?;
        }
        let number = log.sync()?;
        if core.send(Input::Persisted(number)).is_err() {
            break;
        }
    }
    Ok(())
}

fn run_core(
    mut core: Core,
    id: NodeId,
    inbox: &Receiver<Input>,
    peers: &[Sender<Input>],
    log: &Sender<Write>,
    said: &Sender<Said>,
) -> Result<(), Failure> {
    let mut next_tick = Instant::now() + TICK;
    let mut proposals = Vec::new();
    let mut told = false;
    loop {
        let mut input =
            match inbox.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
        while let Some(next) = input {
            match next {
                Input::Message(from, message) => core.step(from, &message.bytes)?,
                Input::Persisted(number) => core.persisted(number),
                Input::Propose(data) => proposals.push(data),
                Input::Stop => return Ok(()),
            }
            input = inbox.try_recv().ok();
        }
        if Instant::now() >= next_tick {
            core.tick();
            next_tick = Instant::now() + TICK;
        }
        core.propose_all(std::mem::take(&mut proposals));
        while let Some(ready) = core.ready()? {
            for message in ready.messages {
                let _ = peers[message.to as usize - 1].send(Input::Message(id, message));
            }
            if let Some(write) = ready.write {
                log.send(write)?;
            }
            let entries =
                ready.committed.iter().filter(|one| matches!(one, Committed::Entry { .. }));
            let entries = entries.count();
            if let Some(last) = ready.committed.last() {
                core.applied(last.index());
            }
            let leads = core.status().leads_fully;
            if leads && !told {
                told = true;
                let _ = said.send(Said::Leads(id));
            }
            if told && entries > 0 {
                let _ = said.send(Said::Applied(entries));
            }
        }
    }
}
