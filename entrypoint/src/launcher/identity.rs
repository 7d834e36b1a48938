//! Who the container's processes are, and what they may do.

use std::io;

use tenon_entrypoint::Launch;

/// The capabilities of a usual container: those that Docker leaves to root.
const KEPT: [u32; 14] = [
    0,  // CHOWN
    1,  // DAC_OVERRIDE
    3,  // FOWNER
    4,  // FSETID
    5,  // KILL
    6,  // SETGID
    7,  // SETUID
    8,  // SETPCAP
    10, // NET_BIND_SERVICE
    13, // NET_RAW
    18, // SYS_CHROOT
    27, // MKNOD
    29, // AUDIT_WRITE
    31, // SETFCAP
];

/// More than any kernel has.
const ALL: u32 = 64;

/// Drops rights for good; last thing before the entrypoint is executed.
pub fn become_user(launch: &Launch) -> Result<(), String> {
    let fail = |what: &str| format!("{what}: {}", io::Error::last_os_error());
    // SAFETY: plain calls on numbers, and on a list of groups with its own length.
    unsafe {
        libc::umask(0o022);
        if !launch.privileged {
            for capability in (0..ALL).filter(|capability| !KEPT.contains(capability)) {
                // A number that the kernel does not know is no error: it cannot be held either.
                libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
            }
        }
        if !launch.groups.is_empty()
            || ((launch.uid.is_some() || launch.gid.is_some()) && !launch.user_namespace)
        {
            let groups = &launch.groups;
            if libc::setgroups(groups.len(), groups.as_ptr()) < 0 {
                return Err(fail("cannot set the groups"));
            }
        }
        if let Some(gid) = launch.gid
            && libc::setresgid(gid, gid, gid) < 0
        {
            return Err(fail(&format!("cannot become group {gid}")));
        }
        if let Some(uid) = launch.uid
            && libc::setresuid(uid, uid, uid) < 0
        {
            return Err(fail(&format!("cannot become user {uid}")));
        }
        if launch.no_new_privileges && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 {
            return Err(fail("cannot forbid new privileges"));
        }
        // After the change of user, which would undo it: the container dies with its keeper.
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) < 0 {
            return Err(fail("cannot tie the container to its keeper"));
        }
    }
    Ok(())
}
