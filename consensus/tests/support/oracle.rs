//! Who knows what must be true.

use std::collections::BTreeMap;

use tenon_consensus::{Committed, Leadership, NodeId, Position, Role};

use super::Machine;

#[derive(Default)]
pub struct Oracle {
    /// Who led in a term.
    leaders: BTreeMap<u64, NodeId>,
    /// What was applied at an index, by whoever did it first.
    applied: BTreeMap<u64, Committed>,
    /// The numbers of proposals whose proposer was told that they are there.
    acknowledged: Vec<u64>,
    /// Reads that were begun: the node, and what was applied anywhere at that time.
    reads: BTreeMap<(NodeId, u64), u64>,
    pub reads_done: u64,
}

impl Oracle {
    pub fn leadership(&mut self, id: NodeId, now: Leadership) {
        if now.role == Role::Leader {
            let first = *self.leaders.entry(now.term).or_insert(id);
            assert_eq!(first, id, "two leaders in term {}", now.term);
        }
    }

    /// A node applies an entry.
    pub fn apply(&mut self, id: NodeId, committed: &Committed) {
        let index = committed.index();
        let first = self.applied.entry(index).or_insert_with(|| committed.clone());
        assert_eq!(first, committed, "node {id} applies something else at {index}");
    }

    pub fn acknowledge(&mut self, number: u64) {
        self.acknowledged.push(number);
    }

    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    pub fn last_applied(&self) -> u64 {
        self.applied.keys().next_back().copied().unwrap_or(0)
    }

    pub fn read_begins(&mut self, id: NodeId, number: u64) {
        let floor = self.last_applied();
        self.reads.insert((id, number), floor);
    }

    pub fn read_ends(&mut self, id: NodeId, number: u64, index: u64) {
        // It may come twice.
        let Some(floor) = self.reads.remove(&(id, number)) else { return };
        assert!(index >= floor, "a read at {id} may miss entries {index} to {floor}");
        self.reads_done += 1;
    }

    pub fn forget_node(&mut self, id: NodeId) {
        self.reads.retain(|(node, _), _| *node != id);
    }

    /// Log matching: where two logs have an entry of the same term, they are equal up to there.
    pub fn check_logs(&self, machines: &BTreeMap<NodeId, Machine>) {
        let logs: Vec<(NodeId, BTreeMap<u64, u64>)> = machines
            .values()
            .filter_map(|machine| Some((machine.id, machine.process.as_ref()?)))
            .map(|(id, process)| {
                let view = &process.view;
                let terms = (view.first()..=view.last())
                    .filter_map(|index| view.position(index))
                    .map(|Position { index, term }| (index, term));
                (id, terms.collect())
            })
            .collect();
        for (one, log) in &logs {
            for (other, other_log) in &logs {
                let mut must_match = false;
                for (index, term) in log.iter().rev() {
                    let Some(other_term) = other_log.get(index) else { continue };
                    must_match |= term == other_term;
                    let matches = term == other_term || !must_match;
                    assert!(matches, "the logs of {one} and {other} differ at {index}");
                }
            }
        }
    }

    /// Every member has applied the same, and everything that was acknowledged.
    pub fn check_applied(&self, machines: &BTreeMap<NodeId, Machine>, members: &[NodeId]) {
        for id in members {
            let app = &machines[id].process.as_ref().expect("it runs").app;
            let expected: Vec<_> = self
                .applied
                .range(..=app.applied.index)
                .filter_map(|(index, committed)| match committed {
                    Committed::Entry { data, .. } => Some((*index, data.clone())),
                    _ => None,
                })
                .collect();
            let differs = app.entries.iter().zip(&expected).find(|(have, want)| have != want);
            assert_eq!(differs, None, "node {id} has applied something else");
            assert_eq!(app.entries.len(), expected.len(), "node {id} lacks entries");
            for number in &self.acknowledged {
                assert!(app.numbers().any(|n| n == *number), "{id} lacks acknowledged {number}");
            }
        }
    }
}
