//! Sessions with agents, and what the leader does for the runs.

use std::collections::BTreeMap;

use tenon_engine::plan::Placement;
use tenon_engine::{AttemptId, RunId};
use tenon_journal::bugs;
use tenon_proto::agent::v1::{
    Acknowledge, AgentMessage, CoordinatorMessage, EndRun, Heartbeat, Hello, Stop, Welcome,
    agent_message, coordinator_message,
};
use tenon_reporter::history::RunStatus;

use super::leases::Terms;
use super::rounds::Round;
use super::{CloseReason, Coordinator, Output, Own};
use crate::command::Command;
use crate::duties::SessionId;
use crate::error::Result;
use crate::materials::Materials;
use crate::replica::{AgentRecord, Offer};
use crate::wire;

impl Coordinator {
    pub(super) fn attach(&mut self, session: SessionId, hello: Hello) -> Result<()> {
        if self.leading.is_none() {
            self.out.push(Output::Close(session, CloseReason::NotLeader));
            return Ok(());
        }
        let known = self.replica.meta().agents.get(&hello.name);
        // Incarnations are ULIDs: an older one is a life that another has followed. Its reports are
        // nobody's any more, also when that other one is gone.
        if let Some(known) = known.filter(|known| known.incarnation > hello.incarnation) {
            let is_there = known.is_up() || self.duties.session(&hello.name).is_some();
            let why = if is_there { CloseReason::Superseded } else { CloseReason::LifeOver };
            self.out.push(Output::Close(session, why));
            return Ok(());
        }
        let offer = Offer::of(&hello);
        let known = known.filter(|known| known.incarnation == hello.incarnation);
        let mut terms = Terms::of_fleet(&self.options.leases, self.leases.count() + 1);
        // A life's lease only gets longer: an earlier heartbeat may have been answered for the longer one.
        terms.lease_ms = terms.lease_ms.max(known.map_or(0, |known| known.lease_ms));
        let is_known = known.is_some_and(|known| {
            known.is_up() && known.lease_ms >= terms.lease_ms && known.offer == offer
        });
        let name = hello.name.clone();
        self.leases.heard(&name, self.steady);
        let (engine, agents) = (self.replica.engine(), &self.replica.meta().agents);
        if let Some(before) = self.duties.attach(session, hello, terms, engine, agents) {
            self.out.push(Output::Close(before, CloseReason::Superseded));
        }
        if !is_known || self.leases.is_given_up(&name) {
            self.propose_agent(session);
            return Ok(());
        }
        if self.leases.are_given() {
            self.rounds.hello(session);
            return Ok(());
        }
        self.welcome(session)
    }

    /// Lets every member know of the agent that has said hello.
    fn propose_agent(&mut self, session: SessionId) {
        let Some((hello, terms)) = self.duties.newcomer(session) else { return };
        let command = Command::Agent {
            time: self.now,
            agent: hello.name.clone(),
            incarnation: hello.incarnation.clone(),
            running: running(hello),
            offer: Box::new(Offer::of(hello)),
            lease_ms: terms.lease_ms,
            term: self.term,
        };
        self.propose_own(&command, Own::Hello(session));
    }

    /// The session stands: every member knows of the agent, and this one led after it had said hello.
    pub(super) fn welcome(&mut self, session: SessionId) -> Result<()> {
        let Some((hello, terms)) = self.duties.newcomer(session) else { return Ok(()) };
        let hello = hello.clone();
        let known = self.replica.meta().agents.get(&hello.name);
        let is_up = |known: &&AgentRecord| known.incarnation == hello.incarnation && known.is_up();
        let Some(known) = known.filter(is_up) else {
            self.end_session(session);
            return Ok(());
        };
        let welcome = Welcome {
            node: self.options.node,
            node_name: self.options.name.clone(),
            cluster_id: self.replica.meta().cluster.clone(),
            acknowledged: known.last,
            lease_ms: terms.lease_ms,
            heartbeat_ms: terms.heartbeat_ms,
        };
        self.leases.admit(hello.name.clone(), known.lease_ms, self.steady);
        self.tell_one(session, coordinator_message::Message::Welcome(welcome));
        for run in &hello.runs {
            let Ok(id) = run.parse::<RunId>() else { continue };
            if !self.replica.engine().contains(id) {
                let keep_claims = self.keeps_claims(id)? || self.replica.uses_claims_of(id);
                let end = EndRun { run_id: run.clone(), keep_claims };
                self.tell_one(session, coordinator_message::Message::EndRun(end));
            }
        }
        for attempt in running(&hello) {
            let mut placed = self.replica.engine().placed_of(attempt.run);
            let is_its_own = placed.any(|(at, agent)| at == attempt && agent == hello.name);
            drop(placed);
            if !is_its_own {
                // Another placement may act already: it gets no time.
                let stop = Stop {
                    attempt: Some(wire::attempt_to_wire(&attempt)),
                    reason: "superseded".to_owned(),
                    grace_ms: 0,
                };
                self.tell_one(session, coordinator_message::Message::Stop(stop));
            }
        }
        let (engine, agents) = (self.replica.engine(), &self.replica.meta().agents);
        if let Some(number) = self.duties.admit(session, engine, agents) {
            self.rounds.heartbeat(session, number, self.now);
        }
        Ok(())
    }

    pub(super) fn detach(&mut self, session: SessionId) {
        let (engine, agents) = (self.replica.engine(), &self.replica.meta().agents);
        self.duties.detach(session, engine, agents);
    }

    /// A quorum has confirmed that this member led when these had come.
    pub(super) fn answer_round(&mut self, round: Round) -> Result<()> {
        for session in round.hellos {
            let Some((hello, _)) = self.duties.newcomer(session) else { continue };
            if self.leases.is_given_up(&hello.name) {
                self.propose_agent(session);
            } else {
                self.welcome(session)?;
            }
        }
        for (session, number) in round.heartbeats {
            let Some(hello) = self.duties.agent(session) else { continue };
            if !self.leases.is_given_up(&hello.name) {
                let heartbeat = Heartbeat { number, ..Heartbeat::default() };
                self.tell_one(session, coordinator_message::Message::Heartbeat(heartbeat));
            }
        }
        Ok(())
    }

    fn heartbeat(&mut self, session: SessionId, heartbeat: Heartbeat) {
        let (engine, agents) = (self.replica.engine(), &self.replica.meta().agents);
        self.duties.take_disk(session, heartbeat.disk_free_bytes, engine, agents);
        if !self.leases.are_given() {
            self.tell_one(session, coordinator_message::Message::Heartbeat(heartbeat));
            return;
        }
        if self.duties.is_outgrown(session, self.leases.count()) {
            self.end_session(session);
        } else if self.duties.take_heartbeat(session, heartbeat.number) {
            self.rounds.heartbeat(session, heartbeat.number, self.now);
        }
    }

    /// The agent is to begin another session.
    fn end_session(&mut self, session: SessionId) {
        self.detach(session);
        self.out.push(Output::Close(session, CloseReason::Again));
    }

    /// Agents that were removed while they had a session: they dial in again, and belong to the fleet
    /// again.
    pub(super) fn end_sessions_of_removed<'a>(
        &mut self,
        agents: impl IntoIterator<Item = &'a String>,
    ) {
        for agent in agents {
            let record = self.replica.meta().agents.get(agent);
            let session = self.duties.session(agent);
            if let (true, Some(session)) = (record.is_some_and(|it| it.removed), session) {
                self.end_session(session);
            }
        }
    }

    /// Leadership begins: whoever is up may be acting.
    pub(super) fn begin_leases(&mut self) {
        let least = self.options.leases.lease_ms;
        let agents = self.replica.meta().agents.iter().filter(|(_, agent)| agent.is_up());
        let agents = agents.map(|(name, agent)| (name.clone(), agent.lease_ms.max(least)));
        self.leases.begin(agents, self.steady);
    }

    /// Gives up the agents that were not heard from for too long.
    fn give_up_the_silent(&mut self) {
        let duties = &self.duties;
        for (agent, silent_ms) in
            self.leases.expire(self.steady, |agent| duties.session(agent).is_some())
        {
            if let Some(session) = self.duties.session(&agent) {
                self.end_session(session);
            }
            let known = self.replica.meta().agents.get(&agent);
            let incarnation = known.map(|known| known.incarnation.clone()).unwrap_or_default();
            let (time, term) = (self.now, self.term);
            let lost = Command::Lost { time, agent: agent.clone(), incarnation, silent_ms, term };
            self.propose_own(&lost, Own::Lost(agent));
        }
    }

    /// Whether a run that is over may still be gone on with.
    pub(super) fn keeps_claims(&self, run: RunId) -> Result<bool> {
        let Some(record) = self.replica.index().get(run)? else { return Ok(false) };
        let ended = record.summary.ended.unwrap_or_default();
        let succeeded = record.summary.status == RunStatus::Succeeded;
        let late = ended.plus_millis(self.options.keep_claims_ms) < self.now;
        Ok(!succeeded && !late && !record.homes.is_empty())
    }

    pub(super) fn said(&mut self, session: SessionId, message: AgentMessage) {
        use agent_message::Message;
        let Some(hello) = self.duties.agent(session) else { return };
        let (agent, incarnation) = (hello.name.clone(), hello.incarnation.clone());
        self.leases.heard(&agent, self.steady);
        let reports = match message.message {
            Some(Message::Report(report)) => vec![report],
            Some(Message::Reports(reports)) => reports.reports,
            Some(Message::Progress(progress)) => {
                self.out.push(Output::Progress(progress));
                return;
            }
            Some(Message::Heartbeat(heartbeat)) => {
                self.heartbeat(session, heartbeat);
                return;
            }
            Some(Message::Hello(_)) | None => return,
        };
        for report in reports {
            let number = report.number;
            // A report that cannot be understood would be repeated for ever: it is taken as said.
            let Ok((attempt, mut report)) = wire::report_from_wire(report) else {
                let (agent, incarnation) = (agent.clone(), incarnation.clone());
                let command = Command::Skip { time: self.now, agent, incarnation, number };
                self.propose_own(&command, Own::Session(session));
                continue;
            };
            self.keep(attempt.run);
            self.duties.hide_secrets(attempt.run, &mut report, self.replica.engine());
            if bugs::is_on(bugs::Bug::AcknowledgeEarly) {
                let acknowledge = Acknowledge { number };
                self.tell_one(session, coordinator_message::Message::Acknowledge(acknowledge));
            }
            let (agent, incarnation) = (agent.clone(), incarnation.clone());
            let time = self.now;
            let command = Command::Report { time, agent, incarnation, number, attempt, report };
            self.propose_own(&command, Own::Session(session));
        }
    }

    /// Has a run's materials at hand, decrypted.
    pub(super) fn keep(&mut self, run: RunId) {
        if self.duties.keeps(run) {
            return;
        }
        let Some(sealed) = self.replica.materials(run) else { return };
        let opened = match &self.options.key {
            Some(key) => key.open(run, &sealed).ok(),
            None if sealed.is_empty() => Some(Materials::default()),
            None => None,
        };
        if let Some(materials) = opened {
            self.duties.keep(run, materials);
        }
    }

    pub(super) fn acknowledge(&mut self, reports: Vec<(String, String, u64)>) {
        let mut last: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (agent, incarnation, number) in reports {
            last.insert((agent, incarnation), number);
        }
        for ((agent, incarnation), number) in last {
            let Some(session) = self.duties.session(&agent) else { continue };
            let current = self.duties.agent(session);
            if current.is_some_and(|hello| hello.incarnation == incarnation) {
                let acknowledge = Acknowledge { number };
                self.tell_one(session, coordinator_message::Message::Acknowledge(acknowledge));
            }
        }
    }

    pub(super) fn tell(&mut self, messages: Vec<(SessionId, CoordinatorMessage)>) {
        self.out.extend(
            messages.into_iter().map(|(session, message)| Output::ToAgent(session, message)),
        );
    }

    pub(super) fn tell_one(&mut self, session: SessionId, message: coordinator_message::Message) {
        let message = CoordinatorMessage { message: Some(message) };
        self.out.push(Output::ToAgent(session, message));
    }

    pub(super) fn do_duties(&mut self) -> Result<()> {
        let mut messages = Vec::new();
        for run in self.duties.take_changed() {
            if self.replica.engine().contains(run) {
                self.keep(run);
                self.duties.work(self.replica.engine(), run, &mut messages);
            }
        }
        let (engine, agents) = (self.replica.engine(), &self.replica.meta().agents);
        self.duties.drain(engine, agents, self.now, &mut messages);
        self.tell(messages);
        if self.rounds.is_due(self.now) {
            let id = self.next_id();
            self.rounds.ask(id, self.now);
            self.out.push(Output::ReadIndex(id));
        }
        if self.hold_until.is_some() {
            return Ok(());
        }
        self.give_up_the_silent();
        for Placement { attempt, agent } in self.duties.placements(self.now) {
            let place = Command::Place { time: self.now, attempt: attempt.clone(), agent };
            self.propose_own(&place, Own::Place(attempt));
        }
        for told in self.duties.deferrals(self.now) {
            let message = told.to_string();
            let reason = if told.could_fit { "infra/no-room" } else { "infra/no-agent" };
            let (time, attempt, reason) = (self.now, told.attempt, reason.to_owned());
            let defer = Command::Defer { time, attempt, reason, message };
            self.propose_own(&defer, Own::Other);
        }
        let due = self.replica.engine().next_deadline().is_some_and(|due| due <= self.now);
        if due && !self.is_ticking() {
            self.propose_own(&Command::Tick { time: self.now }, Own::Tick);
        }
        Ok(())
    }
}

/// The attempts that an agent goes on with.
fn running(hello: &Hello) -> Vec<AttemptId> {
    let running = hello.running.iter();
    running.filter_map(|attempt| wire::attempt_from_wire(Some(attempt.clone())).ok()).collect()
}
