//! The directory of one attempt: where each part of Tekton's `/tekton` lives on the machine.
//!
//! Two trees: one on disk (`<data>/pods/<key>`), and a private one in memory for what holds values
//! of secrets. Both are 0700 at their root, while what is mounted inside is open to every user, so
//! that steps that are not root can write. [`PodDir::remove`] removes both, the one on disk last: it
//! is the sign that the attempt was here.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use prost::Message as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tenon_proto::agent::v1::AttemptId;

use crate::backend::{BackendError, Left};
use crate::owner::{OWNER_FILE, Owner, directories_of, reap_directories};

/// Name of the directory with one directory for each attempt.
const PODS: &str = "pods";
/// Name of the file that holds the attempt's identity once it is about to begin.
const BEGUN: &str = "begun";
/// Name of the private file with what another process needs in order to go on.
const SAVED: &str = "adopt";

/// A name for an attempt that is safe in file and container names, and unique on the machine.
pub fn attempt_key(attempt: &AttemptId) -> String {
    format!(
        "{}-{}-{}-{}",
        attempt.run_id.to_lowercase(),
        attempt.task_run,
        attempt.attempt,
        attempt.placement
    )
}

/// Where the directories of runs are, one for each.
pub(crate) fn runs_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("runs")
}

/// The directories of one attempt.
#[derive(Clone, Debug)]
pub struct PodDir {
    root: PathBuf,
    private: PathBuf,
    private_in_memory: bool,
    private_is_executable: bool,
}

impl PodDir {
    /// The directories of that attempt, there or not.
    pub fn of(data_dir: &Path, key: &str) -> io::Result<PodDir> {
        let root = data_dir.join(PODS).join(key);
        let (private_base, private_in_memory) = private_base(data_dir);
        let private = private_base.join(key);
        let private_is_executable = is_executable(&private_base)?;
        Ok(PodDir { root, private, private_in_memory, private_is_executable })
    }

    /// Makes both trees, empty. What an earlier process left under the same key goes first.
    pub fn create(data_dir: &Path, key: &str, owner: &Owner) -> io::Result<PodDir> {
        let dir = PodDir::of(data_dir, key)?;
        dir.remove()?;
        if let Err(error) = dir.make(owner) {
            // What has no owner yet is never reaped. That it cannot be removed is the lesser error.
            let _ = dir.remove();
            return Err(error);
        }
        Ok(dir)
    }

    fn make(&self, owner: &Owner) -> io::Result<()> {
        for tree in [&self.root, &self.private] {
            make_dir(tree, 0o700)?;
            fs::write(tree.join(OWNER_FILE), owner.name())?;
        }
        Ok(())
    }

    /// Says, for good, that the attempt is about to begin: from now on it is never begun again.
    pub fn begin(&self, attempt: &AttemptId) -> io::Result<()> {
        let path = self.root.join(BEGUN);
        fs::write(&path, attempt.encode_to_vec())?;
        let parent = self.root.parent().unwrap_or(&self.root);
        for durable in [&path, &self.root, parent] {
            fs::File::open(durable)?.sync_all()?;
        }
        Ok(())
    }

    /// Leaves for another process what it needs in order to go on with the attempt. There are values of
    /// Secrets in it: without a memory file system nothing is left, and nobody can go on.
    pub fn save(&self, what: &impl Serialize) -> io::Result<()> {
        if self.private_in_memory {
            let file = self.private.join(SAVED);
            fs::write(&file, serde_json::to_vec(what)?)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        }
        Ok(())
    }

    /// What an earlier process has saved; none where it is gone, or was never there.
    pub fn saved<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&fs::read(self.private.join(SAVED)).ok()?).ok()
    }

    /// What an earlier process of the same owner has left. Attempts that it had only prepared, and
    /// never begun, go: they may be begun from the start.
    pub fn left(data_dir: &Path, me: &Owner) -> Result<Left, BackendError> {
        let left = || {
            Ok(Left {
                attempts: PodDir::begun(data_dir, me)?,
                runs: PodDir::runs_of(data_dir, me)?,
            })
        };
        left().map_err(|error: io::Error| BackendError {
            code: "agent/data-dir",
            message: format!("{} cannot be read: {error}", data_dir.display()),
        })
    }

    fn runs_of(data_dir: &Path, me: &Owner) -> io::Result<Vec<String>> {
        let mine = directories_of(&runs_dir(data_dir), |owner| owner == me.name())?;
        Ok(mine.iter().map(|run| name_of(run)).collect())
    }

    fn begun(data_dir: &Path, me: &Owner) -> io::Result<Vec<AttemptId>> {
        let mut begun = Vec::new();
        for pod in directories_of(&data_dir.join(PODS), |owner| owner == me.name())? {
            match fs::read(pod.join(BEGUN)) {
                Ok(bytes) if !bytes.is_empty() => {
                    begun.push(AttemptId::decode(&bytes[..]).map_err(io::Error::other)?);
                }
                _ => PodDir::of(data_dir, &name_of(&pod))?.remove()?,
            }
        }
        Ok(begun)
    }

    /// The keys of all attempts of that owner that have left a directory.
    pub fn keys(data_dir: &Path, me: &Owner) -> BTreeSet<String> {
        let bases = [data_dir.join(PODS), private_base(data_dir).0];
        let mine = |base: &PathBuf| directories_of(base, |owner| owner == me.name());
        bases.iter().flat_map(mine).flatten().map(|pod| name_of(&pod)).collect()
    }

    /// The directories on disk of attempts that `me` outlives.
    pub fn outlived(data_dir: &Path, me: &Owner) -> Vec<PathBuf> {
        directories_of(&data_dir.join(PODS), |owner| me.outlives(owner)).unwrap_or_default()
    }

    /// Removes the trees of attempts and runs that `me` outlives, and says how many.
    pub fn reap(data_dir: &Path, me: &Owner) -> usize {
        let on_disk = [data_dir.join(PODS), runs_dir(data_dir)];
        if me.is_agent() {
            on_disk.iter().for_each(|base| remove_empty(base));
        }
        let private = private_base(data_dir).0;
        on_disk.iter().chain([&private]).map(|base| reap_directories(base, me)).sum()
    }

    /// Makes Tekton's own directories for this many steps.
    pub fn make_tekton(&self, step_names: &[&str]) -> io::Result<()> {
        for shared in ["workspace", "home", "results", "artifacts"] {
            make_dir(&self.root.join(shared), 0o777)?;
        }
        for plain in ["steps", "run", "volumes", "record"] {
            make_dir(&self.root.join(plain), 0o755)?;
        }
        make_dir(&self.scripts(), 0o755)?;
        for (index, name) in step_names.iter().enumerate() {
            make_dir(&self.run(index), 0o777)?;
            make_dir(&self.run(index).join("status"), 0o777)?;
            let target = format!("/tekton/run/{index}/status");
            symlink(&target, self.steps().join(index.to_string()))?;
            symlink(&target, self.steps().join(format!("step-{name}")))?;
        }
        Ok(())
    }

    /// The root on disk.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The private root, in memory where the machine has a memory file system.
    pub fn private(&self) -> &Path {
        &self.private
    }

    /// Whether secrets stay off the disk.
    pub fn private_in_memory(&self) -> bool {
        self.private_in_memory
    }

    /// `/workspace`
    pub fn workspace(&self) -> PathBuf {
        self.root.join("workspace")
    }

    /// `/tekton/home`
    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// `/tekton/results`
    pub fn results(&self) -> PathBuf {
        self.root.join("results")
    }

    /// `/tekton/artifacts`
    pub fn artifacts(&self) -> PathBuf {
        self.root.join("artifacts")
    }

    /// `/tekton/steps`: symlinks into `/tekton/run`.
    pub fn steps(&self) -> PathBuf {
        self.root.join("steps")
    }

    /// `/tekton/run`
    pub fn runs(&self) -> PathBuf {
        self.root.join("run")
    }

    /// `/tekton/run/<index>`
    pub fn run(&self, index: usize) -> PathBuf {
        self.runs().join(index.to_string())
    }

    /// `/tekton/downward`, of the first step of a pod with sidecars.
    pub fn downward(&self) -> PathBuf {
        self.root.join("downward")
    }

    /// The file that opens the first step's gate once it is not empty.
    pub fn ready_file(&self) -> PathBuf {
        self.downward().join("ready")
    }

    /// `/tekton/scripts`: private, because a result that is a secret is substituted in scripts too;
    /// but on disk where nothing in the private place may be executed.
    pub fn scripts(&self) -> PathBuf {
        let tree = if self.private_is_executable { &self.private } else { &self.root };
        tree.join("scripts")
    }

    /// Where the volume of that name lives when it is a directory on disk.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.root.join("volumes").join(name)
    }

    /// Where the volume of that name lives when it holds secrets or is to be in memory.
    pub fn private_volume(&self, name: &str) -> PathBuf {
        self.private.join("volumes").join(name)
    }

    /// Makes the directory of a container's record and the record itself, writable by any user,
    /// and returns the record's path. With `in_memory` it stays off the disk where possible.
    pub fn make_record(&self, container: &str, in_memory: bool) -> io::Result<PathBuf> {
        let in_memory = in_memory && self.private_in_memory;
        let tree = if in_memory { &self.private } else { &self.root };
        let dir = tree.join("record").join(container);
        make_dir(&dir, 0o777)?;
        let record = dir.join("record");
        fs::File::create(&record)?;
        fs::set_permissions(&record, fs::Permissions::from_mode(0o666))?;
        Ok(record)
    }

    /// Makes the private directory of a container's spec, writable by any user, and returns it.
    pub fn make_spec_dir(&self, container: &str) -> io::Result<PathBuf> {
        let dir = self.private.join("spec").join(container);
        make_dir(&dir, 0o777)?;
        Ok(dir)
    }

    /// Removes both trees. Files of other users below a directory of another user cannot be
    /// removed by an agent that is not root: the caller has another way for those.
    pub fn remove(&self) -> io::Result<()> {
        remove_tree(&self.private)?;
        remove_tree(&self.root)
    }
}

fn name_of(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Removes the directories in which nothing is, not even whose they are: who made them, or removed them, was killed at
/// it. Only for a place where nobody makes any meanwhile.
fn remove_empty(parent: &Path) {
    for entry in entries(parent).unwrap_or_default() {
        // It fails for what is not empty, which is what is meant.
        let _ = fs::remove_dir(entry.path());
    }
}

/// What is in a directory; nothing where there is none.
pub(crate) fn entries(dir: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.collect(),
    }
}

/// The private root in memory, else a directory beside the others.
pub(crate) fn private_base(data_dir: &Path) -> (PathBuf, bool) {
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    // SAFETY: geteuid has no preconditions.
    let uid = unsafe { libc::geteuid() };
    for base in [Some(PathBuf::from("/dev/shm")), runtime_dir].into_iter().flatten() {
        let dir = base.join(format!("tenon-{uid}"));
        if base.is_dir() && make_dir(&dir, 0o700).is_ok() && owned_by(&dir, uid) {
            return (dir, true);
        }
    }
    (data_dir.join("private"), false)
}

/// Whether a directory is ours alone: in a world-writable place anyone may have made it first.
fn owned_by(dir: &Path, uid: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid)
}

/// Whether files below a directory may be executed: whether its file system is mounted so.
fn is_executable(dir: &Path) -> io::Result<bool> {
    fs::create_dir_all(dir)?;
    let path = CString::new(dir.as_os_str().as_bytes())?;
    // SAFETY: statvfs is plain data; the path ends with NUL, and the call fills the struct or fails.
    let flags = unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(path.as_ptr(), &raw mut found) < 0 {
            return Err(io::Error::last_os_error());
        }
        found.f_flag
    };
    Ok(flags & libc::ST_NOEXEC == 0)
}

/// Makes a directory with its parents, and sets its mode whatever the umask is.
pub(crate) fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Removes a tree that may be absent. Directories that lack the owner's permissions get them. Whose it is goes
/// last: what a killed process has removed in part is found again.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match remove_owner_last(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path);
            remove_owner_last(path)
        }
        other => other,
    }
}

fn remove_owner_last(path: &Path) -> io::Result<()> {
    let is_dir = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    if is_dir && path.join(OWNER_FILE).is_file() {
        for entry in entries(path)?.iter().filter(|entry| entry.file_name() != OWNER_FILE) {
            let remove = match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path()),
                false => fs::remove_file(entry.path()),
            };
            or_absent(remove)?;
        }
    }
    or_absent(fs::remove_dir_all(path))
}

fn or_absent(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}

/// Gives the owner all permissions on every directory of a tree, as far as it can.
fn open_up(path: &Path) {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return;
    };
    if !meta.is_dir() {
        return;
    }
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries.flatten() {
            open_up(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::own_directory;

    fn tree_of(owner: &Owner) -> tempfile::TempDir {
        let base = tempfile::tempdir().unwrap();
        let tree = base.path().join("tree");
        make_dir(&tree.join("a/b"), 0o700).unwrap();
        fs::write(tree.join("a/b/file"), "1").unwrap();
        fs::write(tree.join("z"), "2").unwrap();
        symlink("/etc", tree.join("link")).unwrap();
        fs::write(tree.join(OWNER_FILE), owner.name()).unwrap();
        base
    }

    #[test]
    fn whose_a_tree_is_goes_last() {
        let me = Owner::Process;
        let base = tree_of(&me);
        let tree = base.path().join("tree");
        // What may not change stops it somewhere, as a kill would. Only root can say that of something.
        let attribute = |flag: &str, what: &str| {
            let mut chattr = std::process::Command::new("chattr");
            chattr.arg(flag).arg(tree.join(what)).status().is_ok_and(|status| status.success())
        };
        for stuck in ["z", "a/b"] {
            if attribute("+i", stuck) {
                let stopped = remove_tree(&tree);
                let mine = directories_of(base.path(), |owner| owner == me.name());
                assert!(attribute("-i", stuck));
                assert!(stopped.is_err());
                assert_eq!(mine.unwrap(), std::slice::from_ref(&tree), "it is found again");
                fs::create_dir_all(tree.join("a/b")).unwrap();
            }
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && Path::new("/etc/passwd").exists());
        remove_tree(&tree).unwrap();
    }

    #[test]
    fn what_is_empty_is_of_a_killed_agent_only_where_no_other_is() {
        let data_dir = tempfile::tempdir().unwrap();
        let agent = Owner::Agent { incarnation: "life".into(), data_dir: "/data".into() };
        let [empty, full] = ["runs/1", "runs/2"].map(|name| data_dir.path().join(name));
        make_dir(&empty, 0o700).unwrap();
        own_directory(&full, &agent).unwrap();
        PodDir::reap(data_dir.path(), &Owner::Process);
        assert!(empty.exists(), "another process may be making it");
        PodDir::reap(data_dir.path(), &agent);
        assert!(!empty.exists() && full.exists());
    }
}
