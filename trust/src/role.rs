//! What a user may do, and where.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A user's role; each may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks at runs, events and the cluster.
    Viewer,
    /// Starts, cancels and repeats runs.
    Submitter,
    /// Moves leadership, drains and removes agents.
    Operator,
    /// Members, tokens, certificates, backups.
    Admin,
}

impl Role {
    /// All of them, the weakest first.
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Submitter, Role::Operator, Role::Admin];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Submitter => "submitter",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no role.
#[derive(Debug, thiserror::Error)]
#[error("there is no role {0:?}: there are viewer, submitter, operator and admin")]
pub struct NoSuchRole(String);

impl FromStr for Role {
    type Err = NoSuchRole;

    fn from_str(text: &str) -> Result<Role, NoSuchRole> {
        Role::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| NoSuchRole(text.to_owned()))
    }
}

/// What somebody may do: a role, in some namespaces or in all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The role.
    pub role: Role,
    /// Where; everywhere if empty.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub namespaces: BTreeSet<String>,
}

impl Grant {
    /// A role in all namespaces.
    pub fn everywhere(role: Role) -> Grant {
        Grant { role, namespaces: BTreeSet::new() }
    }

    /// Whether it is good in this namespace.
    pub fn covers(&self, namespace: &str) -> bool {
        self.is_everywhere() || self.namespaces.contains(namespace)
    }

    /// Whether it is good in all namespaces, those to come too.
    pub fn is_everywhere(&self) -> bool {
        self.namespaces.is_empty()
    }
}
