//! The labels by which containers are found again, and their names.

use std::collections::HashMap;

use tenon_proto::agent::v1::AttemptId;

use crate::owner::Owner;

/// Whose it is.
pub const OWNER: &str = "tenon.owner";
/// The run's id.
pub const RUN: &str = "tenon.run";
/// The TaskRun's name.
pub const TASK_RUN: &str = "tenon.taskrun";
/// Attempt and placement: `1.1`.
pub const ATTEMPT: &str = "tenon.attempt";
/// All of the attempt's identity in one word: what events are filtered by.
pub const KEY: &str = "tenon.key";
/// `step-build`, `sidecar-db`, `pause`.
pub const CONTAINER: &str = "tenon.container";

/// The labels of one container.
pub fn labels(
    owner: &Owner,
    attempt: &AttemptId,
    key: &str,
    container: &str,
) -> HashMap<String, String> {
    [
        (OWNER, owner.name()),
        (RUN, attempt.run_id.clone()),
        (TASK_RUN, attempt.task_run.clone()),
        (ATTEMPT, format!("{}.{}", attempt.attempt, attempt.placement)),
        (KEY, key.to_owned()),
        (CONTAINER, container.to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// A container's name.
pub fn container_name(key: &str, container: &str) -> String {
    format!("tenon-{key}-{container}")
}
