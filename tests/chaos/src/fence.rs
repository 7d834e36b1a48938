//! Partitions: agents are cut off until what they ran was placed again, while every step writes its
//! fencing token into one file, all its life long.
//!
//! The file shows what a deployment would: once a placement has written, none before it may write any
//! more, however it was frozen, thawed or killed; and of no placement is a line missing.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use crate::Failure;
use crate::agent_faults::MARGIN_MS;
use crate::fleet::{Fleet, HEALING};
use crate::kinds::{Expect, Kind};
use crate::network::{Cut, Host};
use crate::random::Random;
use crate::suite::{Options, Outcome};
use crate::users::Users;

/// How many agents.
pub const AGENTS: usize = 5;
/// Lines that a step writes, ten a second.
const LINES: u64 = 100;
/// The file that all steps write to.
const FILE: &str = "shared";

/// Cuts agents off so often, and says what came of it.
pub async fn partitions(
    options: &Options,
    count: usize,
    mut fleet: Fleet,
    dir: &Path,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let mut random = Random::new(options.seed);
    let shared = dir.join("target");
    std::fs::create_dir(&shared).map_err(|error| format!("{}: {error}", shared.display()))?;
    let kind = kind(&shared.display().to_string());
    let urls = fleet.urls.clone();
    let users = Users::start(options.users, &urls, vec![kind], None, &mut random);

    let mut done = 0;
    while done < count {
        done += round(&mut fleet, (count - done).min(2), &mut random).await?;
        outcome.done = format!("{done} partitions, {} runs", users.acknowledged());
        println!("{}, {} ended", outcome.done, users.ended());
    }
    fleet.heal().await?;
    let (asked, faults) = users.finish(HEALING).await;
    outcome.faults.extend(faults);
    let mut read = fleet.compare(outcome).await?;
    outcome.lost.extend(read.compare(&asked));
    outcome.doubled.append(&mut read.doubled);
    outcome.faults.append(&mut read.faults);
    let text = std::fs::read_to_string(shared.join(FILE)).map_err(|error| error.to_string())?;
    let written = Written::read(&text);
    outcome.doubled.extend(written.interleaved);
    outcome.lost.extend(written.missing);
    let runs = asked.iter().filter(|asked| asked.run.is_some()).count();
    outcome.done = format!(
        "{done} partitions, {runs} runs, {} placements lost, {} of them had written, {} lines",
        read.losses(),
        written.superseded,
        written.lines
    );
    println!("{} runs were given up for being lost too often", read.given_up);
    fleet.end(outcome).await
}

/// One or two agents are cut off until they were given up, and come back.
async fn round(fleet: &mut Fleet, most: usize, random: &mut Random) -> Result<usize, Failure> {
    let first = random.among(AGENTS);
    let mut cut_off = vec![first];
    if most > 1 && random.below(2) == 0 {
        cut_off.push(1 + first % AGENTS);
    }
    for &agent in &cut_off {
        let nodes = (1..=fleet.urls.len()).map(Host::Node).collect();
        let how = if random.below(2) == 0 { Cut::Off } else { Cut::From(nodes) };
        fleet.agents.remark(agent, &format!("cut: {how:?}"));
        fleet.agents.network.cut(Host::Agent(agent), &how)?;
        match random.below(100) {
            0..15 => fleet.agents.stop(agent),
            15..30 => fleet.agents.kill(agent),
            30..45 => drop(fleet.agents.kill_guard(agent)),
            _ => {}
        }
    }
    if random.below(8) == 0 {
        let node = random.among(fleet.urls.len());
        fleet.processes.remark(node, "killed");
        fleet.processes.kill(node);
        fleet.processes.start_node(node)?;
    }
    for &agent in &cut_off {
        fleet.until(agent, "down").await?;
    }
    // Time for others to begin with it, or not.
    sleep(Duration::from_millis(random.between(0, MARGIN_MS))).await;
    for &agent in &cut_off {
        fleet.agents.remark(agent, "healed");
        let is_first = random.below(2) == 0;
        if is_first {
            fleet.agents.network.heal(Host::Agent(agent))?;
        }
        fleet.agents.go_on(agent);
        if !fleet.agents.is_started(agent) {
            fleet.agents.start_agent(agent)?;
        }
        fleet.agents.network.heal(Host::Agent(agent))?;
    }
    for &agent in &cut_off {
        fleet.until(agent, "up").await?;
    }
    sleep(Duration::from_millis(random.between(0, 1000))).await;
    Ok(cut_off.len())
}

fn kind(dir: &str) -> Kind {
    let manifest = RUN.replace("@DIR@", dir).replace("@FILE@", FILE);
    let manifest = manifest.replace("@LINES@", &LINES.to_string());
    let expect = Expect { status: "succeeded", results: None, lines: Some(LINES) };
    Kind::new("fence", manifest, expect)
}

const RUN: &str = r#"apiVersion: tekton.dev/v1
kind: TaskRun
metadata:
  name: NAME
spec:
  taskSpec:
    volumes:
    - name: target
      hostPath: {path: "@DIR@", type: Directory}
    steps:
    - name: deploy
      image: busybox
      volumeMounts: [{name: target, mountPath: /target}]
      script: |
        i=0
        while [ "$i" -lt @LINES@ ]; do
          i=$((i + 1))
          echo "$TENON_TASK_RUN $TENON_FENCING_TOKEN $i" >> /target/@FILE@
          echo "line $i"
          sleep 0.1
        done
"#;

/// What stands in the file.
#[derive(Debug, Default)]
struct Written {
    lines: usize,
    /// Placements behind which another one has written.
    superseded: usize,
    interleaved: Vec<String>,
    missing: Vec<String>,
}

impl Written {
    /// From lines `TASKRUN TOKEN NUMBER`.
    fn read(text: &str) -> Written {
        let mut written = Written::default();
        // TaskRun to its highest token and the last line with that.
        let mut last: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for line in text.lines() {
            written.lines += 1;
            let mut words = line.split(' ');
            let task_run = words.next().unwrap_or_default();
            let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
            let (Some(token), Some(line_number)) = (number(), number()) else {
                written.missing.push(format!("{line:?} is no line of a step"));
                continue;
            };
            let before = last.get(task_run).copied();
            if let Some((highest, _)) = before
                && token < highest
            {
                written.interleaved.push(format!("{line:?} comes after {highest} has written"));
                continue;
            }
            let same = before.filter(|(highest, _)| *highest == token);
            written.superseded += usize::from(before.is_some() && same.is_none());
            let expected = same.map_or(1, |(_, last)| last + 1);
            if line_number != expected {
                written.missing.push(format!("{line:?} comes where {expected} should"));
            }
            last.insert(task_run, (token, line_number));
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_behind_a_later_placement_is_found() {
        let good = Written::read("a 1000001 1\na 1000001 2\nb 1000001 1\na 1000002 1\n");
        assert_eq!((good.superseded, good.lines), (1, 4));
        assert!(good.interleaved.is_empty() && good.missing.is_empty(), "{good:?}");
        let late = Written::read("a 1000001 1\na 1000002 1\na 1000001 2\na 1000002 2\n");
        assert_eq!((late.interleaved.len(), late.missing.len()), (1, 0));
        assert_eq!(Written::read("a 1000001 1\na 1000001 3\n").missing.len(), 1);
        assert_eq!(Written::read("a 1000001\n").missing.len(), 1);
    }
}
