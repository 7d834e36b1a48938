//! The stand-in images of the tests, made from the distribution's packages without any registry.
//!
//! Each is tagged `tenon-test/NAME`, and `NAME` too where no other image has that name. A label holds a hash of the recipes,
//! so that a second run does nothing. deploy/test-images says what they are for.

mod recipes;
mod rootfs;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use self::recipes::{RECIPES, Recipe};
use self::rootfs::Root;
use crate::command::{Failure, begin, command, done, output};
use crate::packages;

const LABEL: &str = "dev.tenon.test-image";

/// Changes whenever anything does that decides what is in the images.
fn version() -> String {
    let mut hasher = DefaultHasher::new();
    let sources = [
        include_str!("recipes.rs"),
        include_str!("rootfs.rs"),
        include_str!("../packages.rs"),
        include_str!("files/bash-entrypoint.sh"),
        include_str!("files/node-entrypoint.sh"),
        include_str!("files/sshd_config"),
    ];
    sources.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Builds the images that are missing or out of date.
pub fn build(force: bool) -> Result<(), Failure> {
    let start = begin("stand-in images");
    let version = version();
    let stale: Vec<&Recipe> = RECIPES
        .iter()
        .filter(|recipe| force || label(&own(recipe)).as_ref() != Some(&version))
        .collect();
    if !stale.is_empty() {
        let mut wanted: Vec<&str> =
            stale.iter().flat_map(|recipe| recipes::packages(recipe)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        packages::download(&wanted)?;
        done("packages fetched", start);
        let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while let Some(recipe) = stale.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = make(recipe, &version)
                            && let Ok(mut failures) = failures.lock()
                        {
                            failures.push(format!("image {}: {error}", recipe.name));
                        }
                    }
                });
            }
        });
        let failures = failures.into_inner().unwrap_or_default();
        if !failures.is_empty() {
            return Err(failures.join("\n"));
        }
    }
    for recipe in &RECIPES {
        // Never take the name of an image that somebody pulled.
        if exists(recipe.name) && label(recipe.name).is_none() {
            println!("    {} stays as it is: the stand-in is {}", recipe.name, own(recipe));
        } else {
            output(command("docker", ["tag", &own(recipe), recipe.name]))?;
        }
    }
    // What was replaced has no name any more; nobody else's images carry the label.
    let filter = format!("label={LABEL}");
    output(command("docker", ["image", "prune", "--force", "--filter", &filter]))?;
    done(&format!("{} built, {} there already", stale.len(), RECIPES.len() - stale.len()), start);
    Ok(())
}

fn own(recipe: &Recipe) -> String {
    format!("tenon-test/{}", recipe.name)
}

fn exists(image: &str) -> bool {
    output(command("docker", ["image", "inspect", image])).is_ok()
}

/// The version of a stand-in; nothing for other images.
fn label(image: &str) -> Option<String> {
    let format = format!("{{{{ index .Config.Labels \"{LABEL}\" }}}}");
    let label = output(command("docker", ["image", "inspect", "--format", &format, image])).ok()?;
    Some(label.trim().to_owned()).filter(|label| !label.is_empty() && label != "<no value>")
}

fn make(recipe: &Recipe, version: &str) -> Result<(), Failure> {
    let start = std::time::Instant::now();
    let root = Root::assemble(recipe)?;
    let mut config: Vec<String> = recipe.config.iter().map(|line| (*line).to_owned()).collect();
    config.push(format!("LABEL {LABEL}={version}"));
    root.import(&config, &own(recipe))?;
    done(recipe.name, start);
    Ok(())
}
