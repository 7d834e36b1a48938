//! Tasks that belong to connections. Nothing outlives the server: what is left ends with it.

use std::sync::{Mutex, PoisonError};

use tokio::task::JoinSet;

/// Tasks that end with this.
#[derive(Default)]
pub struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    /// Starts a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}
