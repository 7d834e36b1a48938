//! From the first start to the end of the last step: everything that can happen, in one loop.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::EventMessage;
use bollard::query_parameters::StartContainerOptions;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{BoxStream, FuturesUnordered, StreamExt as _};
use tenon_entrypoint::relay::Order;
use tenon_proto::agent::v1::{SidecarStarted, StepStarted, report};
use tokio::sync::mpsc;

use super::{Attempt, Owner, labels};
use crate::clock::now_ms;
use crate::docker::error::Failure;
use crate::docker::far::Link;
use crate::docker::reach::Exec;
use crate::docker::site::Site;
use crate::mask::Masker;
use crate::probe;
use crate::record::{self, Followed, Follower, Mark, Marked, Record};

mod ends;
mod events;

/// Containers that the daemon is asked to start at a time.
const STARTS_AT_ONCE: usize = 4;
/// Reports that the records may be ahead.
const AHEAD: usize = 64;
/// A signal that came before the entrypoint could take it is sent again after this.
const AGAIN: Duration = Duration::from_millis(500);

/// What is being watched while an attempt runs.
pub(super) struct Watch<'a> {
    pub follower: Follower,
    pub followed: mpsc::Receiver<Followed>,
    events: BoxStream<'a, Result<EventMessage, Error>>,
    work: FuturesUnordered<BoxFuture<'a, Done>>,
    to_start: VecDeque<usize>,
    starting: Vec<usize>,
    /// Containers whose command has begun.
    begun: Vec<bool>,
    /// Sidecars that are ready or over, by container index.
    ready: Vec<bool>,
    gate_open: bool,
    /// The agent may act, as far as this was told.
    leased: bool,
    pub stopping: bool,
    pub killing: bool,
    /// The steps are over: sidecars end because they are told to.
    pub stopping_sidecars: bool,
}

/// Something that was begun has come to an end.
enum Done {
    Started(usize, Result<(), Error>),
    Ready(usize, bool),
    /// What the record of a dead container holds is here.
    Fetched(usize),
}

impl<'a> Attempt<'a> {
    /// Starts the containers that do not run yet, and reports until the last is over. `marks` say
    /// what was reported before.
    pub(super) async fn drive(
        &mut self,
        masker: Masker,
        marks: &BTreeMap<u32, Mark>,
    ) -> Result<(), Failure> {
        let records = Record::of_all(self.plans(), marks);
        let gate_open = self.plan.sidecars.is_empty()
            || std::fs::metadata(self.dir.ready_file()).is_ok_and(|file| file.len() > 0);
        self.fetch(&records)?;
        let (out, followed) = mpsc::channel(AHEAD);
        let follower = record::follow(&records, masker, out)?;
        let mut watch = Watch {
            follower,
            followed,
            events: self.events(self.began_ms / 1000 - 1),
            work: FuturesUnordered::new(),
            to_start: VecDeque::new(),
            starting: Vec::new(),
            begun: records.iter().map(|record| record.from.begun).collect(),
            ready: vec![gate_open; records.len()],
            gate_open,
            leased: self.cancel.lease.holds(),
            stopping: false,
            killing: false,
            stopping_sidecars: false,
        };
        let steps = match self.catch_up(&mut watch) {
            Ok(()) => self.steps(&mut watch).await,
            Err(failure) => Err(failure),
        };
        let ended = match steps {
            Ok(()) => self.stop_sidecars(&mut watch).await,
            Err(failure) => Err(failure),
        };
        match ended {
            Ok(()) if watch.stopping => Err(Failure::Stopped),
            Ok(()) => Ok(()),
            Err(failure) => {
                self.abandon(&mut watch).await;
                Err(failure)
            }
        }
    }

    /// Does what an earlier process may have left undone.
    fn catch_up(&mut self, watch: &mut Watch<'a>) -> Result<(), Failure> {
        for index in 0..self.containers.len() {
            let container = &self.containers[index];
            let (over, is_dead) = (container.over, container.exit_code.is_some());
            if is_dead {
                self.dead(watch, index);
            }
            match self.plan_of(index).is_sidecar() {
                false if over && is_dead => self.unblock_next(index)?,
                true if over => self.ready(watch, index)?,
                true if watch.begun[index] && !watch.ready[index] => {
                    self.await_ready(watch, index)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Has the records come here, where they are written elsewhere.
    fn fetch(&self, records: &[Record]) -> Result<(), Failure> {
        let (Some(link), Some(far)) = (&self.link, &self.backend.far) else { return Ok(()) };
        let mut wanted = Vec::new();
        for record in records.iter().filter(|record| !record.from.over) {
            let there = far.required(&record.path)?;
            wanted.push((there, record.path.clone(), record.from.first_needed()));
        }
        Ok(link.follow(wanted)?)
    }

    /// A container is dead: its record does not grow any more, once all of it is here.
    fn dead(&self, watch: &mut Watch<'a>, index: usize) {
        match &self.link {
            None => watch.follower.dead(index),
            Some(link) => {
                let fetched = link.begin(Vec::new());
                // A link that fails is seen elsewhere.
                watch.work.push(fetched.map(move |_| Done::Fetched(index)).boxed());
            }
        }
    }

    async fn steps(&mut self, watch: &mut Watch<'a>) -> Result<(), Failure> {
        let all: Vec<usize> = (0..self.containers.len()).collect();
        let steps = self.plan.steps.len();
        // Sidecars first: the first step waits for them.
        let mut order: VecDeque<usize> = all[steps..]
            .iter()
            .chain(&all[..steps])
            .copied()
            .filter(|&index| !self.containers[index].started)
            .collect();
        let mut rest = VecDeque::new();
        if let Some(pause) = self.pause.clone()
            && !order.is_empty()
        {
            tokio::select! {
                () = self.cancel.lease.wait() => {}
                () = self.cancel.stop.cancelled() => return Err(Failure::Stopped),
            }
            let none = None::<StartContainerOptions>;
            let started = self.backend.docker.start_container(&pause, none).await;
            started.map_err(|error| Failure::daemon(&format!("starting {pause}"), &error))?;
        } else if let Owner::Container(owner) = self.network_owner()
            && !self.plan.host_network
            && order.len() > 1
            && order.contains(&owner)
        {
            // The others join its network, so it must be there first.
            order.retain(|&index| index != owner);
            rest = std::mem::replace(&mut order, VecDeque::from([owner]));
        }
        watch.to_start = order;
        while self.containers[..steps].iter().any(|step| !step.over) {
            if watch.to_start.is_empty() && watch.starting.is_empty() && !watch.stopping {
                watch.to_start = std::mem::take(&mut rest);
            }
            self.start_some(watch);
            self.next(watch).await?;
            if watch.stopping {
                for index in rest.drain(..) {
                    watch.follower.dead(index);
                }
            }
        }
        Ok(())
    }

    fn start_some(&self, watch: &mut Watch<'a>) {
        while self.cancel.lease.holds()
            && watch.starting.len() < STARTS_AT_ONCE
            && let Some(index) = watch.to_start.pop_front()
        {
            let docker: &'a Docker = &self.backend.docker;
            let id = self.containers[index].id.clone();
            watch.starting.push(index);
            let start = async move {
                let none = None::<StartContainerOptions>;
                Done::Started(index, docker.start_container(&id, none).await)
            };
            watch.work.push(start.boxed());
        }
    }

    /// Takes the next thing that happens.
    pub(super) async fn next(&mut self, watch: &mut Watch<'a>) -> Result<(), Failure> {
        let waits_for_begin = watch.stopping && !self.unbegun(watch).is_empty();
        tokio::select! {
            biased;
            () = self.cancel.kill.cancelled(), if !watch.killing => {
                watch.killing = true;
                // A killed one gets no other signal before: what is frozen would act on it.
                self.start_no_more(watch);
                self.signal(&self.running(false), "SIGKILL").await;
                self.signal(&self.running(true), "SIGKILL").await;
            }
            () = self.cancel.stop.cancelled(), if !watch.stopping => self.stop(watch).await,
            holds = self.cancel.lease.change(watch.leased) => {
                watch.leased = holds;
                // What could not be told to end before is told now.
                if holds && watch.stopping {
                    self.signal(&self.running(false), "SIGTERM").await;
                }
                if holds && watch.stopping_sidecars {
                    self.signal(&self.running(true), "SIGTERM").await;
                }
            }
            why = until_failure(self.link.as_ref()) => {
                return Err(Failure::Infra { reason: "infra/docker-relay", message: why });
            }
            followed = watch.followed.recv() => match followed {
                Some(followed) => self.take(watch, followed).await?,
                None => return Err(Failure::Infra {
                    reason: "infra/agent-files",
                    message: "the records of the containers could not be read any more".to_owned(),
                }),
            },
            Some(done) = watch.work.next(), if !watch.work.is_empty() => {
                self.done(watch, done).await?;
            }
            event = watch.events.next() => match event {
                Some(Ok(event)) => self.take_event(watch, &event)?,
                Some(Err(error)) => self.look_again(watch, error.to_string()).await?,
                None => self.look_again(watch, "its event stream ended".to_owned()).await?,
            },
            () = tokio::time::sleep(AGAIN), if waits_for_begin => {
                let unbegun = self.unbegun(watch);
                self.signal(&unbegun, if watch.killing { "SIGKILL" } else { "SIGTERM" }).await;
            }
        }
        Ok(())
    }

    /// Steps that run and have not begun their command.
    fn unbegun(&self, watch: &Watch<'a>) -> Vec<usize> {
        let mut running = self.running(false);
        running.retain(|&index| !watch.begun[index]);
        running
    }

    /// Asks all steps to end, and starts no more.
    async fn stop(&mut self, watch: &mut Watch<'a>) {
        // A killed one is not asked before.
        if watch.stopping || self.cancel.kill.is_cancelled() {
            return;
        }
        self.start_no_more(watch);
        self.signal(&self.running(false), "SIGTERM").await;
    }

    fn start_no_more(&self, watch: &mut Watch<'a>) {
        watch.stopping = true;
        for index in watch.to_start.drain(..) {
            watch.follower.dead(index);
        }
    }

    async fn done(&mut self, watch: &mut Watch<'a>, done: Done) -> Result<(), Failure> {
        match done {
            Done::Started(index, result) => {
                watch.starting.retain(|&starting| starting != index);
                let name = self.plan_of(index).container.clone();
                result.map_err(|error| Failure::daemon(&format!("starting {name}"), &error))?;
                self.containers[index].started = true;
                if watch.stopping && !self.plan_of(index).is_sidecar() {
                    let signal = if watch.killing { "SIGKILL" } else { "SIGTERM" };
                    self.signal(&[index], signal).await;
                }
            }
            Done::Ready(index, true) => self.ready(watch, index)?,
            Done::Fetched(index) => watch.follower.dead(index),
            Done::Ready(index, false) => self.signal(&[index], "SIGKILL").await,
        }
        Ok(())
    }

    async fn take(&mut self, watch: &mut Watch<'a>, followed: Followed) -> Result<(), Failure> {
        match followed {
            Followed::Started { index, time_ms, marked } => {
                self.begun(watch, index, time_ms, marked).await?;
            }
            Followed::Output { index, time_ms, lines, chunk, marked } => {
                let what = record::output(self.plan_of(index), lines, chunk);
                self.sink.report(time_ms, what, Some(marked)).await;
            }
            Followed::Ended { index, time_ms, ended, marked } => {
                self.ended(watch, index, time_ms, ended, marked).await?;
            }
            Followed::Stalled { .. } => return Err(Failure::no_room()),
            Followed::Died { index, damage, marked } => {
                let ended = self.death(watch, index, damage);
                self.ended(watch, index, now_ms(), ended, marked).await?;
            }
        }
        Ok(())
    }

    async fn begun(
        &mut self,
        watch: &mut Watch<'a>,
        index: usize,
        time_ms: i64,
        marked: Marked,
    ) -> Result<(), Failure> {
        watch.begun[index] = true;
        // The record may tell of it before the daemon does.
        self.containers[index].started = true;
        let plan = self.plan_of(index).clone();
        if !plan.is_sidecar() {
            let what = report::What::StepStarted(StepStarted { step: plan.name });
            self.sink.report(time_ms, what, Some(marked)).await;
            if watch.stopping {
                self.signal(&[index], "SIGTERM").await;
            }
            return Ok(());
        }
        let what = report::What::SidecarStarted(SidecarStarted { sidecar: plan.name.clone() });
        self.sink.report(time_ms, what, Some(marked)).await;
        self.await_ready(watch, index)
    }

    /// Waits until a sidecar that has begun is ready.
    fn await_ready(&mut self, watch: &mut Watch<'a>, index: usize) -> Result<(), Failure> {
        let plan = self.plan_of(index).clone();
        if probe::is_ready_at_once(&plan) {
            return self.ready(watch, index);
        }
        let lease = &self.cancel.lease;
        let docker: &'a Docker = &self.backend.docker;
        let container = self.containers[index].id.clone();
        let (pause, by_exec) = (self.pause.clone(), self.backend.site != Site::Same);
        let wait = async move {
            let reach = Exec::new(docker, container, pause.as_deref(), by_exec).await;
            Done::Ready(index, lease.during(probe::until_ready(&plan, &reach)).await)
        };
        watch.work.push(wait.boxed());
        Ok(())
    }

    /// A sidecar is ready, or over: when all are, the first step may go.
    fn ready(&mut self, watch: &mut Watch<'a>, index: usize) -> Result<(), Failure> {
        watch.ready[index] = true;
        let steps = self.plan.steps.len();
        if !watch.gate_open && watch.ready[steps..].iter().all(|&ready| ready) {
            watch.gate_open = true;
            std::fs::write(self.dir.ready_file(), b"READY")?;
            if let (Some(link), Some(far)) = (&self.link, &self.backend.far) {
                let path = far.required(&self.dir.ready_file())?;
                link.begin(vec![Order::File { path, mode: 0o644, contents: b"READY".to_vec() }]);
            }
        }
        Ok(())
    }
}

/// Returns when the way to the attempt's files is given up; never where there is none.
async fn until_failure(link: Option<&Link>) -> String {
    match link {
        Some(link) => link.failure().await,
        None => std::future::pending().await,
    }
}
