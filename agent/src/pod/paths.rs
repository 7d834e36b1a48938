//! Paths of containers as text, and paths below a volume that cannot leave it.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::dir::make_dir;

/// Go's `path.Clean` of an absolute path; a relative one is taken from the root.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Whether `path` is `parent` or below it; both clean.
pub fn is_below(path: &str, parent: &str) -> bool {
    parent == "/"
        || path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Follows `sub` below `root`, making directories that are missing. An error when it has `..`, or
/// leads out of the volume over a symlink.
pub fn below(root: &Path, sub: &str) -> io::Result<PathBuf> {
    let real_root = fs::canonicalize(root)?;
    let mut path = real_root.clone();
    for component in Path::new(sub).components() {
        let name = match component {
            Component::Normal(name) => name,
            Component::CurDir | Component::RootDir => continue,
            Component::ParentDir | Component::Prefix(_) => return Err(escapes(sub, "has `..`")),
        };
        path.push(name);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_symlink() => {
                path = fs::canonicalize(&path)?;
                if !path.starts_with(&real_root) {
                    return Err(escapes(sub, "leads out of the volume"));
                }
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_dir(&path, 0o777)?,
            Err(error) => return Err(error),
        }
    }
    Ok(path)
}

fn escapes(sub: &str, how: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("path \"{sub}\" {how}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning() {
        for (path, expected) in
            [("/", "/"), ("", "/"), ("a/b/", "/a/b"), ("/a/./b//c/../d", "/a/b/d"), ("/../..", "/")]
        {
            assert_eq!(clean(path), expected);
        }
        assert!(is_below("/workspace/x", "/workspace"));
        assert!(is_below("/workspace", "/workspace"));
        assert!(!is_below("/workspaces", "/workspace"));
    }

    #[test]
    fn nothing_escapes_a_volume() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("volume");
        fs::create_dir(&root).unwrap();
        fs::create_dir(root.join("inner")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        std::os::unix::fs::symlink("inner", root.join("in")).unwrap();
        let real = fs::canonicalize(&root).unwrap();
        assert_eq!(below(&root, "a/b").unwrap(), real.join("a/b"));
        assert!(root.join("a/b").is_dir());
        assert_eq!(below(&root, "in/x").unwrap(), real.join("inner/x"));
        assert_eq!(below(&root, "/abs").unwrap(), real.join("abs"));
        for bad in ["../x", "a/../../x", "out", "out/passwd"] {
            assert!(below(&root, bad).is_err(), "{bad}");
        }
    }
}
