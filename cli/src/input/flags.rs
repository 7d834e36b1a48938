//! `--feature-flag NAME=VALUE`: Tekton's flags and defaults, by Tekton's names.

use tenon_coordinator::intake::{Front, flags};
use tenon_tekton::flags::FeatureFlags;

use crate::exit::{Exit, Failure};

/// Tekton's defaults with these changes.
pub fn parse(changes: &[String]) -> Result<FeatureFlags, Failure> {
    let mut pairs = Vec::new();
    for change in changes {
        pairs.push(change.split_once('=').ok_or_else(|| {
            Failure::new(Exit::Usage, format!("--feature-flag: {change:?} is not NAME=VALUE"))
        })?);
    }
    Ok(flags::parse(Front::CommandLine, pairs)?)
}
