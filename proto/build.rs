//! Compiles the `.proto` files with a pure-Rust compiler, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=tenon");
    let files = protox::compile(["tenon/agent/v1/session.proto"], ["."])?;
    prost_build::Config::new().compile_fds(files)?;
    Ok(())
}
