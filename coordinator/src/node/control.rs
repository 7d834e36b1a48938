//! The node as its server sees it: requests of clients, looks at runs, sessions of agents, messages
//! of other members.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tenon_consensus::Role;
use tenon_engine::explain::RunState;
use tenon_engine::rerun::Rerun;
use tenon_engine::{RunId, Submission};
use tenon_proto::agent::v1::Hello;
use tenon_proto::control::v1::{
    Agent, ClusterStatus, ExplainRunResponse, Member as WireMember, ProbeResponse, Run,
};
use tenon_proto::raft::v1::{AdoptReply, AdoptRequest, Chunk, FetchRequest, Header};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::apply_thread::{SessionMessage, now};
use super::membership::{as_time, stopping, uninitialised};
use super::raft_thread::RaftInput;
use super::{Handle, MemberNode};
use crate::command::IdempotencyKey;
use crate::coordinator::{CloseReason, Request, RequestError};
use crate::entry;
use crate::error::Error;
use crate::event_log::{DocumentKind, EventLogReader, Record};
use crate::intake::{Chance, Prepared};
use crate::replica::{Member, Reply, RunIndex};
use crate::server::{
    Cancel, Change, ControlPlane, EventSource, Fault, Gauges, Items, Once, Readiness, Result,
    Session, Started,
};
use crate::{history, materials::Materials, show};

/// Messages that may wait on their way to an agent's stream.
const SESSION: usize = 256;
/// A follower that is at most so many entries behind has caught up.
const NEARLY: u64 = 1000;
/// How long telling where a member is reached may take, in milliseconds.
const MOVE_MS: i64 = 5_000;
/// So many members may have been added without this node having heard of it.
const UNHEARD_OF: u64 = 16;

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
    fn joined(&self) -> Result<Arc<MemberNode>> {
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

    /// What a run was submitted with.
    fn submission(&self, run: RunId) -> Result<(Submission, Materials, crate::replica::RunRecord)> {
        let member = self.joined()?;
        let record = member.index.get(run)?.ok_or_else(|| Fault::no_such_run(run))?;
        let content = document(&member.events, record.submission, DocumentKind::Submission)?;
        let damaged = || Fault::internal("the stored submission is damaged");
        let (length, rest) = content.split_first_chunk::<8>().ok_or_else(damaged)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| damaged())?;
        let (json, sealed) = rest.split_at_checked(length).ok_or_else(damaged)?;
        let submission = serde_json::from_slice(json).map_err(|_| damaged())?;
        let materials = match &self.options().key {
            Some(key) => key.open(run, sealed).map_err(Fault::internal)?,
            None if sealed.is_empty() => Materials::default(),
            None => return Err(RequestError::NoKey.into()),
        };
        Ok((submission, materials, record))
    }

    /// Where the final objects of a run are, or that it goes on.
    fn objects_of(record: &crate::replica::RunRecord) -> Result<u64> {
        record.objects.ok_or_else(|| {
            Fault::new("conflict/run-active", format!("run {} goes on", record.summary.id))
                .hint("wait for its end, or cancel it")
        })
    }
}

/// A document of a run, out of the event log.
fn document(events: &EventLogReader, at: u64, kind: DocumentKind) -> Result<Vec<u8>> {
    let gone = || Fault::new("gone/history", "the run's documents are no longer kept on this node");
    let records = events.read(at, 1)?;
    let (_, record) = records.first().filter(|(index, _)| *index == at).ok_or_else(gone)?;
    match Record::parse(record).map_err(Fault::internal)? {
        Record::Document { kind: found, content, .. } if found == kind => Ok(content),
        _ => Err(Fault::internal("another record is where a document should be")),
    }
}

/// The event log for the server's streams.
struct Events {
    reader: EventLogReader,
    index: RunIndex,
}

impl EventSource for Events {
    fn visible(&self) -> watch::Receiver<u64> {
        self.reader.watch()
    }

    fn first_index(&self) -> u64 {
        self.reader.first_index()
    }

    fn read_memory(&self, from: u64, max_bytes: usize) -> Option<Vec<(u64, Arc<[u8]>)>> {
        self.reader.read_tail(from, self.reader.visible(), max_bytes)
    }

    fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<(u64, Arc<[u8]>)>> {
        Ok(self.reader.read(from, max_bytes)?)
    }

    fn after(&self, seq: u64) -> Result<u64> {
        Ok(self.reader.after(seq)?)
    }

    fn ranges_of(&self, run: RunId, from: u64) -> Result<Vec<(u64, u64)>> {
        let ranges = self.index.events(run, from)?;
        Ok(ranges.into_iter().map(|(first, end)| (first, end - 1)).collect())
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

    fn status(&self) -> ClusterStatus {
        let software = env!("CARGO_PKG_VERSION").to_owned();
        let protocol = u32::from(entry::VERSION);
        let (ready, not_ready_because) = match self.readiness() {
            Readiness::Ready => (true, String::new()),
            Readiness::NotReady(why) => (false, why),
        };
        let Some(member) = self.member() else {
            return ClusterStatus {
                node_name: self.options().name.clone(),
                role: "uninitialised".to_owned(),
                software,
                protocol,
                ready,
                not_ready_because,
                ..ClusterStatus::default()
            };
        };
        let (raft, state) = (member.standing.raft(), member.standing.state());
        let members = member.members.borrow().clone();
        let members: Vec<WireMember> =
            members.into_iter().map(|(id, known)| show::member(id, known, &raft)).collect();
        let agents = state.agents.into_iter().map(|agent| Agent {
            name: agent.name,
            state: "up".to_owned(),
            slots: agent.slots,
            running: agent.running,
            backends: agent.backends,
            labels: agent.labels.into_iter().collect(),
        });
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
            agents: agents.collect(),
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
        let tasks = [("running", state.placed), ("waiting", state.waiting)];
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
            agents: u64::try_from(state.agents.len()).unwrap_or(u64::MAX),
        }
    }

    async fn change(&self, change: Change, deadline: Instant) -> Result<()> {
        let changed = match change {
            Change::Init { peers } => self.init(&peers, deadline).await,
            Change::Add { url, name, learner } => self.add(&url, &name, learner, deadline).await,
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
                term: member.standing.raft().term,
                micros: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            }),
            other => Err(Fault::internal(format!("a probe gave {other:?}"))),
        }
    }

    async fn session(&self, hello: Hello) -> Result<Session> {
        let member = self.joined()?;
        let attached = self.attach(hello).await;
        let (session, mut messages) = attached.ok_or_else(stopping)?;
        // The first message tells whether there is a session at all.
        let first = match messages.recv().await.ok_or_else(stopping)? {
            SessionMessage::Close(reason) => return Err(self.closed(reason)),
            SessionMessage::Message(message) => *message,
        };
        let (to_node, mut said) = mpsc::channel(SESSION);
        let (to_agent, from_node) = mpsc::channel(SESSION);
        let handle = self.clone();
        let mut ended = member.ended.clone();
        self.shared.runtime.spawn(async move {
            // Neither direction waits for the other: an agent that is told much while it says much
            // would otherwise wait for us as we wait for it.
            let tell = async {
                let mut next = Ok(first);
                while to_agent.send(next).await.is_ok() {
                    next = match messages.recv().await {
                        Some(SessionMessage::Message(message)) => Ok(*message),
                        Some(SessionMessage::Close(reason)) => Err(handle.closed(reason)),
                        None => Err(stopping()),
                    };
                    if next.is_err() {
                        // Nobody may be listening any more.
                        let _ = to_agent.send(next).await;
                        break;
                    }
                }
            };
            let listen = async {
                while let Some(message) = said.recv().await {
                    if !handle.said(session, message).await {
                        break;
                    }
                }
            };
            tokio::select! {
                () = tell => {}
                () = listen => {}
                _ = async { ended.wait_for(|ended| *ended).await.is_ok() } => {
                    let _ = to_agent.send(Err(stopping())).await;
                }
            }
            handle.detach(session).await;
        });
        Ok(Session { to_node, from_node })
    }

    fn greet(&self, header: &Header) -> Result<Header> {
        let member = self.joined()?;
        let me = &member.identity;
        let refuse = |code: &'static str, why: String| Err(Fault::new(code, why));
        if header.cluster_id != me.cluster {
            return refuse("peer/cluster", format!("this node belongs to cluster {}", me.cluster));
        }
        if header.to != me.node {
            return refuse(
                "peer/not-me",
                format!("this node has id {}, not {}", me.node, header.to),
            );
        }
        // A release reads what the one before it writes.
        let known = [u32::from(entry::VERSION), u32::from(entry::VERSION) - 1];
        if !known.contains(&header.protocol) {
            let why =
                format!("this node speaks protocol {}, not {}", entry::VERSION, header.protocol);
            return refuse("peer/protocol", why);
        }
        if header.key_fingerprint != self.key_fingerprint() {
            return refuse("peer/key", "the two nodes have different secrets keys".to_owned());
        }
        self.know(&member, header)?;
        self.header(header.from).ok_or_else(uninitialised)
    }

    async fn receive(&self, from: u64, messages: Vec<Bytes>) -> Result<()> {
        let member = self.joined()?;
        member.raft.send(RaftInput::Messages(from, messages)).map_err(|_| stopping())
    }

    async fn fetch(&self, request: FetchRequest) -> Result<Items<Chunk>> {
        let header = request.header.clone().unwrap_or_default();
        self.greet(&header)?;
        let member = self.joined()?;
        let (sender, receiver) = mpsc::channel(2);
        self.shared.runtime.spawn_blocking(move || {
            let _ = member.raft.send(RaftInput::SnapshotProgress(header.from));
            // One chunk for a request: the receiver asks for the next when this one is stored.
            let chunk = member.snapshots.read(&request).map_err(Fault::from);
            let _ = sender.blocking_send(chunk);
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    async fn adopt(&self, request: AdoptRequest) -> Result<AdoptReply> {
        Handle::adopt(self, request).await
    }
}

impl Handle {
    /// Whether another node may speak to this one as a member. Ids are given in ascending order: one
    /// that was given already, as far as this node knows, and is not a member was removed or never was
    /// one; a higher one belongs to a member that this node has yet to hear of, and needs to hear from.
    fn know(&self, member: &MemberNode, header: &Header) -> Result<()> {
        let known = member.members.borrow().get(&header.from).cloned();
        if let Some(known) = known {
            self.follow_move(member, header, &known);
            return Ok(());
        }
        let next = member.standing.state().next_node;
        if header.from < next || header.from > next + UNHEARD_OF {
            let why = format!("node {} is no member of this cluster", header.from);
            return Err(Fault::new("peer/stranger", why));
        }
        let new = Member { name: String::new(), url: header.from_url.clone() };
        self.shared.members.send_modify(|members| {
            members.insert(header.from, new);
        });
        member.raft.send(RaftInput::Vouch(header.from)).map_err(|_| stopping())
    }

    /// The leader tells all members when one of them is reached elsewhere than before.
    fn follow_move(&self, member: &MemberNode, header: &Header, known: &Member) {
        let moved = !header.from_url.is_empty() && header.from_url != known.url;
        if moved && member.standing.raft().role == Role::Leader {
            let (handle, node, url) = (self.clone(), header.from, header.from_url.clone());
            self.shared.runtime.spawn(async move {
                let deadline = now().plus_millis(MOVE_MS);
                // One that is not done is tried again when the member greets again.
                let _ = handle.request(Request::Move { node, url }, deadline).await;
            });
        }
    }

    fn closed(&self, reason: CloseReason) -> Fault {
        match reason {
            CloseReason::NotLeader => self.not_leader(),
            CloseReason::Superseded => Fault::new(
                "conflict/agent-superseded",
                "another process has begun a session under the name of this agent",
            )
            .hint("agents need different names: --name"),
            CloseReason::Again => Fault::new(
                "unavailable/again",
                "some reports could not be taken; begin a new session and send them again",
            ),
        }
    }
}

fn not_pending(run: RunId) -> Fault {
    Fault::new("conflict/run-not-pending", format!("run {run} is not pending"))
}
