//! `tenon dev up`: coordinators, a cluster of them, agents; and their end.

use std::fs;
use std::future::Future;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use tenon_client::{Client, Options};
use tenon_proto::control::v1::InitRequest;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::process::Process;
use super::{Fleet, Part, Place};
use crate::args::{BackendChoice, DevUpArgs, Output};
use crate::exit::{Exit, Failure};
use crate::secrets_key::of_beginning;
use crate::terminal;

/// How long the fleet may take to be ready.
const READY: Duration = Duration::from_secs(120);
/// How the user says when agents remove images.
const IMAGE_GC_HIGH: &str = "TENON_AGENT_IMAGE_GC_HIGH";
/// How often the cluster is asked how far it is: nothing tells of an agent that is in contact.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// `tenon dev up`.
pub async fn up(args: &DevUpArgs, place: &Place) -> Result<Exit, Failure> {
    // Before anything runs that has to be ended.
    let ended = end_signals()?;
    let _lock = place.take()?;
    if args.fresh {
        forget(place)?;
    }
    let fleet = plan(args, place)?;
    place.write(&fleet)?;
    let mut processes = Vec::new();
    tokio::pin!(ended);
    let started = tokio::select! {
        started = start(args, place, &fleet, &mut processes) => started,
        () = &mut ended => {
            end(processes).await;
            return Ok(Exit::Cancelled);
        }
    };
    if let Err(failure) = started.and_then(|()| tell(args, place, &fleet)) {
        end(processes).await;
        return Err(failure);
    }
    {
        let mut watched = JoinSet::new();
        let (give_back, mut given_back) = tokio::sync::mpsc::unbounded_channel();
        let stop = tokio_util::sync::CancellationToken::new();
        for mut process in processes.drain(..) {
            let (give_back, stop) = (give_back.clone(), stop.clone());
            watched.spawn(async move {
                tokio::select! {
                    said = process.ended() => Some(said),
                    () = stop.cancelled() => {
                        // The receiver waits for all of them.
                        let _ = give_back.send(process);
                        None
                    }
                }
            });
        }
        drop(give_back);
        loop {
            tokio::select! {
                () = &mut ended => break,
                Some(said) = watched.join_next(), if !watched.is_empty() => {
                    if let Ok(Some(said)) = said {
                        terminal::note(&said);
                    }
                }
            }
        }
        stop.cancel();
        while watched.join_next().await.is_some() {}
        while let Some(process) = given_back.recv().await {
            processes.push(process);
        }
    }
    terminal::note("ending the fleet");
    end(processes).await;
    Ok(Exit::Success)
}

/// Returns when the user, or `tenon dev down`, wants the end.
fn end_signals() -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| {
            Failure::new(Exit::Environment, format!("cannot listen for signals: {error}"))
        })
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

fn forget(place: &Place) -> Result<(), Failure> {
    for name in ["coordinators", "agents", "logs", "fleet.json", "secrets.key"] {
        let path = place.0.join(name);
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.map_err(|error| place.unusable(&error))?,
        }
    }
    Ok(())
}

/// Where everything will be: where it was before, if it was.
fn plan(args: &DevUpArgs, place: &Place) -> Result<Fleet, Failure> {
    let logs = place.0.join("logs");
    fs::create_dir_all(&logs).map_err(|error| place.unusable(&error))?;
    let part =
        |name: String, url: String| Part { log: logs.join(format!("{name}.log")), name, url };
    let before = place.read().map(|fleet| fleet.coordinators).unwrap_or_default();
    let wanted = args.coordinators as usize;
    let coordinators: Vec<Part> = if before.is_empty() {
        // Held until all are known, so that no port is taken twice.
        let mut held = Vec::new();
        for _ in 0..wanted {
            let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| {
                let address = listener.local_addr()?;
                Ok((listener, address))
            });
            held.push(listener.map_err(|error| place.unusable(&error))?);
        }
        let urls = held.iter().map(|(_, address)| format!("http://{address}"));
        urls.enumerate().map(|(index, url)| part(format!("c{}", index + 1), url)).collect()
    } else if before.len() == wanted {
        before.into_iter().map(|one| part(one.name, one.url)).collect()
    } else {
        let message = format!(
            "the fleet in {} has {} coordinators, not {wanted}",
            place.0.display(),
            before.len()
        );
        return Err(Failure::new(Exit::Usage, message)
            .hint("--fresh forgets it; --dir takes another directory"));
    };
    let urls: Vec<&str> = coordinators.iter().map(|one| one.url.as_str()).collect();
    Ok(Fleet {
        pid: std::process::id(),
        server: urls.join(","),
        agents: (1..=args.agents).map(|n| part(format!("a{n}"), String::new())).collect(),
        coordinators,
    })
}

async fn start(
    args: &DevUpArgs,
    place: &Place,
    fleet: &Fleet,
    processes: &mut Vec<Process>,
) -> Result<(), Failure> {
    let path = |parts: &[&str]| parts.iter().fold(place.0.clone(), |dir, part| dir.join(part));
    let text = |path: PathBuf| path.display().to_string();
    let key = path(&["secrets.key"]);
    of_beginning(Some(&key), None, &place.0)?;
    let is_new = !path(&["coordinators", "c1", "node.json"]).exists();
    for part in &fleet.coordinators {
        let listen = part.url.trim_start_matches("http://");
        let dir = text(path(&["coordinators", &part.name]));
        let arguments =
            ["coordinator", "--name", &part.name, "--listen", listen, "--data-dir", &dir];
        let mut arguments = arguments.map(str::to_owned).to_vec();
        arguments.extend(["--secrets-key".to_owned(), text(key.clone())]);
        let mut process = Process::start(&part.name, &arguments, &part.log)?;
        let listening = process.listening().await;
        processes.push(process);
        terminal::note(&format!("coordinator {} listens on {}", part.name, listening?));
    }
    if is_new {
        let first = Client::new(&[&fleet.coordinators[0].url], Options::default())?;
        let peers = fleet.coordinators[1..].iter().map(|part| part.url.clone()).collect();
        first.init(InitRequest { peers }).await?;
    }
    let client = Client::new(&[&fleet.server], Options::default())?;
    until(READY, async || {
        for part in &fleet.coordinators {
            let node = Client::new(&[&part.url], Options::default())?;
            let status = node.status().await?;
            let voters = status.members.iter().filter(|member| member.role == "voter").count();
            if !status.ready || voters < fleet.coordinators.len() {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await?;
    terminal::note(&format!("a cluster of {} is ready", fleet.coordinators.len()));
    let backend = match args.backend {
        BackendChoice::Auto => "auto",
        BackendChoice::Docker => "docker",
        BackendChoice::Host => "host",
    };
    for part in &fleet.agents {
        let dir = text(path(&["agents", &part.name]));
        let arguments = [
            "agent",
            "--name",
            &part.name,
            "--server",
            &fleet.server,
            "--data-dir",
            &dir,
            "--backend",
            backend,
        ];
        let mut arguments = arguments.map(str::to_owned).to_vec();
        arguments.extend(keep_images(std::env::var_os(IMAGE_GC_HIGH).is_some()));
        processes.push(Process::start(&part.name, &arguments, &part.log)?);
    }
    let mut told = 0;
    until(READY, async || {
        let up = agents_in_contact(&client).await?;
        let up = fleet.agents.iter().filter(|part| up.contains(&part.name)).count();
        if up > told {
            told = up;
            terminal::note(&format!("{up} of {} agents are in contact", fleet.agents.len()));
        }
        Ok(up == fleet.agents.len())
    })
    .await
    .map_err(|failure| match processes.last() {
        Some(agent) if !fleet.agents.is_empty() && failure.exit == Exit::Environment => {
            agent.failed("is not in contact")
        }
        _ => failure,
    })
}

/// Agents of one daemon do not know what the others use, so they remove no images unless the user has said
/// when.
fn keep_images(said: bool) -> Vec<String> {
    if said { Vec::new() } else { ["--image-gc-high", "100"].map(str::to_owned).to_vec() }
}

/// The leader knows them.
async fn agents_in_contact(client: &Client) -> Result<Vec<String>, Failure> {
    let mut status = client.status().await?;
    if status.role != "leader" && !status.leader_url.is_empty() {
        status = Client::new(&[&status.leader_url], Options::default())?.status().await?;
    }
    let up = status.agents.into_iter().filter(|agent| agent.state == "up");
    Ok(up.map(|agent| agent.name).collect())
}

/// Asks until it holds.
async fn until(
    limit: Duration,
    mut holds: impl AsyncFnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let asked = holds().await;
        if matches!(asked, Ok(true)) {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            asked?;
            let message = format!("the fleet is not ready after {} s", limit.as_secs());
            return Err(Failure::new(Exit::Environment, message));
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn tell(args: &DevUpArgs, place: &Place, fleet: &Fleet) -> Result<(), Failure> {
    terminal::note(&format!("everything is in {}, logs below logs/", place.0.display()));
    match args.output {
        Output::Pretty => {
            terminal::print(&format!("export TENON_SERVER={}\n", fleet.server))?;
            terminal::note("ready; run that line in another terminal, then `tenon run -f …`");
            terminal::note("Ctrl-C, or `tenon dev down`, ends it all");
        }
        Output::Json | Output::Yaml => {
            let mut line = serde_json::json!({"dir": place.0});
            let fleet = serde_json::to_value(fleet).unwrap_or_default();
            if let (Some(line), serde_json::Value::Object(fleet)) = (line.as_object_mut(), fleet) {
                line.extend(fleet);
            }
            terminal::print(&format!("{line}\n"))?;
        }
    }
    Ok(())
}

/// Agents first: while they stop what runs, somebody hears how it ended.
async fn end(mut processes: Vec<Process>) {
    let agents: Vec<Process> =
        processes.extract_if(.., |process| process.name.starts_with('a')).collect();
    for group in [agents, processes] {
        let mut ending = JoinSet::new();
        for process in group {
            ending.spawn(process.end());
        }
        while ending.join_next().await.is_some() {}
    }
}
