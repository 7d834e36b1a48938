//! A network that does what networks do.

use std::collections::{BTreeMap, BTreeSet};

use tenon_consensus::NodeId;
use tenon_journal::disk::sim::Random;

use super::Weather;

type Message = (NodeId, NodeId, Vec<u8>);

#[derive(Default)]
pub struct Network {
    /// By arrival and number.
    on_the_way: BTreeMap<(u64, u64), Message>,
    sent: u64,
    digest: u64,
    /// From whom to whom nothing gets through.
    cut: BTreeSet<(NodeId, NodeId)>,
}

impl Network {
    pub fn send(
        &mut self,
        random: &mut Random,
        weather: &Weather,
        now: u64,
        from: NodeId,
        to: NodeId,
        bytes: &[u8],
    ) {
        if self.cut.contains(&(from, to)) || random.below(1000) < weather.lost {
            return;
        }
        let copies = if random.below(1000) < weather.doubled { 2 } else { 1 };
        for _ in 0..copies {
            self.sent += 1;
            for byte in bytes {
                self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
            let late = if random.one_in(50) { weather.delay * 10 } else { weather.delay };
            let at = now + 1 + random.below(late);
            self.on_the_way.insert((at, self.sent), (from, to, bytes.to_owned()));
        }
    }

    /// A digest of all that was sent.
    pub fn sent(&self) -> (u64, u64) {
        (self.sent, self.digest)
    }

    /// What arrives now.
    pub fn arrived(&mut self, now: u64) -> Vec<Message> {
        let later = self.on_the_way.split_off(&(now + 1, 0));
        let arrived = std::mem::replace(&mut self.on_the_way, later);
        arrived.into_values().filter(|(from, to, _)| self.connected(*from, *to)).collect()
    }

    pub fn connected(&self, from: NodeId, to: NodeId) -> bool {
        !self.cut.contains(&(from, to))
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Nothing gets from one to the other; the way back is free.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    pub fn isolate(&mut self, id: NodeId, all: &[NodeId]) {
        self.split(&[id], all);
    }

    /// Nothing gets from one side to the other.
    pub fn split(&mut self, side: &[NodeId], all: &[NodeId]) {
        for one in all {
            for other in all {
                if side.contains(one) != side.contains(other) {
                    self.cut.insert((*one, *other));
                }
            }
        }
    }
}
