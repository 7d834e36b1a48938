//! A node's or an agent's own certificate, with its key and the authority's certificate.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::certificate::{Certificate, der};
use crate::error::{Error, Result};

/// What its holder proves itself with. Shows nothing of the key.
#[derive(Clone)]
pub struct Identity {
    pub(crate) authority_pem: String,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
    certificate: Certificate,
    authority: CertificateDer<'static>,
    key: Arc<CertifiedKey>,
}

impl Identity {
    /// Of the authority's certificate, one's own, and its key, all PEM; key and certificate must fit.
    pub fn new(authority: &str, certificate: &str, key: &str) -> Result<Identity> {
        let authority_der = der(authority)?;
        // With the authority in the chain, whoever knows only its fingerprint can check the rest.
        let chain = vec![der(certificate)?, authority_der.clone()];
        let private = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|_| Error::Key("it is no PEM text of a key".to_owned()))?;
        let key_of = CertifiedKey::from_der(chain, private, &ring::default_provider())
            .map_err(|error| Error::Key(error.to_string()))?;
        Ok(Identity {
            authority_pem: authority.to_owned(),
            certificate_pem: certificate.to_owned(),
            key_pem: key.to_owned(),
            certificate: Certificate::of_pem(certificate)?,
            authority: authority_der,
            key: Arc::new(key_of),
        })
    }

    /// The certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The authority's certificate, PEM.
    pub fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    pub(crate) fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    pub(crate) fn key(&self) -> Arc<CertifiedKey> {
        self.key.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, serial {})", self.certificate.subject, self.certificate.serial)
    }
}

/// An identity that is renewed while it is used: connections begun later have the newer one.
#[derive(Clone, Debug)]
pub struct SharedIdentity(Arc<RwLock<Arc<Identity>>>);

impl SharedIdentity {
    /// Begins with this one.
    pub fn new(identity: Identity) -> SharedIdentity {
        SharedIdentity(Arc::new(RwLock::new(Arc::new(identity))))
    }

    /// The newest one.
    pub fn current(&self) -> Arc<Identity> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on this one.
    pub fn replace(&self, identity: Identity) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity);
    }
}
