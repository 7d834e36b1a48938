//! Finding a run by what a person types: `latest`, an id, the beginning of an id, or a name.

use tenon_engine::RunId;

use super::{Store, Summary};
use crate::{Error, Result};

/// How many ids an ambiguity is explained with.
const SHOWN: usize = 5;

impl Store {
    /// The run that `what` means. Tried in this order: `latest`; an id; the beginning of exactly
    /// one id (at least four characters); the newest run with this `name` or `namespace/name`.
    pub fn find(&self, what: &str) -> Result<Summary> {
        let ids = self.ids()?;
        if ids.is_empty() {
            return Err(Error::Empty(self.root().to_owned()));
        }
        if what == "latest" {
            return self.summary(ids[0]);
        }
        let wanted = what.to_ascii_uppercase();
        if let Ok(id) = wanted.parse::<RunId>()
            && ids.contains(&id)
        {
            return self.summary(id);
        }
        let fitting: Vec<RunId> = if wanted.len() >= 4 {
            let begins = |id: &&RunId| id.to_string().starts_with(&wanted);
            ids.iter().filter(begins).copied().collect()
        } else {
            Vec::new()
        };
        if let [only] = fitting[..] {
            return self.summary(only);
        }
        let named = ids.iter().filter_map(|id| self.summary(*id).ok()).find(|summary| {
            summary.name == what || format!("{}/{}", summary.namespace, summary.name) == what
        });
        match named {
            Some(summary) => Ok(summary),
            None if fitting.is_empty() => Err(Error::NotFound(what.to_owned())),
            None => Err(Error::Ambiguous {
                what: what.to_owned(),
                ids: fitting.iter().take(SHOWN).map(RunId::to_string).collect(),
            }),
        }
    }
}
