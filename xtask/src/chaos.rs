//! `cargo xtask chaos`: builds what is needed, then lets `tenon-chaos` do and say everything.

use crate::command::{Failure, cargo, command, exists, run, target};
use crate::{daemon, images, packages};

/// Makes sure that namespaces can be made and cut off.
pub fn tools(ask: bool) -> Result<(), Failure> {
    let wanted: Vec<&str> = [("ip", "iproute2"), ("iptables", "iptables")]
        .into_iter()
        .filter(|(program, _)| !exists(program))
        .map(|(_, package)| package)
        .collect();
    if wanted.is_empty() { Ok(()) } else { packages::install(ask, &wanted) }
}

/// Runs the suite with these options; `--release` builds what is tested as it is released.
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
    let options = options.iter().filter(|option| *option != "--release");
    let mut build = cargo(&["build", "--locked", "--package", "tenon"]);
    if is_release {
        build.arg("--release");
    }
    run(build)?;
    run(cargo(&["build", "--locked", "--package", "tenon-chaos"]))?;
    let built = target().join(if is_release { "release" } else { "debug" }).join("tenon");
    let suite = target().join("debug").join("tenon-chaos");
    let mut suite = command(&suite.display().to_string(), options);
    suite.arg("--tenon").arg(built);
    run(suite)
}
