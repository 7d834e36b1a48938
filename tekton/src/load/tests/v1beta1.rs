//! Documents of `tekton.dev/v1beta1`: their fields become those of `v1`, and keep their places.

use super::*;

#[test]
fn v1beta1_becomes_v1() {
    let loaded = load_text(
        "apiVersion: tekton.dev/v1beta1
kind: PipelineRun
metadata: {name: r}
spec:
  timeout: 5m
  serviceAccountName: bob
  podTemplate: {nodeSelector: {a: b}}
  taskRunSpecs:
  - {pipelineTaskName: a, taskServiceAccountName: eve, stepOverrides: [{name: s, resources: {limits: {cpu: 1}}}]}
  pipelineSpec:
    tasks:
    - name: a
      taskSpec:
        resources: {}
        steps: [{image: b, resources: {requests: {cpu: 1}}, tty: true}]
",
    );
    assert!(loaded.diagnostics.is_empty());
    let document = &loaded.bundle.documents[0];
    assert_eq!(document.declared_api_version, "tekton.dev/v1beta1");
    assert_eq!(
        document.v1beta1_fields,
        [
            "spec.pipelineSpec.tasks[0].taskSpec.resources",
            "spec.pipelineSpec.tasks[0].taskSpec.steps[0].resources",
            "spec.pipelineSpec.tasks[0].taskSpec.steps[0].tty",
            "spec.podTemplate",
            "spec.serviceAccountName",
            "spec.taskRunSpecs[0].stepOverrides",
            "spec.taskRunSpecs[0].stepOverrides[0].resources",
            "spec.taskRunSpecs[0].taskServiceAccountName",
            "spec.timeout",
        ]
    );
    let json = match &document.object {
        Object::PipelineRun(run) => serde_json::to_value(run).expect("runs are JSON"),
        other => panic!("{}", other.kind()),
    };
    assert_eq!(json["apiVersion"], "tekton.dev/v1");
    assert_eq!(json["spec"]["timeouts"]["pipeline"], "5m0s");
    assert_eq!(json["spec"]["taskRunTemplate"]["serviceAccountName"], "bob");
    assert_eq!(json["spec"]["taskRunTemplate"]["podTemplate"]["nodeSelector"]["a"], "b");
    let specs = &json["spec"]["taskRunSpecs"][0];
    assert_eq!(specs["serviceAccountName"], "eve");
    assert_eq!(specs["stepSpecs"][0]["computeResources"]["limits"]["cpu"], "1");
    let step = &json["spec"]["pipelineSpec"]["tasks"][0]["taskSpec"]["steps"][0];
    assert_eq!(step["computeResources"]["requests"]["cpu"], "1");
    // v1's names of a v1beta1 document are found as well.
    assert_eq!(document.locate("spec.timeouts.pipeline").line, 5);
    assert_eq!(document.locate("spec.taskRunTemplate.serviceAccountName").line, 6);
}

#[test]
fn v1_names_are_unknown_to_v1beta1() {
    for (kind, spec, field) in [
        ("Task", "{steps: [{image: a, computeResources: {}}]}", "computeResources"),
        ("TaskRun", "{stepSpecs: []}", "stepSpecs"),
        ("PipelineRun", "{taskRunTemplate: {}}", "taskRunTemplate"),
    ] {
        let text = format!(
            "apiVersion: tekton.dev/v1beta1\nkind: {kind}\nmetadata: {{name: t}}\nspec: {spec}\n"
        );
        let loaded = load_text(&text);
        assert_eq!(loaded.diagnostics[0].message, format!("json: unknown field {field:?}"));
        assert!(loaded.diagnostics[0].help.is_some());
    }
}
