//! Being in contact: the lease is renewed by answered heartbeats, ends by the clock, and what stood
//! still goes on once the coordinator has confirmed that it may.
//!
//! A coordinator says first what is not this agent's any more, and then answers the first heartbeat.
//! So an answer means: everything else is still current.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tenon_proto::agent::v1::{AttemptId, Infra, Stop, TaskInvocation, Welcome, ended, report};
use tokio::task::JoinSet;

use super::{SHUTDOWN_GRACE, Work};
use crate::attempt::{self, AttemptSink};
use crate::clock::since_boot;
use crate::guard::{Guard, OnExpiry};
use crate::lease::Lease;
use crate::record::Mark;

/// Why an attempt is stopped that was placed elsewhere: it is killed as it is.
const SUPERSEDED: &str = "superseded";

/// What was asked for and waits for the next answered heartbeat of the session.
pub(super) enum Held {
    Start(Box<TaskInvocation>),
    Stop(Stop),
}

/// The guard knows of the renewed lease.
pub(super) struct Renewed {
    until: Option<Duration>,
    /// The guard has frozen, or killed, what ran.
    was_frozen: bool,
}

/// The lease, and what depends on it.
pub(super) struct Contact {
    pub lease: Lease,
    /// It freezes what runs when the lease is over; none where nothing is frozen.
    pub guard: Option<Arc<Guard>>,
    pub on_expiry: OnExpiry,
    pub held: Vec<Held>,
    /// Attempts of an earlier process that are not gone on with yet.
    pub left: HashMap<AttemptId, BTreeMap<u32, Mark>>,
    /// Attempts that the end of the lease has killed.
    pub expired: HashSet<AttemptId>,
    /// At most one.
    pub renewing: JoinSet<Result<Renewed, String>>,
    /// The answer that came meanwhile.
    pub next: Option<Option<Duration>>,
}

impl Contact {
    pub fn new(lease: Lease, guard: Option<Guard>, on_expiry: OnExpiry) -> Contact {
        Contact {
            lease,
            guard: guard.map(Arc::new),
            on_expiry,
            held: Vec::new(),
            left: HashMap::new(),
            expired: HashSet::new(),
            renewing: JoinSet::new(),
            next: None,
        }
    }
}

impl Work {
    pub(super) fn welcomed(&mut self, welcome: &Welcome) {
        let length = Duration::from_millis(welcome.lease_ms);
        self.contact.lease.length = (!length.is_zero()).then_some(length);
        if length.is_zero() {
            self.renew(None);
        }
    }

    /// A heartbeat that was sent then was answered.
    pub(super) fn heartbeat_answered(&mut self, sent: Duration) {
        if let Some(length) = self.contact.lease.length {
            self.renew(Some(sent + length));
        }
    }

    /// Has the guard told first, and only then acts on it.
    fn renew(&mut self, until: Option<Duration>) {
        if !self.contact.renewing.is_empty() {
            self.contact.next = Some(until);
            return;
        }
        if until.is_some_and(|until| until <= since_boot()) {
            // An answer that took longer than the lease says nothing about now.
            return;
        }
        let guard = self.contact.guard.clone();
        let backend = self.backend.clone();
        // What is being killed is not thawed any more.
        let current = self.live.iter().filter(|(_, cancel)| !cancel.kill.is_cancelled());
        let current: Vec<AttemptId> = current.map(|(attempt, _)| attempt.clone()).collect();
        let stands_still = !self.contact.lease.is_told();
        self.contact.renewing.spawn(async move {
            let mut was_frozen = false;
            if let Some(guard) = &guard {
                // The guard may be about to freeze, which takes a moment.
                let told = Arc::clone(guard);
                let renewed = tokio::task::spawn_blocking(move || told.renew(until));
                was_frozen = renewed
                    .await
                    .map_err(|error| error.to_string())?
                    .map_err(|error| error.to_string())?;
            }
            if stands_still || was_frozen {
                let holds = || until.is_none_or(|until| until > since_boot());
                let thawed = join_all(current.iter().map(|attempt| async {
                    if holds() { backend.thaw(attempt).await } else { Ok(()) }
                }));
                let thawed = thawed.await;
                // Held up meanwhile, it may have thawed behind the guard's back.
                if !holds()
                    && let Some(guard) = &guard
                {
                    guard.freeze().await?;
                }
                if let Some(error) = thawed.into_iter().find_map(Result::err) {
                    return Err(error.message);
                }
            }
            Ok(Renewed { until, was_frozen })
        });
    }

    pub(super) fn renewed(&mut self, renewed: Result<Renewed, String>) {
        match renewed {
            Ok(Renewed { until, was_frozen }) => {
                if was_frozen && self.contact.on_expiry == OnExpiry::Kill {
                    let here = self.live.keys().chain(self.contact.left.keys());
                    self.contact.expired.extend(here.cloned());
                }
                if self.contact.lease.renew(until) {
                    self.go_on();
                }
            }
            // The next answer tries again; until then the lease is as it was.
            Err(error) => tracing::error!(%error, "the lease cannot be renewed"),
        }
        if let Some(next) = self.contact.next.take() {
            self.renew(next);
        }
    }

    fn go_on(&mut self) {
        if !self.contact.lease.is_told() {
            tracing::info!("the agent may act");
        }
        self.contact.lease.tell(true);
        for (attempt, marks) in std::mem::take(&mut self.contact.left) {
            self.adopt(attempt, marks);
        }
        for held in std::mem::take(&mut self.contact.held) {
            match held {
                Held::Start(task) => self.start(*task),
                Held::Stop(stop) => self.stop(&stop),
            }
        }
    }

    /// Whether the lease is over and attempts do not know yet.
    pub(super) fn lease_ends(&self) -> Option<tokio::time::Instant> {
        let left = self.contact.lease.left().filter(|_| self.contact.lease.is_told())?;
        // The machine may sleep, and this clock with it: looked at now and then, it is not far off.
        Some(tokio::time::Instant::now() + left.min(Duration::from_secs(5)))
    }

    /// Looks whether the lease is over. The guard freezes what runs; here nothing is begun any more.
    pub(super) fn look_at_lease(&mut self) {
        if self.contact.lease.left().is_none_or(|left| !left.is_zero()) {
            return;
        }
        tracing::warn!(attempts = self.live.len(), "the lease is over: what runs stands still");
        self.contact.lease.tell(false);
        if self.contact.on_expiry == OnExpiry::Kill {
            for (attempt, cancel) in &self.live {
                self.contact.expired.insert(attempt.clone());
                cancel.stop.cancel();
                cancel.kill.cancel();
            }
        }
    }

    /// Holds a stop back until the agent may act; one that says that the attempt is elsewhere now is
    /// done at once, for what is killed does not act.
    pub(super) fn stop_or_hold(&mut self, stop: Stop) {
        let Some(attempt) = &stop.attempt else { return };
        if stop.reason == SUPERSEDED {
            if let Some(marks) = self.contact.left.remove(attempt) {
                self.adopt(attempt.clone(), marks);
            }
            if let Some(cancel) = self.live.get(attempt) {
                cancel.unwanted.cancel();
                cancel.kill.cancel();
            }
            self.stop(&Stop { grace_ms: 0, ..stop });
        } else if self.contact.lease.is_told() {
            self.stop(&stop);
        } else {
            self.contact.held.push(Held::Stop(stop));
        }
    }

    /// Goes on with an attempt of an earlier process.
    fn adopt(&mut self, attempt: AttemptId, marks: BTreeMap<u32, Mark>) {
        let cancel = self.cancel();
        self.live.insert(attempt.clone(), cancel.clone());
        if self.stopping {
            cancel.stop.cancel();
            self.tasks.spawn(attempt::kill_after(cancel.clone(), SHUTDOWN_GRACE));
        }
        let sink = AttemptSink { attempt: attempt.clone(), reports: self.reports.clone() };
        let (backend, slots) = (self.backend.clone(), self.slots.clone());
        // Now, and not when its turn comes: nobody else may begin to use its claims before.
        let (workspaces, known) = (self.workspaces.clone(), self.workspaces.recall(&attempt));
        let handle = self.tasks.spawn(async move {
            attempt::adopt(&*backend, &workspaces, known, &slots, &marks, &sink, &cancel).await;
        });
        self.task_attempts.insert(handle.id(), attempt);
    }

    /// What the end of an attempt is called that the end of the lease has killed.
    pub(super) fn as_expired(&mut self, attempt: &AttemptId, what: &mut report::What) {
        if matches!(what, report::What::Ended(_)) && self.contact.expired.remove(attempt) {
            *what = attempt::ended(ended::Outcome::Infra(Infra {
                reason: "infra/lease-over".to_owned(),
                message: "the agent was out of contact for longer than its lease, and is told to \
                          kill what it runs then"
                    .to_owned(),
            }));
        }
    }
}
