//! The param variables of a PipelineRun: defaults may refer to other params, to any depth up to ten.

use super::{PIPELINE_PATTERNS, param_replacements, set_param};
use crate::rejection::Rejection;
use crate::resultref::expressions;
use crate::substitute::{Kinds, Replacements};
use crate::v1::{Param, ParamSpec, ParamValue};

/// Longest chain of defaults.
const DEEPEST: usize = 10;

/// The variables of a PipelineRun's params and of its Pipeline's defaults.
///
/// The error is the part of the message that follows Tekton's `Failed to apply parameters to …: `.
pub fn pipeline_replacements(
    specs: &[ParamSpec],
    params: &[Param],
) -> Result<Replacements, Rejection> {
    let mut all = param_replacements(params, PIPELINE_PATTERNS);
    let is_given = |spec: &&ParamSpec| {
        spec.default.is_some() && !params.iter().any(|param| param.name == spec.name)
    };
    let defaults: Vec<&ParamSpec> = specs.iter().filter(is_given).collect();
    let mut visiting = Vec::new();
    for spec in &defaults {
        if let Some(ParamValue::String(_)) = &spec.default {
            resolve(spec, &defaults, &mut all, &mut visiting)?;
        }
    }
    for spec in &defaults {
        if let Some(default @ (ParamValue::Array(_) | ParamValue::Object(_))) = &spec.default {
            let mut value = default.clone();
            all.apply_to_value(&mut value, Kinds::Strings);
            set_param(&mut all, &spec.name, &value, PIPELINE_PATTERNS);
        }
    }
    Ok(all)
}

fn resolve<'a>(
    spec: &'a ParamSpec,
    defaults: &[&'a ParamSpec],
    all: &mut Replacements,
    visiting: &mut Vec<&'a str>,
) -> Result<(), Rejection> {
    let failed = |text: String| {
        Rejection::new("PipelineValidationFailed", format!("parameter resolution failed: {text}"))
    };
    let key = format!("params.{}", spec.name);
    if all.get(&key).is_some() {
        return Ok(());
    }
    if visiting.contains(&spec.name.as_str()) {
        return Err(failed(format!("circular dependency detected in param {key:?}")));
    }
    if visiting.len() > DEEPEST {
        return Err(failed(format!(
            "maximum recursion depth ({DEEPEST}) exceeded for param {key:?}"
        )));
    }
    let text = spec.default.as_ref().and_then(ParamValue::as_str).unwrap_or_default();
    visiting.push(&spec.name);
    for reference in expressions(text).filter(|e| e.starts_with("params.")) {
        if all.get(reference).is_some() {
            continue;
        }
        let name = &reference["params.".len()..];
        let referred = defaults.iter().find(|other| {
            other.name == name && matches!(other.default, Some(ParamValue::String(_)))
        });
        match referred {
            Some(other) => resolve(other, defaults, all, visiting)?,
            None => {
                return Err(failed(format!(
                    "param {key:?} references undefined param {reference:?}"
                )));
            }
        }
    }
    visiting.pop();
    let value = ParamValue::String(all.apply(text).into_owned());
    set_param(all, &spec.name, &value, PIPELINE_PATTERNS);
    Ok(())
}
