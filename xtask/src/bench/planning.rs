//! Placement alone, without nodes: `engine/examples/planning.rs`.

use super::clusters::measure;
use super::measure::Measure;
use crate::command;

/// Builds and runs it.
pub fn run() -> Result<Vec<Measure>, String> {
    let arguments = ["run", "--release", "-p", "tenon-engine", "--example", "planning"];
    let output = command::cargo(&arguments)
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| format!("start cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("planning ended with {}", output.status));
    }
    let lines = String::from_utf8_lossy(&output.stdout);
    lines.lines().map(|line| measure(line).ok_or_else(|| format!("not a figure: {line}"))).collect()
}
