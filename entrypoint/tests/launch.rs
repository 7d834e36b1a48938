//! The launcher on the real kernel, as root or with user namespaces; where the kernel forbids both
//! these tests fail and say why, instead of passing without having tried.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tenon_entrypoint::frame::{Ending, Frame, Reader};
use tenon_entrypoint::{KILL_SIGNAL, Launch, Mount, Source, Spec};

const BOUND: Duration = Duration::from_secs(20);

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["root", "out"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self { directory }
    }

    fn text(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn launch(&self, script: &str) -> Launch {
        Launch {
            user_namespace: fs::metadata("/proc/self").unwrap().uid() != 0,
            root: self.text("root"),
            hostname: "inside".into(),
            mounts: vec![Mount {
                target: "/out".into(),
                source: Source::Bind { path: self.text("out"), read_only: false },
            }],
            argv: vec!["/bin/sh".into(), "-c".into(), script.into()],
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            ..Launch::default()
        }
    }

    fn out(&self, name: &str) -> String {
        fs::read_to_string(Path::new(&self.text("out")).join(name)).unwrap_or_default()
    }
}

fn start(launch: &Launch) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tenon-entrypoint"))
        .arg("launch")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(&launch.encode()).unwrap();
    child
}

/// Waits with standard input held open; gives the exit code and what was said.
fn finish(mut child: Child) -> (Option<i32>, String) {
    let held = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(held);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the only way to wait for another process without an event"
)]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < BOUND, "not within {BOUND:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A sleep of a length that no other process sleeps, and whether it still does.
fn unique_sleep() -> (String, impl Fn() -> bool) {
    static NEXT: AtomicU32 = AtomicU32::new(100);
    let length = format!("9{}{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let wanted = format!("sleep\0{length}\0");
    let runs = move || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let mut command_lines =
            processes.filter_map(|one| fs::read(one.path().join("cmdline")).ok());
        command_lines.any(|line| line == wanted.as_bytes())
    };
    (format!("sleep {length}"), runs)
}

fn signal(process: u32, signal: &str) {
    let status = Command::new("kill").args([format!("-{signal}"), process.to_string()]).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_container_has_its_own_everything_but_the_network() {
    let place = Place::new();
    let namespaces = "for n in mnt pid ipc uts net; do readlink /proc/self/ns/$n; done > /out/ns";
    let (code, said) =
        finish(start(&place.launch(&format!("{namespaces}; hostname > /out/name; exit 7"))));
    assert_eq!((code, said.as_str()), (Some(7), ""));
    assert_eq!(place.out("name"), "inside\n");
    let inside: Vec<String> = place.out("ns").lines().map(str::to_owned).collect();
    for (index, name) in ["mnt", "pid", "ipc", "uts", "net"].into_iter().enumerate() {
        let own = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_eq!(own.to_str().unwrap() == inside[index], name == "net", "{name}");
    }
    assert_eq!(fs::read_dir(place.text("root")).unwrap().count(), 0, "no mount is seen outside");
}

#[test]
fn the_machine_cannot_be_changed_even_by_root() {
    let place = Place::new();
    let script = "touch /usr/x 2>/dev/null && echo wrote >> /out/log
                  mount -o remount,rw /usr 2>/dev/null && echo remounted >> /out/log
                  touch /own && echo own >> /out/log";
    assert_eq!(finish(start(&place.launch(script))).0, Some(0));
    assert_eq!(place.out("log"), "own\n");
    assert!(!Path::new("/own").exists());
}

#[test]
fn all_processes_die_when_the_input_is_closed() {
    let place = Place::new();
    let (sleep, sleeps) = unique_sleep();
    let mut child = start(&place.launch(&format!("setsid {sleep} & {sleep}; true")));
    eventually("it runs", &sleeps);
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert!(!sleeps(), "nothing is left once the launcher has ended");
}

#[test]
fn all_processes_die_when_the_launcher_is_killed() {
    let place = Place::new();
    let (sleep, sleeps) = unique_sleep();
    let mut child = start(&place.launch(&format!("setsid {sleep} & {sleep}; true")));
    eventually("it runs", &sleeps);
    let held = child.stdin.take();
    signal(child.id(), "KILL");
    child.wait().unwrap();
    eventually("the container dies with its keeper", || !sleeps());
    drop(held);
}

#[test]
fn a_container_that_outlives_its_agent_says_its_exit_code_to_another() {
    let place = Place::new();
    let mut launch =
        place.launch("mkfifo /out/go; echo up > /out/log; read code < /out/go; exit $code");
    launch.outlives = Some(place.text("exit"));
    let exit = || fs::read_to_string(place.text("exit")).unwrap_or_default();
    let mut child = start(&launch);
    eventually("it runs", || place.out("log") == "up\n");
    drop(child.stdin.take());
    assert_eq!(exit(), "", "it goes on");
    fs::write(Path::new(&place.text("out")).join("go"), "7\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert_eq!(exit(), "7");
}

#[test]
fn a_launcher_kills_everything_when_it_is_told_to() {
    let place = Place::new();
    let (sleep, sleeps) = unique_sleep();
    let mut launch = place.launch(&format!("setsid {sleep} & {sleep}; true"));
    launch.outlives = Some(place.text("exit"));
    let mut child = start(&launch);
    eventually("it runs", &sleeps);
    signal(child.id(), &KILL_SIGNAL.to_string());
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert!(!sleeps(), "nothing is left once the launcher has ended");
    assert_eq!(fs::read_to_string(place.text("exit")).unwrap(), "137");
}

#[test]
fn a_full_disk_makes_the_step_wait_and_loses_nothing() {
    let place = Place::new();
    let spec = Spec {
        argv: vec!["head".into(), "-c".into(), "200000".into(), "/dev/zero".into()],
        record: "/small/record".into(),
        post_file: Some("/small/out".into()),
        ..Spec::default()
    };
    fs::write(Path::new(&place.text("out")).join("spec"), spec.encode()).unwrap();
    let mut launch = place.launch(
        "head -c 400000 /dev/zero > /small/filler
         /entrypoint run /out/spec &
         until test -e /small/record && ! echo x 2>/dev/null > /small/probe; do :; done
         test ! -e /small/out && touch /out/waited
         rm /small/filler; wait $!; cp /small/record /out/record",
    );
    launch.mounts.push(Mount {
        target: "/entrypoint".into(),
        source: Source::Bind {
            path: env!("CARGO_BIN_EXE_tenon-entrypoint").into(),
            read_only: true,
        },
    });
    launch.mounts.push(Mount {
        target: "/small".into(),
        source: Source::Tmpfs { mode: 0o777, size: 512 << 10 },
    });
    let (code, said) = finish(start(&launch));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        Path::new(&place.text("out/waited")).exists(),
        "the step is not over while the disk is full"
    );
    let bytes = fs::read(place.text("out/record")).unwrap();
    let (mut length, mut ended) = (0, false);
    let mut reader = Reader::new(&bytes);
    while let Some(frame) = reader.next().unwrap() {
        match frame {
            Frame::Output { bytes, .. } => length += bytes.len(),
            Frame::Ended { ended: end, .. } => ended = end.ending == Ending::Completed,
            Frame::Started { .. } => {}
        }
    }
    assert_eq!((length, ended), (200_000, true));
}

#[test]
fn what_cannot_be_made_is_said() {
    let place = Place::new();
    let mut launch = place.launch("true");
    launch.mounts.push(Mount {
        target: "/x".into(),
        source: Source::Bind { path: "/no/such/source".into(), read_only: true },
    });
    let (code, said) = finish(start(&launch));
    assert_eq!(code, Some(125));
    assert!(said.contains("cannot mount /x"), "{said}");

    let mut launch = place.launch("true");
    launch.argv = vec!["/no/such/program".into()];
    let (code, said) = finish(start(&launch));
    assert_eq!(code, Some(125));
    assert!(said.contains("cannot execute /no/such/program"), "{said}");
}
