//! Steps as they are once a Task's `stepTemplate` is merged into them, as far as validation looks.
//!
//! Tekton checks merged steps, so a fault of the template shows in every step. Fields that no rule
//! reads are left as they are in the step.

use std::borrow::Cow;

use super::Version;
use crate::k8s::{EnvVar, VolumeMount};
use crate::v1::{Step, StepTemplate};

/// The steps with the template merged in; a step that refers to a StepAction takes nothing from it.
pub(crate) fn merge<'a>(
    version: Version,
    template: Option<&StepTemplate>,
    steps: &'a [Step],
) -> Cow<'a, [Step]> {
    let Some(template) = template else {
        return Cow::Borrowed(steps);
    };
    let merge = |step: &Step| match step.r#ref {
        Some(_) => step.clone(),
        None => merge_step(version, template, step),
    };
    Cow::Owned(steps.iter().map(merge).collect())
}

fn merge_step(version: Version, template: &StepTemplate, step: &Step) -> Step {
    let mut merged = step.clone();
    fill(&mut merged.image, &template.image);
    fill(&mut merged.working_dir, &template.working_dir);
    fill(&mut merged.image_pull_policy, &template.image_pull_policy);
    fill_list(&mut merged.command, &template.command);
    fill_list(&mut merged.args, &template.args);
    fill_list(&mut merged.env_from, &template.env_from);
    merged.env = merge_lists(&template.env, &step.env, |env| &env.name, merge_env);
    merged.volume_mounts = merge_lists(
        &template.volume_mounts,
        &step.volume_mounts,
        |mount| &mount.mount_path,
        merge_mount,
    );
    merged.volume_devices = merge_lists(
        &template.volume_devices,
        &step.volume_devices,
        |device| &device.device_path,
        |_, device| device.clone(),
    );
    if version == Version::V1beta1 {
        // Its merge forgets these, so that nothing is said about them.
        merged.results.clear();
        merged.params.clear();
        merged.workspaces.clear();
    }
    merged
}

fn fill(text: &mut String, default: &str) {
    if text.is_empty() {
        default.clone_into(text);
    }
}

fn fill_list<T: Clone>(list: &mut Vec<T>, default: &[T]) {
    if list.is_empty() {
        default.clone_into(list);
    }
}

fn merge_env(template: &EnvVar, step: &EnvVar) -> EnvVar {
    let mut merged = step.clone();
    if step.value.is_empty() && step.value_from.is_none() {
        merged.value.clone_from(&template.value);
        merged.value_from.clone_from(&template.value_from);
    }
    merged
}

fn merge_mount(template: &VolumeMount, step: &VolumeMount) -> VolumeMount {
    let mut merged = step.clone();
    fill(&mut merged.name, &template.name);
    fill(&mut merged.sub_path, &template.sub_path);
    merged
}

/// Kubernetes' strategic merge of two keyed lists: the step's items in their order, the template's
/// other items behind them, unless the template has them before an item that both have.
fn merge_lists<T: Clone>(
    template: &[T],
    step: &[T],
    key: impl Fn(&T) -> &String,
    combine: impl Fn(&T, &T) -> T,
) -> Vec<T> {
    let place = |item: &T| template.iter().position(|other| key(other) == key(item));
    let is_own = |item: &T| step.iter().any(|other| key(other) == key(item));
    let mut inherited = template.iter().enumerate().filter(|(_, item)| !is_own(item)).peekable();
    let mut merged = Vec::with_capacity(template.len() + step.len());
    for item in step {
        let Some(at) = place(item) else {
            merged.push(item.clone());
            continue;
        };
        while let Some((_, earlier)) = inherited.next_if(|(index, _)| *index < at) {
            merged.push(earlier.clone());
        }
        merged.push(combine(&template[at], item));
    }
    merged.extend(inherited.map(|(_, item)| item.clone()));
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::tests::parsed;

    #[test]
    fn merges_as_kubernetes_does() {
        let template: StepTemplate = parsed(
            r#"{"image":"t","args":["a"],"env":[{"name":"A","value":"t"},{"name":"B","value":"t"},{"name":"C","value":"t"}]}"#,
        );
        let steps: Vec<Step> = parsed(
            r#"[{"image":"s","env":[{"name":"X","value":"s"},{"name":"B","value":"s"}]},{"ref":{"name":"r"}}]"#,
        );
        let merged = merge(Version::V1, Some(&template), &steps);
        assert_eq!(merged[0].image, "s");
        assert_eq!(merged[0].args, ["a"]);
        let env: Vec<_> =
            merged[0].env.iter().map(|e| (e.name.as_str(), e.value.as_str())).collect();
        assert_eq!(env, [("X", "s"), ("A", "t"), ("B", "s"), ("C", "t")]);
        assert_eq!(merged[1], steps[1]);
    }
}
