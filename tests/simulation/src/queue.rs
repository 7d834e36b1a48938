//! What is going to happen, in the order of virtual time.

use std::collections::BTreeMap;

use tenon_journal::disk::sim::Random;

/// Virtual time, in microseconds since the schedule began.
pub type Micros = u64;

/// A millisecond of virtual time.
pub const MS: Micros = 1000;
/// A second of virtual time.
pub const SECOND: Micros = 1_000_000;

/// Events by time; those of one time in an order that the seed decides.
pub struct Queue<E> {
    now: Micros,
    events: BTreeMap<(Micros, u64, u64), E>,
    count: u64,
    random: Random,
}

impl<E> Queue<E> {
    /// Nothing is going to happen.
    pub fn new(seed: u64) -> Queue<E> {
        Queue { now: 0, events: BTreeMap::new(), count: 0, random: Random::new(seed) }
    }

    /// The time of the event that was taken last.
    pub fn now(&self) -> Micros {
        self.now
    }

    /// Lets an event happen after a delay.
    pub fn after(&mut self, delay: Micros, event: E) {
        self.at(self.now + delay, event);
    }

    /// Lets an event happen at a time, or now if that has passed.
    pub fn at(&mut self, time: Micros, event: E) {
        self.count += 1;
        let key = (time.max(self.now), self.random.draw(), self.count);
        self.events.insert(key, event);
    }

    /// The next event; time moves to it.
    pub fn next(&mut self) -> Option<E> {
        let ((time, _, _), event) = self.events.pop_first()?;
        self.now = time;
        Some(event)
    }
}
