//! The end of an attempt: sidecars are stopped, what is broken is given up, everything is removed.

use std::time::Duration;

use bollard::query_parameters::{KillContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use futures_util::future::join_all;

use super::drive::Watch;
use super::{Attempt, PAUSE};
use crate::docker::error::{self, Failure};
use crate::docker::reach::Exec;
use crate::docker::site::Site;
use crate::owner::OWNER_FILE;
use crate::probe;
use crate::record::{self, Fate, Followed};

/// What sidecars get between SIGTERM and SIGKILL, as in Kubernetes.
const GRACE: Duration = Duration::from_secs(30);
/// How long the end of what was killed is waited for.
const LAST_WORDS: Duration = Duration::from_secs(10);

impl<'a> Attempt<'a> {
    /// Tells the sidecars to end, and waits until they have.
    pub(super) async fn stop_sidecars(&mut self, watch: &mut Watch<'a>) -> Result<(), Failure> {
        watch.stopping_sidecars = true;
        if self.running(true).is_empty() {
            return Ok(());
        }
        let deadline = tokio::time::Instant::now() + GRACE;
        let _ = tokio::time::timeout_at(deadline, self.pre_stop()).await;
        self.signal(&self.running(true), "SIGTERM").await;
        let waited = tokio::time::timeout_at(deadline, self.until_sidecars_are_over(watch)).await;
        if let Ok(result) = waited {
            return result;
        }
        self.signal(&self.running(true), "SIGKILL").await;
        match tokio::time::timeout(LAST_WORDS, self.until_sidecars_are_over(watch)).await {
            Ok(result) => result,
            Err(_) => Ok(()),
        }
    }

    async fn until_sidecars_are_over(&mut self, watch: &mut Watch<'a>) -> Result<(), Failure> {
        while !self.running(true).is_empty() {
            self.next(watch).await?;
        }
        Ok(())
    }

    async fn pre_stop(&self) {
        let hooks = self.running(true).into_iter().map(|index| async move {
            let container = self.containers[index].id.clone();
            let network = self.pause.as_deref();
            let by_exec = self.backend.site != Site::Same;
            let reach = Exec::new(&self.backend.docker, container, network, by_exec).await;
            probe::before_stop(self.plan_of(index), &reach).await;
        });
        join_all(hooks).await;
    }

    /// Something broke: ends all containers as far as the daemon still hears, and reports what
    /// their records hold.
    pub(super) async fn abandon(&mut self, watch: &mut Watch<'a>) {
        let all: Vec<usize> = (0..self.containers.len()).collect();
        let kill = self.signal(&all, "SIGKILL");
        let _ = tokio::time::timeout(LAST_WORDS, kill).await;
        if let Some(link) = &self.link {
            // What cannot be had any more is not waited for.
            let _ = tokio::time::timeout(LAST_WORDS, link.order(Vec::new())).await;
        }
        for index in all {
            watch.follower.dead(index);
        }
        let drain = async {
            while let Some(followed) = watch.followed.recv().await {
                let (time_ms, what, marked) = match followed {
                    Followed::Output { index, time_ms, lines, chunk, marked } => {
                        (time_ms, record::output(self.plan_of(index), lines, chunk), marked)
                    }
                    Followed::Ended { index, time_ms, ended, marked }
                        if !self.plan_of(index).is_sidecar() =>
                    {
                        let fate = Fate {
                            image_id: self.containers[index].image.image_id.clone(),
                            container_id: format!("docker://{}", self.containers[index].id),
                            ..Fate::default()
                        };
                        (time_ms, record::step_ended(self.plan_of(index), ended, fate), marked)
                    }
                    _ => continue,
                };
                self.sink.report(time_ms, what, Some(marked)).await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, drain).await;
    }

    /// Removes the containers, or says what it keeps.
    pub(super) async fn remove(&mut self) {
        let mut names = Vec::new();
        if self.created {
            names.extend(self.plans().map(|plan| self.name(&plan.container)));
        }
        names.extend(self.pause.is_some().then(|| self.name(PAUSE)));
        if self.backend.options.keep {
            self.keep(&names).await;
            return;
        }
        if self.backend.is_podman {
            // The one that holds the network is the last: it goes only after those that joined it.
            for name in &names {
                self.remove_container(name).await;
            }
            return;
        }
        join_all(names.iter().map(|name| self.remove_container(name))).await;
    }

    async fn remove_container(&self, name: &str) {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.backend.docker.remove_container(name, Some(options)).await {
            // It never was, or is being removed already.
            Err(error) if matches!(error::status(&error), Some(404 | 409)) => {}
            Err(error) => tracing::warn!(%name, %error, "cannot be removed"),
            Ok(()) => {}
        }
    }

    async fn keep(&self, names: &[String]) {
        for tree in [self.dir.private(), self.dir.root()] {
            let _ = std::fs::remove_file(tree.join(OWNER_FILE));
        }
        if self.pause.is_some() {
            let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
            let pause = self.name(PAUSE);
            let _ = self.backend.docker.kill_container(&pause, Some(options)).await;
        }
        let kept = format!(
            "kept for inspection: containers {}; directories {} {} {}",
            names.join(" "),
            self.dir.root().display(),
            self.dir.private().display(),
            self.backend.run_dir(&self.attempt.run_id).display()
        );
        tracing::info!("{kept}");
        self.sink.note(&kept).await;
    }
}
