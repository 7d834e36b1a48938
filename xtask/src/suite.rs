//! `cargo xtask test`: everything that tests need, then all of them, then one line that says how it went.

use std::process::Command;

use crate::command::{Check, Failure, begin, cargo, command, done, exists, output, run, stream};
use crate::registry::Registries;
use crate::{chaos, daemon, images, packages, source};

/// Tests passed and failed; a check counts as one test.
#[derive(Default)]
struct Count {
    passed: u64,
    failed: u64,
    failures: Vec<String>,
}

/// Installs, builds and starts what is needed, runs all tests, and ends what was started. With words: only tests whose name
/// contains one of them, and no checks of the sources.
pub fn test(words: &[String], ask: bool) -> Result<(), Failure> {
    let mut count = Count::default();
    // Cheap checks first: they fail within seconds.
    if words.is_empty() {
        count.check("formatting", source::format);
        count.check("repository rules", source::rules);
    }
    let _daemon = daemon::ensure(ask)?;
    images::build(false)?;
    chaos::tools(ask)?;
    // A daemon behind ssh, one behind TLS, and one that is Podman.
    packages::require(
        ask,
        &[
            ("sshd", "openssh-server"),
            ("ssh", "openssh-client"),
            ("openssl", "openssl"),
            ("podman", "podman"),
            ("promtool", "prometheus"),
        ],
    )?;
    let registries = Registries::start()?;
    let prometheus = packages::program("prometheus", "usr/bin")?;

    let start = begin("build");
    run(cargo(&["build", "--locked", "--package", "tenon"]))?;
    done("build", start);

    let start = begin("tests");
    let (mut tests, reader) = runner(words);
    tests.envs(registries.environment()).env("TENON_PROMETHEUS", prometheus);
    count.tests("tests", tests, reader)?;
    done("tests", start);

    if words.is_empty() {
        let start = begin("documentation tests");
        let documentation = cargo(&["test", "--locked", "--workspace", "--doc"]);
        count.tests("documentation tests", documentation, Runner::Cargo)?;
        done("documentation tests", start);
        count.check("lints", source::lints);
        count.check("1,000 schedules of the simulation", schedules);
        if exists("cargo-fuzz") {
            count.check("twenty seconds of fuzzing", fuzz);
        }
    }
    drop(registries);
    for failure in &count.failures {
        println!("FAILED: {failure}");
    }
    println!("{} passed, {} failed", count.passed, count.failed);
    if count.failed == 0 { Ok(()) } else { Err("some tests failed".to_owned()) }
}

/// The package that simulates the whole system.
const SIMULATION: &str = "tenon-simulation";

/// A thousand seeds of the simulation.
fn schedules() -> Result<(), Failure> {
    let simulate = ["run", "--quiet", "--locked", "--profile", "simulation"];
    let seeds = ["--package", SIMULATION, "--bin", "simulate", "--", "--seeds", "1000"];
    let mut simulate = cargo(&simulate);
    simulate.args(seeds);
    run(simulate)
}

/// cargo-fuzz needs a nightly compiler; the corpus is run by the ordinary tests too.
fn fuzz() -> Result<(), Failure> {
    let target = ["run", "--fuzz-dir", "tekton/fuzz", "load", "--", "-max_total_time=20"];
    run(command("rustup", ["run", "nightly", "cargo", "fuzz"].iter().chain(&target)))
}

/// Whose output is read. nextest shows the output of failed tests, in which cargo's harness sums up
/// each of them: only nextest's own lines count there.
#[derive(Clone, Copy, PartialEq)]
enum Runner {
    Cargo,
    Nextest,
}

/// nextest where it is installed, else cargo's own.
fn runner(words: &[String]) -> (Command, Runner) {
    let (mut command, runner) = if has_nextest() {
        let mut nextest = cargo(&["nextest", "run", "--locked", "--workspace", "--no-fail-fast"]);
        // It switches the deliberate bugs' switches on in what it depends on: built apart, see below.
        nextest.args(["--exclude", SIMULATION]);
        (nextest, Runner::Nextest)
    } else {
        let kinds = ["--lib", "--bins", "--tests", "--no-fail-fast", "--"];
        let mut harness = cargo(&["test", "--locked", "--workspace", "--exclude", SIMULATION]);
        harness.args(kinds);
        (harness, Runner::Cargo)
    };
    command.args(words);
    (command, runner)
}

fn has_nextest() -> bool {
    exists("cargo-nextest") && output(cargo(&["nextest", "--version"])).is_ok()
}

impl Count {
    fn check(&mut self, name: &str, check: Check) {
        let start = begin(name);
        match check() {
            Ok(()) => self.passed += 1,
            Err(error) => {
                println!("    {error}");
                self.failed += 1;
                self.failures.push(name.to_owned());
            }
        }
        done(name, start);
    }

    fn tests(&mut self, name: &str, command: Command, runner: Runner) -> Result<(), Failure> {
        let before = self.failed;
        let succeeded = stream(command, |line| self.read(line, runner))?;
        // A test program that does not compile, or dies, has no failed test to show.
        if !succeeded && self.failed == before {
            self.failed += 1;
            self.failures.push(format!("{name}: see above"));
        }
        Ok(())
    }

    /// Reads one line of a runner's output.
    fn read(&mut self, line: &str, runner: Runner) {
        let trimmed = line.trim_start();
        let (summary, failures) = match runner {
            Runner::Cargo => {
                let failure = trimmed.strip_prefix("test ");
                ("test result: ", failure.and_then(|rest| rest.strip_suffix(" ... FAILED")))
            }
            Runner::Nextest => {
                let failure =
                    trimmed.strip_prefix("FAIL [").or_else(|| trimmed.strip_prefix("TIMEOUT ["));
                ("Summary [", failure.and_then(|rest| rest.split_once("] ")).map(|(_, name)| name))
            }
        };
        if trimmed.starts_with(summary) {
            self.passed += number_before(line, " passed");
            self.failed += number_before(line, " failed") + number_before(line, " timed out");
        } else if let Some(name) = failures {
            // Told when it happens and again at the end.
            let name = name.rsplit(") ").next().unwrap_or(name).trim().to_owned();
            if !self.failures.contains(&name) {
                self.failures.push(name);
            }
        }
    }
}

/// The number before a word, 0 where the word is not there.
fn number_before(line: &str, word: &str) -> u64 {
    let before = line.split(word).next().filter(|before| before.len() < line.len());
    let digits = before.and_then(|before| before.trim_end().rsplit([' ', '\u{1b}', 'm']).next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Count, Runner};

    #[test]
    fn cargos_own_harness_is_counted() {
        let mut count = Count::default();
        for line in [
            "test result: FAILED. 8 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s",
            "test a::b ... FAILED",
        ] {
            count.read(line, Runner::Cargo);
        }
        assert_eq!((count.passed, count.failed), (8, 2));
        assert_eq!(count.failures, ["a::b"]);
    }

    #[test]
    fn nextest_is_counted_once_whatever_failed_tests_print() {
        let mut count = Count::default();
        for line in [
            "        FAIL [   0.012s] (3/33) tenon-journal::damage every_flip",
            "    test every_flip ... FAILED",
            "    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out",
            "     Summary [   1.234s] 33 tests run: 30 passed, 2 failed, 1 timed out, 4 skipped",
            "        FAIL [   0.012s] (3/33) tenon-journal::damage every_flip",
        ] {
            count.read(line, Runner::Nextest);
        }
        assert_eq!((count.passed, count.failed), (30, 3));
        assert_eq!(count.failures, ["tenon-journal::damage every_flip"]);
    }
}
