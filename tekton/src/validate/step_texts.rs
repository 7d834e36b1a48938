//! The texts of a step in which Tekton looks for variable references, and the checks made on them.
//!
//! Texts without any reference are left out at once: that is most of them, and no check can find
//! anything there.

use super::field_error::{FieldError, FieldErrors};
use super::params::Scope;
use super::variables::{
    PARAMS, Prefix, has_references, not_isolated, prohibited, prohibited_whole, unknown,
};
use super::{Context, Version};
use crate::k8s::{EnvVar, VolumeMount};
use crate::v1::{Step, StepActionSpec};

/// How often Tekton's habit of putting a step's place in front of an error again for each later
/// step is followed; beyond that the text would only grow.
const REPEATED_PLACES: usize = 50;

/// The place of a text within a step or StepAction.
#[derive(Clone, Copy)]
enum Place<'a> {
    Field(&'static str),
    Item(&'static str, usize),
    Env(&'a str),
    /// A field of a volume mount; unknown variables are reported with `capitals`.
    Mount {
        index: usize,
        field: &'static str,
        capitals: &'static str,
    },
    OnError,
}

impl Place<'_> {
    fn put_before(self, error: FieldError, with_capitals: bool) -> FieldErrors {
        let error = FieldErrors::from(error);
        match self {
            Place::Field(field) => error.via_field(field),
            Place::Item(field, index) => error.via_field_index(field, index),
            Place::Env(name) => error.via_field_key("env", name),
            Place::Mount { index, field, capitals } => error
                .via_field(if with_capitals { capitals } else { field })
                .via_field_index("volumeMount", index),
            Place::OnError => error.via_field("onError"),
        }
    }

    fn is_script(self) -> bool {
        matches!(self, Place::Field("script"))
    }

    /// Whether an array may stand here, as long as nothing stands beside it.
    fn takes_arrays(self) -> bool {
        matches!(self, Place::Item("command" | "args", _))
    }
}

/// The texts of one step that hold references.
#[derive(Default)]
pub(crate) struct StepTexts<'a> {
    texts: Vec<(Place<'a>, &'a str)>,
}

impl<'a> StepTexts<'a> {
    /// The texts of a step of a Task.
    pub(crate) fn of_step(step: &'a Step) -> Self {
        let mut texts = StepTexts::default();
        texts.push(Place::Field("name"), &step.name);
        texts.push(Place::Field("image"), &step.image);
        texts.push(Place::Field("workingDir"), &step.working_dir);
        texts.push(Place::Field("script"), &step.script);
        texts.push_lists(&step.command, &step.args, &step.env);
        for (index, mount) in step.volume_mounts.iter().enumerate() {
            let VolumeMount { name, mount_path, sub_path, .. } = mount;
            for (field, capitals, text) in [
                ("name", "name", name),
                ("mountPath", "MountPath", mount_path),
                ("subPath", "SubPath", sub_path),
            ] {
                texts.push(Place::Mount { index, field, capitals }, text);
            }
        }
        texts.push(Place::OnError, &step.on_error);
        texts
    }

    /// The texts of a StepAction, which has fewer of them.
    pub(crate) fn of_step_action(spec: &'a StepActionSpec) -> Self {
        let mut texts = StepTexts::default();
        texts.push(Place::Field("image"), &spec.image);
        texts.push(Place::Field("script"), &spec.script);
        texts.push_lists(&spec.command, &spec.args, &spec.env);
        for (index, mount) in spec.volume_mounts.iter().enumerate() {
            texts.push(Place::Item("volumeMounts", index), &mount.name);
        }
        texts
    }

    fn push(&mut self, place: Place<'a>, text: &'a str) {
        if has_references(text) {
            self.texts.push((place, text));
        }
    }

    fn push_lists(&mut self, command: &'a [String], args: &'a [String], env: &'a [EnvVar]) {
        for (index, text) in command.iter().enumerate() {
            self.push(Place::Item("command", index), text);
        }
        for (index, text) in args.iter().enumerate() {
            self.push(Place::Item("args", index), text);
        }
        for variable in env {
            self.push(Place::Env(&variable.name), &variable.value);
        }
    }

    /// References with this prefix must be to known variables.
    pub(crate) fn check_known(
        &self,
        version: Version,
        prefix: Prefix<'_>,
        is_known: impl Fn(&str) -> bool,
    ) -> FieldErrors {
        let mut errors = FieldErrors::default();
        for &(place, text) in &self.texts {
            let named = version == Version::V1beta1 && place.is_script();
            if let Some(error) = unknown(text, prefix, named, &is_known) {
                errors.also(place.put_before(error, true));
            }
        }
        errors
    }

    /// References to params must be to declared ones, and to declared keys of objects. A param may
    /// be declared in any of the scopes.
    pub(crate) fn check_declared(&self, version: Version, scopes: &[&Scope<'_>]) -> FieldErrors {
        let mut errors =
            self.check_known(version, PARAMS, |name| scopes.iter().any(|scope| scope.has(name)));
        for &(place, text) in &self.texts {
            let named = version == Version::V1beta1 && place.is_script();
            for scope in scopes {
                for error in scope.check_object_keys(text, named, false).into_merged() {
                    errors.also(place.put_before(error, true));
                }
            }
        }
        errors
    }

    /// A whole object may stand in none of these texts.
    pub(crate) fn check_no_whole_object(&self, scopes: &[&Scope<'_>]) -> FieldErrors {
        self.check_each(|place, text| {
            let is_on_error = matches!(place, Place::OnError);
            let is_object = |name: &str| scopes.iter().any(|scope| scope.has_object(name));
            if is_on_error { None } else { prohibited_whole(text, PARAMS, is_object) }
        })
    }

    /// An array may stand, whole, only in `command` and `args`, and there alone.
    pub(crate) fn check_arrays(&self, scope: &Scope<'_>) -> FieldErrors {
        self.check_each(|place, text| match place {
            Place::OnError => None,
            place if place.takes_arrays() => {
                not_isolated(text, PARAMS, |name| scope.has_array(name))
            }
            _ => prohibited(text, PARAMS, |name| scope.has_array(name)),
        })
    }

    fn check_each(&self, check: impl Fn(Place<'a>, &str) -> Option<FieldError>) -> FieldErrors {
        let mut errors = FieldErrors::default();
        for &(place, text) in &self.texts {
            if let Some(error) = check(place, text) {
                errors.also(place.put_before(error, false));
            }
        }
        errors
    }
}

/// The texts of all steps, in order.
pub(crate) fn of_steps(steps: &[Step]) -> Vec<StepTexts<'_>> {
    steps.iter().map(StepTexts::of_step).collect()
}

/// References to params in steps must be to declared ones.
pub(crate) fn check_usage(
    context: Context<'_>,
    steps: &[StepTexts<'_>],
    scopes: &[&Scope<'_>],
) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (index, step) in steps.iter().enumerate() {
        errors.also(step.check_declared(context.version, scopes).via_field_index("steps", index));
    }
    errors.also(check_steps_again(steps, |step| step.check_no_whole_object(scopes)));
    for scope in scopes {
        errors.also(scope.check_objects_have_properties());
    }
    errors
}

/// Arrays in steps must stand where they may.
pub(crate) fn check_arrays(steps: &[StepTexts<'_>], scope: &Scope<'_>) -> FieldErrors {
    check_steps_again(steps, |step| step.check_arrays(scope))
}

/// `$(context.taskRun.…)` and `$(context.task.…)` must be ones that exist.
pub(crate) fn check_context(context: Context<'_>, steps: &[StepTexts<'_>]) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (prefix, known) in [
        ("context.taskRun", &["name", "namespace", "uid"][..]),
        ("context.task", &["name", "retry-count"][..]),
    ] {
        for (index, step) in steps.iter().enumerate() {
            let found =
                step.check_known(context.version, Prefix(prefix), |name| known.contains(&name));
            errors.also(found.via_field_index("steps", index));
        }
    }
    errors
}

/// Checks each step as Tekton does for arrays and objects: what is found in a step gets the place of
/// that step in front, and then of every later step too (`steps[1].steps[0].script`).
fn check_steps_again<'a>(
    steps: &[StepTexts<'a>],
    check: impl Fn(&StepTexts<'a>) -> FieldErrors,
) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (index, step) in steps.iter().enumerate() {
        let found = check(step);
        if found.is_empty() {
            continue;
        }
        let last = steps.len().min(index + REPEATED_PLACES);
        let places: Vec<String> =
            (index..last).rev().map(|place| format!("steps[{place}]")).collect();
        errors.also(found.via_field(&places.join(".")));
    }
    errors
}
