//! Which tasks and steps a run has, for whoever asks for one: by what its events name.

use std::collections::BTreeSet;

use serde::Deserialize;
use tenon_coordinator::intake::did_you_mean;

use crate::exit::{Exit, Failure};

/// The kinds of events that name them all.
pub const KINDS: [&str; 7] = [
    "task-queued",
    "task-start",
    "task-end",
    "task-skip",
    "step-start",
    "step-end",
    "sidecar-start",
];

/// What was named.
#[derive(Default)]
pub struct Names {
    seen: BTreeSet<Place>,
}

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
struct Place {
    #[serde(default)]
    task: String,
    #[serde(default)]
    task_run: String,
    #[serde(default)]
    step: String,
}

impl Names {
    /// Takes a line of the contract into account, or the header of one.
    pub fn see(&mut self, line: &[u8]) {
        self.seen.extend(serde_json::from_slice::<Place>(line));
    }

    /// Refuses a task and a step that are not there.
    pub fn check(&self, run: &str, task: Option<&str>, step: Option<&str>) -> Result<(), Failure> {
        let of_task =
            |place: &&Place| task.is_none_or(|task| place.task == task || place.task_run == task);
        if let Some(task) = task
            && !self.seen.iter().any(|place| of_task(&place))
        {
            let known = self.seen.iter().map(|place| place.task.as_str());
            return Err(missing(
                &format!("run {run} has no task \"{task}\""),
                task,
                "tasks",
                known,
            ));
        }
        if let Some(step) = step
            && !self.seen.iter().filter(of_task).any(|place| place.step == step)
        {
            let known = self.seen.iter().filter(of_task).map(|place| place.step.as_str());
            let message = format!("no step \"{step}\" has run in run {run}");
            return Err(missing(&message, step, "steps", known));
        }
        Ok(())
    }
}

fn missing<'a>(
    message: &str,
    name: &str,
    what: &str,
    known: impl Iterator<Item = &'a str>,
) -> Failure {
    let known: BTreeSet<&str> = known.filter(|name| !name.is_empty()).collect();
    let known: Vec<&str> = known.into_iter().collect();
    let failure = Failure::new(Exit::Usage, message);
    match (did_you_mean(name, &known), known.is_empty()) {
        (Some(help), _) => failure.hint(help),
        (None, true) => failure.hint(format!("it has no {what} yet")),
        (None, false) => failure.hint(format!("its {what}: {}", known.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_refused_and_what_is_there_named() {
        let mut names = Names::default();
        names.see(br#"{"kind":"step-start","task":"build","taskRun":"r-build","step":"compile"}"#);
        names.see(br#"{"kind":"step-start","task":"test","taskRun":"r-test","step":"unit"}"#);
        for (task, step, hint) in [
            (Some("deploy"), None, Some("its tasks: build, test")),
            (Some("buil"), None, Some("did you mean \"build\"?")),
            (Some("build"), Some("unit"), Some("its steps: compile")),
            (None, Some("units"), Some("did you mean \"unit\"?")),
            (Some("r-test"), Some("unit"), None),
            (None, None, None),
        ] {
            let told = names.check("r", task, step).err().and_then(|failure| failure.hint);
            assert_eq!(told.as_deref(), hint, "{task:?} {step:?}");
        }
    }
}
