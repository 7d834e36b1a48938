//! Which run of a cluster is meant: the latest, an id, the beginning of one, or a name.

use tenon_client::Client;
use tenon_proto::control::v1::{GetRunRequest, ListRunsRequest, Run};

use crate::exit::{Exit, Failure};

/// How long ids are.
const ID: usize = 26;

/// The run that the user means.
pub async fn find(client: &Client, text: &str) -> Result<Run, Failure> {
    if text == "latest" {
        let runs = list(client, ListRunsRequest { page_size: 1, ..Default::default() }).await?;
        return runs.into_iter().next().ok_or_else(|| {
            Failure::new(Exit::Usage, "the cluster has no runs yet").hint("`tenon run` makes one")
        });
    }
    let is_id = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_id && text.len() == ID {
        return Ok(client.get_run(GetRunRequest { id: text.to_uppercase() }).await?);
    }
    if is_id && text.len() < ID {
        let id_prefix = text.to_uppercase();
        let request = ListRunsRequest { id_prefix, page_size: 2, ..Default::default() };
        let mut runs = list(client, request).await?.into_iter();
        match (runs.next(), runs.next()) {
            (Some(run), None) => return Ok(run),
            (Some(_), Some(_)) => {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("more than one run begins with \"{text}\""),
                )
                .hint("`tenon runs list` shows all runs"));
            }
            (None, _) => {}
        }
    }
    let request = ListRunsRequest { name: text.to_owned(), page_size: 100, ..Default::default() };
    // The newest of that name.
    let run = list(client, request).await?.into_iter().find(|run| run.name == text);
    run.ok_or_else(|| {
        Failure::new(Exit::Usage, format!("no run \"{text}\""))
            .hint("`tenon runs list` shows all runs")
    })
}

async fn list(client: &Client, request: ListRunsRequest) -> Result<Vec<Run>, Failure> {
    Ok(client.list_runs(request).await?.runs)
}
