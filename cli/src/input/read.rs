//! Reading files, directories and stdin, with limits, and finding the files that nobody named.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tenon_tekton::load::Source;

use crate::exit::{Exit, Failure};

/// Largest file that is read: far above any pipeline, far below what would hurt.
const MAX_FILE: u64 = 64 << 20;

/// Reads what is named; with nothing named, `.tekton/`, or `pipeline.yaml`.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let found;
    let paths = if paths.is_empty() {
        found = [default_path()?];
        &found
    } else {
        paths
    };
    let mut sources = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            sources.push(read_from("<stdin>", io::stdin().lock())?);
        } else if is_url(path) {
            let message = format!("{}: URLs are not read, only files", path.display());
            return Err(Failure::new(Exit::Usage, message)
                .hint(format!("fetch it first: curl -fsSL {} | tenon … -f -", path.display())));
        } else if path.is_dir() {
            let before = sources.len();
            read_dir(path, &mut HashSet::new(), &mut sources)?;
            if sources.len() == before {
                let message = format!("no .yaml, .yml or .json files in {}", path.display());
                return Err(Failure::new(Exit::Usage, message));
            }
        } else {
            sources.push(read_file(path)?);
        }
    }
    Ok(sources)
}

fn is_url(path: &Path) -> bool {
    let text = path.to_string_lossy();
    ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme)) && !path.exists()
}

fn default_path() -> Result<PathBuf, Failure> {
    for name in [".tekton", "pipeline.yaml", "pipeline.yml"] {
        let path = PathBuf::from(name);
        if path.exists() {
            return Ok(path);
        }
    }
    let failure =
        Failure::new(Exit::Usage, "nothing to read: no -f, no .tekton/ and no pipeline.yaml here");
    Err(failure.hint("name a file or directory: -f PATH"))
}

/// Reads the files of a directory in the order of their names, hidden ones left out. Links may lead to a
/// directory again: each is read once.
fn read_dir(
    dir: &Path,
    seen: &mut HashSet<PathBuf>,
    sources: &mut Vec<Source>,
) -> Result<(), Failure> {
    let cannot = |error: io::Error| cannot_read(dir, &error);
    if !seen.insert(dir.canonicalize().map_err(cannot)?) {
        return Ok(());
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    for path in paths {
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_dir() {
            read_dir(&path, seen, sources)?;
        } else if matches!(extension, Some("yaml" | "yml" | "json")) {
            sources.push(read_file(&path)?);
        }
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<Source, Failure> {
    let file = File::open(path).map_err(|error| cannot_read(path, &error))?;
    read_from(&path.display().to_string(), file)
}

fn read_from(name: &str, input: impl Read) -> Result<Source, Failure> {
    let mut bytes = Vec::new();
    input
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| cannot_read(Path::new(name), &error))?;
    if bytes.len() as u64 > MAX_FILE {
        let message = format!("{name} is larger than {} MiB", MAX_FILE >> 20);
        return Err(Failure::new(Exit::Validation, message));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        let message = format!("{name}:{line}: not UTF-8 text, so not YAML");
        Failure::new(Exit::Validation, message)
    })?;
    Ok(Source { name: name.to_owned(), text: text.into() })
}

fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Usage, format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_read_in_order_and_hidden_files_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "sub/c.json", ".hidden.yaml", "notes.txt"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        std::os::unix::fs::symlink("..", dir.path().join("sub/up")).unwrap();
        let sources = read(&[dir.path().to_owned()]).unwrap();
        let texts: Vec<&str> = sources.iter().map(|source| &*source.text).collect();
        assert_eq!(texts, ["a.yml", "b.yaml", "sub/c.json"]);
    }

    #[test]
    fn faults_have_their_exit_codes() {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("binary.yaml");
        fs::write(&binary, b"a: 1\nb: \xff\n").unwrap();
        let failure = read(&[binary]).unwrap_err();
        assert_eq!(failure.exit, Exit::Validation);
        assert!(failure.message.contains("binary.yaml:2: not UTF-8"), "{}", failure.message);
        for missing in [dir.path().join("missing.yaml"), dir.path().join("empty")] {
            if missing.ends_with("empty") {
                fs::create_dir(&missing).unwrap();
            }
            assert_eq!(read(&[missing]).unwrap_err().exit, Exit::Usage);
        }
    }
}
