//! The certificate authority of a cluster: makes itself, and certificates for nodes and agents.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use crate::certificate::{COORDINATOR, Certificate, SKEW_MS, Subject, node_name};
use crate::error::{Error, Result};
use crate::token::Fingerprint;
use crate::{Millis, random};

/// How long the authority itself is good, in days.
const AUTHORITY_DAYS: i64 = 3650;

/// An authority that can sign.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A private key, and the request for a certificate of it.
pub struct Request {
    /// The key, PEM. Never leaves the machine that made it.
    pub key: String,
    /// What the authority is sent, PEM.
    pub request: String,
}

impl Request {
    /// A new key. What the certificate says is the authority's to decide.
    pub fn new() -> Result<Request> {
        let key = KeyPair::generate().map_err(key_error)?;
        let request = CertificateParams::default().serialize_request(&key).map_err(key_error)?;
        let request = request.pem().map_err(key_error)?;
        Ok(Request { key: key.serialize_pem(), request })
    }
}

impl Authority {
    /// An authority that was never there before. Its key comes beside it as PEM, for sealing.
    pub fn random(now: Millis) -> Result<(Authority, String)> {
        let key = KeyPair::generate().map_err(key_error)?;
        let pem = key.serialize_pem();
        let mut params = params(now, now + AUTHORITY_DAYS * 24 * 3_600_000)?;
        params.distinguished_name = name("Tenon cluster authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(key_error)?.pem();
        Ok((Authority { certificate, issuer: Issuer::new(params, key) }, pem))
    }

    /// The authority with this certificate and key, both PEM.
    pub fn open(certificate: &str, key: &str) -> Result<Authority> {
        let key = KeyPair::from_pem(key).map_err(key_error)?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key)
            .map_err(|error| Error::Certificate(error.to_string()))?;
        Ok(Authority { certificate: certificate.to_owned(), issuer })
    }

    /// Its certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Names it.
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        Certificate::fingerprint_of(&self.certificate)
    }

    /// A certificate (PEM) for whoever made the request, good from now until `until`. What the
    /// request says of its subject is ignored. `hosts` are names and addresses of a node, for
    /// clients that look at them.
    pub fn issue(
        &self,
        request: &str,
        subject: &Subject,
        hosts: &[String],
        now: Millis,
        until: Millis,
    ) -> Result<String> {
        if let Subject::Agent(name) = subject {
            Subject::check_agent(name)?;
        }
        let wrong = |error: rcgen::Error| Error::Request(error.to_string());
        let request = CertificateSigningRequestParams::from_pem(request).map_err(wrong)?;
        let mut params = params(now, until)?;
        let text = |text: &str| text.try_into().map_err(|_| Error::Request(text.to_owned()));
        let mut names = vec![SanType::URI(text(&subject.uri())?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if let Subject::Node(id) = subject {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            names.push(SanType::DnsName(text(COORDINATOR)?));
            names.push(SanType::DnsName(text(&node_name(*id))?));
            for host in hosts {
                names.push(match host.parse::<IpAddr>() {
                    Ok(address) => SanType::IpAddress(address),
                    Err(_) => SanType::DnsName(text(host)?),
                });
            }
        }
        params.distinguished_name = name(&subject.to_string());
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&request.public_key, &self.issuer).map_err(wrong)?;
        Ok(certificate.pem())
    }
}

fn params(now: Millis, until: Millis) -> Result<CertificateParams> {
    let at = |ms: Millis| {
        let at = OffsetDateTime::UNIX_EPOCH.checked_add(Duration::milliseconds(ms));
        at.ok_or_else(|| Error::Request(format!("{ms} is no time")))
    };
    let mut serial = random::bytes::<16>()?;
    // A serial number is positive.
    serial[0] &= 0x7f;
    serial[0] |= 0x40;
    let mut params = CertificateParams::default();
    params.not_before = at(now - SKEW_MS)?;
    params.not_after = at(until)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

#[expect(clippy::needless_pass_by_value, reason = "this is what map_err hands over")]
fn key_error(error: rcgen::Error) -> Error {
    Error::Key(error.to_string())
}
