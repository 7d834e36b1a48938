//! Where a node or an agent keeps its identity: three files in a directory that only its owner reads.
//!
//! | name | what |
//! |---|---|
//! | `ca.crt` | the authority's certificate |
//! | `own.crt` | one's own |
//! | `own.key` | the same again and its private key, mode 0600 |
//!
//! Key and certificate are in one file, which is replaced as one: a crash in the middle of a renewal
//! leaves an identity that works.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::error::{Error, Result};
use crate::identity::Identity;

const AUTHORITY: &str = "ca.crt";
const CERTIFICATE: &str = "own.crt";
const KEY: &str = "own.key";
/// Where the key begins in its file, behind the certificate.
const BEGIN_KEY: &str = "-----BEGIN PRIVATE KEY-----";

/// The identity in a directory; `None` where there is none.
pub fn read(dir: &Path) -> Result<Option<Identity>> {
    let text = |name: &str| {
        let path = dir.join(name);
        fs::read_to_string(&path).map_err(|source| Error::Io { action: "read", path, source })
    };
    let key = match text(KEY) {
        Ok(key) => key,
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // The key file has the certificate that belongs to the key: what `own.crt` says is for people.
    let (certificate, key) = key.split_at(key.find(BEGIN_KEY).unwrap_or(0));
    Identity::new(&text(AUTHORITY)?, certificate, key).map(Some)
}

/// Makes an identity that of a directory, durably.
pub fn write(dir: &Path, identity: &Identity) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| Error::Io {
        action: "create",
        path: dir.to_owned(),
        source,
    })?;
    put(dir, AUTHORITY, &identity.authority_pem, 0o644)?;
    put(dir, CERTIFICATE, &identity.certificate_pem, 0o644)?;
    let key = format!("{}{}", identity.certificate_pem, identity.key_pem);
    put(dir, KEY, &key, 0o600)
}

fn put(dir: &Path, name: &str, text: &str, mode: u32) -> Result<()> {
    let path = dir.join(name);
    let part = dir.join(format!("{name}.part"));
    let written = (|| {
        let mut options = OpenOptions::new();
        // One that a crash left may have other rights.
        let _ = fs::remove_file(&part);
        let mut file = options.write(true).create_new(true).mode(mode).open(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        File::open(dir)?.sync_all()
    })();
    written.map_err(|source| Error::Io { action: "write", path, source })
}
