//! Groups of three and five nodes, in fine weather and in storms.

mod support;

use std::cell::Cell;

use support::{Cluster, Dropped, Weather, with_seeds};

#[test]
fn three_nodes_elect_a_leader_and_agree() {
    with_seeds(20, |seed| {
        let mut cluster = Cluster::new(seed, 3);
        let leader = cluster.elect();
        for _ in 0..20 {
            assert!(cluster.propose(leader).is_some());
        }
        cluster.commit_everywhere();
        cluster.settle_and_check();
        assert!(cluster.oracle.acknowledged() >= 21);
    });
}

#[test]
fn a_storm_loses_nothing_that_was_acknowledged() {
    for nodes in [3, 5] {
        let (writes, reads) = (Cell::new(0), Cell::new(0));
        with_seeds(20, |seed| {
            let mut cluster = Cluster::new(seed, nodes);
            cluster.weather = Weather::STORM;
            for _ in 0..3000 {
                cluster.step();
                let at = 1 + cluster.random.below(nodes);
                if cluster.random.one_in(8) {
                    cluster.propose(at);
                }
                if cluster.random.one_in(20) {
                    cluster.read(at);
                }
            }
            cluster.settle_and_check();
            writes.set(writes.get() + cluster.oracle.acknowledged());
            reads.set(reads.get() + cluster.oracle.reads_done);
        });
        println!("{nodes} nodes: {writes:?} writes, {reads:?} reads");
        assert!(writes.get() > 100 && reads.get() > 50, "hardly anything happened");
    }
}

#[test]
fn one_node_alone_leads_at_once() {
    let mut cluster = Cluster::new(1, 1);
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!(
        cluster.core(1).propose(vec![1; 100_000]).unwrap_err().code(),
        "consensus/too-large"
    );
    cluster.commit_everywhere();
    cluster.crash(1);
    cluster.start(1);
    assert_eq!(cluster.leader(), Some(1));
    cluster.settle_and_check();
}

#[test]
fn without_a_quorum_nothing_is_acknowledged_and_the_leader_gives_up() {
    let mut cluster = Cluster::new(3, 3);
    let leader = cluster.elect();
    let before = cluster.oracle.last_applied();
    let everybody: Vec<_> = cluster.machines.keys().copied().collect();
    for id in &everybody {
        cluster.network.isolate(*id, &everybody);
    }
    cluster.propose(leader).unwrap();
    cluster.read(leader).unwrap();
    cluster.run_until("the leader gives up", |cluster| cluster.leader().is_none());
    assert_eq!(cluster.core(leader).propose(vec![1]), Err(Dropped::NoLeader));
    assert_eq!(cluster.oracle.last_applied(), before);
    assert_eq!(cluster.oracle.reads_done, 0);
    cluster.settle_and_check();
}

#[test]
fn the_same_seed_gives_the_same_story() {
    let story = |seed| {
        let mut cluster = Cluster::new(seed, 5);
        cluster.weather = Weather::STORM;
        for _ in 0..2000 {
            cluster.step();
            let at = 1 + cluster.random.below(5);
            if cluster.random.one_in(5) {
                cluster.propose(at);
            }
        }
        let ends: Vec<_> = cluster.machines.values().map(|machine| machine.describe()).collect();
        (ends, cluster.network.sent())
    };
    with_seeds(5, |seed| assert_eq!(story(seed), story(seed)));
}
