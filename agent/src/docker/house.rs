//! Housekeeping on a Docker daemon: what the agent's labels say is its own and nobody needs, and images
//! when the disk is nearly full.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::SystemTime;

use bollard::models::ContainerSummary;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptions, RemoveContainerOptionsBuilder,
    RemoveImageOptions,
};

use super::site::Site;
use super::{DockerBackend, error, labels};
use crate::clock::now_ms;
use crate::keeping::Needed;
use crate::keeping::claims;
use crate::keeping::disk::Disk;
use crate::keeping::images::{Known, candidates};
use crate::pod::PodDir;

/// So many percent are never enough to remove images: also a full disk is nothing to them.
const NEVER: u8 = 100;

impl DockerBackend {
    /// Where the daemon keeps images and containers, if that can be seen from here.
    pub(super) async fn docker_root(&self) -> Option<PathBuf> {
        if self.site != Site::Same {
            return None;
        }
        let info = self.docker.info().await.ok()?;
        let root = PathBuf::from(info.docker_root_dir?);
        root.is_dir().then_some(root)
    }

    /// One look at everything. What was done is said for the agent's log.
    pub(super) async fn look_after(&self, needed: &Needed) -> Vec<String> {
        let mut done = Vec::new();
        let orphans = self.remove_orphans(needed).await;
        if orphans > 0 {
            done.push(format!("removed {orphans} things of attempts that are not known any more"));
        }
        if let Some(far) = &self.far {
            far.keep_up().await;
            match self.remove_left_behind().await {
                Ok(0) => {}
                Ok(count) => done.push(format!("removed {count} things of agents that are gone")),
                Err(error) => tracing::warn!(%error, "cannot look for what others have left"),
            }
        }
        let house = &self.options.house;
        let now = SystemTime::now();
        for dir in claims::outdated(&self.runs_dir(), needed, house.keep_claims, now) {
            if let Some(far) = &self.far {
                far.remove(&[&dir]).await;
            }
            match self.trees.remove(&dir).await {
                Ok(()) => {
                    done.push(format!("removed claims that nobody came for: {}", dir.display()));
                }
                Err(error) => tracing::warn!(path = %dir.display(), %error, "cannot be removed"),
            }
        }
        done.extend(self.collect_images().await);
        done
    }

    async fn remove_orphans(&self, needed: &Needed) -> usize {
        let me = self.options.owner.name();
        let filters = HashMap::from([("label", vec![format!("{}={me}", labels::OWNER)])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let containers = match self.docker.list_containers(Some(options)).await {
            Ok(containers) => containers,
            Err(error) => {
                tracing::warn!(%error, "cannot look for what was left");
                return 0;
            }
        };
        let directories = PodDir::keys(&self.options.data_dir, &self.options.owner);
        // One without a key is of no attempt: it does something for the agent itself.
        let key_of = |container: &ContainerSummary| {
            let labels = container.labels.as_ref()?;
            labels.get(labels::KEY).cloned()
        };
        let there = containers.iter().filter_map(key_of).chain(directories.iter().cloned());
        let orphans = {
            let mut orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
            orphans.look(there, &needed.attempts)
        };
        let mut removed = 0;
        for container in
            containers.iter().filter(|it| key_of(it).is_some_and(|key| orphans.contains(&key)))
        {
            let id = container.id.as_deref().unwrap_or_default();
            self.kill_inside(id).await;
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            match self.docker.remove_container(id, Some(options)).await {
                Ok(()) => removed += 1,
                Err(error) if matches!(error::status(&error), Some(404 | 409)) => {}
                Err(error) => tracing::warn!(%id, %error, "cannot be removed"),
            }
        }
        for key in directories.iter().filter(|key| orphans.contains(*key)) {
            let Ok(dir) = PodDir::of(&self.options.data_dir, key) else { continue };
            self.remove_directories(&dir).await;
            removed += 1;
        }
        removed
    }

    /// Removes images until enough of the disk is free, when too little is.
    async fn collect_images(&self) -> Option<String> {
        let house = &self.options.house;
        let root = self.docker_root().await?;
        let used = || Disk::of(&root).ok().map(|disk| disk.used_percent());
        let images = self.known_images().await.ok()?;
        let there: BTreeSet<String> = images.iter().map(|image| image.id.clone()).collect();
        let record = {
            let mut record = self.images.record();
            if let Err(error) = record.save(|id| there.contains(id)) {
                tracing::warn!(%error, "cannot write down which images were used");
            }
            record.used().clone()
        };
        if house.image_high >= NEVER || used()? < house.image_high {
            return None;
        }
        let mut removed = 0;
        for image in candidates(images, &record, &house.keep_images, now_ms()) {
            if used()? <= house.image_low {
                break;
            }
            removed += usize::from(self.remove_image(&image).await);
        }
        let percent = used()?;
        Some(format!("removed {removed} images; {percent} % of {} are used", root.display()))
    }

    async fn known_images(&self) -> Result<Vec<Known>, bollard::errors::Error> {
        let containers = ListContainersOptionsBuilder::default().all(true).build();
        let images = self.docker.list_images(None::<ListImagesOptions>).await?;
        // Asked after the images: whoever has taken one meanwhile is seen.
        let containers = self.docker.list_containers(Some(containers)).await?;
        let in_use: HashSet<String> =
            containers.into_iter().filter_map(|container| container.image_id).collect();
        let known = images.into_iter().map(|image| {
            let names = image.repo_tags.into_iter().chain(image.repo_digests);
            Known {
                names: names.filter(|name| !name.contains("<none>")).collect(),
                made_ms: image.created.saturating_mul(1000),
                in_use: in_use.contains(&image.id),
                id: image.id,
            }
        });
        Ok(known.collect())
    }

    /// By each of its names, because the daemon removes none that has several by its id.
    async fn remove_image(&self, image: &Known) -> bool {
        let names = match image.names.is_empty() {
            true => vec![image.id.clone()],
            false => image.names.clone(),
        };
        let mut is_gone = true;
        for name in names {
            self.images.forget_id(&image.id);
            let none = None::<RemoveImageOptions>;
            match self.docker.remove_image(&name, none, None).await {
                Ok(_) => {}
                // With the last tag its digests have gone; or somebody uses it by now.
                Err(error) if error::status(&error) == Some(404) => {}
                Err(error) => {
                    tracing::debug!(%name, %error, "the image cannot be removed");
                    is_gone = false;
                }
            }
        }
        is_gone
    }
}
