//! Which backend runs the steps, and starting it.

use std::sync::Arc;

use tenon_agent::ImageMap;
use tenon_agent::backend::{Backend, BackendError, BackendOptions};
use tenon_agent::detect::{self, detect};

use super::Settings;
use crate::args::BackendChoice;
use crate::exit::{Exit, Failure};
use crate::terminal;

/// The backend that the user chose, or the one that this machine has.
pub async fn open(settings: &Settings) -> Result<Arc<dyn Backend>, Failure> {
    let options = BackendOptions {
        data_dir: settings.state_dir.join("agent"),
        keep: settings.args.keep,
        image_map: image_map(settings)?,
    };
    let choice = match settings.args.backend {
        BackendChoice::Auto => detect::BackendChoice::Auto,
        BackendChoice::Docker => detect::BackendChoice::Docker,
        BackendChoice::Host => detect::BackendChoice::Host,
    };
    let (backend, why) = detect(choice, options).await.map_err(refused)?;
    let chosen_by_tenon = settings.args.backend == BackendChoice::Auto;
    if (chosen_by_tenon && !settings.args.quiet) || settings.args.debug {
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

fn image_map(settings: &Settings) -> Result<ImageMap, Failure> {
    let Some(path) = &settings.args.image_map else {
        return Ok(ImageMap::default());
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(Exit::Usage, format!("--image-map: cannot read {}: {error}", path.display()))
    })?;
    ImageMap::parse(&text).map_err(|error| {
        Failure::new(Exit::Usage, format!("--image-map {}: {error}", path.display()))
    })
}
