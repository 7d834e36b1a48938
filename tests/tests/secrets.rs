//! Values of Secrets appear nowhere but where steps are to find them (invariant 9): not in any
//! output, not on the disk, not in a command line, not in what Docker knows of a container.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::fs;
use std::path::Path;
use std::process::Command;

use tenon_tests::{KillOnPanic, Tenon, finish, wait_until};

/// What is looked for: whole values, a line of one with several lines, and base64 of both.
const VALUES: [&str; 8] = [
    "hunter2-of-the-env",
    "aHVudGVyMi1vZi10aGUtZW52",
    "hunter2-of-the-volume",
    "second-hunter2-line",
    "c2Vjb25kLWh1bnRlcjItbGluZ",
    "hunter2-of-the-workspace",
    "hunter2-of-git",
    "hunter2-of-docker",
];

const PIPELINE: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: plain}
stringData:
  env: hunter2-of-the-env
  volume: hunter2-of-the-volume
  lines: |
    first-hunter2-line
    second-hunter2-line
---
apiVersion: v1
kind: Secret
metadata: {name: workspace}
data: {key: aHVudGVyMi1vZi10aGUtd29ya3NwYWNl}
---
apiVersion: v1
kind: Secret
metadata: {name: git, annotations: {tekton.dev/git-0: https://git.example}}
type: kubernetes.io/basic-auth
stringData: {username: someone, password: hunter2-of-git}
---
apiVersion: v1
kind: Secret
metadata: {name: registry, annotations: {tekton.dev/docker-0: https://registry.example}}
type: kubernetes.io/basic-auth
stringData: {username: someone, password: hunter2-of-docker}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: builder}
secrets: [{name: git}, {name: registry}]
---
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: with-secrets}
spec:
  taskRunTemplate: {serviceAccountName: builder}
  workspaces: [{name: w, secret: {secretName: workspace}}]
  pipelineSpec:
    workspaces: [{name: w}]
    results: [{name: token, value: $(tasks.first.results.token)}]
    tasks:
    - name: first
      workspaces: [{name: w}]
      taskSpec:
        workspaces: [{name: w}]
        results: [{name: token}]
        volumes: [{name: v, secret: {secretName: plain}}]
        steps:
        - name: print
          image: busybox
          env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: plain, key: env}}}]
          envFrom: [{secretRef: {name: plain}, prefix: ALL_}]
          volumeMounts: [{name: v, mountPath: /the-volume}]
          script: |
            #!/bin/sh
            echo "env $TOKEN $ALL_env"
            printf %s "$TOKEN" | base64
            cat /the-volume/volume; echo
            cat /the-volume/lines
            base64 < /the-volume/lines
            echo "$ALL_lines"
            cat $(workspaces.w.path)/key; echo
            cat ~/.git-credentials ~/.gitconfig ~/.docker/config.json
            printf 'in two writes hunter2-of-'; printf 'the-env\n'
            printf 'hunter2-of-the-'; sleep 0.1; printf 'volume\n'
            # Over the border of a chunk, and of a line that is cut.
            head -c 65520 /dev/zero | tr '\0' x; echo "$TOKEN"
            i=0; while [ $i -lt 3000 ]; do echo "$i $TOKEN and so on"; i=$((i + 1)); done
            printf %s "$TOKEN" > $(results.token.path)
        - name: fail
          image: busybox
          onError: continue
          command: [sh, -c, 'echo "$0" >&2; exit 3', "$(TOKEN)"]
          env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: plain, key: env}}}]
    - name: second
      params: [{name: token, value: $(tasks.first.results.token)}]
      taskSpec:
        params: [{name: token}]
        volumes: [{name: gate, hostPath: {path: GATE}}]
        steps:
        - name: wait
          image: busybox
          env: [{name: COPY, value: $(params.token)}]
          volumeMounts: [{name: gate, mountPath: /the-gate}]
          script: |
            #!/bin/sh
            [ "$COPY" = "$(params.token)" ] && echo "all ${#COPY}"
            echo "copy $COPY"
            until [ -e /the-gate/open ]; do sleep 0.05; done
"#;

#[track_caller]
fn holds_no_value(what: &str, text: &[u8]) {
    for value in VALUES {
        let found = text.windows(value.len()).position(|window| window == value.as_bytes());
        if let Some(at) = found {
            let near = &text[at.saturating_sub(200)..(at + 100).min(text.len())];
            panic!("{what} holds {value}: {}", String::from_utf8_lossy(near));
        }
    }
}

/// Every file below a directory.
fn no_file_holds_a_value(dir: &Path) {
    // What is being removed meanwhile holds nothing.
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            no_file_holds_a_value(&entry.path());
        } else if kind.is_file()
            && let Ok(content) = fs::read(entry.path())
        {
            holds_no_value(&entry.path().display().to_string(), &content);
        }
    }
}

fn no_command_line_holds_a_value() {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if let Ok(line) = fs::read(entry.path().join("cmdline")) {
            holds_no_value("a command line", &line);
        }
    }
}

fn no_container_shows_a_value() {
    let docker = |args: &[&str]| Command::new("docker").args(args).output().unwrap().stdout;
    let ids = docker(&["ps", "-aq", "--filter", "label=tenon.taskrun=with-secrets-second"]);
    let ids = String::from_utf8(ids).unwrap();
    assert_ne!(ids, "", "the step's container");
    for id in ids.lines() {
        holds_no_value("docker inspect", &docker(&["inspect", id]));
    }
}

fn values_stay_where_they_belong(tenon: &Tenon, on_docker: bool) {
    let gate = tenon.dir().join("gate");
    fs::create_dir_all(&gate).unwrap();
    // Outside of the state directory, where the values may be.
    tenon.file("p.yaml", &PIPELINE.replace("GATE", gate.to_str().unwrap()));
    let (out, notes) = (tenon.dir().join("out"), tenon.dir().join("notes"));
    let mut command = tenon.command(&["run", "-o", "json", "--debug", "-f", "p.yaml"]);
    command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&notes).unwrap());
    let child = command.spawn().unwrap();
    let _guard = KillOnPanic(child.id());
    wait_until("the second task", || {
        let events = fs::read_to_string(&out).unwrap();
        events.contains("copy ***") || events.contains("run-end")
    });

    no_command_line_holds_a_value();
    no_file_holds_a_value(&tenon.state_dir());
    if on_docker {
        no_container_shows_a_value();
    }

    fs::write(gate.join("open"), "").unwrap();
    let code = finish(child).code;
    let events = fs::read_to_string(&out).unwrap();
    assert_eq!(code, 0, "{events}\n{}", fs::read_to_string(&notes).unwrap());
    assert!(events.contains(&format!("all {}", "hunter2-of-the-env".len())), "{events}");
    assert!(events.contains("2999 *** and so on"));
    holds_no_value("stdout", events.as_bytes());
    holds_no_value("stderr", &fs::read(&notes).unwrap());
    no_file_holds_a_value(&tenon.state_dir());

    for args in [
        ["runs", "show", "latest", "-o", "yaml"],
        ["runs", "show", "latest", "-o", "json"],
        ["runs", "show", "latest", "-o", "pretty"],
        ["runs", "list", "-o", "json", "--limit=9"],
        ["logs", "latest", "--task=first", "-o", "pretty"],
    ] {
        let said = tenon.tenon(&args).expect(0);
        holds_no_value(&args.join(" "), said.stdout.as_bytes());
    }
}

#[test]
fn on_docker() {
    values_stay_where_they_belong(&Tenon::docker().allowing_its_directory(), true);
}

#[test]
fn on_the_host() {
    values_stay_where_they_belong(&Tenon::host().allowing_its_directory(), false);
}

#[test]
fn output_as_yaml_and_for_people() {
    for output in ["yaml", "pretty"] {
        let tenon = Tenon::host().allowing_its_directory();
        let gate = tenon.dir().join("gate");
        tenon.file("gate/open", "");
        let yaml = PIPELINE.replace("GATE", gate.to_str().unwrap());
        let said = tenon.run(&yaml, &["-o", output]).expect(0);
        holds_no_value(output, said.stdout.as_bytes());
        holds_no_value("stderr", said.stderr.as_bytes());
    }
}

#[test]
fn what_is_wrong_with_a_secret_is_told_without_it() {
    let tenon = Tenon::host().allowing_its_directory();
    let yaml =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData:\n  a: [hunter2-of-git]\n";
    for args in [&["-o", "json"][..], &[]] {
        let said = tenon.run(yaml, args).expect(4);
        assert!(said.stderr.contains("<stdin>:5:"), "{}", said.stderr);
        holds_no_value("stderr", said.stderr.as_bytes());
    }
}

/// Anybody can read what results are compared with.
const COMPARED: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: settings}
stringData: {env: production, token: hunter2-of-the-env}
---
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: compared}
spec:
  params: [{name: guarded, value: [staging, production]}]
  pipelineSpec:
    params: [{name: guarded, type: array}]
    tasks:
    - name: first
      taskSpec:
        results: [{name: env}, {name: token}]
        steps:
        - name: s
          image: busybox
          env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: settings, key: token}}}]
          script: |
            #!/bin/sh
            printf production > $(results.env.path)
            printf %s "$TOKEN" > $(results.token.path)
    - name: when-it-is
      when: [{input: $(tasks.first.results.env), operator: in, values: [production]}]
      taskSpec: {steps: [{name: s, image: busybox, script: echo ran}]}
    - name: when-it-is-not
      when: [{input: $(tasks.first.results.env), operator: notin, values: ["$(params.guarded[*])"]}]
      taskSpec: {steps: [{name: s, image: busybox, script: echo ran}]}
"#;

#[test]
fn a_result_is_compared_as_what_it_is() {
    let said = Tenon::host().run(COMPARED, &["-o", "json"]).expect(0);
    holds_no_value("the events", said.stdout.as_bytes());
    let events = said.events();
    let of =
        |kind: &str, task: &str| events.iter().any(|it| it["kind"] == kind && it["task"] == task);
    assert!(of("task-end", "when-it-is") && of("task-skip", "when-it-is-not"));
}
