//! `cargo xtask chaos`: builds what is needed, then lets `tenon-chaos` do and say everything.

use crate::command::{Failure, cargo, command, run, target};
use crate::{daemon, images, packages};

/// Makes sure that namespaces can be made and cut off.
pub fn tools(ask: bool) -> Result<(), Failure> {
    packages::require(ask, &[("ip", "iproute2"), ("iptables", "iptables")])
}

/// Runs the suite with these options; `--release` builds what is tested as it is released, and
/// `--conformance` is `--around` the conformance cases.
pub fn chaos(options: &[String], ask: bool) -> Result<(), Failure> {
    tools(ask)?;
    let on_host = options.windows(2).any(|pair| pair[0] == "--backend" && pair[1] == "host");
    let _daemon = if on_host {
        None
    } else {
        let daemon = daemon::ensure(ask)?;
        images::build(false)?;
        daemon
    };
    let is_release = options.iter().any(|option| option == "--release");
    let conformance = options.iter().any(|option| option == "--conformance");
    let ours = ["--release", "--conformance"];
    let options = options.iter().filter(|option| !ours.contains(&option.as_str()));
    let mut build = cargo(&["build", "--locked", "--package", "tenon"]);
    if is_release {
        build.arg("--release");
    }
    run(build)?;
    run(cargo(&["build", "--locked", "--package", "tenon-chaos"]))?;
    let built = target().join(if is_release { "release" } else { "debug" }).join("tenon");
    let suite = target().join("debug").join("tenon-chaos");
    let mut suite = command(&suite.display().to_string(), ["--tenon"]);
    suite.arg(built).args(options);
    if conformance {
        // The cases go wherever `TENON_SERVER` says.
        suite.args(["--around", "--"]).args(cases(if on_host {
            "on_the_host"
        } else {
            "on_docker"
        }));
    }
    run(suite)
}

/// The command that runs the conformance cases of a backend.
fn cases(backend: &str) -> Vec<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let test = ["test", "--locked", "--package", "tenon-tests", "--test", "conformance", "--"];
    let mut words = vec![cargo];
    words.extend(test.iter().chain(&[backend, "--nocapture"]).map(|&word| word.to_owned()));
    words
}
