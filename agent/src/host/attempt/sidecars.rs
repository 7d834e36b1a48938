//! What sidecars have and steps have not: probes before the first step, and an end after the last.

use std::time::Duration;

use tokio::time::Instant;

use super::Attempt;
use crate::docker::Failure;
use crate::host::keeper::Keeper;
use crate::host::reach::Enter;
use crate::probe;

/// What sidecars get between SIGTERM and SIGKILL, as in Kubernetes.
const GRACE: Duration = Duration::from_secs(30);

impl Attempt<'_> {
    /// Waits until a sidecar that has begun is ready.
    pub(super) fn await_ready(&mut self, index: usize) {
        let plan = self.plans[index];
        if probe::is_ready_at_once(plan) {
            return self.ready(index);
        }
        let (plan, reach) = (plan.clone(), self.reach(index));
        let lease = self.lease.clone();
        self.probes
            .spawn(async move { (index, lease.during(probe::until_ready(&plan, &reach)).await) });
    }

    fn reach(&self, index: usize) -> Enter {
        let keeper = self.containers[index].keeper.as_ref();
        Enter {
            launcher: self.backend.launcher(),
            keeper: keeper.map(Keeper::pid_and_start).unwrap_or_default(),
        }
    }

    /// Asks the sidecars to end, each after its `preStop` hook.
    pub(super) fn stop_sidecars(&mut self) {
        self.sidecars_until = Some(Instant::now() + GRACE);
        for index in self.steps..self.containers.len() {
            if self.containers[index].over {
                continue;
            }
            let (plan, reach) = (self.plans[index].clone(), self.reach(index));
            self.hooks.spawn(async move {
                probe::before_stop(&plan, &reach).await;
                index
            });
        }
    }

    /// A sidecar is ready, or over: when all are, the first step may go.
    pub(super) fn ready(&mut self, index: usize) {
        self.containers[index].ready = true;
        if self.containers[self.steps..].iter().all(|sidecar| sidecar.ready)
            && let Err(error) = std::fs::write(self.dir.ready_file(), b"READY")
        {
            self.failure.get_or_insert(Failure::from(error));
            self.kill_all();
        }
    }
}
