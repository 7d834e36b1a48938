//! Which events somebody wants to see.
//!
//! A filter only leaves out; it never changes an event, and `seq` shows the gaps.

use tenon_engine::event::{Event, Kind};

/// Kinds, task, step and position; what is empty does not filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these kinds.
    pub kinds: Vec<Kind>,
    /// Only this task: the PipelineTask's name or the TaskRun's.
    pub task: Option<String>,
    /// Only this step or sidecar.
    pub step: Option<String>,
    /// Only what comes after this `seq`.
    pub since: u64,
}

impl Filter {
    /// True when everything passes, so that events need not even be decoded.
    pub fn is_open(&self) -> bool {
        self.kinds.is_empty() && self.task.is_none() && self.step.is_none() && self.since == 0
    }

    /// Whether `event` may pass. Packed output may hold lines from before `since`: unfolding leaves
    /// them out one by one.
    pub fn admits(&self, event: &Event) -> bool {
        let kind = self.kinds.is_empty() || self.kinds.contains(&event.kind);
        let is = |wanted: &Option<String>, names: &[&Option<String>]| match wanted {
            None => true,
            wanted => names.contains(&wanted),
        };
        let packed = matches!(event.kind, Kind::StepLog | Kind::SidecarLog);
        kind && is(&self.task, &[&event.task, &event.task_run])
            && is(&self.step, &[&event.step])
            && (packed || event.seq > self.since)
    }
}

/// The kind that is spelled `name` in the contract.
pub fn parse_kind(name: &str) -> Option<Kind> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::event;

    #[test]
    fn each_rule_alone() {
        let mut log = event(Kind::StepLog, 5);
        log.step = Some("s".into());
        let end = event(Kind::RunEnd, 9);
        let cases = [
            (Filter::default(), true, true),
            (Filter { kinds: vec![Kind::RunEnd], ..Filter::default() }, false, true),
            (Filter { task: Some("t".into()), ..Filter::default() }, true, true),
            (Filter { task: Some("p-run-t".into()), ..Filter::default() }, true, true),
            (Filter { task: Some("other".into()), ..Filter::default() }, false, false),
            (Filter { step: Some("s".into()), ..Filter::default() }, true, false),
            (Filter { since: 9, ..Filter::default() }, true, false),
        ];
        for (filter, wants_log, wants_end) in cases {
            assert_eq!(filter.admits(&log), wants_log, "{filter:?}");
            assert_eq!(filter.admits(&end), wants_end, "{filter:?}");
        }
        assert_eq!(parse_kind("step-log"), Some(Kind::StepLog));
        assert_eq!(parse_kind("StepLog"), None);
    }
}
