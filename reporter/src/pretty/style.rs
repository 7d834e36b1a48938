//! Colours, and whether to use them.
//!
//! Only the sixteen colours that every terminal's own theme defines are used, so that output stays
//! readable on light and dark backgrounds.

use std::ffi::OsString;

use tenon_engine::event::Status;

/// Whether escape sequences for colour are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    color: bool,
}

/// A colour or weight, as the parameters of an SGR sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint(&'static str);

impl Paint {
    /// Went well.
    pub const GOOD: Paint = Paint("32");
    /// Went wrong.
    pub const BAD: Paint = Paint("31");
    /// Deserves attention.
    pub const WARN: Paint = Paint("33");
    /// Beside the point.
    pub const DIM: Paint = Paint("2");
    /// The point.
    pub const BOLD: Paint = Paint("1");
}

/// Colours of task names: distinct from those of good and bad as far as sixteen colours allow.
const TASKS: [Paint; 9] = [
    Paint("36"),
    Paint("35"),
    Paint("34"),
    Paint("33"),
    Paint("96"),
    Paint("95"),
    Paint("94"),
    Paint("93"),
    Paint("92"),
];

impl Style {
    /// With colour or without.
    pub fn new(color: bool) -> Style {
        Style { color }
    }

    /// By the conventions of the environment: `NO_COLOR` (not empty) turns colour off,
    /// `FORCE_COLOR` (not empty, not `0`) turns it on, else a terminal has it unless it is `dumb`.
    pub fn from_env(terminal: bool, var: impl Fn(&str) -> Option<OsString>) -> Style {
        let set = |name| var(name).filter(|value| !value.is_empty());
        let color = if set("NO_COLOR").is_some() {
            false
        } else if let Some(force) = set("FORCE_COLOR") {
            force != "0"
        } else {
            terminal && var("TERM").is_none_or(|term| term != "dumb")
        };
        Style { color }
    }

    /// Whether colour is on.
    pub fn has_color(self) -> bool {
        self.color
    }

    /// `text` in `paint`.
    pub fn paint(self, paint: Paint, text: &str) -> String {
        if self.color && !text.is_empty() {
            format!("\x1b[{}m{text}\x1b[0m", paint.0)
        } else {
            text.to_owned()
        }
    }
}

/// The colour of a task: the same in every run, because it depends on nothing but the name.
pub fn task_paint(name: &str) -> Paint {
    // FNV-1a: short, and spreads short names well.
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    TASKS[hash as usize % TASKS.len()]
}

/// Sign, word and colour of a status.
pub fn status_words(status: Status) -> (&'static str, &'static str, Paint) {
    match status {
        Status::Succeeded => ("✓", "succeeded", Paint::GOOD),
        Status::Failed => ("✗", "failed", Paint::BAD),
        Status::InfraFailed => ("✗", "infrafailed", Paint::BAD),
        Status::Skipped => ("○", "skipped", Paint::DIM),
        Status::NotRun => ("○", "not run", Paint::DIM),
        Status::Timeout => ("✗", "timeout", Paint::BAD),
        Status::Cancelled => ("✗", "cancelled", Paint::WARN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_decides() {
        type Case = (bool, &'static [(&'static str, &'static str)], bool);
        let cases: [Case; 7] = [
            (true, &[], true),
            (false, &[], false),
            (true, &[("NO_COLOR", "1")], false),
            (true, &[("NO_COLOR", "")], true),
            (false, &[("FORCE_COLOR", "1")], true),
            (false, &[("FORCE_COLOR", "1"), ("NO_COLOR", "1")], false),
            (true, &[("TERM", "dumb")], false),
        ];
        for (terminal, vars, want) in cases {
            let var = |name: &str| {
                let found = vars.iter().find(|(key, _)| *key == name)?;
                Some(OsString::from(found.1))
            };
            assert_eq!(Style::from_env(terminal, var).has_color(), want, "{terminal} {vars:?}");
        }
    }
}
