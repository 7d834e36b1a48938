//! Propagated params: what a run gives is visible in the specs that it carries, so their variables
//! are checked against all that is given and declared around them.

use std::collections::BTreeMap;

use super::field_error::{FieldError, FieldErrors};
use super::params::{Scope, check_types};
use super::step_texts::{self, StepTexts};
use super::{Context, pipeline, pipeline_params, task};
use crate::load::Node;
use crate::v1::{Param, ParamSpec, ParamValue, PipelineRunSpec, PropertySpec, TaskRunSpec};

/// Params by name, each as if it were declared.
#[derive(Default)]
struct Known(BTreeMap<String, ParamSpec>);

impl Known {
    /// A param given by a run or a PipelineTask; its type is that of its value, and without one it
    /// has none, which is a fault.
    fn give(&mut self, param: &Param, has_value: bool) {
        let properties = match &param.value {
            ParamValue::Object(entries) => {
                let text = PropertySpec { r#type: "string".to_owned() };
                entries.keys().map(|key| (key.clone(), text.clone())).collect()
            }
            _ => BTreeMap::new(),
        };
        let declared = ParamSpec {
            name: param.name.clone(),
            r#type: if has_value { param.value.type_name() } else { "" }.to_owned(),
            default: Some(param.value.clone()),
            properties,
            ..ParamSpec::default()
        };
        self.0.insert(param.name.clone(), declared);
    }

    /// A param given by a PipelineTask adds keys to an object that is known.
    fn give_more(&mut self, param: &Param, has_value: bool) {
        match (self.0.get_mut(&param.name), &param.value) {
            (None, _) => self.give(param, has_value),
            (Some(known), ParamValue::Object(entries)) => {
                for key in entries.keys() {
                    let text = PropertySpec { r#type: "string".to_owned() };
                    known.properties.insert(key.clone(), text);
                }
            }
            _ => {}
        }
    }

    /// A declaration; what is given already keeps its type, and objects must declare their keys.
    fn declare(&mut self, param: &ParamSpec) -> Option<FieldError> {
        let Some(known) = self.0.get_mut(&param.name) else {
            self.0.insert(param.name.clone(), param.clone());
            return None;
        };
        let has_object_default = matches!(param.default, Some(ParamValue::Object(_)));
        let is_object = known.r#type == "object";
        if (has_object_default || is_object) && param.properties.is_empty() {
            return Some(FieldError::missing(format!("{}.properties", param.name)));
        }
        if is_object {
            known.properties.clone_from(&param.properties);
        }
        None
    }

    fn declare_all(&mut self, params: &[ParamSpec]) -> FieldErrors {
        let mut errors = FieldErrors::default();
        for param in params {
            errors.also(self.declare(param));
        }
        errors
    }

    fn into_params(self) -> Vec<ParamSpec> {
        self.0.into_values().collect()
    }
}

/// Whether the param at this index of what was written says `value:` at all; the typed document
/// cannot tell an absent value from an empty one.
fn has_value(owner: Option<&Node>, index: usize) -> bool {
    let written = owner.and_then(|owner| owner.get("params")?.as_seq()?.get(index));
    written.is_none_or(|param| param.get("value").is_some())
}

/// The steps of an embedded spec use only params that are known.
fn check_steps(context: Context<'_>, texts: &[StepTexts<'_>], scope: &Scope<'_>) -> FieldErrors {
    let mut errors = step_texts::check_arrays(texts, scope);
    errors.also(step_texts::check_usage(context, texts, &[scope]));
    errors
}

/// The rule for a TaskRun with a `taskSpec`, relative to the run's spec.
pub(crate) fn check_task_run(context: Context<'_>, spec: &TaskRunSpec) -> FieldErrors {
    let Some(task_spec) = &spec.task_spec else {
        return FieldErrors::default();
    };
    let mut known = Known::default();
    let written = context.written("spec");
    for (index, param) in spec.params.iter().enumerate() {
        known.give(param, has_value(written, index));
    }
    let mut errors = known.declare_all(&task_spec.params);
    if task_spec.steps.is_empty() {
        return errors;
    }
    let params = known.into_params();
    errors.also(check_types(&params));
    errors.also(task::check_params(context, &params));
    let steps = task::merged_steps(context, task_spec);
    let found = check_steps(context, &step_texts::of_steps(&steps), &Scope::new(&params));
    errors.also(found.placed(|path| format!("taskSpec.{path}")));
    errors
}

/// The rule for a PipelineRun with a `pipelineSpec`, relative to the run's spec. As in Tekton,
/// finally tasks are not looked at.
pub(crate) fn check_pipeline_run(context: Context<'_>, spec: &PipelineRunSpec) -> FieldErrors {
    let Some(pipeline_spec) = &spec.pipeline_spec else {
        return FieldErrors::default();
    };
    let tasks = &pipeline_spec.tasks;
    let mut known = Known::default();
    let written = context.written("spec");
    for (index, param) in spec.params.iter().enumerate() {
        known.give(param, has_value(written, index));
    }
    let mut errors = known.declare_all(&pipeline_spec.params);
    let written = written.and_then(|spec| spec.get("pipelineSpec")?.get("tasks")?.as_seq());
    for (index, task) in tasks.iter().enumerate() {
        let written = written.and_then(|tasks| tasks.get(index));
        for (index, param) in task.params.iter().enumerate() {
            known.give_more(param, has_value(written, index));
        }
        if let Some(embedded) = &task.task_spec {
            errors.also(known.declare_all(&embedded.task_spec.params));
        }
    }
    if tasks.is_empty() {
        return errors;
    }
    let params = known.into_params();
    let scope = Scope::new(&params);
    let mut has_steps = false;
    for (index, task) in tasks.iter().enumerate() {
        let steps = pipeline::embedded_steps(context, task);
        if !steps.is_empty() {
            has_steps = true;
            let found = check_steps(context, &step_texts::of_steps(&steps), &scope);
            let spec = format!("pipelineSpec.tasks[{index}].taskSpec");
            errors.also(found.placed(|path| format!("{spec}.{path}")));
        }
    }
    if has_steps {
        errors.also(check_types(&params));
        errors.also(task::check_params(context, &params));
    }
    errors.also(pipeline::check_params(context, tasks, &params));
    let found = pipeline_params::check_usage(tasks, &scope);
    errors.also(found.placed(|path| format!("pipelineSpec.tasks{path}")));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::FeatureFlags;
    use crate::validate::tests::{parsed, shown};

    #[test]
    fn task_runs() {
        let flags = FeatureFlags::default();
        for (spec, errors) in [
            (
                r#"{"params":[{"name":"p","value":"x"}],"taskSpec":{"steps":[{"image":"x","script":"$(params.p)"}]}}"#,
                "",
            ),
            (
                r#"{"taskSpec":{"steps":[{"image":"x","script":"$(params.p)"}]}}"#,
                "non-existent variable in \"$(params.p)\": steps[0].script",
            ),
            (
                r#"{"params":[{"name":"o","value":{"k":"v"}}],"taskSpec":{"params":[{"name":"o","type":"object"}],"steps":[{"image":"x"}]}}"#,
                "missing field(s): o.properties",
            ),
            (
                r#"{"params":[{"name":"o","value":{"k":"v"}}],"taskSpec":{"steps":[{"image":"x","script":"$(params.o.k) $(params.o.z)"}]}}"#,
                "non-existent variable in \"$(params.o.k) $(params.o.z)\": steps[0].script",
            ),
        ] {
            let spec: TaskRunSpec = parsed(spec);
            assert_eq!(shown(check_task_run(Context::new(&flags), &spec)), errors);
        }
    }

    #[test]
    fn pipeline_runs() {
        let flags = FeatureFlags::default();
        for (spec, errors) in [
            (
                r#"{"params":[{"name":"p","value":"x"}],"pipelineSpec":{"tasks":[{"name":"a","params":[{"name":"q","value":"$(params.p)"}],"taskSpec":{"steps":[{"image":"x","script":"$(params.p) $(params.q)"}]}}]}}"#,
                "",
            ),
            (
                r#"{"pipelineSpec":{"tasks":[{"name":"a","params":[{"name":"q","value":"$(params.p)"}],"taskSpec":{"steps":[{"image":"x","script":"$(params.z)"}]}}]}}"#,
                "non-existent variable in \"$(params.p)\": [0].params[q]\nnon-existent variable in \"$(params.z)\": steps[0].script",
            ),
        ] {
            let spec: PipelineRunSpec = parsed(spec);
            assert_eq!(shown(check_pipeline_run(Context::new(&flags), &spec)), errors);
        }
    }

    #[test]
    fn a_param_without_a_value_has_no_type() {
        let flags = FeatureFlags::default();
        let source = crate::load::Source {
            name: "r.yaml".to_owned(),
            text: "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: r}\nspec:\n  params: [{name: p}]\n  taskSpec: {steps: [{image: x}]}\n".into(),
        };
        let loaded = crate::load::load(&[source], &flags);
        let found = crate::validate::validate_document(&loaded.bundle.documents[0], &flags);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["invalid value: : spec.p.type"]);
    }
}
