//! What the host backend tells the launcher: the container that is to be made of namespaces.
//!
//! It travels over the launcher's standard input, length first. A container that does not
//! [outlive](Launch::outlives) who ordered it lives for as long as that pipe is held open.

use crate::wire::{Decoder, Encoder, Malformed};

const MAGIC: &[u8; 8] = b"TENLNCH2";

/// What a launcher takes as the order to kill its container, and passes on to nobody. It ends when
/// nothing of the container is left.
pub const KILL_SIGNAL: i32 = libc::SIGUSR1;

/// One container on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// Make a user namespace, in which the caller is root. Needed when the caller is not.
    pub user_namespace: bool,
    /// An existing, empty directory: the new root is mounted on it, in the container's own mount
    /// namespace only.
    pub root: String,
    /// Host name inside.
    pub hostname: String,
    /// What appears where, in order: parents before children.
    pub mounts: Vec<Mount>,
    /// Directory to start in, made when missing.
    pub cwd: String,
    /// User to become; `None` stays who it is.
    pub uid: Option<u32>,
    /// Group to become.
    pub gid: Option<u32>,
    /// Supplementary groups, when a user or group is given.
    pub groups: Vec<u32>,
    /// Capabilities that it may ever have, one bit for each number of the kernel's.
    pub capabilities: u64,
    /// Mounts that become read-only last of all, without what is mounted below them.
    pub sealed: Vec<String>,
    /// No program gains rights by being executed.
    pub no_new_privileges: bool,
    /// The program, as seen inside, and its arguments.
    pub argv: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// The container lives on without whoever ordered it, in a session of its own, and its exit code
    /// is written to this file of the machine: for whoever asks later, and is not the launcher's
    /// parent.
    pub outlives: Option<String>,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path inside; made when missing.
    pub target: String,
    /// What is there.
    pub source: Source,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file or directory of the machine: an absolute path without symlinks.
    Bind {
        /// On the machine.
        path: String,
        /// Nothing below can be changed.
        read_only: bool,
    },
    /// A fresh memory file system.
    Tmpfs {
        /// Permission bits of its root.
        mode: u32,
        /// Bytes; 0 is the kernel's default.
        size: u64,
    },
}

impl Launch {
    /// The bytes for the launcher's standard input.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::default();
        e.bytes.extend_from_slice(MAGIC);
        e.bool(self.user_namespace);
        e.str(&self.root);
        e.str(&self.hostname);
        e.list(&self.mounts, |e, mount| {
            e.str(&mount.target);
            match &mount.source {
                Source::Bind { path, read_only } => {
                    e.u8(0);
                    e.str(path);
                    e.bool(*read_only);
                }
                Source::Tmpfs { mode, size } => {
                    e.u8(1);
                    e.u32(*mode);
                    e.bytes(&size.to_le_bytes());
                }
            }
        });
        e.str(&self.cwd);
        e.option(self.uid, Encoder::u32);
        e.option(self.gid, Encoder::u32);
        e.list(&self.groups, |e, group| e.u32(*group));
        e.bytes(&self.capabilities.to_le_bytes());
        e.strings(&self.sealed);
        e.bool(self.no_new_privileges);
        e.strings(&self.argv);
        e.pairs(&self.env);
        e.option(self.outlives.as_deref(), Encoder::str);
        let mut framed = Encoder::default();
        framed.bytes(&e.bytes);
        framed.bytes
    }

    /// Reads what [`Launch::encode`] wrote, without the length before it.
    ///
    /// # Errors
    /// When the bytes are of another version, cut, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut d = Decoder::new(bytes);
        if d.take(MAGIC.len())? != MAGIC {
            return Err(Malformed("not a launch of this version"));
        }
        let launch = Self {
            user_namespace: d.bool()?,
            root: d.str()?,
            hostname: d.str()?,
            mounts: d.list(|d| {
                let target = d.str()?;
                let source = match d.u8()? {
                    0 => Source::Bind { path: d.str()?, read_only: d.bool()? },
                    1 => {
                        let mode = d.u32()?;
                        Source::Tmpfs { mode, size: d.number()? }
                    }
                    _ => return Err(Malformed("unknown kind of mount")),
                };
                Ok(Mount { target, source })
            })?,
            cwd: d.str()?,
            uid: d.option(Decoder::u32)?,
            gid: d.option(Decoder::u32)?,
            groups: d.list(Decoder::u32)?,
            capabilities: d.number()?,
            sealed: d.strings()?,
            no_new_privileges: d.bool()?,
            argv: d.strings()?,
            env: d.pairs()?,
            outlives: d.option(Decoder::str)?,
        };
        d.end()?;
        Ok(launch)
    }
}

impl Decoder<'_> {
    /// A number that was written as bytes.
    fn number(&mut self) -> Result<u64, Malformed> {
        let bytes = self.bytes()?.try_into().map_err(|_| Malformed("a number"))?;
        Ok(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let launch = Launch {
            user_namespace: true,
            root: "/var/lib/tenon/root".into(),
            hostname: "pod".into(),
            mounts: vec![
                Mount {
                    target: "/workspace".into(),
                    source: Source::Bind { path: "/data/w".into(), read_only: true },
                },
                Mount { target: "/tmp".into(), source: Source::Tmpfs { mode: 0o1777, size: 5 } },
            ],
            cwd: "/".into(),
            uid: Some(1000),
            gid: None,
            groups: vec![1, 2],
            capabilities: 1 << 40,
            sealed: vec!["/".into()],
            no_new_privileges: true,
            argv: vec!["/tekton/bin/entrypoint".into()],
            env: vec![("PATH".into(), "/bin".into())],
            outlives: Some("/data/exit".into()),
        };
        for launch in [Launch::default(), launch] {
            let bytes = launch.encode();
            assert_eq!(bytes[..4], u32::try_from(bytes.len() - 4).unwrap().to_le_bytes());
            assert_eq!(Launch::decode(&bytes[4..]), Ok(launch));
            assert!(Launch::decode(&bytes[4..bytes.len() - 1]).is_err());
        }
    }
}
