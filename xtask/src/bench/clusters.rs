//! Clusters: real nodes, agents that pretend or that run steps, etcd or Docker beside them. What measures is a program of
//! its own (`tests/bench`), because it speaks gRPC and xtask is to build in seconds.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::measure::{Goal, Measure};
use crate::command;

/// Builds the release binary and the program that measures, and runs a suite of it; `arguments` are for it.
pub fn run(suite: &str, arguments: &[String]) -> Result<Vec<Measure>, String> {
    command::run(command::cargo(&["build", "--release", "-p", "tenon", "-p", "tenon-bench"]))?;
    let release = command::target().join("release");
    let mut bench = Command::new(release.join("tenon-bench"));
    bench.arg(suite).arg(release.join("tenon")).arg(command::target()).args(arguments);
    bench.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = bench.spawn().map_err(|error| format!("start {bench:?}: {error}"))?;
    let mut measures = Vec::new();
    for line in child.stdout.take().into_iter().flat_map(|output| BufReader::new(output).lines()) {
        let line = line.map_err(|error| error.to_string())?;
        let measure = measure(&line).ok_or_else(|| format!("not a figure: {line}"))?;
        eprintln!("measured: {}: {:.2} {}", measure.name, measure.value, measure.unit);
        measures.push(measure);
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    match status.success() {
        true => Ok(measures),
        false => Err(format!("{bench:?} ended with {status}")),
    }
}

/// A line that the program printed.
pub(super) fn measure(line: &str) -> Option<Measure> {
    let line: Value = serde_json::from_str(line).ok()?;
    let rival = &line["rival"];
    Some(Measure {
        name: line["name"].as_str()?.to_owned(),
        // What could not be measured is no number, and meets no goal.
        value: line["value"].as_f64().unwrap_or(f64::NAN),
        unit: line["unit"].as_str()?.to_owned().into(),
        rival: rival["name"]
            .as_str()
            .map(|name| (name.to_owned(), rival["value"].as_f64().unwrap_or(f64::NAN))),
        goal: match line["goal"].as_str()? {
            "atMost" => Goal::AtMost(line["limit"].as_f64()?),
            "atLeast" => Goal::AtLeast(line["limit"].as_f64()?),
            _ => Goal::None,
        },
    })
}
