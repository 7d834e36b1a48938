//! Encryption of what must not be readable on a disk: a run's ConfigMaps and Secrets.
//!
//! They travel through the log and lie in the history sealed with ChaCha20-Poly1305 (RFC 8439)
//! under a key that every member has and none writes beside the data. The nonce is derived from the
//! run's id, which is used once with its materials; the id is also the associated data, so that one
//! run's materials cannot be passed off as another's.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use sha2::{Digest, Sha256};
use tenon_engine::RunId;

use crate::error::{Error, Result};
use crate::materials::Materials;

/// Bytes of a nonce.
const NONCE: usize = 12;

/// A 256-bit key; shows nothing of itself.
#[derive(Clone)]
pub struct SealKey([u8; 32]);

/// The materials cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsealed {
    /// Sealed with another key, or damaged.
    #[error(
        "the Secrets and ConfigMaps of run {0} cannot be decrypted: is this node's secrets key \
         the same as that of the other nodes?"
    )]
    Key(RunId),
    /// Likewise, something else than materials.
    #[error(
        "what is stored of this cluster cannot be decrypted: is this node's secrets key the one that \
         the cluster began with?"
    )]
    Other,
    /// The key file is not one.
    #[error("a secrets key is 64 hexadecimal digits on one line, and nothing else")]
    File,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({})", self.fingerprint())
    }
}

impl SealKey {
    /// A key of these bytes.
    pub fn new(bytes: [u8; 32]) -> SealKey {
        SealKey(bytes)
    }

    /// A key that was never used before.
    pub fn random() -> Result<SealKey> {
        let mut key = [0; 32];
        let path = Path::new("/dev/urandom");
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut key));
        read.map_err(Error::io("read", path))?;
        Ok(SealKey(key))
    }

    /// The key in a key file: 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<SealKey, Unsealed> {
        let text = text.trim().as_bytes();
        let mut key = [0; 32];
        if text.len() != 64 {
            return Err(Unsealed::File);
        }
        for (byte, digits) in key.iter_mut().zip(text.chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| Unsealed::File)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| Unsealed::File)?;
        }
        Ok(SealKey(key))
    }

    /// As [`SealKey::parse`] reads it.
    pub fn to_text(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Tells whether two members have the same key, without telling the key: 16 hex digits.
    pub fn fingerprint(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(b"tenon secrets key");
        hasher.update(self.0);
        hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Encrypts the materials of a run. Empty ones need no key and become no bytes.
    pub(crate) fn seal(&self, run: RunId, materials: &Materials) -> Vec<u8> {
        if materials.is_empty() {
            return Vec::new();
        }
        let text = serde_json::to_vec(materials)
            .expect("ConfigMaps and Secrets have only string keys, so they are always valid JSON");
        let id = run.to_string();
        let payload = Payload { msg: &text, aad: id.as_bytes() };
        self.cipher().encrypt(&nonce(run), payload).expect(
            "ChaCha20-Poly1305 encrypts anything below 256 GiB, and a request is far smaller",
        )
    }

    /// Decrypts them again.
    pub(crate) fn open(&self, run: RunId, sealed: &[u8]) -> Result<Materials, Unsealed> {
        if sealed.is_empty() {
            return Ok(Materials::default());
        }
        let id = run.to_string();
        let payload = Payload { msg: sealed, aad: id.as_bytes() };
        let text = self.cipher().decrypt(&nonce(run), payload).map_err(|_| Unsealed::Key(run))?;
        serde_json::from_slice(&text).map_err(|_| Unsealed::Key(run))
    }

    /// Encrypts anything else under a name that says what it is; hexadecimal, with its nonce.
    pub fn seal_text(&self, name: &str, text: &str) -> Result<String> {
        let SealKey(random) = SealKey::random()?;
        let nonce = &random[..NONCE];
        let payload = Payload { msg: text.as_bytes(), aad: name.as_bytes() };
        let sealed = self
            .cipher()
            .encrypt(Nonce::from_slice(nonce), payload)
            .expect("ChaCha20-Poly1305 encrypts anything below 256 GiB, and this is far smaller");
        Ok(nonce.iter().chain(&sealed).map(|byte| format!("{byte:02x}")).collect())
    }

    /// Decrypts it again.
    pub fn open_text(&self, name: &str, sealed: &str) -> Result<String, Unsealed> {
        let wrong = || Unsealed::Other;
        let digits = sealed.as_bytes().chunks(2);
        let bytes = digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        let bytes: Vec<u8> = bytes.collect::<Option<_>>().ok_or_else(wrong)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE).ok_or_else(wrong)?;
        let payload = Payload { msg: sealed, aad: name.as_bytes() };
        let text = self.cipher().decrypt(Nonce::from_slice(nonce), payload).map_err(|_| wrong())?;
        String::from_utf8(text).map_err(|_| wrong())
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new(Key::from_slice(&self.0))
    }
}

fn nonce(run: RunId) -> Nonce {
    let hash = Sha256::digest(run.to_string());
    *Nonce::from_slice(&hash[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_run_open_it() {
        let mut materials = Materials::default();
        let mut secret = tenon_tekton::k8s::Secret::default();
        secret.metadata.name = "token".to_owned();
        secret.string_data.insert("password".to_owned(), "swordfish".to_owned());
        materials.secrets.insert("token".to_owned(), secret);
        let (key, other) = (SealKey::new([1; 32]), SealKey::new([2; 32]));
        let (run, another) = (RunId(ulid::Ulid(1)), RunId(ulid::Ulid(2)));
        let sealed = key.seal(run, &materials);
        assert!(!sealed.windows(9).any(|window| window == b"swordfish"));
        assert!(key.open(run, &sealed).unwrap() == materials);
        assert_eq!(key.open(another, &sealed).err(), Some(Unsealed::Key(another)));
        assert_eq!(other.open(run, &sealed).err(), Some(Unsealed::Key(run)));
        let sealed = key.seal_text("a key", "swordfish").unwrap();
        assert_ne!(sealed, key.seal_text("a key", "swordfish").unwrap());
        assert_eq!(key.open_text("a key", &sealed).unwrap(), "swordfish");
        for (key, name, sealed) in [
            (&key, "another", &*sealed),
            (&other, "a key", &*sealed),
            (&key, "a key", &sealed[2..]),
            (&key, "a key", "é"),
            (&key, "a key", ""),
        ] {
            assert_eq!(key.open_text(name, sealed).err(), Some(Unsealed::Other));
        }
        assert!(!format!("{key:?}").contains(&key.to_text()));
        assert_eq!(SealKey::parse(&key.to_text()).unwrap().fingerprint(), key.fingerprint());
        assert_eq!(SealKey::parse("zz").err(), Some(Unsealed::File));
    }
}
