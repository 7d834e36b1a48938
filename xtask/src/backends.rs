//! `cargo xtask traces-backend` and `cargo xtask blobs-backend`: what Tenon sends to others, looked at in something that
//! others have written. Both are packages of Python's, and large, so this is no part of `cargo xtask test`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::{Failure, begin, cargo, command, done, output, run, target};

/// How long one may take to start.
const START: Duration = Duration::from_secs(180);

/// A backend that runs. It ends with this value.
struct Backend(Child);

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Backend {
    /// Starts it, and waits until it listens on that port.
    fn start(mut program: Command, port: u16) -> Result<Backend, Failure> {
        program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let name = program.get_program().display().to_string();
        let child = program.spawn().map_err(|error| format!("cannot run {name}: {error}"))?;
        let mut backend = Backend(child);
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Ok(Some(status)) = backend.0.try_wait() {
                return Err(format!("{name} ended ({status}) before it listened"));
            }
            if began.elapsed() > START {
                return Err(format!("{name} does not listen after {} s", START.as_secs()));
            }
            std::thread::park_timeout(Duration::from_millis(200));
        }
        Ok(backend)
    }
}

/// Traces in Arize Phoenix, which takes OTLP over gRPC and over HTTP, and is asked for what it has taken.
pub fn traces() -> Result<(), Failure> {
    let (dir, program) = installed("arize-phoenix", "phoenix", "Arize Phoenix")?;
    run(cargo(&["build", "--locked", "--package", "tenon"]))?;
    let (http, grpc) = (free()?, free()?);
    let work = dir.join("work");
    std::fs::create_dir_all(&work).map_err(|error| error.to_string())?;
    let mut phoenix = Command::new(program);
    phoenix
        .arg("serve")
        .env("PHOENIX_WORKING_DIR", &work)
        .env("PHOENIX_HOST", "127.0.0.1")
        .env("PHOENIX_PORT", http.to_string())
        .env("PHOENIX_GRPC_PORT", grpc.to_string())
        .env("PHOENIX_TELEMETRY_ENABLED", "false")
        .env("PHOENIX_ALLOW_EXTERNAL_RESOURCES", "false");
    let _backend = Backend::start(phoenix, http)?;
    let mut test = ignored("traces", "a_real_backend_has_the_whole_trace");
    test.env("TENON_OTLP", format!("http://127.0.0.1:{grpc}"));
    test.env("TENON_PHOENIX", format!("127.0.0.1:{http}"));
    run(test)
}

/// Workspaces in a bucket of a server that speaks S3: Moto, for lack of Amazon's.
pub fn blobs() -> Result<(), Failure> {
    let (_, program) = installed("moto[server]", "moto_server", "Moto")?;
    run(cargo(&["build", "--locked", "--package", "tenon"]))?;
    let port = free()?;
    let mut moto = Command::new(program);
    moto.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    let _backend = Backend::start(moto, port)?;
    let address = format!("127.0.0.1:{port}");
    make_bucket(&address, "tenon").map_err(|error| format!("make a bucket: {error}"))?;
    let mut test = ignored("workspaces", "workspaces_move_through_a_bucket");
    test.env("TENON_BUCKET", "tenon").env("TENON_S3", &address);
    run(test)
}

/// The directory of a Python package and a program of it; fetched where they are not there yet.
fn installed(package: &str, program: &str, name: &str) -> Result<(PathBuf, PathBuf), Failure> {
    let dir = target().join("backends").join(program);
    let program = dir.join("bin").join(program);
    if !program.is_file() {
        let start = begin(&format!("{name}, from the Python package index"));
        run(command("python3", [Path::new("-m"), Path::new("venv"), &dir]))?;
        let pip = dir.join("bin").join("pip").display().to_string();
        output(command(&pip, ["install", "--quiet", package]))?;
        done("installed", start);
    }
    Ok((dir, program))
}

/// A test that is ignored where there is no backend.
fn ignored(suite: &str, name: &str) -> Command {
    let mut test = cargo(&["test", "--locked", "--package", "tenon-tests", "--test", suite, "--"]);
    test.args(["--ignored", name]);
    test
}

/// A port that nobody listens on.
fn free() -> Result<u16, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

/// S3's CreateBucket.
fn make_bucket(address: &str, name: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "PUT /{name} HTTP/1.0\r\nhost: {address}\r\ncontent-length: 0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(std::io::Error::other(answer.lines().next().unwrap_or("no answer").to_owned())),
    }
}
