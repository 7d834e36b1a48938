//! Credentials for pulls: imagePullSecrets, then the user's Docker configuration with its helpers.

use std::path::PathBuf;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::image_map::full_name;

const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What to say to the registry of an image; `None` when nothing is known of it.
pub async fn credentials(image: &str, pull_configs: &[Vec<u8>]) -> Option<DockerCredentials> {
    let full = full_name(image);
    let registry = full.split('/').next().unwrap_or_default().to_owned();
    for config in pull_configs {
        let config: Value = serde_json::from_slice(config).unwrap_or_default();
        let auths = if config["auths"].is_object() { &config["auths"] } else { &config };
        if let Some(found) = from_auths(auths, &registry, &full) {
            return Some(found);
        }
    }
    let text = std::fs::read(config_path()?).ok()?;
    let config: Value = serde_json::from_slice(&text).ok()?;
    let key = if registry == DOCKER_HUB { DOCKER_HUB_KEY } else { &registry };
    let helper = config["credHelpers"][key]
        .as_str()
        .or_else(|| config["credHelpers"][&registry].as_str())
        .or_else(|| config["credsStore"].as_str());
    if let Some(helper) = helper
        && let Some(found) = from_helper(helper, key).await
    {
        return Some(found);
    }
    from_auths(&config["auths"], &registry, &full)
}

fn config_path() -> Option<PathBuf> {
    let dir = match std::env::var_os("DOCKER_CONFIG") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".docker"),
    };
    Some(dir.join("config.json"))
}

/// The entry whose key fits best: a key may have a scheme, and a path that narrows it.
fn from_auths(auths: &Value, registry: &str, full: &str) -> Option<DockerCredentials> {
    let (key, entry) = auths
        .as_object()?
        .iter()
        .filter(|(key, _)| fits(key, registry, full))
        .max_by_key(|(key, _)| key.len())?;
    let text = |name: &str| entry[name].as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    let mut found = DockerCredentials {
        username: text("username"),
        password: text("password"),
        identitytoken: text("identitytoken"),
        registrytoken: text("registrytoken"),
        serveraddress: Some(if key.contains("docker.io") {
            DOCKER_HUB_KEY.to_owned()
        } else {
            registry.to_owned()
        }),
        ..DockerCredentials::default()
    };
    if let Some(auth) = text("auth") {
        let decoded = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
        let (username, password) = decoded.split_once(':')?;
        found.username = Some(username.to_owned());
        found.password = Some(password.trim_end_matches('\0').to_owned());
    }
    Some(found)
}

fn fits(key: &str, registry: &str, full: &str) -> bool {
    let bare = key.split_once("://").map_or(key, |(_, rest)| rest);
    let bare = bare.trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    if bare == "index.docker.io" || bare == "docker.io" {
        return registry == DOCKER_HUB;
    }
    bare == registry
        || full.strip_prefix(bare).is_some_and(|rest| rest.starts_with(['/', ':', '@']))
}

/// Asks `docker-credential-<helper> get`, as the Docker command does.
async fn from_helper(helper: &str, key: &str) -> Option<DockerCredentials> {
    let mut child = tokio::process::Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take()?;
    stdin.write_all(key.as_bytes()).await.ok()?;
    drop(stdin);
    let output = child.wait_with_output().await.ok()?;
    if !output.status.success() {
        return None;
    }
    let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
    let username = answer["Username"].as_str()?.to_owned();
    let secret = answer["Secret"].as_str()?.to_owned();
    let mut found =
        DockerCredentials { serveraddress: Some(key.to_owned()), ..DockerCredentials::default() };
    if username == "<token>" {
        found.identitytoken = Some(secret);
    } else {
        found.username = Some(username);
        found.password = Some(secret);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_best_entry() {
        let auths = json!({
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
            "r.io": {"username": "all", "password": "p"},
            "r.io/team": {"username": "team", "password": "p"},
            "localhost:5000": {"auth": "bG9jYWw6YTpi"},
        });
        for (image, username) in [
            ("busybox", Some("hub")),
            ("r.io/other/x", Some("all")),
            ("r.io/team/x:1", Some("team")),
            ("r.io/teams/x", Some("all")),
            ("localhost:5000/x", Some("local")),
            ("q.io/x", None),
        ] {
            let full = full_name(image);
            let registry = full.split('/').next().unwrap();
            let found = from_auths(&auths, registry, &full);
            assert_eq!(found.and_then(|f| f.username).as_deref(), username, "{image}");
        }
        let local = from_auths(&auths, "localhost:5000", "localhost:5000/x").unwrap();
        assert_eq!(local.password.as_deref(), Some("a:b"));
    }
}
