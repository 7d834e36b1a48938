//! Certificates, as they are read: whose, which, and until when.

use std::fmt;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::Millis;
use crate::error::{Error, Result};
use crate::random;
use crate::token::Fingerprint;

/// The name that every node's certificate has, and no other: so a client knows a node wherever it is
/// reached, and an agent cannot pass for one.
pub(crate) const COORDINATOR: &str = "coordinator.tenon.internal";

/// Clocks may differ by so much: a certificate begins to be good so long before it is made, in
/// milliseconds.
pub(crate) const SKEW_MS: Millis = 10 * 60 * 1000;

/// The name of one node alone.
pub(crate) fn node_name(id: u64) -> String {
    format!("node-{id}.tenon.internal")
}

/// Whom a certificate is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The member with this Raft id.
    Node(u64),
    /// The agent with this name.
    Agent(String),
}

impl Subject {
    /// As the certificate has it, in its only URI.
    pub(crate) fn uri(&self) -> String {
        match self {
            Subject::Node(id) => format!("tenon://node/{id}"),
            Subject::Agent(name) => format!("tenon://agent/{name}"),
        }
    }

    fn of_uri(uri: &str) -> Option<Subject> {
        match uri.strip_prefix("tenon://")?.split_once('/')? {
            ("node", id) => Some(Subject::Node(id.parse().ok()?)),
            ("agent", name) => Some(Subject::Agent(name.to_owned())),
            _ => None,
        }
    }

    /// Faults a name that an agent cannot have where agents have certificates.
    pub fn check_agent(name: &str) -> Result<()> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        match (1..=128).contains(&name.len()) && name.bytes().all(fits) {
            true => Ok(()),
            // Whatever was said, what is answered is short.
            false => Err(Error::Name(name.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Node(id) => write!(f, "node {id}"),
            Subject::Agent(name) => write!(f, "agent {name}"),
        }
    }
}

/// What a certificate says. That it was signed by the authority is for [`crate::tls`] to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whom it is about.
    pub subject: Subject,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// When it begins to be good.
    pub since: Millis,
    /// When it ceases to be good.
    pub until: Millis,
}

impl Certificate {
    /// Out of DER.
    pub fn of_der(der: &[u8]) -> Result<Certificate> {
        let wrong = |what: &str| Error::Certificate(what.to_owned());
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| wrong("it is damaged"))?;
        let names =
            parsed.subject_alternative_name().map_err(|_| wrong("its names are damaged"))?;
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let mut uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let subject = uris.next().and_then(Subject::of_uri);
        if uris.next().is_some() {
            return Err(wrong("it has several subjects"));
        }
        let validity = parsed.validity();
        Ok(Certificate {
            subject: subject.ok_or_else(|| wrong("it is neither a node's nor an agent's"))?,
            serial: random::hex(parsed.raw_serial()),
            since: validity.not_before.timestamp().saturating_mul(1000),
            until: validity.not_after.timestamp().saturating_mul(1000),
        })
    }

    /// Out of PEM.
    pub fn of_pem(pem: &str) -> Result<Certificate> {
        Certificate::of_der(&der(pem)?)
    }

    /// The fingerprint of any certificate in PEM.
    pub fn fingerprint_of(pem: &str) -> Result<Fingerprint> {
        Ok(Fingerprint::of(&der(pem)?))
    }

    /// When to ask for the next one: after two thirds of its life.
    pub fn renew_at(&self) -> Millis {
        let made = self.since + SKEW_MS;
        made + (self.until - made) / 3 * 2
    }
}

/// PEM as DER.
pub(crate) fn der(pem: &str) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| Error::Certificate("it is no PEM text of a certificate".to_owned()))
}
