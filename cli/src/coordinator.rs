//! `tenon coordinator`: a node of a cluster, until it is told to end.

use std::fs::File;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tenon_client::connect::urls;
use tenon_coordinator::coordinator::LeaseTimes;
use tenon_coordinator::node::TLS_DIR;
use tenon_coordinator::server::{
    Change, ControlPlane, Fault, Limits, ServerOptions, check_address, serve,
};
use tenon_coordinator::{Handle, Node, NodeOptions, PersistPoints, node};
use tenon_engine::plan::Packing;
use tenon_reporter::spans::{Destination, ExportError, Exporter};
use tenon_trust::SharedIdentity;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::{CoordinatorArgs, PlacementChoice, RecoverArgs, RestoreArgs, SnapshotsChoice};
use crate::exit::{Exit, Failure};
use crate::remote::needs_cluster;
use crate::{founding, joining, log, machine, secrets_key, terminal};

/// How long a new node may take to make a cluster of itself.
const BOOTSTRAP: Duration = Duration::from_secs(30);
/// Between looks at the age of the node's certificate.
const RENEWAL: Duration = Duration::from_secs(3600);
/// How long a node that stops tries to hand its leadership over while it still answers.
const FAREWELL: Duration = Duration::from_secs(3);

/// `tenon coordinator`.
///
/// Whether the node speaks TLS and wants to know who asks is decided once, at the beginning of its
/// cluster; after that its data directory says it.
pub fn coordinator(
    args: &CoordinatorArgs,
    server: Option<&str>,
    state_dir: &Path,
) -> Result<Exit, Failure> {
    log::begin(args.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Environment, format!("cannot start: {error}")))?;
    let data_dir = args.data_dir.clone().unwrap_or_else(|| state_dir.join("coordinator"));
    let data_dir = std::path::absolute(&data_dir).unwrap_or(data_dir);
    let is_new = !data_dir.join("node.json").exists();
    let has_certificate = data_dir.join(TLS_DIR).join("own.key").exists();
    let joins = args.join.is_some() && is_new && !has_certificate;
    let founds = args.bootstrap && is_new;
    let secured = has_certificate || joins || args.tls;
    let listener = runtime.block_on(listen(args, secured || founds))?;
    let address = listener.local_addr().map_err(|error| cannot_listen(&args.listen, &error))?;
    let secured = secured || founds && !args.insecure && !address.ip().is_loopback();
    if has_certificate && args.insecure {
        let message = "this node has a certificate, and its cluster has to know who asks";
        return Err(Failure::new(Exit::Usage, message).hint("leave --insecure out"));
    }
    let mut options = options(args, &data_dir, address, secured)?;
    let servers = server.map(|server| urls(&[server])).transpose()?;
    if joins {
        let servers = servers.as_deref().ok_or_else(|| needs_cluster("coordinator --join"))?;
        let token = args.join.as_deref().unwrap_or_default();
        let dir = data_dir.join(TLS_DIR);
        let joined = runtime.block_on(joining::node(&dir, &options.url, servers, token))?;
        options.key = Some(secrets_key::joined(&joined.secrets_key, options.key, args, &data_dir)?);
    }
    let url = options.url.clone();
    let node = Node::start(options, runtime.handle().clone()).map_err(refused)?;
    let plan = Plan { args, data_dir: &data_dir, founds_secured: founds && secured, servers };
    let result = runtime.block_on(run(&plan, &node, listener, &url));
    // Hands the leadership over and writes what is to be written; the first error explains most.
    let stopped = node.stop().map_err(refused);
    result.and_then(|exit| stopped.map(|()| exit))
}

/// What the node is to do besides serving.
struct Plan<'a> {
    args: &'a CoordinatorArgs,
    data_dir: &'a Path,
    /// It makes a cluster that has to know who asks.
    founds_secured: bool,
    servers: Option<Vec<String>>,
}

async fn listen(args: &CoordinatorArgs, secured: bool) -> Result<TcpListener, Failure> {
    let addresses = tokio::net::lookup_host(&args.listen)
        .await
        .map_err(|error| cannot_listen(&args.listen, &error))?;
    for address in addresses {
        check_address(address, args.insecure || secured).map_err(fault)?;
    }
    TcpListener::bind(&args.listen).await.map_err(|error| cannot_listen(&args.listen, &error))
}

fn cannot_listen(place: &str, error: &std::io::Error) -> Failure {
    let failure = Failure::new(Exit::Environment, format!("cannot listen on {place}: {error}"));
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            failure.hint("another process listens there; --listen chooses another HOST:PORT")
        }
        _ => failure.hint("--listen chooses another HOST:PORT"),
    }
}

/// How the node is to be run.
fn options(
    args: &CoordinatorArgs,
    data_dir: &Path,
    address: SocketAddr,
    secured: bool,
) -> Result<NodeOptions, Failure> {
    if args.election_ms < 4 * args.heartbeat_ms {
        let message = format!(
            "--election-ms {} is less than four times --heartbeat-ms {}",
            args.election_ms, args.heartbeat_ms
        );
        return Err(Failure::new(Exit::Usage, message)
            .hint("a leader must be able to miss some heartbeats without being replaced"));
    }
    let scheme = if secured { "https" } else { "http" };
    let url = match &args.advertise {
        Some(url) => urls(&[url])?.remove(0),
        None if address.ip().is_unspecified() => {
            let message = format!("{address} is no address at which others can reach this node");
            return Err(Failure::new(Exit::Usage, message)
                .hint(format!("say where they can: --advertise {scheme}://HOST:PORT")));
        }
        None => format!("{scheme}://{address}"),
    };
    if !url.starts_with(&format!("{scheme}://")) {
        let message = format!("--advertise {url}: this node is reached at {scheme}://");
        return Err(Failure::new(Exit::Usage, message));
    }
    let name = args.name.clone().unwrap_or_else(machine::name);
    let key = secrets_key::of_coordinator(args, data_dir)?;
    let tick = Duration::from_millis(args.heartbeat_ms) / 2;
    let ticks = usize::try_from(2 * args.election_ms / args.heartbeat_ms).unwrap_or(10);
    let mut persist = PersistPoints::default();
    persist.after_ms = args.persist_ms.unwrap_or(persist.after_ms);
    let usual = NodeOptions::new(data_dir.to_owned(), &name, &url);
    let leases = LeaseTimes {
        lease_ms: args.lease_ms,
        margin_ms: args.lease_margin_ms,
        heartbeat_ms: LeaseTimes::default().heartbeat_ms.min(args.lease_ms / 6),
    };
    Ok(NodeOptions {
        tick,
        leases,
        election_ticks: ticks..2 * ticks,
        key,
        persist,
        packing: match args.placement {
            PlacementChoice::Spread => Packing::Spread,
            PlacementChoice::Pack => Packing::Pack,
        },
        saves_claims: args.workspace_snapshots == SnapshotsChoice::TaskEnd,
        blobs: args.blobs.clone(),
        log_segment_bytes: args.log_segment_kib.map_or(usual.log_segment_bytes, |kib| kib << 10),
        ..usual
    })
}

/// Serves until a signal comes or the node cannot go on.
async fn run(
    plan: &Plan<'_>,
    node: &Node,
    listener: TcpListener,
    url: &str,
) -> Result<Exit, Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| {
            Failure::new(Exit::Environment, format!("cannot listen for signals: {error}"))
        })
    };
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let handle = node.handle();
    let Plan { args, data_dir, .. } = *plan;
    if plan.founds_secured {
        founding::found_with_file(&handle, data_dir).await?;
    } else if args.bootstrap && handle.member().is_none() {
        let deadline = tokio::time::Instant::now() + BOOTSTRAP;
        let change = Change::Init { peers: Vec::new() };
        handle.change(change, deadline).await.map_err(fault)?;
    }
    let identity = handle.ensure_identity().map_err(fault)?;
    if handle.member().is_none() && identity.is_none() {
        terminal::note("this node belongs to no cluster yet: `tenon cluster init` makes one");
    }
    let mut tasks = JoinSet::new();
    if let Some(exporter) = exporter(args.otlp_endpoint.as_deref())? {
        tasks.spawn(handle.clone().export_traces(exporter));
    }
    let shutdown = CancellationToken::new();
    let usual = Limits::default();
    let mut limits =
        Limits { connections: usual.connections.min(machine::open_files() * 3 / 4), ..usual };
    if let Some(seconds) = args.agent_certificate_seconds {
        limits.agent_certificate = Duration::from_secs(seconds);
    }
    let audit = match &identity {
        Some(_) => Some(handle.audit().map_err(refused)?),
        None => None,
    };
    let options =
        ServerOptions { insecure: args.insecure, identity: identity.clone(), audit, limits };
    let metrics = Arc::clone(handle.metrics());
    let serving = serve(Arc::new(handle.clone()), metrics, listener, options, shutdown.clone());
    tokio::pin!(serving);
    let background = background(plan, &handle, identity, url);
    tokio::pin!(background);
    terminal::print(&format!("listening on {url}\n"))?;
    tokio::select! {
        served = &mut serving => return served.map(|()| Exit::Success).map_err(fault),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        // Why not is what stopping it says.
        () = ended(&handle) => return Ok(Exit::Environment),
        () = &mut background => {}
    }
    terminal::note("stopping");
    // Whoever asks meanwhile is still answered, so nothing that was asked fails.
    if handle.status().await.role == "leader" {
        let deadline = tokio::time::Instant::now() + FAREWELL;
        let change = Change::Transfer { to: String::new() };
        // Alone there is nobody to hand it to.
        let _ = handle.change(change, deadline).await;
    }
    shutdown.cancel();
    serving.await.map(|()| Exit::Success).map_err(fault)
}

/// What sends traces, if they are to be sent.
fn exporter(address: Option<&str>) -> Result<Option<Exporter>, Failure> {
    let failed = |error: ExportError| {
        Failure::new(Exit::Usage, error).hint("for example --otlp-endpoint http://HOST:4317")
    };
    let destination = Destination::find(address).map_err(failed)?;
    destination.as_ref().map(Exporter::new).transpose().map_err(failed)
}

/// Becomes a member, if the node has joined and is none yet; then keeps the certificate new, for ever.
async fn background(plan: &Plan<'_>, handle: &Handle, own: Option<SharedIdentity>, url: &str) {
    let Some(own) = own else { return std::future::pending().await };
    if handle.member().is_none()
        && let Some(servers) = &plan.servers
    {
        joining::become_member(servers, &own, url, &handle.options().name).await;
    }
    loop {
        tokio::time::sleep(RENEWAL).await;
        if let Err(error) = handle.ensure_identity() {
            terminal::note(&format!("cannot renew this node's certificate: {error}"));
        }
    }
}

/// Waits until the node is a member that cannot go on.
async fn ended(handle: &Handle) {
    let mut became_member = handle.became_member();
    loop {
        if let Some(member) = handle.member() {
            let mut ended = member.ended.clone();
            // Its sender goes with its threads.
            let _ = ended.wait_for(|ended| *ended).await;
            return;
        }
        if became_member.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "this is what map_err hands over")]
pub fn refused(error: tenon_coordinator::Error) -> Failure {
    Failure::new(Exit::Environment, format!("{error} [{}]", error.code()))
        .hint("is the data directory writable, its disk not full, and no other node using it?")
}

#[expect(clippy::needless_pass_by_value, reason = "this is what map_err hands over")]
pub fn fault(error: Fault) -> Failure {
    let failure = Failure::new(Exit::Environment, &error);
    match error.0.hint.is_empty() {
        true => failure,
        false => failure.hint(&error.0.hint),
    }
}

/// `tenon cluster restore`.
pub fn restore(args: &RestoreArgs) -> Result<Exit, Failure> {
    let url = urls(&[&args.advertise])?.remove(0);
    let name = args.name.clone().unwrap_or_else(machine::name);
    let file = File::open(&args.file).map_err(|error| {
        Failure::new(Exit::Usage, format!("cannot read {}: {error}", args.file.display()))
    })?;
    let mut backup = BufReader::with_capacity(1 << 20, file);
    let restored = node::backup::restore(&mut backup, &args.data_dir, &name, &url);
    let cluster = restored.map_err(|error| match error {
        tenon_coordinator::Error::Busy(dir) => {
            let message = format!("{} holds a node already: it is not empty", dir.display());
            Failure::new(Exit::Environment, message)
                .hint("--data-dir has to be empty, or not there")
        }
        other => refused(other),
    })?;
    terminal::note(&format!(
        "{} holds a cluster of its own now, {cluster}, of which {name} is the only node: start it with \
         the secrets key of the old one",
        args.data_dir.display()
    ));
    Ok(Exit::Success)
}

/// `tenon cluster recover`.
pub fn recover(args: &RecoverArgs) -> Result<Exit, Failure> {
    if !args.i_know_that_the_others_are_lost {
        let message = "the other nodes must be lost for ever: if one of them came back with its data, \
                       there would be two clusters with one name";
        return Err(Failure::new(Exit::Usage, message)
            .hint("if they are, say --i-know-that-the-others-are-lost"));
    }
    let cluster = node::backup::recover(&args.data_dir).map_err(refused)?;
    terminal::note(&format!(
        "{} holds a cluster of its own now, {cluster}: start it, wipe the other nodes, and add them \
         again",
        args.data_dir.display()
    ));
    Ok(Exit::Success)
}
