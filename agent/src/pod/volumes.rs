//! Volumes made real: each becomes a directory (or file) of the machine that can be mounted.
//!
//! What holds secrets goes into the attempt's private tree. Claims live as long as their run. What
//! only a cluster has (CSI drivers, tokens, network storage) is refused with a message.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tenon_tekton::k8s::{HostPathVolumeSource, KeyToPath, Volume, VolumeProjection};
use tenon_tekton::pod::{DIRECTORY_DRIVER, Pod};

use super::build::{BuildError, Place, Sees};
use super::dir::make_dir;
use super::env::{container_resource_field, pod_field};
use super::{Materials, PodDir, Refusal, paths};
use crate::policy::Policy;

/// Where a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// On the machine.
    pub source: PathBuf,
    /// No container may write to it.
    pub read_only: bool,
    /// It is the user's name for it, on the machine where containers run.
    pub on_host: bool,
}

/// Makes all volumes of a pod, by name.
pub fn make(
    dir: &PodDir,
    place: &Place,
    pod: &Pod,
    materials: &Materials,
) -> Result<BTreeMap<String, Mounted>, BuildError> {
    let mut made = BTreeMap::new();
    for volume in &pod.volumes {
        made.insert(volume.name.clone(), make_one(dir, place, pod, materials, volume)?);
    }
    Ok(made)
}

fn make_one(
    dir: &PodDir,
    place: &Place,
    pod: &Pod,
    materials: &Materials,
    volume: &Volume,
) -> Result<Mounted, BuildError> {
    let name = safe_name(&volume.name)?;
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode;
        let files = match materials.config_maps.get(&source.name) {
            Some(map) => project(&map.files(), &source.items, mode, source.optional, || {
                format!("configmap references non-existent config key: {}", source.name)
            })?,
            None if source.optional == Some(true) => Vec::new(),
            None => {
                return Err(missing(volume, &format!("configmap \"{}\" not found", source.name)));
            }
        };
        let source = dir.volume(name);
        write_files(&source, &files)?;
        return Ok(Mounted { source, read_only: true, on_host: false });
    }
    if let Some(source) = &volume.secret {
        let mode = source.default_mode;
        let files = match materials.secrets.get(&source.secret_name) {
            Some(secret) => project(&secret.values, &source.items, mode, source.optional, || {
                format!("references non-existent secret key: {}", source.secret_name)
            })?,
            None if source.optional == Some(true) => Vec::new(),
            None => {
                let message = format!("secret \"{}\" not found", source.secret_name);
                return Err(missing(volume, &message));
            }
        };
        let source = dir.private_volume(name);
        write_files(&source, &files)?;
        return Ok(Mounted { source, read_only: true, on_host: false });
    }
    if let Some(source) = &volume.projected {
        let mut files = Vec::new();
        for projection in &source.sources {
            files.extend(projected(pod, materials, volume, projection, source.default_mode)?);
        }
        let source = dir.private_volume(name);
        write_files(&source, &files)?;
        return Ok(Mounted { source, read_only: true, on_host: false });
    }
    if let Some(source) = &volume.downward_api {
        let files = downward(pod, &source.items, source.default_mode)?;
        let source = dir.volume(name);
        write_files(&source, &files)?;
        return Ok(Mounted { source, read_only: true, on_host: false });
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        let source = place.claims.directory(&claim.claim_name)?;
        if place.sees == Sees::Copies && place.claims.is_elsewhere(&claim.claim_name) {
            return Err(not_seen(volume, &source));
        }
        if !source.is_dir() {
            make_dir(&source, 0o777)?;
        }
        return Ok(Mounted { source, read_only: claim.read_only, on_host: false });
    }
    if let Some(host) = &volume.host_path {
        let source = match place.sees {
            Sees::Everything => host_path(&place.policy, volume, host)?,
            // Whether it is there, and what it is, is for the daemon to see.
            Sees::Mapped | Sees::Copies => absolute(volume, host)?,
        };
        return Ok(Mounted { source, read_only: false, on_host: true });
    }
    if let Some(csi) = &volume.csi
        && csi.driver == DIRECTORY_DRIVER
    {
        let path = csi.volume_attributes.get("path");
        let source = PathBuf::from(path.map(String::as_str).unwrap_or_default());
        if !source.is_absolute() || !source.is_dir() {
            let message = format!("\"{}\" is not a directory", source.display());
            return Err(missing(volume, &message));
        }
        if place.sees == Sees::Copies {
            return Err(not_seen(volume, &source));
        }
        let source = source.canonicalize()?;
        place.policy.check_path(&format!("the volume \"{}\"", volume.name), &source)?;
        return Ok(Mounted { source, read_only: csi.read_only == Some(true), on_host: false });
    }
    if let Some(kind) = only_in_a_cluster(volume) {
        return Err(BuildError::Refused(Refusal {
            reason: "CreateContainerConfigError",
            message: format!(
                "volume \"{}\" is of type {kind}, which only a Kubernetes cluster can provide; \
                 use an emptyDir, configMap, secret, projected, persistentVolumeClaim or hostPath",
                volume.name
            ),
        }));
    }
    // Without any source it is an emptyDir.
    let in_memory = volume.empty_dir.as_ref().is_some_and(|e| e.medium == "Memory");
    let source = if in_memory { dir.private_volume(name) } else { dir.volume(name) };
    make_dir(&source, 0o777)?;
    Ok(Mounted { source, read_only: false, on_host: false })
}

fn only_in_a_cluster(volume: &Volume) -> Option<&'static str> {
    let kinds = [
        ("csi", volume.csi.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("image", !volume.image.is_null()),
        ("nfs", !volume.nfs.is_null()),
        ("iscsi", !volume.iscsi.is_null()),
        ("fc", !volume.fc.is_null()),
        ("cephfs", !volume.cephfs.is_null()),
        ("rbd", !volume.rbd.is_null()),
        ("flexVolume", !volume.flex_volume.is_null()),
        ("flocker", !volume.flocker.is_null()),
        ("cinder", !volume.cinder.is_null()),
        ("glusterfs", !volume.glusterfs.is_null()),
        ("gitRepo", !volume.git_repo.is_null()),
        ("gcePersistentDisk", !volume.gce_persistent_disk.is_null()),
        ("awsElasticBlockStore", !volume.aws_elastic_block_store.is_null()),
        ("azureDisk", !volume.azure_disk.is_null()),
        ("azureFile", !volume.azure_file.is_null()),
        ("vsphereVolume", !volume.vsphere_volume.is_null()),
        ("quobyte", !volume.quobyte.is_null()),
        ("photonPersistentDisk", !volume.photon_persistent_disk.is_null()),
        ("portworxVolume", !volume.portworx_volume.is_null()),
        ("scaleIO", !volume.scale_io.is_null()),
        ("storageos", !volume.storageos.is_null()),
    ];
    kinds.into_iter().find(|(_, there)| *there).map(|(kind, _)| kind)
}

/// A name that is one path component; Kubernetes' names always are.
pub(super) fn safe_name(name: &str) -> Result<&str, BuildError> {
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(BuildError::Refused(Refusal {
            reason: "CreateContainerConfigError",
            message: format!("\"{name}\" is not a valid name of a volume or claim"),
        }));
    }
    Ok(name)
}

fn missing(volume: &Volume, message: &str) -> BuildError {
    BuildError::Refused(Refusal {
        reason: "CreateContainerConfigError",
        message: format!("MountVolume.SetUp failed for volume \"{}\" : {message}", volume.name),
    })
}

/// One file of a projection.
struct File {
    path: String,
    contents: Vec<u8>,
    mode: u32,
}

fn project(
    values: &BTreeMap<String, Vec<u8>>,
    items: &[KeyToPath],
    default_mode: Option<i32>,
    optional: Option<bool>,
    missing_key: impl Fn() -> String,
) -> Result<Vec<File>, BuildError> {
    let mode = |own: Option<i32>| own.or(default_mode).unwrap_or(0o644) as u32 & 0o777;
    if items.is_empty() {
        let file = |(key, contents): (&String, &Vec<u8>)| File {
            path: key.clone(),
            contents: contents.clone(),
            mode: mode(None),
        };
        return Ok(values.iter().map(file).collect());
    }
    let mut files = Vec::new();
    for item in items {
        match values.get(&item.key) {
            Some(contents) => files.push(File {
                path: item.path.clone(),
                contents: contents.clone(),
                mode: mode(item.mode),
            }),
            None if optional == Some(true) => {}
            None => {
                return Err(BuildError::Refused(Refusal {
                    reason: "CreateContainerConfigError",
                    message: format!("{} ({})", missing_key(), item.key),
                }));
            }
        }
    }
    Ok(files)
}

fn projected(
    pod: &Pod,
    materials: &Materials,
    volume: &Volume,
    projection: &VolumeProjection,
    mode: Option<i32>,
) -> Result<Vec<File>, BuildError> {
    if let Some(source) = &projection.secret {
        return match materials.secrets.get(&source.name) {
            Some(secret) => project(&secret.values, &source.items, mode, source.optional, || {
                format!("references non-existent secret key: {}", source.name)
            }),
            None if source.optional == Some(true) => Ok(Vec::new()),
            None => Err(missing(volume, &format!("secret \"{}\" not found", source.name))),
        };
    }
    if let Some(source) = &projection.config_map {
        return match materials.config_maps.get(&source.name) {
            Some(map) => project(&map.files(), &source.items, mode, source.optional, || {
                format!("configmap references non-existent config key: {}", source.name)
            }),
            None if source.optional == Some(true) => Ok(Vec::new()),
            None => Err(missing(volume, &format!("configmap \"{}\" not found", source.name))),
        };
    }
    if let Some(source) = &projection.downward_api {
        return downward(pod, &source.items, mode);
    }
    Err(BuildError::Refused(Refusal {
        reason: "CreateContainerConfigError",
        message: format!(
            "volume \"{}\" projects a service account token or a certificate, which only a \
             Kubernetes cluster can provide",
            volume.name
        ),
    }))
}

fn downward(
    pod: &Pod,
    items: &serde_json::Value,
    default_mode: Option<i32>,
) -> Result<Vec<File>, BuildError> {
    let mut files = Vec::new();
    for item in items.as_array().into_iter().flatten() {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let of_container = &item["resourceFieldRef"];
        let contents = if of_container.is_object() {
            let container = text(&of_container["containerName"]);
            let resource = text(&of_container["resource"]);
            container_resource_field(pod, &container, &resource, &of_container["divisor"])
        } else {
            pod_field(pod, &text(&item["fieldRef"]["fieldPath"]))
        };
        let own_mode = item["mode"].as_i64().and_then(|mode| u32::try_from(mode).ok());
        files.push(File {
            path: text(&item["path"]),
            contents: contents.map_err(BuildError::Refused)?.into_bytes(),
            mode: own_mode.unwrap_or(default_mode.unwrap_or(0o644) as u32) & 0o777,
        });
    }
    Ok(files)
}

/// Writes each value to a file named after its key.
pub fn write_values(root: &Path, values: &BTreeMap<String, Vec<u8>>) -> Result<(), BuildError> {
    let files = project(values, &[], None, None, String::new)?;
    write_files(root, &files)
}

fn write_files(root: &Path, files: &[File]) -> Result<(), BuildError> {
    make_dir(root, 0o755)?;
    for file in files {
        let (parent, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let directory = paths::below(root, parent).map_err(|error| bad_path(&file.path, error))?;
        let path = directory.join(safe_name(name)?);
        fs::write(&path, &file.contents)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
    }
    Ok(())
}

/// A path that the user chose and that cannot be is the user's; anything else is the machine's.
pub fn bad_path(path: &str, error: io::Error) -> BuildError {
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::NotADirectory | io::ErrorKind::NotFound => {
            BuildError::Refused(Refusal {
                reason: "CreateContainerConfigError",
                message: format!("path \"{path}\" of a volume cannot be used: {error}"),
            })
        }
        _ => BuildError::Io(error),
    }
}

/// A directory of the agent's machine, where containers run on another one.
fn not_seen(volume: &Volume, source: &Path) -> BuildError {
    let message = format!(
        "the directory \"{}\" is on the agent's machine, and the Docker daemon is on another one, \
         which does not see it; use an emptyDir or a volumeClaimTemplate, and fetch the files in a step",
        source.display()
    );
    missing(volume, &message)
}

fn absolute(volume: &Volume, host: &HostPathVolumeSource) -> Result<PathBuf, BuildError> {
    let path = PathBuf::from(&host.path);
    if path.is_absolute() {
        // As it was checked: without `..`, which may lead elsewhere behind a symlink.
        return Ok(PathBuf::from(paths::clean(&host.path)));
    }
    Err(missing(volume, &format!("hostPath \"{}\" is not an absolute path", host.path)))
}

/// The path without symlinks: it is what was checked that is mounted.
fn host_path(
    policy: &Policy,
    volume: &Volume,
    host: &HostPathVolumeSource,
) -> Result<PathBuf, BuildError> {
    let path = absolute(volume, host)?;
    let kind = host.r#type.as_deref().unwrap_or_default();
    let refuse = |problem: &str| missing(volume, &format!("hostPath \"{}\" {problem}", host.path));
    let path = real(&path).map_err(|_| refuse("leads nowhere"))?;
    policy.check_path(&format!("the volume \"{}\"", volume.name), &path)?;
    if !path.exists() {
        match kind {
            "" | "DirectoryOrCreate" => make_dir(&path, 0o755)?,
            "FileOrCreate" => drop(fs::File::create(&path)?),
            _ => return Err(refuse("does not exist")),
        }
    }
    let fits = match kind {
        "Directory" | "DirectoryOrCreate" => path.is_dir(),
        "File" | "FileOrCreate" => path.is_file(),
        _ => true,
    };
    if !fits {
        return Err(refuse(&format!("is not a {kind}")));
    }
    Ok(path)
}

/// A path without symlinks, as far as it is there.
fn real(path: &Path) -> io::Result<PathBuf> {
    let clean = PathBuf::from(paths::clean(&path.to_string_lossy()));
    let there =
        clean.ancestors().find(|it| it.symlink_metadata().is_ok()).unwrap_or(Path::new("/"));
    let rest = clean.strip_prefix(there).unwrap_or(Path::new(""));
    let there = there.canonicalize()?;
    // Joining nothing would add a slash.
    Ok(if rest.as_os_str().is_empty() { there } else { there.join(rest) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_downward_api_says_of_the_pod_and_of_its_containers() {
        let limits = json!({"cpu": "1500m", "memory": "64Mi"});
        let step = json!({"name": "s", "computeResources": {"limits": limits}});
        let pod = serde_json::from_value(json!({"name": "p", "steps": [step]})).unwrap();
        let item = |path: &str, container: &str, resource: &str, divisor: &str| {
            json!({"path": path, "mode": 256, "resourceFieldRef":
                {"containerName": container, "resource": resource, "divisor": divisor}})
        };
        let items = json!([
            {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
            item("cpu", "step-s", "limits.cpu", "1m"),
            item("memory", "step-s", "limits.memory", "1Mi"),
        ]);
        let files = downward(&pod, &items, None).unwrap();
        let files: Vec<(&str, &[u8], u32)> =
            files.iter().map(|file| (&*file.path, &*file.contents, file.mode)).collect();
        assert_eq!(
            files,
            [("name", &b"p"[..], 0o644), ("cpu", b"1500", 0o400), ("memory", b"64", 0o400)]
        );
        let error = downward(&pod, &json!([item("x", "step-t", "limits.cpu", "1")]), None).err();
        assert!(error.unwrap().to_string().contains("container step-t not found"));
    }
}
