//! `cargo xtask traces-backend`: traces in a real backend. Arize Phoenix, which is a package of Python's,
//! takes OTLP over gRPC and over HTTP, and is asked for what it has taken. It is large, so this is no part
//! of `cargo xtask test`.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::{Failure, begin, cargo, command, done, output, run, target};

/// How long it may take to start.
const START: Duration = Duration::from_secs(180);

/// It ends with this value.
struct Backend(Child);

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Fetches the backend, starts it, and runs the test that looks into it.
pub fn backend() -> Result<(), Failure> {
    let dir = target().join("phoenix");
    let program = dir.join("bin").join("phoenix");
    if !program.is_file() {
        let start = begin("Arize Phoenix, from the Python package index");
        run(command("python3", ["-m", "venv", &dir.display().to_string()]))?;
        let pip = dir.join("bin").join("pip").display().to_string();
        output(command(&pip, ["install", "--quiet", "arize-phoenix"]))?;
        done("installed", start);
    }
    run(cargo(&["build", "--locked", "--package", "tenon"]))?;
    let (http, grpc) = (free()?, free()?);
    let work = dir.join("work");
    std::fs::create_dir_all(&work).map_err(|error| error.to_string())?;
    let child = Command::new(&program)
        .arg("serve")
        .env("PHOENIX_WORKING_DIR", &work)
        .env("PHOENIX_HOST", "127.0.0.1")
        .env("PHOENIX_PORT", http.to_string())
        .env("PHOENIX_GRPC_PORT", grpc.to_string())
        .env("PHOENIX_TELEMETRY_ENABLED", "false")
        .env("PHOENIX_ALLOW_EXTERNAL_RESOURCES", "false")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    let _backend = Backend(child);
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", http)).is_err() {
        if began.elapsed() > START {
            return Err(format!("Phoenix does not listen after {} s", START.as_secs()));
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
    let test = ["test", "--locked", "--package", "tenon-tests", "--test", "traces", "--"];
    let mut test = cargo(&test);
    test.args(["--ignored", "a_real_backend_has_the_whole_trace"]);
    test.env("TENON_OTLP", format!("http://127.0.0.1:{grpc}"));
    test.env("TENON_PHOENIX", format!("127.0.0.1:{http}"));
    run(test)
}

/// A port that nobody listens on.
fn free() -> Result<u16, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}
