//! Directories of claims: which are used as they are, and which are made anew.

use std::fs;

use tempfile::TempDir;

use super::*;

fn told(moves: u64, from: From) -> ClaimUse {
    ClaimUse {
        name: "pvc".to_owned(),
        owner: "RUN".to_owned(),
        moves,
        from: Some(from),
        save: true,
    }
}

/// The directory of `RUN`'s claim, with a file in it.
fn directory(root: &TempDir) -> PathBuf {
    let dir = claims::place(&root.path().join("runs"), "RUN", "pvc").unwrap();
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("file"), "old").unwrap();
    dir
}

#[test]
fn only_the_directory_that_is_meant_is_used_as_it_is() {
    let root = TempDir::new().unwrap();
    let dir = directory(&root);
    let first = told(1, From::Empty(true));
    assert!(!Marker::of(&first).fits(&dir, &first), "nobody has said what it is");
    Marker::remove(&dir).unwrap();
    Marker::of(&first).write(&dir).unwrap();
    let saved = told(1, From::Snapshot("s".to_owned()));
    assert!(Marker::of(&first).fits(&dir, &first) && Marker::of(&saved).fits(&dir, &saved));
    let moved = told(3, From::Snapshot("s".to_owned()));
    assert!(!Marker::of(&moved).fits(&dir, &moved), "it has lived elsewhere since");
    let other = ClaimUse { owner: "OTHER".to_owned(), ..told(1, From::Empty(true)) };
    assert!(!Marker::of(&other).fits(&dir, &other));
    // What the machine had not written when it stopped is in the snapshot, if there is one.
    fs::write(marker::beside(&dir, "home"), "RUN 1 another-boot\n").unwrap();
    let only_here = told(1, From::OnlyHere(true));
    assert!(!Marker::of(&saved).fits(&dir, &saved));
    assert!(Marker::of(&only_here).fits(&dir, &only_here));
    Marker::remove(&dir).unwrap();
    assert!(!Marker::of(&only_here).fits(&dir, &only_here));
}

#[test]
fn what_was_noted_is_known_to_the_next_process() {
    let root = TempDir::new().unwrap();
    let attempt = |name: &str| AttemptId {
        run_id: "RUN".to_owned(),
        task_run: name.to_owned(),
        attempt: 1,
        placement: 1,
    };
    let notes = Notes::new(root.path());
    assert_eq!(notes.of(&attempt("a.b")), (Vec::new(), None));
    let uses = [told(2, From::Empty(true))];
    notes.begin(&attempt("a.b"), &uses).unwrap();
    notes.begin(&attempt("a.c"), &uses).unwrap();
    let outcome = Outcome::Stopped(Stopped {});
    notes.end(&attempt("a.b"), &outcome).unwrap();
    assert_eq!(notes.of(&attempt("a.b")), (uses.to_vec(), Some(outcome)));
    notes.keep_only(&[attempt("a.c")]);
    assert_eq!(notes.of(&attempt("a.b")), (Vec::new(), None));
    assert_eq!(notes.of(&attempt("a.c")), (uses.to_vec(), None));
    notes.forget(&attempt("a.c"));
    assert_eq!(fs::read_dir(root.path().join("workspaces")).unwrap().count(), 0);
}

#[test]
fn what_is_not_the_claim_is_put_away_before_it_is_made_anew() {
    struct Nothing;
    impl ChunkStore for Nothing {
        fn missing(
            &self,
            ids: &[tenon_blobs::ChunkId],
        ) -> tenon_blobs::Result<Vec<tenon_blobs::ChunkId>> {
            Ok(ids.to_vec())
        }
        fn put(&self, _: &[tenon_blobs::Packed]) -> tenon_blobs::Result<()> {
            Ok(())
        }
        fn get(&self, _: &[tenon_blobs::ChunkId]) -> tenon_blobs::Result<Vec<tenon_blobs::Packed>> {
            Ok(Vec::new())
        }
    }
    let root = TempDir::new().unwrap();
    let dir = directory(&root);
    let workspaces = Workspaces::new(root.path(), Arc::new(Nothing));
    let inner = workspaces.inner.unwrap();
    inner.clear(&dir).unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}
