//! The distribution's packages, fetched and unpacked below the target directory without installing anything.
//!
//! apt computes, against an empty system, everything a package needs; dpkg-deb unpacks each of them once. Nothing here needs
//! root, runs a package's scripts, or starts a service.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::command::{Failure, as_root, command, confirm, exists, output, run, target};

/// What the stand-in images have no use for.
const LEFT_OUT: [&str; 9] = [
    "./usr/share/doc/*",
    "./usr/share/man/*",
    "./usr/share/info/*",
    "./usr/share/locale/*",
    "./usr/share/i18n/*",
    "./usr/share/lintian/*",
    "./usr/share/bash-completion/*",
    "./usr/lib/python3*/test/*",
    "./usr/include/*",
];

/// Packages whose work (configuring a system) is never done here, so that nothing needs them.
const OMIT: [&str; 12] = [
    "adduser",
    "debconf",
    "dpkg",
    "gcc-12-base",
    "init-system-helpers",
    "libpam-runtime",
    "lsb-base",
    "passwd",
    "runit-helper",
    "sensible-utils",
    "ucf",
    "usrmerge",
];

/// Where packages are kept.
pub fn cache() -> PathBuf {
    target().join("test-images")
}

fn io<T>(what: &str, result: std::io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| format!("cannot {what}: {error}"))
}

/// apt with a state of its own: an empty system, and our own archive directory.
fn apt(archives: &str, args: &[&str], packages: &[&str]) -> Result<Command, Failure> {
    if !exists("apt-get") || !exists("dpkg-deb") {
        return Err("the stand-in images are made from Debian or Ubuntu packages: apt-get and dpkg-deb are needed".to_owned());
    }
    let archives = cache().join(archives);
    io("create the package cache", fs::create_dir_all(archives.join("partial")))?;
    let status = cache().join("empty-system");
    io("create the package cache", fs::write(&status, ""))?;
    let mut command = command("apt-get", ["-y", "-q", "--no-install-recommends"]);
    command.arg("-o").arg(format!("Dir::State::status={}", status.display()));
    command.arg("-o").arg(format!("Dir::Cache::archives={}", archives.display()));
    command.args(["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"]);
    if let Some(lists) = OWN_LISTS.get() {
        command.arg("-o").arg(format!("Dir::State::lists={}", lists.display()));
    }
    command.args(args).args(packages);
    Ok(command)
}

/// Set when the system's own package lists are missing and ours are used.
static OWN_LISTS: OnceLock<PathBuf> = OnceLock::new();

/// Downloads packages and all that they need.
pub fn download(packages: &[&str]) -> Result<(), Failure> {
    let fetch = || output(apt("archives", &["--download-only", "install"], packages)?);
    if let Err(first) = fetch() {
        // No lists, or lists that name packages which the mirror has replaced since.
        let lists = cache().join("lists");
        io("create the package cache", fs::create_dir_all(lists.join("partial")))?;
        let _ = OWN_LISTS.set(lists);
        output(apt("archives", &["update"], &[])?).map_err(|error| format!("{first}\n{error}"))?;
        fetch()?;
    }
    Ok(())
}

/// The archive files of the packages and of all that they need.
pub fn closure(packages: &[&str]) -> Result<Vec<String>, Failure> {
    // apt prints only what it would have to fetch: hence an archive directory that stays empty.
    let printed = output(apt("none", &["--print-uris", "install"], packages)?)?;
    let files = printed
        .lines()
        .filter(|line| line.starts_with('\''))
        .filter_map(|line| line.split_whitespace().nth(1));
    let wanted =
        files.filter(|file| file.split_once('_').is_none_or(|(name, _)| !OMIT.contains(&name)));
    Ok(wanted.map(str::to_owned).collect())
}

/// A package's files, unpacked: `/bin`, `/sbin` and `/lib` are below `/usr`, as on a current system.
pub fn unpacked(archive: &str) -> Result<PathBuf, Failure> {
    let dir = cache().join("unpacked").join(archive.trim_end_matches(".deb"));
    if dir.is_dir() {
        return Ok(dir);
    }
    let fresh =
        dir.with_extension(format!("tmp{}-{:?}", std::process::id(), std::thread::current().id()));
    io("create the package cache", fs::create_dir_all(&fresh))?;
    let mut source = command("dpkg-deb", ["--fsys-tarfile"]);
    source.arg(cache().join("archives").join(archive)).stdout(Stdio::piped());
    let mut source = io("run dpkg-deb", source.spawn())?;
    let mut tar = command("tar", ["--extract", "--no-same-owner", "--delay-directory-restore"]);
    tar.arg("--directory").arg(&fresh);
    tar.args([r"--transform=flags=rh;s,^\./\(bin\|sbin\|lib\|lib64\)\(/\|$\),./usr/\1\2,"]);
    tar.args(LEFT_OUT.map(|pattern| format!("--exclude={pattern}")));
    tar.stdin(source.stdout.take().map_or_else(Stdio::null, Stdio::from));
    run(tar)?;
    if !io("wait for dpkg-deb", source.wait())?.success() {
        return Err(format!("{archive} cannot be unpacked"));
    }
    // Two images may unpack the same package at once: the first to finish wins.
    if fs::rename(&fresh, &dir).is_err() {
        let _ = fs::remove_dir_all(&fresh);
    }
    Ok(dir)
}

/// One program of one package that needs nothing beyond the C library, fetched only if it is not there yet.
pub fn program(package: &str, path: &str) -> Result<PathBuf, Failure> {
    let prefix = format!("{package}_");
    let there = fs::read_dir(cache().join("unpacked")).ok().and_then(|mut entries| {
        entries.find_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            (name.starts_with(&prefix) && !name.contains(".tmp")).then(|| entry.path())
        })
    });
    if let Some(dir) = there {
        return Ok(dir.join(path));
    }
    download(&[package])?;
    let archives = closure(&[package])?;
    let archive = archives.iter().find(|archive| archive.starts_with(&prefix));
    Ok(unpacked(archive.ok_or_else(|| format!("apt knows no package {package}"))?)?.join(path))
}

/// Installs the packages of those programs that are missing: `(program, package)`.
pub fn require(ask: bool, programs: &[(&str, &str)]) -> Result<(), Failure> {
    let missing = programs.iter().filter(|(program, _)| {
        !exists(program) && !std::path::Path::new("/usr/sbin").join(program).exists()
    });
    let wanted: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if wanted.is_empty() { Ok(()) } else { install(ask, &wanted) }
}

/// Installs packages into this system, after asking.
pub fn install(ask: bool, packages: &[&str]) -> Result<(), Failure> {
    confirm(ask, &format!("installing the package(s) {} with apt-get", packages.join(", ")))?;
    let install = || {
        let mut command = as_root("apt-get", &["install", "-y", "-q", "--no-install-recommends"]);
        command.args(packages).env("DEBIAN_FRONTEND", "noninteractive");
        output(command)
    };
    if install().is_err() {
        output(as_root("apt-get", &["update", "-q"]))?;
        install()?;
    }
    Ok(())
}
