//! The root that a container sees: a memory file system of its own, with the machine's top-level
//! directories in it, read-only, and the attempt's directories over them.
//!
//! So a step may make `/www` or `/leak`, which nobody else sees and which is gone with the step,
//! but changes nothing of the machine. A mount point that is missing below a read-only directory
//! (say `/etc/foo`) is made by covering that directory with an overlay.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tenon_entrypoint::{Launch, Mount, Source};

/// Where the machine's own root is while the new one is made.
const OLD: &str = "/.old";
/// Where overlays keep what is written over read-only directories.
const OVER: &str = "/.over";

/// Directories of the machine that are not shown: each is made anew.
const FRESH: [&str; 5] = ["proc", "tmp", "tekton", "workspace", "lost+found"];

/// Makes the root and moves into it.
pub fn make(launch: &Launch) -> Result<(), String> {
    // Nothing that is mounted here is to appear outside.
    mount(None, "/", None, libc::MS_REC | libc::MS_PRIVATE, None)
        .map_err(said("make mounts private"))?;
    let root = &launch.root;
    mount(Some("tmpfs"), root, Some("tmpfs"), 0, Some("mode=755"))
        .map_err(said("mount the new root"))?;
    fs::create_dir(format!("{root}{OLD}")).map_err(said("make the new root"))?;
    pivot(root, &format!("{root}{OLD}")).map_err(said("change the root"))?;
    std::env::set_current_dir("/").map_err(said("enter the new root"))?;

    show_machine().map_err(said("show the machine's directories"))?;
    for one in ["/proc", "/tmp", OVER] {
        fs::create_dir_all(one).map_err(said("make the new root"))?;
    }
    mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
        None,
    )
    .map_err(said("mount /proc"))?;
    for place in &launch.mounts {
        show(place).map_err(|e| format!("cannot mount {}: {e}", place.target))?;
    }
    unmount(OLD).map_err(said("let go of the old root"))?;
    fs::remove_dir(OLD).map_err(said("let go of the old root"))?;
    Ok(())
}

/// Changes into the directory where the container starts.
pub fn enter(cwd: &str) -> Result<(), String> {
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    if !Path::new(cwd).is_dir() {
        directory(cwd).map_err(|e| format!("cannot make the working directory {cwd}: {e}"))?;
    }
    std::env::set_current_dir(cwd).map_err(|e| format!("cannot change to {cwd}: {e}"))
}

/// Makes mounts read-only, without those below them.
pub fn seal(targets: &[String]) -> Result<(), String> {
    for target in targets {
        let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
        mount(None, target, None, flags, None)
            .map_err(|e| format!("cannot make {target} read-only: {e}"))?;
    }
    Ok(())
}

fn said(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("cannot {what}: {error}")
}

fn show_machine() -> io::Result<()> {
    for entry in fs::read_dir(OLD)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !FRESH.contains(name)) else {
            continue;
        };
        let (old, new) = (format!("{OLD}/{name}"), format!("/{name}"));
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            symlink(fs::read_link(&old)?, &new)?;
            continue;
        }
        if kind.is_dir() {
            fs::create_dir(&new)?;
        } else if kind.is_file() {
            fs::write(&new, "")?;
        } else {
            continue;
        }
        mount(Some(&old), &new, None, libc::MS_BIND | libc::MS_REC, None)?;
        // Devices have permissions of their own, and terminals are made below /dev.
        if name != "dev" {
            read_only(&new)?;
        }
    }
    Ok(())
}

fn show(place: &Mount) -> io::Result<()> {
    let target = &place.target;
    match &place.source {
        Source::Bind { path, read_only: ro } => {
            let old = format!("{OLD}{path}");
            if fs::metadata(&old)?.is_dir() {
                directory(target)?;
            } else {
                file(target)?;
            }
            mount(Some(&old), target, None, libc::MS_BIND | libc::MS_REC, None)?;
            if *ro { read_only(target) } else { Ok(()) }
        }
        Source::Tmpfs { mode, size } => {
            directory(target)?;
            let mut options = format!("mode={mode:o}");
            if *size > 0 {
                options.push_str(&format!(",size={size}"));
            }
            mount(
                Some("tmpfs"),
                target,
                Some("tmpfs"),
                libc::MS_NOSUID | libc::MS_NODEV,
                Some(&options),
            )
        }
    }
}

/// Makes a directory with its parents, over a read-only place if need be.
fn directory(path: &str) -> io::Result<()> {
    made(path, || fs::create_dir_all(path))
}

/// Makes an empty file with its parents.
fn file(path: &str) -> io::Result<()> {
    made(path, || {
        if Path::new(path).exists() {
            return Ok(());
        }
        if let Some(parent) = Path::new(path).parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, "")
    })
}

fn made(path: &str, make: impl Fn() -> io::Result<()>) -> io::Result<()> {
    match make() {
        Err(error) if error.raw_os_error() == Some(libc::EROFS) => {
            cover(Path::new(path))?;
            make()
        }
        done => done,
    }
}

/// Covers the deepest directory on the way to `path` that exists with a writable overlay.
fn cover(path: &Path) -> io::Result<()> {
    let existing =
        path.ancestors().skip(1).find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/"));
    let existing = fs::canonicalize(existing)?;
    let number = fs::read_dir(OVER)?.count();
    let over = PathBuf::from(OVER).join(number.to_string());
    for part in ["upper", "work"] {
        fs::create_dir_all(over.join(part))?;
    }
    let lower = existing.to_string_lossy().into_owned();
    let options = format!("lowerdir={lower},upperdir={0}/upper,workdir={0}/work", over.display());
    // In a user namespace an overlay may only use attributes of users.
    mount(Some("overlay"), &lower, Some("overlay"), 0, Some(&options)).or_else(|_| {
        mount(Some("overlay"), &lower, Some("overlay"), 0, Some(&format!("{options},userxattr")))
    })
}

fn text(text: &str) -> io::Result<CString> {
    Ok(CString::new(text)?)
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn mount(
    source: Option<&str>,
    target: &str,
    kind: Option<&str>,
    flags: libc::c_ulong,
    options: Option<&str>,
) -> io::Result<()> {
    let (source, target) = (source.map(text).transpose()?, text(target)?);
    let (kind, options) = (kind.map(text).transpose()?, options.map(text).transpose()?);
    let pointer =
        |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    // SAFETY: every pointer is null or to a text that ends with a zero byte and lives on here.
    done(libc::c_long::from(unsafe {
        libc::mount(
            pointer(&source),
            target.as_ptr(),
            pointer(&kind),
            flags,
            pointer(&options).cast(),
        )
    }))
}

fn unmount(path: &str) -> io::Result<()> {
    let path = text(path)?;
    // SAFETY: `path` ends with a zero byte.
    done(libc::c_long::from(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }))
}

fn pivot(new: &str, old: &str) -> io::Result<()> {
    let (new, old) = (text(new)?, text(old)?);
    // SAFETY: both end with a zero byte.
    done(unsafe { libc::syscall(libc::SYS_pivot_root, new.as_ptr(), old.as_ptr()) })
}

/// Makes a mount and all below it read-only.
fn read_only(path: &str) -> io::Result<()> {
    let target = text(path)?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: `target` ends with a zero byte, and the size is that of `attributes`.
    let result = done(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    });
    match result {
        // Before Linux 5.12: only the mount itself, not what is mounted below it.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            mount(None, path, None, libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY, None)
        }
        result => result,
    }
}
