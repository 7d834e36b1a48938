//! What remains to be done for a run, when time changes something in it, and where its attempts and
//! claims are: derived, never decided.

use std::sync::Arc;

use super::Run;
use crate::claims::{Claim, Files};
use crate::taskrun::{Phase, TaskRunState};
use crate::work::{Requirements, Usage, Work};
use crate::{AttemptId, RunId, Time};

impl Run {
    /// When something is due in this run.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        if self.is_over() {
            return None;
        }
        self.due.first().into_iter().chain(self.pipeline_deadline()).min()
    }

    /// What remains to be done for this run.
    pub(crate) fn pending_work(&self, work: &mut Vec<Work>) {
        let run = self.header.run;
        if self.is_over() {
            work.push(Work::EndRun { run, agents: self.agents.clone() });
            return;
        }
        for index in &self.to_do {
            let task_run = &self.task_runs[*index];
            let attempt = task_run.attempt_id(run);
            let agent = task_run.attempt.agent.clone().unwrap_or_default();
            match (task_run.attempt.phase, task_run.attempt.stopping) {
                (Phase::Waiting, _) => {
                    let since = task_run.attempt.start.unwrap_or(self.start);
                    let requirements = self.requirements(task_run);
                    work.push(Work::Place { attempt, since, requirements });
                }
                (Phase::Placed | Phase::Running, Some(reason)) => {
                    work.push(Work::Stop { attempt, agent, reason });
                }
                (Phase::Placed, None) => work.push(Work::Start { attempt, agent }),
                (Phase::Running, None) | (Phase::Queued | Phase::Over, _) => {}
            }
        }
    }

    /// What an attempt needs, with the agent where its claims are.
    pub(crate) fn requirements(&self, task_run: &TaskRunState) -> Arc<Requirements> {
        let requirements = task_run.requirements();
        let names = requirements.claims.iter();
        let claims = names.filter_map(|name| self.claims.get(&requirements.namespace, name));
        let (bound, free): (Vec<&Claim>, Vec<&Claim>) = claims.partition(|claim| claim.is_bound());
        let near = free.iter().find(|claim| claim.snapshot().is_some());
        let Some(home) = bound.first().map(|claim| &claim.home) else {
            return match near {
                Some(near) => {
                    let near = Some(near.home.clone());
                    Arc::new(Requirements { near, ..requirements.as_ref().clone() })
                }
                None => requirements.clone(),
            };
        };
        let apart = bound.iter().find(|claim| claim.home != *home);
        Arc::new(Requirements {
            home: Some(home.clone()),
            apart: apart.map(|claim| claim.home.clone()),
            unsaved: bound.iter().any(|claim| claim.files == Files::AtHome),
            ..requirements.as_ref().clone()
        })
    }

    /// Attempts that an agent has and has not ended.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (AttemptId, &str)> + '_ {
        self.active.iter().filter_map(|index| {
            let task_run = &self.task_runs[*index];
            Some((task_run.attempt_id(self.header.run), task_run.placed_on()?))
        })
    }

    /// The agents of those attempts, one by one, and what each takes.
    pub(crate) fn placed_on(&self) -> impl Iterator<Item = (&str, Usage)> + '_ {
        self.active.iter().filter_map(|index| {
            let task_run = &self.task_runs[*index];
            Some((task_run.placed_on()?, task_run.counted))
        })
    }

    /// The run in whose directory agents keep the claims.
    pub(crate) fn claims_run(&self) -> RunId {
        let rerun = self.materials.rerun.as_ref();
        let claims = rerun.and_then(|rerun| rerun.claims.as_ref());
        claims.map_or(self.id(), |claims| claims.run)
    }
}
