//! Which backend runs the steps, and starting it.

use std::sync::Arc;

use tenon_agent::ImageMap;
use tenon_agent::backend::{Backend, BackendError, BackendOptions};
use tenon_agent::docker::DockerBackend;

use super::Settings;
use crate::args::BackendChoice;
use crate::exit::{Exit, Failure};

/// The backend that the user chose, or the one that this machine has.
pub async fn open(settings: &Settings) -> Result<Arc<dyn Backend>, Failure> {
    let options = BackendOptions {
        data_dir: settings.state_dir.join("agent"),
        keep: settings.args.keep,
        image_map: image_map(settings)?,
    };
    match settings.args.backend {
        BackendChoice::Docker | BackendChoice::Auto => {
            let backend = DockerBackend::connect(options).await.map_err(refused)?;
            let _ = backend.reap().await.map_err(refused)?;
            Ok(Arc::new(backend))
        }
        BackendChoice::Host => {
            Err(Failure::new(Exit::Environment, "this build has no host backend"))
        }
    }
}

fn refused(error: BackendError) -> Failure {
    Failure::new(Exit::Environment, error.to_string())
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
