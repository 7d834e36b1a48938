//! Docker daemons on other machines, over TCP, TLS and ssh: real daemons in a network and with files of
//! their own, that do not see the agent's.

#![allow(clippy::unwrap_used, reason = "a test may end where its story breaks")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tenon_tests::docker::Daemon;
use tenon_tests::fleet::Fleet;
use tenon_tests::{Said, Tenon, finish, processes_with, signal, wait_until};

/// Where the daemon sees none of the agent's files.
fn hidden(base: &TempDir) -> [&Path; 2] {
    [base.path(), Path::new("/dev/shm")]
}

const TCP: [&str; 2] = ["--host=tcp://127.0.0.1:2375", "--tls=false"];

const STORY: &str = r#"apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: far}
spec:
  workspaces:
  - name: shared
    volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}
  - name: password
    secret: {secretName: password}
  pipelineSpec:
    workspaces: [{name: shared}, {name: password}]
    results: [{name: said, value: $(tasks.read.results.said)}]
    tasks:
    - name: write
      workspaces: [{name: shared}, {name: password}]
      taskSpec:
        workspaces: [{name: shared}, {name: password}]
        sidecars:
        - name: web
          image: busybox
          script: "mkdir /www && echo hello > /www/index.html && exec httpd -f -p 8080 -h /www"
          readinessProbe: {httpGet: {path: /index.html, port: 8080}}
        steps:
        - name: fetch
          image: busybox
          workingDir: $(workspaces.shared.path)/made/here
          env:
          - name: TOKEN
            valueFrom: {secretKeyRef: {name: password, key: word}}
          script: |
            wget -q -O page http://127.0.0.1:8080/index.html
            echo "token $TOKEN and $(cat $(workspaces.password.path)/word)"
        - name: print
          image: busybox
          script: "seq 1 50000; echo over >&2"
    - name: read
      runAfter: [write]
      workspaces: [{name: shared}]
      taskSpec:
        workspaces: [{name: shared}]
        results: [{name: said}]
        steps:
        - name: read
          image: busybox
          script: "printf '%s again' \"$(cat $(workspaces.shared.path)/made/here/page)\" > $(results.said.path)"
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {word: correct-horse-battery}
"#;

#[test]
fn a_pipeline_on_a_daemon_over_tcp_is_like_any_other_and_leaves_nothing_there() {
    let base = TempDir::new().unwrap();
    let daemon = Daemon::start_with(&TCP, &hidden(&base));
    daemon.copy_image("busybox");
    let tenon = Tenon::far(base.path(), &daemon);
    let said = tenon.run(STORY, &["-o", "json"]).expect(0);
    let events = said.events();
    let lines = |step: &str| -> Vec<String> {
        let of_step = events.iter().filter(|e| e["kind"] == "step-log" && e["step"] == step);
        of_step.map(|event| event["line"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(lines("fetch"), ["token *** and ***"]);
    let mut printed = lines("print");
    printed.retain(|line| line != "over");
    let counted: Vec<String> = (1..=50_000).map(|number| number.to_string()).collect();
    assert!(printed == counted, "{} lines", printed.len());
    let end = events.iter().find(|event| event["kind"] == "run-end").unwrap();
    assert_eq!(end["results"]["said"], "hello again", "{end}");
    assert!(!said.stdout.contains("correct-horse"), "a secret is told");
    for (what, args) in [("containers", &["ps", "-aq"][..]), ("volumes", &["volume", "ls", "-q"])] {
        assert_eq!(daemon.says(args), "", "{what} are left");
    }
    let doctor = tenon.tenon(&["doctor"]).expect(0).stdout;
    assert!(doctor.contains("tcp://127.0.0.1:2375") && doctor.contains("copied"), "{doctor}");
    // What is on this machine cannot be had there.
    let task = "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: t}\nspec:\n  \
                workspaces: [{name: w, emptyDir: {}}]\n  taskSpec:\n    workspaces: [{name: w}]\n    \
                steps: [{name: s, image: busybox, script: 'true'}]\n";
    let dir = format!("w={}", tenon.dir().display());
    let said = tenon.run(task, &["-w", &dir]).expect(5);
    let all = format!("{}{}", said.stdout, said.stderr);
    assert!(all.contains("on the agent's machine"), "{all}");
}

const COUNTING: &str = r#"apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {name: counting}
spec:
  taskSpec:
    steps:
    - name: count
      image: busybox
      script: |
        #!/bin/sh
        i=0
        while [ $i -lt 3000 ]; do
          echo "line $i"
          i=$((i+1))
          [ $((i % 30)) = 0 ] && sleep 0.06
        done
    - name: after
      image: busybox
      script: "echo after"
"#;

fn saw(out: &Path, text: &str) -> bool {
    fs::read_to_string(out).unwrap().contains(text)
}

#[test]
fn neither_a_killed_agent_nor_a_broken_connection_loses_or_doubles_a_line() {
    let base = TempDir::new().unwrap();
    let daemon = Daemon::start_with(&TCP, &hidden(&base));
    daemon.copy_image("busybox");
    let mut fleet = Fleet::start_on(Tenon::far(base.path(), &daemon), 1, &[]);
    let (child, out) = fleet.start_run(COUNTING, &[]);
    wait_until("the step", || saw(&out, "line 200\""));
    let relays = processes_with("/tekton/bin/entrypoint relay");
    assert!(!relays.is_empty(), "no relay runs");
    for relay in relays.into_iter().filter(|relay| is_below(*relay, &daemon)) {
        signal(relay, libc::SIGKILL);
    }
    wait_until("more lines", || saw(&out, "line 1000\""));
    fleet.restart_agent();
    let said = finish(child).expect(0);
    let said = Said { stdout: fs::read_to_string(&out).unwrap(), ..said };
    let mut counted: Vec<String> = (0..3000).map(|number| format!("line {number}")).collect();
    counted.push("after".to_owned());
    let lines = said.log();
    assert!(lines == counted, "{} lines", lines.len());
    let starts = said.events().iter().filter(|event| event["kind"] == "task-start").count();
    assert_eq!(starts, 1, "the attempt was placed again");
    wait_until("the daemon to be clean", || daemon.says(&["ps", "-aq"]).is_empty());
    wait_until("its volumes to be gone", || daemon.says(&["volume", "ls", "-q"]).is_empty());
}

const RESUMED: &str = r#"apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: resumed}
spec:
  workspaces:
  - name: shared
    volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}
  pipelineSpec:
    workspaces: [{name: shared}]
    tasks:
    - name: write
      workspaces: [{name: shared}]
      taskSpec:
        workspaces: [{name: shared}]
        steps: [{name: s, image: busybox, script: "echo kept > $(workspaces.shared.path)/page"}]
    - name: read
      runAfter: [write]
      workspaces: [{name: shared}]
      taskSpec:
        workspaces: [{name: shared}]
        steps:
        - name: s
          image: busybox
          workingDir: $(workspaces.shared.path)
          script: "[ -e tried ] || { touch tried; exit 1; }; cat page"
"#;

#[test]
fn a_relay_that_ended_comes_back_and_others_leave_what_is_not_theirs() {
    let base = TempDir::new().unwrap();
    let daemon = Daemon::start_with(&TCP, &hidden(&base));
    daemon.copy_image("busybox");
    let mut fleet = Fleet::start_on(Tenon::far(base.path(), &daemon), 1, &[]);
    fleet.run(RESUMED, &[]).expect(5);
    let relay =
        || daemon.says(&["ps", "-a", "--filter", "name=tenon-relay", "--format={{.Names}}"]);
    let name = relay();
    assert!(name.starts_with("tenon-relay-"), "nothing keeps the claim: {name:?}");
    // As after an hour without a word. Claims outlive it.
    daemon.says(&["stop", &name]);
    let again = fleet.json(&["runs", "rerun", "latest", "--from-failed"]);
    let id = again["id"].as_str().unwrap().to_owned();
    let said = fleet.ask(&["logs", &id, "--follow"]).expect(0);
    assert!(said.stdout.contains("kept"), "{}", said.stdout);

    let (mut child, out) = fleet.start_run(COUNTING, &[]);
    wait_until("the step", || saw(&out, "line 200\""));
    let agent = fleet.agent.take().unwrap();
    fleet.kill_guard(&agent.name);
    drop(agent);
    // It may come back, and others know nothing of it.
    let left = [name_of(&daemon, "step"), relay()];
    let other = Tenon::far(base.path(), &daemon);
    other.run(ECHO, &[]).expect(0);
    daemon.says(&["stop", &left[1]]);
    other.run(ECHO, &[]).expect(0);
    assert_eq!([name_of(&daemon, "step"), relay()], left);
    assert_eq!(daemon.says(&["volume", "ls", "-q"]).lines().count(), 2);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The names of a daemon's containers with such a word in them.
fn name_of(daemon: &Daemon, word: &str) -> String {
    daemon.says(&["ps", "-a", "--filter", &format!("name={word}"), "--format={{.Names}}"])
}

/// Whether a process is in that daemon's care: others may test at the same time.
fn is_below(mut pid: u32, daemon: &Daemon) -> bool {
    let directory = daemon.socket().parent().unwrap().display().to_string();
    while pid > 1 {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&directory) {
            return true;
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        pid = parent.unwrap_or(0);
    }
    false
}

const ECHO: &str = "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: echo}\nspec:\n  \
                    taskSpec:\n    steps: [{name: s, image: busybox, script: echo hello}]\n";

#[test]
fn tls_is_checked_on_both_sides() {
    let base = TempDir::new().unwrap();
    let keys = TempDir::new().unwrap();
    let path = |name: &str| keys.path().join(name).display().to_string();
    let openssl = |args: &[&str]| {
        let mut openssl = Command::new("openssl");
        let status = openssl.args(args).current_dir(keys.path()).stderr(Stdio::null()).status();
        assert!(status.unwrap().success(), "openssl {args:?}");
    };
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        "ca-key.pem",
        "-out",
        "ca.pem",
        "-subj",
        "/CN=ca",
        "-days",
        "2",
    ]);
    fs::write(
        keys.path().join("server.ext"),
        "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth",
    )
    .unwrap();
    fs::write(keys.path().join("client.ext"), "extendedKeyUsage=clientAuth").unwrap();
    for (name, key, cert) in
        [("server", "server-key.pem", "server.pem"), ("client", "key.pem", "cert.pem")]
    {
        openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            key,
            "-out",
            "request",
            "-subj",
            &format!("/CN={name}"),
        ]);
        openssl(&[
            "x509",
            "-req",
            "-in",
            "request",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca-key.pem",
            "-CAcreateserial",
            "-out",
            cert,
            "-days",
            "2",
            "-extfile",
            &format!("{name}.ext"),
        ]);
    }
    let daemon = Daemon::start_with(
        &[
            "--host=tcp://127.0.0.1:2376",
            "--tlsverify",
            &format!("--tlscacert={}", path("ca.pem")),
            &format!("--tlscert={}", path("server.pem")),
            &format!("--tlskey={}", path("server-key.pem")),
        ],
        &hidden(&base),
    );
    daemon.copy_image("busybox");
    let far = || Tenon::far(base.path(), &daemon).with_env("DOCKER_HOST", "tcp://127.0.0.1:2376");
    let tls = |dir: &Path| {
        far().with_env("DOCKER_TLS_VERIFY", "1").with_env("DOCKER_CERT_PATH", dir.to_str().unwrap())
    };
    let said = tls(keys.path()).run(ECHO, &["-o", "json"]).expect(0);
    assert_eq!(said.log(), ["hello"]);
    let said = far().run(ECHO, &[]).expect(3);
    assert!(
        said.stderr.contains("no Docker daemon answers at tcp://127.0.0.1:2376"),
        "{}",
        said.stderr
    );
    // Another authority than the daemon's.
    let strange = TempDir::new().unwrap();
    for name in ["key.pem", "cert.pem"] {
        fs::copy(keys.path().join(name), strange.path().join(name)).unwrap();
    }
    fs::copy(keys.path().join("cert.pem"), strange.path().join("ca.pem")).unwrap();
    let said = tls(strange.path()).run(ECHO, &[]).expect(3);
    assert!(said.stderr.contains("certificate"), "{}", said.stderr);
}

/// sshd in a daemon's network.
struct Sshd(Child);

impl Drop for Sshd {
    fn drop(&mut self) {
        // It ends with the test, however that goes.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn over_ssh_as_the_docker_command_does_it() {
    let base = TempDir::new().unwrap();
    let daemon = Daemon::start_with(&[], &hidden(&base));
    daemon.copy_image("busybox");
    let keys = TempDir::new().unwrap();
    let path = |name: &str| keys.path().join(name).display().to_string();
    for name in ["host", "user", "stranger"] {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &path(name)]);
        assert!(keygen.status().unwrap().success());
    }
    fs::copy(path("user.pub"), path("authorized")).unwrap();
    let host_key = fs::read_to_string(path("host.pub")).unwrap();
    fs::write(path("known"), format!("[127.0.0.1]:2222 {host_key}")).unwrap();
    let config = format!(
        "ListenAddress 127.0.0.1:2222\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
         PermitRootLogin yes\nPidFile none\n",
        path("host"),
        path("authorized")
    );
    fs::write(path("sshd_config"), config).unwrap();
    fs::create_dir_all("/run/sshd").unwrap();
    let mut sshd = Command::new("nsenter");
    sshd.arg(format!("--net=/proc/{}/ns/net", daemon.pid()));
    sshd.args(["--", "/usr/sbin/sshd", "-D", "-e", "-f", &path("sshd_config")]);
    let log = fs::File::create(path("sshd.log")).unwrap();
    let _sshd = Sshd(
        sshd.stderr(log).spawn().expect("sshd is there, because `cargo xtask test` installs it"),
    );
    wait_until("sshd", || {
        fs::read_to_string(path("sshd.log")).unwrap().contains("Server listening")
    });
    // Keys are ssh's own business: its configuration is given to it by another `ssh` in the path.
    let wrapper = |identity: &str| {
        let dir = keys.path().join(format!("bin-{identity}"));
        fs::create_dir_all(&dir).unwrap();
        let script = format!(
            "#!/bin/sh\nexec /usr/bin/ssh -F none -i {} -o IdentitiesOnly=yes -o UserKnownHostsFile={} \"$@\"\n",
            path(identity),
            path("known")
        );
        fs::write(dir.join("ssh"), script).unwrap();
        let mut chmod = Command::new("chmod");
        assert!(chmod.arg("755").arg(dir.join("ssh")).status().unwrap().success());
        format!("{}:{}", dir.display(), std::env::var("PATH").unwrap())
    };
    let url = format!("ssh://root@127.0.0.1:2222{}", daemon.socket().display());
    let ssh = |identity: &str| {
        Tenon::far(base.path(), &daemon)
            .with_env("DOCKER_HOST", &url)
            .with_env("PATH", &wrapper(identity))
            .with_env("XDG_RUNTIME_DIR", keys.path().to_str().unwrap())
    };
    let said = ssh("user").run(ECHO, &["-o", "json"]).expect(0);
    assert_eq!(said.log(), ["hello"]);
    let said = ssh("stranger").run(ECHO, &[]).expect(3);
    assert!(said.stderr.contains("Permission denied"), "{}", said.stderr);
    let left: Vec<_> = fs::read_dir(keys.path()).unwrap().flatten().collect();
    let left = left.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
    assert_eq!(left.filter(|name| name.starts_with("tenon-ssh")).count(), 0, "sockets are left");
    let doctor: Value =
        serde_json::from_str(&ssh("user").tenon(&["doctor", "-o", "json"]).expect(0).stdout)
            .unwrap();
    assert!(doctor.to_string().contains("ssh://root@127.0.0.1:2222"), "{doctor}");
}

/// Podman's service; it ends with the test.
struct Podman(Child);

impl Drop for Podman {
    fn drop(&mut self) {
        // Its containers have ended: the run has removed them.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn podman_is_as_good_a_daemon() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    // Its defaults want more than a container may have where this runs in one.
    let config = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n\
                  [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
    fs::write(path("containers.conf"), config).unwrap();
    fs::create_dir(path("podman")).unwrap();
    let url = format!("unix://{}", path("podman/podman.sock"));
    let script = "ip link set lo up; exec podman \"$@\"";
    let mut service = Command::new("unshare");
    service.args(["--net", "--mount", "sh", "-ec", script, "sh"]);
    service.args(["--root", &path("root"), "--runroot", &path("run")]);
    service.args(["system", "service", "--time", "0", &url]);
    service.env("CONTAINERS_CONF", path("containers.conf"));
    let log = fs::File::create(path("log")).unwrap();
    let podman = Podman(service.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    let docker = |args: &[&str]| {
        let mut docker = Command::new("docker");
        docker.args(args).env("DOCKER_HOST", &url).stdout(Stdio::null()).stderr(Stdio::null());
        docker
    };
    wait_until("podman", || docker(&["version"]).status().unwrap().success());
    let mut save = Command::new("docker");
    let mut save = save.args(["save", "busybox"]).stdout(Stdio::piped()).spawn().unwrap();
    let loaded = docker(&["load"]).stdin(save.stdout.take().unwrap()).status().unwrap();
    assert!(loaded.success() && save.wait().unwrap().success());
    let task = "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: t}\nspec:\n  taskSpec:\n    \
                results: [{name: r}]\n    steps:\n    \
                - {name: a, image: localhost/busybox, script: 'echo one; printf x > $(results.r.path)'}\n    \
                - {name: b, image: localhost/busybox, script: echo two}\n";
    let tenon = Tenon::docker().with_env("DOCKER_HOST", &url);
    let said = tenon.run(task, &["-o", "json"]).expect(0);
    assert_eq!(said.log(), ["one", "two"]);
    let left = docker(&["ps", "-aq"]).stdout(Stdio::piped()).output().unwrap();
    assert!(left.stdout.is_empty(), "containers are left");
    drop(podman);
    for mount in fs::read_to_string("/proc/self/mounts").unwrap().lines() {
        if let Some(mount) = mount.split(' ').nth(1).filter(|mount| mount.starts_with(&path(""))) {
            // One that went by itself is no failure.
            let _ = Command::new("umount").args(["-l", mount]).status();
        }
    }
}
