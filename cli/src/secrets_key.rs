//! The key that a cluster's Secrets are stored under: in a file, or printed by a command that has it
//! from a key management service. Neither the command's output nor the key is ever shown.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tenon_coordinator::seal::SealKey;

use crate::args::CoordinatorArgs;
use crate::coordinator::refused;
use crate::exit::{Exit, Failure};
use crate::terminal;

/// The key file that is used when none is named.
const KEY_FILE: &str = "secrets.key";

/// The key of a coordinator that starts; none where none is named or there.
pub fn of_coordinator(args: &CoordinatorArgs, data_dir: &Path) -> Result<Option<SealKey>, Failure> {
    if let Some(command) = &args.secrets_key_command {
        return printed(command).map(Some);
    }
    let path = path(args.secrets_key.as_deref(), data_dir);
    match read(&path)? {
        Some(key) => Ok(Some(key)),
        None if args.secrets_key.is_some() => {
            let message = format!("there is no secrets key {}", path.display());
            Err(Failure::new(Exit::Environment, message)
                .hint("make one: head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \\n' > FILE"))
        }
        None if args.bootstrap => made(&path, data_dir).map(Some),
        None => Ok(None),
    }
}

/// The key of a cluster that begins: what a command prints, or what is in a file, which is made where
/// it is not there.
pub fn of_beginning(
    named: Option<&Path>,
    command: Option<&str>,
    data_dir: &Path,
) -> Result<SealKey, Failure> {
    if let Some(command) = command {
        return printed(command);
    }
    let path = path(named, data_dir);
    match read(&path)? {
        Some(key) => Ok(key),
        None => made(&path, data_dir),
    }
}

/// The key that came with joining becomes the node's own, unless a command gives it.
pub fn joined(
    text: &str,
    own: Option<SealKey>,
    args: &CoordinatorArgs,
    data_dir: &Path,
) -> Result<SealKey, Failure> {
    let key = SealKey::parse(text).map_err(|error| Failure::new(Exit::Environment, error))?;
    match own {
        Some(own) if own.fingerprint() == key.fingerprint() => Ok(key),
        Some(_) => {
            let message = "this node has another secrets key than the cluster";
            Err(Failure::new(Exit::Usage, message)
                .hint("leave --secrets-key out: joining brings the key"))
        }
        None => {
            let path = path(args.secrets_key.as_deref(), data_dir);
            write(&path, &key).map_err(|error| {
                Failure::new(Exit::Environment, format!("cannot write {}: {error}", path.display()))
            })?;
            Ok(key)
        }
    }
}

fn path(named: Option<&Path>, data_dir: &Path) -> PathBuf {
    named.map_or_else(|| data_dir.join(KEY_FILE), Path::to_owned)
}

fn read(path: &Path) -> Result<Option<SealKey>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => SealKey::parse(&text)
            .map(Some)
            .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let message = format!("cannot read the secrets key {}: {error}", path.display());
            Err(Failure::new(Exit::Environment, message))
        }
    }
}

/// Runs a command, without a shell, and takes what it prints for the key.
fn printed(command: &str) -> Result<SealKey, Failure> {
    let fail = |why: String| {
        let program = command.split_whitespace().next().unwrap_or_default();
        Failure::new(Exit::Environment, format!("--secrets-key-command: {program} {why}"))
            .hint("run it by hand: it must print 64 hexadecimal digits, and nothing else")
    };
    let mut words = command.split_whitespace();
    let Some(program) = words.next() else { return Err(fail("no command is named".to_owned())) };
    // What it says on stderr may hold the key as well.
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|error| fail(format!("cannot be run: {error}")))?;
    if !output.status.success() {
        return Err(fail(format!("failed ({})", output.status)));
    }
    let text = String::from_utf8(output.stdout).map_err(|_| fail("printed no text".to_owned()))?;
    // The error does not show the text either.
    SealKey::parse(&text).map_err(|_| fail("printed no key".to_owned()))
}

/// A key for a cluster that begins.
fn made(path: &Path, data_dir: &Path) -> Result<SealKey, Failure> {
    let key = SealKey::random().map_err(refused)?;
    let make_dir = || fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
    make_dir().and_then(|()| write(path, &key)).map_err(|error| {
        let message = format!("cannot write the secrets key {}: {error}", path.display());
        Failure::new(Exit::Environment, message).hint("--data-dir chooses another place")
    })?;
    terminal::note(&format!(
        "made a secrets key, {}: other nodes of the cluster need it too, and so does whoever \
         restores a backup",
        path.display()
    ));
    Ok(key)
}

fn write(path: &Path, key: &SealKey) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(format!("{}\n", key.to_text()).as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_prints_the_key_and_what_it_prints_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        fs::write(&file, "ab".repeat(32)).unwrap();
        let key = printed(&format!("cat  {}", file.display())).unwrap();
        assert_eq!(key.to_text(), "ab".repeat(32));
        fs::write(&file, "hunter2 of the key").unwrap();
        for (command, why) in [
            (format!("cat {}", file.display()), "cat printed no key"),
            // No shell sees it.
            ("echo $HOME".to_owned(), "echo printed no key"),
            ("false".to_owned(), "false failed (exit status: 1)"),
            ("/no/such/program x".to_owned(), "/no/such/program cannot be run"),
            (" ".to_owned(), "no command is named"),
        ] {
            let error = printed(&command).unwrap_err().message;
            assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
        }
    }
}
