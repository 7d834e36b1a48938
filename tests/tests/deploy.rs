//! What is in `deploy/` fits what the programs do.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex_lite::Regex;
use serde_json::Value;
use tenon_tests::fleet::Fleet;

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)
}

/// The families of a real node's figures.
fn families(url: &str) -> BTreeSet<String> {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let named = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    named.filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect()
}

#[test]
fn dashboard_and_alerts_ask_for_figures_that_nodes_have() {
    let fleet = Fleet::start(1);
    let families = families(&fleet.coordinators[0].url);
    assert!(families.len() > 20, "{families:?}");
    let dashboard = fs::read_to_string(deploy("grafana/tenon.json")).unwrap();
    let parsed: Value = serde_json::from_str(&dashboard).unwrap();
    assert!(parsed["panels"].as_array().unwrap().len() > 10);
    let alerts = fs::read_to_string(deploy("prometheus/alerts.yml")).unwrap();
    let name = Regex::new("tenon_[a-z_]+").unwrap();
    let mut asked = 0;
    for (file, text) in [("dashboard", &dashboard), ("alerts", &alerts)] {
        for found in name.find_iter(text) {
            let full = found.as_str();
            let family = ["_total", "_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| full.strip_suffix(suffix))
                .unwrap_or(full);
            assert!(families.contains(family), "{file}: no node has {full}");
            asked += 1;
        }
    }
    assert!(asked > 30, "only {asked} figures are asked for");
}

#[test]
fn prometheus_takes_its_configuration_and_the_alerts() {
    for (what, file) in [("rules", "alerts.yml"), ("config", "prometheus.yml")] {
        let mut promtool = Command::new("promtool");
        promtool.args(["check", what]);
        // The token and the authority are where it runs.
        promtool.args((what == "config").then_some("--syntax-only"));
        let said = promtool.arg(deploy("prometheus").join(file)).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
}
