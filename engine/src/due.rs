//! Deadlines in the order in which they are due, one for each key.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Time;

/// Who is due when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Due<K: Ord> {
    of: BTreeMap<K, Time>,
    order: BTreeSet<(Time, K)>,
}

impl<K: Copy + Ord> Due<K> {
    pub(crate) fn new() -> Self {
        Due { of: BTreeMap::new(), order: BTreeSet::new() }
    }

    /// Sets, changes or drops a deadline.
    pub(crate) fn set(&mut self, key: K, deadline: Option<Time>) {
        let before = self.of.get(&key).copied();
        if before == deadline {
            return;
        }
        if let Some(before) = before {
            self.order.remove(&(before, key));
        }
        match deadline {
            Some(deadline) => {
                self.of.insert(key, deadline);
                self.order.insert((deadline, key));
            }
            None => {
                self.of.remove(&key);
            }
        }
    }

    pub(crate) fn of(&self, key: &K) -> Option<Time> {
        self.of.get(key).copied()
    }

    /// The next deadline of all.
    pub(crate) fn first(&self) -> Option<Time> {
        self.order.first().map(|(time, _)| *time)
    }

    /// Everybody whose deadline is `now` or earlier, in the order of the keys.
    pub(crate) fn until(&self, now: Time) -> BTreeSet<K> {
        self.order.iter().take_while(|(time, _)| *time <= now).map(|(_, key)| *key).collect()
    }
}
