//! A deterministic simulation of a whole cluster.
//!
//! The engine, Raft, the logs, the coordinator and its duties are the real ones, on simulated disks;
//! network, clocks, agents and clients are made up. Everything that happens is drawn from a seed, so a
//! schedule can be repeated byte for byte. First a cluster comes together, then things go wrong, then
//! they are put right; when nothing is left to be done, an oracle that knows what everybody was told
//! checks what must be so.

#![allow(missing_docs, reason = "the names of settings and events say what they are")]

mod agent;
mod chaos;
mod client;
mod duel;
mod machine;
pub mod oracle;
mod order;
mod pipelines;
mod queue;
mod quiet;
pub mod settings;
mod subscriber;
pub mod trace;
mod world;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use oracle::Violation;
use settings::Choice;
use trace::Words;
use world::World;

/// How a schedule went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What must never be, and was.
    pub violation: Option<Violation>,
    /// The hash of everything that happened.
    pub digest: u64,
    /// The last lines of the trace, if words were wanted.
    pub story: Vec<String>,
    /// What happened how often.
    pub counts: Counts,
}

/// What happened how often: a schedule in which nothing happens shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub runs: u64,
    pub attempts: u64,
    pub frozen: u64,
    pub thawed: u64,
    pub lost: u64,
    /// Claims that were made of a snapshot, and those of them on another agent than before.
    pub restored: u64,
    pub moved: u64,
    /// Claims that came to an agent which still had a directory of a former home.
    pub returned: u64,
    pub records: u64,
    pub snapshots: u64,
    pub installed: u64,
    pub lives: u64,
    pub seconds: u64,
}

impl Counts {
    /// Adds those of another schedule.
    pub fn add(&mut self, other: &Counts) {
        self.runs += other.runs;
        self.attempts += other.attempts;
        self.frozen += other.frozen;
        self.thawed += other.thawed;
        self.lost += other.lost;
        self.restored += other.restored;
        self.moved += other.moved;
        self.returned += other.returned;
        self.records += other.records;
        self.snapshots += other.snapshots;
        self.installed += other.installed;
        self.lives += other.lives;
        self.seconds += other.seconds;
    }
}

thread_local! {
    /// Where the panic was, and what it said.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Makes panics part of the outcome instead of the terminal's content. Call it once.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|panic| {
        PANIC.set(panic.to_string());
    }));
}

/// Runs the schedule of a seed.
pub fn run(seed: u64, choice: &Choice, words: Words) -> Outcome {
    let mut world = World::new(seed, choice, words);
    let ran = catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = match ran {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(_) => Some(Violation::new("no panic", PANIC.take())),
    };
    let counts = Counts {
        runs: world.oracle.acknowledged.len() as u64,
        attempts: world.oracle.starts,
        frozen: world.oracle.frozen,
        thawed: world.oracle.thawed,
        lost: world.oracle.lost,
        restored: world.oracle.restored,
        moved: world.oracle.moved,
        returned: world.oracle.returned,
        records: world.oracle.records.len() as u64,
        snapshots: world.oracle.snapshots,
        installed: world.oracle.installed,
        lives: world.machines.values().map(|machine| machine.life).sum(),
        seconds: world.now() / 1_000_000,
    };
    Outcome { violation, digest: world.trace.digest(), story: world.trace.story(), counts }
}
