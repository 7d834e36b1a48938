//! What the state acknowledges.

use std::sync::Arc;

use tenon_engine::Time;
use tenon_store::MemoryStore;
use tenon_trust::{AuthorityRecord, Change};

use super::{Effects, Replica};
use crate::command::Command;
use crate::entry::{RequestId, encode_proposal, join};
use crate::recorder::{Recorder, RunDirectories};

fn replica() -> Replica {
    replica_on(Arc::new(MemoryStore::new()))
}

fn replica_on(store: Arc<MemoryStore>) -> Replica {
    let runs = tenon_reporter::history::Store::new(std::path::Path::new("unused"));
    let recorder = Recorder::Directories(RunDirectories::new(runs, false));
    Replica::open(store, |_| Ok(recorder)).unwrap()
}

/// Applies a command and says what is acknowledged.
fn apply(replica: &mut Replica, command: &Command) -> Vec<(String, String, u64)> {
    let index = replica.meta().applied + 1;
    let id = RequestId { node: 1, number: index };
    let mut effects = Effects::default();
    let entry = join([encode_proposal(id, command).as_slice()]);
    replica.apply(index, 1, &entry, &mut effects).unwrap();
    effects.reports
}

fn life(incarnation: &str) -> Command {
    Command::Agent {
        time: Time(1),
        agent: "a".to_owned(),
        incarnation: incarnation.to_owned(),
        running: Vec::new(),
        offer: Box::default(),
        lease_ms: 30_000,
        term: 1,
    }
}

fn skip(incarnation: &str, number: u64) -> Command {
    let (agent, incarnation) = ("a".to_owned(), incarnation.to_owned());
    Command::Skip { time: Time(1), agent, incarnation, number }
}

#[test]
fn only_what_is_applied_is_acknowledged() {
    let mut replica = replica();
    let said = |incarnation: &str, last| vec![("a".to_owned(), incarnation.to_owned(), last)];
    apply(&mut replica, &life("x"));
    assert_eq!(apply(&mut replica, &skip("x", 1)), said("x", 1));
    // One that has overtaken another comes again after it.
    assert_eq!(apply(&mut replica, &skip("x", 3)), said("x", 1));
    assert_eq!(apply(&mut replica, &skip("x", 2)), said("x", 2));
    // What a former life has said is nobody's any more.
    apply(&mut replica, &life("y"));
    assert_eq!(apply(&mut replica, &skip("y", 1)), said("y", 1));
    assert_eq!(apply(&mut replica, &skip("x", 3)), []);
}

#[test]
fn whom_the_cluster_trusts_outlives_a_restart() {
    let store = Arc::new(MemoryStore::new());
    let mut replica = replica_on(store.clone());
    let readers = replica.trust().watch();
    let authority = AuthorityRecord { certificate: "c".to_owned(), sealed_key: "k".to_owned() };
    let change = Change::Found(authority.clone());
    apply(&mut replica, &Command::Trust { time: Time(1), change });
    assert_eq!(readers.borrow().authority, Some(authority.clone()));
    replica.persist().unwrap();
    // Nothing of trust has changed since: it stays as it is stored.
    apply(&mut replica, &life("x"));
    replica.persist().unwrap();
    drop(replica);
    assert_eq!(replica_on(store).trust().newest().authority, Some(authority));
}

#[test]
fn an_agent_is_lost_once_and_only_by_the_leader_that_has_missed_it() {
    let mut replica = replica();
    let lost = |incarnation: &str, term| Command::Lost {
        time: Time(1),
        agent: "a".to_owned(),
        incarnation: incarnation.to_owned(),
        silent_ms: 40_000,
        term,
    };
    let is_up = |replica: &Replica| replica.is_up("a");
    assert!(!is_up(&replica));
    apply(&mut replica, &life("x"));
    apply(&mut replica, &skip("x", 1));
    // Held up on its way from an earlier leader, or about an earlier life.
    apply(&mut replica, &lost("x", 0));
    apply(&mut replica, &lost("w", 1));
    assert!(is_up(&replica));
    let before = replica.meta().next_seq;
    apply(&mut replica, &lost("x", 1));
    apply(&mut replica, &lost("x", 1));
    assert!(!is_up(&replica));
    assert_eq!(replica.meta().next_seq, before + 1, "one event says so");
    // The same life is back, and its numbers go on.
    apply(&mut replica, &life("x"));
    assert!(is_up(&replica));
    assert_eq!(apply(&mut replica, &skip("x", 2)), [("a".to_owned(), "x".to_owned(), 2)]);
    assert_eq!(replica.meta().next_seq, before + 2);
}
