//! Clients: they submit, cancel and read, and repeat until they are answered.

use std::collections::VecDeque;

use tenon_coordinator::Materials;
use tenon_coordinator::command::IdempotencyKey;
use tenon_coordinator::coordinator::{Answer, Input, Request};
use tenon_coordinator::replica::{AgentChange, Reply};
use tenon_engine::command::CancelMode;
use tenon_engine::{RunId, Submission};

use crate::oracle::Violation;
use crate::pipelines::random_run;
use crate::queue::{MS, Micros, SECOND};
use crate::settings::pick;
use crate::trace::hash_of;
use crate::world::{Event, Life, Phase, World, client_address};

/// What a client asks for.
#[derive(Clone)]
pub enum Ask {
    /// Start a run.
    Submit { submission: Box<Submission>, key: String, body: u64, pending: bool },
    /// End a run early.
    Cancel { run: RunId, mode: CancelMode, now: bool },
    /// Let a pending run begin.
    Release { run: RunId },
    /// An agent gets no new work from now on, or does again.
    Cordon { agent: usize, on: bool },
    /// Wait until everything is applied.
    Read,
    /// Commit some bytes.
    Probe { bytes: usize },
}

/// A client.
#[derive(Default)]
pub struct Client {
    /// What it is asking for: which try is under way, and since when; try 0 is none.
    current: Option<(Ask, u64, Micros)>,
    /// What it will ask for next.
    todo: VecDeque<Ask>,
    tries: u64,
}

impl Client {
    /// Since when this try waits, if it is one of a read.
    pub fn reads_since(&self, attempt: u64) -> Option<Micros> {
        match &self.current {
            Some((Ask::Read, current, since)) if *current == attempt => Some(*since),
            _ => None,
        }
    }

    /// It wants nothing any more.
    pub fn is_idle(&self) -> bool {
        self.current.is_none() && self.todo.is_empty()
    }
}

impl World {
    fn next_ask(&mut self, client: usize) -> Option<Ask> {
        if let Some(ask) = self.clients[client].todo.pop_front() {
            return Some(ask);
        }
        if self.phase == Phase::Healed || client == self.operator() {
            return None;
        }
        let known: Vec<RunId> = self.oracle.acknowledged.iter().map(|(run, _)| *run).collect();
        let submitted = self.oracle.keys.len();
        Some(match self.random.below(10) {
            0..=5 if submitted < self.settings.runs => {
                // Sometimes a key again, with the same body or another one.
                let again = submitted > 0 && self.random.one_in(5);
                let number = match again {
                    true => self.random.below(submitted as u64),
                    false => submitted as u64,
                };
                let key = format!("run-{number}");
                let body = if again { self.random.below(2) } else { 0 };
                // The same key and body are the same run of this schedule.
                let of_body = hash_of((self.seed, number, body));
                let mut random = tenon_journal::disk::sim::Random::new(of_body);
                let (submission, pending) = random_run(&mut random, &key, body);
                self.oracle.keys.entry(key.clone()).or_default().bodies.insert(body);
                Ask::Submit { submission: Box::new(submission), key, body, pending }
            }
            6 if !known.is_empty() => {
                let modes = [
                    CancelMode::Cancelled,
                    CancelMode::CancelledRunFinally,
                    CancelMode::StoppedRunFinally,
                ];
                let run = pick(&mut self.random, &known);
                let mode = pick(&mut self.random, &modes);
                Ask::Cancel { run, mode, now: self.random.one_in(3) }
            }
            8 if self.phase == Phase::Chaos => {
                let agent = self.random.below(self.settings.agents as u64) as usize;
                Ask::Cordon { agent, on: self.random.one_in(2) }
            }
            7 => Ask::Probe { bytes: self.random.below(20_000) as usize },
            _ => Ask::Read,
        })
    }

    /// Has the operator ask for something, when nothing else is asked for.
    pub fn ask_for(&mut self, ask: Ask) {
        let operator = self.operator();
        self.clients[operator].todo.push_back(ask);
        if self.clients[operator].current.is_none() {
            self.queue.after(MS, Event::ClientTurn(operator));
        }
    }

    /// A client asks, or asks again.
    pub fn client_turn(&mut self, client: usize) {
        if self.clients[client].current.is_none() {
            match self.next_ask(client) {
                Some(ask) => self.clients[client].current = Some((ask, 0, 0)),
                None => {
                    // Nothing to do for now; there may be when somebody else has done something.
                    return;
                }
            }
        }
        let now = self.now();
        let state = &mut self.clients[client];
        state.tries += 1;
        let attempt = state.tries;
        let Some((ask, current, since)) = &mut state.current else { return };
        (*current, *since) = (attempt, now);
        let request = ask.clone();
        let patience = SECOND / 2 + self.random.below(2 * SECOND);
        self.queue.after(patience, Event::ClientGivesUp(client, attempt));
        let machines: Vec<u64> = self.machines.keys().copied().collect();
        let node = pick(&mut self.random, &machines);
        let way = self.way(client_address(client), node);
        match (self.life(node), way) {
            (Some(life), Some(delay)) => {
                self.queue.after(delay, Event::Ask { life, client, attempt, request });
            }
            (None, Some(delay)) => {
                self.queue.after(delay, Event::Answered { client, attempt, answer: None });
            }
            _ => {}
        }
    }

    /// A client's request arrives at a node.
    pub fn asked(&mut self, life: Life, client: usize, attempt: u64, ask: Ask) {
        if !self.is_alive(life) {
            return;
        }
        let time = self.clock(life.0);
        let request = match ask {
            Ask::Submit { mut submission, key, body, .. } => {
                // The node makes the id: each try has its own.
                let id = u128::from(self.random.draw()) << 16 | u128::from(attempt);
                submission.run_id = RunId(ulid_of(time.0, id));
                Request::Submit {
                    submission,
                    materials: Materials::default(),
                    key: Some(IdempotencyKey { key, request: format!("body {body}") }),
                }
            }
            Ask::Cancel { run, mode, now } => {
                Request::Cancel { run, mode, message: "a client wants it".to_owned(), now }
            }
            Ask::Release { run } => Request::Release { run },
            Ask::Cordon { agent, on } => Request::ChangeAgent {
                agent: format!("agent-{agent}"),
                change: if on { AgentChange::Cordon } else { AgentChange::Uncordon },
            },
            Ask::Read => Request::Read,
            Ask::Probe { bytes } => Request::Probe { payload: vec![7; bytes] },
        };
        let running = self.machines.get_mut(&life.0).and_then(|m| m.running.as_mut());
        let Some(running) = running else { return };
        running.next_number += 1;
        let token = running.next_number;
        running.waiting.insert(token, (client, attempt));
        let deadline = time.plus_millis(200 + self.random.below(3000) as i64);
        self.tell_user(life, Input::Request { token, request, deadline });
    }

    /// A client is answered, or gives up waiting.
    pub fn answered(
        &mut self,
        client: usize,
        attempt: u64,
        answer: Option<Answer>,
    ) -> Result<(), Violation> {
        let now = self.now();
        let pause = if client == self.operator() { 10 * MS } else { 200 * MS };
        let state = &mut self.clients[client];
        let Some((ask, current, _)) = &mut state.current else { return Ok(()) };
        if *current != attempt {
            return Ok(());
        }
        let Some(Ok(reply)) = answer else {
            *current = 0;
            let pause = MS + self.random.below(pause);
            self.queue.after(pause, Event::ClientTurn(client));
            return Ok(());
        };
        let ask = ask.clone();
        state.current = None;
        self.trace.hash(format!("{reply:?}"));
        if let Ask::Submit { key, body, pending, .. } = ask {
            self.submitted(client, &key, body, pending, &reply, now)?;
        } else {
            self.trace.say(now, || format!("client {client} was told {reply:?}"));
        }
        let pause = self.random.below(2 * pause);
        self.queue.after(pause, Event::ClientTurn(client));
        Ok(())
    }

    fn submitted(
        &mut self,
        client: usize,
        key: &str,
        body: u64,
        pending: bool,
        reply: &Reply,
        now: Micros,
    ) -> Result<(), Violation> {
        self.trace.say(now, || format!("client {client} was told {reply:?} for {key} ({body})"));
        let known = self.oracle.keys.entry(key.to_owned()).or_default();
        let doubled = |run: RunId, other: RunId| {
            let what = format!("{key} has started run {other} and run {run}");
            Err(Violation::new("one run for a key", what))
        };
        match *reply {
            Reply::Submitted { run, .. } => {
                match known.acknowledged {
                    Some((other, _)) if other != run => return doubled(run, other),
                    Some((_, other)) if other != body => {
                        let what = format!("{key} was taken with two bodies");
                        return Err(Violation::new("one run for a key", what));
                    }
                    _ => known.acknowledged = Some((run, body)),
                }
                self.oracle.acknowledged.push((run, now));
                if pending {
                    self.clients[client].todo.push_back(Ask::Release { run });
                }
                Ok(())
            }
            Reply::KeyConflict { run } => match known.acknowledged {
                Some((other, _)) if other != run => doubled(run, other),
                Some((_, other)) if other == body => {
                    let what = format!("{key} is refused for the body that it was taken with");
                    Err(Violation::new("one run for a key", what))
                }
                _ => Ok(()),
            },
            ref other => Err(Violation::new("answers fit", format!("{other:?} for a submission"))),
        }
    }
}

fn ulid_of(time: i64, random: u128) -> ulid::Ulid {
    ulid::Ulid::from_parts(u64::try_from(time).unwrap_or(0), random)
}
