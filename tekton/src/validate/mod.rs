//! Validation: everything that Tekton's admission webhook says about a document, in its own words
//! and with its own field paths.
//!
//! It looks at one document at a time, after decoding and defaulting; whether what it refers to
//! exists is found out when it runs. Each file holds the rules of one subject. Rules are total: they
//! find all faults, in time linear in the document, and compile no regular expression.

mod diagnose;
mod dns;
mod field_error;
mod matrix;
mod params;
mod pipeline;
mod pipeline_params;
mod pipeline_results;
mod pipeline_task;
mod pipelinerun;
mod propagated;
mod refs;
mod step;
mod step_template;
mod step_texts;
mod stepaction;
mod task;
mod taskrun;
mod text;
mod v1beta1;
mod variables;
mod when;
mod workspaces;
mod written;

pub use diagnose::check;
pub use field_error::FieldError;

use crate::flags::{ApiFields, FeatureFlags};
use crate::load::{Document, Node};
use crate::object::Object;
use field_error::FieldErrors;

/// What Tekton's webhook says about an object that was written as v1 (a StepAction: as v1beta1);
/// sorted, one error for each text. Nothing, for kinds that are not Tekton's.
pub fn validate(object: &Object, flags: &FeatureFlags) -> Vec<FieldError> {
    validate_object(Context::new(flags), object).into_merged()
}

/// What Tekton's webhook says about a document, which has rules of its own for v1beta1.
pub fn validate_document(document: &Document, flags: &FeatureFlags) -> Vec<FieldError> {
    let mut context = Context { written: Some(&document.root), ..Context::new(flags) };
    if document.declared_api_version == "tekton.dev/v1beta1" {
        context.version = Version::V1beta1;
    }
    let mut errors = validate_object(context, &document.object);
    if context.version == Version::V1beta1 {
        errors.also(v1beta1::check(document));
    }
    if let Object::StepAction(action) = &document.object
        && document.declared_api_version == "tekton.dev/v1alpha1"
    {
        errors.also(stepaction::check_default_references(&action.spec.params).via_field("spec"));
    }
    let mut errors = errors.into_merged();
    written::forgive_empty_properties(&document.root, &mut errors);
    errors
}

fn validate_object(context: Context<'_>, object: &Object) -> FieldErrors {
    match object {
        Object::Task(task) => task::check(context, task),
        Object::Pipeline(pipeline) => pipeline::check(context, pipeline),
        Object::TaskRun(run) => taskrun::check(context, run),
        Object::PipelineRun(run) => pipelinerun::check(context, run),
        Object::StepAction(action) => stepaction::check(context, action),
        _ => FieldErrors::default(),
    }
}

/// The API version whose rules hold for a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V1beta1,
}

/// What the rules depend on besides the document.
#[derive(Clone, Copy)]
struct Context<'a> {
    flags: &'a FeatureFlags,
    version: Version,
    /// The document as it was written, if that is known.
    written: Option<&'a Node>,
}

impl<'a> Context<'a> {
    fn new(flags: &'a FeatureFlags) -> Self {
        Context { flags, version: Version::V1, written: None }
    }

    /// A top-level field as it was written.
    fn written(self, field: &str) -> Option<&'a Node> {
        self.written.and_then(|root| root.get(field))
    }

    /// Complains if a feature is not yet as stable as `enable-api-fields` asks for; Tekton names no
    /// field then, so `place` says where to point.
    fn gate(self, feature: &str, stability: ApiFields, place: &str) -> Option<FieldError> {
        let current = self.flags.enable_api_fields;
        if current >= stability {
            return None;
        }
        let wanted = match stability {
            ApiFields::Alpha => "\"alpha\"",
            _ => "\"alpha\" or \"beta\"",
        };
        let current = current.as_str();
        let message = format!(
            "{feature} requires \"enable-api-fields\" feature gate to be {wanted} but it is \"{current}\""
        );
        Some(FieldError::about(message, []).at(place))
    }

    /// Whether `disable-inline-spec` names this kind.
    fn is_inline_spec_disabled(self, kind: &str) -> bool {
        self.flags.disable_inline_spec.split(',').any(|disabled| disabled == kind)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::DeserializeOwned;

    use super::*;

    /// A value of the typed documents, written as JSON.
    pub(crate) fn parsed<T: DeserializeOwned>(json: &str) -> T {
        serde_json::from_str(json).unwrap()
    }

    /// What knative would print, an error a line.
    pub(crate) fn shown(errors: FieldErrors) -> String {
        let errors: Vec<String> = errors.into_merged().iter().map(ToString::to_string).collect();
        errors.join("\n")
    }

    #[test]
    fn other_kinds_are_not_judged() {
        let object = Object::Secret(Box::default());
        assert_eq!(validate(&object, &FeatureFlags::default()), []);
    }

    proptest! {
        #[test]
        fn any_text_is_judged_and_errors_are_sorted(
            text in r#"(\$\(|\)|params|tasks|context\.|results|steps|\.|a|b|\[|\*|\]|"|'| |\n|0){0,30}"#
        ) {
            let params: Vec<crate::v1::ParamSpec> = parsed(
                r#"[{"name":"a","type":"array"},{"name":"b","type":"object","properties":{"a":{"type":"string"}}}]"#,
            );
            let param = crate::v1::Param { name: "p".to_owned(), value: text.as_str().into() };
            let step = crate::v1::Step {
                image: text.clone(),
                script: text.clone(),
                args: vec![text],
                ..Default::default()
            };
            let task_spec = crate::v1::TaskSpec { steps: vec![step], ..Default::default() };
            let task = crate::v1::PipelineTask {
                name: "a".to_owned(),
                params: vec![param],
                task_spec: Some(crate::v1::EmbeddedTask { task_spec, ..Default::default() }),
                ..Default::default()
            };
            let mut pipeline = crate::v1::Pipeline::default();
            pipeline.spec.params = params;
            pipeline.spec.tasks = vec![task];
            let object = Object::Pipeline(Box::new(pipeline));
            let errors = validate(&object, &FeatureFlags::default());
            let texts: Vec<_> = errors.iter().map(|it| (&it.message, &it.details)).collect();
            prop_assert!(texts.is_sorted_by(|before, after| before < after));
            for error in &errors {
                prop_assert!(error.paths.is_sorted_by(|before, after| before < after));
            }
        }
    }
}
