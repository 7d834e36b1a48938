//! Housekeeping on a real Docker daemon: what is left of attempts that nobody knows, and images when the
//! disk is nearly full, which here it always is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use support::{IMAGE, Machine, docker};
use tenon_agent::backend::{Backend, BackendOptions};
use tenon_agent::docker::DockerBackend;
use tenon_agent::keeping::{HouseOptions, Needed};
use tenon_agent::owner::Owner;

fn owner(data: &tempfile::TempDir) -> Owner {
    let data_dir = data.path().display().to_string();
    Owner::Agent { incarnation: "life".to_owned(), data_dir }
}

async fn backend(data: &tempfile::TempDir, house: HouseOptions) -> DockerBackend {
    support::images();
    let data_dir = data.path().to_owned();
    let options = BackendOptions { data_dir, owner: owner(data), house, ..Default::default() };
    DockerBackend::connect(options).await.unwrap()
}

/// A container that says that it is of this owner.
fn left(owner: &str, key: &str) -> String {
    let (owner, key) = (format!("tenon.owner={owner}"), format!("tenon.key={key}"));
    docker(&["run", "-d", "--label", &owner, "--label", &key, IMAGE, "sleep", "3000"])
}

fn is_there(id: &str) -> bool {
    docker(&["ps", "-aq", "--no-trunc"]).lines().any(|line| line == id)
}

/// This thread, and those that it starts from now on, have directories there that the daemon does not see.
fn hide(directories: &[&Path]) {
    // SAFETY: no memory is involved.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "only root may");
    let mount = |args: &[&str], directory: &Path| {
        let status = Command::new("mount").args(args).arg(directory).status();
        assert!(status.unwrap().success(), "mount {args:?} {}", directory.display());
    };
    mount(&["--make-rprivate"], Path::new("/"));
    directories.iter().for_each(|directory| mount(&["-t", "tmpfs", "hidden"], directory));
}

#[tokio::test]
async fn what_an_agent_has_left_on_a_daemon_elsewhere_goes_when_its_relay_has_ended_for_long() {
    let data = tempfile::tempdir().unwrap();
    hide(&[data.path(), Path::new("/dev/shm")]);
    let of = |life: &str| format!("agent:{life}:{}", data.path().display());
    let number = std::process::id();
    // As agents leave it that are killed while something of theirs is there.
    let leave = |life: &str, end: bool| {
        let owner = format!("tenon.owner={}-elsewhere", of(life));
        let name = format!("tenon-relay-test-{life}-{number}");
        docker(&["volume", "create", "--label", &owner, &name]);
        let volume = format!("{name}:/disk");
        let args = ["--name", &name, "--label", &owner, "--volume", &volume];
        docker(&[&["run", "-d"], &args[..], &[IMAGE, "sleep", "3000"]].concat());
        let step = left(&format!("{}-elsewhere", of(life)), life);
        if end {
            docker(&["kill", &name]);
        }
        (name, step)
    };
    support::images();
    let (live, live_step) = leave("live", false);
    let (ended, ended_step) = leave("ended", true);
    let of_process = left("other-boot/1/1/1", "process");
    let names = || docker(&["ps", "-a", "--format={{.Names}}"]) + &docker(&["volume", "ls", "-q"]);

    let patient = backend(&data, HouseOptions::default()).await;
    patient.reap().await.unwrap();
    patient.keep_house(&Needed::default()).await;
    assert!(is_there(&ended_step) && names().matches(&ended).count() == 2, "it may come back");
    assert!(is_there(&of_process), "who lives on another machine, nobody knows");

    let house = || HouseOptions { keep_claims: Duration::ZERO, ..HouseOptions::default() };
    let done = backend(&data, house()).await.keep_house(&Needed::default()).await;
    assert!(!is_there(&ended_step) && !names().contains(&ended), "{done:?}");
    assert!(done.iter().any(|what| what.contains("of agents that are gone")), "{done:?}");
    assert!(is_there(&live_step) && names().matches(&live).count() == 2);

    docker(&["kill", &live]);
    assert!(backend(&data, house()).await.reap().await.unwrap() >= 3);
    assert!(!is_there(&live_step) && !names().contains(&live));
    docker(&["rm", "-f", &of_process]);
}

#[tokio::test]
async fn what_nobody_knows_of_is_removed_and_nothing_of_others() {
    let data = tempfile::tempdir().unwrap();
    let backend = backend(&data, HouseOptions::default()).await;
    let me = owner(&data).name();
    let lost = left(&me, "lost");
    let live = left(&me, "live");
    let of_another = left("agent:life:/elsewhere", "lost");
    let stranger = docker(&["run", "-d", IMAGE, "sleep", "3000"]);
    let claims = data.path().join("runs/old/claims");
    std::fs::create_dir_all(&claims).unwrap();

    let needed = Needed { attempts: ["live".to_owned()].into(), ..Needed::default() };
    backend.keep_house(&needed).await;
    assert!(is_there(&lost), "an attempt that has just begun looks the same");
    let done = backend.keep_house(&needed).await;
    assert!(!is_there(&lost), "{done:?}");
    assert!(done.iter().any(|what| what.starts_with("removed 1 things")), "{done:?}");
    for kept in [&live, &of_another, &stranger] {
        assert!(is_there(kept), "{kept}");
    }
    assert!(claims.is_dir(), "claims are kept for a week");
    docker(&["rm", "-f", &live, &of_another, &stranger]);
}

#[tokio::test]
async fn claims_that_nobody_came_for_go_in_time() {
    let data = tempfile::tempdir().unwrap();
    let house = HouseOptions { keep_claims: Duration::ZERO, ..HouseOptions::default() };
    let backend = backend(&data, house).await;
    let runs = data.path().join("runs");
    for run in ["old", "used"] {
        std::fs::create_dir_all(runs.join(run).join("claims/c")).unwrap();
    }
    let needed = Needed { runs: ["used".to_owned()].into(), ..Needed::default() };
    backend.keep_house(&needed).await;
    assert!(!runs.join("old").exists() && runs.join("used").exists());
}

#[tokio::test]
async fn images_go_when_the_disk_is_full_but_for_those_that_are_kept_or_in_use() {
    let name = |what: &str| format!("tenon-house-test-{}:{what}", std::process::id());
    // An image of its own, which nobody else uses.
    let make = |what: &str| {
        let container = docker(&["create", "--label", "tenon.test=house", IMAGE, "true"]);
        docker(&["commit", "-c", &format!("ENV OF={what}"), &container, &name(what)]);
        docker(&["rm", &container]);
    };
    let all = ["used", "kept", "busy", "strange"];
    all.iter().for_each(|what| make(what));
    let there = || docker(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]);
    let has = |what: &str| there().lines().any(|line| line == name(what));

    let machine = Machine::new().await;
    let mut house = HouseOptions { image_high: 0, image_low: 0, ..HouseOptions::default() };
    house.keep_images = vec![name("kept"), "tenon-agent-test:*".to_owned()];
    let data = &machine.data;
    let steps: Vec<_> =
        all[..3].iter().map(|what| json!({"image": name(what), "script": "true"})).collect();
    machine.run(json!({"steps": steps})).await;
    // What was used, as if that had been long ago.
    machine.backend.keep_house(&Needed::default()).await;
    let record = data.path().join("images.json");
    let used: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    let ids = used.as_object().unwrap().keys();
    let long_ago: serde_json::Map<_, _> = ids.map(|id| (id.clone(), json!(1))).collect();
    assert_eq!(long_ago.len(), 3);
    std::fs::write(&record, serde_json::to_vec(&long_ago).unwrap()).unwrap();

    let busy = docker(&["run", "-d", &name("busy"), "sleep", "3000"]);
    let options = BackendOptions {
        data_dir: data.path().to_owned(),
        house: HouseOptions { image_high: 101, ..house.clone() },
        ..BackendOptions::default()
    };
    let roomy = DockerBackend::connect(options.clone()).await.unwrap();
    roomy.keep_house(&Needed::default()).await;
    assert!(has("used"), "there is room");
    let full = DockerBackend::connect(BackendOptions { house, ..options }).await.unwrap();
    let done = full.keep_house(&Needed::default()).await;
    assert!(!has("used"), "{done:?}");
    for kept in ["kept", "busy", "strange"] {
        assert!(has(kept), "{kept}: {done:?}");
    }
    docker(&["rm", "-f", &busy]);
    for what in &all[1..] {
        docker(&["rmi", "-f", &name(what)]);
    }
}
