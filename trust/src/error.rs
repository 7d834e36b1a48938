//! What can be wrong with certificates and tokens.

use std::path::PathBuf;

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be made, read or trusted. Never holds anything that is secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is no token.
    #[error("this is no {0}: it is cut off, or something else was pasted")]
    Token(&'static str),
    /// A certificate that this crate has not made, or a damaged one.
    #[error("a certificate cannot be read: {0}")]
    Certificate(String),
    /// A request for a certificate that makes no sense.
    #[error("a request for a certificate cannot be read: {0}")]
    Request(String),
    /// A private key that does not fit.
    #[error("a private key cannot be used: {0}")]
    Key(String),
    /// An agent's name that no certificate takes.
    #[error(
        "{0:?} cannot be an agent's name: it may have 1 to 128 letters, digits, dots, dashes and \
         underscores"
    )]
    Name(String),
    /// The operating system gave no random bits.
    #[error("the system gives no random bits")]
    Random,
    /// A file of an identity could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl Error {
    /// A stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Token(_) => "invalid/token",
            Error::Certificate(_) => "invalid/certificate",
            Error::Request(_) => "invalid/certificate-request",
            Error::Key(_) => "invalid/private-key",
            Error::Name(_) => "invalid/agent-name",
            Error::Random => "internal/random",
            Error::Io { .. } => "state/io",
        }
    }
}
