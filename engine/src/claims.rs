//! The PersistentVolumeClaims of a run: which agent has the files of each, and whether they may move.
//!
//! A claim has one home at a time. It is *bound* to it while a placement uses it, and as long as files
//! that count are nowhere else. Otherwise another agent may become its home, with the files of the last
//! snapshot. Each home has its own number, so that a directory which some agent still has from before
//! is never taken for the current one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::report::WorkspaceUse;
use crate::{AttemptId, RunId};

/// The files of a claim, besides those in the directory of its home.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Files {
    /// No attempt that could write to it has ended yet: an empty directory is as good.
    #[default]
    None,
    /// A snapshot has what all attempts have written that ended.
    Saved(String),
    /// Only its home has them.
    AtHome,
}

/// One claim of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Claim {
    /// The agent that has the newest files.
    pub home: String,
    /// The run in whose directory the home keeps it; `None` for the one that [`crate::rerun::Claims`]
    /// names, or the claim's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<RunId>,
    /// Counts the homes that it has had, this one included; 0 where nobody has counted.
    pub moves: u64,
    /// Where its files are besides.
    pub files: Files,
    /// TaskRuns that use it now, by index.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) users: BTreeSet<usize>,
}

/// As it is stored; before claims could move it was the home alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Home(String),
    Claim {
        home: String,
        #[serde(default)]
        owner: Option<RunId>,
        moves: u64,
        files: Files,
        #[serde(default)]
        users: BTreeSet<usize>,
    },
}

impl From<Stored> for Claim {
    fn from(stored: Stored) -> Claim {
        match stored {
            Stored::Home(home) => {
                Claim { home, owner: None, moves: 0, files: Files::AtHome, users: BTreeSet::new() }
            }
            Stored::Claim { home, owner, moves, files, users } => {
                Claim { home, owner, moves, files, users }
            }
        }
    }
}

impl Claim {
    /// Whether no other agent than its home can be given an attempt that uses it.
    pub fn is_bound(&self) -> bool {
        !self.users.is_empty() || self.files == Files::AtHome
    }

    /// The snapshot that has its files, if one has.
    pub fn snapshot(&self) -> Option<&str> {
        match &self.files {
            Files::Saved(snapshot) => Some(snapshot),
            Files::None | Files::AtHome => None,
        }
    }
}

/// What an agent is told of a claim that an attempt uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimUse {
    /// Its name, without the namespace.
    pub name: String,
    /// The run in whose directory it is kept.
    pub owner: RunId,
    /// Which home this is: a directory with another number is not the claim's; 0 where nobody has counted.
    pub moves: u64,
    /// What the directory is to be made of, where it is not there.
    pub files: Files,
    /// The attempt may write to it.
    pub writes: bool,
}

/// The claims of a run, as `namespace/name`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct RunClaims(BTreeMap<String, Claim>);

impl RunClaims {
    /// Those of an earlier run that this one goes on with; nobody uses them.
    pub(crate) fn of_earlier(mut claims: BTreeMap<String, Claim>) -> RunClaims {
        claims.values_mut().for_each(|claim| claim.users.clear());
        RunClaims(claims)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Claim)> {
        self.0.iter().map(|(name, claim)| (name.as_str(), claim))
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<&Claim> {
        match self.0.is_empty() {
            true => None,
            false => self.0.get(&key(namespace, name)),
        }
    }

    /// Whether all of these claims are, or may be brought, to an agent.
    pub(crate) fn allow(&self, namespace: &str, names: &BTreeSet<String>, agent: &str) -> bool {
        names.iter().all(|name| {
            let claim = self.get(namespace, name);
            claim.is_none_or(|claim| claim.home == agent || !claim.is_bound())
        })
    }

    /// A placement on `agent` begins to use these claims; those that live elsewhere move there.
    pub(crate) fn take(
        &mut self,
        run: RunId,
        namespace: &str,
        names: &BTreeSet<String>,
        agent: &str,
        user: usize,
    ) {
        for name in names {
            let claim = self.0.entry(key(namespace, name)).or_insert_with(|| Claim {
                home: agent.to_owned(),
                owner: Some(run),
                moves: 1,
                files: Files::None,
                users: BTreeSet::new(),
            });
            if claim.home != agent {
                agent.clone_into(&mut claim.home);
                // Another run may go on with the same claim: from here on the two are different.
                claim.owner = Some(run);
                claim.moves += 1;
            }
            claim.users.insert(user);
        }
    }

    /// A TaskRun uses no claim any more.
    pub(crate) fn leave(&mut self, user: usize) {
        for claim in self.0.values_mut() {
            claim.users.remove(&user);
        }
    }

    /// A placement has ended that could write to these claims. `counts` says whether what it has
    /// written does: not that of one that runs again.
    pub(crate) fn ended(
        &mut self,
        namespace: &str,
        writes: &BTreeSet<String>,
        uses: &[WorkspaceUse],
        counts: bool,
    ) {
        for name in writes {
            let Some(claim) = self.0.get_mut(&key(namespace, name)) else { continue };
            let saved = uses.iter().find(|used| used.claim == *name);
            match saved.and_then(|used| used.saved.as_ref()) {
                Some(saved) => claim.files = Files::Saved(saved.snapshot.clone()),
                None if counts => claim.files = Files::AtHome,
                None => {}
            }
        }
    }
}

fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

impl crate::Engine {
    /// The PersistentVolumeClaims of this run (`namespace/name`) that an attempt was placed with.
    pub fn claims(&self, run: RunId) -> impl Iterator<Item = (&str, &Claim)> + '_ {
        self.runs.get(&run).into_iter().flat_map(|run| run.claims.iter())
    }

    /// What the agent is told of the claims of an attempt; nothing when it is not the current one.
    pub fn claim_uses(&self, attempt: &AttemptId) -> Vec<ClaimUse> {
        let (Some(run), Some(pod)) = (self.runs.get(&attempt.run), self.pod(attempt)) else {
            return Vec::new();
        };
        let used = pod.claims().into_iter();
        used.filter_map(|(name, access)| {
            let claim = run.claims.get(&pod.namespace, name)?;
            Some(ClaimUse {
                name: name.to_owned(),
                owner: claim.owner.unwrap_or_else(|| run.claims_run()),
                moves: claim.moves,
                files: claim.files.clone(),
                writes: access.writes,
            })
        })
        .collect()
    }

    /// Whether the run says of itself that its claims are saved when a task ends, or never.
    pub fn saves_claims(&self, run: RunId) -> Option<bool> {
        self.runs.get(&run)?.materials.policy.snapshots
    }
}
