//! Tokens: what a person or a machine shows once (join) or with every request (API).
//!
//! The text is `tnj_ID_SECRET_FINGERPRINT` (join) or `tna_ID_SECRET_FINGERPRINT` (API), in lower-case
//! hexadecimal digits. The fingerprint is that of the authority's certificate: whoever has a token
//! can tell the real cluster from another before saying the secret. The cluster stores the
//! id and a hash of the secret, so that what is stored lets nobody in. Secrets have 160 random bits: a
//! plain SHA-256 of them cannot be searched.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::random;

/// SHA-256 of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate in DER.
    pub fn of(der: &[u8]) -> Fingerprint {
        Fingerprint(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&random::hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To get a certificate, once.
    Join,
    /// To ask the API.
    Api,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Kind::Join => "tnj",
            Kind::Api => "tna",
        }
    }

    /// For messages.
    pub fn noun(self) -> &'static str {
        match self {
            Kind::Join => "join token",
            Kind::Api => "API token",
        }
    }
}

/// The part of a token that must not be known; shows nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 20]);

impl Secret {
    /// What is stored of it: SHA-256, hexadecimal.
    pub fn hash(&self) -> String {
        random::hex(&Sha256::digest(self.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A token as whoever holds it has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What it is for.
    pub kind: Kind,
    /// Names it; no secret.
    pub id: String,
    /// Proves that its holder has it.
    pub secret: Secret,
    /// The authority of the cluster that made it.
    pub authority: Fingerprint,
}

impl Token {
    /// A token that was never made before.
    pub fn random(kind: Kind, authority: Fingerprint) -> Result<Token> {
        let id = random::hex(&random::bytes::<6>()?);
        Ok(Token { kind, id, secret: Secret(random::bytes()?), authority })
    }

    /// A token of this kind out of its text; spaces around it do not matter.
    pub fn parse(kind: Kind, text: &str) -> Result<Token> {
        let wrong = || Error::Token(kind.noun());
        let token: Token = text.trim().parse().map_err(|_| wrong())?;
        if token.kind == kind { Ok(token) } else { Err(wrong()) }
    }

    /// The whole text, which is to be shown once and never stored by the cluster.
    pub fn reveal(&self) -> String {
        let (prefix, secret) = (self.kind.prefix(), random::hex(&self.secret.0));
        format!("{prefix}_{}_{secret}_{}", self.id, self.authority)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_…", self.kind.prefix(), self.id)
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Token> {
        let wrong = || Error::Token("token");
        let mut parts = text.split('_');
        let kind = match parts.next() {
            Some("tnj") => Kind::Join,
            Some("tna") => Kind::Api,
            _ => return Err(wrong()),
        };
        let id = parts.next().filter(|id| random::unhex::<6>(id).is_some()).ok_or_else(wrong)?;
        let secret = parts.next().and_then(random::unhex).ok_or_else(wrong)?;
        let authority = parts.next().and_then(random::unhex).ok_or_else(wrong)?;
        if parts.next().is_some() {
            return Err(wrong());
        }
        let id = id.to_owned();
        Ok(Token { kind, id, secret: Secret(secret), authority: Fingerprint(authority) })
    }
}

/// A stored hash of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretHash(String);

impl SecretHash {
    /// Of a secret.
    pub fn of(secret: &Secret) -> SecretHash {
        SecretHash(secret.hash())
    }

    /// Whether this is the hash `other`. Takes the same time wherever they differ.
    pub fn is(&self, other: &str) -> bool {
        let (mine, theirs) = (self.0.as_bytes(), other.as_bytes());
        mine.len() == theirs.len()
            && mine.iter().zip(theirs).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_shows_nothing_else() {
        let token = Token::random(Kind::Join, Fingerprint::of(b"ca")).unwrap();
        let text = token.reveal();
        assert!(Token::parse(Kind::Join, &format!(" {text}\n")).unwrap() == token);
        let secret = text.split('_').nth(2).unwrap();
        assert!(!format!("{token:?} {:?}", token.secret).contains(&secret[..4]));
        assert!(SecretHash::of(&token.secret).is(&token.secret.hash()));
        let other = Token::random(Kind::Join, Fingerprint::of(b"ca")).unwrap();
        assert!(!SecretHash::of(&token.secret).is(&other.secret.hash()));
        assert_ne!(token.id, other.id);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let text = Token::random(Kind::Api, Fingerprint::of(b"ca")).unwrap().reveal();
        let upper = text.to_uppercase();
        let longer = format!("{text}0");
        let more = format!("{text}_0");
        let cut = &text[..text.len() - 1];
        for wrong in ["", "tna", "tna___", cut, &longer, &more, &upper, "tna_é_é_é"] {
            let error = Token::parse(Kind::Api, wrong).expect_err(wrong);
            assert_eq!(error.code(), "invalid/token");
            assert!(!error.to_string().contains(&text[20..40]));
        }
        assert!(Token::parse(Kind::Join, &text).is_err());
    }
}
