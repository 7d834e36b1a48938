//! Builds the entrypoint as a static program and puts it where `include_bytes!` finds it, so that
//! `tenon` is one file.
//!
//! A nested cargo does it, with a target directory of its own (the outer cargo holds the lock of
//! its own one), from the same lock file and offline: whatever it needs, the outer cargo has
//! fetched already, because the agent depends on the same crates.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../entrypoint/src");
    println!("cargo::rerun-if-changed=../entrypoint/Cargo.toml");
    println!("cargo::rerun-if-env-changed=TENON_ENTRYPOINT");

    let out = PathBuf::from(variable("OUT_DIR")?);
    // A packager may bring a binary built elsewhere, e.g. against musl.
    let built = match env::var_os("TENON_ENTRYPOINT") {
        Some(path) => PathBuf::from(path),
        None => build(&out)?,
    };
    std::fs::copy(&built, out.join("tenon-entrypoint"))
        .map_err(|e| format!("cannot copy {}: {e}", built.display()))?;
    println!("cargo::rustc-env=TENON_ENTRYPOINT_HASH={:016x}", hash(&std::fs::read(built)?));
    Ok(())
}

/// Names this build of the entrypoint; counted here, because every start would notice the time.
fn hash(program: &[u8]) -> u64 {
    program.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn build(out: &Path) -> Result<PathBuf, Error> {
    let manifest = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("../entrypoint/Cargo.toml");
    let triple = variable("TARGET")?;
    let target_dir = out.join("target");
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .args([
            "build",
            "--release",
            "--locked",
            "--offline",
            "--quiet",
            "--bin",
            "tenon-entrypoint",
        ])
        .arg("--manifest-path")
        .arg(&manifest)
        .arg("--target")
        .arg(&triple)
        .arg("--target-dir")
        .arg(&target_dir)
        // Static and at a fixed address: nothing is loaded or relocated when a step starts.
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            "-Ctarget-feature=+crt-static\u{1f}-Crelocation-model=static",
        )
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        // What the outer command was wrapped in (clippy, coverage) is not for this program.
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET_DIR")
        .env_remove("CARGO_TARGET_DIR");
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!(
            "the static entrypoint for {triple} could not be built ({status}); \
             the C library's static archive is needed (Debian: libc6-dev, Fedora: glibc-static), \
             or a ready binary in TENON_ENTRYPOINT"
        )
        .into());
    }
    Ok(target_dir.join(triple).join("release/tenon-entrypoint"))
}

fn variable(name: &str) -> Result<String, Error> {
    env::var(name).map_err(|e| format!("{name}: {e}").into())
}
