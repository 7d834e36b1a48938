//! Registries for tests of pulling: the distribution's docker-registry, unpacked and not installed, on loopback ports that
//! the kernel chooses. One is open, one wants a name and a password; both hold the stand-in of busybox.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::command::{Failure, begin, command, done, output};
use crate::{daemon, images, packages};

/// Who may pull from the registry that asks.
pub const USER: &str = "tenon";
/// The password of [`USER`]; it opens nothing but a registry on this machine's loopback.
pub const PASSWORD: &str = "standin-password";
/// `USER:PASSWORD` in base64, as a Docker configuration holds it.
const BASIC: &str = "dGVub246c3RhbmRpbi1wYXNzd29yZA==";
/// `PASSWORD` as bcrypt, the only form that the registry takes.
const HTPASSWD: &str = "tenon:$2y$05$abcdefghijklmnopqrstuuQar9ZpVlyD/Q4v97TTkfjCrIDRnZk2e\n";

/// A running registry; it ends with this value.
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub address: String,
    child: Child,
    dir: PathBuf,
}

/// The open one and the one that asks for a password.
pub struct Registries {
    pub open: Registry,
    pub guarded: Registry,
}

impl Registries {
    /// Starts both and puts `tenon/busybox:1` into them.
    pub fn start() -> Result<Registries, Failure> {
        let start = begin("registries");
        let program = packages::program("docker-registry", "usr/bin/docker-registry")?;
        let open = Registry::start(&program, "open", None)?;
        let guarded = Registry::start(&program, "guarded", Some(HTPASSWD))?;
        let registries = Registries { open, guarded };
        registries.fill()?;
        done(
            &format!(
                "{} and, with a password, {}",
                registries.open.address, registries.guarded.address
            ),
            start,
        );
        Ok(registries)
    }

    fn fill(&self) -> Result<(), Failure> {
        let config = self.guarded.dir.join("client");
        let auths =
            format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{BASIC}\"}}}}}}", self.guarded.address);
        write(&config.join("config.json"), &auths)?;
        for registry in [&self.open, &self.guarded] {
            let image = format!("{}/tenon/busybox:1", registry.address);
            output(command("docker", ["tag", "tenon-test/busybox", &image]))?;
            let mut push = command("docker", ["--config"]);
            push.arg(&config).args(["push", "--quiet", &image]);
            let pushed = output(push);
            output(command("docker", ["image", "rm", &image]))?;
            pushed?;
        }
        Ok(())
    }

    /// What the suites look for.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("TENON_TEST_REGISTRY", self.open.address.clone()),
            ("TENON_TEST_REGISTRY_GUARDED", self.guarded.address.clone()),
            ("TENON_TEST_REGISTRY_USER", USER.to_owned()),
            ("TENON_TEST_REGISTRY_PASSWORD", PASSWORD.to_owned()),
        ]
    }
}

fn write(path: &Path, content: &str) -> Result<(), Failure> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(path, content))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

impl Registry {
    fn start(program: &Path, name: &str, htpasswd: Option<&str>) -> Result<Registry, Failure> {
        let dir = packages::cache().join(format!("registry-{name}-{}", std::process::id()));
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {0}/data}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
            dir.display()
        );
        if let Some(htpasswd) = htpasswd {
            write(&dir.join("htpasswd"), htpasswd)?;
            config += &format!(
                "auth: {{htpasswd: {{realm: tenon, path: {}/htpasswd}}}}\n",
                dir.display()
            );
        }
        write(&dir.join("config.yml"), &config)?;
        let mut registry = command(&program.display().to_string(), ["serve"]);
        registry
            .arg(dir.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = registry
            .spawn()
            .map_err(|error| format!("cannot run {}: {error}", program.display()))?;
        let (found, address) = mpsc::channel();
        let stderr = child.stderr.take();
        let mut registry = Registry { address: String::new(), child, dir };
        std::thread::spawn(move || {
            for line in stderr
                .into_iter()
                .flat_map(|stderr| BufReader::new(stderr).lines())
                .map_while(Result::ok)
            {
                let address = line
                    .split("listening on ")
                    .nth(1)
                    .and_then(|rest| rest.split(['"', ' ']).next());
                if let Some(address) = address {
                    let _ = found.send(address.to_owned());
                }
            }
        });
        registry.address = address
            .recv_timeout(Duration::from_secs(30))
            .map_err(|_| "the registry did not start")?;
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// `cargo xtask registry`: for trying things by hand.
pub fn serve_until_end_of_input(ask: bool) -> Result<(), Failure> {
    let _daemon = daemon::ensure(ask)?;
    images::build(false)?;
    let registries = Registries::start()?;
    for (name, value) in registries.environment() {
        println!("{name}={value}");
    }
    println!("running until standard input ends (Ctrl-D)");
    let _ = std::io::stdout().flush();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}
