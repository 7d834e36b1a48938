//! Which images go first when the disk is nearly full.
//!
//! First what has no name and is no other image's part, then what tasks have used, the one that was not
//! used for longest first. An image that no task has ever used is somebody else's, and stays.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tenon_tekton::pod::image_matches;

/// Images that were used or made a moment ago stay: somebody may be about to use them, and nothing yet
/// shows it.
pub const RECENTLY_MS: i64 = 10 * 60 * 1000;
/// The same of images without a name: they may be part of one that is being built.
pub const UNNAMED_MS: i64 = 60 * 60 * 1000;

/// A use of an image is written down when the one that was written last is so long ago.
const WRITE_AFTER_MS: i64 = 60 * 1000;

/// One image that is here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub id: String,
    /// Its names, with tags and with digests.
    pub names: Vec<String>,
    /// When it was made, in milliseconds since the Unix epoch.
    pub made_ms: i64,
    /// Some container is of it.
    pub in_use: bool,
}

/// The images that may go, in the order in which they go. `used` says when a task has used an image last, by
/// its id.
pub fn candidates(
    images: Vec<Known>,
    used: &BTreeMap<String, i64>,
    keep: &[String],
    now_ms: i64,
) -> Vec<Known> {
    let is_kept = |image: &Known| {
        let mut names = image.names.iter();
        names.any(|name| keep.iter().any(|pattern| image_matches(pattern, name)))
    };
    let mut ranked: Vec<((bool, i64), Known)> = images
        .into_iter()
        .filter(|image| !image.in_use && !is_kept(image))
        .filter_map(|image| match (used.get(&image.id), image.names.is_empty()) {
            (Some(&last), is_unnamed) if last + RECENTLY_MS <= now_ms => {
                Some(((!is_unnamed, last), image))
            }
            (None, true) if image.made_ms + UNNAMED_MS <= now_ms => {
                Some(((false, image.made_ms), image))
            }
            _ => None,
        })
        .collect();
    ranked.sort_by(|(a, one), (b, other)| (a, &one.id).cmp(&(b, &other.id)));
    ranked.into_iter().map(|(_, image)| image).collect()
}

/// When tasks have used which image last, by id: in memory, and in a file that is never more than
/// [`WRITE_AFTER_MS`] behind.
#[derive(Debug, Default)]
pub struct UseRecord {
    path: PathBuf,
    used: BTreeMap<String, i64>,
    written: BTreeMap<String, i64>,
}

impl UseRecord {
    /// The record in an agent's directory. One that cannot be read is begun anew: it says only what may be
    /// pulled again.
    pub fn open(data_dir: &Path) -> UseRecord {
        let path = data_dir.join("images.json");
        let used = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let used: BTreeMap<String, i64> = used.unwrap_or_default();
        UseRecord { path, written: used.clone(), used }
    }

    /// A task uses an image: whatever becomes of this process, the next one is to know.
    pub fn note(&mut self, id: &str, now_ms: i64) -> io::Result<()> {
        self.used.insert(id.to_owned(), now_ms);
        match self.written.get(id) {
            Some(written) if now_ms < written.saturating_add(WRITE_AFTER_MS) => Ok(()),
            _ => self.write(),
        }
    }

    /// What is known.
    pub fn used(&self) -> &BTreeMap<String, i64> {
        &self.used
    }

    /// Forgets all images but these, and writes down what has changed.
    pub fn save(&mut self, there: impl Fn(&str) -> bool) -> io::Result<()> {
        self.used.retain(|id, _| there(id));
        if self.used == self.written { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> io::Result<()> {
        let draft = self.path.with_extension("draft");
        fs::write(&draft, serde_json::to_vec(&self.used)?)?;
        fs::rename(&draft, &self.path)?;
        self.written.clone_from(&self.used);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 100 * UNNAMED_MS;

    fn image(id: &str, names: &[&str]) -> Known {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        Known { id: id.to_owned(), names, ..Known::default() }
    }

    #[test]
    fn unnamed_ones_first_then_the_one_that_was_not_used_for_longest() {
        let images = vec![
            image("new", &["r/new:1"]),
            image("old", &["r/old:1"]),
            image("others", &["theirs:1"]),
            image("pinned", &["r/base:1", "x:1"]),
            image("just", &["r/just:1"]),
            Known { in_use: true, ..image("busy", &["r/busy:1"]) },
            Known { made_ms: NOW - 1, ..image("being-built", &[]) },
            image("unnamed", &[]),
            image("was-ours", &[]),
        ];
        let used = [
            ("new", 20),
            ("old", 10),
            ("pinned", 1),
            ("busy", 2),
            ("was-ours", 5),
            ("just", NOW - 1),
        ];
        let used = used.map(|(id, at)| (id.to_owned(), at)).into();
        let keep = ["r/base:*".to_owned()];
        let order = candidates(images, &used, &keep, NOW);
        let order: Vec<&str> = order.iter().map(|image| image.id.as_str()).collect();
        assert_eq!(order, ["unnamed", "was-ours", "old", "new"]);
    }

    #[test]
    fn the_record_outlives_the_process_and_forgets_what_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = UseRecord::open(dir.path());
        record.note("a", 1).unwrap();
        record.note("b", 2).unwrap();
        let at_once = UseRecord::open(dir.path());
        assert_eq!(at_once.used(), &[("a".to_owned(), 1), ("b".to_owned(), 2)].into());
        record.note("a", 1 + WRITE_AFTER_MS).unwrap();
        assert_eq!(UseRecord::open(dir.path()).used()["a"], 1 + WRITE_AFTER_MS);
        record.note("a", 3).unwrap();
        record.save(|_| true).unwrap();
        let mut again = UseRecord::open(dir.path());
        assert_eq!(again.used(), &[("a".to_owned(), 3), ("b".to_owned(), 2)].into());
        again.save(|id| id == "b").unwrap();
        assert_eq!(UseRecord::open(dir.path()).used().len(), 1);
        fs::write(dir.path().join("images.json"), "not json").unwrap();
        assert!(UseRecord::open(dir.path()).used().is_empty());
    }
}
