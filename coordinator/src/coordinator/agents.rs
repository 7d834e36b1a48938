//! Sessions with agents, and what the leader does for the runs.

use std::collections::BTreeMap;

use tenon_engine::plan::Placement;
use tenon_engine::report::Outcome;
use tenon_engine::{AttemptId, Report, RunId};
use tenon_journal::bugs;
use tenon_proto::agent::v1::{
    Acknowledge, AgentMessage, CoordinatorMessage, EndRun, Hello, Welcome, agent_message,
    coordinator_message,
};
use tenon_reporter::history::RunStatus;

use super::{CloseReason, Coordinator, Output, Own};
use crate::command::Command;
use crate::duties::SessionId;
use crate::error::Result;
use crate::materials::Materials;
use crate::replica::Offer;
use crate::wire;

impl Coordinator {
    pub(super) fn attach(&mut self, session: SessionId, hello: Hello) -> Result<()> {
        if self.leading.is_none() {
            self.out.push(Output::Close(session, CloseReason::NotLeader));
            return Ok(());
        }
        let known = self.replica.meta().agents.get(&hello.name);
        // Incarnations are ULIDs: an older one is a dead life, whose hello was on its way for long.
        if known.is_some_and(|known| known.incarnation > hello.incarnation) {
            self.out.push(Output::Close(session, CloseReason::Superseded));
            return Ok(());
        }
        let offer = Offer::of(&hello);
        let known = known.filter(|known| known.incarnation == hello.incarnation);
        let is_news = known.is_none_or(|known| known.offer != offer || known.removed);
        let welcome = Welcome {
            node: self.options.node,
            node_name: self.options.name.clone(),
            cluster_id: self.replica.meta().cluster.clone(),
            acknowledged: known.map_or(0, |known| known.last),
            heartbeat_ms: self.options.heartbeat_ms,
            ..Welcome::default()
        };
        let is_known = known.is_some();
        if is_news {
            let command = Command::Agent {
                time: self.now,
                agent: hello.name.clone(),
                incarnation: hello.incarnation.clone(),
                running: running(&hello),
                offer: Box::new(offer),
                term: self.term,
            };
            self.propose_own(&command, Own::Session(session));
        }
        self.tell_one(session, coordinator_message::Message::Welcome(welcome));
        for run in &hello.runs {
            let Ok(id) = run.parse::<RunId>() else { continue };
            if !self.replica.engine().contains(id) {
                let keep_claims = self.keeps_claims(id)?;
                let end = EndRun { run_id: run.clone(), keep_claims };
                self.tell_one(session, coordinator_message::Message::EndRun(end));
            }
        }
        let (engine, agents) = (self.replica.engine(), &self.replica.meta().agents);
        if let Some(before) = self.duties.attach(session, hello, is_known, engine, agents) {
            self.out.push(Output::Close(before, CloseReason::Superseded));
        }
        Ok(())
    }

    pub(super) fn detach(&mut self, session: SessionId) {
        let (engine, agents) = (self.replica.engine(), &self.replica.meta().agents);
        self.duties.detach(session, engine, agents);
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
        let reports = match message.message {
            Some(Message::Report(report)) => vec![report],
            Some(Message::Reports(reports)) => reports.reports,
            Some(Message::Progress(progress)) => {
                self.out.push(Output::Progress(progress));
                return;
            }
            Some(Message::Heartbeat(heartbeat)) => {
                self.tell_one(session, coordinator_message::Message::Heartbeat(heartbeat));
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
            self.duties.hide_secrets(attempt.run, &mut report);
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
        if bugs::is_on(bugs::Bug::ReplaceWithoutLease) {
            self.lose_out_of_contact();
        }
        if self.hold_until.is_some() {
            return Ok(());
        }
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

    /// The bug of placing attempts again whose agent is only out of contact.
    fn lose_out_of_contact(&mut self) {
        let placed = self.replica.engine().placed();
        let lost: Vec<AttemptId> = placed
            .filter(|(_, agent)| self.duties.session(agent).is_none())
            .map(|(attempt, _)| attempt)
            .collect();
        for attempt in lost {
            let (reason, message) = ("infra/out-of-contact".to_owned(), String::new());
            let outcome = Outcome::Infra { reason, message };
            let report = Report::Ended { time: self.now, outcome };
            self.propose_own(&Command::Lost { time: self.now, attempt, report }, Own::Other);
        }
    }
}

/// The attempts that an agent goes on with.
fn running(hello: &Hello) -> Vec<AttemptId> {
    let running = hello.running.iter();
    running.filter_map(|attempt| wire::attempt_from_wire(Some(attempt.clone())).ok()).collect()
}
