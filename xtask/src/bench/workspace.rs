//! Moving a workspace, beside `tar | zstd`: `blobs/examples/workspace.rs`.

use super::clusters::measure;
use super::measure::Measure;
use crate::command;

/// Builds and runs it. It works below the target directory, which is on a disk where temporary files may not be.
pub fn run() -> Result<Vec<Measure>, String> {
    let arguments =
        ["run", "--profile", "simulation", "-p", "tenon-blobs", "--example", "workspace", "--"];
    let output = command::cargo(&arguments)
        .arg(command::target())
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| format!("start cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("workspace ended with {}", output.status));
    }
    let lines = String::from_utf8_lossy(&output.stdout);
    lines.lines().map(|line| measure(line).ok_or_else(|| format!("not a figure: {line}"))).collect()
}
