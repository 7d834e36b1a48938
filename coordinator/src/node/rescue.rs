//! Taking everything that a log holds as agreed on: for the one survivor of a cluster.

use std::path::Path;
use std::sync::Arc;

use tenon_consensus::{LogWriter, Position};
use tenon_journal::disk::Disk;

use super::identity::Identity;
use super::log_options;
use crate::error::{Error, Result};
use crate::replica::{Effects, Replica};

/// Applies all entries of the log that are not applied yet, and lets the log begin anew behind them.
pub(super) fn apply_everything(
    disk: &Arc<dyn Disk>,
    log_dir: &Path,
    identity: &Identity,
    replica: &mut Replica,
) -> Result<()> {
    let (mut log, view, _) = LogWriter::open(log_dir, log_options(disk.clone()))?;
    let applied = Position { index: replica.meta().applied, term: replica.meta().term };
    log.repair(applied)?;
    let mut effects = Effects::default();
    for (position, data) in view.proposed_after(applied.index)? {
        tracing::debug!(node = identity.node, index = position.index, "taken as agreed on");
        replica.apply(position.index, position.term, &data, &mut effects)?;
    }
    replica.persist()?;
    drop(log);
    // The new cluster's log begins behind this state.
    disk.remove_dir_all(log_dir).map_err(Error::io("remove", log_dir))
}
