//! StepAction: a step on its own, stricter about params than a step in a Task.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::dns::check_metadata;
use super::field_error::{FieldError, FieldErrors};
use super::params::{Scope, check_declared_once, check_name_formats, check_types};
use super::step::{check_result_paths, check_results, check_script_and_command};
use super::step_texts::StepTexts;
use super::text::quote;
use super::variables::{PARAMS, Prefix, references, unknown};
use super::{Context, Version};
use crate::flags::ApiFields;
use crate::v1::{ParamSpec, StepAction, StepActionSpec};

/// The rule for a StepAction.
pub(crate) fn check(context: Context<'_>, action: &StepAction) -> FieldErrors {
    let mut errors = FieldErrors::from(check_metadata(&action.metadata)).via_field("metadata");
    errors.also(check_spec(context, &action.spec).via_field("spec"));
    errors
}

fn check_spec(context: Context<'_>, spec: &StepActionSpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if spec.image.is_empty() {
        errors.also(FieldError::missing("Image"));
    }
    errors.also(check_script_and_command(&spec.script, &spec.command));
    if spec.script.trim_start().starts_with("#!win") {
        errors.also(context.gate("windows script support", ApiFields::Alpha, "script"));
    }
    if references(&spec.script, PARAMS).next().is_some() {
        errors.also(FieldError::new("param substitution in scripts is not allowed.", "script"));
    }
    let scope = Scope::new(&spec.params);
    let texts = StepTexts::of_step_action(spec);
    // StepActions exist in v1beta1 only, but speak as v1 does.
    errors.also(texts.check_declared(Version::V1, &[&scope]));
    errors.also(texts.check_no_whole_object(&[&scope]));
    errors.also(texts.check_arrays(&scope));
    errors.also(scope.check_objects_have_properties());
    errors.also(check_types(&spec.params).via_field("params"));
    errors.also(check_declared_once(&spec.params));
    errors.also(check_name_formats(&spec.params));
    errors.also(check_result_paths(&spec.results, &spec.script));
    let is_result = |name: &str| spec.results.iter().any(|result| result.name == name);
    let error = unknown(&spec.script, Prefix("results"), false, is_result);
    errors.also(FieldErrors::from(error).via_field("script"));
    errors.also(check_results(&spec.results).via_field("results"));
    errors.also(check_mounts(spec, &scope).via_field("volumeMounts"));
    errors
}

/// The name of a mount is exactly one reference to a param; the first that is not ends the search.
fn check_mounts(spec: &StepActionSpec, scope: &Scope<'_>) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (index, mount) in spec.volume_mounts.iter().enumerate() {
        let name = &mount.name;
        let is_one_reference =
            references(name, PARAMS).next().is_some_and(|found| found.whole == name);
        if !is_one_reference {
            let error = FieldError::invalid(name, "name")
                .details("expect the Name to be a single param reference");
            errors.also(FieldErrors::from(error).via_index(index));
            return errors;
        }
        let error = unknown(name, PARAMS, false, |name| scope.has(name));
        errors.also(FieldErrors::from(error).via_index(index));
    }
    errors
}

/// Params that defaults refer to exist and end somewhere: a rule that only v1alpha1 has; relative to
/// the spec.
pub(crate) fn check_default_references(params: &[ParamSpec]) -> FieldErrors {
    let names: HashSet<&str> = params.iter().map(|param| param.name.as_str()).collect();
    let mut errors = FieldErrors::default();
    let mut resolved: Vec<&str> = Vec::new();
    let mut waiting: BTreeMap<&str, usize> = BTreeMap::new();
    let mut dependents: HashMap<&str, Vec<&str>> = HashMap::new();
    for ParamSpec { name, default, .. } in params {
        let default = default.as_ref().and_then(|default| default.as_str()).unwrap_or_default();
        let wanted: Vec<&str> = references(default, PARAMS)
            .map(|reference| {
                let start = reference.whole.strip_prefix("$(params.").unwrap_or(reference.whole);
                start.strip_suffix(')').unwrap_or(start)
            })
            .collect();
        let mut is_known = true;
        for other in wanted.iter().filter(|other| !names.contains(*other)) {
            is_known = false;
            let (name, other) = (quote(name), quote(other));
            let message =
                format!("param {name} default value references param {other} which is not defined");
            errors.also(FieldError::new(message, "params"));
        }
        if wanted.is_empty() {
            resolved.push(name);
        } else if is_known {
            waiting.insert(name, wanted.len());
            wanted.into_iter().for_each(|other| dependents.entry(other).or_default().push(name));
        }
    }
    while let Some(name) = resolved.pop() {
        for dependent in dependents.remove(name).unwrap_or_default() {
            let Some(missing) = waiting.get_mut(dependent) else {
                continue;
            };
            *missing = missing.saturating_sub(1);
            if *missing == 0 {
                waiting.remove(dependent);
                resolved.push(dependent);
            }
        }
    }
    for name in waiting.into_keys() {
        let message = format!("param {} default value has a circular dependency", quote(name));
        errors.also(FieldError::new(message, "params"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::FeatureFlags;
    use crate::validate::tests::{parsed, shown};

    #[test]
    fn step_actions() {
        let flags = FeatureFlags::default();
        for (spec, errors) in [
            (r#"{"image":"x","script":"echo"}"#, ""),
            (r#"{}"#, "missing field(s): spec.Image"),
            (
                r#"{"image":"x","script":"$(params.a)","params":[{"name":"a","type":"string"}]}"#,
                "param substitution in scripts is not allowed.: spec.script",
            ),
            (
                r#"{"image":"x","script":"$(results.r.path)"}"#,
                "non-existent variable in \"$(results.r.path)\": spec.script",
            ),
            (
                r#"{"image":"x","volumeMounts":[{"name":"v","mountPath":"/v"}]}"#,
                "invalid value: v: spec.volumeMounts[0].name\nexpect the Name to be a single param reference",
            ),
            (
                r#"{"image":"x","volumeMounts":[{"name":"$(params.v)","mountPath":"/v"}]}"#,
                "non-existent variable in \"$(params.v)\": spec.volumeMounts[0]",
            ),
            (
                r#"{"image":"x","args":["$(params.a)x"],"params":[{"name":"a","type":"array"}]}"#,
                "variable is not properly isolated in \"$(params.a)x\": spec.args[0]",
            ),
        ] {
            let metadata = crate::k8s::ObjectMeta { name: "s".to_owned(), ..Default::default() };
            let action = StepAction { metadata, spec: parsed(spec), ..StepAction::default() };
            assert_eq!(shown(check(Context::new(&flags), &action)), errors, "{spec}");
        }
    }

    #[test]
    fn defaults_of_v1alpha1() {
        for (params, errors) in [
            (
                r#"[{"name":"a"},{"name":"c","default":"$(params.b)"},{"name":"b","default":"$(params.a)"}]"#,
                "",
            ),
            (
                r#"[{"name":"a","default":"$(params.z)"}]"#,
                "param \"a\" default value references param \"z\" which is not defined: params",
            ),
            (
                r#"[{"name":"a","default":"$(params.b)"},{"name":"b","default":"$(params.a)"}]"#,
                "param \"a\" default value has a circular dependency: params\nparam \"b\" default value has a circular dependency: params",
            ),
        ] {
            let params: Vec<ParamSpec> = parsed(params);
            assert_eq!(shown(check_default_references(&params)), errors);
        }
    }
}
