//! What loading promises, by small documents: Go's words at the right place, YAML 1.1, limits,
//! defaults, look-ups.

use proptest::prelude::*;

use super::*;
use crate::duration::GoDuration;
use crate::v1::ParamValue;

mod v1beta1;

fn load_text(text: &str) -> Loaded {
    let source = Source { name: "a.yaml".to_owned(), text: text.into() };
    load(&[source], &FeatureFlags::default())
}

/// The one object of a text without faults.
fn object(text: &str) -> Object {
    let loaded = load_text(text);
    let shown: Vec<String> = loaded.diagnostics.iter().map(|d| d.render(false)).collect();
    assert!(shown.is_empty(), "{}", shown.join("\n"));
    loaded.bundle.documents[0].object.clone()
}

fn task(spec: &str) -> String {
    format!("apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {{name: t}}\nspec:\n{spec}")
}

/// `line:column message` of everything found.
fn found(text: &str) -> Vec<String> {
    let loaded = load_text(text);
    let show = |d: &Diagnostic| format!("{}:{} {}", d.span.line, d.span.column, d.message);
    loaded.diagnostics.iter().map(show).collect()
}

#[test]
fn decode_faults_have_gos_words_and_their_place() {
    for (spec, expected) in [
        ("  stepz: []\n", r#"5:3 json: unknown field "stepz""#),
        (
            "  steps:\n  - image: [a]\n",
            "6:12 json: cannot unmarshal array into Go struct field Step.spec.steps.image of type string",
        ),
        (
            "  steps: nothing\n",
            "5:10 json: cannot unmarshal string into Go struct field TaskSpec.spec.steps of type []v1.Step",
        ),
        (
            "  params:\n  - {name: true}\n",
            "6:12 json: cannot unmarshal bool into Go struct field ParamSpec.spec.params.name of type string",
        ),
        (
            "  steps:\n  - {image: a, timeout: 5x}\n",
            r#"6:25 time: unknown unit "x" in duration "5x""#,
        ),
        (
            "  steps:\n  - computeResources: {limits: {cpu: lots}}\n",
            "6:38 quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            "  workspaces: {name: a}\n",
            "5:15 json: cannot unmarshal object into Go struct field TaskSpec.spec.workspaces of type []v1.WorkspaceDeclaration",
        ),
        (
            "  sidecars:\n  - ports: [{containerPort: 1.5}]\n",
            "6:29 json: cannot unmarshal number 1.5 into Go struct field ContainerPort.spec.sidecars.ports.containerPort of type int32",
        ),
        (
            "  stepTemplate: true\n",
            "5:17 json: cannot unmarshal bool into Go struct field TaskSpec.spec.stepTemplate of type v1.StepTemplate",
        ),
    ] {
        assert_eq!(found(&task(spec)), [expected], "{spec}");
    }
}

#[test]
fn tektons_first_complaint_comes_first() {
    // Go reads keys in sorted order and gives up at once at a value that refuses itself.
    let text = task("  steps:\n  - zzz: 1\n    image: 5\n    timeout: soon\n");
    let messages = found(&text);
    assert_eq!(
        messages,
        [
            r#"8:14 time: invalid duration "soon""#,
            r#"6:5 json: unknown field "zzz""#,
            "7:12 json: cannot unmarshal number into Go struct field Step.spec.steps.image of type string",
        ]
    );
    let text = task("  zzz: 1\n  steps:\n  - image: 5\n");
    assert!(found(&text)[0].starts_with("7:12 json: cannot unmarshal number"));
}

#[test]
fn unknown_fields_get_a_suggestion() {
    for (spec, help) in [
        ("  step: []\n", "did you mean `steps`?"),
        ("  steps: [{resources: {}}]\n", "in tekton.dev/v1 this is `computeResources`"),
    ] {
        let loaded = load_text(&task(spec));
        assert_eq!(loaded.diagnostics[0].help.as_deref(), Some(help));
        assert!(loaded.bundle.documents.is_empty());
    }
    let loaded = load_text(&task("  foo: 1\n"));
    assert_eq!(loaded.diagnostics[0].help, None);
}

#[test]
fn values_are_lenient_where_go_is() {
    let Object::Task(task) = object(&task(
        "  Steps:\n  - IMAGE: busybox\n    volumemounts: [{name: v, mountpath: /x}]\n    args: null\n  params:\n  - {name: a, default: 3}\n  - {name: b, default: yes}\n  - {name: c, default: 1.50}\n  - {name: d, default: [1, x]}\n  - {name: e, default: {k: v}}\n  - {name: f, default: [x, null]}\n  - {name: g, default: 2024-01-02}\n",
    )) else {
        panic!("not a Task");
    };
    assert_eq!(task.spec.steps[0].image, "busybox");
    assert_eq!(task.spec.steps[0].volume_mounts[0].mount_path, "/x");
    let defaults: Vec<(&str, Option<ParamValue>)> = task
        .spec
        .params
        .iter()
        .map(|param| (param.r#type.as_str(), param.default.clone()))
        .collect();
    let array = |items: &[&str]| ParamValue::Array(items.iter().map(|i| (*i).to_owned()).collect());
    let key = ("k".to_owned(), "v".to_owned());
    assert_eq!(
        defaults,
        [
            ("string", Some("3".into())),
            ("string", Some("true".into())),
            ("string", Some("1.5".into())),
            ("string", Some(r#"[1,"x"]"#.into())),
            ("object", Some(ParamValue::Object([key].into()))),
            ("array", Some(array(&["x", ""]))),
            ("string", Some("2024-01-02".into())),
        ]
    );
}

#[test]
fn numbers_and_names_both_fit_where_kubernetes_takes_both() {
    let Object::Task(task) = object(&task(
        "  steps: [{image: a, computeResources: {limits: {cpu: 1.5, memory: 64Mi}}}]\n  sidecars:\n  - {image: b, readinessProbe: {httpGet: {port: 80}, tcpSocket: {port: web}}}\n",
    )) else {
        panic!("not a Task");
    };
    let limits = &task.spec.steps[0].compute_resources.limits;
    assert_eq!(limits["cpu"].0, "1.5");
    let probe = task.spec.sidecars[0].readiness_probe.as_ref();
    let probe = serde_json::to_value(probe).expect("probes are JSON");
    assert_eq!(probe, serde_json::json!({"httpGet": {"port": 80}, "tcpSocket": {"port": "web"}}));
}

#[test]
fn yaml_faults_are_located() {
    for (text, expected) in [
        ("a: 1\na: 2\n", "2:1 key \"a\" is already set in this mapping"),
        ("a: *b\n", "1:4 while parsing node, found unknown anchor"),
        ("a: &a [*a]\n", "1:8 this alias stands inside of what it refers to"),
        ("? [a]\n: 1\n", "1:3 a key must be text"),
        ("a: .nan\n", "1:4 json: unsupported value: NaN"),
        ("a: !!int x\n", "1:10 cannot decode !!str `x` as a !!int"),
        ("<<: 5\n", "1:5 map merge requires map or sequence of maps as the value"),
        ("- a\n", "1:1 a document must be a mapping with `apiVersion`, `kind` and `metadata`"),
        ("kind: Task\n", "1:1 the document has no `apiVersion`"),
        ("apiVersion: v1\nkind: Pod\n", r#"2:7 no matches for kind "Pod" in version "v1""#),
        (
            "apiVersion: tekton.dev/v2\nkind: Task\n",
            r#"1:13 no matches for kind "Task" in version "tekton.dev/v2""#,
        ),
    ] {
        assert_eq!(found(text), [expected], "{text}");
    }
    let tab = load_text("a:\n\tb: 1\n");
    assert!(tab.diagnostics[0].help.as_deref().is_some_and(|help| help.contains("tabs")));
}

#[test]
fn one_faulty_document_does_not_hide_the_others() {
    let text = format!(
        "---\n# nothing\n---\n{}---\na: \"open\nb: [\n---\n{}",
        task("  steps: []\n"),
        task("  foo: 1\n")
    );
    let loaded = load_text(&text);
    assert_eq!(loaded.bundle.documents.len(), 1);
    assert_eq!(loaded.bundle.documents[0].index, 1);
    assert!(loaded.diagnostics.len() >= 2);
    let last = loaded.diagnostics.last().map(|d| d.message.as_str());
    assert_eq!(last, Some(r#"json: unknown field "foo""#));
}

#[test]
fn hostile_texts_are_refused_quickly() {
    let laughs: String = (1..30)
        .map(|i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(",")))
        .collect();
    for text in [
        "[".repeat(10_000),
        "{a: ".repeat(10_000),
        "- ".repeat(10_000),
        "? ".repeat(10_000),
        (0..3000).map(|i| format!("{}a:\n", " ".repeat(i))).collect(),
        format!("a0: &a0 [x]\n{laughs}"),
        "x".repeat(MAX_BYTES + 1),
        format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a,".repeat(1000)),
    ] {
        let loaded = load_text(&text);
        assert_eq!(loaded.diagnostics.len(), 1);
        assert_eq!(loaded.diagnostics[0].code, "yaml/limit");
        assert!(loaded.diagnostics[0].span.line > 0);
    }
}

#[test]
fn the_deepest_accepted_document_fits_the_stack() {
    // Each level of the Pipeline is three levels of YAML.
    let mut text = "{taskRef: {name: a}}".to_owned();
    for _ in 0..19 {
        text = format!("{{name: a, pipelineSpec: {{tasks: [{text}]}}}}");
    }
    let text = format!(
        "{{apiVersion: tekton.dev/v1, kind: Pipeline, metadata: {{name: p}}, spec: {{tasks: [{text}]}}}}"
    );
    assert!(load_text(&text).diagnostics.is_empty());
}

#[test]
fn merge_keys_and_aliases_are_expanded() {
    let Object::ConfigMap(map) = object(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: &m\n  name: a\n  labels: {x: &x z}\ndata:\n  <<: {a: from, b: *x}\n  a: own\n  on: *x\n",
    ) else {
        panic!("not a ConfigMap");
    };
    assert_eq!(map.metadata.name, "a");
    let data: Vec<(&str, &str)> = map.data.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(data, [("a", "own"), ("b", "z"), ("true", "z")]);
}

#[test]
fn json_byte_order_marks_and_line_ends_are_fine() {
    let json = "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Secret\",\n\t\"metadata\": {\"name\": \"a\\/\\ud83d\\ude00\"}\n}\n";
    assert_eq!(object(json).metadata().map(|m| m.name.as_str()), Some("a/😀"));
    let loaded = load_text("\u{feff}apiVersion: v1\r\nkind: Secret\r\nmetadata:\r\n  nam: a\r\n");
    let found = &loaded.diagnostics[0];
    assert_eq!(found.severity, Severity::Warning);
    assert_eq!((found.span.line, found.span.column), (4, 3));
    assert_eq!(loaded.bundle.documents.len(), 1);
    assert!(!loaded.has_errors());

    let found = Source::from_bytes("a.yaml", b"a: 1\nb: \xe4").expect_err("not UTF-8");
    assert_eq!((found.span.line, found.span.column), (2, 4));
    assert!(found.render(false).starts_with("a.yaml:2:4: error: the text is not UTF-8"));
}

#[test]
fn runs_get_tektons_defaults() {
    let Object::TaskRun(run) = object(
        "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: r, annotations: {chains.tekton.dev/signed: 'true', a: b}}\nspec:\n  taskRef: {name: t}\nstatus: {whatever: 1}\n",
    ) else {
        panic!("not a TaskRun");
    };
    assert_eq!(run.spec.timeout, Some(GoDuration::from_secs(3600)));
    assert_eq!(run.spec.service_account_name, "default");
    assert_eq!(run.spec.task_ref.as_ref().map(|r| r.kind.as_str()), Some("Task"));
    assert_eq!(run.metadata.labels["app.kubernetes.io/managed-by"], "tekton-pipelines");
    assert_eq!(run.metadata.annotations.keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(run.status, None);

    let Object::PipelineRun(run) = object(
        "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {generateName: r-}\nspec:\n  pipelineRef: {resolver: git}\n  timeouts: {tasks: 5m}\n",
    ) else {
        panic!("not a PipelineRun");
    };
    let timeouts = run.spec.timeouts.unwrap_or_default();
    assert_eq!(timeouts.pipeline, Some(GoDuration::from_secs(3600)));
    assert_eq!(timeouts.tasks, Some(GoDuration::from_secs(300)));
    assert_eq!(run.spec.task_run_template.service_account_name, "default");
}

#[test]
fn documents_are_found_by_kind_and_name_and_are_unique() {
    let text = format!("{}---\n{}", task("  steps: []\n"), task("  steps: []\n"));
    let loaded = load_text(&text);
    assert_eq!(loaded.bundle.documents.len(), 1);
    let found = loaded.bundle.find("Task", "t").map(Document::name);
    assert_eq!(found, Some("t"));
    assert!(loaded.bundle.find("Pipeline", "t").is_none());
    assert_eq!(loaded.bundle.of_kind("Task").count(), 1);
    let duplicate = &loaded.diagnostics[0];
    assert_eq!(duplicate.message, r#"Task "t" is defined twice"#);
    assert_eq!((duplicate.span.line, duplicate.related[0].span.line), (9, 3));
}

#[test]
fn lists_are_taken_apart() {
    let loaded = load_text(
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: a}}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n",
    );
    assert!(loaded.diagnostics.is_empty());
    assert_eq!(loaded.bundle.documents.len(), 2);
}

#[test]
fn field_paths_are_located() {
    let loaded = load_text(&task(
        "  params:\n  - name: url\n    type: string\n  steps:\n  - name: one\n    image: a\n  - name: two\n    Script: |\n      echo\n",
    ));
    let document = &loaded.bundle.documents[0];
    for (path, line, column) in [
        ("spec.steps[0].image", 10, 12),
        ("spec.steps[1].script", 13, 7),
        ("spec.steps[1].Image", 11, 5),
        ("spec.steps[7].image", 8, 3),
        ("spec.steps", 8, 3),
        ("spec.params[url].type", 7, 11),
        ("spec.params[nope]", 5, 3),
        ("spec.volumes[0]", 4, 1),
        ("metadata.name", 3, 18),
        ("", 1, 1),
        ("nothing.of.this", 1, 1),
    ] {
        let span = document.locate(path);
        assert_eq!((span.line, span.column), (line, column), "{path}");
    }
}

#[test]
fn a_diagnostic_shows_the_line_and_fits_the_screen() {
    let shown = load_text(&task("  stepz: [] # é\n")).diagnostics[0].render(false);
    assert_eq!(
        shown,
        "a.yaml:5:3: error: json: unknown field \"stepz\"\n5 |   stepz: [] # é\n  |   ^^^^^\n  help: did you mean `steps`?"
    );
    for before in [0, 30, 500, 5000] {
        let pad = "é".repeat(before);
        let text = task(&format!("  {{description: \"{pad}\", foo: 1, displayName: \"{pad}\"}}\n"));
        let shown = load_text(&text).diagnostics[0].render(false);
        let lines: Vec<&str> = shown.lines().skip(1).collect();
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{shown}");
        let caret = lines[1].chars().position(|c| c == '^').expect("there is a caret");
        let marked: String = lines[0].chars().skip(caret).take(3).collect();
        assert_eq!(marked, "foo", "{shown}");
    }
    let control = load_text("a: \u{1b}[31m\n").diagnostics[0].render(false);
    assert!(!control.contains('\u{1b}'), "{control:?}");
    let colored = load_text(&task("  foo: 1\n")).diagnostics[0].render(true);
    assert!(colored.contains("\x1b[1;31merror\x1b[0m"));
}

fn yaml_like() -> impl Strategy<Value = String> {
    let pieces = vec![
        "apiVersion: tekton.dev/v1\n",
        "apiVersion: tekton.dev/v1beta1\n",
        "kind: Task\n",
        "kind: PipelineRun\n",
        "kind: ConfigMap\n",
        "metadata: {name: a}\n",
        "spec:\n",
        "  steps:\n",
        "  - image: a\n",
        "    timeout: 5x\n",
        "  params: [{name: a, value: [1, {b: c}]}]\n",
        "---\n",
        "...\n",
        "&a ",
        "*a",
        "<<: *a\n",
        "? ",
        ": ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "'",
        "|",
        ">",
        "#",
        "\n",
        " ",
        "\t",
        "!!int ",
        "%YAML 1.1\n",
        "\u{feff}",
        "\0",
        "\u{85}",
        "é",
        "\r",
    ];
    prop::collection::vec(prop::sample::select(pieces), 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_text_is_loaded_or_refused_with_a_place(
        text in prop_oneof![any::<String>(), yaml_like(), any::<Vec<u8>>().prop_map(|b| String::from_utf8_lossy(&b).into_owned())]
    ) {
        for found in load_text(&text).diagnostics {
            let shown = found.render(false);
            prop_assert!(found.span.line > 0, "{shown}");
            prop_assert!(found.span.start <= found.span.end, "{shown}");
        }
    }

    #[test]
    fn any_field_path_is_located(path in "[a-z.\\[\\]0-9]{0,20}") {
        let loaded = load_text(&task("  steps: [{name: a, image: b}]\n"));
        prop_assert!(loaded.bundle.documents[0].locate(&path).line > 0);
    }
}

#[test]
fn no_diagnostic_quotes_a_secret() {
    for fault in [
        "stringData: {password: *hunter2-anchor}",
        "stringData:\n  password: \"hunter2-unclosed",
        "stringData:\n  password: hunter2-colon: x: y",
        "stringData: [hunter2-wrong-type]",
        "stringData: {password: {nested: hunter2-deep}}",
        "data: {password: !!int hunter2-tag}",
        "data: {password: hunter2-not-base64}",
        "datta: {password: hunter2-unknown-field}",
        "stringData:\n  password: |\n    fine\n   hunter2-badly-indented",
        "stringData: {a: hunter2-twice, a: hunter2-again}",
        "stringData: {password: %hunter2-directive}",
        "stringData: {password: `hunter2-backtick}",
        "stringData: {password: !hunter2<tag x}",
        "stringData:\n\tpassword: hunter2-tab",
    ] {
        for kind_first in [true, false] {
            let (kind, fault) = ("kind: Secret\n", format!("{fault}\n"));
            let middle = "apiVersion: v1\nmetadata: {name: s}\n";
            let text = match kind_first {
                true => format!("{kind}{middle}{fault}"),
                false => format!("{middle}{fault}{kind}"),
            };
            let source = Source { name: "s.yaml".to_owned(), text: text.as_str().into() };
            for found in load(&[source], &FeatureFlags::default()).diagnostics {
                let shown = format!("{}{}", found.render(false), found.message);
                assert!(!shown.contains("hunter2"), "{text}\n{shown}");
            }
        }
    }
    let mut bytes = b"stringData: {password: hunter2-".to_vec();
    bytes.extend(b"\xe4}\nkind: Secret\n");
    let found = Source::from_bytes("s.yaml", &bytes).unwrap_err();
    assert!(!found.render(false).contains("hunter2"), "{}", found.render(false));
}
