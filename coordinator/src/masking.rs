//! Secret values out of everything that is stored or shown (invariant 9).
//!
//! Step output is masked by the agent before it leaves it. What remains is what a task copies out of
//! a Secret into a result. Such a value is *hidden* before it enters a command: a placeholder takes
//! its place in the log, in the engine and in events. It is *revealed* only in the pod that an agent
//! is about to run, and *shown* as `***` to people.

use serde_json::Value;
use tenon_engine::report::StepEnd;
use tenon_engine::{Event, Report};
use tenon_tekton::v1::ParamValue;

/// What people see in the place of a secret value.
const MASK: &str = "***";
/// Shorter values would hide ordinary text.
const SHORTEST: usize = 4;
/// A placeholder is OPEN, a number, CLOSE: private-use characters that no YAML file or program
/// output means anything by.
const OPEN: char = '\u{F7E0}';
const CLOSE: char = '\u{F7E1}';

/// The secret values of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// Longest values first, so that a value which contains another is hidden whole.
    pub(crate) fn new(values: Vec<String>) -> Secrets {
        let mut values: Vec<String> = values
            .into_iter()
            .flat_map(|value| [value.trim().to_owned(), value])
            .filter(|value| value.len() >= SHORTEST)
            .collect();
        values.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        values.dedup();
        Secrets(values)
    }

    /// Hides secret values in a report, before it becomes a command. A value that the run compares results with, as
    /// `is_compared` says, stays in results: it stands in the run's own text, for everybody to read, and hidden it
    /// would never be equal to that.
    pub(crate) fn hide(&self, report: &mut Report, is_compared: impl Fn(&str) -> bool) {
        if let Report::StepEnded { end, .. } = report {
            let StepEnd { task_results, step_results, message, .. } = end;
            for text in task_results.values_mut().chain(step_results.values_mut()) {
                self.hide_text(text, &is_compared);
            }
            self.hide_text(message, &|_| false);
        }
    }

    fn hide_text(&self, text: &mut String, stays: &dyn Fn(&str) -> bool) {
        for (number, value) in self.0.iter().enumerate() {
            if text.contains(value.as_str()) && !stays(value) {
                *text = text.replace(value.as_str(), &placeholder(number));
            }
        }
    }

    /// Puts the values back into a JSON text.
    pub(crate) fn reveal_in_json(&self, json: String) -> String {
        if !json.contains(OPEN) {
            return json;
        }
        let mut revealed = json;
        for (number, value) in self.0.iter().enumerate() {
            let quoted = Value::String(value.clone()).to_string();
            revealed = revealed.replace(&placeholder(number), &quoted[1..quoted.len() - 1]);
        }
        revealed
    }
}

fn placeholder(number: usize) -> String {
    format!("{OPEN}{number}{CLOSE}")
}

/// Shows placeholders in an event as `***`.
pub(crate) fn show_event(event: &mut Event) {
    for text in [&mut event.message, &mut event.display_name, &mut event.description] {
        text.iter_mut().for_each(show_text);
    }
    for value in event.results.iter_mut().flat_map(|results| results.values_mut()) {
        show_value(value);
    }
    for value in event.matrix.iter_mut().flat_map(|cell| cell.params.values_mut()) {
        show_value(value);
    }
}

/// Shows placeholders in every string of a JSON value as `***`.
pub(crate) fn show_json(value: &mut Value) {
    match value {
        Value::String(text) => show_text(text),
        Value::Array(items) => items.iter_mut().for_each(show_json),
        Value::Object(entries) => entries.values_mut().for_each(show_json),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn show_value(value: &mut ParamValue) {
    match value {
        ParamValue::String(text) => show_text(text),
        ParamValue::Array(items) => items.iter_mut().for_each(show_text),
        ParamValue::Object(entries) => entries.values_mut().for_each(show_text),
    }
}

fn show_text(text: &mut String) {
    if !text.contains(OPEN) {
        return;
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once(OPEN) {
        shown.push_str(before);
        rest = match after.split_once(CLOSE) {
            Some((number, after)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                shown.push_str(MASK);
                after
            }
            _ => after,
        };
    }
    shown.push_str(rest);
    *text = shown;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hidden(secrets: &Secrets, text: &str) -> String {
        let mut text = text.to_owned();
        secrets.hide_text(&mut text, &|value| value == "compared");
        text
    }

    #[test]
    fn a_value_is_hidden_shown_masked_and_revealed_whole() {
        let secrets = Secrets::new(vec!["hunter2\"\n".to_owned(), "hunter".to_owned()]);
        let text = hidden(&secrets, "a hunter2\"\n b hunter c");
        assert!(!text.contains("hunter"));

        let revealed = secrets.reveal_in_json(json!({ "k": text }).to_string());
        let mut shown = json!({"k": [text]});
        show_json(&mut shown);
        assert_eq!(shown, json!({"k": ["a *** b *** c"]}));
        let revealed: Value = serde_json::from_str(&revealed).unwrap();
        assert_eq!(revealed, json!({"k": "a hunter2\"\n b hunter c"}));
    }

    #[test]
    fn short_values_and_text_without_secrets_stay() {
        let secrets = Secrets::new(vec!["abc".to_owned(), String::new()]);
        assert_eq!(hidden(&secrets, "abc"), "abc");
        assert_eq!(secrets.reveal_in_json("{}".to_owned()), "{}");
    }

    #[test]
    fn what_results_are_compared_with_stays() {
        let secrets = Secrets::new(vec!["compared".to_owned(), "hunter2".to_owned()]);
        let shown = hidden(&secrets, "compared hunter2");
        assert!(shown.starts_with("compared ") && !shown.contains("hunter2"));
    }

    #[test]
    fn stray_private_use_characters_do_no_harm() {
        for text in ["\u{F7E0}", "\u{F7E1}x\u{F7E0}", "\u{F7E0}x\u{F7E1}", "\u{F7E0}9"] {
            let mut shown = text.to_owned();
            show_text(&mut shown);
            assert!(!shown.contains(OPEN));
        }
    }
}
