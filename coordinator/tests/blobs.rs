//! The chunks of workspaces' snapshots on the nodes of a cluster: which of them are swept, and how a node gets
//! what its disk has lost.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod support;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::json;
use support::agent::{Agent, hello};
use support::{TestNode, cluster, cluster_with, leader, stop, text, until};
use tempfile::TempDir;
use tenon_blobs::{ChunkId, ChunkStore, Error, Options, Packed, SnapshotId, restore, save};
use tenon_coordinator::server::{ControlPlane, Fault};
use tenon_coordinator::{Handle, NodeOptions};
use tenon_proto::agent::v1::coordinator_message::Message;
use tenon_proto::agent::v1::{ClaimUse, TaskInvocation, Transfer, WorkspaceUse, claim_use};

const TWO_TASKS: &str = r"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {generateName: moving-}
spec:
  workspaces: [{name: w, volumeClaimTemplate: {spec: {}}}]
  pipelineSpec:
    workspaces: [{name: w}]
    tasks:
    - name: make
      workspaces: [{name: w}]
      taskSpec: {workspaces: [{name: w}], steps: [{name: say, image: x, script: echo}]}
    - name: use
      runAfter: [make]
      workspaces: [{name: w}]
      taskSpec: {workspaces: [{name: w}], steps: [{name: say, image: x, script: echo}]}
";

/// The chunks of a cluster, by one of its nodes, for threads that may wait.
struct Asked(Handle, tokio::runtime::Handle);

impl Asked {
    fn wait<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Error> {
        let action = || "ask the node".to_owned();
        self.1.block_on(work).map_err(|fault| Error::Remote {
            action: action(),
            reason: format!("{} {fault}", fault.code()),
        })
    }
}

impl ChunkStore for Asked {
    fn missing(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>, Error> {
        self.wait(self.0.missing_chunks(ids.to_vec()))
    }
    fn put(&self, chunks: &[Packed]) -> Result<(), Error> {
        self.wait(self.0.put_chunks(chunks.to_vec()))
    }
    fn get(&self, ids: &[ChunkId]) -> Result<Vec<Packed>, Error> {
        self.wait(self.0.get_chunks(ids.to_vec()))
    }
}

/// Does something with the chunks of a cluster, by this node.
async fn by<T: Send + 'static>(
    node: &TestNode,
    work: impl FnOnce(&Asked) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let asked = Asked(node.handle(), tokio::runtime::Handle::current());
    tokio::task::spawn_blocking(move || work(&asked)).await.unwrap()
}

/// Bytes that do not pack, the same for the same number.
fn noise(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut state = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in &mut bytes {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
    bytes
}

/// A directory with some megabytes in it.
fn workspace() -> TempDir {
    let dir = TempDir::new().unwrap();
    for number in 0..3 {
        fs::write(dir.path().join(number.to_string()), noise(number, 1_500_000)).unwrap();
    }
    dir
}

async fn saved(node: &TestNode, dir: &Path) -> SnapshotId {
    let dir = dir.to_owned();
    by(node, move |store| save(&dir, store, None, &Options::default())).await.unwrap().id
}

/// That a snapshot can be had from this node, and is what the directory is.
async fn is_whole(node: &TestNode, id: SnapshotId, dir: &Path) {
    let copy = TempDir::new().unwrap();
    let to = copy.path().join("copy");
    by(node, move |store| restore(id, &to, store, None, &Options::default())).await.unwrap();
    for number in 0..3 {
        let read = |dir: &Path| fs::read(dir.join(number.to_string())).unwrap();
        assert!(read(dir) == read(&copy.path().join("copy")), "file {number} differs");
    }
}

/// Ten chunks that nothing refers to, and more bytes than those of a workspace.
async fn waste(node: &TestNode, number: u64) -> Vec<ChunkId> {
    let chunk = |at| Packed::new(&noise(number + at, 700_000)).unwrap();
    let chunks: Vec<Packed> = (0..10).map(chunk).collect();
    let ids = chunks.iter().map(|chunk| chunk.id).collect();
    by(node, move |store| store.put(&chunks)).await.unwrap();
    ids
}

async fn missing(node: &TestNode, ids: &[ChunkId]) -> usize {
    let ids = ids.to_vec();
    by(node, move |store| store.missing(&ids)).await.unwrap().len()
}

async fn tidy(nodes: &[TestNode]) {
    for node in nodes {
        node.handle().tidy_chunks().await.unwrap();
    }
}

/// Chunks on a node's own disk.
fn chunks_on(node: &TestNode) -> u64 {
    node.handle().gauges().blob_chunks
}

async fn next_start(agent: &mut Agent) -> TaskInvocation {
    loop {
        if let Message::Start(start) = agent.hear().await.unwrap() {
            return start;
        }
    }
}

/// A claim that was saved as this snapshot.
fn used(claim: &str, snapshot: SnapshotId) -> WorkspaceUse {
    let saved = Some(Transfer { snapshot: snapshot.to_string(), ..Transfer::default() });
    WorkspaceUse { claim: claim.to_owned(), saved, ..WorkspaceUse::default() }
}

/// A run whose first task has left a snapshot, and whose second one goes on.
async fn moving(nodes: &[TestNode], dir: &Path) -> (String, Agent, TaskInvocation, SnapshotId) {
    let led = &nodes[leader(nodes).await];
    let mut agent = Agent::dial(&led.url, hello("a1", "LIFE1")).await.unwrap();
    let answer = led.post("/v1/runs", json!({"manifest": TWO_TASKS})).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let run = text(&answer.json()["run"]["id"]);
    let start = next_start(&mut agent).await;
    let [ClaimUse { name, .. }] = &start.claim_uses[..] else { panic!("{start:?}") };
    let snapshot = saved(nodes.last().unwrap(), dir).await;
    let used = used(name, snapshot);
    agent.end_with(&start.attempt.unwrap(), 0, vec![used]).await;
    let second = next_start(&mut agent).await;
    let from = second.claim_uses[0].from.clone();
    assert_eq!(from, Some(claim_use::From::Snapshot(snapshot.to_string())));
    (run, agent, second, snapshot)
}

fn at_once(options: &mut NodeOptions) {
    options.unasked = Duration::ZERO;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nothing_refers_to_goes_and_what_a_run_needs_stays_as_long_as_it_does() {
    let mut nodes = cluster_with(3, at_once).await;
    let dir = workspace();
    let (run, mut agent, second, snapshot) = moving(&nodes, dir.path()).await;
    let dead = waste(&nodes[0], 1000).await;
    // The slowest may get them after a majority has.
    let there = async || (missing(&nodes[1], &dead).await == 0).then_some(());
    until("the chunks on all nodes", there).await;
    tidy(&nodes).await;
    assert_eq!(missing(&nodes[1], &dead).await, 10);
    let needed = chunks_on(&nodes[0]);
    for node in &nodes {
        is_whole(node, snapshot, dir.path()).await;
        assert_eq!(chunks_on(node), needed);
    }
    agent.succeed(&second.attempt.unwrap()).await;
    nodes[0].until_run_is(&run, "succeeded").await;
    tidy(&nodes).await;
    for node in &nodes {
        assert_eq!(chunks_on(node), 0);
    }
    stop(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_run_has_left_that_failed_stays_for_the_next() {
    let mut nodes = cluster_with(1, at_once).await;
    let dir = workspace();
    let (run, mut agent, second, snapshot) = moving(&nodes, dir.path()).await;
    let left = used(&second.claim_uses[0].name, snapshot);
    agent.end_with(&second.attempt.unwrap(), 1, vec![left]).await;
    nodes[0].until_run_is(&run, "failed").await;
    tidy(&nodes).await;
    is_whole(&nodes[0], snapshot, dir.path()).await;
    stop(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chunks_of_a_save_under_way_are_not_swept() {
    let mut nodes = cluster(3).await;
    let dir = workspace();
    // Its end is not reported yet, so nothing refers to it.
    let snapshot = saved(&nodes[0], dir.path()).await;
    tidy(&nodes).await;
    for node in &nodes {
        is_whole(node, snapshot, dir.path()).await;
    }
    // Not even when the nodes were started again meanwhile.
    stop(&mut nodes).await;
    for node in &mut nodes {
        node.start_again().await;
    }
    leader(&nodes).await;
    tidy(&nodes).await;
    is_whole(&nodes[0], snapshot, dir.path()).await;
    stop(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_gets_from_the_others_what_its_disk_has_lost() {
    let mut nodes = cluster_with(3, at_once).await;
    let dir = workspace();
    let (_run, _agent, _second, snapshot) = moving(&nodes, dir.path()).await;
    tidy(&nodes).await;
    let needed = chunks_on(&nodes[0]);
    let other = (leader(&nodes).await + 1) % 3;
    nodes[other].stop().await;
    fs::remove_dir_all(nodes[other].dir.path().join("blobs")).unwrap();
    nodes[other].start_again().await;
    assert_eq!(chunks_on(&nodes[other]), 0);
    is_whole(&nodes[other], snapshot, dir.path()).await;
    tidy(&nodes).await;
    assert_eq!(chunks_on(&nodes[other]), needed);

    // Bytes that flip under it while it runs.
    let packs = nodes[other].dir.path().join("blobs");
    for pack in fs::read_dir(packs).unwrap().flatten() {
        let file = fs::OpenOptions::new().write(true).open(pack.path()).unwrap();
        for at in (0..file.metadata().unwrap().len()).step_by(400_000) {
            file.write_all_at(b"damage", at + 1000).unwrap();
        }
    }
    is_whole(&nodes[other], snapshot, dir.path()).await;
    assert!(chunks_on(&nodes[other]) < needed, "nothing was damaged");
    tidy(&nodes).await;
    assert_eq!(chunks_on(&nodes[other]), needed);
    is_whole(&nodes[other], snapshot, dir.path()).await;
    stop(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_long_ago_into_a_shared_store_is_there_as_long_as_a_run_needs_it() {
    let mut nodes = cluster_with(1, |options| {
        options.blobs = Some(format!("file://{}/shared", options.data_dir.display()));
    })
    .await;
    let dir = workspace();
    let (_run, _agent, _second, snapshot) = moving(&nodes, dir.path()).await;
    let dead = waste(&nodes[0], 1000).await;
    // Another save would put all of it again.
    let old = SystemTime::now() - Duration::from_secs(10 * 24 * 3600);
    let chunks = nodes[0].dir.path().join("shared/chunks");
    for prefix in fs::read_dir(chunks).unwrap().flatten() {
        for chunk in fs::read_dir(prefix.path()).unwrap().flatten() {
            fs::File::open(chunk.path()).unwrap().set_modified(old).unwrap();
        }
    }
    is_whole(&nodes[0], snapshot, dir.path()).await;
    tidy(&nodes).await;
    is_whole(&nodes[0], snapshot, dir.path()).await;
    by(&nodes[0], move |store| store.get(&dead[..1])).await.unwrap_err();
    stop(&mut nodes).await;
}
