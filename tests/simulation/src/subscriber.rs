//! Subscribers: they follow the events on one node, and go on where they were on another.

use tenon_coordinator::event_log::is_event;
use tenon_reporter::history;

use crate::oracle::Violation;
use crate::queue::MS;
use crate::settings::pick;
use crate::world::{Event, Life, Phase, World};

/// A subscriber.
#[derive(Default)]
pub struct Subscriber {
    /// Where it is connected, and the record it reads next.
    at: Option<(Life, u64)>,
    /// The last `seq` that it was shown.
    seq: u64,
    /// How many events it was shown.
    pub shown: u64,
}

impl Subscriber {
    /// The last `seq` that it was shown.
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

/// First and last `seq` of an event's record.
pub fn seqs(record: &[u8]) -> Result<(u64, u64), String> {
    let (header, chunk) = history::decode(record)?;
    let header: serde_json::Value =
        serde_json::from_slice(header).map_err(|error| error.to_string())?;
    let first = header["seq"].as_u64().ok_or("an event without seq")?;
    let lines = match chunk.is_empty() {
        true => 1,
        false => tenon_journal::output::unpack(chunk).map_err(|error| error.to_string())?.len(),
    };
    Ok((first, first + lines as u64 - 1))
}

impl World {
    /// A subscriber looks for more, or connects.
    pub fn subscriber_turn(&mut self, subscriber: usize) -> Result<(), Violation> {
        let pause = 5 * MS + self.random.below(300 * MS);
        self.queue.after(pause, Event::Subscribe(subscriber));
        let members = self.members();
        let lost = self.random.one_in(40);
        // A machine that is no member is told nothing.
        let useless = |node: u64| self.phase == Phase::Healed && !members.contains(&node);
        let breaks = self.phase == Phase::Chaos && lost
            || self.subscribers[subscriber].at.is_some_and(|((node, _), _)| useless(node));
        let seq = self.subscribers[subscriber].seq;
        let bytes = pick(&mut self.random, &[1, 1000, 100_000]);
        let connected = self.subscribers[subscriber].at;
        let (life, from) = match connected.filter(|(life, _)| !breaks && self.is_alive(*life)) {
            Some(connected) => connected,
            None => {
                let mut nodes = self.nodes();
                nodes.retain(|node| !useless(*node));
                self.subscribers[subscriber].at = None;
                if nodes.is_empty() {
                    return Ok(());
                }
                let node = pick(&mut self.random, &nodes);
                let Some(life) = self.life(node) else { return Ok(()) };
                let machine = &self.machines[&node];
                let Some(running) = &machine.running else { return Ok(()) };
                match running.events.after(seq) {
                    Ok(from) => (life, from),
                    Err(_) if machine.disk_trouble => return Ok(()),
                    Err(error) => {
                        return Err(Violation::new("readable history", error.to_string()));
                    }
                }
            }
        };
        let machine = &self.machines[&life.0];
        let Some(running) = &machine.running else { return Ok(()) };
        let visible = running.events.visible();
        let records = match running.events.read(from, bytes) {
            Ok(records) => records,
            Err(_) if machine.disk_trouble => {
                self.subscribers[subscriber].at = None;
                return Ok(());
            }
            Err(error) => return Err(Violation::new("readable history", error.to_string())),
        };
        let state = &mut self.subscribers[subscriber];
        let mut next = from;
        for (index, record) in records {
            if index != next {
                let what = format!("a subscriber is shown record {index} in place of {next}");
                return Err(Violation::new("one history", what));
            }
            if index > visible {
                return Err(Violation::new("one history", "more is shown than is visible"));
            }
            next = index + 1;
            self.oracle.shown(life.0, index, &record)?;
            if !is_event(&record) {
                continue;
            }
            let (first, last) =
                seqs(&record).map_err(|what| Violation::new("readable history", what))?;
            if last <= state.seq {
                continue;
            }
            // Whoever goes on within a chunk of lines is shown the rest of it.
            if first > state.seq + 1 {
                let what = format!("seq {first} is shown after {}", state.seq);
                return Err(Violation::new("no gap for subscribers", what));
            }
            state.seq = last;
            state.shown += 1;
        }
        state.at = Some((life, next));
        Ok(())
    }
}
