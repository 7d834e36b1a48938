//! `simulate --seeds N [--from S] [--bug NAME] [--nodes N] [--trace] [--jobs N]`

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tenon_journal::bugs::{Bug, switch_on};
use tenon_simulation::oracle::Violation;
use tenon_simulation::settings::Choice;
use tenon_simulation::trace::Words;
use tenon_simulation::{Counts, catch_panics, run};

/// A fifth of a schedule is giving and taking back memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
usage: simulate [--seeds N] [--from S] [--bug NAME] [--nodes 1|3|5] [--trace] [--jobs N]

  --seeds N    so many schedules (100)
  --from S     from this seed on (0)
  --bug NAME   with a deliberate bug, until it is caught
  --nodes N    always so many nodes; drawn from the seed otherwise
  --trace      print everything that happens
  --jobs N     so many schedules at a time (as many as there are processors)
";

struct Arguments {
    seeds: u64,
    from: u64,
    bug: Option<Bug>,
    nodes: Option<u64>,
    trace: bool,
    jobs: u64,
}

fn arguments() -> Option<Arguments> {
    let jobs = std::thread::available_parallelism().map_or(2, |count| count.get() as u64);
    let mut arguments =
        Arguments { seeds: 100, from: 0, bug: None, nodes: None, trace: false, jobs };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        if name == "--trace" {
            arguments.trace = true;
            continue;
        }
        let value = given.next()?;
        let number = || value.parse::<u64>().ok();
        match name.as_str() {
            "--seeds" => arguments.seeds = number()?,
            "--from" => arguments.from = number()?,
            "--nodes" => arguments.nodes = Some(number()?),
            "--jobs" => arguments.jobs = number()?.max(1),
            "--bug" => {
                let wanted = value.to_lowercase().replace(['-', '_'], "");
                let named = |bug: &&Bug| format!("{bug:?}").to_lowercase() == wanted;
                arguments.bug = Some(*Bug::ALL.iter().find(named)?);
            }
            _ => return None,
        }
    }
    Some(arguments)
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    catch_panics();
    let choice = Choice { nodes: arguments.nodes };
    let began = Instant::now();
    let (next, done) = (AtomicU64::new(arguments.from), AtomicU64::new(0));
    let end = arguments.from.saturating_add(arguments.seeds);
    let found: Mutex<Vec<(u64, Violation)>> = Mutex::default();
    let counts: Mutex<Counts> = Mutex::default();
    let worker = || {
        let _bug = arguments.bug.map(switch_on);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let caught =
                arguments.bug.is_some() && !found.lock().is_ok_and(|found| found.is_empty());
            if seed >= end || caught {
                return;
            }
            let words = if arguments.trace { Words::All } else { Words::None };
            let outcome = run(seed, &choice, words);
            if let Ok(mut all) = counts.lock() {
                all.add(&outcome.counts);
            }
            if let Some(violation) = outcome.violation {
                tell(seed, &violation, &choice, &arguments);
                if let Ok(mut found) = found.lock() {
                    found.push((seed, violation));
                }
            }
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(50) {
                let rate = done as f64 / began.elapsed().as_secs_f64();
                eprintln!("{done} schedules, {rate:.1} a second");
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(worker);
        }
    });
    let violations = found.lock().map_or(0, |found| found.len());
    let done = done.load(Ordering::Relaxed);
    if let Ok(counts) = counts.lock() {
        println!("{counts:?} in {:.1} s", began.elapsed().as_secs_f64());
    }
    println!("{done} schedules, {violations} violations");
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says what went wrong, how it came to that, and how to see it again.
fn tell(seed: u64, violation: &Violation, choice: &Choice, arguments: &Arguments) {
    let mut command = format!("cargo xtask simulate --seeds 1 --from {seed}");
    if let Some(bug) = arguments.bug {
        command += &format!(" --bug {bug:?}");
    }
    if let Some(nodes) = choice.nodes {
        command += &format!(" --nodes {nodes}");
    }
    let mut text = format!("seed {seed}: {violation}\n");
    if !arguments.trace && arguments.bug.is_none() {
        for line in run(seed, choice, Words::Story).story {
            text += &format!("    {line}\n");
        }
    }
    println!("{text}    again: {command}   (--trace for everything)");
}
