//! What the daemon tells of an attempt's containers, and what to do where it falls silent.

use std::collections::HashMap;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::EventMessage;
use bollard::query_parameters::{EventsOptionsBuilder, InspectContainerOptions};
use futures_util::stream::{BoxStream, StreamExt as _};
use tokio::time::Instant;

use super::{AGAIN, Attempt, Watch, labels};
use crate::clock::now_ms;
use crate::docker::error::{self, Failure};
use crate::docker::far::PATIENCE;

impl<'a> Attempt<'a> {
    /// The daemon's word on this attempt's containers since then.
    pub(super) fn events(&self, since_seconds: i64) -> BoxStream<'a, Result<EventMessage, Error>> {
        let filters = HashMap::from([
            ("type", vec!["container".to_owned()]),
            ("event", vec!["die".to_owned(), "oom".to_owned()]),
            ("label", vec![format!("{}={}", labels::KEY, self.key)]),
        ]);
        let options = EventsOptionsBuilder::default()
            .since(&since_seconds.to_string())
            .filters(&filters)
            .build();
        self.backend.docker.events(Some(options)).boxed()
    }

    pub(super) fn take_event(
        &mut self,
        watch: &mut Watch<'a>,
        event: &EventMessage,
    ) -> Result<(), Failure> {
        let Some(actor) = &event.actor else { return Ok(()) };
        let id = actor.id.as_deref().unwrap_or_default();
        let Some(index) = self.containers.iter().position(|container| container.id == id) else {
            return Ok(());
        };
        match event.action.as_deref() {
            Some("oom") => self.containers[index].oom_killed = true,
            Some("die") => {
                let attributes = actor.attributes.as_ref();
                let code = attributes.and_then(|a| a.get("exitCode")?.parse().ok());
                self.containers[index].exit_code = code.or(Some(1));
                self.dead(watch, index);
                if self.containers[index].over && !self.plan_of(index).is_sidecar() {
                    return self.unblock_next(index);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The event stream broke: either the daemon is gone, or it has to be asked again.
    pub(super) async fn look_again(
        &mut self,
        watch: &mut Watch<'a>,
        detail: String,
    ) -> Result<(), Failure> {
        self.until_it_answers(detail).await?;
        watch.events = self.events(now_ms() / 1000 - 1);
        // What died meanwhile is not told again.
        for index in 0..self.containers.len() {
            let container = &self.containers[index];
            if !container.started || container.over {
                continue;
            }
            let none = None::<InspectContainerOptions>;
            match self.backend.docker.inspect_container(&container.id, none).await {
                Ok(inspected) => {
                    let state = inspected.state.unwrap_or_default();
                    if state.running == Some(false) {
                        let code = state.exit_code.and_then(|code| i32::try_from(code).ok());
                        self.containers[index].exit_code = code;
                        self.dead(watch, index);
                    }
                }
                Err(error) if error::status(&error) == Some(404) => self.dead(watch, index),
                Err(error) => return Err(Failure::gone(&error)),
            }
        }
        // What was said meanwhile was not heard.
        if watch.killing || watch.stopping {
            let signal = if watch.killing { "SIGKILL" } else { "SIGTERM" };
            self.signal(&self.running(false), signal).await;
        }
        Ok(())
    }

    /// A daemon on this machine is there or gone; the way to another one is given some time.
    async fn until_it_answers(&self, mut detail: String) -> Result<(), Failure> {
        let patience = if self.link.is_some() { PATIENCE } else { Duration::ZERO };
        let until = Instant::now() + patience;
        loop {
            let ping = self.backend.docker.ping();
            match tokio::time::timeout(Duration::from_secs(5), ping).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => detail = error.to_string(),
                Err(_) => {}
            }
            if Instant::now() >= until {
                return Err(Failure::gone(&detail));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
