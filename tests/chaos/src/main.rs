//! `cargo xtask chaos`: parses, runs, prints.

use std::path::PathBuf;
use std::process::ExitCode;

use tenon_chaos::{Backend, Options, Work, run};

const USAGE: &str = "\
usage: tenon-chaos --tenon FILE [--kills N] [--agent-faults N] [OPTION..]
       tenon-chaos --tenon FILE --partitions N [OPTION..]
       tenon-chaos --tenon FILE --around [--calm] [OPTION..] -- COMMAND [ARG..]

  --tenon FILE      the tenon to test
  --kills N         kill so many leaders [10]; what else is done to coordinators comes on top
  --agent-faults N  and have so many faults of agents meanwhile [10]
  --partitions N    cut agents off so often, while steps write their fencing tokens into one file
  --around          do harm while the command uses the fleet, which TENON_SERVER names
  --calm            a fleet around the command, and no harm
  --seed S          choose what is done [by the clock]
  --backend B       what runs the steps: docker or host [docker]
  --users N         so many runs at a time [5; 8 with --partitions]
  --keep            keep logs and data even if all went well
";

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let outcome = match run(&options) {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("there could be no chaos run: {error}");
            return ExitCode::from(3);
        }
    };
    for (what, list) in [
        ("LOST", &outcome.lost),
        ("DOUBLED", &outcome.doubled),
        ("DIVERGED", &outcome.diverged),
        ("FAULT", &outcome.faults),
    ] {
        list.iter().for_each(|line| println!("{what} {line}"));
    }
    if let Some(kept) = &outcome.kept {
        println!("logs, data and events are kept in {}", kept.display());
    }
    if !outcome.is_good() {
        println!("FAILED (seed {})", options.seed);
    }
    println!("{outcome}");
    if outcome.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let clock = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
    let (mut binary, mut users) = (None, None);
    let (mut kills, mut agents, mut partitions) = (10, 10, None);
    let (mut is_around, mut calm, mut command) = (false, false, Vec::new());
    let (mut seed, mut backend, mut keep) = (clock, Backend::Docker, false);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--keep" => keep = true,
            "--around" => is_around = true,
            "--calm" => calm = true,
            "--" => command = args.by_ref().collect(),
            _ => {
                let value = args.next();
                let value = value.ok_or_else(|| format!("{arg}: no such option, or no value"))?;
                let number =
                    || value.parse::<u64>().map_err(|error| format!("{arg} {value}: {error}"));
                let small =
                    || number().and_then(|n| usize::try_from(n).map_err(|error| error.to_string()));
                match arg.as_str() {
                    "--tenon" => binary = Some(PathBuf::from(value)),
                    "--kills" => kills = small()?,
                    "--agent-faults" => agents = small()?,
                    "--partitions" => partitions = Some(small()?),
                    "--seed" => seed = number()?,
                    "--users" => users = Some(small()?),
                    "--backend" if value == "docker" => backend = Backend::Docker,
                    "--backend" if value == "host" => backend = Backend::Host,
                    _ => return Err(format!("{arg} {value}: no such option")),
                }
            }
        }
    }
    let work = match partitions {
        _ if is_around && command.is_empty() => return Err("--around needs a command".to_owned()),
        _ if is_around => Work::Around { command, calm },
        Some(partitions) => Work::Partitions(partitions),
        None => Work::Harm { kills, agents },
    };
    let users = users.unwrap_or(if partitions.is_some() { 8 } else { 5 });
    let binary = binary.ok_or("--tenon is missing")?;
    let absolute = std::path::absolute(&binary).map_err(|error| error.to_string())?;
    match absolute.is_file() {
        true => Ok(Options { work, seed, backend, users, binary: absolute, keep }),
        false => Err(format!("{} is not built", binary.display())),
    }
}
