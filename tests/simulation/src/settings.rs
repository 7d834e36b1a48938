//! How a schedule is: drawn from the seed, so that schedules differ from each other in kind.

use tenon_coordinator::coordinator::LeaseTimes;
use tenon_journal::disk::sim::Random;

use crate::queue::{MS, Micros, SECOND};

/// What whoever runs schedules may choose.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// So many nodes at the beginning; drawn from the seed otherwise.
    pub nodes: Option<u64>,
}

/// How a schedule is.
#[derive(Clone, Debug)]
pub struct Settings {
    pub nodes: u64,
    pub agents: usize,
    pub clients: usize,
    pub subscribers: usize,
    /// Runs that clients submit in all.
    pub runs: usize,
    /// How long things go wrong.
    pub chaos: Micros,
    /// Mean time between two things that go wrong.
    pub trouble_every: Micros,
    /// Weights of what goes wrong, as in [`Trouble::ALL`].
    pub weights: Vec<u64>,
    /// A message between nodes takes up to so long.
    pub delay: Micros,
    /// One in so many messages takes much longer; 0 for none.
    pub late_one_in: u64,
    /// One in so many messages between nodes is lost; 0 for none.
    pub lost_one_in: u64,
    /// One in so many messages between nodes comes twice; 0 for none.
    pub doubled_one_in: u64,
    /// Messages of one sender keep their order.
    pub in_order: bool,
    /// A thread's turn comes after up to so long.
    pub turn: Micros,
    /// Clocks are wrong by up to so much, in milliseconds.
    pub skew_ms: u64,
    /// How long agents are trusted.
    pub leases: LeaseTimes,
    /// Persist points: bytes and milliseconds.
    pub persist_bytes: u64,
    pub persist_ms: i64,
    pub log_segment: u64,
    pub log_memory: usize,
    pub history_segment: u64,
    pub chunk: usize,
    pub max_message: usize,
    pub max_unapplied: usize,
    pub snapshot_retry_ticks: usize,
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Power is cut.
    PowerCut,
    /// Power is cut in the middle of an operation of the disk.
    PowerCutWithin,
    /// The process is killed.
    Kill,
    /// The process is stopped in good order.
    Stop,
    /// Some links are cut, in one or both directions.
    Partition,
    /// All links work again.
    Mend,
    /// The wall clock jumps.
    ClockJump,
    /// The disk has no room.
    DiskFull,
    /// An operation of the disk fails.
    DiskError,
    /// The disk is slow.
    SlowDisk,
    /// The members change.
    Membership,
    /// The leader is told to hand over.
    Transfer,
    /// An agent loses its session.
    AgentBreaks,
    /// An agent is killed, its machine loses power, or its disk is lost.
    AgentCrash,
    /// An agent's machine is gone for good.
    AgentGone,
    /// An operator has one agent after the other emptied: what moves away soon comes back.
    AgentsInTurns,
    /// A node's threads are held up.
    Pause,
    /// Two nodes hear each other only through a third one, which loses power again and again.
    Flicker,
    /// Two candidates need the vote of a node that loses power when it has given it to one.
    Duel,
}

impl Trouble {
    /// All of it.
    pub const ALL: [Trouble; 19] = [
        Trouble::PowerCut,
        Trouble::PowerCutWithin,
        Trouble::Kill,
        Trouble::Stop,
        Trouble::Partition,
        Trouble::Mend,
        Trouble::ClockJump,
        Trouble::DiskFull,
        Trouble::DiskError,
        Trouble::SlowDisk,
        Trouble::Membership,
        Trouble::Transfer,
        Trouble::AgentBreaks,
        Trouble::AgentCrash,
        Trouble::AgentGone,
        Trouble::AgentsInTurns,
        Trouble::Pause,
        Trouble::Flicker,
        Trouble::Duel,
    ];
}

impl Settings {
    /// Those of a seed.
    pub fn draw(random: &mut Random, choice: &Choice) -> Settings {
        let nodes = choice.nodes.unwrap_or_else(|| pick(random, &[1, 3, 3, 3, 3, 3, 5]));
        // Most schedules have a few kinds of trouble, so that each kind also comes alone and often.
        let weights = Trouble::ALL
            .iter()
            .map(|trouble| match trouble {
                Trouble::Mend => 3,
                _ if random.one_in(2) => 0,
                _ => 1 + random.below(4),
            })
            .collect();
        let lease_ms = pick(random, &[800, 2000, 5000]);
        Settings {
            nodes,
            leases: LeaseTimes {
                lease_ms,
                margin_ms: lease_ms / 4,
                heartbeat_ms: lease_ms / pick(random, &[4, 8]),
            },
            agents: 1 + random.below(3) as usize,
            clients: 1 + random.below(3) as usize,
            subscribers: 1 + random.below(3) as usize,
            runs: 3 + random.below(8) as usize,
            chaos: 4 * SECOND + random.below(12 * SECOND),
            trouble_every: 100 * MS + random.below(1500 * MS),
            weights,
            delay: pick(random, &[MS, 3 * MS, 10 * MS, 40 * MS]),
            late_one_in: pick(random, &[0, 0, 200, 30]),
            lost_one_in: pick(random, &[0, 0, 100, 20, 5]),
            doubled_one_in: pick(random, &[0, 0, 50, 5]),
            in_order: random.one_in(2),
            turn: pick(random, &[50, 500, 3 * MS, 15 * MS]),
            skew_ms: pick(random, &[0, 5, 500, 5000]),
            persist_bytes: pick(random, &[2 << 10, 16 << 10, 64 << 10, 1 << 20]),
            persist_ms: pick(random, &[50, 500, 3000, 10_000]),
            log_segment: pick(random, &[8 << 10, 64 << 10, 1 << 20]),
            log_memory: pick(random, &[4 << 10, 64 << 10, 1 << 20]),
            history_segment: pick(random, &[8 << 10, 64 << 10, 1 << 20]),
            chunk: pick(random, &[512, 4 << 10, 64 << 10]),
            max_message: pick(random, &[4 << 10, 64 << 10, 1 << 20]),
            max_unapplied: pick(random, &[8 << 10, 1 << 20, 64 << 20]),
            snapshot_retry_ticks: pick(random, &[10, 30, 100]),
        }
    }

    /// What goes wrong next.
    pub fn trouble(&self, random: &mut Random) -> Trouble {
        let mut at = random.below(self.weights.iter().sum());
        for (trouble, weight) in Trouble::ALL.iter().zip(&self.weights) {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return *trouble,
            }
        }
        Trouble::Mend
    }
}

/// A clock that does not jump goes at such a speed, in thousandths: the margin of a lease covers it.
pub fn clock_rate(random: &mut Random) -> u64 {
    950 + random.below(101)
}

/// One of these.
pub fn pick<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[random.below(of.len() as u64) as usize]
}

/// True once in so many times; never for 0.
pub fn chance(random: &mut Random, one_in: u64) -> bool {
    one_in > 0 && random.one_in(one_in)
}
