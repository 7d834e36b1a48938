//! Removing directories in which containers of other users wrote.
//!
//! An agent that is root just removes them. One that is not lets a container do it, which is root.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bollard::Docker;

use super::helper::{self, Order};
use crate::owner::Owner;
use crate::pod::remove_tree;

/// Removes directory trees.
pub struct Trees {
    docker: Docker,
    entrypoint_dir: PathBuf,
    owner: Owner,
    image: Mutex<Option<String>>,
}

impl Trees {
    /// Nothing to remove yet.
    pub fn new(docker: Docker, entrypoint_dir: PathBuf, owner: Owner) -> Trees {
        Trees { docker, entrypoint_dir, owner, image: Mutex::new(None) }
    }

    /// Any image that is here: what removes needs nothing of it.
    pub fn use_image(&self, image: &str) {
        let mut known = self.image.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(image.to_owned());
    }

    /// Removes a tree that may be absent.
    pub async fn remove(&self, path: &Path) -> io::Result<()> {
        match remove_tree(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.purge(path).await;
                remove_tree(path)
            }
            done => done,
        }
    }

    async fn purge(&self, path: &Path) {
        let image = {
            let known = self.image.lock().unwrap_or_else(PoisonError::into_inner);
            known.clone()
        };
        let Some(image) = image else {
            return;
        };
        let order = Order {
            image,
            args: &["purge", "/tekton/purge"],
            mounts: vec![helper::bind(path, "/tekton/purge", false)],
            inside: None,
        };
        // What it could not remove, the caller finds.
        let _ = helper::run(&self.docker, &self.entrypoint_dir, &self.owner, order).await;
    }
}
