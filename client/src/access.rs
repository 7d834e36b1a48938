//! What a client shows a cluster, and how it knows the cluster: a token, a certificate, an authority.
//!
//! A token carries the fingerprint of the authority, so whoever has one needs nothing else: only a
//! node whose certificate that authority has signed is told the secret.

use std::fmt;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tenon_trust::tls::{self, Anchor, Expect};
use tenon_trust::{Kind, SharedIdentity, Token};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::error::{Error, Result};

/// What a client has to show; shows nothing of it itself. Empty by default: for clusters in which
/// nobody has to say who they are.
#[derive(Clone, Default)]
pub struct Access {
    token: Option<Arc<MetadataValue<Ascii>>>,
    anchor: Option<Anchor>,
    identity: Option<SharedIdentity>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("token", &self.token.is_some())
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Access {
    /// A machine's, by its certificate.
    pub fn of_machine(identity: SharedIdentity) -> Access {
        let anchor = Anchor::pem(identity.current().authority_pem()).ok();
        Access { anchor, identity: Some(identity), token: None }
    }

    /// A user's: with a token, and perhaps the authority's certificate (PEM).
    pub fn of_user(token: Option<&str>, authority: Option<&str>) -> Result<Access> {
        let mut access = Access::default();
        if let Some(text) = token {
            let wrong = Error::Access("this is no API token: it is cut off, or of another kind");
            let Ok(token) = Token::parse(Kind::Api, text) else { return Err(wrong) };
            let value = format!("Bearer {}", token.reveal()).parse();
            let Ok::<MetadataValue<Ascii>, _>(mut value) = value else { return Err(wrong) };
            value.set_sensitive(true);
            access.token = Some(Arc::new(value));
            access.anchor = Some(Anchor::Pinned(token.authority));
        }
        match authority {
            Some(pem) => access.trusting(pem),
            None => Ok(access),
        }
    }

    /// Of a machine that has only a join token: it knows the cluster, and is nobody yet.
    pub fn of_newcomer(token: &Token) -> Access {
        Access { anchor: Some(Anchor::Pinned(token.authority)), ..Access::default() }
    }

    /// Likewise, but the cluster is the one with this authority (PEM).
    pub fn trusting(mut self, authority: &str) -> Result<Access> {
        let anchor = Anchor::pem(authority);
        self.anchor = Some(anchor.map_err(|_| Error::Access("that is no certificate in PEM"))?);
        Ok(self)
    }

    /// The header that shows the token.
    pub fn header(&self) -> Option<&MetadataValue<Ascii>> {
        self.token.as_deref()
    }

    /// A request that shows the token.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(header) = self.header() {
            request.metadata_mut().insert("authorization", header.clone());
        }
        request
    }

    /// Connects, with TLS where the URL says https; a secret is never sent without.
    pub async fn dial(
        &self,
        url: &str,
        expect: Expect,
        tune: impl FnOnce(Endpoint) -> Endpoint,
    ) -> Result<Channel> {
        let refuse = |reason| Error::Server { url: url.to_owned(), reason };
        let no_url = |_| refuse("this is no URL");
        let uri: Uri = url.parse().map_err(|_| refuse("this is no URL"))?;
        if uri.scheme_str() != Some("https") {
            if self.token.is_some() || self.identity.is_some() {
                return Err(refuse(
                    "a token or certificate is for https:// only: without TLS anybody could read it",
                ));
            }
            let endpoint = tune(Endpoint::from_shared(url.to_owned()).map_err(no_url)?);
            return endpoint.connect().await.map_err(|error| Error::unreachable(url, &error));
        }
        let anchor = self.anchor.clone().ok_or_else(|| {
            refuse("to know the cluster it takes a token (TENON_TOKEN) or its authority (--ca)")
        })?;
        let identity = self.identity.as_ref().map(SharedIdentity::current);
        let config = tls::client(anchor, identity.as_deref(), expect)
            .map_err(|_| Error::Access("the authority's certificate is of no use"))?;
        let connector = TlsConnector::from(Arc::new(config));
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(443);
        let name = ServerName::try_from(host.clone()).map_err(|_| refuse("it names no host"))?;
        let connect = tower::service_fn(move |_: Uri| {
            let (connector, host, name) = (connector.clone(), host.clone(), name.clone());
            async move {
                let stream = TcpStream::connect((host.as_str(), port)).await?;
                stream.set_nodelay(true)?;
                let stream = connector.connect(name, stream).await?;
                std::io::Result::Ok(TokioIo::new(stream))
            }
        });
        // The connection is made here: tonic is to see none that needs TLS.
        let plain = url.replacen("https://", "http://", 1);
        let endpoint = tune(Endpoint::from_shared(plain).map_err(no_url)?).origin(uri);
        let connected = endpoint.connect_with_connector(connect).await;
        connected.map_err(|error| Error::unreachable(url, &error))
    }
}
