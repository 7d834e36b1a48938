//! From the first launch to the end of the last container: everything that can happen, in one loop.

use std::path::Path;

use tenon_entrypoint::frame::{self, Ended};
use tenon_proto::agent::v1::{SidecarStarted, StepStarted, report};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Attempt;
use crate::backend::Cancel;
use crate::clock::now_ms;
use crate::docker::Failure;
use crate::host::keeper::{Exited, Keeper};
use crate::record::{self, Fate, Followed, Marked, NEVER_BEGAN};

/// The launcher's exit code when it could not make the container.
const CANNOT: i32 = 125;
/// What is said of one that was killed: as a shell says it of SIGKILL.
const KILLED: i32 = 137;

impl Attempt<'_> {
    /// Returns when every record has ended and nothing runs any more.
    pub(super) async fn drive(&mut self, cancel: &Cancel) {
        let mut followed = self.followed.take();
        loop {
            let goes_on = !self.stopping && !self.killing && !cancel.stop.is_cancelled();
            if goes_on && self.lease.holds() {
                self.launch_all().await;
            }
            let steps_over = self.containers[..self.steps].iter().all(|step| step.over);
            if steps_over && self.sidecars_until.is_none() && self.steps < self.containers.len() {
                self.stop_sidecars();
            }
            if self.containers.iter().all(|one| one.over && one.exited.is_some()) {
                return;
            }
            let until = self.sidecars_until;
            tokio::select! {
                biased;
                () = cancel.kill.cancelled(), if !self.killing => {
                    self.stopping = true;
                    self.kill_all();
                }
                () = cancel.stop.cancelled(), if !self.stopping => {
                    // A killed one is not asked before.
                    if cancel.kill.is_cancelled() {
                        continue;
                    }
                    self.stopping = true;
                    self.launch_no_more();
                    self.signal(0..self.steps, libc::SIGTERM);
                }
                next = hear(followed.as_mut()) => match next {
                    Some(followed) => self.take(followed).await,
                    None => {
                        followed = None;
                        self.records_ended();
                    }
                },
                Some(Ok((index, exited))) = self.exits.join_next() => self.exited(index, exited),
                Some(Ok((index, ready))) = self.probes.join_next() => {
                    if ready { self.ready(index); } else { self.kill(index); }
                }
                Some(Ok(index)) = self.hooks.join_next() => {
                    self.signal(index..index + 1, libc::SIGTERM);
                }
                () = cancel.lease.wait(), if !self.to_launch.is_empty() && !self.lease.holds() => {}
                () = async { tokio::time::sleep_until(until.unwrap_or_else(Instant::now)).await },
                    if until.is_some() && !self.killing => self.kill_all(),
            }
        }
    }

    async fn launch_all(&mut self) {
        while let Some(&index) = self.to_launch.first() {
            match self.launch(index).await {
                Ok(()) => {
                    self.to_launch.remove(0);
                }
                Err(failure) => {
                    self.failure.get_or_insert(failure);
                    return self.kill_all();
                }
            }
        }
    }

    async fn launch(&mut self, index: usize) -> Result<(), Failure> {
        let (launcher, order) = (&self.saved.launcher, &self.saved.orders[index]);
        let is_agent = self.backend.options.owner.is_agent();
        let place = is_agent.then(|| (self.dir.root(), index));
        let (keeper, ended) = Keeper::launch(launcher, order, place, self.saved.outlives).await?;
        self.containers[index].keeper = Some(keeper);
        self.exits.spawn(async move { (index, ended.await) });
        Ok(())
    }

    /// What was not launched yet is not launched any more, and nothing is said of it.
    fn launch_no_more(&mut self) {
        for index in std::mem::take(&mut self.to_launch) {
            let container = &mut self.containers[index];
            container.over = true;
            container.exited = Some(Exited::default());
        }
    }

    /// Nothing more will be read of any record; without all their ends something is wrong.
    fn records_ended(&mut self) {
        if self.containers.iter().all(|container| container.over) {
            return;
        }
        self.failure.get_or_insert(Failure::Infra {
            reason: "infra/agent-files",
            message: "the records of the steps could not be read any more".to_owned(),
        });
        for container in &mut self.containers {
            container.over = true;
        }
        self.kill_all();
    }

    pub(super) fn kill_all(&mut self) {
        self.killing = true;
        self.launch_no_more();
        for index in 0..self.containers.len() {
            self.kill(index);
        }
    }

    fn kill(&self, index: usize) {
        if let Some(keeper) = &self.containers[index].keeper {
            keeper.kill();
        }
    }

    fn signal(&self, which: std::ops::Range<usize>, signal: i32) {
        for container in &self.containers[which] {
            if let Some(keeper) = container.keeper.as_ref().filter(|_| container.exited.is_none()) {
                keeper.signal(signal);
            }
        }
    }

    pub(super) fn exited(&mut self, index: usize, exited: Exited) {
        if !self.stopping && !self.killing && self.is_unlaunched(index, &exited) {
            self.containers[index].keeper = None;
            self.containers[index].adopted = false;
            return self.to_launch.push(index);
        }
        if exited.code == Some(CANNOT) && !self.containers[index].begun && self.failure.is_none() {
            self.failure = Some(Failure::Infra {
                reason: "infra/host-launch",
                message: format!(
                    "{} could not be started: {}",
                    self.plans[index].container, exited.said
                ),
            });
            self.kill_all();
        }
        self.containers[index].exited = Some(exited);
        self.follower.dead(index);
        if self.containers[index].over {
            self.unblock_next(index);
        }
    }

    async fn take(&mut self, followed: Followed) {
        match followed {
            Followed::Started { index, time_ms, marked } => {
                self.begun(index, time_ms, marked).await;
            }
            Followed::Output { index, time_ms, lines, chunk, marked } => {
                let what = record::output(self.plans[index], lines, chunk);
                self.sink.report(time_ms, what, Some(marked)).await;
            }
            Followed::Ended { index, time_ms, ended, marked } => {
                self.ended(index, time_ms, ended, marked).await;
            }
            Followed::Stalled { .. } => {
                self.failure.get_or_insert(Failure::no_room());
                self.kill_all();
            }
            Followed::Died { index, .. } if self.containers[index].vanished => {
                self.containers[index].over = true;
                let container = &self.plans[index].container;
                let lost = Failure::lost(&format!("the processes of its {container} are gone"));
                self.failure.get_or_insert(lost);
                self.kill_all();
            }
            Followed::Died { index, damage, marked } => {
                let ended = self.death(index, damage);
                self.ended(index, now_ms(), ended, marked).await;
            }
        }
    }

    async fn begun(&mut self, index: usize, time_ms: i64, marked: Marked) {
        self.containers[index].begun = true;
        let plan = self.plans[index];
        if !plan.is_sidecar() {
            let what = report::What::StepStarted(StepStarted { step: plan.name.clone() });
            return self.sink.report(time_ms, what, Some(marked)).await;
        }
        let what = report::What::SidecarStarted(SidecarStarted { sidecar: plan.name.clone() });
        self.sink.report(time_ms, what, Some(marked)).await;
        self.await_ready(index);
    }

    /// What to say of a container that died without a word.
    fn death(&self, index: usize, damage: Option<String>) -> Ended {
        let exited = self.containers[index].exited.as_ref();
        let code = exited.and_then(|exited| exited.code).unwrap_or(KILLED);
        let message = match damage {
            Some(damage) => format!("the record of the container is damaged: {damage}"),
            None if self.killing && !self.containers[index].begun => NEVER_BEGAN.to_owned(),
            None if self.killing => String::new(),
            None => format!("the container died (exit code {code}) before it could say how"),
        };
        let exit_code = if code == 0 { 1 } else { code };
        Ended { exit_code, ending: frame::Ending::Error, message, ..Ended::default() }
    }

    async fn ended(&mut self, index: usize, time_ms: i64, ended: Ended, marked: Marked) {
        self.containers[index].over = true;
        let plan = self.plans[index];
        let keeper = self.containers[index].keeper.as_ref().map_or(0, Keeper::pid);
        let fate = Fate {
            container_id: format!("host://{keeper}"),
            stopping: self.stopping,
            ..Fate::default()
        };
        if plan.is_sidecar() {
            let stopped = self.sidecars_until.is_some();
            let what = record::sidecar_ended(plan, ended.exit_code, stopped, fate);
            self.sink.report(time_ms, what, Some(marked)).await;
            return self.ready(index);
        }
        let what = record::step_ended(plan, ended, fate);
        self.sink.report(time_ms, what, Some(marked)).await;
        self.unblock_next(index);
    }

    /// A step that died could not tell the next one, which would wait for ever. While it runs, the
    /// entrypoint is about to do it: its last frame comes first.
    fn unblock_next(&self, index: usize) {
        let run = self.dir.run(index);
        if index < self.steps
            && self.containers[index].exited.is_some()
            && !is_there(&run, "out")
            && !is_there(&run, "out.err")
        {
            let _ = std::fs::write(run.join("out.err"), b"");
        }
    }
}

/// The next that is followed, `None` at the end; waits for ever after it.
async fn hear(followed: Option<&mut mpsc::Receiver<Followed>>) -> Option<Followed> {
    match followed {
        Some(followed) => followed.recv().await,
        None => std::future::pending().await,
    }
}

fn is_there(directory: &Path, name: &str) -> bool {
    directory.join(name).exists()
}
