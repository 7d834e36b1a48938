//! Configurations of TLS, on rustls with ring: who has to prove what to whom.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};

use crate::certificate::{COORDINATOR, der, node_name};
use crate::error::{Error, Result};
use crate::identity::{Identity, SharedIdentity};
use crate::token::Fingerprint;

/// Whom a client trusts.
#[derive(Clone, Debug)]
pub enum Anchor {
    /// The authority with this certificate.
    Authority(CertificateDer<'static>),
    /// The authority with this fingerprint; nodes send its certificate along.
    Pinned(Fingerprint),
}

impl Anchor {
    /// The authority whose certificate (PEM) this is.
    pub fn pem(pem: &str) -> Result<Anchor> {
        Ok(Anchor::Authority(der(pem)?))
    }
}

/// Whom a client wants at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Any node of the cluster.
    AnyNode,
    /// This one.
    Node(u64),
}

/// For a client of a node. With an identity it proves who it is.
pub fn client(anchor: Anchor, identity: Option<&Identity>, expect: Expect) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier {
        anchor,
        expect,
        algorithms: provider.signature_verification_algorithms,
        provider: provider.clone(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some(identity) => {
            let key = Arc::new(SingleCertAndKey::from(identity.key()));
            builder.with_client_cert_resolver(key)
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// For a node: it shows its newest certificate, and asks for one that its own authority has signed. A
/// client without one is let in too, as nobody in particular; one with a wrong one is not.
pub fn server(identity: &SharedIdentity) -> Result<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(identity.current().authority().clone()).map_err(unusable)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(unusable)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Newest(identity.clone())));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would bring the certificate of its beginning along.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[derive(Debug)]
struct Newest(SharedIdentity);

impl ResolvesServerCert for Newest {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().key())
    }
}

/// Checks that a server is a node of the cluster, by its name in the certificate, wherever it is
/// reached. A server that is no node by name may still be what the URL says, under an authority whose
/// certificate the user has given: a proxy of theirs.
#[derive(Debug)]
struct Verifier {
    anchor: Anchor,
    expect: Expect,
    algorithms: WebPkiSupportedAlgorithms,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let root = match &self.anchor {
            Anchor::Authority(root) => root.clone(),
            Anchor::Pinned(pin) => {
                let pinned = intermediates.iter().find(|it| Fingerprint::of(it) == *pin);
                pinned.ok_or_else(unknown)?.clone().into_owned()
            }
        };
        let mut roots = RootCertStore::empty();
        roots.add(root)?;
        let webpki =
            WebPkiServerVerifier::builder_with_provider(roots.into(), self.provider.clone())
                .build()
                .map_err(|_| unknown())?;
        let name = match self.expect {
            Expect::AnyNode => COORDINATOR.to_owned(),
            Expect::Node(id) => node_name(id),
        };
        let name = ServerName::try_from(name).map_err(|_| unknown())?;
        let check = |name: &ServerName<'_>| {
            webpki.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
        };
        let checked = check(&name);
        match (&self.anchor, self.expect) {
            (Anchor::Authority(_), Expect::AnyNode) => checked.or_else(|_| check(server_name)),
            _ => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn unusable(error: impl std::fmt::Display) -> Error {
    Error::Certificate(error.to_string())
}
