//! An image's root directory: unpacked packages put together, and the few files that a package's scripts would have made.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::recipes::{Recipe, Tools, packages};
use crate::command::{Failure, command, output, run};
use crate::packages as archive;

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
sshd:x:100:65534::/run/sshd:/usr/sbin/nologin
nonroot:x:1000:1000:nonroot:/home/nonroot:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";
const SHADOW: &str =
    "root:!:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\nnonroot:*:19000:0:99999:7:::\n";
const GROUP: &str =
    "root:x:0:\ndaemon:x:1:\ntty:x:5:\nshadow:x:42:\nnonroot:x:1000:\nnogroup:x:65534:\n";
const DIRECTORIES: [(&str, u32); 16] = [
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("usr/lib", 0o755),
    ("usr/lib64", 0o755),
    ("usr/local/bin", 0o755),
    ("etc/ssh", 0o755),
    ("dev", 0o755),
    ("home/nonroot", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
    ("opt", 0o755),
];

/// A root directory under construction. Its files may be shared with the package cache: they are replaced, never changed.
pub struct Root {
    path: PathBuf,
}

impl Root {
    /// Puts a recipe's packages together and finishes what their scripts would have done.
    pub fn assemble(recipe: &Recipe) -> Result<Root, Failure> {
        let root =
            Root { path: archive::cache().join("roots").join(recipe.name.replace('/', "-")) };
        let _ = fs::remove_dir_all(&root.path);
        for (path, mode) in DIRECTORIES {
            root.directory(path, mode)?;
        }
        for package in archive::closure(&packages(recipe))? {
            let name = package.split('_').next().unwrap_or_default();
            if !recipe.omit.contains(&name) {
                let mut source = archive::unpacked(&package)?.into_os_string();
                source.push("/.");
                run({
                    let mut copy = command("cp", ["--archive", "--link", "--force"]);
                    copy.arg(source).arg(&root.path);
                    copy
                })?;
            }
        }
        // A package's own directories may have come with other modes.
        for (path, mode) in DIRECTORIES {
            root.directory(path, mode)?;
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            root.link(&format!("usr/{name}"), name)?;
        }
        root.write("etc/passwd", 0o644, PASSWD)?;
        root.write("etc/group", 0o644, GROUP)?;
        root.write("etc/shadow", 0o600, SHADOW)?;
        root.write("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\n")?;
        match recipe.tools {
            Tools::Busybox => root.add_applets()?,
            Tools::Distribution => {
                root.link("dash", "usr/bin/sh")?;
                root.link("mawk", "usr/bin/awk")?;
                root.link("which.debianutils", "usr/bin/which")?;
            }
        }
        (recipe.finish)(&root)?;
        Ok(root)
    }

    /// A link for each of busybox's commands that no package brought.
    fn add_applets(&self) -> Result<(), Failure> {
        let busybox = self.path.join("usr/bin/busybox");
        let list = output(command(&busybox.display().to_string(), ["--list"]))?;
        for applet in
            list.lines().filter(|applet| !applet.starts_with("dpkg") && !applet.starts_with("rpm"))
        {
            let taken = ["usr/bin", "usr/sbin"]
                .iter()
                .any(|dir| fs::symlink_metadata(self.path.join(dir).join(applet)).is_ok());
            if !taken {
                self.link("busybox", &format!("usr/bin/{applet}"))?;
            }
        }
        Ok(())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }

    /// A directory with these permissions.
    pub fn directory(&self, path: &str, mode: u32) -> Result<(), Failure> {
        let made = fs::create_dir_all(self.at(path));
        let set = made
            .and_then(|()| fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)));
        set.map_err(|error| format!("cannot make {path}: {error}"))
    }

    /// A file with this content, in place of what was there.
    pub fn write(&self, path: &str, mode: u32, content: &str) -> Result<(), Failure> {
        let _ = fs::remove_file(self.at(path));
        let made = self.at(path).parent().map_or(Ok(()), fs::create_dir_all);
        let written = made.and_then(|()| fs::write(self.at(path), content));
        let set = written
            .and_then(|()| fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)));
        set.map_err(|error| format!("cannot write {path}: {error}"))
    }

    /// A symbolic link, in place of what was there.
    pub fn link(&self, to: &str, path: &str) -> Result<(), Failure> {
        let _ = fs::remove_file(self.at(path));
        symlink(to, self.at(path)).map_err(|error| format!("cannot link {path}: {error}"))
    }

    /// Moves a file.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Failure> {
        fs::rename(self.at(from), self.at(to))
            .map_err(|error| format!("cannot move {from}: {error}"))
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, path: &str) -> Result<(), Failure> {
        match fs::remove_file(self.at(path)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("cannot remove {path}: {error}"))
            }
            _ => Ok(()),
        }
    }

    /// Makes an image of it: everything belongs to root, but one home directory.
    pub fn import(&self, config: &[String], tag: &str) -> Result<(), Failure> {
        let tar = self.path.with_extension("tar");
        let pack = |mode: &str, owner: &str, what: &[&str]| {
            let mut pack = command("tar", [mode, "--numeric-owner", "--sort=name", "--mtime=@0"]);
            pack.arg(format!("--owner={owner}")).arg(format!("--group={owner}"));
            pack.arg("--file").arg(&tar).arg("--directory").arg(&self.path).args(what);
            // 1 says that a file changed meanwhile: its link count did, where another image shares it.
            match pack.stderr(Stdio::null()).status() {
                Ok(status) if matches!(status.code(), Some(0 | 1)) => Ok(()),
                other => Err(format!("cannot pack {}: {other:?}", self.path.display())),
            }
        };
        pack("--create", "0", &["--exclude=./home/nonroot", "."])?;
        pack("--append", "1000", &["./home/nonroot"])?;
        let input = fs::File::open(&tar)
            .map_err(|error| format!("cannot read {}: {error}", tar.display()))?;
        let mut import = command("docker", ["import"]);
        for line in config {
            import.args(["--change", line]);
        }
        import.args(["-", tag]).stdin(input).stdout(Stdio::null());
        run(import)?;
        self.discard(&tar);
        Ok(())
    }

    fn discard(&self, tar: &Path) {
        let _ = fs::remove_file(tar);
        let _ = fs::remove_dir_all(&self.path);
    }
}
