//! What a run says about its place among other runs, in annotations (or labels) of its object.
//!
//! | key | value |
//! |---|---|
//! | `tenon.dev/priority` | 0 to 100; 50 where nothing is said |
//! | `tenon.dev/concurrency-key` | runs of a namespace with the same key are a group; may hold `$(params.NAME)` |
//! | `tenon.dev/concurrency-limit` | how many of the group run at a time; 1 where nothing is said |
//! | `tenon.dev/concurrency-policy` | `queue` (where nothing is said), `cancel-running` or `reject` |
//! | `tenon.dev/workspace-snapshots` | `task-end` or `never`: whether claims are saved so that they can move; the cluster decides where nothing is said |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tenon_tekton::k8s::ObjectMeta;
use tenon_tekton::rejection::Rejection;
use tenon_tekton::v1::{Param, ParamValue};

const PRIORITY: &str = "tenon.dev/priority";
const KEY: &str = "tenon.dev/concurrency-key";
const LIMIT: &str = "tenon.dev/concurrency-limit";
const POLICY: &str = "tenon.dev/concurrency-policy";
const SNAPSHOTS: &str = "tenon.dev/workspace-snapshots";
/// The reason of a run that says something about this which cannot be understood.
const INVALID: &str = "InvalidTenonAnnotation";

/// The priority of a run that says nothing.
pub const DEFAULT_PRIORITY: u8 = 50;
/// A group's name may have so many characters.
const KEY_LENGTH: usize = 253;

/// A run's place among others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Policy {
    /// A head start for its attempts, and for itself in its group.
    pub(crate) priority: u8,
    /// Its group, if it has one.
    pub(crate) group: Option<Membership>,
    /// Whether its claims are saved when a task ends, if it says so.
    #[serde(default)]
    pub(crate) snapshots: Option<bool>,
}

/// How a run is a member of its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// The group's name in the namespace.
    pub(crate) key: String,
    /// How many of the group run at a time, as this run has it.
    pub(crate) limit: u32,
    /// What happens when there are as many.
    pub(crate) policy: OnConflict,
}

/// What happens to a run whose group is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OnConflict {
    /// It waits.
    Queue,
    /// It takes the place of the others: those that wait and those that run are cancelled.
    CancelRunning,
    /// It is refused.
    Reject,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { priority: DEFAULT_PRIORITY, group: None, snapshots: None }
    }
}

impl Policy {
    /// What the object says; `params` are the run's own.
    pub(crate) fn of(metadata: &ObjectMeta, params: &[Param]) -> Result<Policy, Rejection> {
        let said = |key: &str| {
            metadata.annotations.get(key).or_else(|| metadata.labels.get(key)).map(|it| it.trim())
        };
        let priority = match said(PRIORITY) {
            Some(text) => match text.parse::<u8>() {
                Ok(priority) if priority <= 100 => priority,
                _ => return Err(invalid(PRIORITY, text, "a whole number from 0 to 100")),
            },
            None => DEFAULT_PRIORITY,
        };
        let snapshots = match said(SNAPSHOTS) {
            None => None,
            Some("task-end") => Some(true),
            Some("never") => Some(false),
            Some(text) => return Err(invalid(SNAPSHOTS, text, "task-end or never")),
        };
        let Some(key) = said(KEY).filter(|key| !key.is_empty()) else {
            return Ok(Policy { priority, group: None, snapshots });
        };
        let key = substituted(key, params)?;
        if key.chars().count() > KEY_LENGTH {
            return Err(invalid(KEY, &key, "at most 253 characters"));
        }
        let limit = match said(LIMIT) {
            Some(text) => match text.parse::<u32>() {
                Ok(limit) if limit > 0 => limit,
                _ => return Err(invalid(LIMIT, text, "a whole number from 1 on")),
            },
            None => 1,
        };
        let policy = match said(POLICY) {
            None | Some("queue") => OnConflict::Queue,
            Some("cancel-running") => OnConflict::CancelRunning,
            Some("reject") => OnConflict::Reject,
            Some(text) => return Err(invalid(POLICY, text, "queue, cancel-running or reject")),
        };
        Ok(Policy { priority, group: Some(Membership { key, limit, policy }), snapshots })
    }
}

fn invalid(key: &str, value: &str, expected: &str) -> Rejection {
    Rejection::new(INVALID, format!("{key} is {value:?}: it has to be {expected}"))
}

/// The key with the values of the run's own string params.
fn substituted(key: &str, params: &[Param]) -> Result<String, Rejection> {
    let values: BTreeMap<&str, &str> = params
        .iter()
        .filter_map(|param| match &param.value {
            ParamValue::String(value) => Some((param.name.as_str(), value.as_str())),
            _ => None,
        })
        .collect();
    let mut out = String::new();
    let mut rest = key;
    while let Some((before, after)) = rest.split_once("$(params.") {
        out.push_str(before);
        let (name, after) = after.split_once(')').unwrap_or((after, ""));
        let Some(value) = values.get(name) else {
            let expected = format!("made of string params that the run gives: {name} is none");
            return Err(invalid(KEY, key, &expected));
        };
        out.push_str(value);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(annotations: &[(&str, &str)]) -> Result<Policy, String> {
        let annotations =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let metadata = ObjectMeta { annotations: annotations.collect(), ..ObjectMeta::default() };
        let value = ParamValue::String("main".to_owned());
        let params = [Param { name: "branch".to_owned(), value }];
        Policy::of(&metadata, &params).map_err(|rejection| rejection.message)
    }

    #[test]
    fn what_a_run_says() {
        assert_eq!(policy(&[]), Ok(Policy::default()));
        assert_eq!(policy(&[(PRIORITY, " 7 ")]).unwrap().priority, 7);
        let group = policy(&[(KEY, "deploy-$(params.branch)"), (POLICY, "reject"), (LIMIT, "2")]);
        let key = "deploy-main".to_owned();
        let expected = Membership { key, limit: 2, policy: OnConflict::Reject };
        assert_eq!(group.unwrap().group, Some(expected));
        assert_eq!(policy(&[(SNAPSHOTS, "never")]).unwrap().snapshots, Some(false));
        let labels = [(KEY.to_owned(), "k".to_owned())].into();
        let metadata = ObjectMeta { labels, ..ObjectMeta::default() };
        assert_eq!(Policy::of(&metadata, &[]).unwrap().group.unwrap().limit, 1);
    }

    #[test]
    fn what_cannot_be_understood() {
        for (key, value, says) in [
            (PRIORITY, "101", "from 0 to 100"),
            (PRIORITY, "high", "\"high\""),
            (LIMIT, "0", "from 1 on"),
            (POLICY, "cancel", "queue, cancel-running or reject"),
            (SNAPSHOTS, "always", "task-end or never"),
            (KEY, "$(params.other)", "other"),
            (KEY, &"x".repeat(254), "253"),
        ] {
            let message = policy(&[(KEY, "k"), (key, value)]).unwrap_err();
            assert!(message.contains(says) && message.contains(key), "{message}");
        }
    }
}
