//! What is copied to the daemon's machine before an attempt's containers are made: its directories, the
//! program, and the directories of claims, which are shared and never overwritten.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tenon_entrypoint::relay::Order;

use super::{Far, entrypoint_dir};
use crate::pod::{PodDir, PodPlan, SPEC_FILE};

/// What is of use only here: it says whose an attempt is, and how to go on with it.
const OWN: [&str; 3] = [crate::owner::OWNER_FILE, "begun", "adopt"];

/// The orders that make it. Specs are removed here: they may hold Secrets, and over there the
/// entrypoint removes them.
pub fn upload(far: &Far, dir: &PodDir, plan: &PodPlan) -> io::Result<Vec<Order>> {
    let mut orders = vec![Order::Program { path: far.required(&entrypoint_dir(&far.data_dir))? }];
    for root in [dir.root(), dir.private()] {
        copy(far, root, root, &mut orders)?;
    }
    let runs = far.data_dir.join("runs");
    for container in plan.steps.iter().chain(&plan.sidecars) {
        for bind in container.binds.iter().filter(|bind| bind.source.starts_with(&runs)) {
            share(far, &bind.source, &mut orders)?;
        }
        match fs::remove_file(container.spec_dir.join(SPEC_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(orders)
}

fn copy(far: &Far, root: &Path, directory: &Path, orders: &mut Vec<Order>) -> io::Result<()> {
    let mode = fs::metadata(directory)?.permissions().mode() & 0o7777;
    orders.push(Order::Directory { path: far.required(directory)?, mode });
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if directory == root && OWN.iter().any(|own| entry.file_name() == *own) {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(far, root, &path, orders)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&path)?.to_string_lossy().into_owned();
            orders.push(Order::Link { path: far.required(&path)?, target });
        } else {
            let mode = entry.metadata()?.permissions().mode() & 0o7777;
            let contents = fs::read(&path)?;
            orders.push(Order::File { path: far.required(&path)?, mode, contents });
        }
    }
    Ok(())
}

/// Claims are empty directories here; what is in them is over there.
fn share(far: &Far, directory: &Path, orders: &mut Vec<Order>) -> io::Result<()> {
    orders.push(Order::Share { path: far.required(directory)? });
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            share(far, &entry.path(), orders)?;
        }
    }
    Ok(())
}
