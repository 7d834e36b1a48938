//! Addresses of nodes, and connections to them.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tenon_trust::tls::Expect;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::access::Access;
use crate::error::{Error, Result};

/// How long a node may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// How often a connection is tried on which nothing moves, and how long the answer may take: so a
/// node that hangs is noticed within about three seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(2);
/// How often the kernel tries a connection that is watched in another way.
const KERNEL_KEEP_ALIVE: Duration = Duration::from_secs(60);
/// What a node may send ahead on one stream, and on one connection.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Largest message that is taken from a node.
pub const MAX_MESSAGE: usize = 64 << 20;

/// The URLs that people wrote, as they are used: `host:port` means `http://host:port`.
pub fn urls<T: AsRef<str>>(texts: &[T]) -> Result<Vec<String>> {
    let mut urls = Vec::new();
    for text in texts.iter().flat_map(|text| text.as_ref().split(',')) {
        let text = text.trim();
        if !text.is_empty() {
            let url = url(text)?;
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
    }
    match urls.is_empty() {
        true => Err(Error::NoServer),
        false => Ok(urls),
    }
}

fn url(text: &str) -> Result<String> {
    let refuse = |reason: &'static str| Error::Server { url: text.to_owned(), reason };
    let full = match text.contains("://") {
        true => text.to_owned(),
        false => format!("http://{text}"),
    };
    let uri: Uri = full.parse().map_err(|_| refuse("this is no URL"))?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        _ => return Err(refuse("only https:// and http:// are supported")),
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(refuse("it names no host"));
    }
    if uri.port_u16().is_none_or(|port| port == 0) {
        return Err(refuse("it names no port; for example http://host:7070"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(refuse("it may have no path"));
    }
    Ok(full.trim_end_matches('/').to_owned())
}

/// Connects to a node, whichever it is. A node that hangs is noticed.
pub async fn connect(url: &str, access: &Access) -> Result<Channel> {
    let tune = |endpoint: Endpoint| {
        usual(endpoint)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_ANSWER)
            .keep_alive_while_idle(true)
    };
    access.dial(url, Expect::AnyNode, tune).await
}

/// Likewise, for a session whose own signs of life show whether the node hangs: for ten thousand sessions, the
/// connections' would cost the node ten times what the sessions' do.
pub async fn connect_for_session(url: &str, access: &Access) -> Result<Channel> {
    let tune = |endpoint: Endpoint| usual(endpoint).tcp_keepalive(Some(KERNEL_KEEP_ALIVE));
    access.dial(url, Expect::AnyNode, tune).await
}

fn usual(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

/// Bits that no two clients share: for jitter and for keys, not for secrets.
pub fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_as_people_write_them() {
        let urls = urls(&["a:1,http://b:2/", " [::1]:3 ", "a:1", "", "https://c:4"]).unwrap();
        assert_eq!(urls, ["http://a:1", "http://b:2", "http://[::1]:3", "https://c:4"]);
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        for (text, reason) in [
            ("ftp://a:1", "only https"),
            ("http://a", "no port"),
            ("a", "no port"),
            ("http://a:1/api", "no path"),
            ("http://:1", ""),
            ("a b:1", "no URL"),
            ("a:99999999", ""),
        ] {
            let error = urls(&[text]).expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(matches!(urls(&[] as &[&str]), Err(Error::NoServer)));
        assert!(matches!(urls(&[" , "]), Err(Error::NoServer)));
    }

    #[test]
    fn random_bits_differ() {
        assert_ne!(random(), random());
    }
}
