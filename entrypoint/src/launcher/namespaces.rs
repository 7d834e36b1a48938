//! Entering new namespaces. The network stays the machine's, so that steps and sidecars find each
//! other on localhost, and the machine's servers too.

use std::fs;
use std::io;

fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is involved; there is only this thread.
    if unsafe { libc::unshare(flags) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A user namespace in which the caller is root. One user and one group are all it has.
pub fn enter_user() -> Result<(), String> {
    // SAFETY: these have no preconditions.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    unshare(libc::CLONE_NEWUSER)
        .map_err(|e| format!("cannot make a user namespace: {e}{}", forbidden(&e)))?;
    let write = |file: &str, contents: String| {
        fs::write(format!("/proc/self/{file}"), contents)
            .map_err(|e| format!("cannot write /proc/self/{file}: {e}{}", forbidden(&e)))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("0 {uid} 1"))?;
    write("gid_map", format!("0 {gid} 1"))
}

/// What usually forbids it, and what to do then.
fn forbidden(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            ": the kernel does not let this user make namespaces. Allow it (sysctl \
             kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0), \
             run as root, or use Docker"
        }
        Some(libc::ENOSPC) => {
            ": the limit is reached or zero. Raise it (sysctl user.max_user_namespaces=15000), run \
             as root, or use Docker"
        }
        Some(libc::EINVAL | libc::ENOSYS) => {
            ": this kernel has no user namespaces: run as root, or use Docker"
        }
        _ => "",
    }
}

/// Mounts, System V IPC, host name; and process ids for the next child.
pub fn enter_others() -> Result<(), String> {
    unshare(libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWPID)
        .map_err(|e| format!("cannot make namespaces: {e}{}", forbidden(&e)))
}

/// The name of the machine, inside.
pub fn set_host_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Ok(());
    }
    // SAFETY: pointer and length are those of `name`.
    let result = unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) };
    if result < 0 {
        return Err(format!("cannot set the host name: {}", io::Error::last_os_error()));
    }
    Ok(())
}
