//! StepActions put in the place of the steps that refer to them.
//!
//! The step's params, with the Task's values applied, become the StepAction's variables. A param that is
//! itself a step result is passed on as a reference, for the entrypoint to fill in while steps run.

use std::collections::BTreeMap;

use crate::params::{TASK_PATTERNS, default_replacements, set_param, task_replacements};
use crate::rejection::{Rejection, go_list};
use crate::resultref::{exact_expression, expressions, parse_step};
use crate::substitute::{Kinds, Replacements, apply_to_step};
use crate::v1::{Param, ParamSpec, ParamValue, Step, StepActionSpec, TaskRun, TaskSpec};

/// Replaces every step with a `ref` by its StepAction, given by the step's index.
///
/// The error has reason `TaskRunResolutionFailed`.
pub(super) fn inline(
    spec: &mut TaskSpec,
    task_run: &TaskRun,
    actions: &BTreeMap<usize, StepActionSpec>,
) -> Result<(), Rejection> {
    if spec.steps.iter().all(|step| step.r#ref.is_none()) {
        return Ok(());
    }
    let values = task_replacements(&spec.params, &task_run.spec.params);
    for (i, step) in spec.steps.iter_mut().enumerate() {
        let Some(reference) = &step.r#ref else {
            continue;
        };
        let result = match actions.get(&i) {
            Some(action) => inline_one(step, action, &values),
            None => Err(format!("stepactions.tekton.dev {:?} not found", reference.name)),
        };
        result.map_err(|error| {
            Rejection::new(
                "TaskRunResolutionFailed",
                format!("failed to resolve step ref for step {:?} (index {i}): {error}", step.name),
            )
        })?;
    }
    Ok(())
}

fn inline_one(
    step: &mut Step,
    action: &StepActionSpec,
    values: &Replacements,
) -> Result<(), String> {
    check_params(&step.params, &action.params)?;
    let mut given = std::mem::take(&mut step.params);
    values.apply_to_params(&mut given, Kinds::All);

    let mut from_action = Step {
        image: action.image.clone(),
        command: action.command.clone(),
        args: action.args.clone(),
        working_dir: action.working_dir.clone(),
        script: action.script.clone(),
        env: action.env.clone(),
        volume_mounts: action.volume_mounts.clone(),
        security_context: action.security_context.clone(),
        results: action.results.clone(),
        ..Step::default()
    };
    let mut with = default_replacements(&action.params);
    for (name, value) in effective_params(&given, &action.params)? {
        set_param(&mut with, name, &value, TASK_PATTERNS);
    }
    pass_step_results(&mut with, &from_action, &given, &action.params)?;
    check_types(&with)?;
    apply_to_step(&mut from_action, &with);

    step.image = from_action.image;
    step.security_context = from_action.security_context;
    step.working_dir = from_action.working_dir;
    if !from_action.command.is_empty() {
        step.command = from_action.command;
    }
    if !from_action.args.is_empty() {
        step.args = from_action.args;
    }
    if !from_action.script.is_empty() {
        step.script = from_action.script;
    }
    if !from_action.env.is_empty() {
        step.env = from_action.env;
    }
    if !from_action.volume_mounts.is_empty() {
        step.volume_mounts = from_action.volume_mounts;
    }
    if !from_action.results.is_empty() {
        step.results = from_action.results;
    }
    step.r#ref = None;
    Ok(())
}

/// Unlike a Task, a StepAction refuses params that it does not declare.
fn check_params(given: &[Param], declared: &[ParamSpec]) -> Result<(), String> {
    let extra: Vec<&str> = given
        .iter()
        .filter(|param| !declared.iter().any(|spec| spec.name == param.name))
        .map(|param| param.name.as_str())
        .collect();
    if !extra.is_empty() {
        return Err(format!("extra params passed by Step to StepAction: {}", go_list(extra)));
    }
    let missing = crate::params::check::missing(declared, given);
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("non-existent params in Step: {}", go_list(missing)))
}

/// The value of each declared param: as given, else its default, in which other params may stand.
fn effective_params<'a>(
    given: &[Param],
    declared: &'a [ParamSpec],
) -> Result<Vec<(&'a str, ParamValue)>, String> {
    let mut done: Vec<(&str, ParamValue)> = Vec::with_capacity(declared.len());
    let mut waiting: Vec<(&str, &str)> = Vec::new();
    for spec in declared {
        let value = given.iter().rfind(|param| param.name == spec.name);
        match (value, &spec.default) {
            (Some(param), _) => done.push((&spec.name, param.value.clone())),
            (None, Some(ParamValue::String(text))) if text.contains("$(params.") => {
                waiting.push((&spec.name, text));
            }
            (None, Some(default)) => done.push((&spec.name, default.clone())),
            (None, None) => {}
        }
    }
    while !waiting.is_empty() {
        let before = waiting.len();
        let mut unresolved = None;
        waiting.retain(|(name, text)| {
            let mut value = (*text).to_owned();
            let references = expressions(text).filter_map(|e| e.strip_prefix("params."));
            for reference in references {
                let Some((_, known)) = done.iter().find(|(other, _)| *other == reference) else {
                    unresolved.get_or_insert((*name, reference));
                    return true;
                };
                let text = known.as_str().unwrap_or_default();
                value = value.replace(&format!("$(params.{reference})"), text);
            }
            done.push((name, ParamValue::String(value)));
            false
        });
        if waiting.len() == before {
            let (name, reference) = unresolved.unwrap_or_default();
            return Err(if declared.iter().any(|spec| spec.name == reference) {
                "circular dependency detected in parameter references".to_owned()
            } else {
                format!("parameter {name:?} references non-existent parameter {reference:?}")
            });
        }
    }
    Ok(done)
}

/// Params whose value is a step result: their variables become references to that result.
fn pass_step_results(
    with: &mut Replacements,
    step: &Step,
    given: &[Param],
    declared: &[ParamSpec],
) -> Result<(), String> {
    for param in given {
        let Some(text) = param.value.as_str().filter(|t| t.starts_with("$(steps.")) else {
            continue;
        };
        let Some(reference) = exact_expression(text).and_then(parse_step) else {
            return Err("must be one of the form 1). \"steps.<stepName>.results.<resultName>\"; 2). \"steps.<stepName>.results.<objectResultName>.<individualAttribute>\"".to_owned());
        };
        let source = format!("steps.{}.results.{}", reference.pipeline_task, reference.result);
        let Some(spec) = declared.iter().find(|spec| spec.name == param.name) else {
            continue;
        };
        match spec.r#type.as_str() {
            "object" => {
                for key in spec.properties.keys() {
                    with.set(format!("params.{}.{key}", spec.name), format!("$({source}.{key})"));
                }
            }
            "array" => {
                for pattern in TASK_PATTERNS {
                    let key = pattern(&spec.name);
                    with.set(format!("{key}[*]"), format!("$({source}[*])"));
                    for index in indexes_of(step, &key) {
                        with.set(format!("{key}[{index}]"), format!("$({source}[{index}])"));
                    }
                }
            }
            _ => {
                for pattern in TASK_PATTERNS {
                    with.set(pattern(&spec.name), text);
                }
            }
        }
    }
    Ok(())
}

/// The numbers in `$(key[n])` of a step's command, args and env.
fn indexes_of(step: &Step, key: &str) -> Vec<usize> {
    let open = format!("$({key}[");
    let env = step.env.iter().map(|variable| &variable.value);
    let texts = step.command.iter().chain(&step.args).chain(env);
    texts
        .flat_map(|text| text.split(open.as_str()).skip(1))
        .filter_map(|rest| rest.split_once("])")?.0.parse().ok())
        .collect()
}

/// A variable cannot be a string and an array: the default and the given value differ in type.
fn check_types(with: &Replacements) -> Result<(), String> {
    let both = with.array_keys().filter(|key| with.get(key).is_some()).min();
    match both {
        None => Ok(()),
        Some(key) => {
            let name = key
                .strip_prefix("params.")
                .or_else(|| key.strip_prefix("inputs.params."))
                .unwrap_or(key);
            Err(format!(
                "invalid parameter substitution: {name}. Please check the types of the default value and the passed value"
            ))
        }
    }
}
