//! What a planned pod holds: containers, mounts, environment and gates, by the facts of the reference.

use super::*;
use serde_json::json;

fn plan_of(task_run: serde_json::Value) -> Result<Plan, Rejection> {
    plan_with(task_run, &[])
}

fn plan_with(
    mut task_run: serde_json::Value,
    actions: &[(usize, serde_json::Value)],
) -> Result<Plan, Rejection> {
    task_run["metadata"] = json!({"name": "tr", "namespace": "ns", "uid": "uid"});
    let task_run: TaskRun = serde_json::from_value(task_run).expect("a TaskRun");
    let spec = task_run.spec.task_spec.clone().expect("an embedded Task");
    let actions = actions
        .iter()
        .map(|(i, action)| (*i, serde_json::from_value(action.clone()).expect("a StepAction")))
        .collect();
    plan(&PlanInput {
        task_run: &task_run,
        task_spec: &spec,
        task_name: "tr",
        step_actions: &actions,
        service_account: None,
        retry_count: 1,
        run_uid: "uid",
        flags: &FeatureFlags::default(),
    })
}

fn script_run(script: &str, spec: &serde_json::Value) -> serde_json::Value {
    let mut task_run = json!({"spec": spec});
    let task = &mut task_run["spec"]["taskSpec"];
    if task.is_null() {
        *task = json!({});
    }
    task["steps"] = json!([{"name": "s", "image": "i", "script": script, "results": [{"name": "sr"}]}, {"image": "j"}]);
    task_run
}

#[test]
fn variables_are_applied_in_phases() {
    let spec = json!({
        "params": [
            {"name": "p", "value": "$(context.taskRun.name) $(params.q)"},
            {"name": "extra", "value": "e"},
            {"name": "o", "value": {"k": "given"}}],
        "workspaces": [{"name": "w", "emptyDir": {}}],
        "taskSpec": {
            "params": [{"name": "p", "type": "string"}, {"name": "q", "type": "string", "default": "d"},
                {"name": "o", "type": "object", "properties": {"k": {}, "l": {}}, "default": {"k": "x", "l": "kept"}}],
            "results": [{"name": "r", "type": "string"}, {"name": "v", "type": "string", "value": "$(steps.s.results.sr)"}],
            "workspaces": [{"name": "w"}, {"name": "none", "optional": true}],
        },
    });
    for (script, expected) in [
        // One pass a phase: a param is not looked for in a param, a context is.
        ("$(params.p)", "tr $(params.q)"),
        ("$(inputs.params.q) $(params['q']) $(params[\"q\"])", "d d d"),
        ("$(params.o.k) $(params.o.l) $(params.extra)", "given kept e"),
        ("$(context.task.name) $(context.task.retry-count) $(context.taskRun.uid)", "tr 1 uid"),
        ("$(results.r.path) $(results['r'].path)", "/tekton/results/r /tekton/results/r"),
        ("$(step.results.sr.path)", "/tekton/steps/step-s/results/sr"),
        ("$(steps.step-s.exitCode.path)", "/tekton/steps/step-s/exitCode"),
        ("$(steps.step-unnamed-1.exitCode.path)", "/tekton/steps/step-unnamed-1/exitCode"),
        ("$(steps.s.results.sr)", "$(steps.s.results.sr)"),
        ("$(workspaces.w.path)|$(workspaces.w.bound)|$(workspaces.w.claim)", "/workspace/w|true|"),
        ("$(workspaces.none.path)|$(workspaces.none.bound)", "|false"),
        ("$(credentials.path)", "/tekton/creds"),
        ("$(date) $$(params.q)", "$(date) $d"),
    ] {
        let plan = plan_of(script_run(script, &spec)).expect("a plan");
        assert_eq!(plan.pod.steps[0].script, expected);
        assert_eq!(plan.pod.steps[1].name, "unnamed-1");
        assert_eq!(plan.pod.results, ["r"]);
        assert_eq!(plan.pod.name, "tr-pod-retry1");
    }
}

#[test]
fn refuses_with_tektons_reasons_and_words() {
    let declared = |spec: serde_json::Value| script_run("", &spec);
    for (task_run, reason, message) in [
        (
            declared(json!({"taskSpec": {"params": [{"name": "a"}, {"name": "b"}]}})),
            "TaskRunValidationFailed",
            "[User error] invalid input params for task tr: missing values for these params which have no default values: [a b]",
        ),
        (
            declared(
                json!({"params": [{"name": "a", "value": ["x"]}], "taskSpec": {"params": [{"name": "a", "type": "string"}]}}),
            ),
            "TaskRunValidationFailed",
            "[User error] invalid input params for task tr: param types don't match the user-specified type: [a]",
        ),
        (
            script_run(
                "$(params.a[1])",
                &json!({"params": [{"name": "a", "value": ["x"]}], "taskSpec": {"params": [{"name": "a", "type": "array"}]}}),
            ),
            "TaskRunValidationFailed",
            "[User error] non-existent param references:[$(params.a[1])]",
        ),
        (
            declared(json!({"taskSpec": {"workspaces": [{"name": "w"}]}})),
            "TaskRunValidationFailed",
            "[User error] declared workspace \"w\" is required but has not been bound",
        ),
        (
            declared(json!({"workspaces": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "x"}},
                {"name": "b", "persistentVolumeClaim": {"claimName": "y"}}]})),
            "TaskRunValidationFailed",
            "[User error] more than one PersistentVolumeClaim is bound",
        ),
        (
            declared(json!({"stepSpecs": [{"name": "x"}]})),
            "TaskRunValidationFailed",
            "[User error] invalid StepOverride: No Step named x",
        ),
        (
            script_run("$(params.nobody)", &json!({})),
            "PodCreationFailed",
            "failed to create task run pod \"tr\": non-existent variable in \"$(params.nobody)\": steps[0].script. Maybe invalid TaskSpec",
        ),
    ] {
        let error = plan_of(task_run).expect_err(message);
        assert_eq!((error.reason, error.message.as_str()), (reason, message));
    }
}

#[test]
fn workspaces_become_volumes_and_mounts() {
    let task_run = json!({"spec": {
    "workspaces": [
        {"name": "shared", "persistentVolumeClaim": {"claimName": "c"}, "subPath": "sub"},
        {"name": "again", "persistentVolumeClaim": {"claimName": "c"}},
        {"name": "alone", "emptyDir": {}},
        {"name": "made", "emptyDir": {"medium": "Memory"}}],
    "taskSpec": {
        "workspaces": [{"name": "shared", "mountPath": "/s", "readOnly": true}, {"name": "again"}, {"name": "alone"}],
        "steps": [
            {"image": "i", "script": "$(workspaces.alone.path)", "workspaces": [{"name": "alone", "mountPath": "/mine"}]},
            {"image": "i", "script": "$(workspaces.alone.path) $(workspaces.made.volume)"}],
        "sidecars": [{"name": "side", "image": "i", "volumeMounts": [{"name": "x", "mountPath": "/s"}]}],
    }}});
    let pod = plan_of(task_run).expect("a plan").pod;
    let shown = |mounts: &[crate::k8s::VolumeMount]| -> Vec<String> {
        let mut all: Vec<_> = mounts
            .iter()
            .map(|m| {
                format!("{}{}{}", m.mount_path, if m.read_only { " ro " } else { " " }, m.sub_path)
            })
            .collect();
        all.sort();
        all
    };
    assert_eq!(
        shown(&pod.steps[0].volume_mounts),
        ["/mine ", "/s ro sub", "/workspace/again ", "/workspace/made "]
    );
    assert_eq!(
        shown(&pod.steps[1].volume_mounts),
        ["/s ro sub", "/workspace/again ", "/workspace/made "]
    );
    assert_eq!(
        shown(&pod.sidecars[0].volume_mounts),
        ["/s ", "/workspace/again ", "/workspace/made "]
    );
    assert_eq!(pod.volumes.len(), 3);
    assert_eq!(pod.steps[0].script, "/mine");
    let (path, volume) = pod.steps[1].script.split_once(' ').expect("two words");
    assert_eq!(path, "/workspace/alone");
    assert!(pod.volumes.iter().any(|v| v.name == volume && v.empty_dir.is_some()));
}

#[test]
fn stepactions_take_the_place_of_their_steps() {
    let action = json!({
        "image": "img:$(params.tag)",
        "params": [{"name": "tag", "type": "string", "default": "latest"},
            {"name": "list", "type": "array"}, {"name": "from", "type": "string"},
            {"name": "both", "type": "string", "default": "$(params.tag)!"}],
        "args": ["$(params.list[*])", "$(params.from)", "$(params.both)"],
        "results": [{"name": "r"}], "script": "echo $(step.results.r.path)",
    });
    let step = |params: serde_json::Value| {
        json!({"spec": {
        "params": [{"name": "t", "value": "7"}],
        "taskSpec": {"params": [{"name": "t", "type": "string"}],
            "steps": [{"name": "a", "ref": {"name": "x"}, "params": params}]}}})
    };
    let given = json!([{"name": "tag", "value": "$(params.t)"}, {"name": "list", "value": ["l", "m"]},
        {"name": "from", "value": "$(steps.before.results.out)"}]);
    let plan = plan_with(step(given), &[(0, action.clone())]).expect("a plan");
    let made = &plan.pod.steps[0];
    assert_eq!(made.image, "img:7");
    assert_eq!(made.args, ["l", "m", "$(steps.before.results.out)", "7!"]);
    assert_eq!(made.script, "echo /tekton/steps/step-a/results/r");
    assert!(plan.task_spec.steps[0].r#ref.is_none());
    for (params, message) in [
        (json!([{"name": "zz", "value": ""}]), "extra params passed by Step to StepAction: [zz]"),
        (json!([]), "non-existent params in Step: [list from]"),
    ] {
        let error = plan_with(step(params), &[(0, action.clone())]).expect_err(message);
        assert_eq!(error.reason, "TaskRunResolutionFailed");
        assert_eq!(
            error.message,
            format!("failed to resolve step ref for step \"a\" (index 0): {message}")
        );
    }
}

#[test]
fn what_is_said_of_the_task_as_a_whole() {
    let task_run = json!({"spec": {
        "computeResources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
        "serviceAccountName": "robot",
        "podTemplate": {"env": [{"name": "E", "value": "1"}], "hostNetwork": true,
            "dnsConfig": {"nameservers": ["192.0.2.7"], "searches": ["a.example"],
                "options": [{"name": "ndots", "value": "3"}, {"name": "edns0"}]}},
        "taskSpec": {"steps": [{"image": "i"}, {"image": "i"}]}}});
    let pod = plan_of(task_run).expect("a plan").pod;
    assert_eq!(pod.steps[1].compute_resources.requests["cpu"].0, "500m");
    assert_eq!(pod.steps[1].compute_resources.limits["memory"].0, "1Gi");
    assert_eq!(pod.steps[0].env[0].name, "E");
    assert!(pod.host_network);
    assert_eq!(pod.service_account_name, "robot");
    assert_eq!(
        (&pod.dns.nameservers[..], &pod.dns.searches[..]),
        (&["192.0.2.7".to_owned()][..], &["a.example".to_owned()][..])
    );
    assert_eq!(pod.dns.options, ["ndots:3", "edns0"]);
}
