//! Who the container's processes are, and what they may do.

use std::io;

use tenon_entrypoint::Launch;

/// More than any kernel has.
const ALL: u32 = 64;

/// Gives up, for good, all capabilities without a bit.
fn keep_only(bits: u64) {
    for capability in (0..ALL).filter(|capability| bits >> capability & 1 == 0) {
        // SAFETY: no memory is involved. A number that the kernel does not know is no error: it
        // cannot be held either.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
}

/// Drops rights for good; last thing before the entrypoint is executed.
pub fn become_user(launch: &Launch) -> Result<(), String> {
    let fail = |what: &str| format!("{what}: {}", io::Error::last_os_error());
    // SAFETY: plain calls on numbers, and on a list of groups with its own length.
    unsafe {
        libc::umask(0o022);
        keep_only(launch.capabilities);
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

/// What the kernel says of a process: who it is and what it may do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Of {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    capabilities: u64,
    no_new_privileges: bool,
}

impl Of {
    /// Reads `/proc/<pid>/status`.
    pub fn read(status: &str) -> Option<Of> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_whitespace())
        };
        let number = |name: &str| field(name)?.next()?.parse().ok();
        Some(Of {
            uid: number("Uid:")?,
            gid: number("Gid:")?,
            groups: field("Groups:")?.filter_map(|group| group.parse().ok()).collect(),
            capabilities: u64::from_str_radix(field("CapBnd:")?.next()?, 16).ok()?,
            no_new_privileges: number("NoNewPrivs:") == Some(1),
        })
    }

    /// Becomes that, for good. In a user namespace there is only one user to be.
    pub fn assume(&self, user_namespace: bool) -> io::Result<()> {
        let done = |result: i32| match result {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        keep_only(self.capabilities);
        // SAFETY: plain calls on numbers, and on a list of groups with its own length.
        unsafe {
            if !user_namespace {
                done(libc::setgroups(self.groups.len(), self.groups.as_ptr()))?;
                done(libc::setresgid(self.gid, self.gid, self.gid))?;
                done(libc::setresuid(self.uid, self.uid, self.uid))?;
            }
            if self.no_new_privileges {
                done(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_as_the_kernel_shows_it() {
        let status = "Name:\tx\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t8 9 \n\
                      CapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\n";
        let of = Of::read(status).unwrap();
        let groups = vec![8, 9];
        let capabilities = 0xa804_25fb;
        assert_eq!(of, Of { uid: 7, gid: 8, groups, capabilities, no_new_privileges: true });
        assert_eq!(Of::read("Uid:\tx"), None);
    }
}
