//! What can be said of the sources without running them.

use crate::command::{Check, Failure, begin, cargo, command, done, exists, output, run};

/// Checks everything and writes nothing.
pub fn verify() -> Result<(), Failure> {
    let checks: [(&str, Check); 4] = [
        ("formatting", format),
        ("lints", lints),
        ("repository rules", rules),
        ("dependencies", dependencies),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        let start = begin(name);
        match check() {
            Ok(()) => done(name, start),
            Err(error) => {
                println!("    {error}");
                failed.push(name);
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("not in order: {}", failed.join(", "))) }
}

/// Formats, and applies what the lints can mend by themselves.
pub fn fix() -> Result<(), Failure> {
    run(cargo(&["fmt", "--all"]))?;
    run(cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--fix",
        "--allow-dirty",
        "--allow-staged",
    ]))?;
    // The OpenAPI document follows from the routes.
    let mut openapi = cargo(&["test", "--package", "tenon-coordinator", "--lib", "openapi"]);
    openapi.env("TENON_REWRITE", "1");
    run(openapi)
}

/// Formatting.
pub fn format() -> Result<(), Failure> {
    run(cargo(&["fmt", "--all", "--check"]))
}

/// Compiler warnings and clippy's, as errors.
pub fn lints() -> Result<(), Failure> {
    run(cargo(&[
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))
}

/// Rules of this repository that no other tool knows.
pub fn rules() -> Result<(), Failure> {
    let mut broken = Vec::new();
    for file in output(command("git", ["ls-files", "*.rs"]))?.lines() {
        // A file that was deleted but not yet committed is listed too.
        let Ok(text) = std::fs::read_to_string(crate::command::top().join(file)) else { continue };
        if !text.starts_with("//!") {
            broken.push(format!("{file}: does not begin with a `//!` that says what it is for"));
        }
        let pure = ["tekton/src/", "engine/src/"].iter().any(|room| file.starts_with(room));
        let tests = file.ends_with("/tests.rs") || file.contains("/tests/");
        if pure && !tests {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let words = [
                "std::fs",
                "std::net",
                "std::time::Instant",
                "SystemTime",
                "tokio::",
                "std::thread",
            ];
            for word in words.iter().filter(|word| code.contains(**word)) {
                broken.push(format!("{file}: `{word}` in a pure crate (docs/architecture.md)"));
            }
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(broken.join("\n    ")) }
}

/// Licences, advisories and sources, where cargo-deny is installed.
fn dependencies() -> Result<(), Failure> {
    if !exists("cargo-deny") {
        println!("    skipped: cargo-deny is not installed");
        return Ok(());
    }
    run(cargo(&["deny", "--locked", "check"]))
}
