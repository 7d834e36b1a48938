//! Images: which one stands for what a Task names, whether it is here, and pulling it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::models::ImageInspect;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptions};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::error::{self, Failure};
use super::registry;
use crate::ImageMap;
use crate::backend::Sink;
use crate::clock::now_ms;
use crate::image_map::has_tag;
use crate::keeping::images::UseRecord;
use crate::pod::PullPolicy;

/// Pauses between attempts to pull when the registry has a hiccup.
const BACK_OFF: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(9)];

/// Names of images that a coordinator is told.
const OFFERED: usize = 100;

/// What is known of an image that is here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What to tell the daemon.
    pub reference: String,
    /// What a status shows as `imageID`.
    pub image_id: String,
    /// Its ENTRYPOINT.
    pub entrypoint: Vec<String>,
    /// Its CMD.
    pub cmd: Vec<String>,
    /// Its USER.
    pub user: String,
    /// The daemon's id of it.
    #[serde(default)]
    pub id: String,
}

/// The images of this machine.
pub struct Images {
    docker: Docker,
    map: ImageMap,
    // By reference. An inspection costs milliseconds, and a run asks for the same image many times;
    // what is cached is checked by id when a container is created of it.
    known: Mutex<HashMap<String, Image>>,
    /// Which were used when.
    used: Mutex<UseRecord>,
}

impl Images {
    /// Nothing is known yet but what was used before, as it stands in the agent's directory.
    pub fn new(docker: Docker, map: ImageMap, data_dir: &Path) -> Images {
        let used = Mutex::new(UseRecord::open(data_dir));
        Images { docker, map, known: Mutex::default(), used }
    }

    /// Which were used when.
    pub fn record(&self) -> MutexGuard<'_, UseRecord> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets an image under all its names: it is about to be removed.
    pub fn forget_id(&self, id: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, image| image.id != id);
    }

    /// The names of images that are here, those that were made last first.
    pub async fn names(&self) -> Vec<String> {
        // A daemon that does not answer has none to offer, and says so where it matters.
        let listed = self.docker.list_images(None::<ListImagesOptions>).await.unwrap_or_default();
        let mut names =
            listed.into_iter().map(|image| (image.created, image.repo_tags)).collect::<Vec<_>>();
        names.sort_by_key(|(created, _)| std::cmp::Reverse(*created));
        names.into_iter().flat_map(|(_, names)| names).take(OFFERED).collect()
    }

    /// Makes sure that the image a Task names is here, and takes note that it is used. The error is the
    /// kubelet's message.
    pub async fn ensure(
        &self,
        name: &str,
        policy: PullPolicy,
        pull_configs: &[Vec<u8>],
        sink: &dyn Sink,
    ) -> Result<Image, PullError> {
        let image = self.find(name, policy, pull_configs, sink).await?;
        if let Err(error) = self.record().note(&image.id, now_ms()) {
            tracing::warn!(%error, "cannot write down which images were used");
        }
        Ok(image)
    }

    async fn find(
        &self,
        name: &str,
        policy: PullPolicy,
        pull_configs: &[Vec<u8>],
        sink: &dyn Sink,
    ) -> Result<Image, PullError> {
        let reference = self.map.replace(name).unwrap_or_else(|| name.to_owned());
        if policy != PullPolicy::Always {
            if let Some(image) = self.cached(&reference, name) {
                return Ok(image);
            }
            match self.docker.inspect_image(&reference).await {
                Ok(found) => return Ok(self.remember(&reference, name, &found)),
                Err(error) if error::status(&error) == Some(404) => {}
                Err(error) => return Err(PullError::daemon(&reference, &error)),
            }
            if policy == PullPolicy::Never {
                return Err(PullError::Refused(format!(
                    "Container image \"{reference}\" is not present with pull policy of Never"
                )));
            }
        }
        self.pull(&reference, pull_configs, sink).await?;
        match self.docker.inspect_image(&reference).await {
            Ok(found) => Ok(self.remember(&reference, name, &found)),
            Err(error) => Err(PullError::daemon(&reference, &error)),
        }
    }

    /// Forgets an image that turned out not to be here any more.
    pub fn forget(&self, reference: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(reference);
    }

    fn cached(&self, reference: &str, name: &str) -> Option<Image> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut image = known.get(reference)?.clone();
        drop(known);
        if name.contains('@') {
            image.image_id = name.to_owned();
        }
        Some(image)
    }

    fn remember(&self, reference: &str, name: &str, found: &ImageInspect) -> Image {
        let mut image = describe(reference, found);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(reference.to_owned(), image.clone());
        drop(known);
        if name.contains('@') {
            // Named by digest: that is what it is, also where a mirror's image stands for it.
            image.image_id = name.to_owned();
        }
        image
    }

    async fn pull(
        &self,
        reference: &str,
        pull_configs: &[Vec<u8>],
        sink: &dyn Sink,
    ) -> Result<(), PullError> {
        let credentials = registry::credentials(reference, pull_configs).await;
        let mut pauses = BACK_OFF.iter();
        loop {
            let error = match self.pull_once(reference, credentials.clone(), sink).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if error::is_unreachable(&error) {
                return Err(PullError::daemon(reference, &error));
            }
            let text = error::message(&error);
            if error::is_disk_full(&text) {
                return Err(PullError::Failed(Failure::daemon("pulling", &error)));
            }
            match pauses.next() {
                Some(pause) if is_transient(&text) => {
                    sink.progress(&format!("waiting to pull {reference} again: {text}"), 0, 0);
                    tokio::time::sleep(*pause).await;
                }
                _ => {
                    return Err(PullError::Refused(format!(
                        "failed to pull image \"{reference}\": {text}"
                    )));
                }
            }
        }
    }

    async fn pull_once(
        &self,
        reference: &str,
        credentials: Option<bollard::auth::DockerCredentials>,
        sink: &dyn Sink,
    ) -> Result<(), bollard::errors::Error> {
        let what = format!("pulling {reference}");
        sink.progress(&what, 0, 0);
        // Without a tag the daemon would pull all of them.
        let image = if reference.contains('@') || has_tag(reference) {
            reference.to_owned()
        } else {
            format!("{reference}:latest")
        };
        let options = CreateImageOptionsBuilder::default().from_image(&image).build();
        let mut progress = self.docker.create_image(Some(options), None, credentials);
        let mut layers: HashMap<String, (u64, u64)> = HashMap::new();
        while let Some(info) = progress.next().await {
            let info = info?;
            let (Some(layer), Some(detail)) = (info.id, info.progress_detail) else {
                continue;
            };
            let bytes = |count: Option<i64>| count.and_then(|n| u64::try_from(n).ok());
            if info.status.as_deref() == Some("Downloading")
                && let (Some(done), Some(total)) = (bytes(detail.current), bytes(detail.total))
            {
                layers.insert(layer, (done, total));
                let done = layers.values().map(|layer| layer.0).sum();
                let total = layers.values().map(|layer| layer.1).sum();
                sink.progress(&what, done, total);
            }
        }
        Ok(())
    }
}

fn describe(reference: &str, found: &ImageInspect) -> Image {
    let config = found.config.clone().unwrap_or_default();
    let digest = found.repo_digests.as_ref().and_then(|digests| digests.first());
    Image {
        reference: reference.to_owned(),
        image_id: digest.or(found.id.as_ref()).cloned().unwrap_or_default(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        cmd: config.cmd.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        id: found.id.clone().unwrap_or_default(),
    }
}

/// Whether trying again may help: a network or registry hiccup, not a name that does not exist.
fn is_transient(text: &str) -> bool {
    let text = text.to_lowercase();
    [
        "timeout",
        "temporary failure",
        "connection reset",
        "unexpected eof",
        "too many requests",
        "toomanyrequests",
        "500 internal",
        "502 bad gateway",
        "503 service",
        "tls handshake",
        "i/o timeout",
    ]
    .iter()
    .any(|sign| text.contains(sign))
}

/// An image cannot be had.
#[derive(Debug)]
pub enum PullError {
    /// With the message that the kubelet would give.
    Refused(String),
    /// Through no fault of the image's.
    Failed(Failure),
}

impl PullError {
    fn daemon(reference: &str, error: &bollard::errors::Error) -> PullError {
        match Failure::daemon(&format!("image \"{reference}\""), error) {
            Failure::Refused { message, .. } => PullError::Refused(message),
            failure => PullError::Failed(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hiccups_and_refusals() {
        for (text, transient) in [
            ("Get \"https://r/v2/\": net/http: TLS handshake timeout", true),
            ("received unexpected HTTP status: 503 Service Unavailable", true),
            ("toomanyrequests: You have reached your pull rate limit", true),
            ("manifest for r/x:1 not found: manifest unknown", false),
            ("pull access denied for x, repository does not exist", false),
            ("dial tcp: lookup r on 1.1.1.1:53: no such host", false),
            ("dial tcp 127.0.0.1:5000: connect: connection refused", false),
        ] {
            assert_eq!(is_transient(text), transient, "{text}");
        }
    }
}
