//! Concurrency groups: which runs of a group run, and which wait for that, in which order. Derived from
//! the runs; nothing of it is stored.

use std::collections::{BTreeMap, BTreeSet};

use crate::RunId;

/// A namespace, and the group's name in it.
pub(crate) type GroupId = (String, String);

/// Where a run stands in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It waits. The smallest number is first.
    Waits(i64),
    /// It runs.
    Runs,
}

/// One group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// They run.
    pub(crate) running: BTreeSet<RunId>,
    /// They wait, in this order.
    pub(crate) waiting: BTreeSet<(i64, RunId)>,
}

/// All groups that have a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Groups {
    groups: BTreeMap<GroupId, Group>,
    standings: BTreeMap<RunId, (GroupId, Standing)>,
}

impl Groups {
    /// Takes note of where a run stands. Says in which group there may be room now.
    pub(crate) fn set(
        &mut self,
        run: RunId,
        standing: Option<(GroupId, Standing)>,
    ) -> Option<GroupId> {
        if self.standings.get(&run) == standing.as_ref() {
            return None;
        }
        let before = self.standings.remove(&run);
        if let Some((id, before)) = &before
            && let Some(group) = self.groups.get_mut(id)
        {
            match before {
                Standing::Waits(turn) => group.waiting.remove(&(*turn, run)),
                Standing::Runs => group.running.remove(&run),
            };
            if *group == Group::default() {
                self.groups.remove(id);
            }
        }
        if let Some((id, standing)) = standing {
            let group = self.groups.entry(id.clone()).or_default();
            match standing {
                Standing::Waits(turn) => group.waiting.insert((turn, run)),
                Standing::Runs => group.running.insert(run),
            };
            self.standings.insert(run, (id, standing));
        }
        before.map(|(id, _)| id)
    }

    /// The group; `None` if no run of it runs or waits.
    pub(crate) fn get(&self, id: &GroupId) -> Option<&Group> {
        self.groups.get(id)
    }

    /// How many runs wait, in all groups.
    pub(crate) fn waiting(&self) -> usize {
        self.groups.values().map(|group| group.waiting.len()).sum()
    }

    /// The group of a run that waits, and how many wait before it.
    pub(crate) fn wait_of(&self, run: RunId) -> Option<(&GroupId, &Group, usize)> {
        let (id, Standing::Waits(turn)) = self.standings.get(&run)? else { return None };
        let group = self.groups.get(id)?;
        Some((id, group, group.waiting.range(..(*turn, run)).count()))
    }
}
