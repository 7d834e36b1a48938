//! Who may speak to a cluster, and who may do what in it: a certificate authority, certificates,
//! tokens, roles, and the replicated record of them.
//!
//! Pure but for randomness, and for the files in which a node or an agent keeps its certificate
//! ([`files`]). It knows no network: [`tls`] makes configurations for whoever has one. Nothing that is
//! secret is in what is replicated: of tokens there are hashes, and the authority's key is sealed by
//! whoever puts it there.

mod authority;
mod certificate;
mod error;
pub mod files;
mod identity;
mod methods;
mod random;
mod role;
mod state;
pub mod tls;
mod token;

pub use authority::{Authority, Request};
pub use certificate::{Certificate, Subject};
pub use error::{Error, Result};
pub use identity::{Identity, SharedIdentity};
pub use methods::{METHODS, Method, Reach, Right, method};
pub use role::{Grant, NoSuchRole, Role};
pub use state::{
    AgentRecord, ApiToken, AuthorityRecord, Change, Done, JoinToken, Refusal, Trust, Used,
};
pub use token::{Fingerprint, Kind, Secret, SecretHash, Token};

/// Milliseconds since the Unix epoch.
pub type Millis = i64;
