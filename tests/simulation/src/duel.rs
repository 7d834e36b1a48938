//! A duel: two candidates of one term need the vote of the same node. It loses power when it has
//! given its vote to one, and hears the other after its restart: it must remember.
//!
//! That hardly ever comes about by chance, so a duel arranges it. All three voters lose power; the
//! candidates do not hear each other, the voter does not stand itself, and it is asked by both at
//! once whether they would get its vote. Whatever else goes on, goes on.

use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};

use crate::queue::{MS, Micros, SECOND};
use crate::settings::pick;
use crate::world::{Event, World};

/// It is over after so long, however it went.
const LENGTH: Micros = 4 * SECOND;

/// A duel that goes on.
pub struct Duel {
    voter: u64,
    until: Micros,
    /// What the candidates have asked first, while only one of them has.
    asked: Vec<(u64, Vec<u8>)>,
    both_asked: bool,
    /// Who has asked for the vote first, and in which term.
    first: Option<(u64, u64)>,
    /// The vote was given.
    voted: bool,
    /// The other one's request, which waits for the voter's restart.
    second: Option<(u64, Vec<u8>)>,
}

impl World {
    /// Lets a duel begin, if three nodes vote and all are there.
    pub fn begin_duel(&mut self) {
        let voters = self.oracle.configuration.voters.clone();
        if voters.len() != 3 || voters.iter().any(|node| self.life(*node).is_none()) {
            return;
        }
        let voter = pick(&mut self.random, &voters);
        self.say(|| format!("the vote of node {voter} decides"));
        self.duel = Some(Duel {
            voter,
            until: self.now() + LENGTH,
            asked: Vec::new(),
            both_asked: false,
            first: None,
            voted: false,
            second: None,
        });
        voters.into_iter().for_each(|node| self.blink(node));
    }

    /// A node loses power and is back at once.
    fn blink(&mut self, node: u64) {
        self.power_cut(node);
        let pause = 1 + self.random.below(5 * MS);
        self.queue.after(pause, Event::Start(node));
    }

    /// Looks at a message on its way; false if the duel keeps it.
    pub fn passes_duel(&mut self, from: u64, to: u64, bytes: &[u8]) -> bool {
        let now = self.now();
        let Some(duel) = self.duel.as_mut().filter(|duel| now < duel.until) else {
            self.duel = None;
            return true;
        };
        let voter = duel.voter;
        if from != voter && to != voter {
            return false;
        }
        let Ok(message) = Message::parse_from_bytes(bytes) else { return true };
        match message.msg_type {
            MessageType::MsgRequestPreVote | MessageType::MsgRequestVote if from == voter => false,
            MessageType::MsgRequestPreVote if !duel.both_asked => {
                duel.asked.retain(|(asker, _)| *asker != from);
                duel.asked.push((from, bytes.to_vec()));
                if duel.asked.len() > 1 {
                    duel.both_asked = true;
                    for (asker, bytes) in std::mem::take(&mut duel.asked) {
                        self.queue.after(50, Event::Peer(asker, voter, bytes));
                    }
                }
                false
            }
            MessageType::MsgRequestVote => match duel.first {
                Some((first, term)) if first != from && term == message.term => {
                    if duel.voted {
                        self.asks_second(from, bytes.to_vec());
                    } else {
                        duel.second = Some((from, bytes.to_vec()));
                    }
                    false
                }
                _ => {
                    (duel.first, duel.voted, duel.second) =
                        (Some((from, message.term)), false, None);
                    true
                }
            },
            MessageType::MsgRequestVoteResponse
                if duel.first == Some((to, message.term)) && !message.reject && !duel.voted =>
            {
                duel.voted = true;
                let second = duel.second.take();
                self.queue.after(50, Event::Peer(from, to, bytes.to_vec()));
                self.blink(voter);
                if let Some((second, bytes)) = second {
                    self.asks_second(second, bytes);
                }
                false
            }
            // The voter is not to hear of whom it has elected.
            _ => !(duel.voted && duel.first.is_some_and(|(first, _)| first == from)),
        }
    }

    /// The other candidate's request arrives, after the voter's restart.
    fn asks_second(&mut self, from: u64, bytes: Vec<u8>) {
        let Some(duel) = &self.duel else { return };
        let (voter, pause) = (duel.voter, 10 * MS + self.random.below(50 * MS));
        self.queue.after(pause, Event::Peer(from, voter, bytes));
    }
}
