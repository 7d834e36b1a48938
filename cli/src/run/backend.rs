//! Which backend runs the steps, and starting it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tenon_agent::ImageMap;
use tenon_agent::backend::{Backend, BackendError, BackendOptions};
use tenon_agent::detect::{self, detect};
use tenon_agent::keeping::HouseOptions;
use tenon_agent::owner::Owner;
use tenon_agent::policy::Policy;

use crate::args::BackendChoice;
use crate::exit::{Exit, Failure};
use crate::terminal;

/// What is wanted of a backend.
pub struct Wanted<'a> {
    /// Where it keeps its files.
    pub data_dir: PathBuf,
    /// Whose its things are.
    pub owner: Owner,
    /// Leave containers and directories behind.
    pub keep: bool,
    /// A file of image replacements.
    pub image_map: Option<&'a Path>,
    /// Which one.
    pub backend: BackendChoice,
    /// What tasks may have of this machine.
    pub policy: Policy,
    /// What is kept, and for how long.
    pub house: HouseOptions,
    /// Tell the user which one it is, and why.
    pub tell: bool,
}

/// The backend that the user chose, or the one that this machine has.
pub async fn open(wanted: &Wanted<'_>) -> Result<Arc<dyn Backend>, Failure> {
    let options = BackendOptions {
        data_dir: wanted.data_dir.clone(),
        owner: wanted.owner.clone(),
        keep: wanted.keep,
        image_map: image_map(wanted.image_map)?,
        policy: wanted.policy.clone(),
        house: wanted.house.clone(),
    };
    let choice = match wanted.backend {
        BackendChoice::Auto => detect::BackendChoice::Auto,
        BackendChoice::Docker => detect::BackendChoice::Docker,
        BackendChoice::Host => detect::BackendChoice::Host,
    };
    let (backend, why) = detect(choice, options).await.map_err(refused)?;
    if wanted.tell {
        terminal::note(&format!("steps run on {why}"));
    }
    Ok(backend)
}

fn refused(error: BackendError) -> Failure {
    let of_directory = error.code.starts_with("agent/");
    let failure = Failure::new(Exit::Environment, error);
    match of_directory {
        true => failure.hint("--state-dir or TENON_STATE_DIR chooses another directory"),
        // The backend itself says what to do.
        false => failure,
    }
}

fn image_map(path: Option<&Path>) -> Result<ImageMap, Failure> {
    let Some(path) = path else {
        return Ok(ImageMap::default());
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(Exit::Usage, format!("--image-map: cannot read {}: {error}", path.display()))
    })?;
    ImageMap::parse(&text).map_err(|error| {
        Failure::new(Exit::Usage, format!("--image-map {}: {error}", path.display()))
    })
}
