//! `-w name=SOURCE`: what a workspace is bound to.
//!
//! A directory of this machine travels as a binding to the `directory.tenon.dev` CSI driver: a legal
//! shape of Tekton's API that agents know how to mount.

use std::collections::BTreeMap;
use std::path::Path;

use tenon_tekton::k8s::{
    ConfigMapVolumeSource, CsiVolumeSource, EmptyDirVolumeSource, SecretVolumeSource,
};
use tenon_tekton::load::Bundle;
use tenon_tekton::v1::WorkspaceBinding;

use crate::exit::{Exit, Failure};

/// The name of the driver that mounts a directory of the agent's machine.
const DIRECTORY_DRIVER: &str = "directory.tenon.dev";

/// Puts the workspaces of the command line over those of a run.
pub fn apply(
    given: &[String],
    bundle: &Bundle,
    workspaces: &mut Vec<WorkspaceBinding>,
) -> Result<(), Failure> {
    for text in given {
        let binding = parse(text, bundle)?;
        match workspaces.iter_mut().find(|known| known.name == binding.name) {
            Some(known) => *known = binding,
            None => workspaces.push(binding),
        }
    }
    Ok(())
}

fn parse(text: &str, bundle: &Bundle) -> Result<WorkspaceBinding, Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    let Some((name, source)) =
        text.split_once('=').filter(|(name, source)| !name.is_empty() && !source.is_empty())
    else {
        return Err(usage(format!("-w {text}: not of the form NAME=SOURCE"))
            .hint("SOURCE is a directory, emptyDir, configmap:NAME or secret:NAME"));
    };
    let mut binding = WorkspaceBinding { name: name.to_owned(), ..WorkspaceBinding::default() };
    let in_files = |kind: &str, object: &str| match bundle.find(kind, object) {
        Some(_) => Ok(object.to_owned()),
        None => Err(usage(format!("-w {text}: no {kind} \"{object}\" in the files"))),
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
    } else {
        let path = Path::new(source)
            .canonicalize()
            .map_err(|error| usage(format!("-w {text}: cannot use {source}: {error}")))?;
        if !path.is_dir() {
            return Err(usage(format!("-w {text}: {source} is no directory")));
        }
        let Some(path) = path.to_str() else {
            return Err(usage(format!("-w {text}: the path is not UTF-8")));
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
        let binding = parse(&format!("src={path}"), &bundle).unwrap();
        assert_eq!(binding.csi.unwrap().volume_attributes["path"], path);
        assert!(parse("scratch=emptyDir", &bundle).unwrap().empty_dir.is_some());
        for bad in ["src", "src=", "=x", "src=/no/such/dir", "c=configmap:none", "s=secret:none"] {
            assert_eq!(parse(bad, &bundle).unwrap_err().exit, Exit::Usage, "{bad}");
        }
    }
}
