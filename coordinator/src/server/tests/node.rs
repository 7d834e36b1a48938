//! A node that is made up: a list of records, a few runs, and a switch for the quorum.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tenon_blobs::{ChunkId, Packed};
use tenon_engine::RunId;
use tenon_journal::output::{ChunkBuilder, Stream};
use tenon_proto::agent::v1::Hello;
use tenon_proto::control::v1::{
    Agent, AuditEntry, AuditRequest, ClusterStatus, ExplainRunResponse, ProbeResponse, Run,
};
use tenon_proto::raft::v1::{
    AdoptReply, AdoptRequest, Chunk, ChunksReply, ChunksRequest, FetchRequest, Header,
};
use tenon_trust::{Authority, Done, Trust};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::intake::Prepared;
use crate::server::{
    AgentDecision, Cancel, Change, ControlPlane, EventSource, Fault, Gauges, Items, Once,
    Readiness, Result, Session, Started, no_such_agent,
};

pub struct MadeUp {
    pub events: Arc<Records>,
    pub runs: Mutex<BTreeMap<RunId, Run>>,
    pub keys: Mutex<BTreeMap<String, (String, RunId)>>,
    pub quorum: AtomicBool,
    pub trust: watch::Sender<Arc<Trust>>,
    /// Certificate and key.
    pub authority: (String, String),
    /// Told when a request begins to wait for the quorum.
    pub waiting: tokio::sync::Notify,
}

pub struct Records {
    first: Mutex<u64>,
    records: Mutex<Vec<Arc<[u8]>>>,
    visible: watch::Sender<u64>,
}

fn record(header: &str, chunk: &[u8]) -> Arc<[u8]> {
    let mut record = (header.len() as u32).to_le_bytes().to_vec();
    record.extend_from_slice(header.as_bytes());
    record.extend_from_slice(chunk);
    record.into()
}

impl Records {
    pub fn push(&self, record: Arc<[u8]>) {
        let mut records = self.records.lock().unwrap();
        records.push(record);
        self.visible.send_replace(records.len() as u64);
    }

    /// A document, which is no event.
    pub fn document(&self) {
        self.push([0x01, 0xff, 0xff, 0xff, 7, 7].as_slice().into());
    }

    pub fn event(&self, kind: &str, seq: u64, run: RunId, more: &str) {
        self.push(record(
            &format!(
                "{{\"kind\":\"{kind}\",\"time\":\"2023-11-14T22:13:20.000Z\",\"seq\":{seq},\
                 \"runSeq\":{seq},\"runId\":\"{run}\",\"namespace\":\"default\"{more}}}"
            ),
            &[],
        ));
    }

    pub fn output(&self, seq: u64, run: RunId, lines: &[&str]) {
        let mut chunk = ChunkBuilder::new();
        for line in lines {
            chunk.push(0, Stream::Stdout, false, line).unwrap();
        }
        let header = format!(
            "{{\"kind\":\"step-log\",\"time\":\"2023-11-14T22:13:20.000Z\",\"seq\":{seq},\
             \"runSeq\":{seq},\"runId\":\"{run}\",\"namespace\":\"default\",\"task\":\"t\",\
             \"step\":\"s\"}}"
        );
        self.push(record(&header, &chunk.finish().1));
    }

    /// Forgets the oldest records.
    pub fn forget_before(&self, index: u64) {
        *self.first.lock().unwrap() = index;
    }
}

impl EventSource for Records {
    fn visible(&self) -> watch::Receiver<u64> {
        self.visible.subscribe()
    }

    fn first_index(&self) -> u64 {
        *self.first.lock().unwrap()
    }

    fn read_memory(&self, from: u64, _: usize) -> Option<Vec<(u64, Arc<[u8]>)>> {
        // Every other record is in memory, so that both ways are gone.
        from.is_multiple_of(2).then(|| self.read(from, 1).unwrap())
    }

    fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<(u64, Arc<[u8]>)>> {
        let from = from.max(self.first_index());
        let records = self.records.lock().unwrap();
        let mut bytes = 0;
        let found =
            (from..).zip(records.iter().skip(from as usize - 1)).take_while(|(_, record)| {
                let first = bytes == 0;
                bytes += record.len();
                first || bytes <= max_bytes
            });
        Ok(found.map(|(index, record)| (index, record.clone())).collect())
    }

    fn after(&self, _: u64) -> Result<u64> {
        Ok(self.first_index())
    }

    fn ranges_of(&self, run: RunId, from: u64) -> Result<Vec<(u64, u64)>> {
        let run = run.to_string();
        let holds = |record: &[u8]| record.windows(run.len()).any(|it| it == run.as_bytes());
        let records = self.records.lock().unwrap();
        let indexes = (1..).zip(records.iter());
        let of_run = indexes.filter(|(index, record)| *index >= from && holds(record));
        Ok(of_run.map(|(index, _)| (index, index)).collect())
    }
}

impl MadeUp {
    pub fn new() -> MadeUp {
        let (visible, _) = watch::channel(0);
        let (authority, key) = Authority::random(crate::server::access::now()).unwrap();
        MadeUp {
            events: Arc::new(Records { first: Mutex::new(1), records: Mutex::default(), visible }),
            runs: Mutex::default(),
            keys: Mutex::default(),
            quorum: AtomicBool::new(true),
            trust: watch::channel(Arc::default()).0,
            authority: (authority.certificate().to_owned(), key),
            waiting: tokio::sync::Notify::new(),
        }
    }

    pub fn run(&self, number: u64, status: &str) -> RunId {
        let id = RunId(ulid::Ulid::from_parts(1_700_000_000_000 + number, 0));
        let ended = status != "running";
        let run = Run {
            id: id.to_string(),
            name: format!("run-{number}"),
            namespace: "default".to_owned(),
            kind: "PipelineRun".to_owned(),
            status: status.to_owned(),
            ended_at: ended.then(|| "2023-11-14T22:13:20.000Z".to_owned()),
            ..Run::default()
        };
        self.runs.lock().unwrap().insert(id, run);
        id
    }

    async fn agreed(&self, deadline: Instant) -> Result<()> {
        if !self.quorum.load(Ordering::Relaxed) {
            self.waiting.notify_one();
            tokio::time::sleep_until(deadline).await;
            return Err(Fault::new("unavailable/no-quorum", "there is no quorum"));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl ControlPlane for MadeUp {
    async fn submit(
        &self,
        prepared: Box<Prepared>,
        once: Option<Once>,
        deadline: Instant,
    ) -> Result<Started> {
        self.agreed(deadline).await?;
        if let Some(once) = &once
            && let Some((request, run)) = self.keys.lock().unwrap().get(&once.key)
        {
            if *request != once.request {
                return Err(Fault::new("conflict/idempotency-key", "another request"));
            }
            let run = self.runs.lock().unwrap()[run].clone();
            return Ok(Started { run, replayed: true });
        }
        let id = prepared.submission.run_id;
        let run = Run { id: id.to_string(), status: "running".to_owned(), ..Run::default() };
        self.runs.lock().unwrap().insert(id, run.clone());
        if let Some(Once { key, request }) = once {
            self.keys.lock().unwrap().insert(key, (request, id));
        }
        Ok(Started { run, replayed: false })
    }

    async fn cancel(&self, run: RunId, _: Cancel, deadline: Instant) -> Result<()> {
        self.agreed(deadline).await?;
        match self.runs.lock().unwrap().get_mut(&run) {
            Some(run) => {
                run.status = "cancelled".to_owned();
                Ok(())
            }
            None => Err(Fault::no_such_run(run)),
        }
    }

    async fn rerun(&self, _: RunId, _: bool, _: Option<Once>, _: Instant) -> Result<Started> {
        Err(Fault::new("conflict/run-active", "it goes on"))
    }

    async fn release(&self, _: RunId, _: Instant) -> Result<()> {
        Err(Fault::new("conflict/run-not-pending", "it is not pending"))
    }

    async fn read_barrier(&self, deadline: Instant) -> Result<()> {
        self.agreed(deadline).await
    }

    fn get(&self, run: RunId) -> Result<Option<Run>> {
        Ok(self.runs.lock().unwrap().get(&run).cloned())
    }

    fn visit_runs(
        &self,
        before: Option<RunId>,
        visit: &mut dyn FnMut(Run) -> ControlFlow<()>,
    ) -> Result<()> {
        let runs = self.runs.lock().unwrap();
        for (_, run) in runs.iter().rev().filter(|(id, _)| before.is_none_or(|it| **id < it)) {
            if visit(run.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn explain(&self, _: RunId) -> Result<Option<ExplainRunResponse>> {
        Ok(None)
    }

    fn objects(&self, _: RunId) -> Result<Option<String>> {
        Ok(Some("kind: PipelineRun\n".to_owned()))
    }

    fn events(&self) -> Arc<dyn EventSource> {
        self.events.clone()
    }

    async fn status(&self) -> ClusterStatus {
        ClusterStatus { node: 1, role: "leader".to_owned(), ..ClusterStatus::default() }
    }

    fn readiness(&self) -> Readiness {
        match self.quorum.load(Ordering::Relaxed) {
            true => Readiness::Ready,
            false => Readiness::NotReady("no leader is known".to_owned()),
        }
    }

    fn gauges(&self) -> Gauges {
        Gauges { term: 3, ..Gauges::default() }
    }

    fn agents(&self) -> Result<Vec<Agent>> {
        Ok(vec![Agent { name: "a1".to_owned(), state: "up".to_owned(), ..Agent::default() }])
    }

    fn agent(&self, name: &str) -> Result<Option<Agent>> {
        Ok(self.agents()?.into_iter().find(|agent| agent.name == name))
    }

    async fn decide_agent(&self, name: String, _: AgentDecision, _: Instant) -> Result<()> {
        self.agent(&name)?.map(drop).ok_or_else(|| no_such_agent(&name))
    }

    async fn change(&self, _: Change, deadline: Instant) -> Result<()> {
        self.agreed(deadline).await
    }

    async fn backup(&self, _: Instant) -> Result<Items<Bytes>> {
        let parts = [Ok(Bytes::from_static(b"one")), Ok(Bytes::from_static(b"two"))];
        Ok(Box::pin(futures_util::stream::iter(parts)))
    }

    async fn probe(&self, _: Bytes, deadline: Instant) -> Result<ProbeResponse> {
        self.agreed(deadline).await?;
        Ok(ProbeResponse { index: 9, term: 3, micros: 1 })
    }

    fn trust(&self) -> watch::Receiver<Arc<Trust>> {
        self.trust.subscribe()
    }

    async fn change_trust(&self, change: tenon_trust::Change, _: Instant) -> Result<Done> {
        let mut trust = Trust::clone(&self.trust.borrow());
        let done = trust.apply(change, crate::server::access::now(), &mut 7);
        self.trust.send_replace(Arc::new(trust));
        Ok(done?)
    }

    fn authority(&self) -> Result<Authority> {
        let (certificate, key) = &self.authority;
        Ok(Authority::open(certificate, key)?)
    }

    fn secrets_key(&self) -> Result<String> {
        Ok("the key".to_owned())
    }

    async fn session(&self, _: Hello) -> Result<Session> {
        Err(Fault::new("unavailable/not-leader", "another node leads").leader("http://there:1"))
    }

    fn greet(&self, _: &Header) -> Result<Header> {
        Err(Fault::new("peer/stranger", "who is that?"))
    }

    async fn receive(&self, _: u64, _: Vec<Bytes>) -> Result<()> {
        Ok(())
    }

    async fn audit_elsewhere(
        &self,
        request: AuditRequest,
        _: Instant,
    ) -> Vec<(String, Result<Vec<AuditEntry>, String>)> {
        assert!(!request.local, "the others are asked by the first one only");
        vec![("gone".to_owned(), Err("it does not answer".to_owned()))]
    }

    async fn fetch(&self, _: FetchRequest) -> Result<Items<Chunk>> {
        Err(Fault::new("peer/stranger", "who is that?"))
    }

    async fn missing_chunks(&self, ids: Vec<ChunkId>) -> Result<Vec<ChunkId>> {
        Ok(ids)
    }

    async fn put_chunks(&self, _: Vec<Packed>) -> Result<()> {
        Ok(())
    }

    async fn get_chunks(&self, _: Vec<ChunkId>) -> Result<Vec<Packed>> {
        Ok(Vec::new())
    }

    async fn own_chunks(&self, _: ChunksRequest) -> Result<ChunksReply> {
        Err(Fault::new("peer/stranger", "who is that?"))
    }

    async fn adopt(&self, _: AdoptRequest) -> Result<AdoptReply> {
        Err(Fault::new("conflict/member", "this node is a member already"))
    }
}
