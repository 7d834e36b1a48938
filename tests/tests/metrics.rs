//! Metrics in a real Prometheus: it scrapes a node, and is asked for everything that is documented.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tenon_tests::fleet::Fleet;
use tenon_tests::{http_get, wait_until};

const RUN: &str = "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: t}\nspec:\n  \
    taskSpec: {steps: [{name: s, image: x, script: 'echo one'}]}\n";

/// Where Prometheus' programs are: where `cargo xtask test` has unpacked them, else on the path.
fn program(name: &str) -> PathBuf {
    std::env::var_os("TENON_PROMETHEUS")
        .map_or_else(|| name.into(), |dir| PathBuf::from(dir).join(name))
}

/// It does not outlive the test.
struct Prometheus(Child, String);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Prometheus {
    /// Scrapes this node twice a second.
    fn start(fleet: &Fleet, node: &str) -> Prometheus {
        let config = format!(
            "global: {{scrape_interval: 500ms}}\nscrape_configs:\n- job_name: tenon\n  \
             static_configs: [{{targets: [\"{node}\"]}}]\n"
        );
        let config = fleet.tenon.file("prometheus.yaml", &config);
        // It takes no port 0. Whoever takes this one meanwhile fails the test.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let child = Command::new(program("prometheus"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", fleet.tenon.dir().join("tsdb").display()))
            .arg(format!("--web.listen-address={free}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is there: `cargo xtask test` fetches it");
        let prometheus = Prometheus(child, free);
        wait_until("Prometheus", || http_get(&prometheus.1, "/-/ready").is_some());
        prometheus
    }

    /// The values of a query, none where there are none.
    fn query(&self, text: &str) -> Vec<Value> {
        let answer = http_get(&self.1, &format!("/api/v1/query?query={text}")).unwrap_or_default();
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// What it knows of a metric: its kind and its help.
    fn metadata(&self, name: &str) -> Value {
        let answer =
            http_get(&self.1, &format!("/api/v1/metadata?metric={name}")).unwrap_or_default();
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        answer["data"][name][0].clone()
    }
}

/// What `promtool check` reads: the older format, which has no end, and names counters by their samples.
fn in_prometheus_own_format(metrics: &str) -> String {
    let counters: Vec<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let lines = metrics.lines().filter(|line| *line != "# EOF").map(|line| {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), Some(rest)) if counters.contains(&name) => {
                format!("# {what} {name}_total {rest}\n")
            }
            _ => format!("{line}\n"),
        }
    });
    lines.collect()
}

/// Name, whether it has labels, and kind of every metric that docs/operations.md names.
fn documented() -> Vec<(String, bool, String)> {
    let text = include_str!("../../docs/operations.md");
    let mut found = Vec::new();
    for row in text.lines().filter(|line| line.starts_with("| `tenon_")) {
        let mut cells = row.split('|').skip(1).map(str::trim);
        let (names, kinds) = (cells.next().unwrap(), cells.next().unwrap());
        let kinds: Vec<&str> = kinds.split(", ").collect();
        for (index, name) in names.split('`').skip(1).step_by(2).enumerate() {
            let (base, labels) = name.split_once('{').unwrap_or((name, ""));
            let kind = kinds.get(index).or(kinds.last()).unwrap();
            found.push((base.to_owned(), !labels.is_empty(), (*kind).to_owned()));
        }
    }
    found
}

#[test]
fn everything_that_is_documented_is_in_a_real_prometheus() {
    let fleet = Fleet::start(1);
    fleet.run(RUN, &[]).expect(0);
    let node = fleet.coordinators[0].url.strip_prefix("http://").unwrap().to_owned();
    let metrics = http_get(&node, "/metrics").unwrap();
    let mut promtool = Command::new(program("promtool"));
    let mut promtool = promtool
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool comes with prometheus");
    let text = in_prometheus_own_format(&metrics);
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let prometheus = Prometheus::start(&fleet, &node);
    wait_until("a scrape after the run", || !prometheus.query("tenon_events_total>0").is_empty());
    let documented = documented();
    assert!(documented.len() > 30, "{documented:?}");
    for (name, has_labels, kind) in documented {
        let base = name.strip_suffix("_total").unwrap_or(&name);
        let known = [prometheus.metadata(&name), prometheus.metadata(base)];
        let known = known.into_iter().find(|known| !known.is_null());
        let Some(known) = known else {
            // With labels there is nothing before it has happened.
            assert!(has_labels, "Prometheus knows no {name}");
            continue;
        };
        assert_eq!(known["type"], *kind, "{name}");
        assert!(!known["help"].as_str().unwrap_or_default().is_empty(), "{name} has no help");
        let series = if kind == "histogram" { format!("{name}_count") } else { name.clone() };
        assert!(has_labels || prometheus.query(&series).len() == 1, "no value of {name}");
    }
    assert_eq!(prometheus.query("up{job=%22tenon%22}==1").len(), 1);
}
