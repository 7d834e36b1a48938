//! `relay`: does what an agent orders that shares no files with this daemon, and passes on the records
//! of its containers as they grow (see [`tenon_entrypoint::relay`]). Ends with its standard input. As long as
//! something is ordered, whoever holds its container open is told that it is needed.
//!
//! `ask` opens one connection from inside a container: how the agent probes a sidecar whose address
//! it cannot reach.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use tenon_entrypoint::relay::{Answer, HOLDER, Order};

use crate::sys::{self, FileWatch, Waited};

/// Most bytes of a record in one answer.
const READ: usize = 256 << 10;

/// A file that is passed on.
struct Followed {
    number: u32,
    file: File,
    watch: i32,
    at: u64,
    /// Up to here its room was given back.
    hole: u64,
}

struct Relay {
    watch: FileWatch,
    followed: Vec<Followed>,
    buffer: Vec<u8>,
}

/// Serves until nobody orders any more.
pub fn relay() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be left to hear it.
            let _ = say(&Answer::Failed { message: error.to_string() });
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let mut relay = Relay { watch: FileWatch::new()?, followed: Vec::new(), buffer: vec![0; READ] };
    let mut stdin = io::stdin();
    let mut orders = Vec::new();
    let mut room = vec![0; READ];
    let holder = std::env::var(HOLDER).ok().and_then(|pid| pid.parse().ok());
    loop {
        let more = relay.pass_on()?;
        let mut waited = [Waited::new(stdin.as_raw_fd()), Waited::new(relay.watch.fd())];
        sys::wait(&mut waited, more.then_some(std::time::Duration::ZERO));
        let [ordered, grown] = waited;
        if grown.ready() {
            relay.touched()?;
        }
        if !ordered.ready() {
            continue;
        }
        match stdin.read(&mut room)? {
            0 => return Ok(()),
            count => orders.extend_from_slice(&room[..count]),
        }
        if let Some(holder) = holder {
            sys::signal_process(holder, crate::pause::NEEDED);
        }
        let mut used = 0;
        while let Some((order, length)) =
            Order::decode(&orders[used..]).map_err(io::Error::other)?
        {
            used += length;
            if let Err(error) = relay.take(&order) {
                say(&Answer::Failed { message: format!("{}: {error}", what(&order)) })?;
            }
        }
        orders.drain(..used);
    }
}

fn say(answer: &Answer) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(&answer.encode())?;
    stdout.flush()
}

/// Which order it was, for people.
fn what(order: &Order) -> String {
    match order {
        Order::Directory { path, .. } | Order::Share { path } => format!("making {path}"),
        Order::File { path, .. } | Order::Link { path, .. } | Order::Program { path } => {
            format!("writing {path}")
        }
        Order::Unblock { path } => format!("writing in {path}"),
        Order::Remove { path } => format!("removing {path}"),
        Order::Follow { path, .. } => format!("following {path}"),
        Order::Kept { .. } | Order::Report { .. } => "reading records".to_owned(),
    }
}

impl Relay {
    fn take(&mut self, order: &Order) -> io::Result<()> {
        match order {
            Order::Directory { path, mode } => {
                fs::create_dir_all(path)?;
                fs::set_permissions(path, fs::Permissions::from_mode(*mode))
            }
            Order::Share { path } => share(Path::new(path)),
            Order::File { path, mode, contents } => {
                fs::write(path, contents)?;
                fs::set_permissions(path, fs::Permissions::from_mode(*mode))
            }
            Order::Link { path, target } => match symlink(target, path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                done => done,
            },
            Order::Program { path } => place_program(Path::new(path)),
            Order::Unblock { path } => unblock(Path::new(path)),
            Order::Remove { path } => match fs::remove_dir_all(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                done => done,
            },
            Order::Follow { file, path, from } => {
                let watch = self.watch.add(Path::new(path))?;
                // Writing is only for holes.
                let opened = OpenOptions::new().read(true).write(true).open(path)?;
                let (number, at, hole) = (*file, *from, *from);
                self.followed.push(Followed { number, file: opened, watch, at, hole });
                Ok(())
            }
            Order::Kept { file, upto } => {
                for followed in self.followed.iter_mut().filter(|one| one.number == *file) {
                    if *upto > followed.hole {
                        sys::punch(&followed.file, followed.hole, *upto - followed.hole);
                        followed.hole = *upto;
                    }
                }
                Ok(())
            }
            Order::Report { number } => {
                self.catch_up()?;
                say(&Answer::Done { number: *number })
            }
        }
    }

    /// Passes on one piece of each file that has more; false when none has.
    fn pass_on(&mut self) -> io::Result<bool> {
        let mut more = false;
        for followed in &mut self.followed {
            let count = followed.file.read_at(&mut self.buffer, followed.at)?;
            if count == 0 {
                continue;
            }
            let bytes = self.buffer[..count].to_vec();
            say(&Answer::Bytes { file: followed.number, at: followed.at, bytes })?;
            followed.at += count as u64;
            more = true;
        }
        Ok(more)
    }

    /// Passes on what is in the files now.
    fn catch_up(&mut self) -> io::Result<()> {
        let lengths: io::Result<Vec<u64>> =
            self.followed.iter().map(|one| Ok(one.file.metadata()?.len())).collect();
        let lengths = lengths?;
        while self.followed.iter().zip(&lengths).any(|(one, length)| one.at < *length)
            && self.pass_on()?
        {}
        Ok(())
    }

    /// A writer that changes a file's times and adds nothing has found no room.
    fn touched(&mut self) -> io::Result<()> {
        for watch in self.watch.touched() {
            for followed in self.followed.iter().filter(|one| one.watch == watch) {
                say(&Answer::Touched { file: followed.number })?;
            }
        }
        Ok(())
    }
}

/// Makes the missing parts of a directory; whatever else than directories is in the way is refused.
fn share(path: &Path) -> io::Result<()> {
    let mut so_far = PathBuf::new();
    for component in path.components() {
        so_far.push(component);
        if component == Component::RootDir {
            continue;
        }
        match fs::symlink_metadata(&so_far) {
            Ok(found) if found.is_dir() => {}
            Ok(found) if found.is_file() && so_far == path => {}
            Ok(_) => {
                let message = format!("{} is not a directory", so_far.display());
                return Err(io::Error::new(io::ErrorKind::NotADirectory, message));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&so_far)?;
                fs::set_permissions(&so_far, fs::Permissions::from_mode(0o777))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn place_program(directory: &Path) -> io::Result<()> {
    let program = directory.join("entrypoint");
    if program.is_file() {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    // Renamed into place, so that nobody ever sees half of it.
    let draft = directory.join(format!("draft-{}", std::process::id()));
    fs::copy("/proc/self/exe", &draft)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755))?;
    fs::rename(&draft, &program)
}

fn unblock(directory: &Path) -> io::Result<()> {
    if fs::symlink_metadata(directory.join("out")).is_ok() {
        return Ok(());
    }
    // The directory is the step's: no symlink of its own is followed.
    let made =
        OpenOptions::new().write(true).create_new(true).mode(0o644).open(directory.join("out.err"));
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

/// Connects to a port as seen from here, sends what standard input holds (a length before it), and
/// prints the first bytes of the answer. With nothing to send, connecting is all.
pub fn ask(host: &str, port: &str) -> ExitCode {
    let asked = || -> io::Result<()> {
        let port = port.parse().map_err(io::Error::other)?;
        let mut length = [0; 4];
        io::stdin().read_exact(&mut length)?;
        let mut request = vec![0; (u32::from_le_bytes(length) as usize).min(1 << 20)];
        io::stdin().read_exact(&mut request)?;
        let mut stream = TcpStream::connect((host, port))?;
        if !request.is_empty() {
            stream.write_all(&request)?;
            let mut head = [0; 12];
            stream.read_exact(&mut head)?;
            io::stdout().write_all(&head)?;
        }
        Ok(())
    };
    match asked() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_directory_is_made_and_no_symlink_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        share(&dir.path().join("a/b")).unwrap();
        share(&dir.path().join("a/b")).unwrap();
        assert_eq!(
            fs::metadata(dir.path().join("a/b")).unwrap().permissions().mode() & 0o777,
            0o777
        );
        symlink("/etc", dir.path().join("a/out")).unwrap();
        assert!(share(&dir.path().join("a/out")).is_err());
        assert!(share(&dir.path().join("a/out/x")).is_err());
        fs::write(dir.path().join("file"), "").unwrap();
        share(&dir.path().join("file")).unwrap();
        assert!(share(&dir.path().join("file/x")).is_err());
    }

    #[test]
    fn unblocking_makes_a_file_of_its_own_and_only_where_none_is() {
        let dir = tempfile::tempdir().unwrap();
        unblock(dir.path()).unwrap();
        unblock(dir.path()).unwrap();
        assert!(dir.path().join("out.err").is_file());
        let other = tempfile::tempdir().unwrap();
        symlink(dir.path().join("victim"), other.path().join("out.err")).unwrap();
        unblock(other.path()).unwrap();
        assert!(!dir.path().join("victim").exists());
    }
}
