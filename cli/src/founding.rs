//! The beginning of a cluster that has to know who asks.

use std::path::Path;
use std::time::Duration;

use tenon_client::connect::urls;
use tenon_coordinator::server::{Change, ControlPlane};
use tenon_coordinator::{Handle, Node, NodeOptions};
use tokio::time::Instant;

use crate::args::InitArgs;
use crate::coordinator::{fault, refused};
use crate::exit::{Exit, Failure};
use crate::{machine, secrets_key, terminal};

/// How long a new node may take to make a cluster of itself.
const BOOTSTRAP: Duration = Duration::from_secs(30);

/// `tenon cluster init --data-dir`.
pub fn init(args: &InitArgs) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Environment, format!("cannot start: {error}")))?;
    let data_dir = args.data_dir.clone().unwrap_or_default();
    let data_dir = std::path::absolute(&data_dir).unwrap_or(data_dir);
    let url = urls(&[args.advertise.as_deref().unwrap_or_default()])?.remove(0);
    if !url.starts_with("https://") {
        let message = format!("--advertise {url}: this cluster will speak TLS");
        return Err(Failure::new(Exit::Usage, message).hint("for example https://c1:7070"));
    }
    if data_dir.join("node.json").exists() {
        let message = format!("{} belongs to a cluster already", data_dir.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    let name = args.name.clone().unwrap_or_else(machine::name);
    let key = secrets_key::of_beginning(
        args.secrets_key.as_deref(),
        args.secrets_key_command.as_deref(),
        &data_dir,
    )?;
    let options = NodeOptions { key: Some(key), ..NodeOptions::new(data_dir.clone(), &name, &url) };
    let node = Node::start(options, runtime.handle().clone()).map_err(refused)?;
    let made = runtime.block_on(found(&node.handle()));
    let stopped = node.stop().map_err(refused);
    let token = made.and_then(|token| stopped.map(|()| token))?;
    terminal::note(&format!(
        "made a cluster in {}; start its first node: tenon coordinator --data-dir {}",
        data_dir.display(),
        data_dir.display()
    ));
    terminal::note("the first token, for an admin, is shown only now (TENON_TOKEN takes it):");
    terminal::print(&format!("{token}\n"))?;
    Ok(Exit::Success)
}

/// Makes a cluster of this node, with an authority; the first token.
pub async fn found(handle: &Handle) -> Result<String, Failure> {
    let deadline = Instant::now() + BOOTSTRAP;
    handle.change(Change::Init { peers: Vec::new() }, deadline).await.map_err(fault)?;
    let token = handle.found_trust(deadline).await.map_err(fault)?;
    handle.ensure_identity().map_err(fault)?;
    Ok(token.reveal())
}

/// Likewise, and puts the token where only the owner of the directory reads it.
pub async fn found_with_file(handle: &Handle, data_dir: &Path) -> Result<(), Failure> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let token = found(handle).await?;
    let path = data_dir.join("admin.token");
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(format!("{token}\n").as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error: std::io::Error| {
        Failure::new(Exit::Environment, format!("cannot write {}: {error}", path.display()))
    })?;
    terminal::note(&format!(
        "the first token, for an admin, is in {}: take it from there, and remove the file",
        path.display()
    ));
    Ok(())
}
