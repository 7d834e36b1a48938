//! How a container's end is told, and what it lets go.

use std::time::Duration;

use bollard::query_parameters::InspectContainerOptions;
use tenon_entrypoint::frame::{self, Ended};
use tenon_entrypoint::relay::Order;
use tokio::time::Instant;

use super::{Attempt, Watch};
use crate::docker::error::Failure;
use crate::record::{self, Fate, Marked, NEVER_BEGAN};

/// How long after a step's end the daemon may learn that it was out of memory.
const OOM_PATIENCE: Duration = Duration::from_secs(1);

impl<'a> Attempt<'a> {
    /// What to say of a container that died without a word.
    pub(super) fn death(&self, watch: &Watch<'a>, index: usize, damage: Option<String>) -> Ended {
        let container = &self.containers[index];
        if !container.started {
            return Ended { exit_code: 1, ending: frame::Ending::Cancelled, ..Ended::default() };
        }
        let exit_code = container.exit_code.unwrap_or(137);
        let message = match damage {
            Some(damage) => format!("the record of the container is damaged: {damage}"),
            None if watch.killing && !watch.begun[index] => NEVER_BEGAN.to_owned(),
            None if watch.killing || watch.stopping_sidecars => String::new(),
            None => format!("the container died (exit code {exit_code}) before it could say how"),
        };
        Ended {
            exit_code: if exit_code == 0 { 1 } else { exit_code },
            ending: frame::Ending::Error,
            message,
            ..Ended::default()
        }
    }

    pub(super) async fn ended(
        &mut self,
        watch: &mut Watch<'a>,
        index: usize,
        time_ms: i64,
        ended: Ended,
        marked: Marked,
    ) -> Result<(), Failure> {
        let fate = self.fate(watch, index, &ended).await;
        self.containers[index].over = true;
        let plan = self.plan_of(index);
        let what = if plan.is_sidecar() {
            record::sidecar_ended(plan, ended.exit_code, watch.stopping_sidecars, fate)
        } else {
            record::step_ended(plan, ended, fate)
        };
        self.sink.report(time_ms, what, Some(marked)).await;
        if self.plan_of(index).is_sidecar() {
            return self.ready(watch, index);
        }
        self.unblock_next(index)
    }

    /// A step whose container has exited without its post file could not tell the next step, which
    /// would wait for ever. While the container runs, the entrypoint is about to do it: its last
    /// frame comes first.
    pub(super) fn unblock_next(&self, index: usize) -> Result<(), Failure> {
        let has_exited = self.containers[index].exit_code.is_some();
        if let (Some(link), Some(far)) = (&self.link, &self.backend.far) {
            if has_exited {
                let path = far.required(&self.dir.run(index))?;
                link.begin(vec![Order::Unblock { path }]);
            }
            return Ok(());
        }
        let out = self.dir.run(index).join("out");
        let out_err = self.dir.run(index).join("out.err");
        if has_exited && !out.exists() && !out_err.exists() {
            std::fs::write(out_err, b"")?;
        }
        Ok(())
    }

    async fn fate(&self, watch: &mut Watch<'a>, index: usize, ended: &Ended) -> Fate {
        let container = &self.containers[index];
        let mut oom_killed = container.oom_killed;
        let by_signal = ended.exit_code < 0 || ended.exit_code >= 128;
        if !oom_killed && by_signal && ended.ending == frame::Ending::Error && !watch.killing {
            let limited = self.plan_of(index).resources.memory.is_some();
            oom_killed = self.was_out_of_memory(&container.id, limited).await;
        }
        Fate {
            image_id: container.image.image_id.clone(),
            container_id: format!("docker://{}", container.id),
            oom_killed,
            stopping: watch.stopping,
        }
    }

    /// The daemon hears of it from another source than of the end, and sometimes later: where there is
    /// a limit, it is asked for a while.
    async fn was_out_of_memory(&self, id: &str, limited: bool) -> bool {
        let patience = if limited { OOM_PATIENCE } else { Duration::ZERO };
        let until = Instant::now() + patience;
        loop {
            let none = None::<InspectContainerOptions>;
            let inspected = self.backend.docker.inspect_container(id, none).await;
            let told = inspected.ok().and_then(|container| container.state?.oom_killed);
            if told == Some(true) || Instant::now() >= until {
                return told.unwrap_or(false);
            }
            tokio::time::sleep(OOM_PATIENCE / 20).await;
        }
    }
}
