//! One measured figure, and medians and percentiles.

use serde_json::json;

/// A figure beside its rival's, and what it should be.
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// How the rival is called, and its figure.
    pub rival: Option<(String, f64)>,
    pub goal: Goal,
}

/// What a value should be.
#[derive(Clone, Copy)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// Nothing is asked of it.
    None,
}

impl Figure {
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str, goal: Goal) -> Figure {
        Figure { name: name.into(), value, unit, rival: None, goal }
    }

    pub fn beside(mut self, rival: &str, value: f64) -> Figure {
        self.rival = Some((rival.to_owned(), value));
        self
    }

    /// As one line of JSON on standard output.
    pub fn print(&self) {
        let (goal, limit) = match self.goal {
            Goal::AtMost(limit) => ("atMost", Some(limit)),
            Goal::AtLeast(limit) => ("atLeast", Some(limit)),
            Goal::None => ("none", None),
        };
        let rival = self.rival.as_ref().map(|(name, value)| json!({"name": name, "value": value}));
        println!(
            "{}",
            json!({"name": self.name, "value": self.value, "unit": self.unit, "rival": rival,
                   "goal": goal, "limit": limit})
        );
    }
}

/// The middle value.
pub fn median(values: Vec<f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value below which this share of the values is.
pub fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
