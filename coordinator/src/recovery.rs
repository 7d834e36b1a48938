//! What a dead process left: its runs are brought to an end that says so.
//!
//! A local log whose lock is free belonged to a process that was killed. The log is opened as a
//! restarted member would open it, and what it commits is applied again: events that did not reach a
//! run's history are appended, so the history is what it would have been. Then every run that is not
//! over is abandoned, through the same engine. The agent removes what the dead process's agent left,
//! by label.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tenon_consensus::{Core, LogOptions, LogWriter, Position};
use tenon_engine::RunId;
use tenon_reporter::history::Store;
use tenon_store::MemoryStore;

use crate::command::Command;
use crate::coordinator::Committed;
use crate::entry::{self, RequestId};
use crate::error::{Error, Result};
use crate::local;
use crate::local_dir::{LocalDir, lock_all};
use crate::node::apply_thread::now;
use crate::node::raft_thread::to_apply;
use crate::recorder::{Recorder, RunDirectories};
use crate::replica::{Effects, Member, Replica};

/// Why a recovered run ended.
const MESSAGE: &str = "the tenon process that ran this was killed before the run was over; \
                       what it ran has been removed";
/// More ticks than the only member of a cluster needs to lead it.
const TICKS: usize = 100;

/// Ends the runs of dead processes, and says which those were.
pub(crate) fn recover(state_dir: &Path, store: &Store) -> Result<Vec<RunId>> {
    let _recovering = lock_all(state_dir)?;
    let local = state_dir.join("local");
    let mut recovered = Vec::new();
    for entry in fs::read_dir(&local).map_err(Error::io("read", &local))? {
        let path = entry.map_err(Error::io("read", &local))?.path();
        if !path.is_dir() {
            continue;
        }
        if let Some(dir) = LocalDir::open(state_dir, &path)? {
            recovered.extend(end_runs(&dir, store)?);
            dir.remove()?;
        }
    }
    Ok(recovered)
}

/// Applies the log again and ends what it left open.
fn end_runs(dir: &LocalDir, store: &Store) -> Result<Vec<RunId>> {
    let (mut log, view, recovered) = LogWriter::open(&dir.log(), LogOptions::default())?;
    if recovered.is_empty() {
        // It died before it could accept anything.
        return Ok(Vec::new());
    }
    let mut replica = Replica::open(Arc::new(MemoryStore::new()), |_| {
        Ok(Recorder::Directories(RunDirectories::new(store.clone(), true)))
    })?;
    let member = Member { name: local::NAME.to_owned(), url: String::new() };
    replica.bootstrap(local::NAME, local::NODE, member)?;
    log.repair(Position { index: replica.meta().applied, term: replica.meta().term })?;
    let mut raft = tenon_consensus::Options::new(local::NODE);
    raft.max_entry_bytes = local::ENTRY_BYTES;
    let configuration = replica.meta().configuration.clone();
    let mut core = Core::new(raft, view, replica.meta().applied, configuration.into())?;
    let mut effects = Effects::default();
    for _ in 0..TICKS {
        while let Some(ready) = core.ready()? {
            if let Some(write) = ready.write {
                log.write(&write)?;
                core.persisted(log.sync()?);
            }
            for committed in ready.committed {
                if let Committed::Entry { index, term, data } = to_apply(committed) {
                    replica.apply(index, term, &data, &mut effects)?;
                    core.applied(index);
                }
            }
        }
        if core.status().leads_fully {
            break;
        }
        core.tick();
    }
    let open: Vec<RunId> = replica.engine().runs().collect();
    let number = replica.meta().applied + 1;
    let id = RequestId { node: local::NODE, number };
    let ends: Vec<Vec<u8>> = open
        .into_iter()
        .map(|run| Command::Abandon { time: now(), run, message: MESSAGE.to_owned() })
        .map(|command| entry::encode_proposal(id, &command))
        .collect();
    let entry = entry::join(ends.iter().map(Vec::as_slice));
    replica.apply(number, replica.meta().term, &entry, &mut effects)?;
    replica.publish()?;
    match replica.recorder() {
        Recorder::Directories(runs) => Ok(runs.written().to_vec()),
        Recorder::Log(_) => Ok(Vec::new()),
    }
}
