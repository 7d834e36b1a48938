//! Benchmarks: each prints what it measured beside a rival measured in the same run, and whether
//! that meets the goal. A missed goal is printed as missed and is no failure: figures are for people
//! and for docs/performance.md, never for tests.

mod clusters;
mod local;
mod measure;
mod planning;
mod workspace;

/// `cargo xtask bench SUITE [--json] ..`; the exit code.
pub fn run(args: &[String]) -> i32 {
    let json = args.iter().any(|arg| arg == "--json");
    let catalog = args.iter().position(|arg| arg == "--catalog").and_then(|at| args.get(at + 1));
    let outcome = match args.first().map(String::as_str) {
        Some("local") => local::run(catalog.map(String::as_str)),
        Some(suite @ ("control-plane" | "fleet")) => {
            let rest: Vec<String> =
                args[1..].iter().filter(|arg| *arg != "--json").cloned().collect();
            clusters::run(suite, &rest)
        }
        Some("planning") => planning::run(),
        Some("workspace") => workspace::run(),
        _ => {
            eprintln!(
                "usage: cargo xtask bench local [--json] [--catalog DIR]\n       \
                 cargo xtask bench control-plane [--json] [--quick] [--only NAME]..\n       \
                 cargo xtask bench fleet [--json] [--quick] [--only NAME]..\n       \
                 cargo xtask bench planning [--json]\n       \
                 cargo xtask bench workspace [--json]"
            );
            return 2;
        }
    };
    match outcome {
        Ok(measures) => {
            if json {
                println!("{}", measure::to_json(&measures));
            } else {
                print!("{}", measure::to_table(&measures));
            }
            0
        }
        Err(error) => {
            eprintln!("bench: {error}");
            1
        }
    }
}
