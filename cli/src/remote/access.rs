//! What this process shows clusters: set once, at the start, because every command may ask one.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use tenon_client::Access;

use crate::exit::{Exit, Failure};

static ACCESS: OnceLock<Access> = OnceLock::new();

/// Takes what `--token` and `--ca` say.
pub fn show_to_clusters(token: Option<&str>, ca: Option<&Path>) -> Result<(), Failure> {
    let token = token.filter(|token| !token.trim().is_empty());
    let authority = match ca {
        Some(path) => Some(fs::read_to_string(path).map_err(|error| {
            Failure::new(Exit::Usage, format!("cannot read {}: {error}", path.display()))
        })?),
        None => None,
    };
    let access = Access::of_user(token, authority.as_deref())?;
    // The process has one start.
    let _ = ACCESS.set(access);
    Ok(())
}

/// What clusters are shown.
pub fn access() -> Access {
    ACCESS.get().cloned().unwrap_or_default()
}
