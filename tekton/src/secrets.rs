//! The values of a `kind: Secret`, as Kubernetes would store them.
//!
//! `data` is base64, `stringData` plain and stronger. Errors name the key, never a value.

use std::collections::BTreeMap;

use crate::k8s::Secret;

/// A key of `data` is not base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSecret {
    /// The Secret's name.
    pub secret: String,
    /// The key.
    pub key: String,
    /// Offset of the byte that does not belong there.
    pub at: usize,
}

impl std::fmt::Display for BadSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Secret \"{}\": data.{}: illegal base64 data at input byte {}; plain text belongs into stringData",
            self.secret, self.key, self.at
        )
    }
}

impl std::error::Error for BadSecret {}

/// Key to value, `stringData` over `data`.
pub fn values(secret: &Secret) -> Result<BTreeMap<String, Vec<u8>>, BadSecret> {
    let mut values = BTreeMap::new();
    for (key, text) in &secret.data {
        let value = decode_base64(text).map_err(|at| BadSecret {
            secret: secret.metadata.name.clone(),
            key: key.clone(),
            at,
        })?;
        values.insert(key.clone(), value);
    }
    for (key, text) in &secret.string_data {
        values.insert(key.clone(), text.clone().into_bytes());
    }
    Ok(values)
}

/// Standard base64 with padding; line breaks are skipped, as Go does. The error is the offset.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, usize> {
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3);
    let mut quantum = 0u32;
    let mut digits = 0;
    let mut padding = 0;
    for (at, byte) in text.bytes().enumerate() {
        let value = match byte {
            b'\r' | b'\n' => continue,
            b'=' if digits >= 2 && digits + padding < 4 => {
                padding += 1;
                continue;
            }
            _ if padding > 0 => return Err(at),
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(at),
        };
        quantum = quantum << 6 | u32::from(value);
        digits += 1;
        if digits == 4 {
            decoded.extend_from_slice(&quantum.to_be_bytes()[1..]);
            quantum = 0;
            digits = 0;
        }
    }
    match (digits, padding) {
        (0, 0) => {}
        (2, 2) => decoded.push((quantum >> 4) as u8),
        (3, 1) => decoded.extend_from_slice(&((quantum >> 2) as u16).to_be_bytes()),
        _ => return Err(text.len()),
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_data_wins() {
        let secret = Secret {
            data: [("a".to_owned(), "b2xk".to_owned()), ("b".to_owned(), "eA==\n".to_owned())]
                .into(),
            string_data: [("a".to_owned(), "new".to_owned())].into(),
            ..Secret::default()
        };
        let values = values(&secret).unwrap();
        assert_eq!(values["a"], b"new");
        assert_eq!(values["b"], b"x");
    }

    #[test]
    fn base64_as_go_reads_it() {
        for (text, expected) in [
            ("", Ok(&b""[..])),
            ("Zg==", Ok(b"f")),
            ("Zm8=", Ok(b"fo")),
            ("Zm9v", Ok(b"foo")),
            ("Zm\n9v\r\n", Ok(b"foo")),
            ("Zg=", Err(3)),
            ("Zg", Err(2)),
            ("Z", Err(1)),
            ("Zm9v!", Err(4)),
            ("Zg==Zg==", Err(4)),
            ("====", Err(0)),
        ] {
            assert_eq!(decode_base64(text).as_deref(), expected.as_ref().copied(), "{text:?}");
        }
    }
}
