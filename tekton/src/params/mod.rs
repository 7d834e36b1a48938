//! Params: which variables they make, for a TaskRun and for a PipelineRun.
//!
//! Declarations give defaults, runs give values, values win. Whether the values fit the declarations
//! is another question ([`check`]), asked before.

pub mod check;
mod pipeline;

pub use pipeline::pipeline_replacements;

use crate::resultref::expressions;
use crate::substitute::Replacements;
use crate::v1::{Param, ParamSpec, ParamValue};

/// How a param may be written in a variable.
type Pattern = fn(&str) -> String;

fn dotted(name: &str) -> String {
    format!("params.{name}")
}
fn double_quoted(name: &str) -> String {
    format!("params[{name:?}]")
}
fn single_quoted(name: &str) -> String {
    format!("params['{name}']")
}
fn legacy(name: &str) -> String {
    format!("inputs.params.{name}")
}

/// The keys of a param at the level of a Pipeline.
pub const PIPELINE_PATTERNS: &[Pattern] = &[dotted, double_quoted, single_quoted];
/// The keys of a param at the level of a Task: also the one that v1alpha1 used.
pub const TASK_PATTERNS: &[Pattern] = &[dotted, double_quoted, single_quoted, legacy];

/// Sets the variables of one param.
pub fn set_param(to: &mut Replacements, name: &str, value: &ParamValue, patterns: &[Pattern]) {
    match value {
        ParamValue::String(text) => {
            for pattern in patterns {
                to.set(pattern(name), text.clone());
            }
        }
        ParamValue::Array(items) => {
            for pattern in patterns {
                let key = pattern(name);
                for (i, item) in items.iter().enumerate() {
                    to.set(format!("{key}[{i}]"), item.clone());
                }
                to.set_array(key, items.clone());
            }
        }
        ParamValue::Object(entries) => {
            for pattern in patterns {
                let key = pattern(name);
                let mut merged = to.get_object(&key).cloned().unwrap_or_default();
                merged.extend(entries.iter().map(|(k, v)| (k.clone(), v.clone())));
                to.set_object(key, merged);
            }
            for (key, item) in entries {
                to.set(format!("params.{name}.{key}"), item.clone());
            }
        }
    }
}

fn refers_to_params(default: &ParamValue) -> bool {
    default.as_str().is_some_and(|text| text.contains("$(params."))
}

/// The variables of declarations' defaults, at the level of a Task. A default that refers to another
/// default is resolved one level deep.
pub fn default_replacements(specs: &[ParamSpec]) -> Replacements {
    let mut all = Replacements::new();
    for spec in specs {
        if let Some(default) = spec.default.as_ref().filter(|d| !refers_to_params(d)) {
            set_param(&mut all, &spec.name, default, TASK_PATTERNS);
        }
    }
    for spec in specs {
        let Some(text) = spec.default.as_ref().and_then(ParamValue::as_str) else {
            continue;
        };
        if !text.contains("$(params.") {
            continue;
        }
        // As in Tekton, each reference found is replaced in the default as declared: with several,
        // the last one known wins.
        let mut resolved = None;
        for expression in expressions(text).filter(|e| e.starts_with("params.")) {
            if let Some(value) = all.get(expression) {
                resolved = Some(text.replace(&format!("$({expression})"), value));
            }
        }
        if let Some(value) = resolved {
            set_param(&mut all, &spec.name, &ParamValue::String(value), TASK_PATTERNS);
        }
    }
    all
}

/// The variables of params as given.
pub fn param_replacements(params: &[Param], patterns: &[Pattern]) -> Replacements {
    let mut all = Replacements::new();
    for param in params {
        set_param(&mut all, &param.name, &param.value, patterns);
    }
    all
}

/// The variables of a TaskRun: its Task's defaults, overwritten by its params; objects merge by key.
pub fn task_replacements(specs: &[ParamSpec], params: &[Param]) -> Replacements {
    let mut all = default_replacements(specs);
    for param in params {
        set_param(&mut all, &param.name, &param.value, TASK_PATTERNS);
    }
    all
}
