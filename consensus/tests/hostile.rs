//! Whatever bytes arrive: they are taken or refused, and nothing panics, neither at once nor later.

mod support;

use std::cell::Cell;

use protobuf::{Clear as _, Message as _};
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use support::{Cluster, Refused, with_seeds};
use tenon_journal::disk::sim::Random;

const KINDS: [MessageType; 19] = [
    MessageType::MsgHup,
    MessageType::MsgBeat,
    MessageType::MsgPropose,
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgUnreachable,
    MessageType::MsgSnapStatus,
    MessageType::MsgCheckQuorum,
    MessageType::MsgTransferLeader,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

/// A number that is interesting: small, near `about`, or huge.
fn number(random: &mut Random, about: u64) -> u64 {
    match random.below(10) {
        0 => 0,
        1 => 1,
        2 => u64::MAX - random.below(3),
        3 => (1 << 62) - 1 + random.below(3),
        4 => random.draw(),
        _ => (about + random.below(5)).saturating_sub(2),
    }
}

fn message(random: &mut Random, from: u64, to: u64, term: u64, last: u64) -> Message {
    let mut message = Message {
        msg_type: KINDS[random.below(19) as usize],
        from,
        to,
        term: if random.one_in(3) { number(random, term) } else { term },
        log_term: number(random, term),
        index: number(random, last),
        commit: number(random, last),
        reject: random.one_in(3),
        ..Message::default()
    };
    if message.msg_type == MessageType::MsgPropose || message.msg_type == MessageType::MsgReadIndex
    {
        message.term = 0;
    }
    if random.one_in(3) {
        message.commit_term = number(random, term);
        message.reject_hint = number(random, last);
    }
    if random.one_in(20) {
        message.request_snapshot = number(random, last);
    }
    if random.one_in(20) {
        message.priority = number(random, 0) as i64;
    }
    if random.one_in(4) {
        message.context = match random.below(2) {
            0 => raft::CAMPAIGN_TRANSFER.into(),
            _ => vec![1; 20].into(),
        };
    }
    let entries = match random.below(3) {
        0 => 0,
        _ => random.below(4),
    };
    for at in 0..entries {
        let regular = !random.one_in(8);
        message.entries.push(Entry {
            entry_type: match random.below(12) {
                0 => EntryType::EntryConfChange,
                1 => EntryType::EntryConfChangeV2,
                _ => EntryType::EntryNormal,
            },
            index: if regular { message.index.wrapping_add(1 + at) } else { number(random, last) },
            term: if regular { term } else { number(random, term) },
            data: vec![random.below(256) as u8; random.below(30) as usize].into(),
            ..Entry::default()
        });
    }
    if message.msg_type == MessageType::MsgSnapshot || random.one_in(30) {
        let metadata = message.mut_snapshot().mut_metadata();
        metadata.index = number(random, last);
        metadata.term = number(random, term);
        let members = metadata.mut_conf_state();
        members.voters = (1..=random.below(5)).collect();
        members.learners = (0..random.below(3)).map(|_| random.below(8)).collect();
        members.voters_outgoing = (0..random.below(3)).map(|_| random.below(8)).collect();
        members.auto_leave = random.one_in(4);
    }
    if random.below(5) > 0 {
        plausible(random, &mut message, term, last);
    }
    message
}

/// Makes it look right, whatever it then says.
fn plausible(random: &mut Random, message: &mut Message, term: u64, last: u64) {
    use MessageType::{MsgAppend, MsgPropose, MsgReadIndex, MsgReadIndexResp, MsgSnapshot};
    let kind = message.msg_type;
    let near = |random: &mut Random, about: u64| (about + random.below(6)).saturating_sub(3);
    message.index = near(random, last);
    message.log_term = if message.index == 0 { 0 } else { near(random, term).max(1) };
    message.term = message.term.clamp(term, term + 2);
    message.log_term = message.log_term.min(message.term);
    message.commit = near(random, last);
    message.commit_term = near(random, term);
    message.reject_hint = near(random, last);
    message.request_snapshot = 0;
    message.priority = 0;
    if !matches!(kind, MsgAppend | MsgPropose | MsgReadIndex | MsgReadIndexResp) {
        message.entries.clear();
    }
    if matches!(kind, MsgReadIndex | MsgReadIndexResp | MsgPropose) {
        message.entries = vec![Entry { data: vec![5; 12].into(), ..Entry::default() }].into();
    }
    if matches!(kind, MsgPropose | MsgReadIndex) {
        message.term = 0;
    }
    let (begin, first_term) = (message.index, message.log_term.max(1));
    let last_term = message.term.max(first_term);
    for (at, entry) in message.entries.iter_mut().enumerate() {
        entry.index = begin + 1 + at as u64;
        entry.term = if random.one_in(2) { first_term } else { last_term };
    }
    let mut terms: Vec<u64> = message.entries.iter().map(|entry| entry.term).collect();
    terms.sort_unstable();
    message.entries.iter_mut().zip(terms).for_each(|(entry, term)| entry.term = term);
    if kind == MsgSnapshot {
        let to = message.to;
        let bound = message.term.max(1);
        let metadata = message.mut_snapshot().mut_metadata();
        metadata.index = near(random, last + 2).max(1);
        metadata.term = near(random, term).clamp(1, bound);
        let members = metadata.mut_conf_state();
        members.clear();
        members.voters = (1..=3.max(to)).collect();
        if random.one_in(3) {
            members.voters_outgoing = vec![1, 5];
            members.learners_next = vec![5];
            members.auto_leave = random.one_in(2);
        }
    } else {
        message.clear_snapshot();
    }
}

#[test]
fn no_message_of_a_member_makes_a_node_panic() {
    let all_taken = Cell::new(0);
    with_seeds(60, |seed| {
        let mut cluster = Cluster::new(seed, 3);
        if seed % 4 > 0 {
            cluster.elect();
        }
        if seed % 3 == 0 {
            cluster.commit_everywhere();
        }
        if seed % 5 == 0 {
            cluster.add_machine(4);
        }
        let mut random = Random::new(seed);
        let mut taken = 0;
        // The others do not hear of it: this is about one node, on its own from here on.
        let victim = 1 + random.below(cluster.machines.len() as u64);
        let machine = cluster.machines.get_mut(&victim).expect("it is there");
        for _ in 0..3000 {
            let process = machine.process.as_mut().expect("it runs");
            let status = process.core.status();
            let from = match random.below(12) {
                0 => random.below(9),
                _ => 1 + (victim + random.below(2)) % 3,
            };
            let mut forged = message(&mut random, from, victim, status.term.max(1), status.last);
            if status.term > 1 << 61 {
                // Its terms are used up: no cluster lives to see that.
                break;
            }
            // A term is believed, so one of these is enough for ever.
            forged.term = forged.term.min(status.term + 3);
            let bytes = forged.write_to_bytes().expect("in memory");
            taken += u64::from(process.core.step(from, &bytes).is_ok());
            if random.one_in(3) {
                process.core.tick();
            }
            if random.one_in(10) {
                let _ = process.core.propose(vec![3; 10]);
                let _ = process.core.read_index(&random.draw().to_le_bytes());
            }
            process.pump(&mut random);
        }
        all_taken.set(all_taken.get() + taken);
    });
    assert!(all_taken.get() > 10_000, "hardly any was taken: {all_taken:?}");
}

#[test]
fn no_bytes_make_a_node_panic() {
    with_seeds(20, |seed| {
        let mut cluster = Cluster::new(seed, 3);
        let leader = cluster.elect();
        let mut random = Random::new(seed);
        let machine = cluster.machines.get_mut(&leader).expect("it is there");
        let process = machine.process.as_mut().expect("it runs");
        for _ in 0..3000 {
            let status = process.core.status();
            let from = 1 + leader % 3;
            let mut bytes = message(&mut random, from, leader, status.term, status.last)
                .write_to_bytes()
                .expect("in memory");
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len() as u64 + 1) as usize;
                match random.below(4) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, random.draw() as u8),
                    2 => bytes.extend_from_slice(&random.draw().to_le_bytes()),
                    _ => {
                        if let Some(byte) = bytes.get_mut(at) {
                            *byte ^= 1 << random.below(8);
                        }
                    }
                }
            }
            let parsed = Message::parse_from_bytes(&bytes).map_or(0, |message| message.term);
            if parsed > status.term + 1000 {
                continue;
            }
            let _ = process.core.step(from, &bytes);
            process.pump(&mut random);
        }
    });
}

#[test]
fn strangers_and_forgers_are_refused() {
    let mut cluster = Cluster::new(2, 3);
    let leader = cluster.elect();
    let heartbeat = |from, to| {
        let message = Message {
            msg_type: MessageType::MsgHeartbeat,
            from,
            to,
            term: 90,
            ..Message::default()
        };
        message.write_to_bytes().expect("in memory")
    };
    let other = 1 + leader % 3;
    let core = cluster.core(leader);
    let term = core.status().term;
    assert_eq!(core.step(77, &heartbeat(77, leader)), Err(Refused::Stranger { sender: 77 }));
    let forged = Refused::Forged { sender: other, claimed: 77 };
    assert_eq!(core.step(other, &heartbeat(77, leader)), Err(forged));
    assert_eq!(core.step(other, &heartbeat(other, 9)), Err(Refused::Misdirected { to: 9 }));
    let too_large = vec![0; 10 << 20];
    assert_eq!(
        core.step(other, &too_large).map_err(|e| e.code()),
        Err("consensus/message-too-large")
    );
    let nested = [0x9b, 0x06].repeat(10_000);
    assert_eq!(core.step(other, &nested).map_err(|e| e.code()), Err("consensus/message-malformed"));
    assert_eq!(core.status().term, term);
    core.vouch_for(77);
    assert_eq!(core.step(77, &heartbeat(77, leader)), Ok(()));
    assert_eq!(core.status().term, 90);
}

#[test]
fn a_node_that_lost_its_log_is_told_so() {
    let mut cluster = Cluster::new(2, 3);
    let leader = cluster.elect();
    cluster.commit_everywhere();
    let follower = 1 + leader % 3;
    let status = cluster.core(follower).status();
    let heartbeat = Message {
        msg_type: MessageType::MsgHeartbeat,
        from: leader,
        to: follower,
        term: status.term,
        commit: status.last + 5,
        ..Message::default()
    };
    let bytes = heartbeat.write_to_bytes().expect("in memory");
    let refused = cluster.core(follower).step(leader, &bytes);
    let expected = Refused::Forgotten { acknowledged: status.last + 5, last: status.last };
    assert_eq!(refused, Err(expected));
}
