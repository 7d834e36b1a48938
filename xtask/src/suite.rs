//! `cargo xtask test`: everything that tests need, then all of them, then one line that says how it went.

use std::process::Command;

use crate::command::{Check, Failure, begin, cargo, command, done, exists, output, run, stream};
use crate::registry::Registries;
use crate::{daemon, images, source};

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
    let registries = Registries::start()?;

    let start = begin("build");
    run(cargo(&["build", "--locked", "--package", "tenon"]))?;
    done("build", start);

    let start = begin("tests");
    let mut tests = runner(words);
    tests.envs(registries.environment());
    count.tests("tests", tests)?;
    done("tests", start);

    if words.is_empty() {
        let start = begin("documentation tests");
        count.tests("documentation tests", cargo(&["test", "--locked", "--workspace", "--doc"]))?;
        done("documentation tests", start);
        count.check("lints", source::lints);
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

/// cargo-fuzz needs a nightly compiler; the corpus is run by the ordinary tests too.
fn fuzz() -> Result<(), Failure> {
    let target = ["run", "--fuzz-dir", "tekton/fuzz", "load", "--", "-max_total_time=20"];
    run(command("rustup", ["run", "nightly", "cargo", "fuzz"].iter().chain(&target)))
}

/// nextest where it is installed, else cargo's own.
fn runner(words: &[String]) -> Command {
    let mut command = if has_nextest() {
        cargo(&["nextest", "run", "--locked", "--workspace", "--no-fail-fast"])
    } else {
        cargo(&[
            "test",
            "--locked",
            "--workspace",
            "--lib",
            "--bins",
            "--tests",
            "--no-fail-fast",
            "--",
        ])
    };
    command.args(words);
    command
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

    fn tests(&mut self, name: &str, command: Command) -> Result<(), Failure> {
        let before = self.failed;
        let succeeded = stream(command, |line| self.read(line))?;
        // A test program that does not compile, or dies, has no failed test to show.
        if !succeeded && self.failed == before {
            self.failed += 1;
            self.failures.push(format!("{name}: see above"));
        }
        Ok(())
    }

    /// Reads the summary lines of cargo's test harness and of nextest.
    fn read(&mut self, line: &str) {
        let number_before = |word: &str| {
            let before = line.split(word).next().filter(|before| before.len() < line.len())?;
            before.trim_end().rsplit([' ', '\u{1b}', 'm']).next()?.parse::<u64>().ok()
        };
        let trimmed = line.trim_start();
        if trimmed.starts_with("test result: ") || trimmed.starts_with("Summary [") {
            self.passed += number_before(" passed").unwrap_or(0);
            self.failed +=
                number_before(" failed").unwrap_or(0) + number_before(" timed out").unwrap_or(0);
        } else if let Some(name) =
            trimmed.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        } else if let Some(rest) =
            trimmed.strip_prefix("FAIL [").or_else(|| trimmed.strip_prefix("TIMEOUT ["))
        {
            let name = rest.split(']').nth(1).unwrap_or(rest).trim().to_owned();
            if !self.failures.contains(&name) {
                self.failures.push(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Count;

    #[test]
    fn summaries_of_both_runners_are_counted() {
        let mut count = Count::default();
        for line in [
            "test result: FAILED. 8 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s",
            "test a::b ... FAILED",
            "     Summary [   1.234s] 33 tests run: 30 passed, 2 failed, 1 timed out, 4 skipped",
            "        FAIL [   0.012s] tenon-journal::damage every_flip",
            "        FAIL [   0.012s] tenon-journal::damage every_flip",
        ] {
            count.read(line);
        }
        assert_eq!((count.passed, count.failed), (38, 5));
        assert_eq!(count.failures, ["a::b", "tenon-journal::damage every_flip"]);
    }
}
