//! Requests as a whole.

use tenon_engine::command::RunObject;
use tenon_tekton::duration::GoDuration;
use tenon_tekton::v1::PipelineRun;

use super::*;

const PIPELINE: &str = r#"
apiVersion: tekton.dev/v1
kind: Pipeline
metadata: {name: build}
spec:
  params: [{name: revision}, {name: kept, default: old}]
  tasks:
  - name: only
    taskSpec: {steps: [{name: s, image: busybox, script: "true"}]}
"#;

fn request(text: &str) -> Request {
    Request {
        sources: vec![Source { name: "a.yaml".to_owned(), text: text.into() }],
        pipeline: None,
        task: None,
        run: None,
        params: Vec::new(),
        workspaces: Vec::new(),
        namespace: "team".to_owned(),
        timeout: None,
        parallel: None,
        traceparent: None,
        flags: FeatureFlags::default(),
        front: Front::Api,
    }
}

fn prepared(request: &Request) -> (Result<Vec<Prepared>>, Vec<Remark>) {
    let mut remarks = Vec::new();
    let mut last = 0;
    let mut random = || {
        last += 1;
        last
    };
    let mut chance = Chance { now: Time(1_000_000_000_000), random: &mut random };
    let result = prepare(request, &mut chance, &mut |remark| remarks.push(remark));
    (result, remarks)
}

fn only(request: &Request) -> PipelineRun {
    let (result, _) = prepared(request);
    match result.unwrap_or_else(|error| panic!("{error:?}")).remove(0).submission.run {
        RunObject::PipelineRun(run) => *run,
        RunObject::TaskRun(_) => panic!("a TaskRun"),
    }
}

#[test]
fn a_pipeline_alone_becomes_a_run_with_all_that_the_request_says() {
    let mut request = request(PIPELINE);
    request.params = vec![("revision".to_owned(), "main".to_owned())];
    request.timeout = Some("90s".to_owned());
    let run = only(&request);
    assert!(run.metadata.name.starts_with("build-run-"), "{}", run.metadata.name);
    assert_eq!(run.metadata.namespace, "team");
    assert_eq!(run.spec.params[0].value.as_str(), Some("main"));
    assert_eq!(run.spec.timeouts.unwrap().pipeline, Some(GoDuration::parse("90s").unwrap()));
    let (_, remarks) = prepared(&request);
    assert!(matches!(&remarks[..], [Remark::Note(note)] if note.contains("Pipeline \"build\"")));
}

#[test]
fn the_same_chance_gives_the_same_submission() {
    let request = request(PIPELINE);
    let (first, second) = (prepared(&request).0.unwrap(), prepared(&request).0.unwrap());
    assert_eq!(first[0].submission, second[0].submission);
}

#[test]
fn one_of_several_run_objects_can_be_chosen() {
    let run = |name: &str| {
        format!(
            "---\napiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {{name: {name}}}\n\
             spec: {{pipelineRef: {{name: build}}, params: [{{name: revision, value: x}}]}}\n"
        )
    };
    let mut request = request(&format!("{PIPELINE}{}{}", run("one"), run("two")));
    assert_eq!(prepared(&request).0.unwrap().len(), 2);
    request.run = Some(1);
    assert_eq!(only(&request).metadata.name, "two");
    request.run = Some(2);
    assert_eq!(prepared(&request).0.err().unwrap().code(), "invalid/choice");
}

#[test]
fn faults_have_their_codes() {
    let with = |change: &dyn Fn(&mut Request)| {
        let mut request = request(PIPELINE);
        change(&mut request);
        prepared(&request).0.err().unwrap().code()
    };
    assert_eq!(with(&|it| it.sources[0].text = "kind: [".into()), "invalid/manifest");
    assert_eq!(with(&|it| it.sources.clear()), "invalid/nothing-to-run");
    assert_eq!(with(&|it| it.pipeline = Some("bild".into())), "invalid/no-such-document");
    assert_eq!(with(&|it| it.timeout = Some("soon".into())), "invalid/timeout");
    let twice = [("revision".to_owned(), "a".to_owned()), ("revision".to_owned(), "b".to_owned())];
    assert_eq!(with(&|it| it.params = twice.to_vec()), "invalid/param");
    let workspace = ("w".to_owned(), "/etc".to_owned());
    assert_eq!(with(&|it| it.workspaces = vec![workspace.clone()]), "invalid/workspace");
}

#[test]
fn what_no_run_asks_for_is_remarked_on() {
    let mut request = request(
        r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: r}
spec:
  pipelineSpec:
    params: [{name: revision, default: main}]
    workspaces: [{name: source}]
    tasks:
    - name: only
      workspaces: [{name: source}]
      taskSpec:
        workspaces: [{name: source}]
        steps: [{name: s, image: busybox, script: "echo"}]
"#,
    );
    let pairs = |names: &[&str], value: &str| -> Vec<(String, String)> {
        names.iter().map(|name| ((*name).to_owned(), value.to_owned())).collect()
    };
    request.params = pairs(&["revision", "revisoin"], "x");
    request.workspaces = pairs(&["source", "srx"], "emptyDir");
    let (result, remarks) = prepared(&request);
    assert_eq!(result.map(|runs| runs.len()).map_err(|error| error.to_string()), Ok(1));
    let notes: Vec<String> = remarks
        .into_iter()
        .filter_map(|remark| match remark {
            Remark::Note(note) => Some(note),
            Remark::Warning(_) => None,
        })
        .collect();
    assert_eq!(
        notes,
        [
            "param revisoin: no such param is declared; did you mean \"revision\"?",
            "workspace srx: no such workspace is declared",
        ]
    );
}
