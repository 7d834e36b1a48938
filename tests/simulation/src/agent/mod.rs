//! Agents: they run what they are told, and repeat what they have to say until it is acknowledged.
//!
//! What an agent remembers and what it forgets is as in the real one; what it runs is made up. Its
//! spool, and which attempts it has begun and ended, are on its disk; containers outlive its process,
//! and are frozen at the end of the lease even when nobody else is there to do it.

mod attempts;
mod claims;
mod lease;
mod session;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tenon_coordinator::SessionId;
use tenon_engine::AttemptId;
use tenon_journal::disk::sim::Random;
use tenon_proto::agent::v1 as proto;
use tenon_proto::agent::v1::report::What;

use crate::oracle::Violation;
use crate::queue::{MS, Micros, SECOND};
use crate::settings::clock_rate;
use crate::world::{Event, Life, World};

/// An agent.
pub struct Agent {
    name: String,
    slots: u32,
    /// How fast its clock goes, in thousandths.
    rate: u64,
    /// What it runs is killed at the end of the lease, not frozen.
    kills: bool,
    /// Counts the lives of its process.
    pub life: u64,
    pub is_on: bool,
    /// It never comes back.
    pub is_gone: bool,

    // On its disk.
    /// Counts its spools: each has an incarnation.
    spool: u64,
    /// Reports that are not acknowledged.
    reports: VecDeque<Kept>,
    last_number: u64,
    /// The highest number that was sent in any session.
    told: u64,
    ended: BTreeSet<AttemptId>,
    runs: BTreeSet<String>,
    ending_runs: Vec<String>,
    /// By owner and name.
    claims: BTreeMap<(String, String), claims::Directory>,

    // On its machine, besides its process.
    live: BTreeMap<AttemptId, Live>,
    /// Their containers are gone, which is still to be reported.
    gone: Vec<AttemptId>,
    /// Containers may act until then.
    guarded_until: Micros,

    // In its process.
    /// The session that it has or tries to have.
    session: Option<u64>,
    /// Where that session ends on the other side.
    remote: Option<(Life, SessionId)>,
    /// How often it sends heartbeats; nothing before the welcome.
    welcome: Option<Micros>,
    last_session: u64,
    /// When it has sent its heartbeats in this session.
    beats: Vec<Micros>,
    lease: Micros,
    /// It may act until then.
    leased_until: Micros,
    /// What it was told to start in this session while it had no lease.
    to_start: Vec<proto::TaskInvocation>,
    /// So many of the reports were sent in this session.
    sent: usize,
}

/// A report in the spool, and the lines in it.
struct Kept {
    report: proto::Report,
    lines: Vec<String>,
}

struct Live {
    /// What it will do, and after which time.
    plan: VecDeque<(Micros, Act)>,
    /// The plan's number: what was planned before does not happen.
    number: u64,
    /// Steps that have not ended.
    left: VecDeque<String>,
    stopping: bool,
    frozen: bool,
    uses: Vec<proto::ClaimUse>,
}

enum Act {
    Say(What),
    Lines(String, u32),
    StepEnds(proto::StepEnded),
    Ends(proto::ended::Outcome),
}

impl Agent {
    /// An agent that is off.
    pub fn new(index: usize, random: &mut Random) -> Agent {
        Agent {
            name: format!("agent-{index}"),
            slots: 1 + random.below(4) as u32,
            rate: clock_rate(random),
            kills: random.one_in(4),
            life: 0,
            is_on: false,
            is_gone: false,
            spool: 1,
            reports: VecDeque::new(),
            last_number: 0,
            told: 0,
            ended: BTreeSet::new(),
            runs: BTreeSet::new(),
            ending_runs: Vec::new(),
            claims: BTreeMap::new(),
            live: BTreeMap::new(),
            gone: Vec::new(),
            guarded_until: 0,
            session: None,
            remote: None,
            welcome: None,
            last_session: 0,
            beats: Vec::new(),
            lease: 0,
            leased_until: 0,
            to_start: Vec::new(),
            sent: 0,
        }
    }

    /// It runs nothing and has said everything, or will never say anything again.
    pub fn is_quiet(&self) -> bool {
        self.is_gone || self.live.is_empty() && self.reports.is_empty()
    }

    fn hello(&self) -> proto::Hello {
        proto::Hello {
            name: self.name.clone(),
            slots: self.slots,
            backends: vec!["simulated".to_owned()],
            running: self.live.keys().map(to_wire).collect(),
            incarnation: format!("spool-{:06}", self.spool),
            runs: self.runs.iter().cloned().collect(),
            protocol: 2,
            ..proto::Hello::default()
        }
    }

    /// Forgets what is stored; returns the lines in it, and which placement each is of.
    fn acknowledge(&mut self, number: u64) -> Result<Vec<(String, AttemptId)>, Violation> {
        if number > self.told {
            let what = format!("{} was told that report {number} is stored", self.name);
            return Err(Violation::new("acknowledgements fit", what));
        }
        let mut stored = Vec::new();
        while self.reports.front().is_some_and(|kept| kept.report.number <= number) {
            let Some(Kept { report, lines }) = self.reports.pop_front() else { break };
            let attempt = from_wire(report.attempt)?;
            stored.extend(lines.into_iter().map(|line| (line, attempt.clone())));
            self.sent = self.sent.saturating_sub(1);
        }
        Ok(stored)
    }

    fn end_runs(&mut self) {
        let live = &self.live;
        let (waiting, ready): (Vec<_>, Vec<_>) = self
            .ending_runs
            .drain(..)
            .partition(|run| live.keys().any(|attempt| attempt.run.to_string() == *run));
        self.ending_runs = waiting;
        for run in ready {
            self.runs.remove(&run);
            self.claims.retain(|(owner, _), _| *owner != run);
            self.ended.retain(|attempt| attempt.run.to_string() != run);
        }
    }

    /// The process is not there any more.
    fn stop(&mut self) {
        self.is_on = false;
        self.leased_until = 0;
        self.to_start.clear();
        self.ending_runs.clear();
    }

    /// Power is lost: containers are gone, and what was written last and never sent may be.
    fn lose_power(&mut self, random: &mut Random) {
        self.gone.extend(std::mem::take(&mut self.live).into_keys());
        self.guarded_until = 0;
        if random.one_in(2) {
            return;
        }
        while let Some(kept) = self.reports.pop_back_if(|kept| kept.report.number > self.told) {
            self.last_number = kept.report.number - 1;
            let Ok(attempt) = from_wire(kept.report.attempt) else { continue };
            // Its end is forgotten; its directory is still there.
            if self.ended.remove(&attempt) {
                self.gone.push(attempt);
            }
        }
    }

    /// The disk is lost, and everything else: what comes back is another machine.
    fn lose_disk(&mut self) {
        self.spool += 1;
        self.reports.clear();
        (self.last_number, self.told, self.guarded_until) = (0, 0, 0);
        self.ended.clear();
        self.runs.clear();
        self.claims.clear();
        self.live.clear();
        self.gone.clear();
    }
}

fn to_wire(attempt: &AttemptId) -> proto::AttemptId {
    proto::AttemptId {
        run_id: attempt.run.to_string(),
        task_run: attempt.task_run.clone(),
        attempt: attempt.attempt,
        placement: attempt.placement,
    }
}

fn from_wire(attempt: Option<proto::AttemptId>) -> Result<AttemptId, Violation> {
    let known = attempt.and_then(|attempt| {
        Some(AttemptId {
            run: attempt.run_id.parse().ok()?,
            task_run: attempt.task_run,
            attempt: attempt.attempt,
            placement: attempt.placement,
        })
    });
    known.ok_or_else(|| Violation::new("messages fit", "an attempt without an identity"))
}

impl World {
    /// An agent's process starts.
    pub fn agent_starts(&mut self, agent: usize) {
        let state = &mut self.agents[agent];
        if state.is_on || state.is_gone {
            return;
        }
        state.life += 1;
        state.is_on = true;
        let life = state.life;
        self.queue.after(MS, Event::AgentTurn(agent, life));
        // It finds its containers again, and reads on what they have said.
        let live: Vec<AttemptId> = self.agents[agent].live.keys().cloned().collect();
        live.iter().for_each(|attempt| self.plan_next(agent, attempt));
        self.report_gone(agent, "infra/agent-restarted");
    }

    /// An agent is killed, its machine loses power, or its disk.
    pub fn agent_crashes(&mut self, agent: usize) {
        let kind = self.random.below(4);
        self.break_session(agent);
        let mut random = Random::new(self.random.draw());
        let state = &mut self.agents[agent];
        state.stop();
        state.session = None;
        let live: Vec<AttemptId> = state.live.keys().cloned().collect();
        match kind {
            0 | 1 => self.say(|| format!("agent {agent} is killed")),
            2 => {
                state.lose_power(&mut random);
                live.iter().for_each(|attempt| self.oracle.rests(agent, attempt));
                self.say(|| format!("agent {agent} loses power"));
            }
            _ => {
                state.lose_disk();
                live.iter().for_each(|attempt| self.oracle.rests(agent, attempt));
                self.say(|| format!("agent {agent} loses its disk"));
            }
        }
        let long = if self.random.one_in(4) { 10 * SECOND } else { 3 * SECOND };
        let delay = 10 * MS + self.random.below(long);
        self.queue.after(delay, Event::AgentStarts(agent));
    }

    /// An agent's machine is gone for good, if there is another one.
    pub fn agent_goes(&mut self, agent: usize) {
        if agent == 0 || self.agents[agent].is_gone {
            return;
        }
        self.say(|| format!("agent {agent} is gone for good"));
        self.break_session(agent);
        let state = &mut self.agents[agent];
        state.stop();
        state.session = None;
        state.is_gone = true;
        let live: Vec<AttemptId> = std::mem::take(&mut state.live).into_keys().collect();
        live.iter().for_each(|attempt| self.oracle.rests(agent, attempt));
    }
}
