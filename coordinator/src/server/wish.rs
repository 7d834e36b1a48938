//! Which events a reader wants.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::Deserialize;
use tenon_engine::RunId;

/// What a reader wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Only events with a greater `seq`.
    pub since: u64,
    /// Go on with what comes.
    pub follow: bool,
    /// Only this run; the stream ends after its `run-end`.
    pub run: Option<RunId>,
    /// Only this namespace; all when empty.
    pub namespace: String,
    /// Only these namespaces; all when empty.
    pub among: BTreeSet<String>,
    /// Only these kinds.
    pub kinds: Vec<String>,
    /// Only these tasks: the PipelineTask's name or the TaskRun's.
    pub tasks: Vec<String>,
    /// Only these steps or sidecars.
    pub steps: Vec<String>,
}

/// The keys that filters look at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head<'a> {
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    pub seq: u64,
    #[serde(borrow, default)]
    run_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    namespace: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    task: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    task_run: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    step: Option<Cow<'a, str>>,
}

impl Wish {
    /// Whether an event belongs to the run that is wanted, whose id as text is `run`.
    pub fn is_of_run(&self, run: &str, head: &Head<'_>) -> bool {
        self.run.is_none() || head.run_id.as_deref() == Some(run)
    }

    /// Whether an event is wanted.
    pub fn admits(&self, head: &Head<'_>) -> bool {
        let among = |wanted: &[String], names: &[&Option<Cow<'_, str>>]| {
            let is = |wanted: &String| names.iter().any(|name| name.as_deref() == Some(wanted));
            wanted.is_empty() || wanted.iter().any(is)
        };
        (self.kinds.is_empty() || self.kinds.iter().any(|kind| *kind == head.kind))
            && (self.namespace.is_empty() || head.namespace.as_deref() == Some(&self.namespace))
            && (self.among.is_empty()
                || head.namespace.as_deref().is_some_and(|it| self.among.contains(it)))
            && among(&self.tasks, &[&head.task, &head.task_run])
            && among(&self.steps, &[&head.step])
    }
}
