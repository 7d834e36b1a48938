//! Chaos around a command: whatever uses a cluster, by `TENON_SERVER`, is to see nothing of it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Failure;
use crate::agent_faults::AgentHarm;
use crate::faults::Harm;
use crate::fleet::{Fleet, HEALING};
use crate::placements::Placements;
use crate::processes::dies_with_us;
use crate::random::Random;
use crate::suite::{Options, Outcome};

/// The variable by which `tenon` finds the cluster.
const SERVER: &str = "TENON_SERVER";

/// Does harm until the command ends.
pub async fn around(
    options: &Options,
    command: &[String],
    calm: bool,
    mut fleet: Fleet,
    dir: &Path,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let mut random = Random::new(options.seed);
    let mut other = Random::new(random.bits());
    let placements = Placements::record(options.backend, dir)?;
    let mut child = Used::start(command, &fleet.urls)?;
    let (mut harm, mut agent_harm) = (Harm::default(), AgentHarm::default());
    let began = Instant::now();
    let harmed = async {
        if calm {
            return std::future::pending().await;
        }
        tokio::try_join!(
            harm.for_ever(&mut fleet.processes, &mut random),
            agent_harm.for_ever(&mut fleet.agents, &mut other),
        )
        .map(|_| ())
    };
    let code = tokio::select! {
        code = child.end() => code?,
        harmed = harmed => return harmed.and(Err("the harm ended before the command".to_owned())),
    };
    outcome.done = format!(
        "the command ended with {code} after {} s; {harm}; {agent_harm}",
        began.elapsed().as_secs()
    );
    if code != 0 {
        outcome.faults.push(format!("the command ended with {code}"));
    }
    fleet.heal().await?;
    tokio::time::timeout(HEALING, fleet.until_all_are_up())
        .await
        .map_err(|_| "the agents do not come back".to_owned())??;
    let mut read = fleet.compare(outcome).await?;
    outcome.doubled.append(&mut read.doubled);
    outcome.faults.append(&mut read.faults);
    println!("{} runs, {} placements were lost", read.runs(), read.losses());
    outcome.doubled.extend(placements.finish(dir, &read.lost)?.doubled);
    fleet.end(outcome).await
}

/// The command that uses the fleet.
struct Used(Child);

impl Used {
    fn start(command: &[String], urls: &[String]) -> Result<Used, Failure> {
        let (program, args) = command.split_first().ok_or("no command is named")?;
        let mut command = Command::new(program);
        command.args(args).env(SERVER, urls.join(",")).stdin(Stdio::null());
        dies_with_us(&mut command);
        command.spawn().map(Used).map_err(|error| format!("cannot run {program}: {error}"))
    }

    /// Waits for its end; gives its exit code.
    async fn end(&mut self) -> Result<i32, Failure> {
        loop {
            if let Some(status) = self.0.try_wait().map_err(|error| error.to_string())? {
                return Ok(status.code().unwrap_or(-1));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        // One that has ended needs no killing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
