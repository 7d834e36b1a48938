//! One measured figure, and how a list of them is shown.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::{Value, json};

/// A figure beside its rival's.
pub struct Measure {
    /// What was measured.
    pub name: String,
    /// Ours.
    pub value: f64,
    /// Of `value`, `rival` and `goal`.
    pub unit: Cow<'static, str>,
    /// What the same thing takes without Tenon, and how that is called; none for a bare limit.
    pub rival: Option<(String, f64)>,
    /// The goal.
    pub goal: Goal,
}

/// What a value should be.
#[derive(Clone, Copy)]
pub enum Goal {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// Nothing is asked of it.
    None,
}

impl Measure {
    fn met(&self) -> Option<bool> {
        match self.goal {
            Goal::AtMost(limit) => Some(self.value <= limit),
            Goal::AtLeast(limit) => Some(self.value >= limit),
            Goal::None => None,
        }
    }
}

/// One object a measure: `name`, `value`, `unit`, `rival`, `goal`, `met`; the last two are null where
/// nothing is asked.
pub fn to_json(measures: &[Measure]) -> String {
    let rows: Vec<Value> = measures
        .iter()
        .map(|measure| {
            json!({
                "name": measure.name,
                "value": rounded(measure.value),
                "unit": measure.unit,
                "rival": measure.rival.as_ref().map(|(name, value)| {
                    json!({"name": name, "value": rounded(*value)})
                }),
                "goal": limit(measure.goal),
                "met": measure.met(),
            })
        })
        .collect();
    serde_json::to_string_pretty(&rows).expect("plain values are always valid JSON")
}

/// A Markdown table, as docs/performance.md has it.
pub fn to_table(measures: &[Measure]) -> String {
    let mut table =
        String::from("| measure | value | rival | goal | met |\n|---|---:|---:|---:|---|\n");
    for measure in measures {
        let rival = match &measure.rival {
            Some((name, value)) => format!("{} {} ({name})", rounded(*value), measure.unit),
            None => "–".to_owned(),
        };
        let met = match measure.met() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "–",
        };
        writeln!(
            table,
            "| {} | {} {} | {rival} | {} | {met} |",
            measure.name,
            rounded(measure.value),
            measure.unit,
            goal_text(measure.goal),
        )
        .expect("writing to a String cannot fail");
    }
    table
}

/// The bare number; `met` says on which side of it the value should be.
fn limit(goal: Goal) -> Option<f64> {
    match goal {
        Goal::AtMost(limit) | Goal::AtLeast(limit) => Some(limit),
        Goal::None => None,
    }
}

fn goal_text(goal: Goal) -> String {
    match goal {
        Goal::AtMost(limit) => format!("≤ {limit}"),
        Goal::AtLeast(limit) => format!("≥ {limit}"),
        Goal::None => "–".to_owned(),
    }
}

fn rounded(value: f64) -> f64 {
    let places = if value.abs() >= 100.0 { 1.0 } else { 100.0 };
    (value * places).round() / places
}

/// The middle value.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
