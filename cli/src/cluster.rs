//! `tenon cluster`: what operators do.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use tenon_client::connect::urls;
use tenon_client::{BackupError, Client, Options};
use tenon_proto::control::v1::{
    AddMemberRequest, ClusterStatus, InitRequest, RemoveMemberRequest, TransferRequest,
};
use tenon_reporter::pretty::bytes;

use crate::args::{BackupArgs, ClusterCommand, Output};
use crate::coordinator;
use crate::exit::{Exit, Failure};
use crate::founding;
use crate::inspect::{answer, table};
use crate::remote::{self, Remote};
use crate::terminal;

/// How long a leader may take to add what it alone knows to a status.
const LEADER: Duration = Duration::from_secs(2);

/// `tenon cluster`.
pub fn cluster(command: &ClusterCommand, server: Option<&str>) -> Result<Exit, Failure> {
    match command {
        ClusterCommand::Restore(args) => return coordinator::restore(args),
        ClusterCommand::Recover(args) => return coordinator::recover(args),
        ClusterCommand::Init(args) if args.data_dir.is_some() => return founding::init(args),
        _ => {}
    }
    let server = server.ok_or_else(|| remote::needs_cluster("cluster"))?;
    remote::with(server, async |remote| ask(&remote, command).await)
}

async fn ask(remote: &Remote, command: &ClusterCommand) -> Result<Exit, Failure> {
    let client = &remote.client;
    let (status, output) = match command {
        ClusterCommand::Init(args) => {
            let peers = match args.peer.is_empty() {
                true => Vec::new(),
                false => urls(&args.peer)?,
            };
            (client.init(InitRequest { peers }).await?, args.output)
        }
        ClusterCommand::Status(args) => {
            let mut status = client.status().await?;
            ask_leader(&mut status).await;
            (status, args.output)
        }
        ClusterCommand::Add(args) => {
            let url = urls(&[&args.url])?.remove(0);
            let name = args.name.clone().unwrap_or_default();
            let request = AddMemberRequest { url, name, learner: args.learner };
            (client.add(request).await?, args.output)
        }
        ClusterCommand::Remove(args) => {
            let request = RemoveMemberRequest { member: args.member.clone(), force: args.force };
            (client.remove(request).await?, args.output)
        }
        ClusterCommand::Transfer(args) => {
            let request = TransferRequest { to: args.to.clone().unwrap_or_default() };
            let answer = client.transfer(request).await;
            (answer.map_err(|error| not_transferred(error, args.to.as_deref()))?, args.output)
        }
        ClusterCommand::Backup(args) => return backup(remote, args).await,
        ClusterCommand::Ready(args) => return ready(remote, args.output).await,
        ClusterCommand::Restore(_) | ClusterCommand::Recover(_) => return Ok(Exit::Success),
    };
    answer(output, &status, || describe(&status))?;
    Ok(Exit::Success)
}

/// Why leadership was not handed over: mostly because the other node is not there.
fn not_transferred(error: tenon_client::Error, to: Option<&str>) -> Failure {
    if !error.code().starts_with("deadline/") {
        return error.into();
    }
    let to = to.unwrap_or("another node");
    let message = format!("{to} has not taken over in time [{}]", error.code());
    Failure::new(Exit::Environment, message)
        .hint("is it up, and in contact with the others? `tenon cluster status`")
}

/// `tenon cluster ready`.
async fn ready(remote: &Remote, output: Output) -> Result<Exit, Failure> {
    let url = remote.client.nodes().into_iter().next().unwrap_or_default();
    let (ready, says) = tenon_client::ready(&url, &remote::access()).await?;
    let value = serde_json::json!({"url": url, "ready": ready, "message": says});
    answer(output, &value, || format!("{url}: {says}\n"))?;
    Ok(if ready { Exit::Success } else { Exit::Environment })
}

/// Agents, and how far each member is, are known to the leader alone. A leader that does not answer is
/// left aside: what the other node knows is then all there is.
async fn ask_leader(status: &mut ClusterStatus) {
    if status.role == "leader" || status.leader_url.is_empty() {
        return;
    }
    let options = Options {
        deadline: LEADER,
        attempt: LEADER,
        access: remote::access(),
        ..Options::default()
    };
    let Ok(leader) = Client::new(&[&status.leader_url], options) else { return };
    if let Ok(theirs) = leader.status().await
        && theirs.role == "leader"
    {
        status.agents = theirs.agents;
        status.members = theirs.members;
    }
}

/// A status for people.
fn describe(status: &ClusterStatus) -> String {
    let leader = match (status.leader, status.leader_url.as_str()) {
        (0, _) => "no leader".to_owned(),
        (id, "") => format!("leader {id}"),
        (_, url) => format!("leader {url}"),
    };
    if status.cluster_id.is_empty() {
        return format!("{} belongs to no cluster yet\n", status.node_name);
    }
    let mut text = format!(
        "cluster {}  term {}  {leader}\n{} active runs  events {} to {}\n",
        status.cluster_id, status.term, status.active_runs, status.first_seq, status.last_seq
    );
    if !status.ready {
        text.push_str(&format!(
            "{} is not ready: {}\n",
            status.node_name, status.not_ready_because
        ));
    }
    let members: Vec<[String; 5]> = status
        .members
        .iter()
        .map(|member| {
            // Only the leader knows how far the others are.
            let known = !member.progress.is_empty() || member.matched > 0;
            let state = match (member.id == status.leader, known) {
                (true, _) => "leads".to_owned(),
                (false, true) if !member.active => "does not answer".to_owned(),
                (false, true) if member.matched < status.commit => {
                    format!("{} behind", status.commit - member.matched)
                }
                (false, true) => "up to date".to_owned(),
                (false, false) => "-".to_owned(),
            };
            [
                member.id.to_string(),
                member.name.clone(),
                member.role.clone(),
                state,
                member.url.clone(),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&table(&["ID", "NODE", "ROLE", "STATE", "URL"], &members));
    let agents: Vec<[String; 5]> = status
        .agents
        .iter()
        .map(|agent| {
            let labels: Vec<String> =
                agent.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            [
                agent.name.clone(),
                agent.state.clone(),
                format!("{}/{}", agent.running, agent.slots),
                agent.backends.join(","),
                labels.join(","),
            ]
        })
        .collect();
    text.push('\n');
    match agents.is_empty() {
        true => text.push_str("no agents\n"),
        false => {
            text.push_str(&table(&["AGENT", "STATE", "RUNNING", "BACKENDS", "LABELS"], &agents));
        }
    }
    text
}

async fn backup(remote: &Remote, args: &BackupArgs) -> Result<Exit, Failure> {
    let cannot = |error: &dyn std::fmt::Display| {
        let path = args.file.display();
        Failure::new(Exit::Environment, format!("cannot write {path}: {error}"))
    };
    if args.file.exists() {
        let message = format!("{} is there already", args.file.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    // A backup has its name only once it is whole.
    let mut part = args.file.clone().into_os_string();
    part.push(".part");
    let part = Path::new(&part);
    let mut file = BufWriter::new(File::create(part).map_err(|error| cannot(&error))?);
    let mut size = 0;
    let taken = remote
        .client
        .backup(|piece| {
            size += piece.len() as u64;
            file.write_all(piece)
        })
        .await;
    let written = match taken {
        Ok(()) => file.flush().and_then(|()| file.get_ref().sync_all()),
        Err(error) => {
            let _ = fs::remove_file(part);
            return Err(match error {
                BackupError::Cluster(error) => error.into(),
                BackupError::Write(error) => cannot(&error),
            });
        }
    };
    written.and_then(|()| fs::rename(part, &args.file)).map_err(|error| cannot(&error))?;
    terminal::note(&format!("{} written to {}", bytes(size), args.file.display()));
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_proto::control::v1::Member;

    #[test]
    fn a_status_fits_eighty_columns() {
        let member = |id: u64, matched| Member {
            id,
            name: format!("c{id}"),
            url: format!("http://10.0.0.{id}:7070"),
            role: "voter".into(),
            matched,
            active: id != 3,
            progress: "replicate".into(),
        };
        let status = ClusterStatus {
            cluster_id: "01JD0000000000000000000000".into(),
            leader: 1,
            leader_url: "http://10.0.0.1:7070".into(),
            role: "leader".into(),
            commit: 10,
            ready: true,
            members: vec![member(1, 10), member(2, 7), member(3, 0)],
            ..ClusterStatus::default()
        };
        let text = describe(&status);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for word in ["leads", "3 behind", "does not answer", "no agents"] {
            assert!(text.contains(word), "{word} is not in {text}");
        }
    }
}
