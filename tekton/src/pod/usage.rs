//! References to params that nobody gave, found when all values are applied.
//!
//! An embedded taskSpec may use outer params without declaring them, so only now is it known which
//! `$(params.x)` has no value. Other unknown variables stay as they are: a shell may want them.

use crate::v1::{Step, TaskSpec};

/// The texts of Tekton's errors, joined; `None` when all references are declared.
pub(super) fn unknown_params(spec: &TaskSpec) -> Option<String> {
    let declared = |name: &str| spec.params.iter().any(|param| param.name == name);
    let mut errors: Vec<(String, Vec<String>)> = Vec::new();
    for (i, step) in spec.steps.iter().enumerate() {
        for (field, text) in fields(step) {
            let Some(message) = check(text, &declared) else {
                continue;
            };
            let path = format!("steps[{i}].{field}");
            match errors.iter_mut().find(|(known, _)| *known == message) {
                Some((_, paths)) => paths.push(path),
                None => errors.push((message, vec![path])),
            }
        }
    }
    errors.sort();
    let lines: Vec<String> = errors
        .into_iter()
        .map(|(message, paths)| format!("{message}: {}", paths.join(", ")))
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn fields(step: &Step) -> Vec<(String, &str)> {
    let mut fields: Vec<(String, &str)> = vec![
        ("name".into(), &step.name),
        ("image".into(), &step.image),
        ("workingDir".into(), &step.working_dir),
        ("script".into(), &step.script),
        ("onError".into(), &step.on_error),
    ];
    let numbered = |name: &str, i: usize| format!("{name}[{i}]");
    for (i, text) in step.command.iter().enumerate() {
        fields.push((numbered("command", i), text));
    }
    for (i, text) in step.args.iter().enumerate() {
        fields.push((numbered("args", i), text));
    }
    for variable in &step.env {
        fields.push((format!("env[{}]", variable.name), &variable.value));
    }
    for (i, mount) in step.volume_mounts.iter().enumerate() {
        fields.push((format!("volumeMount[{i}].name"), &mount.name));
        fields.push((format!("volumeMount[{i}].MountPath"), &mount.mount_path));
        fields.push((format!("volumeMount[{i}].SubPath"), &mount.sub_path));
    }
    fields
}

fn check(text: &str, declared: &impl Fn(&str) -> bool) -> Option<String> {
    let mut rest = text;
    while let Some(start) = rest.find("$(params") {
        rest = &rest[start + "$(params".len()..];
        let end = rest.find(')')?;
        let inner = &rest[..end];
        let name = if let Some(dotted) = inner.strip_prefix('.') {
            let mut parts = dotted.split('.');
            let name = parts.next().unwrap_or_default();
            if parts.count() > 1 {
                return Some(format!(
                    "Invalid referencing of parameters in \"{text}\"! Only two dot-separated components after the prefix \"params\" are allowed."
                ));
            }
            name
        } else {
            let quoted = |open: &str, close: &str| inner.strip_prefix(open)?.split_once(close);
            match quoted("[\"", "\"]").or_else(|| quoted("['", "']")) {
                Some((name, _)) => name,
                None => continue,
            }
        };
        let name = name.split('[').next().unwrap_or_default();
        if !declared(name) {
            return Some(format!("non-existent variable in {text:?}"));
        }
    }
    None
}
