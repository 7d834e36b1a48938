//! The kinds of runs that a chaos run submits, and what must come of each.
//!
//! Some are written for the purpose: their steps leave marks, by which one that ran twice is known.
//! The others are examples and conformance cases as they are.

use serde_json::{Value, json};

use crate::Backend;

/// How many lines the kind `lines` prints.
const LINES: u64 = 3000;

/// How a run ends of which an attempt was lost too often.
pub const INFRAFAILED: &str = "infrafailed";

/// A run to submit.
#[derive(Clone, Debug)]
pub struct Kind {
    /// What it is called, in messages and in the names of its runs.
    pub name: &'static str,
    manifest: String,
    /// What the run must end with.
    pub expect: Expect,
    /// The client cancels it once a task has started.
    pub cancel: bool,
}

/// What must come of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Expect {
    /// `succeeded`, `failed`, …
    pub status: &'static str,
    /// Exactly these results, where any are named.
    pub results: Option<Value>,
    /// So many lines `line N`.
    pub lines: Option<u64>,
}

impl Kind {
    /// A run with this manifest, in which `metadata.name` is to be replaced.
    pub fn new(name: &'static str, manifest: String, expect: Expect) -> Kind {
        Kind { name, manifest, expect, cancel: false }
    }

    /// The documents of a run of this kind, which is to be called so; its steps leave their marks
    /// in that file, if there is one.
    pub fn manifest(&self, name: &str, marks: Option<&str>) -> String {
        let (before, after) = self.manifest.split_at(self.manifest.find("metadata:").unwrap_or(0));
        let at = after.find("name: ").map_or(0, |at| at + "name: ".len());
        let (key, rest) = after.split_at(at);
        let end = rest.find(['}', '\n']).unwrap_or(rest.len());
        let text = format!("{before}{key}{name}{}", &rest[end..]);
        text.replace("@MARKS@", marks.unwrap_or_default())
    }
}

/// All kinds that a backend can run, those that are to be frequent several times.
pub fn kinds(backend: Backend) -> Vec<Kind> {
    let mut kinds = vec![
        ours("dag", DAG, "succeeded", Some(json!({"sum": "ab-ac"}))),
        ours("nap", NAP, "succeeded", None),
        ours("nap", NAP, "succeeded", None),
        ours("retry", RETRY, "succeeded", Some(json!({"at": "1"}))),
        ours("fan", FAN, "succeeded", Some(json!({"all": "a b c"}))),
        ours("fail", FAIL, "failed", Some(json!({"seen": "Failed"}))),
        ours("lines", LINES_OUT, "succeeded", None),
        ours("late", LATE, "timeout", None),
        Kind { cancel: true, ..ours("stop", STOP, "cancelled", None) },
    ];
    let cases = [
        ("share", include_str!("../../conformance/claim-template-is-shared.yaml")),
        ("final", include_str!("../../conformance/pipeline-results-from-finally.yaml")),
        ("sibs", include_str!("../../conformance/siblings-finish-after-a-failure.yaml")),
        ("tries", include_str!("../../conformance/retries-of-a-taskrun.yaml")),
        ("twelve", include_str!("../../conformance/matrix-of-twelve.yaml")),
    ];
    kinds.extend(cases.map(|(name, text)| case(name, text)));
    if backend == Backend::Docker {
        let examples = [
            ("hello", include_str!("../../../examples/hello.yaml")),
            ("matrix", include_str!("../../../examples/matrix.yaml")),
            ("again", include_str!("../../../examples/retries.yaml")),
            ("sidecar", include_str!("../../../examples/sidecar.yaml")),
        ];
        kinds.extend(examples.map(|(name, text)| ours(name, text, "succeeded", None)));
    }
    kinds
}

fn ours(name: &'static str, text: &str, status: &'static str, results: Option<Value>) -> Kind {
    let manifest = text.replace("@BEGIN@", BEGIN).replace("@END@", END);
    let lines = (name == "lines").then_some(LINES);
    Kind::new(name, manifest, Expect { status, results, lines })
}

/// A conformance case: its header says what must come of it.
fn case(name: &'static str, text: &str) -> Kind {
    let header: String = text.lines().filter_map(|line| line.strip_prefix("#:")).collect();
    let header: Value = serde_json::from_str(&header).unwrap_or_default();
    let status = if header["status"] == "False" { "failed" } else { "succeeded" };
    let results = header.get("results").cloned();
    Kind::new(name, text.to_owned(), Expect { status, results, lines: None })
}

/// Every step begins with this: a line that no other execution prints, in the output and, where
/// steps share the disk with us, in a file that no coordinator knows of.
const BEGIN: &str = r#"id=$(cat /proc/sys/kernel/random/uuid); echo "mark $id"; [ -z "@MARKS@" ] || echo "start $(context.taskRun.name) $(context.task.retry-count)" >> "@MARKS@""#;
/// And ends with this.
const END: &str = r#"[ -z "@MARKS@" ] || echo "end $(context.taskRun.name) $(context.task.retry-count)" >> "@MARKS@""#;

const DAG: &str = r#"apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: NAME
spec:
  pipelineSpec:
    results: [{name: sum, value: $(tasks.join.results.r)}]
    tasks:
    - name: first
      taskSpec:
        results: [{name: r}]
        steps:
        - name: s
          image: busybox
          script: |
            @BEGIN@
            printf a > $(results.r.path)
            @END@
    - name: left
      params: [{name: p, value: $(tasks.first.results.r)}]
      taskSpec:
        params: [{name: p}]
        results: [{name: r}]
        steps:
        - name: s
          image: busybox
          script: |
            @BEGIN@
            sleep 1
            printf $(params.p)b > $(results.r.path)
            @END@
    - name: right
      params: [{name: p, value: $(tasks.first.results.r)}]
      taskSpec:
        params: [{name: p}]
        results: [{name: r}]
        steps:
        - name: s
          image: busybox
          script: |
            @BEGIN@
            printf $(params.p)c > $(results.r.path)
            @END@
    - name: join
      params: [{name: l, value: $(tasks.left.results.r)}, {name: r, value: $(tasks.right.results.r)}]
      taskSpec:
        params: [{name: l}, {name: r}]
        results: [{name: r}]
        steps:
        - name: s
          image: busybox
          script: |
            @BEGIN@
            printf $(params.l)-$(params.r) > $(results.r.path)
            @END@
    finally:
    - name: last
      taskSpec:
        steps:
        - name: s
          image: busybox
          script: |
            @BEGIN@
            @END@
"#;

/// Long enough that leaders come and go meanwhile.
const NAP: &str = r#"apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: NAME
spec:
  pipelineSpec:
    tasks:
    - name: nap
      taskSpec:
        steps:
        - name: one
          image: busybox
          script: |
            @BEGIN@
            for i in 1 2 3 4 5 6; do echo "$i"; sleep 1; done
            @END@
    - name: after
      runAfter: [nap]
      taskSpec:
        steps:
        - name: s
          image: busybox
          script: |
            @BEGIN@
            @END@
"#;

const RETRY: &str = r#"apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: NAME
spec:
  pipelineSpec:
    results: [{name: at, value: $(tasks.flaky.results.at)}]
    tasks:
    - name: flaky
      retries: 2
      taskSpec:
        results: [{name: at}]
        steps:
        - name: s
          image: busybox
          script: |
            @BEGIN@
            @END@
            printf $(context.task.retry-count) > $(results.at.path)
            test $(context.task.retry-count) -ge 1
"#;

const FAN: &str = r#"apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: NAME
spec:
  pipelineSpec:
    results: [{name: all, value: $(tasks.join.results.r)}]
    tasks:
    - name: each
      matrix: {params: [{name: p, value: [a, b, c]}]}
      taskSpec:
        params: [{name: p}]
        results: [{name: r}]
        steps:
        - name: s
          image: busybox
          script: |
            @BEGIN@
            printf $(params.p) > $(results.r.path)
            @END@
    - name: join
      params: [{name: all, value: ["$(tasks.each.results.r[*])"]}]
      taskSpec:
        params: [{name: all, type: array}]
        results: [{name: r}]
        steps:
        - name: s
          image: busybox
          args: ["$(params.all[*])"]
          script: |
            @BEGIN@
            printf "$*" > $(results.r.path)
            @END@
"#;

const FAIL: &str = r#"apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: NAME
spec:
  pipelineSpec:
    results: [{name: seen, value: $(finally.look.results.r)}]
    tasks:
    - name: bad
      taskSpec:
        steps:
        - name: s
          image: busybox
          script: |
            @BEGIN@
            @END@
            exit 3
    - name: never
      runAfter: [bad]
      taskSpec:
        steps: [{name: s, image: busybox, script: exit 0}]
    finally:
    - name: look
      params: [{name: p, value: $(tasks.bad.status)}]
      taskSpec:
        params: [{name: p}]
        results: [{name: r}]
        steps:
        - name: s
          image: busybox
          script: |
            @BEGIN@
            printf $(params.p) > $(results.r.path)
            @END@
"#;

const LINES_OUT: &str = r#"apiVersion: tekton.dev/v1
kind: TaskRun
metadata:
  name: NAME
spec:
  taskSpec:
    steps:
    - name: count
      image: busybox
      script: |
        @BEGIN@
        for part in 1 2 3; do
          seq $(( part * 1000 - 999 )) $(( part * 1000 )) | sed 's/^/line /'
          sleep 1
        done
        @END@
"#;

const LATE: &str = r#"apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: NAME
spec:
  timeouts: {pipeline: 4s}
  pipelineSpec:
    tasks:
    - name: slow
      taskSpec:
        steps:
        - name: s
          image: busybox
          script: |
            @BEGIN@
            exec sleep 600
"#;

const STOP: &str = r#"apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: NAME
spec:
  pipelineSpec:
    tasks:
    - name: long
      taskSpec:
        steps:
        - name: s
          image: busybox
          script: |
            @BEGIN@
            exec sleep 600
"#;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_kind_takes_a_name() {
        for kind in kinds(Backend::Docker) {
            let text = kind.manifest("given", Some("/marks"));
            assert!(text.contains("name: given"), "{}: {text}", kind.name);
            for left in ["@MARKS@", "@BEGIN@", "@END@", "NAME"] {
                assert!(!text.contains(left), "{}: {text}", kind.name);
            }
        }
    }

    #[test]
    fn a_case_says_what_must_come_of_it() {
        let kinds = kinds(Backend::Host);
        let of = |name| kinds.iter().find(|kind| kind.name == name).unwrap().expect.clone();
        assert_eq!(of("final").results, Some(json!({"last": "AF"})));
        assert_eq!(of("sibs").status, "failed");
        assert_eq!(of("share").status, "succeeded");
    }
}
