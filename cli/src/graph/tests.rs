//! Golden drawings of one small Pipeline.

use tenon_tekton::v1::{Matrix, PipelineSpec, PipelineTask, WhenExpression};

use super::{Drawing, ascii, draw, markup};

fn task(name: &str, after: &[&str]) -> PipelineTask {
    PipelineTask {
        name: name.to_owned(),
        run_after: after.iter().map(|name| (*name).to_owned()).collect(),
        ..PipelineTask::default()
    }
}

fn drawing() -> Drawing {
    let mut build = task("build", &["fetch"]);
    build.matrix = Some(Matrix::default());
    let mut deploy = task("deploy", &["build", "lint"]);
    deploy.when = vec![WhenExpression::default()];
    let spec = PipelineSpec {
        tasks: vec![deploy, task("fetch", &[]), build, task("lint", &["fetch"])],
        finally: vec![task("notify", &[])],
        ..PipelineSpec::default()
    };
    draw("release".to_owned(), &spec).unwrap()
}

#[test]
fn as_text() {
    assert_eq!(
        ascii::draw(&drawing()),
        "\
release
├─ 1
│    └─ fetch
├─ 2
│    ├─ build ×   ← fetch
│    └─ lint      ← fetch
├─ 3
│    └─ deploy ?  ← build, lint
└─ finally
     └─ notify
"
    );
}

#[test]
fn for_graphviz() {
    assert_eq!(
        markup::dot(&drawing()),
        r#"digraph "release" {
  rankdir=LR;
  node [shape=box, style=rounded];
  "fetch";
  "build" [peripheries=2];
  "lint";
  "deploy" [style="rounded,dashed"];
  "notify";
  "fetch" -> "build";
  "fetch" -> "lint";
  "build" -> "deploy";
  "lint" -> "deploy";
  subgraph cluster_finally {
    label="finally";
    "notify";
  }
}
"#
    );
}

#[test]
fn for_mermaid() {
    assert_eq!(
        markup::mermaid(&drawing()),
        r#"graph LR
  t0["fetch"]
  t1[["build"]]
  t2["lint"]
  t3{{"deploy"}}
  t0 --> t1
  t0 --> t2
  t1 --> t3
  t2 --> t3
  subgraph finally
    t4["notify"]
  end
"#
    );
}
