//! `tenon agent`: an agent of a fleet, until it is told to end.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tenon_agent::guard::{self, GuardOptions, OnExpiry};
use tenon_agent::keeping::HouseOptions;
use tenon_agent::keeping::disk::Floor;
use tenon_agent::owner::Owner;
use tenon_agent::spool::{DiskSpool, Found, SpoolOptions};
use tenon_agent::{Agent, AgentOptions, Change, ServeOptions};
use tenon_client::Access;
use tenon_client::connect::urls;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args::{AgentArgs, GuardArgs, HouseArgs, LeaseExpiry};
use crate::exit::{Exit, Failure};
use crate::policy::policy;
use crate::remote::{needs_cluster, runtime};
use crate::run::backend::{self, Wanted};
use crate::{joining, log, machine, random, terminal};

/// Another process has had the agent's name since, and is gone: this life can never report again.
const LIFE_OVER: &str = "conflict/agent-life-over";

/// `tenon agent`.
pub fn agent(args: &AgentArgs, server: Option<&str>, state_dir: &Path) -> Result<Exit, Failure> {
    log::begin(args.log);
    let servers = urls(&[server.ok_or_else(|| needs_cluster("agent"))?])?;
    let name = args.name.clone().unwrap_or_else(machine::name);
    let data_dir = data_dir(args, &name, state_dir)?;
    let spool = SpoolOptions { data_dir: data_dir.clone(), limit: args.spool_mib << 20 };
    let (spool, found) = DiskSpool::open(&spool, || random::new_id().to_string())
        .map_err(|error| Failure::new(Exit::Environment, format!("{error} [{}]", error.code())))?;
    let policy = policy(&args.policy, "tenon agent")?;
    let options = AgentOptions {
        name,
        slots: args.slots.map_or_else(machine::slots, |slots| slots as usize),
        incarnation: found.incarnation.clone(),
        labels: labels(&args.label)?,
        cpu_millis: args.cpus.map_or_else(machine::cpu_millis, |cpus| (cpus * 1000.0) as u64),
        memory_bytes: args.memory_mib.map_or_else(machine::memory, |mib| mib << 20),
        images: Vec::new(),
        allowed_images: policy.images,
        grants: policy.grants,
        floor: Floor { bytes: args.house.disk_floor_mib << 20, ..Floor::default() },
        house_every: Some(Duration::from_secs(args.house.housekeeping_seconds)),
    };
    runtime()?.block_on(async {
        let dir = data_dir.join("tls");
        let identity = joining::agent(&dir, &options.name, &servers, args.join.as_deref()).await?;
        let spool = (spool, found);
        let Some(identity) = identity else {
            if servers.iter().all(|server| server.starts_with("https://")) {
                let message = "this cluster wants agents to join, and this agent has not";
                return Err(Failure::new(Exit::Usage, message)
                    .hint("`tenon tokens join` prints a token; then tenon agent --join TOKEN"));
            }
            return serve(args, options, servers, Access::default(), data_dir, spool).await;
        };
        let access = Access::of_machine(identity.clone());
        tokio::select! {
            ended = serve(args, options, servers.clone(), access, data_dir, spool) => ended,
            // It never ends.
            () = joining::renew(&dir, &servers, &identity) => Ok(Exit::Success),
        }
    })
}

/// Where the agent lives, made if it is not there yet.
fn data_dir(args: &AgentArgs, name: &str, state_dir: &Path) -> Result<PathBuf, Failure> {
    let dir = match &args.data_dir {
        Some(dir) => dir.clone(),
        None if name.contains('/') || name.starts_with('.') => {
            let message = format!("--name {name}: not a name");
            return Err(Failure::new(Exit::Usage, message).hint("letters, digits and dashes do"));
        }
        None => state_dir.join("agents").join(name),
    };
    // Containers mount what is below it, and are found again by it.
    let made = std::fs::create_dir_all(&dir).and_then(|()| std::fs::canonicalize(&dir));
    made.map_err(|error| {
        Failure::new(
            Exit::Environment,
            format!("the agent's directory {} cannot be made: {error}", dir.display()),
        )
        .hint("--data-dir chooses another one")
    })
}

/// What tells the directory from others of the same name: on other machines, and in other containers,
/// whose agents may use the same Docker.
fn directory_id(data_dir: &Path) -> Result<String, Failure> {
    let path = data_dir.join("id");
    let made = match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        _ => {
            let id = random::new_id().to_string();
            let draft = data_dir.join("id.new");
            std::fs::write(&draft, &id)
                .and_then(|()| std::fs::File::open(&draft)?.sync_all())
                .and_then(|()| std::fs::rename(&draft, &path))
                .map(|()| id)
        }
    };
    made.map_err(|error: std::io::Error| {
        Failure::new(Exit::Environment, format!("{} cannot be written: {error}", path.display()))
    })
}

async fn serve(
    args: &AgentArgs,
    options: AgentOptions,
    servers: Vec<String>,
    access: Access,
    data_dir: PathBuf,
    (spool, found): (DiskSpool, Found),
) -> Result<Exit, Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| {
            Failure::new(Exit::Environment, format!("cannot listen for signals: {error}"))
        })
    };
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let owner = Owner::Agent {
        incarnation: options.incarnation.clone(),
        data_dir: format!("{}#{}", data_dir.display(), directory_id(&data_dir)?),
    };
    let wanted = Wanted {
        owner: owner.clone(),
        data_dir: data_dir.clone(),
        keep: args.keep,
        image_map: args.image_map.as_deref(),
        backend: args.backend,
        policy: policy(&args.policy, "tenon agent")?,
        house: house(&args.house)?,
        tell: true,
    };
    let backend = backend::open(&wanted).await?;
    match backend.reap().await {
        Ok(0) => {}
        Ok(count) => terminal::note(&format!("removed {count} things that a dead process left")),
        Err(error) => terminal::note(&format!("cannot clean up after dead processes: {error}")),
    }
    let name = options.name.clone();
    let (home, life) = (data_dir.clone(), options.incarnation.clone());
    terminal::note(&format!(
        "agent {name} with {} slots dials {}",
        options.slots,
        servers.join(", ")
    ));
    let shutdown = CancellationToken::new();
    let guard = GuardOptions {
        data_dir,
        // Also when the program was replaced since.
        program: PathBuf::from("/proc/self/exe"),
        on_expiry: on_expiry(args.on_lease_expiry),
        backend: backend.name(),
        owner: owner.name(),
    };
    let agent =
        Agent::new(options, Arc::clone(&backend)).with_spool(spool, found).with_guard(guard);
    let serving = agent.serve(
        ServeOptions { servers, access, ..ServeOptions::default() },
        shutdown.clone(),
        |change| match change {
            Change::Connected { url, node } => {
                terminal::note(&format!("connected to {node} at {url}"));
            }
            Change::Alone { why } => terminal::note(&format!("{why}; trying again")),
        },
    );
    tokio::pin!(serving);
    let ended = loop {
        tokio::select! {
            ended = &mut serving => break ended,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if shutdown.is_cancelled() {
            terminal::note("leaving without waiting; the next start cleans up");
            return Ok(Exit::Cancelled);
        }
        terminal::note("stopping what runs; another signal leaves without waiting");
        shutdown.cancel();
    };
    match ended {
        Ok(()) => Ok(Exit::Success),
        Err(mut error) => {
            if error.code == LIFE_OVER && DiskSpool::forget(&home, &life).is_ok() {
                error.hint = "start it again: what this life had to report is nobody's any more, and is removed".into();
            }
            let failure = Failure::new(Exit::Environment, format!("{error} [{}]", error.code));
            match error.hint.is_empty() {
                true => Err(failure),
                false => Err(failure.hint(error.hint)),
            }
        }
    }
}

fn on_expiry(choice: LeaseExpiry) -> OnExpiry {
    match choice {
        LeaseExpiry::Freeze => OnExpiry::Freeze,
        LeaseExpiry::Kill => OnExpiry::Kill,
    }
}

/// `tenon guard`.
pub fn guard(args: GuardArgs) -> Result<Exit, Failure> {
    let args = guard::GuardArgs {
        data_dir: args.data_dir,
        id: args.id,
        agent: args.agent,
        owner: args.owner,
        backend: args.backend,
        on_expiry: on_expiry(args.on_lease_expiry),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Failure::new(Exit::Environment, format!("cannot start: {error}")))?;
    runtime.block_on(guard::run(args));
    Ok(Exit::Success)
}

fn house(args: &HouseArgs) -> Result<HouseOptions, Failure> {
    if args.image_gc_low > args.image_gc_high {
        let message = format!(
            "--image-gc-low {} is more than --image-gc-high {}",
            args.image_gc_low, args.image_gc_high
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(HouseOptions {
        image_high: args.image_gc_high,
        image_low: args.image_gc_low,
        keep_images: args.keep_image.clone(),
        keep_claims: Duration::from_secs(args.keep_claims_hours * 3600),
    })
}

/// What was said, and what every machine has in Kubernetes.
fn labels(texts: &[String]) -> Result<HashMap<String, String>, Failure> {
    let mut labels = HashMap::from([
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), machine::architecture().to_owned()),
    ]);
    for text in texts {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                labels.insert(key.to_owned(), value.to_owned());
            }
            _ => {
                let message = format!("--label {text}: not of the form KEY=VALUE");
                return Err(Failure::new(Exit::Usage, message).hint("for example --label zone=b"));
            }
        }
    }
    Ok(labels)
}
