//! Things of attempts that are not known any more.
//!
//! An attempt may begin between the moment when it was said what is needed and the look at what is there.
//! So only what two looks in a row have found is removed: an attempt's key never comes back, and one that
//! has begun is needed by the next look.

use std::collections::BTreeSet;

/// What the last look has found.
#[derive(Debug, Default)]
pub struct Orphans {
    suspects: BTreeSet<String>,
}

impl Orphans {
    /// Of the keys of what is there, those that are to be removed; `needed` was said before it was looked.
    pub fn look(
        &mut self,
        there: impl IntoIterator<Item = String>,
        needed: &BTreeSet<String>,
    ) -> BTreeSet<String> {
        let found: BTreeSet<String> =
            there.into_iter().filter(|key| !needed.contains(key)).collect();
        let orphans = found.intersection(&self.suspects).cloned().collect();
        self.suspects = found;
        orphans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[&str]) -> BTreeSet<String> {
        keys.iter().map(|&key| key.to_owned()).collect()
    }

    #[test]
    fn only_what_two_looks_in_a_row_have_found_goes() {
        let mut orphans = Orphans::default();
        // "new" has begun since it was said what is needed.
        assert_eq!(orphans.look(keys(&["live", "new", "dead"]), &keys(&["live"])), keys(&[]));
        let needed = keys(&["live", "new"]);
        assert_eq!(orphans.look(keys(&["live", "new", "dead"]), &needed), keys(&["dead"]));
        // It could not be removed: it is tried again.
        assert_eq!(orphans.look(keys(&["new", "dead"]), &keys(&["new"])), keys(&["dead"]));
        assert_eq!(orphans.look(keys(&["new"]), &keys(&[])), keys(&[]));
        assert_eq!(orphans.look(keys(&[]), &keys(&[])), keys(&[]));
    }
}
