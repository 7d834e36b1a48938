//! Members come and go.

mod support;

use support::{ChangeKind, Cluster, Dropped, Weather, with_seeds};

#[test]
fn a_node_joins_as_a_learner_is_promoted_and_replaces_another() {
    with_seeds(10, |seed| {
        let mut cluster = Cluster::new(seed, 3);
        cluster.elect();
        for _ in 0..50 {
            let leader = cluster.elect();
            cluster.propose(leader);
        }
        // The log is compacted meanwhile, so that the new node needs a snapshot.
        cluster.run(500);
        cluster.add_machine(4);
        cluster.change_until(&[(ChangeKind::AddLearner, 4)], |now| now.learners == [4]);
        cluster.commit_everywhere();
        assert!(cluster.machines[&4].installs > 0);
        cluster.change_until(&[(ChangeKind::AddVoter, 4)], |now| now.voters == [1, 2, 3, 4]);

        let leader = cluster.elect();
        let gone = (1..=3).find(|id| *id != leader).unwrap();
        cluster.add_machine(5);
        cluster.change_until(&[(ChangeKind::AddVoter, 5), (ChangeKind::Remove, gone)], |now| {
            now.voters.contains(&5) && !now.contains(gone)
        });
        cluster.machines.get_mut(&gone).unwrap().retired = true;
        cluster.crash(gone);
        cluster.settle_and_check();
        let members = cluster.members();
        assert_eq!(members.len(), 4);
        assert!(!members.contains(&gone));
    });
}

#[test]
fn what_cannot_be_is_refused_at_once_and_says_why() {
    let mut cluster = Cluster::new(5, 3);
    let leader = cluster.elect();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let refused = |changes: &[(ChangeKind, u64)], cluster: &mut Cluster| {
        cluster.change(changes).expect_err("it is refused")
    };
    let own = refused(&[(ChangeKind::Remove, leader)], &mut cluster);
    assert!(own.to_string().contains("transfer the leadership first"), "{own}");
    for changes in [
        &[][..],
        &[(ChangeKind::AddVoter, 0)],
        &[(ChangeKind::Remove, 1), (ChangeKind::Remove, 2), (ChangeKind::Remove, 3)],
    ] {
        assert_eq!(
            refused(changes, &mut cluster).code(),
            "consensus/invalid-change",
            "{changes:?}"
        );
    }
    let change = support::MembershipChange {
        changes: vec![(ChangeKind::AddLearner, 9)],
        ..Default::default()
    };
    let elsewhere = cluster.core(follower).propose_change(&change);
    assert_eq!(elsewhere, Err(Dropped::NotLeader { leader }));

    cluster.change(&[(ChangeKind::AddLearner, 9)]).unwrap();
    let second = refused(&[(ChangeKind::AddLearner, 8)], &mut cluster);
    assert_eq!(second, Dropped::ChangePending);
    cluster.run_until("the first change is made", |cluster| {
        cluster.core(leader).status().conf_state.learners == [9]
    });
    cluster.run(100);
    cluster.change(&[(ChangeKind::Remove, 9)]).unwrap();
    cluster.settle_and_check();
}

#[test]
fn the_leadership_is_handed_over_without_an_election_timeout() {
    with_seeds(10, |seed| {
        let mut cluster = Cluster::new(seed, 3);
        let leader = cluster.elect();
        let heir = (1..=3).find(|id| *id != leader).unwrap();
        assert!(cluster.core(leader).transfer_leader(9).is_err());
        assert!(cluster.core(heir).transfer_leader(leader).is_err());
        cluster.core(leader).transfer_leader(heir).unwrap();
        cluster.drain(leader);
        let dropped = cluster.core(leader).propose(vec![1]);
        assert_eq!(dropped, Err(Dropped::Transferring));
        let begin = cluster.step;
        cluster.run_until("the heir leads", |cluster| cluster.leader() == Some(heir));
        assert!(cluster.step - begin < 40, "{} steps", cluster.step - begin);
        cluster.settle_and_check();
    });
}

#[test]
fn a_leader_that_is_removed_all_the_same_steps_down() {
    // The one who proposes the removal of another is cut off, and that other is elected before it is committed.
    let mut removed = 0;
    for seed in 0..60 {
        let mut cluster = Cluster::new(seed, 3);
        let leader = cluster.elect();
        let victim = (1..=3).find(|id| *id != leader).unwrap();
        cluster.change(&[(ChangeKind::Remove, victim)]).unwrap();
        cluster.run(seed % 6);
        let everybody = [1, 2, 3];
        cluster.network.isolate(leader, &everybody);
        cluster.run(300);
        cluster.network.heal();
        cluster.run(500);
        cluster.elect();
        let members = cluster.members();
        if !members.contains(&victim) {
            removed += 1;
            cluster.machines.get_mut(&victim).unwrap().retired = true;
            cluster.crash(victim);
        }
        cluster.settle_and_check();
    }
    assert!(removed > 10, "{removed}");
}

#[test]
fn members_come_and_go_in_a_storm() {
    with_seeds(30, |seed| {
        let mut cluster = Cluster::new(seed, 3);
        cluster.weather = Weather::STORM;
        for id in 4..=6 {
            cluster.add_machine(id);
        }
        for _ in 0..4000 {
            cluster.step();
            let at = 1 + cluster.random.below(6);
            if cluster.random.one_in(8) {
                cluster.propose(at);
            }
            if cluster.random.one_in(30) {
                cluster.read(at);
            }
            if cluster.random.one_in(100) {
                let mut changes = Vec::new();
                for _ in 0..=cluster.random.below(3) {
                    let kind = match cluster.random.below(4) {
                        0 => ChangeKind::AddLearner,
                        _ => ChangeKind::AddVoter,
                    };
                    // Removed ids are never used again: here nobody is removed but from voting.
                    changes.push((kind, 1 + cluster.random.below(6)));
                }
                let _ = cluster.change(&changes);
            }
            if cluster.random.one_in(300)
                && let Some(leader) = cluster.leader()
            {
                let _ = cluster.core(leader).transfer_leader(at);
                cluster.drain(leader);
            }
        }
        cluster.heal();
        cluster.elect();
        // Joint consensus ends by itself.
        cluster.run_until("no change is under way", |cluster| {
            cluster.leader().is_some_and(|leader| {
                let status = cluster.core(leader).status();
                !status.conf_state.is_joint()
            })
        });
        cluster.settle_and_check();
    });
}

#[test]
fn one_voter_with_learners_in_a_storm() {
    // One vote is enough here, so nothing but this node's own disk stands between its election and its messages.
    with_seeds(30, |seed| {
        let mut cluster = Cluster::new(seed, 1);
        for id in 2..=3 {
            cluster.add_machine(id);
            cluster.change_until(&[(ChangeKind::AddLearner, id)], |now| now.learners.contains(&id));
        }
        cluster.weather = Weather { crashes: 150, slow_disk: 20, ..Weather::STORM };
        for _ in 0..2000 {
            cluster.step();
            if cluster.random.one_in(3) {
                cluster.propose(1);
            }
        }
        cluster.settle_and_check();
    });
}
