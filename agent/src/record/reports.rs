//! Reports out of what records say, in the session's terms.

use tenon_entrypoint::frame::{self, Ended};
use tenon_proto::agent::v1::{Ending, Output, ResourceUsage, SidecarEnded, StepEnded, report};

use crate::pod::ContainerPlan;

/// What is said of a step that was killed before its turn came; one that was asked to end says it itself.
pub const NEVER_BEGAN: &str = "Stopped before it began";

/// What only the backend knows of a container that has ended.
#[derive(Clone, Debug, Default)]
pub struct Fate {
    /// `name@sha256:…` or an id.
    pub image_id: String,
    /// `docker://…`
    pub container_id: String,
    /// The kernel ended it for want of memory.
    pub oom_killed: bool,
    /// The attempt was told to stop before.
    pub stopping: bool,
}

/// A chunk of lines.
pub fn output(plan: &ContainerPlan, lines: u32, chunk: Vec<u8>) -> report::What {
    report::What::Output(Output {
        container: plan.name.clone(),
        sidecar: plan.is_sidecar(),
        lines,
        chunk,
    })
}

/// The end of a step. A step that ends by itself while the attempt is being stopped has ended as it
/// says; one that a signal ended then was cancelled.
pub fn step_ended(plan: &ContainerPlan, ended: Ended, fate: Fate) -> report::What {
    let mut ending = match ended.ending {
        frame::Ending::Completed => Ending::Completed,
        frame::Ending::Error => Ending::Error,
        frame::Ending::Continued => Ending::Continued,
        frame::Ending::Skipped => Ending::Skipped,
        frame::Ending::TimeoutExceeded => Ending::TimeoutExceeded,
        frame::Ending::Cancelled => Ending::Cancelled,
    };
    let mut exit_code = ended.exit_code;
    let failed = matches!(ending, Ending::Error | Ending::Skipped) && exit_code != 0;
    if fate.oom_killed && ending == Ending::Error {
        ending = Ending::OomKilled;
        exit_code = 137;
    } else if fate.stopping && failed {
        ending = Ending::Cancelled;
    }
    let ran = matches!(
        ended.ending,
        frame::Ending::Completed
            | frame::Ending::Error
            | frame::Ending::Continued
            | frame::Ending::TimeoutExceeded
    );
    let used = ended.usage;
    let usage = ResourceUsage {
        cpu_micros: used.cpu_micros,
        memory_peak_bytes: used.memory_peak,
        io_read_bytes: used.io_read,
        io_write_bytes: used.io_write,
    };
    report::What::StepEnded(StepEnded {
        step: plan.name.clone(),
        exit_code,
        ending: ending.into(),
        started_at_ms: (ran && ended.started_ms > 0).then_some(ended.started_ms),
        task_results: ended.task_results.into_iter().collect(),
        step_results: ended.step_results.into_iter().collect(),
        message: ended.message,
        image_id: fate.image_id,
        container_id: fate.container_id,
        usage: (usage != ResourceUsage::default()).then_some(usage),
    })
}

/// The end of a sidecar; `stopped` when it was told to end after the last step.
pub fn sidecar_ended(
    plan: &ContainerPlan,
    exit_code: i32,
    stopped: bool,
    fate: Fate,
) -> report::What {
    report::What::SidecarEnded(SidecarEnded {
        sidecar: plan.name.clone(),
        exit_code,
        stopped,
        oom_killed: fate.oom_killed,
        image_id: fate.image_id,
        container_id: fate.container_id,
    })
}
