//! Runs that are submitted, and how many at a time.

use std::sync::Arc;

use tenon_client::Client;
use tenon_proto::control::v1::SubmitRequest;
use tokio::task::JoinSet;

use crate::Result;
use crate::agent::Board;

/// The name of the one step of every task.
pub const STEP: &str = "work";

/// A TaskRun with one step.
pub fn task_run(name: &str) -> String {
    format!(
        "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {{name: {name}}}\nspec:\n  taskSpec:\n    \
         steps:\n    - name: {STEP}\n      image: busybox\n      script: exit 0\n"
    )
}

/// A PipelineRun of so many tasks with one step each: the first half side by side, each of the second
/// half after one of the first.
pub fn pipeline_run(name: &str, tasks: usize) -> String {
    let mut text = format!(
        "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {{name: {name}}}\nspec:\n  \
         pipelineSpec:\n    tasks:\n"
    );
    for task in 0..tasks {
        text += &format!("    - name: t{task}\n      taskRef: {{name: work}}\n");
        if task >= tasks / 2 {
            text += &format!("      runAfter: [t{}]\n", task - tasks / 2);
        }
    }
    text + &format!(
        "---\napiVersion: tekton.dev/v1\nkind: Task\nmetadata: {{name: work}}\nspec:\n  steps:\n  \
         - name: {STEP}\n    image: busybox\n    script: exit 0\n"
    )
}

/// A request that starts the run of a manifest.
pub fn submit_request(manifest: String) -> SubmitRequest {
    SubmitRequest { manifest, ..SubmitRequest::default() }
}

/// Keeps so many runs going: one that is over makes room for the next. Ends when dropped, after
/// `limit` runs, or with the first refusal, which [`Load::failure`] gives.
pub struct Load {
    tasks: JoinSet<Result<()>>,
}

impl Load {
    /// `manifest` makes the text of a run from its number.
    pub fn start(
        client: &Client,
        board: &Arc<Board>,
        in_flight: usize,
        submitters: usize,
        limit: usize,
        manifest: impl Fn(usize) -> String + Clone + Send + Sync + 'static,
    ) -> Load {
        board.room.add_permits(in_flight);
        let numbers = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..submitters {
            let (client, board, manifest) = (client.clone(), board.clone(), manifest.clone());
            let numbers = numbers.clone();
            tasks.spawn(async move {
                loop {
                    let number = numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if number >= limit {
                        return Ok(());
                    }
                    match board.room.acquire().await {
                        Ok(permit) => permit.forget(),
                        Err(_) => return Ok(()),
                    }
                    let submitted = client.submit(submit_request(manifest(number))).await;
                    submitted.map_err(|error| format!("submit a run: {error}"))?;
                }
            });
        }
        Load { tasks }
    }

    /// Why it has ended, if a submission failed.
    pub fn failure(&mut self) -> Option<String> {
        while let Some(ended) = self.tasks.try_join_next() {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Some(error),
                Err(error) => return Some(error.to_string()),
            }
        }
        None
    }
}
