//! Small snapshots and what is made of them.

use serde_json::json;

use super::*;

fn with_cpu(mut agent: Agent, all: u64, used: u64) -> Agent {
    agent.cpu_millis = all;
    agent.used.cpu_millis = used;
    agent
}

fn labelled(mut agent: Agent, labels: &[(&str, &str)]) -> Agent {
    agent.labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    agent
}

fn needs_label(key: &str, value: &str) -> Requirements {
    let node_selector = [(key.to_owned(), value.to_owned())].into();
    Requirements { node_selector, ..needs() }
}

#[test]
fn the_least_loaded_agent_is_chosen_or_the_most_loaded() {
    let agents = vec![agent("a", 2, 1), agent("b", 4, 0), agent("c", 8, 1)];
    let three: Vec<Waiting> = (1..=3).map(|run| waiting(run, needs())).collect();
    let mut input = snapshot(agents, three);
    assert_eq!(placed(&plan(&input)), [(1, "b"), (2, "c"), (3, "b")]);
    input.packing = Packing::Pack;
    assert_eq!(placed(&plan(&input)), [(1, "a"), (2, "c"), (3, "c")]);
}

#[test]
fn an_agent_that_has_the_images_is_better_than_an_idle_one() {
    let mut has = agent("z", 4, 3);
    has.images.insert("busybox".to_owned());
    let busybox = Requirements { images: ["busybox".to_owned()].into(), ..needs() };
    let two = vec![waiting(1, busybox.clone()), waiting(2, busybox)];
    let agents = vec![agent("a", 4, 0), has];
    assert_eq!(placed(&plan(&snapshot(agents, two))), [(1, "z"), (2, "a")]);
}

#[test]
fn one_volume_of_a_run_is_on_one_agent() {
    let claim = Requirements { claims: ["pvc".to_owned()].into(), ..needs() };
    let mut second = waiting(1, claim.clone());
    second.attempt.task_run = "u".to_owned();
    let other_run = waiting(2, claim.clone());
    let attempts = vec![waiting(1, claim.clone()), second, other_run];
    let agents = vec![agent("a", 1, 0), agent("b", 4, 0)];
    let plan = plan(&snapshot(agents.clone(), attempts));
    assert_eq!(
        placed(&plan),
        [(1, "a"), (2, "b")],
        "the same name in another run is another claim"
    );
    let message = &plan.explanations[0].message;
    assert_eq!(message, "2 agents: 1 does not have the run's volume, 1 is full: no free slot");
    let at = |home: &str| Requirements { home: Some(home.to_owned()), ..claim.clone() };
    assert_eq!(
        why(agents, at("gone")),
        "2 agents: 2 do not have the run's volume; \
         the run's volume is on gone, which is out of contact"
    );
    let only_there = Requirements { unsaved: true, ..at("gone") };
    assert_eq!(
        why(vec![agent("a", 1, 0)], only_there),
        "1 agent: 1 does not have the run's volume; the run's volume is on gone, which is out of \
         contact, and there is no snapshot of it: start that agent again, or cancel the run"
    );
    let apart = Requirements { apart: Some("b".to_owned()), ..at("a") };
    assert_eq!(
        why(vec![agent("a", 1, 0)], apart),
        "1 agent: 1 does not have all of the run's volumes; its volumes are on a and on b, and neither \
         can move now"
    );
}

#[test]
fn an_attempt_waits_a_while_for_the_agent_that_has_its_files() {
    let near = Requirements {
        claims: ["pvc".to_owned()].into(),
        near: Some("home".to_owned()),
        ..needs()
    };
    let mut board = Board::new(Packing::Spread);
    board.set_agent(agent("home", 1, 1));
    board.set_agent(agent("other", 4, 0));
    board.wait(waiting(1, near.clone()));
    assert_eq!(board.wave(Time(AFFINITY_MS - 1), 9), []);
    assert_eq!(board.next_wave(), Some(Time(AFFINITY_MS)));
    let explained = board.explain(&[waiting(1, near.clone()).attempt]);
    assert_eq!(
        explained[0].message,
        "2 agents: 1 is full: no free slot, 1 can take it in its turn; home has its files, and is \
         waited for a while"
    );
    let mut patient = board.clone();
    patient.set_used("home", Usage::default());
    assert_eq!(patient.wave(Time(AFFINITY_MS - 1), 9)[0].agent, "home");
    // Whoever shares the claim goes with it.
    let mut sibling = waiting(1, near.clone());
    (sibling.attempt.task_run, sibling.since) = ("u".to_owned(), Time(5_000));
    board.wait(sibling);
    let moved = board.wave(Time(AFFINITY_MS), 9);
    assert_eq!(moved.iter().map(|it| it.agent.as_str()).collect::<Vec<_>>(), ["other", "other"]);
    assert_eq!(board.next_wave(), None);
    // One that gets no new work, or could never take it, is not waited for.
    for closed in [Closed::Draining, Closed::Cordoned] {
        let home = Agent { closed: Some(closed), ..agent("home", 1, 0) };
        let agents = vec![home, agent("other", 1, 0)];
        let plan = plan(&snapshot(agents, vec![waiting(1, near.clone())]));
        assert_eq!(placed(&plan), [(1, "other")]);
    }
    let selective = Requirements { near: near.near, ..needs_label("gpu", "true") };
    let agents = vec![agent("home", 1, 0), labelled(agent("gpu", 1, 0), &[("gpu", "true")])];
    assert_eq!(placed(&plan(&snapshot(agents, vec![waiting(1, selective)]))), [(1, "gpu")]);
}

#[test]
fn why_an_attempt_waits() {
    assert_eq!(why(vec![], needs()), "no agent is in contact");
    assert_eq!(why(vec![agent("a", 1, 1)], needs()), "1 agent: 1 is full: no free slot");
    let needs_two = Requirements { cpu_millis: 2000, ..needs_label("gpu", "true") };
    let gpu = labelled(agent("g", 4, 1), &[("gpu", "true")]);
    let agents = vec![agent("a", 4, 0), agent("b", 4, 0), with_cpu(gpu.clone(), 4000, 3500)];
    assert_eq!(
        why(agents, needs_two.clone()),
        "3 agents: 2 lack label gpu=true, 1 is full: needs 2 CPU, 0.5 free"
    );
    let mut second = gpu.clone();
    second.name = "h".to_owned();
    let small = vec![with_cpu(gpu.clone(), 1000, 0), with_cpu(second.clone(), 1500, 0)];
    assert_eq!(
        why(small, needs_two.clone()),
        "2 agents: 2 are too small: needs 2 CPU, at most 1.5 there"
    );
    let mut drained = with_cpu(gpu, 8000, 0);
    drained.closed = Some(Closed::Draining);
    second.closed = Some(Closed::Cordoned);
    let message = why(vec![drained, second], needs_two);
    assert_eq!(message, "2 agents: 1 is cordoned, 1 is being drained");
    let mut full = agent("a", 4, 0);
    full.closed = Some(Closed::Disk { free: 3 << 30, floor: 5 << 30 });
    assert_eq!(
        why(vec![full], needs()),
        "1 agent: 1 has 3 GiB free on disk, under the floor of 5 GiB"
    );
    let mut choosy = agent("a", 4, 0);
    choosy.allowed_images = vec!["registry.example/*".to_owned()];
    choosy.memory_bytes = 1 << 30;
    let busybox = Requirements { images: ["busybox".to_owned()].into(), ..needs() };
    assert_eq!(why(vec![choosy.clone()], busybox), "1 agent: 1 may not run image busybox");
    let demands = ["privileged".parse().unwrap(), "host-path=/a".parse().unwrap()].into();
    let rights = Requirements { demands, ..needs() };
    choosy.grants = vec!["host-path=/".parse().unwrap()];
    assert_eq!(
        why(vec![choosy.clone()], rights),
        "1 agent: 1 does not allow privileged (--allow-privileged)"
    );
    choosy.used.memory_bytes = 768 << 20;
    let message = why(vec![choosy], Requirements { memory_bytes: 3 << 28, ..needs() });
    assert_eq!(message, "1 agent: 1 is full: needs 768 MiB of memory, 256 MiB free");
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [
            {"key": "zone", "operator": "In", "values": ["a", "b"]},
        ]}],
    }}});
    let zoned = Requirements { affinity: required_terms(&affinity), ..needs() };
    assert_eq!(
        why(vec![agent("a", 1, 0)], zoned),
        "1 agent: 1 does not match the node affinity (zone In [a, b])"
    );
}

#[test]
fn priority_is_a_head_start_and_no_more() {
    let attempt = |run: u128, minute: i64, priority: u8| Waiting {
        since: Time(minute * 60_000),
        ..waiting(run, Requirements { priority, ..needs() })
    };
    // Run 3 comes 49 minutes after run 1 and has 50 points more; run 4 comes another two later.
    let attempts =
        vec![attempt(1, 0, 50), attempt(2, 1, 50), attempt(3, 49, 100), attempt(4, 51, 100)];
    let input = snapshot(vec![agent("a", 8, 4)], attempts);
    let order: Vec<u128> = placed(&plan(&input)).into_iter().map(|(run, _)| run).collect();
    assert_eq!(order, [3, 1, 2, 4]);
}

#[test]
fn namespaces_take_turns_and_pay_for_what_they_ask() {
    let attempt = |run: u128, namespace: &str, cpu_millis: u64| {
        let namespace = namespace.to_owned();
        waiting(run, Requirements { namespace, cpu_millis, ..needs() })
    };
    let mut attempts: Vec<Waiting> = (1..=6).map(|run| attempt(run, "many", 0)).collect();
    attempts.extend([attempt(7, "few", 0), attempt(8, "large", 3000), attempt(9, "large", 3000)]);
    let input = snapshot(vec![agent("a", 9, 0)], attempts);
    let order: Vec<u128> = placed(&plan(&input)).into_iter().map(|(run, _)| run).collect();
    assert_eq!(order, [7, 1, 2, 8, 3, 4, 5, 9, 6]);
}

#[test]
fn the_next_wave_goes_on_where_the_last_one_ended() {
    let mut board = Board::new(Packing::Spread);
    board.set_agent(agent("a", 100, 0));
    for run in 0..6 {
        let namespace = if run % 2 == 0 { "even" } else { "odd" };
        board.wait(waiting(run, Requirements { namespace: namespace.to_owned(), ..needs() }));
    }
    let mut order = Vec::new();
    for _ in 0..6 {
        let wave = board.wave(Time(0), 1);
        order.extend(wave.iter().map(|placement| placement.attempt.run.0.0));
    }
    assert_eq!(order, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn who_waits_for_long_has_an_agent_reserved() {
    let mut board = Board::new(Packing::Spread);
    board.set_agent(with_cpu(agent("a", 8, 4), 4000, 4000));
    board.set_agent(with_cpu(agent("b", 8, 4), 4000, 4000));
    let large = waiting(1, Requirements { cpu_millis: 4000, ..needs() });
    board.wait(large.clone());
    let small = |run: u128| waiting(run, Requirements { cpu_millis: 1000, ..needs() });
    // One CPU gets free on each agent now and then, and small attempts are always there to take it.
    let later = Time(PATIENCE_MS);
    board.wait(small(2));
    board.set_used("a", Usage { attempts: 3, cpu_millis: 3000, memory_bytes: 0 });
    assert_eq!(board.wave(later, 9), [], "a is kept free");
    let explained = board.explain(&[small(2).attempt]);
    assert_eq!(
        explained[0].message,
        "2 agents: 1 is full: needs 1 CPU, 0 free, 1 is kept free for who has waited longer"
    );
    assert_eq!(explained[0].position, Position { ahead: 1, waiting: 2 });
    board.set_used("b", Usage { attempts: 3, cpu_millis: 3000, memory_bytes: 0 });
    let wave = board.wave(later, 9);
    assert_eq!(wave[0].agent, "b", "the rest of the fleet goes on");
    board.set_used("a", Usage::default());
    let wave = board.wave(later, 9);
    assert_eq!((wave[0].attempt.run.0.0, wave[0].agent.as_str()), (1, "a"));
    board.wait(small(3));
    board.settle(&large.attempt);
    board.set_used("a", Usage::default());
    assert_eq!(board.wave(later, 9)[0].agent, "a", "and then a is as the others again");
}

#[test]
fn what_is_under_way_counts_until_it_is_settled() {
    let mut board = Board::new(Packing::Spread);
    board.set_agent(agent("a", 1, 0));
    board.wait(waiting(1, needs()));
    board.wait(waiting(2, needs()));
    let first = board.wave(Time(0), 9);
    assert_eq!(first.len(), 1);
    board.wait(waiting(1, needs()));
    assert_eq!((board.len(), board.wave(Time(0), 9)), (1, vec![]));
    assert_eq!(board.under_way_of(RunId(ulid::Ulid(1))), [first[0].attempt.clone()]);
    // It was refused: the slot is free again.
    board.settle(&first[0].attempt);
    assert_eq!(board.wave(Time(0), 9)[0].attempt.run.0.0, 2);
}
