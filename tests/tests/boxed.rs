//! Agents that run in a container themselves, with the daemon's socket: they find out what the daemon
//! calls their directory, and copy where it has no name for it.

#![allow(clippy::unwrap_used, reason = "a test may end where its story breaks")]

use std::fs;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tenon_tests::fleet::Fleet;
use tenon_tests::{Said, Tenon, binary, finish, wait_until};

fn docker(args: &[&str]) -> String {
    let said = Command::new("docker").args(args).output().unwrap();
    assert!(said.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8_lossy(&said.stdout).trim().to_owned()
}

/// What this test makes of Docker's, and removes.
struct Made {
    image: String,
    containers: Vec<String>,
    volume: String,
}

impl Drop for Made {
    fn drop(&mut self) {
        let mut all = vec!["rm", "-f"];
        all.extend(self.containers.iter().map(String::as_str));
        for args in [&all[..], &["volume", "rm", "-f", &self.volume], &["rmi", "-f", &self.image]] {
            // Whatever of it is there.
            let _ = Command::new("docker").args(args).stdout(Stdio::null()).status();
        }
    }
}

/// An image with the built `tenon`, and the libraries that a development build needs.
fn image(name: &str) {
    let root = TempDir::new().unwrap();
    let place = |from: &str, to: &str| {
        let to = root.path().join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    };
    let tenon = binary();
    let stripped = root.path().join("tenon");
    let mut strip = Command::new("strip");
    assert!(strip.arg("-o").arg(&stripped).arg(&tenon).status().unwrap().success());
    let libraries = Command::new("ldd").arg(&tenon).output().unwrap();
    for word in String::from_utf8(libraries.stdout).unwrap().split_whitespace() {
        if word.starts_with('/') {
            place(word, word);
        }
    }
    let mut tar = Command::new("tar");
    let mut tar =
        tar.arg("-C").arg(root.path()).args(["-c", "."]).stdout(Stdio::piped()).spawn().unwrap();
    let mut import = Command::new("docker");
    import.args(["import", "--change", "ENTRYPOINT [\"/tenon\"]", "-", name]);
    let import = import.stdin(tar.stdout.take().unwrap()).stdout(Stdio::null()).status().unwrap();
    assert!(import.success() && tar.wait().unwrap().success());
}

const COUNTING: &str = r#"apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {name: counting}
spec:
  podTemplate: {nodeSelector: {box: BOX}}
  taskSpec:
    volumes: [{name: host, hostPath: {path: /etc/hostname, type: File}}]
    sidecars:
    - name: web
      image: busybox
      script: "echo hello > /tmp/index.html && exec httpd -f -p 8080 -h /tmp"
      readinessProbe: {httpGet: {path: /index.html, port: 8080}}
    steps:
    - name: count
      image: busybox
      volumeMounts: [{name: host, mountPath: /hostname, readOnly: true}]
      script: |
        #!/bin/sh
        cat /hostname
        i=0
        while [ $i -lt 1500 ]; do
          echo "line $i"
          i=$((i+1))
          [ $((i % 30)) = 0 ] && sleep 0.06
        done
"#;

#[test]
fn an_agent_in_a_container_finds_its_directory_and_goes_on_after_it_was_killed() {
    let fleet = Fleet::start_on(Tenon::docker(), 1, &[]);
    let unique = format!("tenon-boxed-{}", std::process::id());
    let names = ["shared", "bare"].map(|kind| format!("{unique}-{kind}"));
    let made = Made {
        image: format!("{unique}:test"),
        containers: names.to_vec(),
        volume: unique.clone(),
    };
    image(&made.image);
    let volume = format!("{unique}:/data");
    let shared = ["-v", &volume, "-v", "/dev/shm:/dev/shm"];
    let start = |kind: &str, name: &str, more: &[&str]| {
        let mut run = vec!["run", "-d", "--name", name, "--network", "host"];
        run.extend(["-v", "/var/run/docker.sock:/var/run/docker.sock"]);
        run.extend(more);
        let (servers, label) = (fleet.servers(), format!("box={kind}"));
        run.extend([&made.image, "agent", "--server", &servers, "--name", kind]);
        run.extend(["--data-dir", "/data", "--backend", "docker", "--label", &label]);
        run.extend(["--allow-host-path", "/etc/hostname"]);
        docker(&run);
        fleet.until_up(kind);
    };
    let hostname = fs::read_to_string("/etc/hostname").unwrap().trim().to_owned();
    let mut counted = vec![hostname];
    counted.extend((0..1500).map(|number| format!("line {number}")));

    start("shared", &names[0], &shared);
    let (child, out) = fleet.start_run(&COUNTING.replace("BOX", "shared"), &[]);
    wait_until("the step", || fs::read_to_string(&out).unwrap().contains("line 200\""));
    // Another one whose directory has the same name leaves alone what is not its own.
    start("bare", &names[1], &["--tmpfs", "/data"]);
    docker(&["kill", &names[0]]);
    docker(&["start", &names[0]]);
    let said = finish(child).expect(0);
    let said = Said { stdout: fs::read_to_string(&out).unwrap(), ..said };
    assert!(said.log() == counted, "{} lines", said.log().len());
    assert_eq!(said.events().iter().filter(|event| event["kind"] == "task-start").count(), 1);
    let doctor = |more: &[&str]| {
        let mut run = vec!["run", "--rm", "-v", "/var/run/docker.sock:/var/run/docker.sock"];
        run.extend(more);
        run.extend(["-e", "TENON_STATE_DIR=/data", &made.image, "doctor"]);
        docker(&run)
    };
    let seen = doctor(&shared);
    assert!(seen.contains("in a container of this daemon, which calls /data"), "{seen}");

    // With the socket alone nothing can be mounted: files are copied.
    let seen = doctor(&["--tmpfs", "/data"]);
    assert!(seen.contains("copied"), "{seen}");
    let said = fleet.run(&COUNTING.replace("BOX", "bare"), &["-o", "json"]).expect(0);
    assert!(said.log() == counted, "{} lines", said.log().len());
}
