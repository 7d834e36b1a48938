//! Git and registry credentials of the steps, out of the ServiceAccount's secrets: the files that
//! Tekton's creds-init writes. Pure: secrets in, files out.
//!
//! A secret that is missing or of no use is a warning, never a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tenon_entrypoint::CredentialFile;

use super::{Materials, SecretValues};

/// Where the files are in a step.
const CREDS: &str = "/tekton/creds";

/// The credential files of the named secrets, and warnings.
pub fn files(names: &[String], materials: &Materials) -> (Vec<CredentialFile>, Vec<String>) {
    let mut warnings = Vec::new();
    let mut seen = BTreeSet::new();
    let mut secrets = Vec::new();
    let mut missing = Vec::new();
    for name in names.iter().filter(|name| !name.is_empty()) {
        if !seen.insert(name) {
            continue;
        }
        match materials.secrets.get(name) {
            Some(secret) => secrets.push((name.as_str(), secret)),
            None => missing.push(name.as_str()),
        }
    }
    if !missing.is_empty() {
        warnings.push(format!(
            "Unable to retrieve some secrets ({}); attempting to use them may not succeed.",
            missing.join(", ")
        ));
    }
    let mut git_config = String::new();
    let mut files = Vec::new();
    git_basic(&secrets, &mut git_config, &mut files);
    git_ssh(&secrets, &mut git_config, &mut files);
    if !git_config.is_empty() {
        files.push(file(".gitconfig", git_config));
    }
    docker(&secrets, &mut files, &mut warnings);
    (files, warnings)
}

/// Names of the secrets that become credentials: their keys are mounted as files too.
pub fn used<'a>(names: &'a [String], materials: &Materials) -> BTreeSet<&'a str> {
    let is_used = |secret: &SecretValues| match secret.kind.as_str() {
        "kubernetes.io/basic-auth" => {
            !urls(secret, "tekton.dev/git-").is_empty()
                || !urls(secret, "tekton.dev/docker-").is_empty()
        }
        "kubernetes.io/ssh-auth" => !urls(secret, "tekton.dev/git-").is_empty(),
        "kubernetes.io/dockerconfigjson" | "kubernetes.io/dockercfg" => true,
        _ => false,
    };
    let there = names.iter().filter(|name| materials.secrets.get(*name).is_some_and(is_used));
    there.map(String::as_str).collect()
}

fn file(path: &str, contents: impl Into<Vec<u8>>) -> CredentialFile {
    CredentialFile { path: path.to_owned(), contents: contents.into() }
}

/// Values of the annotations with that prefix, sorted.
fn urls(secret: &SecretValues, prefix: &str) -> Vec<String> {
    let mut urls: Vec<String> = secret
        .metadata
        .annotations
        .iter()
        .filter(|(key, _)| key.starts_with(prefix))
        .map(|(_, url)| url.clone())
        .collect();
    urls.sort();
    urls
}

/// The path part of a URL, `""` when it is empty or `/`.
fn url_path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("", |at| &rest[at..]);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if path == "/" { "" } else { path }
}

fn git_basic(
    secrets: &[(&str, &SecretValues)],
    git_config: &mut String,
    files: &mut Vec<CredentialFile>,
) {
    let mut lines: Vec<(bool, String)> = Vec::new();
    for (_, secret) in secrets {
        if secret.kind != "kubernetes.io/basic-auth" {
            continue;
        }
        let (username, password) = (secret.text("username"), secret.text("password"));
        for url in urls(secret, "tekton.dev/git-") {
            if git_config.is_empty() {
                git_config.push_str("[credential]\n\thelper = store\n");
            }
            let has_path = !url_path(&url).is_empty();
            let escaped = username.replace('\\', "\\\\");
            let _ = write!(git_config, "[credential {url:?}]\n\tusername = {escaped}\n");
            if has_path {
                git_config.push_str("\tuseHttpPath = true\n");
            }
            let (scheme, rest) = url.split_once("://").unwrap_or(("https", &url));
            let line = format!(
                "{scheme}://{}:{}@{rest}",
                escape_user_info(&username),
                escape_user_info(&password)
            );
            lines.push((has_path, line));
        }
    }
    if lines.is_empty() {
        return;
    }
    // Those of a whole host come first; the sort is stable.
    lines.sort_by_key(|(has_path, _)| *has_path);
    let mut text = String::new();
    for (_, line) in lines {
        text.push_str(&line);
        text.push('\n');
    }
    files.push(file(".git-credentials", text));
}

/// Percent-encodes what may not stand in the user part of a URL.
fn escape_user_info(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,;=".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

fn git_ssh(
    secrets: &[(&str, &SecretValues)],
    git_config: &mut String,
    files: &mut Vec<CredentialFile>,
) {
    // One Host block an address, with the keys of all secrets that name it.
    let mut addresses: Vec<String> = Vec::new();
    let mut keys: BTreeMap<String, Vec<(&str, &SecretValues)>> = BTreeMap::new();
    for (name, secret) in secrets {
        if secret.kind != "kubernetes.io/ssh-auth" {
            continue;
        }
        for address in urls(secret, "tekton.dev/git-") {
            if !addresses.contains(&address) {
                addresses.push(address.clone());
            }
            keys.entry(address).or_default().push((name, secret));
        }
    }
    if addresses.is_empty() {
        return;
    }
    addresses.sort_by_key(|address| address.contains('/'));
    let mut config = String::new();
    let mut known_hosts = Vec::new();
    let mut written = BTreeSet::new();
    for address in &addresses {
        let (host, port, path) = ssh_address(address);
        let alias = if path.is_empty() {
            host.to_owned()
        } else {
            format!("{host}--{}", path.replace('/', "--"))
        };
        if !path.is_empty() {
            let authority = if port == "22" { host.to_owned() } else { format!("{host}:{port}") };
            let _ = write!(
                git_config,
                "[url \"git@{alias}:{path}.git\"]\n\tinsteadOf = git@{host}:{path}.git\n\
                 [url \"ssh://{alias}/{path}.git\"]\n\tinsteadOf = ssh://{authority}/{path}.git\n"
            );
        }
        let _ = write!(config, "Host {alias}\n    HostName {host}\n    Port {port}\n");
        for (name, secret) in &keys[address] {
            let _ = writeln!(config, "    IdentityFile {CREDS}/.ssh/id_{name}");
            if written.insert(*name) {
                files.push(file(&format!(".ssh/id_{name}"), secret.text("ssh-privatekey")));
            }
            let hosts = secret.text("known_hosts");
            if !hosts.is_empty() {
                known_hosts.push(hosts);
            }
        }
    }
    files.push(file(".ssh/config", config));
    if !known_hosts.is_empty() {
        files.push(file(".ssh/known_hosts", known_hosts.join("\n")));
    }
}

/// Host, port and path (without its leading slash) of `host[:port][/path]`.
fn ssh_address(address: &str) -> (&str, &str, &str) {
    let (authority, path) = address.split_once('/').unwrap_or((address, ""));
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.starts_with('[') => {
            (host.trim_matches(['[', ']']), port, path)
        }
        _ => (authority, "22", path),
    }
}

fn docker(
    secrets: &[(&str, &SecretValues)],
    files: &mut Vec<CredentialFile>,
    warnings: &mut Vec<String>,
) {
    let mut auths = Map::new();
    let parse = |name: &str, text: String, warnings: &mut Vec<String>| -> Map<String, Value> {
        match serde_json::from_str::<Value>(&text) {
            Ok(Value::Object(map)) => map,
            _ => {
                warnings.push(format!("secret \"{name}\" is not a valid Docker configuration"));
                Map::new()
            }
        }
    };
    for (name, secret) in secrets {
        if secret.kind == "kubernetes.io/dockercfg" {
            auths.extend(parse(name, secret.text(".dockercfg"), warnings));
        }
    }
    for (name, secret) in secrets {
        if secret.kind == "kubernetes.io/dockerconfigjson" {
            let mut config = parse(name, secret.text(".dockerconfigjson"), warnings);
            if let Some(Value::Object(map)) = config.remove("auths") {
                auths.extend(map);
            }
        }
    }
    for (_, secret) in secrets {
        if secret.kind == "kubernetes.io/basic-auth" {
            let (username, password) = (secret.text("username"), secret.text("password"));
            for url in urls(secret, "tekton.dev/docker-") {
                let auth = STANDARD.encode(format!("{username}:{password}"));
                let entry = json!({
                    "username": username, "password": password, "auth": auth,
                    "email": "not@val.id",
                });
                auths.insert(url, entry);
            }
        }
    }
    if !auths.is_empty() {
        let config = json!({ "auths": auths });
        files.push(file(".docker/config.json", config.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(kind: &str, annotations: &[(&str, &str)], values: &[(&str, &str)]) -> SecretValues {
        let mut secret =
            SecretValues { kind: format!("kubernetes.io/{kind}"), ..SecretValues::default() };
        for (key, url) in annotations {
            let key = format!("tekton.dev/{key}");
            secret.metadata.annotations.insert(key, (*url).to_owned());
        }
        for (key, value) in values {
            secret.values.insert((*key).to_owned(), value.as_bytes().to_vec());
        }
        secret
    }

    fn made(secrets: Vec<(&str, SecretValues)>) -> BTreeMap<String, String> {
        let names: Vec<String> = secrets.iter().map(|(name, _)| (*name).to_owned()).collect();
        let materials = Materials {
            secrets: secrets.into_iter().map(|(name, secret)| (name.to_owned(), secret)).collect(),
            ..Materials::default()
        };
        let (files, _) = files(&names, &materials);
        files
            .into_iter()
            .map(|file| (file.path, String::from_utf8(file.contents).unwrap()))
            .collect()
    }

    #[test]
    fn basic_git() {
        let files = made(vec![(
            "s",
            secret(
                "basic-auth",
                &[("git-1", "https://github.com"), ("git-0", "https://b.com/org/repo")],
                &[("username", "a\\b"), ("password", "p@ss:/")],
            ),
        )]);
        assert_eq!(
            files[".gitconfig"],
            "[credential]\n\thelper = store\n\
             [credential \"https://b.com/org/repo\"]\n\tusername = a\\\\b\n\tuseHttpPath = true\n\
             [credential \"https://github.com\"]\n\tusername = a\\\\b\n"
        );
        assert_eq!(
            files[".git-credentials"],
            "https://a%5Cb:p%40ss%3A%2F@github.com\nhttps://a%5Cb:p%40ss%3A%2F@b.com/org/repo\n"
        );
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn ssh_git() {
        let files = made(vec![
            (
                "key",
                secret(
                    "ssh-auth",
                    &[("git-0", "github.com"), ("git-1", "h.com:2222/org/repo")],
                    &[("ssh-privatekey", "PRIVATE"), ("known_hosts", "known")],
                ),
            ),
            ("unused", secret("ssh-auth", &[], &[("ssh-privatekey", "x")])),
        ]);
        assert_eq!(files[".ssh/id_key"], "PRIVATE");
        assert_eq!(
            files[".ssh/config"],
            "Host github.com\n    HostName github.com\n    Port 22\n    IdentityFile /tekton/creds/.ssh/id_key\n\
             Host h.com--org--repo\n    HostName h.com\n    Port 2222\n    IdentityFile /tekton/creds/.ssh/id_key\n"
        );
        assert_eq!(
            files[".gitconfig"],
            "[url \"git@h.com--org--repo:org/repo.git\"]\n\tinsteadOf = git@h.com:org/repo.git\n\
             [url \"ssh://h.com--org--repo/org/repo.git\"]\n\tinsteadOf = ssh://h.com:2222/org/repo.git\n"
        );
        assert!(!files.contains_key(".docker/config.json"));
        assert!(!files.contains_key(".ssh/id_unused"));
    }

    #[test]
    fn docker_configs_merge() {
        let files = made(vec![
            (
                "basic",
                secret(
                    "basic-auth",
                    &[("docker-0", "https://r.io")],
                    &[("username", "u"), ("password", "p")],
                ),
            ),
            (
                "json",
                secret(
                    "dockerconfigjson",
                    &[],
                    &[(
                        ".dockerconfigjson",
                        r#"{"auths":{"a.io":{"auth":"eA=="},"b.io":{"auth":"eQ=="}}}"#,
                    )],
                ),
            ),
            (
                "cfg",
                secret(
                    "dockercfg",
                    &[],
                    &[(".dockercfg", r#"{"a.io":{"auth":"old"},"c.io":{"auth":"eg=="}}"#)],
                ),
            ),
        ]);
        let config: Value = serde_json::from_str(&files[".docker/config.json"]).unwrap();
        assert_eq!(
            config,
            json!({"auths": {
                "a.io": {"auth": "eA=="}, "b.io": {"auth": "eQ=="}, "c.io": {"auth": "eg=="},
                "https://r.io": {"username": "u", "password": "p", "auth": "dTpw", "email": "not@val.id"},
            }})
        );
    }

    #[test]
    fn a_missing_secret_is_a_warning() {
        let (files, warnings) = files(&["gone".to_owned()], &Materials::default());
        assert!(files.is_empty());
        assert!(warnings[0].contains("(gone)"), "{warnings:?}");
    }
}
