//! Where PersistentVolumeClaims live on this machine: below the run that owns them.
//!
//! `<runs>/<run>/claims/<name>`, made on demand. A run that continues another one (a rerun from the
//! failed tasks) finds the other one's claims there, because ending that run has left them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tenon_proto::agent::v1::TaskInvocation;

use super::build::BuildError;
use super::volumes::safe_name;

/// The claims that an attempt may use.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    runs: PathBuf,
    run: String,
    elsewhere: HashMap<String, String>,
    of_others: HashMap<String, String>,
}

impl Claims {
    /// Those of an attempt, where `runs` has a directory for each run.
    pub fn new(runs: &Path, task: &TaskInvocation) -> Claims {
        Claims {
            runs: runs.to_owned(),
            run: task.attempt.as_ref().map(|attempt| attempt.run_id.clone()).unwrap_or_default(),
            elsewhere: task.claims.clone(),
            of_others: task.claims_of.clone(),
        }
    }

    /// Whether a claim is a directory that the user named.
    pub(super) fn is_elsewhere(&self, name: &str) -> bool {
        self.elsewhere.contains_key(name)
    }

    /// The directory of a claim, which may not be there yet.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf, BuildError> {
        if let Some(path) = self.elsewhere.get(name) {
            return Ok(PathBuf::from(path));
        }
        place(&self.runs, self.of_others.get(name).unwrap_or(&self.run), name)
    }
}

/// The directory of a claim that a run owns, where `runs` has a directory for each run.
pub(crate) fn place(runs: &Path, run: &str, name: &str) -> Result<PathBuf, BuildError> {
    Ok(of_run(&runs.join(safe_name(run)?)).join(safe_name(name)?))
}

/// The directory of a run's claims, in the run's own.
pub(crate) fn of_run(run_dir: &Path) -> PathBuf {
    run_dir.join("claims")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_proto::agent::v1::AttemptId;

    #[test]
    fn each_claim_has_its_place_and_none_is_outside() {
        let attempt = AttemptId { run_id: "new".into(), ..AttemptId::default() };
        let task = TaskInvocation {
            attempt: Some(attempt),
            claims: [("far".to_owned(), "/srv/far".to_owned())].into(),
            claims_of: [("kept".to_owned(), "old".to_owned()), ("bad".to_owned(), "..".to_owned())]
                .into(),
            ..TaskInvocation::default()
        };
        let claims = Claims::new(Path::new("/data/runs"), &task);
        for (name, place) in [
            ("own", "/data/runs/new/claims/own"),
            ("kept", "/data/runs/old/claims/kept"),
            ("far", "/srv/far"),
        ] {
            assert_eq!(claims.directory(name).unwrap(), Path::new(place));
        }
        for name in ["bad", "..", "a/b", ""] {
            assert!(claims.directory(name).is_err(), "{name}");
        }
    }
}
