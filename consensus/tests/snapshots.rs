//! Snapshots on their way, whatever happens meanwhile.

mod support;

use support::{Cluster, PeerState, Repair, Weather, with_seeds};

fn lag(cluster: &mut Cluster) -> (u64, u64) {
    let leader = cluster.elect();
    let behind = (1..=3).find(|id| *id != leader).expect("two others");
    cluster.network.isolate(behind, &[1, 2, 3]);
    for _ in 0..60 {
        cluster.propose(leader);
        cluster.run(4);
    }
    let last = cluster.core(behind).status().last;
    cluster.run_until("the log is compacted beyond the one behind", |cluster| {
        cluster.propose(leader);
        (1..=3).filter(|id| *id != behind).all(|id| cluster.core(id).status().first > last + 1)
    });
    (leader, behind)
}

#[test]
fn a_node_that_was_away_catches_up_by_a_snapshot() {
    with_seeds(20, |seed| {
        let mut cluster = Cluster::new(seed, 3);
        let (_, behind) = lag(&mut cluster);
        cluster.network.heal();
        cluster.commit_everywhere();
        assert!(cluster.machines[&behind].installs > 0);
        cluster.settle_and_check();
    });
}

#[test]
fn a_lost_offer_is_made_again() {
    let mut cluster = Cluster::new(7, 3);
    let (leader, behind) = lag(&mut cluster);
    // The way to the one behind is cut, the way back is not: the leader thinks that the snapshot is on its way.
    cluster.network.heal();
    cluster.network.cut(leader, behind);
    cluster.run(300);
    cluster.network.heal();
    cluster.commit_everywhere();
    cluster.run_until("everybody is fed entry by entry", |cluster| {
        let leader = cluster.elect();
        let peers = cluster.core(leader).status().peers;
        peers.iter().all(|peer| peer.state == PeerState::Replicate)
    });
}

#[test]
fn a_crash_between_the_state_and_the_log_is_mended() {
    let mut mended = 0;
    for seed in 0..30 {
        let mut cluster = Cluster::new(seed, 3);
        let (_, behind) = lag(&mut cluster);
        cluster.network.heal();
        let installs = cluster.machines[&behind].installs;
        cluster.run_until("the state is installed", |cluster| {
            cluster.machines[&behind].installs > installs
        });
        cluster.crash(behind);
        cluster.start(behind);
        mended += u64::from(cluster.machines[&behind].repaired == Some(Repair::BegunAnew));
        cluster.settle_and_check();
    }
    assert!(mended > 5, "{mended}");
}

#[test]
fn snapshots_in_a_storm() {
    let mut installs = 0;
    for seed in 0..30 {
        let mut cluster = Cluster::new(seed, 5);
        cluster.weather = Weather { persist: 8, ..Weather::STORM };
        for _ in 0..3000 {
            cluster.step();
            if cluster.random.one_in(4) {
                let at = 1 + cluster.random.below(5);
                cluster.propose(at);
            }
        }
        cluster.settle_and_check();
        installs += cluster.machines.values().map(|machine| machine.installs).sum::<u64>();
    }
    assert!(installs > 30, "{installs}");
}
