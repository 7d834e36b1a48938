//! What crash tests have in common: writers in processes of their own that are killed or lose power, and small disks.
//!
//! A test starts its own test program again in a role (`play_role`, which does nothing unless the role is set). Mounts are
//! made in a private mount namespace, so that nothing is left behind; where the system does not allow them, the test says
//! so on standard error, past the test runner, and passes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(dead_code, reason = "not every crash test needs all of it")]

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

const ROLE: &str = "TENON_TEST_ROLE";
const DIR: &str = "TENON_TEST_DIR";

/// The role that this process is to play, and its directory; `None` in the test itself.
pub fn my_role() -> Option<(String, PathBuf)> {
    Some((std::env::var(ROLE).ok()?, PathBuf::from(std::env::var(DIR).ok()?)))
}

/// This program again, in a role.
pub fn role(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "play_role", "--nocapture", "--test-threads=1"])
        .env(ROLE, name)
        .env(DIR, dir);
    command.stdout(Stdio::piped());
    command
}

/// Plays a role in a process that may mount; says so loudly where that is not allowed.
pub fn play_with_mounts(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let unshare = ["--mount", "--map-root-user"];
    // Loop devices need the real root; a small tmpfs does not.
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let unshare = if is_root { &unshare[..1] } else { &unshare[..] };
    let may = Command::new("unshare").args(unshare).arg("true").stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        skipped(name, "this system allows no private mounts");
        return;
    }
    let inner = role(name, dir.path());
    let mut command = Command::new("unshare");
    command.args(unshare).arg(inner.get_program()).args(inner.get_args());
    command.env(ROLE, name).env(DIR, dir.path());
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    println!("{out}");
    if let Some(at) = out.find("SKIPPED") {
        skipped(name, out[at..].lines().next().unwrap_or_default());
    }
}

/// Past the test runner, which keeps the output of tests that pass.
fn skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "\n*** SKIPPED: {what}: {why} ***");
}

/// In a role: this could not be tested.
pub fn skip(why: &str) {
    println!("SKIPPED {why}");
}

/// A tmpfs in a new directory.
pub fn mount_tmpfs(at: &Path, kibibytes: u32) -> bool {
    let size = format!("size={kibibytes}k");
    mount(&["-t", "tmpfs", "-o", &size], Path::new("tmpfs"), at)
}

/// An ext4 on a loop device, with its image file at `image`, in a new directory.
pub fn mount_ext4(image: &Path, at: &Path, mebibytes: u64) -> bool {
    fs::File::create(image).unwrap().set_len(mebibytes << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(image).status();
    made.is_ok_and(|status| status.success()) && mount_image(image, at)
}

fn mount_image(image: &Path, at: &Path) -> bool {
    mount(&["-o", "loop"], image, at)
}

fn mount(arguments: &[&str], what: &Path, at: &Path) -> bool {
    fs::create_dir_all(at).unwrap();
    let status = Command::new("mount").args(arguments).arg(what).arg(at).status();
    status.is_ok_and(|status| status.success())
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// Says on standard output that everything up to a number is safe.
pub fn acknowledge(number: u64) {
    // One write, so that a kill leaves no half of a line that reads as a smaller number.
    std::io::stdout().write_all(format!("\nack {number}\n").as_bytes()).unwrap();
}

/// A process that writes until it dies, and says what is safe.
pub struct Writer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    last: u64,
}

impl Writer {
    /// Starts one in a role.
    pub fn start(role_name: &str, dir: &Path) -> Writer {
        let mut child = role(role_name, dir).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Writer { child, lines, last: 0 }
    }

    /// Waits for so many acknowledgements.
    pub fn wait_for(&mut self, acknowledgements: u64) {
        let lines = self.lines.by_ref().map_while(Result::ok);
        let numbers = lines.filter_map(|line| line.strip_prefix("ack ")?.parse().ok());
        self.last = numbers.take(acknowledgements as usize).last().unwrap_or(self.last);
    }

    /// Stops it in the middle of whatever it does.
    pub fn stop(&self) {
        run(Command::new("kill").args(["-STOP", &self.child.id().to_string()]));
    }

    /// Kills it and returns the last number that it acknowledged.
    pub fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // What it said between our decision and its death counts too.
        self.wait_for(u64::MAX);
        self.last
    }
}

/// A number from nowhere.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Kills a writer again and again; `check` says what is there.
pub fn kill_again_and_again(
    role_name: &str,
    dir: &Path,
    rounds: u32,
    mut check: impl FnMut(&Path) -> u64,
) {
    for round in 0..rounds {
        let mut writer = Writer::start(role_name, dir);
        writer.wait_for(1 + random() % 40);
        let last = writer.kill();
        let found = check(dir);
        assert!(found >= last, "round {round}: {last} was acknowledged, {found} is there");
    }
}

/// In a role: cuts a writer's power again and again. It writes to `data` on an ext4 image; the image is copied while the
/// writer is stopped, so that the copy holds what was flushed to the disk and nothing else; `check` says what is there.
pub fn cut_the_power(
    role_name: &str,
    dir: &Path,
    rounds: u32,
    mut check: impl FnMut(&Path) -> u64,
) {
    let name = |name: &str| dir.join(name);
    let (image, live, after) = (name("image"), name("live"), name("after"));
    if !mount_ext4(&image, &live, 96) {
        skip("this system allows no loop mounts");
        return;
    }
    for round in 0..rounds {
        let mut writer = Writer::start(role_name, &live.join("data"));
        writer.wait_for(1 + random() % 60);
        writer.stop();
        // A file of its own each time: the last one's loop device may live a little longer than its mount, and what it
        // has of that file in memory would be taken for this one's.
        let copy = name(&format!("copy-{round}"));
        copy_at_one_moment(&image, &copy, &live);
        let last = writer.kill();
        assert!(mount_image(&copy, &after));
        let found = check(&after.join("data"));
        assert!(found >= last, "round {round}: {last} was acknowledged, {found} is there");
        run(Command::new("umount").arg(&after));
        fs::remove_file(&copy).unwrap();
        println!("round {round}: acknowledged {last}, found {found}");
    }
    run(Command::new("umount").arg(&live));
}

/// Copies the image of what is mounted at `live`. While it is copied nothing may be written to it: the file system, which
/// goes on when its writer is stopped, would be seen with what it wrote last and without what it had waited for before.
fn copy_at_one_moment(image: &Path, copy: &Path, live: &Path) {
    for _ in 0..100 {
        let before = writes_to(live);
        run(Command::new("cp").args(["--sparse=always"]).args([image, copy]));
        if before.is_some() && before == writes_to(live) {
            return;
        }
    }
    panic!("the file system is written to without end");
}

/// What was written to the device of a file system, in requests and sectors; none while something is.
fn writes_to(mounted: &Path) -> Option<(u64, u64)> {
    let device = fs::metadata(mounted).unwrap().dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).unwrap();
    // Documentation/block/stat.rst of Linux: the 5th and 7th are writes, the 9th what is under way.
    let numbers: Vec<u64> = stat.split_whitespace().map(|number| number.parse().unwrap()).collect();
    (numbers[8] == 0).then_some((numbers[4], numbers[6]))
}

/// Fills the disk with a file, up to so many bytes that stay free.
pub fn fill_up_to(ballast: &Path, free: u64) {
    let mut file = fs::File::create(ballast).unwrap();
    while file.write_all(&[1; 64 << 10]).is_ok() {}
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(free)).unwrap();
    file.sync_all().unwrap();
}
