//! From documents to what the engine runs: decoding, checking, choosing, and applying what the
//! request says over what the documents say.
//!
//! `tenon run` and the control API use the same code. Nothing here reads files that it was not given
//! as text, the clock, or random numbers: they come with the [`Request`].

mod choose;
mod complete;
mod documents;
mod error;
pub mod flags;
mod front;
mod params;
mod suggest;
mod unused;
mod workspaces;

use tenon_engine::{RunId, Submission, Time};
use tenon_tekton::flags::FeatureFlags;
use tenon_tekton::load::{Diagnostic, Source};

use crate::materials::Materials;

pub use documents::{Input, check};
pub use error::{Error, Result};
pub use front::Front;
pub use suggest::did_you_mean;

/// What somebody wants to run.
#[derive(Clone, Debug)]
pub struct Request {
    /// The documents.
    pub sources: Vec<Source>,
    /// Run this Pipeline of the documents.
    pub pipeline: Option<String>,
    /// Run this Task of the documents.
    pub task: Option<String>,
    /// Only this one of the run objects, counted from 0.
    pub run: Option<usize>,
    /// Name and text of each param; a name that comes several times makes an array.
    pub params: Vec<(String, String)>,
    /// Name and source of each workspace.
    pub workspaces: Vec<(String, String)>,
    /// Namespace of objects that name none.
    pub namespace: String,
    /// How long a run may take, as Go writes durations; overrides what the run says.
    pub timeout: Option<String>,
    /// At most so many attempts of a run at a time.
    pub parallel: Option<u32>,
    /// W3C trace context of whoever asks; what is not well formed is left out.
    pub traceparent: Option<String>,
    /// Tekton's flags and defaults.
    pub flags: FeatureFlags,
    /// Who asks, which decides how messages name things, and whether directories may be named.
    pub front: Front,
}

/// What a request needs that is no function of it.
pub struct Chance<'a> {
    /// Now.
    pub now: Time,
    /// Random bits for ids and names.
    pub random: &'a mut dyn FnMut() -> u64,
}

impl Chance<'_> {
    /// A new run id: the time, and random bits.
    pub fn run_id(&mut self) -> RunId {
        let millis = u64::try_from(self.now.0).unwrap_or_default();
        let random = u128::from((self.random)()) << 64 | u128::from((self.random)());
        RunId(ulid::Ulid::from_parts(millis, random))
    }
}

/// What is worth saying about a request that is nevertheless done.
#[derive(Clone, Debug)]
pub enum Remark {
    /// About a document.
    Warning(Box<Diagnostic>),
    /// About the request.
    Note(String),
}

/// A run that is ready to be submitted.
#[derive(Clone)]
pub struct Prepared {
    /// What runs.
    pub submission: Submission,
    /// Secrets and ConfigMaps; never part of the submission.
    pub materials: Materials,
}

/// Makes the submissions of all runs that are asked for, in order; at least one. `remark` gets what
/// is worth saying, also when the answer is an error.
pub fn prepare(
    request: &Request,
    chance: &mut Chance<'_>,
    remark: &mut dyn FnMut(Remark),
) -> Result<Vec<Prepared>> {
    let mut input = check(&request.sources, &request.flags);
    for warning in refuse(&input)? {
        remark(Remark::Warning(Box::new(warning)));
    }
    let chosen = choose::choose(request, &mut input.bundle, remark)?;
    let prepared = complete::complete(request, &input.bundle, chosen, chance, remark)?;
    unused::remark_on(request, &prepared, remark);
    Ok(prepared)
}

/// The warnings of documents without faults; else all that was found as the error.
fn refuse(input: &Input) -> Result<Vec<Diagnostic>> {
    if input.has_errors() {
        return Err(Error::Documents(input.diagnostics.clone()));
    }
    Ok(input.diagnostics.clone())
}

#[cfg(test)]
mod tests;
