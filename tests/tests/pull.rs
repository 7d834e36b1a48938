//! Pulling images from a registry, with credentials and without.
//!
//! `cargo xtask test` starts two registries on loopback ports and names them in the environment; without them (a plain
//! `cargo test`) these tests say that they were skipped.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::fs;
use std::process::Command;

use tenon_tests::{Said, Tenon, finish};

/// `user:password` in base64, as a Docker configuration holds it.
const BASIC: &str = "dGVub246c3RhbmRpbi1wYXNzd29yZA==";

fn registry(name: &str) -> Option<String> {
    let address = std::env::var(name).ok();
    if address.is_none() {
        println!("skipped: {name} is not set; use `cargo xtask test`");
    }
    address
}

/// Pulls `tenon/busybox:1` under a tag that no other test uses, always anew.
fn run_with_image(tenon: &Tenon, image: &str, docker_config: Option<&str>) -> Said {
    let yaml = format!(
        "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {{name: pull}}\nspec:\n  taskSpec:\n    steps:\n    \
         - name: s\n      image: {image}\n      imagePullPolicy: Always\n      script: echo pulled and run\n"
    );
    let file = tenon.file("run.yaml", &yaml);
    let config = tenon.dir().join("docker");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.json"), docker_config.unwrap_or("{}")).unwrap();
    let mut command = tenon.command(&["run", "-o", "json", "-f"]);
    command.arg(file).env("DOCKER_CONFIG", config);
    finish(command.spawn().unwrap())
}

fn remove(image: &str) {
    // The image is not there where pulling it was refused.
    let _ = Command::new("docker").args(["image", "rm", image]).output();
}

#[test]
fn an_image_is_pulled_from_an_open_registry() {
    let Some(address) = registry("TENON_TEST_REGISTRY") else { return };
    let image = format!("{address}/tenon/busybox:1");
    let said = run_with_image(&Tenon::docker(), &image, None).expect(0);
    remove(&image);
    assert_eq!(said.log(), ["pulled and run"]);
}

#[test]
fn credentials_of_the_docker_configuration_are_used() {
    let Some(address) = registry("TENON_TEST_REGISTRY_GUARDED") else { return };
    let image = format!("{address}/tenon/busybox:1");
    let config = format!("{{\"auths\":{{\"{address}\":{{\"auth\":\"{BASIC}\"}}}}}}");
    let said = run_with_image(&Tenon::docker(), &image, Some(&config)).expect(0);
    assert_eq!(said.log(), ["pulled and run"]);

    // And without them the same image is refused, although it is there now.
    let said = run_with_image(&Tenon::docker(), &image, None).expect(5);
    remove(&image);
    assert!(said.log().is_empty());
    let text = said.stdout + &said.stderr;
    assert!(text.contains(&image), "{text}");
    assert!(text.contains("TaskRunImagePullFailed"), "{text}");
}

#[test]
fn an_image_that_does_not_exist_is_named_in_the_failure() {
    let Some(address) = registry("TENON_TEST_REGISTRY") else { return };
    let image = format!("{address}/tenon/no-such-image:1");
    let said = run_with_image(&Tenon::docker(), &image, None).expect(5);
    let text = said.stdout + &said.stderr;
    assert!(text.contains(&image), "{text}");
}
