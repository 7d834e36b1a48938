//! `cargo xtask chaos`: parses, runs, prints.

use std::path::PathBuf;
use std::process::ExitCode;

use tenon_chaos::{Backend, Options, run};

const USAGE: &str = "\
usage: tenon-chaos --tenon FILE [--kills N] [--seed S] [--backend docker|host] [--users N] [--keep]

  --tenon FILE   the tenon to test
  --kills N      kill so many leaders [10]; what else is done comes on top
  --seed S       choose what is done [by the clock]
  --backend B    what runs the steps [docker]
  --users N      so many runs at a time [5]
  --keep         keep logs and data even if all went well
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
    let mut binary = None;
    let mut options = Options {
        kills: 10,
        seed: clock,
        backend: Backend::Docker,
        users: 5,
        binary: PathBuf::new(),
        keep: false,
    };
    while let Some(arg) = args.next() {
        if arg == "--keep" {
            options.keep = true;
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{arg}: no such option, or no value"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{arg} {value}: {error}"));
        let small = || number().and_then(|n| usize::try_from(n).map_err(|error| error.to_string()));
        match arg.as_str() {
            "--tenon" => binary = Some(PathBuf::from(value)),
            "--kills" => options.kills = small()?,
            "--seed" => options.seed = number()?,
            "--users" => options.users = small()?,
            "--backend" if value == "docker" => options.backend = Backend::Docker,
            "--backend" if value == "host" => options.backend = Backend::Host,
            _ => return Err(format!("{arg} {value}: no such option")),
        }
    }
    let binary = binary.ok_or("--tenon is missing")?;
    options.binary = std::path::absolute(&binary).map_err(|error| error.to_string())?;
    match options.binary.is_file() {
        true => Ok(options),
        false => Err(format!("{} is not built", binary.display())),
    }
}
