//! The workspace bindings of a child run, out of those of the PipelineRun.
//!
//! An embedded taskSpec gets the workspaces it uses by name without being told (propagation); a
//! template becomes the claim that the whole run shares.

use std::collections::BTreeSet;

use super::ChildInput;
use crate::k8s::PersistentVolumeClaimVolumeSource;
use crate::names::claim_name;
use crate::pipelinerun::context_replacements;
use crate::rejection::Rejection;
use crate::resultref::visit_value;
use crate::v1::{TaskSpec, WorkspaceBinding, WorkspacePipelineTaskBinding};

/// Go's `filepath.Join` of two parts that are not empty.
fn join(first: &str, second: &str) -> String {
    let joined = format!("{first}/{second}");
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if joined.starts_with('/') => {}
            other => parts.push(other),
        }
    }
    let clean = parts.join("/");
    match (joined.starts_with('/'), clean.as_str()) {
        (true, _) => format!("/{clean}"),
        (false, "") => ".".to_owned(),
        (false, _) => clean,
    }
}

fn combined_sub_path(of_run: &str, of_task: &str) -> String {
    match (of_run, of_task) {
        ("", other) | (other, "") => other.to_owned(),
        (first, second) => join(first, second),
    }
}

/// The names in `$(workspaces.NAME…)`, quoted ones too; the error is Tekton's text.
fn workspace_names<'a>(text: &'a str, to: &mut BTreeSet<&'a str>) -> Result<(), String> {
    let mut rest = text;
    while let Some(start) = rest.find("$(workspaces") {
        rest = &rest[start + "$(workspaces".len()..];
        let Some(end) = rest.find(')') else { break };
        let inner = &rest[..end];
        if let Some(dotted) = inner.strip_prefix('.') {
            let mut parts = dotted.split('.');
            let name = parts.next().unwrap_or_default();
            if parts.count() > 1 {
                return Err(format!(
                    "Error while extracting workspace: Invalid referencing of parameters in \"{text}\"! Only two dot-separated components after the prefix \"workspaces\" are allowed."
                ));
            }
            to.insert(name);
        } else {
            let quoted = |open: &str, close: &str| inner.strip_prefix(open)?.strip_suffix(close);
            if let Some(name) = quoted("[\"", "\"]").or_else(|| quoted("['", "']")) {
                to.insert(name);
            }
        }
    }
    Ok(())
}

/// The workspaces that a Task's texts refer to.
fn used_by(spec: &TaskSpec) -> Result<BTreeSet<&str>, String> {
    let mut texts: Vec<&str> = Vec::new();
    for step in &spec.steps {
        texts.extend([step.script.as_str(), step.working_dir.as_str()]);
        texts.extend(step.args.iter().chain(&step.command).map(String::as_str));
        texts.extend(step.env.iter().map(|variable| variable.value.as_str()));
        for param in &step.params {
            visit_value(&param.value, &mut |text| texts.push(text));
        }
    }
    for sidecar in &spec.sidecars {
        texts.extend([sidecar.script.as_str(), sidecar.working_dir.as_str()]);
        texts.extend(sidecar.args.iter().chain(&sidecar.command).map(String::as_str));
        texts.extend(sidecar.env.iter().map(|variable| variable.value.as_str()));
    }
    if let Some(template) = &spec.step_template {
        texts.push(&template.working_dir);
        texts.extend(template.args.iter().chain(&template.command).map(String::as_str));
        texts.extend(template.env.iter().map(|variable| variable.value.as_str()));
    }
    let mut names = BTreeSet::new();
    for text in texts {
        workspace_names(text, &mut names)?;
    }
    Ok(names)
}

/// The bindings of a child run.
pub(super) fn of_child(input: &ChildInput<'_>) -> Result<Vec<WorkspaceBinding>, Rejection> {
    let failed = |text: String| Rejection::new("CreateRunFailed", text);
    let mut wanted = input.task.workspaces.clone();
    if let Some(embedded) = &input.task.task_spec {
        let used = used_by(&embedded.task_spec).map_err(failed)?;
        let unnamed: Vec<&str> = used
            .into_iter()
            .filter(|name| !wanted.iter().any(|given| given.name == *name))
            .collect();
        wanted.extend(unnamed.into_iter().map(|name| WorkspacePipelineTaskBinding {
            name: name.to_owned(),
            ..WorkspacePipelineTaskBinding::default()
        }));
    }
    let pipeline = input.run.spec.pipeline_ref.as_ref();
    let contexts = context_replacements(pipeline.map_or("", |p| p.name.as_str()), input.run);
    let mut bindings = Vec::with_capacity(wanted.len());
    for given in &wanted {
        let of_run = match given.workspace.as_str() {
            "" => given.name.as_str(),
            name => name,
        };
        // The last binding of a name counts, as in a map.
        let Some(bound) = input.workspaces.iter().rfind(|b| b.name == of_run) else {
            let is_optional = input.resolved.is_some_and(|resolved| {
                resolved
                    .spec
                    .workspaces
                    .iter()
                    .any(|declared| declared.name == given.name && declared.optional)
            });
            if is_optional {
                continue;
            }
            return Err(failed(format!(
                "expected workspace {of_run:?} to be provided by pipelinerun for pipeline task {:?}",
                input.task.name
            )));
        };
        let mut binding = bound.clone();
        binding.name = given.name.clone();
        binding.sub_path = combined_sub_path(&bound.sub_path, &given.sub_path);
        contexts.apply_to(&mut binding.sub_path);
        if let Some(template) = &bound.volume_claim_template {
            binding = WorkspaceBinding {
                name: binding.name,
                sub_path: binding.sub_path,
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim_name(template, &bound.name, &input.run.metadata.uid),
                    ..PersistentVolumeClaimVolumeSource::default()
                }),
                ..WorkspaceBinding::default()
            };
        }
        bindings.push(binding);
    }
    Ok(bindings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_paths_are_joined_as_go_joins_paths() {
        for (first, second, joined) in [
            ("", "b", "b"),
            ("a", "", "a"),
            ("a/", "/b", "a/b"),
            ("a", "../b", "b"),
            ("a", "./b//c", "a/b/c"),
            ("a", "..", "."),
        ] {
            assert_eq!(combined_sub_path(first, second), joined, "{first} {second}");
        }
    }

    #[test]
    fn finds_the_workspaces_that_texts_use() {
        let names = |text| {
            let mut names = BTreeSet::new();
            workspace_names(text, &mut names).map(|()| names.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(names("$(workspaces.a.path) $(workspaces[\"b\"]) $(x)"), Ok(vec!["a", "b"]));
        assert!(names("$(workspaces.a.b.c)").is_err());
    }
}
