//! Going on with an attempt whose agent died: its containers are found by their names, and what is to
//! be known of them in the attempt's private directory, which is in memory because there are values
//! of Secrets in it.

use std::collections::BTreeMap;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use bollard::query_parameters::InspectContainerOptions;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tenon_proto::agent::v1::{AttemptId, ended::Outcome};

use super::{Attempt, Container, PAUSE};
use crate::backend::{Cancel, Sink};
use crate::docker::error;
use crate::docker::far::Link;
use crate::docker::images::Image;
use crate::docker::{DockerBackend, Failure, labels};
use crate::mask::Masker;
use crate::pod::{PodDir, PodPlan};
use crate::record::{Mark, mark};

/// What another process needs in order to go on.
#[derive(Serialize, Deserialize)]
struct Saved {
    plan: PodPlan,
    /// Of the steps, then of the sidecars.
    images: Vec<Image>,
    pause: bool,
}

/// Goes on with an attempt of an earlier process.
pub async fn adopt(
    backend: &DockerBackend,
    attempt: &AttemptId,
    marks: &BTreeMap<u32, Mark>,
    sink: &dyn Sink,
    cancel: &Cancel,
) -> Outcome {
    let mut running = match Attempt::new(backend, attempt.clone(), sink, cancel, PodDir::of) {
        Ok(running) => running,
        Err(error) => return Failure::from(error).into_outcome(&backend.options.data_dir),
    };
    let outcome = running.adopt(marks).await;
    running.remove_all().await;
    running.into_outcome(outcome)
}

impl Attempt<'_> {
    /// Leaves for another process what it needs in order to go on with this attempt, and the sign
    /// that the attempt is about to begin.
    pub(super) fn save(&self, images: &[Image]) -> std::io::Result<()> {
        if !self.backend.options.owner.is_agent() {
            return Ok(());
        }
        self.dir.save(&Saved {
            plan: self.plan.clone(),
            images: images.to_vec(),
            pause: !self.plan.sidecars.is_empty() && !self.plan.host_network,
        })?;
        self.dir.begin(&self.attempt)
    }

    async fn adopt(&mut self, marks: &BTreeMap<u32, Mark>) -> Result<(), Failure> {
        let saved: Saved = self.dir.saved().ok_or_else(Failure::forgotten)?;
        self.created = true;
        self.plan = saved.plan;
        let is_over = |index: usize| mark::of(marks, index).over;
        self.pause = saved.pause.then(|| self.name(PAUSE));
        let names: Vec<String> = self.plans().map(|plan| self.name(&plan.container)).collect();
        let found = join_all(names.iter().map(|name| async {
            let none = None::<InspectContainerOptions>;
            self.backend.docker.inspect_container(name, none).await
        }));
        let everything_is_told = (0..names.len()).all(is_over);
        for ((found, name), image) in found.await.into_iter().zip(&names).zip(saved.images) {
            match found {
                Ok(found) => self.containers.push(container(found, image)),
                // It was over, and being cleaned up after.
                Err(error) if error::status(&error) == Some(404) && everything_is_told => {
                    return Ok(());
                }
                Err(error) if error::status(&error) == Some(404) => {
                    return Err(Failure::lost(&format!("its container {name} is gone")));
                }
                Err(error) => return Err(Failure::daemon(&format!("looking at {name}"), &error)),
            }
        }
        for (index, container) in self.containers.iter_mut().enumerate() {
            container.over = is_over(index);
        }
        self.link = self.backend.far.clone().map(Link::open);
        let masker = Masker::new(self.plan.secrets.iter().map(Vec::as_slice));
        self.drive(masker, marks).await
    }

    /// Also those of whose names nothing is known.
    async fn remove_all(&mut self) {
        self.remove().await;
        let me = self.backend.options.owner.name();
        let label = format!("{}={}", labels::KEY, self.key);
        if let Err(error) = self.backend.remove_containers(label, |owner, _| owner == me).await {
            tracing::warn!(key = %self.key, %error, "containers cannot be removed");
        }
    }
}

fn container(found: ContainerInspectResponse, image: Image) -> Container {
    let state = found.state.unwrap_or_default();
    let lives = state.running == Some(true);
    let started = state.status != Some(ContainerStateStatusEnum::CREATED);
    let exit_code = state.exit_code.and_then(|code| i32::try_from(code).ok());
    Container {
        id: found.id.unwrap_or_default(),
        image,
        started,
        over: false,
        exit_code: exit_code.filter(|_| started && !lives),
        oom_killed: state.oom_killed.unwrap_or(false),
    }
}
