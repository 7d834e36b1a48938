//! What agents run: made up, and reported as by the real one.

use std::collections::VecDeque;

use tenon_engine::AttemptId;
use tenon_journal::output::{ChunkBuilder, Stream};
use tenon_proto::agent::v1 as proto;
use tenon_proto::agent::v1::report::What;

use super::{Act, Kept, Live, from_wire, to_wire};
use crate::oracle::Violation;
use crate::queue::{MS, Micros, SECOND};
use crate::settings::pick;
use crate::world::{Event, Phase, World};

impl World {
    pub(super) fn told_to_start(
        &mut self,
        agent: usize,
        task: proto::TaskInvocation,
    ) -> Result<(), Violation> {
        let attempt = from_wire(task.attempt.clone())?;
        let state = &mut self.agents[agent];
        if state.live.contains_key(&attempt) || state.ended.contains(&attempt) {
            return Ok(());
        }
        // Without a lease nothing begins.
        if state.leased_until <= self.queue.now() {
            self.agents[agent].to_start.push(task);
            return Ok(());
        }
        state.runs.insert(attempt.run.to_string());
        self.trace.say(self.queue.now(), || format!("agent {agent} begins {attempt}"));
        self.oracle.uses(&attempt, task.claim_uses.iter().map(|used| used.name.clone()));
        self.oracle.begins(agent, &attempt)?;
        let failure = self.make_claims(agent, &attempt, &task.claim_uses)?;
        let pod: serde_json::Value = serde_json::from_str(&task.pod_json)
            .map_err(|error| Violation::new("messages fit", format!("a Pod: {error}")))?;
        let steps: VecDeque<String> = pod["steps"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|step| step["name"].as_str().map(str::to_owned))
            .collect();
        let mut plan = self.make_up(&steps);
        if let Some(outcome) = failure {
            plan.truncate(1);
            plan.push_back((MS, Act::Ends(outcome)));
        }
        let uses = task.claim_uses;
        let live = Live { plan, number: 1, left: steps, stopping: false, frozen: false, uses };
        self.agents[agent].live.insert(attempt.clone(), live);
        self.plan_next(agent, &attempt);
        Ok(())
    }

    /// What an attempt will do.
    fn make_up(&mut self, steps: &VecDeque<String>) -> VecDeque<(Micros, Act)> {
        let mut plan = VecDeque::new();
        let short = |world: &mut World| world.random.below(20 * MS);
        let delay = short(self);
        plan.push_back((delay, Act::Say(What::Started(proto::Started {}))));
        if self.phase == Phase::Chaos && self.random.one_in(15) {
            let outcome = match self.random.below(2) {
                0 => proto::ended::Outcome::Infra(proto::Infra {
                    reason: "infra/simulated".to_owned(),
                    message: "lost".to_owned(),
                }),
                _ => proto::ended::Outcome::Refused(proto::Refused {
                    reason: "PullImageFailed".to_owned(),
                    message: "no such image".to_owned(),
                }),
            };
            plan.push_back((short(self), Act::Ends(outcome)));
            return plan;
        }
        let mut failed = false;
        for step in steps {
            let mut end = proto::StepEnded { step: step.clone(), ..Default::default() };
            if failed {
                (end.exit_code, end.ending) = (1, proto::Ending::Skipped as i32);
                plan.push_back((short(self), Act::StepEnds(end)));
                continue;
            }
            let started = proto::StepStarted { step: step.clone() };
            plan.push_back((short(self), Act::Say(What::StepStarted(started))));
            let length = match self.phase {
                Phase::Chaos => pick(&mut self.random, &[MS, 50 * MS, 500 * MS, 8 * SECOND]),
                _ => 50 * MS,
            };
            for _ in 0..self.random.below(4) {
                let lines = 1 + self.random.below(3) as u32;
                plan.push_back((self.random.below(length), Act::Lines(step.clone(), lines)));
            }
            if self.random.one_in(6) {
                failed = true;
                (end.exit_code, end.ending) = (3, proto::Ending::Error as i32);
            } else if !self.random.one_in(8) {
                end.task_results.insert("r".to_owned(), "v".to_owned());
            }
            plan.push_back((self.random.below(length), Act::StepEnds(end)));
        }
        plan.push_back((short(self), Act::Ends(proto::ended::Outcome::Ran(proto::Ran {}))));
        plan
    }

    pub(super) fn plan_next(&mut self, agent: usize, attempt: &AttemptId) {
        let state = &self.agents[agent];
        let Some(live) = state.live.get(attempt) else { return };
        if live.frozen && !live.stopping {
            return;
        }
        let Some((delay, _)) = live.plan.front() else { return };
        let event = Event::Attempt {
            agent,
            life: state.life,
            attempt: attempt.clone(),
            number: live.number,
        };
        self.queue.after(*delay, event);
    }

    pub(super) fn told_to_stop(
        &mut self,
        agent: usize,
        stop: proto::Stop,
    ) -> Result<(), Violation> {
        let wire = stop.attempt.clone();
        let attempt = from_wire(stop.attempt)?;
        let delay = self.random.below(stop.grace_ms * MS + 10 * MS);
        let state = &mut self.agents[agent];
        state.to_start.retain(|start| start.attempt != wire);
        if let Some(live) = state.live.get_mut(&attempt) {
            if !std::mem::replace(&mut live.stopping, true) {
                live.number += 1;
                live.plan.clear();
                for (index, step) in live.left.iter().enumerate() {
                    let ending = proto::Ending::Cancelled as i32;
                    let end = proto::StepEnded {
                        step: step.clone(),
                        exit_code: 1,
                        ending,
                        ..Default::default()
                    };
                    let delay = if index == 0 { delay } else { 0 };
                    live.plan.push_back((delay, Act::StepEnds(end)));
                }
                let stopped = proto::ended::Outcome::Stopped(proto::Stopped {});
                live.plan.push_back((MS, Act::Ends(stopped)));
                self.plan_next(agent, &attempt);
            }
        } else if state.ended.insert(attempt.clone()) {
            let stopped = proto::ended::Outcome::Stopped(proto::Stopped {});
            let ended = proto::Ended { outcome: Some(stopped), ..Default::default() };
            self.report(agent, &attempt, What::Ended(ended), Vec::new());
        }
        Ok(())
    }

    /// The next thing of an attempt's plan.
    pub fn attempt_goes_on(&mut self, agent: usize, life: u64, attempt: &AttemptId, number: u64) {
        let state = &mut self.agents[agent];
        if !state.is_on || state.life != life {
            return;
        }
        let Some(live) = state.live.get_mut(attempt) else { return };
        if live.number != number {
            return;
        }
        let Some((_, act)) = live.plan.pop_front() else { return };
        match act {
            Act::Say(what) => {
                if matches!(what, What::StepStarted(_)) {
                    self.write_claims(agent, attempt);
                }
                self.report(agent, attempt, what, Vec::new());
            }
            Act::Lines(step, count) => {
                let number = state.last_number + 1;
                let (name, life) = (state.name.clone(), state.life);
                let texts: Vec<String> =
                    (0..count).map(|line| format!("{name} {life} {number} {line}")).collect();
                let time = self.true_time();
                let (lines, chunk) = pack(&texts, time.0);
                let output = proto::Output { container: step, sidecar: false, lines, chunk };
                self.report(agent, attempt, What::Output(output), texts);
            }
            Act::StepEnds(end) => {
                live.left.retain(|step| *step != end.step);
                self.report(agent, attempt, What::StepEnded(end), Vec::new());
            }
            Act::Ends(outcome) => {
                let uses = state.live.remove(attempt).map(|live| live.uses).unwrap_or_default();
                state.ended.insert(attempt.clone());
                self.oracle.rests(agent, attempt);
                self.trace.say(self.queue.now(), || format!("agent {agent} ends {attempt}"));
                let workspaces = self.save_claims(agent, attempt, &uses, &outcome);
                let ended = proto::Ended { outcome: Some(outcome), workspaces };
                self.report(agent, attempt, What::Ended(ended), Vec::new());
                self.agents[agent].end_runs();
                return;
            }
        }
        self.plan_next(agent, attempt);
    }

    pub(super) fn report(
        &mut self,
        agent: usize,
        attempt: &AttemptId,
        what: What,
        lines: Vec<String>,
    ) {
        let time_ms = self.true_time().0;
        let state = &mut self.agents[agent];
        state.last_number += 1;
        let number = state.last_number;
        let attempt = Some(to_wire(attempt));
        let report = proto::Report { number, attempt, time_ms, what: Some(what) };
        state.reports.push_back(Kept { report, lines });
        self.speak(agent);
    }
}

/// Packs lines as an agent does.
fn pack(texts: &[String], time: i64) -> (u32, Vec<u8>) {
    use std::cell::RefCell;
    thread_local! {
        static BUILDER: RefCell<ChunkBuilder> = RefCell::new(ChunkBuilder::new());
    }
    BUILDER.with_borrow_mut(|builder| {
        for text in texts {
            // A few short lines always fit.
            let _ = builder.push(time, Stream::Stdout, false, text);
        }
        builder.finish()
    })
}
