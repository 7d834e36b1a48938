//! Where the daemon finds the agent's files. Steps and agent share files, so this decides how.
//!
//! It is asked, not guessed: the daemon is told to mount a file with a new name, and refuses what it
//! does not see before it looks at anything else. An agent in a container finds itself among the
//! daemon's containers, and with it what its directories are on the machine. Where nothing is
//! shared, files are copied: [`super::far`].

use std::fs;
use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, RemoveContainerOptionsBuilder,
};

use super::error;
use super::far::image;
use crate::backend::BackendError;
use crate::pod::private_base;

/// How the daemon sees the agent's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Site {
    /// As the agent does.
    Same,
    /// Under other names: the agent is in a container. A directory of the agent's, and what the
    /// machine calls it; the longest first.
    Mapped(Vec<(PathBuf, PathBuf)>),
    /// Not at all.
    Apart,
}

impl Site {
    /// What it means for this directory of the agent's, for people.
    pub fn describe(&self, data_dir: &Path) -> String {
        match self {
            Site::Same => "the daemon sees the agent's files".to_owned(),
            Site::Mapped(_) => format!(
                "the agent is in a container of this daemon, which calls {} {}",
                data_dir.display(),
                self.map(data_dir).display()
            ),
            Site::Apart => {
                "the daemon does not see the agent's files: they are copied to a volume \
                            of its own, and output comes back over its API"
                    .to_owned()
            }
        }
    }

    /// What the daemon calls a path of the agent's.
    pub fn map(&self, path: &Path) -> PathBuf {
        match self {
            Site::Mapped(pairs) => mapped(pairs, path).unwrap_or_else(|| path.to_owned()),
            Site::Same | Site::Apart => path.to_owned(),
        }
    }
}

fn mapped(pairs: &[(PathBuf, PathBuf)], path: &Path) -> Option<PathBuf> {
    pairs.iter().find_map(|(own, host)| Some(host.join(path.strip_prefix(own).ok()?)))
}

/// Finds out. `data_dir` is there, and is canonical.
pub async fn find(docker: &Docker, data_dir: &Path) -> Result<Site, BackendError> {
    let private = private_base(data_dir).0;
    let probes = [Probe::new(data_dir)?, Probe::new(&private)?];
    let same = |path: &Path| path.to_owned();
    if sees_all(docker, &probes, &same).await? {
        return Ok(Site::Same);
    }
    for id in own_ids() {
        let Ok(found) = docker.inspect_container(&id, None::<InspectContainerOptions>).await else {
            continue;
        };
        let mut pairs: Vec<(PathBuf, PathBuf)> = found
            .mounts
            .into_iter()
            .flatten()
            .filter_map(|mount| Some((mount.destination?.into(), mount.source?.into())))
            .filter(|(_, source): &(PathBuf, PathBuf)| source.is_absolute())
            .collect();
        pairs.sort_by_key(|(own, _)| std::cmp::Reverse(own.components().count()));
        let all_mapped = probes.iter().all(|probe| mapped(&pairs, &probe.0).is_some());
        let site = Site::Mapped(pairs);
        if all_mapped && sees_all(docker, &probes, &|path| site.map(path)).await? {
            return Ok(site);
        }
    }
    Ok(Site::Apart)
}

/// A file that nobody else has; it goes with this value.
struct Probe(PathBuf);

impl Probe {
    fn new(dir: &Path) -> Result<Probe, BackendError> {
        let name =
            format!(".probe-{}-{}", std::process::id(), crate::clock::since_boot().as_nanos());
        let path = dir.join(name);
        let made = fs::create_dir_all(dir).and_then(|()| fs::write(&path, b""));
        made.map_err(|error| BackendError {
            code: "agent/data-dir",
            message: format!("the agent's directory {} cannot be written: {error}", dir.display()),
        })?;
        Ok(Probe(path))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

async fn sees_all(
    docker: &Docker,
    probes: &[Probe],
    map: &dyn Fn(&Path) -> PathBuf,
) -> Result<bool, BackendError> {
    for probe in probes {
        if !sees(docker, &map(&probe.0)).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the daemon can mount that. It is told to with an image that nobody has: a daemon that looks
/// at mounts first makes nothing, and says which of the two it lacks.
async fn sees(docker: &Docker, path: &Path) -> Result<bool, BackendError> {
    let absent = path.with_extension("absent");
    let (there, not_there) =
        tokio::join!(try_mount(docker, path, ABSENT), try_mount(docker, &absent, ABSENT));
    match (lacks_mount(&there?), lacks_mount(&not_there?)) {
        (there, true) => Ok(!there),
        // It looks at the image first (as Podman does), so it needs a real one.
        (_, false) => {
            let image = image::ensure(docker).await?;
            Ok(!lacks_mount(&try_mount(docker, path, &image).await?))
        }
    }
}

/// An image that nobody has.
const ABSENT: &str = "tenon.invalid/absent:absent";

/// What the daemon has against a container with that mount; empty when it made it.
async fn try_mount(docker: &Docker, path: &Path, image: &str) -> Result<String, BackendError> {
    let mount = Mount {
        typ: Some(MountType::BIND),
        source: Some(path.to_string_lossy().into_owned()),
        target: Some("/probe".to_owned()),
        read_only: Some(true),
        ..Mount::default()
    };
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(vec!["/probe".to_owned()]),
        host_config: Some(HostConfig { mounts: Some(vec![mount]), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    match docker.create_container(None::<CreateContainerOptions>, body).await {
        Ok(created) => {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            // It never ran; who cannot be told to remove it cannot be told anything.
            let _ = docker.remove_container(&created.id, Some(options)).await;
            Ok(String::new())
        }
        Err(error @ Error::DockerResponseServerError { .. }) => Ok(error::message(&error)),
        Err(error) => Err(BackendError {
            code: "docker/probe",
            message: format!("the daemon cannot be asked what it sees: {error}"),
        }),
    }
}

fn lacks_mount(refusal: &str) -> bool {
    let text = refusal.to_lowercase();
    ["source path does not exist", "no such file or directory"]
        .iter()
        .any(|part| text.contains(part))
}

/// By what the daemon may know the container that this process is in.
fn own_ids() -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut ids = ids_in(&read("/proc/self/mountinfo"));
    ids.extend(ids_in(&read("/proc/self/cgroup")));
    // Docker names the host after the container, if nobody names it otherwise.
    ids.push(read("/proc/sys/kernel/hostname").trim().to_owned());
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| !id.is_empty() && seen.insert(id.clone()));
    ids
}

/// Ids of containers in a text of the kernel's: the host name, the resolver's configuration and the
/// cgroup are all in places that are called after the container.
fn ids_in(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| {
        ["/containers/", "-containers/", "docker", "libpod"].iter().any(|word| line.contains(word))
    });
    let words = lines.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric()));
    let is_id = |word: &&str| word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit());
    words.filter(is_id).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_mapped_by_the_nearest_mount() {
        let site = Site::Mapped(vec![
            ("/data/deep".into(), "/srv/deep".into()),
            ("/data".into(), "/var/lib/docker/volumes/x/_data".into()),
        ]);
        for (own, host) in [
            ("/data/pods/a", "/var/lib/docker/volumes/x/_data/pods/a"),
            ("/data/deep/b", "/srv/deep/b"),
            ("/database", "/database"),
        ] {
            assert_eq!(site.map(Path::new(own)), Path::new(host));
        }
    }

    #[test]
    fn a_process_finds_its_container() {
        let id = "0123456789abcdef".repeat(4);
        for text in [
            format!(
                "1 2 8:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 x rw"
            ),
            format!("1 2 0:9 /containers/overlay-containers/{id}/userdata/hosts /etc/hosts rw - x"),
            format!("0::/system.slice/docker-{id}.scope"),
            format!("12:pids:/docker/{id}"),
        ] {
            assert_eq!(ids_in(&text), std::slice::from_ref(&id), "{text}");
        }
        // Layers have names as long.
        assert!(ids_in(&format!("1 2 0:9 / / rw - overlay overlay rw,lowerdir={id}")).is_empty());
    }

    #[test]
    fn what_daemons_say_of_a_missing_source() {
        for text in [
            "invalid mount config for type \"bind\": bind source path does not exist: /a/.probe",
            "statfs /a/.probe: no such file or directory",
        ] {
            assert!(lacks_mount(text));
        }
        for text in ["", "No such image: tenon.invalid/absent:absent"] {
            assert!(!lacks_mount(text), "{text}");
        }
    }
}
