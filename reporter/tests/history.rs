//! The store of runs from outside: writing, following, replaying, finding, pruning, dying.

#![allow(clippy::unwrap_used, reason = "a test may end where its story breaks")]

use std::time::Duration;

use tenon_engine::event::{Event, Kind, Status};
use tenon_engine::{RunId, Time};
use tenon_reporter::Error;
use tenon_reporter::filter::Filter;
use tenon_reporter::follow::{Finish, follow};
use tenon_reporter::history::{Next, PrunePolicy, RunStatus, Store, Summary};
use tenon_reporter::json::Lines;

fn event(run: RunId, seq: u64, kind: &str) -> Event {
    let text = format!(
        r#"{{"kind":"{kind}","time":"2026-01-02T03:04:05.{seq:03}Z","seq":{seq},"runSeq":{seq},"runId":"{run}","namespace":"default"}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn id(number: u64) -> RunId {
    RunId(ulid(1_700_000_000_000 + number * 86_400_000, number))
}

fn ulid(millis: u64, random: u64) -> ulid::Ulid {
    ulid::Ulid::from_parts(millis, u128::from(random))
}

fn summary(number: u64, name: &str) -> Summary {
    Summary::new(id(number), "default", name, "PipelineRun", Time(0))
}

fn replay(store: &Store, run: RunId) -> String {
    let mut out = Vec::new();
    let mut reader = store.reader(run).unwrap();
    follow(&mut reader, &Filter::default(), &mut Lines::new(), &mut out, false).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn live_and_replay_are_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path());
    let mut writer = store.create(summary(1, "hello")).unwrap();
    let mut reader = store.reader(id(1)).unwrap();
    let follower = std::thread::spawn(move || {
        let mut out = Vec::new();
        let finish = follow(&mut reader, &Filter::default(), &mut Lines::new(), &mut out, true);
        assert_eq!(finish.unwrap(), Finish::Ended);
        String::from_utf8(out).unwrap()
    });
    for (seq, kind) in [(1, "run-start"), (2, "task-start"), (3, "task-end")] {
        writer.append([&event(id(1), seq, kind)]).unwrap();
        writer.sync().unwrap();
    }
    let mut end = event(id(1), 4, "run-end");
    end.status = Some(Status::Succeeded);
    writer.append([&end]).unwrap();
    let done = writer.finish("kind: PipelineRun\n", None).unwrap();
    assert_eq!((done.status, done.exit_code), (RunStatus::Succeeded, Some(0)));
    let live = follower.join().unwrap();
    assert_eq!(live.lines().count(), 4);
    assert_eq!(live, replay(&store, id(1)));
    assert_eq!(store.objects(id(1)).unwrap().as_deref(), Some("kind: PipelineRun\n"));
}

#[test]
fn nothing_is_visible_before_it_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path());
    let mut writer = store.create(summary(1, "hello")).unwrap();
    let mut reader = store.reader(id(1)).unwrap();
    writer.append([&event(id(1), 1, "run-start")]).unwrap();
    assert!(matches!(reader.next(Duration::ZERO).unwrap(), Next::Idle));
    writer.sync().unwrap();
    assert!(matches!(reader.next(Duration::ZERO).unwrap(), Next::Event(_)));
}

#[test]
fn a_dead_writer_leaves_an_interrupted_run_that_can_be_ended() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path());
    let mut writer = store.create(summary(1, "hello")).unwrap();
    writer.append([&event(id(1), 1, "run-start"), &event(id(1), 2, "task-start")]).unwrap();
    writer.sync().unwrap();
    assert_eq!(store.summary(id(1)).unwrap().status, RunStatus::Running);
    assert!(matches!(store.resume(id(1)), Err(Error::Busy(_))));
    drop(writer);
    assert_eq!(store.summary(id(1)).unwrap().status, RunStatus::Interrupted);
    let mut writer = store.resume(id(1)).unwrap();
    assert_eq!((writer.last_run_seq(), writer.summary().tasks.running), (2, 1));
    let mut end = event(id(1), 3, "run-end");
    end.status = Some(Status::InfraFailed);
    writer.append([&end]).unwrap();
    writer.finish("", None).unwrap();
    assert_eq!(store.summary(id(1)).unwrap().status, RunStatus::InfraFailed);
    assert_eq!(replay(&store, id(1)).lines().count(), 3);
    let kinds = |store: &Store| {
        let mut reader = store.reader(id(1)).unwrap();
        let mut kinds = Vec::new();
        while let Next::Event(stored) = reader.next(Duration::ZERO).unwrap() {
            kinds.push(stored.event().unwrap().kind);
        }
        kinds
    };
    assert_eq!(kinds(&store), [Kind::RunStart, Kind::TaskStart, Kind::RunEnd]);
}

#[test]
fn runs_are_found_by_what_people_type() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path());
    assert!(matches!(store.find("latest"), Err(Error::Empty(_))));
    for (number, name) in [(1, "first"), (2, "second"), (3, "second")] {
        drop(store.create(summary(number, name)).unwrap());
    }
    let newest = id(3).to_string();
    for (what, want) in [
        ("latest", Some(3)),
        (newest.as_str(), Some(3)),
        (&newest.to_lowercase()[..9], Some(3)),
        ("first", Some(1)),
        ("default/second", Some(3)),
        ("third", None),
    ] {
        assert_eq!(store.find(what).ok().map(|run| run.id), want.map(id), "{what}");
    }
    assert!(matches!(store.find(&newest[..4]), Err(Error::Ambiguous { .. })));
}

#[test]
fn pruning_spares_live_runs_and_a_dry_run_spares_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path());
    let live = store.create(summary(1, "live")).unwrap();
    for number in 2..=5 {
        drop(store.create(summary(number, "old")).unwrap());
    }
    let policy = PrunePolicy { keep: Some(2), before: None };
    let names = |pruned: Vec<tenon_reporter::history::Pruned>| -> Vec<RunId> {
        pruned.into_iter().map(|run| run.id).collect()
    };
    assert_eq!(names(store.prune(policy, true).unwrap()), [id(3), id(2)]);
    assert_eq!(store.ids().unwrap().len(), 5);
    assert_eq!(names(store.prune(policy, false).unwrap()), [id(3), id(2)]);
    assert_eq!(store.ids().unwrap(), [id(5), id(4), id(1)]);
    let before = Some(Time(id(5).0.timestamp_ms().cast_signed()));
    let policy = PrunePolicy { keep: None, before };
    assert_eq!(names(store.prune(policy, false).unwrap()), [id(4)]);
    drop(live);
}

#[test]
fn a_damaged_run_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path());
    drop(store.create(summary(1, "good")).unwrap());
    drop(store.create(summary(2, "bad")).unwrap());
    std::fs::write(store.run_dir(id(2)).join("run.json"), "{").unwrap();
    let (runs, errors) = store.list().unwrap();
    assert_eq!((runs.len(), errors.len()), (1, 1));
    assert_eq!(errors[0].code(), "history/summary");
}
