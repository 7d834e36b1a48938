//! The node as its server sees it: requests of clients and looks at runs; sessions of agents and
//! what other members say are passed on.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tenon_blobs::{ChunkId, Packed};
use tenon_consensus::Role;
use tenon_engine::explain::RunState;
use tenon_engine::rerun::Rerun;
use tenon_engine::{RunId, Submission};
use tenon_proto::agent::v1::Hello;
use tenon_proto::control::v1::{
    Agent, AuditEntry, AuditRequest, ClusterStatus, ExplainRunResponse, Member as WireMember,
    ProbeResponse, Run,
};
use tenon_proto::raft::v1::{
    AdoptReply, AdoptRequest, Chunk, ChunksReply, ChunksRequest, FetchRequest, Header,
};
use tenon_trust::{Authority, Done, Trust};
use tokio::sync::watch;
use tokio::time::Instant;

use super::agents::in_contact;
use super::apply_thread::now;
use super::documents::{Events, document};
use super::membership::{as_time, stopping, uninitialised};
use super::raft_thread::RaftInput;
use super::{Handle, MemberNode};
use crate::command::IdempotencyKey;
use crate::coordinator::{Request, RequestError};
use crate::entry;
use crate::error::Error;
use crate::event_log::DocumentKind;
use crate::intake::{Chance, Prepared};
use crate::replica::Reply;
use crate::server::{
    AgentDecision, Cancel, Change, ControlPlane, EventSource, Fault, Gauges, Items, Once,
    Readiness, Result, Session, Started,
};
use crate::{history, materials::Materials, show};

/// A follower that is at most so many entries behind has caught up.
const NEARLY: u64 = 1000;
/// How long a look at the agents may take for whoever asks how the cluster stands.
const AGENTS: Duration = Duration::from_secs(1);

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        match error {
            Error::Request(error) => error.into(),
            error => Fault::new("internal/fault", error.to_string()),
        }
    }
}

impl From<RequestError> for Fault {
    fn from(error: RequestError) -> Fault {
        let fault = Fault::new(error.code(), error.to_string());
        match error {
            RequestError::NoKey => fault.hint("start every coordinator with --secrets-key FILE"),
            _ => fault,
        }
    }
}

impl Handle {
    pub(super) fn joined(&self) -> Result<Arc<MemberNode>> {
        self.member().ok_or_else(uninitialised)
    }

    /// This node cannot do it, because it does not lead.
    pub(super) fn not_leader(&self) -> Fault {
        let fault = Fault::new("unavailable/not-leader", "this node is not the leader");
        match self.leader_url() {
            Some(url) => fault.leader(url),
            None => fault.hint("there is no leader at the moment; try again"),
        }
    }

    fn leader_url(&self) -> Option<String> {
        let member = self.member()?;
        let leader = member.standing.raft().leader?;
        let members = member.members.borrow();
        members.get(&leader).map(|leader| leader.url.clone())
    }

    /// Submits, and gives the run as it then stands on this node.
    async fn start(
        &self,
        submission: Box<Submission>,
        materials: Materials,
        once: Option<Once>,
        deadline: Instant,
    ) -> Result<Started> {
        let member = self.joined()?;
        let key = once.map(|once| IdempotencyKey { key: once.key, request: once.request });
        let request = Request::Submit { submission, materials, key };
        match self.request(request, as_time(deadline)).await? {
            Reply::Submitted { run, existing } => {
                let record = member.index.get(run)?.ok_or_else(|| Fault::no_such_run(run))?;
                Ok(Started { run: show::run(&record), replayed: existing })
            }
            Reply::KeyConflict { run } => Err(Fault::new(
                "conflict/idempotency-key",
                format!(
                    "the idempotency key was used for another request, which started run {run}"
                ),
            )
            .hint("a key stands for one request: make a new key for a new run")),
            other => Err(Fault::internal(format!("submitting gave {other:?}"))),
        }
    }
}

#[tonic::async_trait]
impl ControlPlane for Handle {
    async fn submit(
        &self,
        prepared: Box<Prepared>,
        once: Option<Once>,
        deadline: Instant,
    ) -> Result<Started> {
        let Prepared { submission, materials } = *prepared;
        self.start(Box::new(submission), materials, once, deadline).await
    }

    async fn cancel(&self, run: RunId, cancel: Cancel, deadline: Instant) -> Result<()> {
        let Cancel { mode, now, message } = cancel;
        let request = Request::Cancel { run, mode, message, now };
        match self.request(request, as_time(deadline)).await? {
            Reply::Over(run) => Err(Fault::new("conflict/run-ended", format!("run {run} is over"))),
            Reply::NoSuchRun(run) => Err(Fault::no_such_run(run)),
            _ => Ok(()),
        }
    }

    async fn rerun(
        &self,
        run: RunId,
        from_failed: bool,
        once: Option<Once>,
        deadline: Instant,
    ) -> Result<Started> {
        let handle = self.clone();
        let prepare = move || -> Result<(Submission, Materials)> {
            let (submission, materials, record) = handle.submission(run)?;
            let mut rerun = Rerun::whole(run);
            if from_failed {
                let member = handle.joined()?;
                let at = Handle::objects_of(&record)?;
                let content = document(&member.events, at, DocumentKind::Objects)?;
                let objects = history::objects_from_json(&content)?;
                rerun = Rerun::from_failed(&submission, &objects).map_err(|why| {
                    Fault::new(format!("conflict/{}", why.code()), why.to_string())
                })?;
                if let Some(claims) = &mut rerun.claims {
                    claims.homes.extend(record.homes);
                }
            }
            let disk = handle.shared.disk.clone();
            let mut random = || disk.entropy();
            let id = Chance { now: now(), random: &mut random }.run_id();
            Ok((submission.again(id, rerun), materials))
        };
        let prepared = tokio::task::spawn_blocking(prepare).await.map_err(Fault::internal)?;
        let (submission, materials) = prepared?;
        self.start(Box::new(submission), materials, once, deadline).await
    }

    async fn release(&self, run: RunId, deadline: Instant) -> Result<()> {
        let look = move |it: &crate::Coordinator| it.replica().engine().explain(run);
        let told = self.look(look).await.flatten();
        let pending = told.map(|told| told.state == RunState::Pending);
        match self.request(Request::Release { run }, as_time(deadline)).await? {
            Reply::NoSuchRun(run) => Err(Fault::no_such_run(run)),
            Reply::Over(run) => Err(not_pending(run)),
            _ if pending == Some(false) => Err(not_pending(run)),
            _ => Ok(()),
        }
    }

    async fn read_barrier(&self, deadline: Instant) -> Result<()> {
        self.joined()?;
        self.request(Request::Read, as_time(deadline)).await?;
        Ok(())
    }

    fn get(&self, run: RunId) -> Result<Option<Run>> {
        Ok(self.joined()?.index.get(run)?.map(|record| show::run(&record)))
    }

    fn visit_runs(
        &self,
        before: Option<RunId>,
        visit: &mut dyn FnMut(Run) -> ControlFlow<()>,
    ) -> Result<()> {
        Ok(self.joined()?.index.visit(before, &mut |record| visit(show::run(&record)))?)
    }

    fn explain(&self, run: RunId) -> Result<Option<ExplainRunResponse>> {
        let Some(record) = self.joined()?.index.get(run)? else { return Ok(None) };
        let look = self.look_blocking(move |it| {
            it.replica().engine().explain(run).map(|told| (told, it.explain_waiting(run)))
        });
        let (told, waiting) = match look.ok_or_else(stopping)? {
            Some((told, waiting)) => (Some(told), waiting),
            None => (None, Vec::new()),
        };
        Ok(Some(show::explanation(&record, told, &waiting)))
    }

    fn objects(&self, run: RunId) -> Result<Option<String>> {
        let member = self.joined()?;
        let Some(record) = member.index.get(run)? else { return Ok(None) };
        if let Some(at) = record.objects {
            let content = document(&member.events, at, DocumentKind::Objects)?;
            let objects = history::shown(history::objects_from_json(&content)?);
            return Ok(Some(history::objects_to_yaml(&objects)));
        }
        let objects = self.look_blocking(move |it| it.replica().engine().objects(run));
        let objects = history::shown(objects.ok_or_else(stopping)?);
        Ok(Some(history::objects_to_yaml(&objects)))
    }

    fn events(&self) -> Arc<dyn EventSource> {
        match self.member() {
            Some(member) => {
                Arc::new(Events { reader: member.events.clone(), index: member.index.clone() })
            }
            None => Arc::new(show::NoEvents::default()),
        }
    }

    async fn status(&self) -> ClusterStatus {
        let software = env!("CARGO_PKG_VERSION").to_owned();
        let protocol = u32::from(entry::VERSION);
        let (ready, not_ready_because) = match self.readiness() {
            Readiness::Ready => (true, String::new()),
            Readiness::NotReady(why) => (false, why),
        };
        let Some(member) = self.member() else {
            return ClusterStatus {
                node: self.joined_as().unwrap_or(0),
                node_name: self.options().name.clone(),
                role: "uninitialised".to_owned(),
                software,
                protocol,
                ready,
                not_ready_because,
                ..ClusterStatus::default()
            };
        };
        let agents = tokio::time::timeout(AGENTS, self.look(in_contact)).await.ok().flatten();
        let (raft, state) = (member.standing.raft(), member.standing.state());
        let members = member.members.borrow().clone();
        let members: Vec<WireMember> =
            members.into_iter().map(|(id, known)| show::member(id, known, &raft)).collect();
        ClusterStatus {
            cluster_id: member.identity.cluster.clone(),
            node: member.identity.node,
            node_name: member.identity.name.clone(),
            role: show::role(&raft).to_owned(),
            leader: raft.leader.unwrap_or(0),
            leader_url: self.leader_url().unwrap_or_default(),
            term: raft.term,
            commit: raft.commit,
            applied: state.applied,
            last_index: raft.last,
            first_index: raft.first,
            members,
            agents: agents.unwrap_or_default(),
            active_runs: state.active_runs,
            first_seq: member.events.first_seq().unwrap_or(0),
            last_seq: state.last_seq,
            software,
            protocol,
            ready,
            not_ready_because,
        }
    }

    fn readiness(&self) -> Readiness {
        let not = |why: &str| Readiness::NotReady(why.to_owned());
        let Some(member) = self.member() else { return not("it belongs to no cluster yet") };
        if *member.ended.borrow() {
            return not("it has stopped, see its log");
        }
        let (raft, state) = (member.standing.raft(), member.standing.state());
        if !raft.conf_state.is_empty() && !raft.conf_state.contains(member.identity.node) {
            return not("it was removed from the cluster");
        }
        if raft.leader.is_none() {
            return not("it knows no leader: is there a majority of nodes?");
        }
        if raft.commit > state.applied + NEARLY {
            return not("it has not caught up with the leader yet");
        }
        Readiness::Ready
    }

    fn gauges(&self) -> Gauges {
        let Some(member) = self.member() else { return Gauges::default() };
        let (raft, state) = (member.standing.raft(), member.standing.state());
        let fleet = member.standing.fleet();
        let (blob_chunks, blob_bytes) = member.blobs.size();
        let tasks = [("running", fleet.placed), ("waiting", state.waiting)];
        Gauges {
            term: raft.term,
            is_leader: raft.role == Role::Leader,
            has_leader: raft.leader.is_some(),
            commit_index: raft.commit,
            applied_index: state.applied,
            last_index: raft.last,
            first_index: raft.first,
            members: u64::try_from(member.members.borrow().len()).unwrap_or(u64::MAX),
            proposals_pending: state.under_way,
            log_bytes: member.standing.log_bytes.load(Ordering::Relaxed),
            history_bytes: member.events.journal().disk_bytes(),
            store_bytes: member.index.disk_bytes(),
            active_runs: state.active_runs,
            tasks: tasks.into_iter().map(|(state, count)| (state.to_owned(), count)).collect(),
            last_seq: state.last_seq,
            agents: fleet.agents,
            known_agents: fleet.known_agents,
            closed_agents: fleet.closed_agents,
            slots: fleet.slots,
            queued_runs: state.queued_runs,
            blob_chunks,
            blob_bytes,
        }
    }

    fn agents(&self) -> Result<Vec<Agent>> {
        self.show_agents()
    }

    fn agent(&self, name: &str) -> Result<Option<Agent>> {
        self.show_agent(name)
    }

    async fn decide_agent(
        &self,
        name: String,
        decision: AgentDecision,
        deadline: Instant,
    ) -> Result<()> {
        self.decide_about_agent(name, decision, deadline).await
    }

    async fn change(&self, change: Change, deadline: Instant) -> Result<()> {
        let changed = match change {
            Change::Init { peers } => self.init(&peers, deadline).await,
            Change::Add { url, name, learner, only } => {
                self.add(&url, &name, learner, only, deadline).await
            }
            Change::Remove { member, force } => self.remove(&member, force, deadline).await,
            Change::Transfer { to } => self.transfer(&to, deadline).await,
        };
        // Whoever looks now sees what has come of it.
        if let (Some(member), Some(status)) = (self.member(), self.raft_status().await) {
            member.standing.set_raft(status);
        }
        changed
    }

    async fn backup(&self, deadline: Instant) -> Result<Items<Bytes>> {
        self.read_barrier(deadline).await?;
        super::backup::stream(self).await
    }

    async fn probe(&self, payload: Bytes, deadline: Instant) -> Result<ProbeResponse> {
        let member = self.joined()?;
        let began = std::time::Instant::now();
        let request = Request::Probe { payload: payload.to_vec() };
        match self.request(request, as_time(deadline)).await? {
            Reply::Done { index } => Ok(ProbeResponse {
                index,
                term: member.standing.term(),
                micros: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            }),
            other => Err(Fault::internal(format!("a probe gave {other:?}"))),
        }
    }

    fn trust(&self) -> watch::Receiver<Arc<Trust>> {
        self.trust_view()
    }

    async fn change_trust(&self, change: tenon_trust::Change, deadline: Instant) -> Result<Done> {
        self.joined()?;
        self.agree_on_trust(change, deadline).await
    }

    fn authority(&self) -> Result<Authority> {
        self.joined()?;
        self.open_authority()
    }

    async fn audit_elsewhere(
        &self,
        request: AuditRequest,
        deadline: Instant,
    ) -> Vec<(String, Result<Vec<AuditEntry>, String>)> {
        self.audit_of_others(request, deadline).await
    }

    fn secrets_key(&self) -> Result<String> {
        self.key_for_joining()
    }

    async fn session(&self, hello: Hello) -> Result<Session> {
        self.begin_session(hello).await
    }

    fn greet(&self, header: &Header) -> Result<Header> {
        self.answer_greeting(header)
    }

    async fn receive(&self, from: u64, messages: Vec<Bytes>) -> Result<()> {
        let member = self.joined()?;
        member.raft.send(RaftInput::Messages(from, messages)).map_err(|_| stopping())
    }

    async fn fetch(&self, request: FetchRequest) -> Result<Items<Chunk>> {
        self.send_part(request)
    }

    async fn missing_chunks(&self, ids: Vec<ChunkId>) -> Result<Vec<ChunkId>> {
        self.chunks_missing(ids).await
    }

    async fn put_chunks(&self, chunks: Vec<Packed>) -> Result<()> {
        self.chunks_put(chunks).await
    }

    async fn get_chunks(&self, ids: Vec<ChunkId>) -> Result<Vec<Packed>> {
        self.chunks_get(ids).await
    }

    async fn own_chunks(&self, request: ChunksRequest) -> Result<ChunksReply> {
        Handle::own_chunks(self, request).await
    }

    async fn adopt(&self, request: AdoptRequest) -> Result<AdoptReply> {
        Handle::adopt(self, request).await
    }
}

fn not_pending(run: RunId) -> Fault {
    Fault::new("conflict/run-not-pending", format!("run {run} is not pending"))
}
