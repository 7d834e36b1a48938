//! What another process of the agent needs to know of the claims of attempts: which they are, and how an attempt ended
//! whose claims were being saved. In `workspaces/` of the agent's directory, two files for each attempt.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use prost::Message;
use tenon_proto::agent::v1::ended::Outcome;
use tenon_proto::agent::v1::{AttemptId, ClaimUse, Ended, TaskInvocation};

use super::marker::write_durably;
use crate::pod::{attempt_key, make_dir};

const USES: &str = "uses";
const OUTCOME: &str = "outcome";

pub(super) struct Notes {
    dir: PathBuf,
}

impl Notes {
    pub fn new(data_dir: &Path) -> Notes {
        Notes { dir: data_dir.join("workspaces") }
    }

    fn file(&self, attempt: &AttemptId, what: &str) -> PathBuf {
        // The name of a TaskRun may have dots.
        self.dir.join(format!("{}.{what}", attempt_key(attempt)))
    }

    /// An attempt begins with these claims.
    pub fn begin(&self, attempt: &AttemptId, uses: &[ClaimUse]) -> io::Result<()> {
        make_dir(&self.dir, 0o700)?;
        let note = TaskInvocation { claim_uses: uses.to_vec(), ..TaskInvocation::default() };
        write_durably(&self.file(attempt, USES), &note.encode_to_vec())
    }

    /// It has ended so, and its claims are being saved.
    pub fn end(&self, attempt: &AttemptId, outcome: &Outcome) -> io::Result<()> {
        let note = Ended { outcome: Some(outcome.clone()), ..Ended::default() };
        write_durably(&self.file(attempt, OUTCOME), &note.encode_to_vec())
    }

    /// What was noted of an attempt.
    pub fn of(&self, attempt: &AttemptId) -> (Vec<ClaimUse>, Option<Outcome>) {
        let read = |what| fs::read(self.file(attempt, what)).unwrap_or_default();
        let uses = TaskInvocation::decode(&read(USES)[..]).unwrap_or_default().claim_uses;
        (uses, Ended::decode(&read(OUTCOME)[..]).unwrap_or_default().outcome)
    }

    pub fn forget(&self, attempt: &AttemptId) {
        for what in [OUTCOME, USES] {
            let _ = fs::remove_file(self.file(attempt, what));
        }
    }

    /// Forgets all other attempts.
    pub fn keep_only(&self, attempts: &[AttemptId]) {
        let kept: Vec<String> = attempts.iter().map(attempt_key).collect();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let key = name.rsplit_once('.').map_or(name.as_str(), |(key, _)| key);
            if !kept.iter().any(|it| it == key) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
