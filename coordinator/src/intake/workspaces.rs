//! What a workspace is bound to, given as text.
//!
//! A directory of this machine travels as a binding to the `directory.tenon.dev` CSI driver: a legal
//! shape of Tekton's API that agents know how to mount.

use std::collections::BTreeMap;
use std::path::Path;

use tenon_tekton::k8s::{
    ConfigMapVolumeSource, CsiVolumeSource, EmptyDirVolumeSource, SecretVolumeSource,
};
use tenon_tekton::load::Bundle;
use tenon_tekton::pod::DIRECTORY_DRIVER;
use tenon_tekton::v1::WorkspaceBinding;

use super::error::{Error, Result};
use super::{Front, Request};

/// Puts the workspaces of the request over those of a run.
pub(super) fn apply(
    request: &Request,
    bundle: &Bundle,
    workspaces: &mut Vec<WorkspaceBinding>,
) -> Result<()> {
    for (name, source) in &request.workspaces {
        let binding = parse(request.front, name, source, bundle)?;
        match workspaces.iter_mut().find(|known| known.name == binding.name) {
            Some(known) => *known = binding,
            None => workspaces.push(binding),
        }
    }
    if request.front == Front::Api {
        refuse_directories(workspaces)?;
    }
    Ok(())
}

/// Whoever may submit a run may not thereby read the disks of the machines that run it.
fn refuse_directories(workspaces: &[WorkspaceBinding]) -> Result<()> {
    let is_directory = |binding: &&WorkspaceBinding| {
        binding.csi.as_ref().is_some_and(|csi| csi.driver == DIRECTORY_DRIVER)
    };
    match workspaces.iter().find(is_directory) {
        Some(binding) => Err(no_directory(Front::Api, &binding.name, "")),
        None => Ok(()),
    }
}

fn no_directory(front: Front, name: &str, source: &str) -> Error {
    let message = format!(
        "{}: a directory of some machine cannot be used by a run of a cluster",
        front.workspace(name, source)
    );
    Error::request("workspaces", "invalid/workspace", message)
        .hint("bind it to emptyDir, configmap:NAME, secret:NAME or a volumeClaimTemplate")
}

fn parse(front: Front, name: &str, source: &str, bundle: &Bundle) -> Result<WorkspaceBinding> {
    let shown = front.workspace(name, source);
    let wrong = |message: String| {
        Error::request("workspaces", "invalid/workspace", format!("{shown}: {message}"))
    };
    if name.is_empty() || source.is_empty() {
        return Err(wrong("a workspace needs a name and a source".to_owned()));
    }
    let mut binding = WorkspaceBinding { name: name.to_owned(), ..WorkspaceBinding::default() };
    let in_files = |kind: &str, object: &str| match bundle.find(kind, object) {
        Some(_) => Ok(object.to_owned()),
        None => Err(wrong(format!("no {kind} \"{object}\" in the files"))),
    };
    if source == "emptyDir" {
        binding.empty_dir = Some(EmptyDirVolumeSource::default());
    } else if let Some(object) = source.strip_prefix("configmap:") {
        binding.config_map = Some(ConfigMapVolumeSource {
            name: in_files("ConfigMap", object)?,
            ..ConfigMapVolumeSource::default()
        });
    } else if let Some(object) = source.strip_prefix("secret:") {
        binding.secret = Some(SecretVolumeSource {
            secret_name: in_files("Secret", object)?,
            ..SecretVolumeSource::default()
        });
    } else if front == Front::Api {
        return Err(no_directory(front, name, source));
    } else {
        let path = Path::new(source)
            .canonicalize()
            .map_err(|error| wrong(format!("cannot use {source}: {error}")))?;
        if !path.is_dir() {
            return Err(wrong(format!("{source} is no directory")));
        }
        let Some(path) = path.to_str() else {
            return Err(wrong("the path is not UTF-8".to_owned()));
        };
        binding.csi = Some(CsiVolumeSource {
            driver: DIRECTORY_DRIVER.to_owned(),
            volume_attributes: BTreeMap::from([("path".to_owned(), path.to_owned())]),
            ..CsiVolumeSource::default()
        });
    }
    Ok(binding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let path = path.to_str().unwrap();
        let bundle = Bundle::default();
        let parse = |name: &str, source: &str| parse(Front::CommandLine, name, source, &bundle);
        assert_eq!(parse("src", path).unwrap().csi.unwrap().volume_attributes["path"], path);
        assert!(parse("scratch", "emptyDir").unwrap().empty_dir.is_some());
        for (name, source) in [
            ("src", ""),
            ("", "x"),
            ("src", "/no/such/dir"),
            ("c", "configmap:none"),
            ("s", "secret:none"),
        ] {
            assert_eq!(parse(name, source).unwrap_err().code(), "invalid/workspace", "{source}");
        }
    }

    #[test]
    fn a_remote_request_names_no_directory() {
        let error = parse(Front::Api, "src", "/tmp", &Bundle::default()).unwrap_err();
        assert!(error.to_string().contains("workspace src: a directory"), "{error}");
        let mut binding = WorkspaceBinding { name: "src".to_owned(), ..Default::default() };
        binding.csi =
            Some(CsiVolumeSource { driver: DIRECTORY_DRIVER.to_owned(), ..Default::default() });
        assert!(refuse_directories(&[binding]).is_err());
    }
}
