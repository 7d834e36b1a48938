//! A node: a disk, a state machine whose durable part survives crashes, and a process that is stepped piece by piece.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use tenon_consensus::{
    Committed, Compaction, ConfState, Core, LogOptions, LogView, LogWriter, NodeId, Options,
    Outgoing, Position, Repair, SnapshotMeta, SnapshotStep, Write,
};
use tenon_journal::disk::sim::{Random, SimDisk};

use super::{Network, Oracle, Snapshots, Weather};

const DIR: &str = "/node/raft";

/// A state machine that remembers everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct App {
    pub applied: Position,
    pub conf_state: ConfState,
    pub entries: Vec<(u64, Bytes)>,
}

impl App {
    fn apply(&mut self, committed: &Committed) {
        assert_eq!(committed.index(), self.applied.index + 1, "entries come in order");
        self.applied = committed.position();
        match committed {
            Committed::Entry { index, data, .. } => self.entries.push((*index, data.clone())),
            Committed::Membership { conf_state, .. } => self.conf_state = conf_state.clone(),
            Committed::Empty { .. } => {}
        }
    }

    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.entries.iter().map(|(_, data)| number_of(data))
    }

    pub fn max_number(&self) -> u64 {
        self.numbers().max().unwrap_or(0)
    }
}

fn number_of(data: &[u8]) -> u64 {
    data.first_chunk().map_or(0, |number| u64::from_le_bytes(*number))
}

enum LogJob {
    Write(Write),
    Compact(Compaction),
}

enum StateJob {
    Apply(Committed),
    Install(SnapshotMeta),
}

pub struct Process {
    pub core: Core,
    pub view: LogView,
    pub app: App,
    pub waiting: BTreeSet<u64>,
    log: LogWriter,
    unsynced: bool,
    log_jobs: VecDeque<LogJob>,
    state_jobs: VecDeque<StateJob>,
    fetching: Option<(NodeId, SnapshotMeta, u64)>,
    fetched: Option<(SnapshotMeta, Rc<App>)>,
}

pub struct Machine {
    pub id: NodeId,
    pub disk: SimDisk,
    pub process: Option<Process>,
    /// Removed from the group: it does not start again.
    pub retired: bool,
    /// What of the state is durable.
    pub durable: App,
    pub installs: u64,
    pub restarts: u64,
    /// What the last start had to mend.
    pub repaired: Option<Repair>,
}

pub fn options(id: NodeId) -> Options {
    Options {
        max_message_bytes: 1 << 10,
        max_entry_bytes: 64 << 10,
        max_inflight: 4,
        max_uncommitted_bytes: 16 << 10,
        max_unapplied_bytes: 2 << 10,
        snapshot_retry_ticks: 60,
        ..Options::new(id)
    }
}

impl Process {
    /// Does all of its work at once, and lets messages go nowhere. Snapshots are there as soon as they are offered.
    pub fn pump(&mut self, random: &mut Random) {
        while let Some(ready) = self.core.ready().unwrap() {
            self.log_jobs.extend(ready.write.map(LogJob::Write));
            for committed in ready.committed {
                self.core.applied(committed.index());
            }
            match ready.snapshot {
                Some(SnapshotStep::Fetch { meta, .. }) => self.fetching = Some((1, meta, 0)),
                Some(SnapshotStep::Install(meta)) => {
                    self.state_jobs.push_back(StateJob::Install(meta));
                }
                _ => {}
            }
            if random.one_in(2) {
                while let Some(LogJob::Write(write)) = self.log_jobs.pop_front() {
                    self.log.write(&write).unwrap();
                }
                self.core.persisted(self.log.sync().unwrap());
            }
            if random.one_in(4)
                && let Some((_, meta, _)) = self.fetching.take()
            {
                self.core.snapshot_fetched(&meta);
            }
            if random.one_in(4)
                && let Some(StateJob::Install(meta)) = self.state_jobs.pop_front()
            {
                self.core.installed(&meta);
            }
        }
    }
}

impl Machine {
    pub fn empty(id: NodeId, seed: u64) -> Machine {
        Machine {
            id,
            disk: SimDisk::new(seed),
            process: None,
            retired: false,
            durable: App::default(),
            installs: 0,
            restarts: 0,
            repaired: None,
        }
    }

    pub fn bootstrapped(id: NodeId, seed: u64, members: &ConfState) -> Machine {
        let mut machine = Machine::empty(id, seed);
        let first = LogWriter::bootstrap(Path::new(DIR), machine.log_options(), members).unwrap();
        machine.durable.applied = first;
        machine.durable.conf_state = members.clone();
        machine
    }

    fn log_options(&self) -> LogOptions {
        LogOptions {
            segment_bytes: 4 << 10,
            prepare_bytes: 1 << 10,
            memory_bytes: 2 << 10,
            disk: self.disk.mount(),
        }
    }

    pub fn start(&mut self) {
        let (mut log, view, _) = LogWriter::open(Path::new(DIR), self.log_options()).unwrap();
        let app = self.durable.clone();
        if app.applied.index > 0 {
            self.repaired = Some(log.repair(app.applied).unwrap());
        }
        let conf_state = app.conf_state.clone();
        let mut core =
            Core::new(options(self.id), view.clone(), app.applied.index, conf_state).unwrap();
        (1..20).for_each(|id| core.vouch_for(id));
        self.restarts += 1;
        self.process = Some(Process {
            core,
            view,
            app,
            waiting: BTreeSet::new(),
            log,
            unsynced: false,
            log_jobs: VecDeque::new(),
            state_jobs: VecDeque::new(),
            fetching: None,
            fetched: None,
        });
    }

    pub fn crash(&mut self, random: &mut Random) {
        self.disk.crash(random);
        self.process = None;
    }

    pub fn tick(&mut self) {
        if let Some(process) = &mut self.process {
            process.core.tick();
        }
    }

    /// Takes work out of the core until there is none; returns what is to be sent.
    pub fn drain(
        &mut self,
        oracle: &mut Oracle,
        snapshots: &mut Snapshots,
        step: u64,
    ) -> Vec<Outgoing> {
        let Some(process) = &mut self.process else { return Vec::new() };
        let mut messages = Vec::new();
        while let Some(ready) = process.core.ready().unwrap() {
            messages.extend(ready.messages);
            process.log_jobs.extend(ready.write.map(LogJob::Write));
            process.state_jobs.extend(ready.committed.into_iter().map(StateJob::Apply));
            for (request, index) in ready.reads {
                oracle.read_ends(self.id, number_of(&request), index);
            }
            if let Some(leadership) = ready.leadership {
                oracle.leadership(self.id, leadership);
            }
            match ready.snapshot {
                Some(SnapshotStep::Fetch { from, meta }) => {
                    process.fetching = Some((from, meta, 10));
                    process.fetched = None;
                }
                Some(SnapshotStep::Cancel) => {
                    process.fetching = None;
                    process.fetched = None;
                }
                Some(SnapshotStep::Install(meta)) => {
                    process.state_jobs.push_back(StateJob::Install(meta));
                }
                None => {}
            }
            if ready.wants_snapshot {
                let data = format!("{}/{step}", self.id).into_bytes();
                snapshots.insert(data.clone(), Rc::new(self.durable.clone()));
                let position = self.durable.applied;
                let conf_state = self.durable.conf_state.clone();
                process.core.offer_snapshot(SnapshotMeta { position, conf_state, data });
            }
        }
        messages
    }

    /// What the log's thread would do next.
    pub fn work_on_log(&mut self, random: &mut Random) {
        let Some(process) = &mut self.process else { return };
        match process.log_jobs.pop_front() {
            Some(LogJob::Write(write)) => {
                process.log.write(&write).unwrap();
                process.unsynced = true;
            }
            Some(LogJob::Compact(compaction)) => process.log.compact(&compaction).unwrap(),
            None => {}
        }
        if process.unsynced && (process.log_jobs.is_empty() || random.one_in(3)) {
            let number = process.log.sync().unwrap();
            process.unsynced = false;
            process.core.persisted(number);
        }
    }

    /// What the state machine's thread would do next.
    pub fn work_on_state(&mut self, random: &mut Random, oracle: &mut Oracle, weather: &Weather) {
        let Some(process) = &mut self.process else { return };
        for _ in 0..=random.below(8) {
            match process.state_jobs.pop_front() {
                Some(StateJob::Apply(committed)) => {
                    process.app.apply(&committed);
                    oracle.apply(self.id, &committed);
                    if let Committed::Entry { data, .. } = &committed
                        && process.waiting.remove(&number_of(data))
                    {
                        oracle.acknowledge(number_of(data));
                    }
                    process.core.applied(committed.index());
                }
                Some(StateJob::Install(meta)) => {
                    let (fetched, content) = process.fetched.take().expect("it was fetched");
                    assert_eq!(fetched, meta);
                    assert_eq!(content.applied, meta.position);
                    process.app = (*content).clone();
                    self.durable = process.app.clone();
                    self.installs += 1;
                    process.core.installed(&meta);
                }
                None => break,
            }
        }
        if random.one_in(weather.persist) {
            self.durable = process.app.clone();
            let compaction = process.core.compact(self.durable.applied.index);
            process.log_jobs.extend(compaction.map(LogJob::Compact));
        }
    }

    /// What fetches a snapshot would do next.
    pub fn work_on_fetching(
        &mut self,
        random: &mut Random,
        network: &Network,
        snapshots: &Snapshots,
    ) {
        let Some(process) = &mut self.process else { return };
        let Some((from, meta, left)) = &mut process.fetching else { return };
        if *left > 0 {
            *left -= 1;
            return;
        }
        let (from, meta) = (*from, meta.clone());
        process.fetching = None;
        if !network.connected(from, self.id) || random.one_in(5) {
            process.core.snapshot_failed(&meta);
            return;
        }
        let content = Rc::clone(&snapshots[&meta.data]);
        process.core.snapshot_fetched(&meta);
        process.fetched = Some((meta, content));
    }

    /// The last entry that its state contains.
    pub fn applied(&self) -> Option<u64> {
        self.process.as_ref().map(|process| process.app.applied.index)
    }

    pub fn describe(&self) -> String {
        match &self.process {
            Some(process) => format!("{:?}", process.core.status()),
            None => format!("{} is down", self.id),
        }
    }
}
