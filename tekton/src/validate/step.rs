//! The rules for one step, and for the results that it declares.

use super::dns::{has_qualified_form, is_label};
use super::field_error::{FieldError, FieldErrors};
use super::params::keys_of_other_type;
use super::refs::check_ref;
use super::text::{clean_path, list, quote};
use super::variables::{Prefix, unknown};
use super::{Context, Version};
use crate::flags::ApiFields;
use crate::v1::{Step, StepResult};

/// The rule for the form of a result's name, given to those who break it.
pub(crate) const RESULT_NAME_FORM: &str = "Name must consist of alphanumeric characters, '-', '_', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my-name',  or 'my_name', regex used for validation is '^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$')";

/// The rule for one step, relative to it. A negative timeout or a use of artifacts hides the rest.
pub(crate) fn check_step(context: Context<'_>, step: &Step) -> FieldErrors {
    if uses_artifacts_without_flag(context, step) {
        return artifacts_need_flag().into();
    }
    if let Some(timeout) = step.timeout
        && timeout.0 < 0
    {
        return FieldError::invalid(timeout, "negative timeout").into();
    }
    let mut errors = match &step.r#ref {
        Some(reference) => {
            let mut errors =
                check_ref(context, &reference.name, &reference.resolver, &reference.params);
            errors.also(check_beside_ref(step));
            errors
        }
        None => check_without_ref(step),
    };
    if !step.name.is_empty() && !is_label(&step.name) {
        errors.also(FieldError::new(format!("invalid value {}", quote(&step.name)), "name").details("Task step name must be a valid DNS Label, For more info refer to https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#names"));
    }
    errors.also(check_mounts(step));
    let on_error = step.on_error.as_str();
    if !matches!(on_error, "" | "continue" | "stopAndFail") && !is_param_reference(on_error) {
        errors.also(
            FieldError::new(format!("invalid value: \"{on_error}\""), "onError")
                .details("Task step onError must be either \"continue\" or \"stopAndFail\""),
        );
    }
    if step.script.trim_start().starts_with("#!win") {
        errors.also(context.gate("windows script support", ApiFields::Alpha, "script"));
    }
    for (config, feature, field) in [
        (&step.stdout_config, "step stdout stream support", "stdoutConfig"),
        (&step.stderr_config, "step stderr stream support", "stderrConfig"),
    ] {
        if config.is_some() {
            errors.also(context.gate(feature, ApiFields::Alpha, field));
        }
    }
    errors.also(check_step_references(step));
    errors
}

/// Whether a text begins as a reference to a param, so that its value cannot be judged yet.
pub(crate) fn is_param_reference(text: &str) -> bool {
    text.starts_with("$(params")
}

fn check_beside_ref(step: &Step) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (is_set, what, field) in [
        (!step.image.is_empty(), "image", "image"),
        (!step.command.is_empty(), "command", "command"),
        (!step.args.is_empty(), "args", "args"),
        (!step.script.is_empty(), "script", "script"),
        (!step.working_dir.is_empty(), "working dir", "workingDir"),
        (!step.env.is_empty(), "env", "env"),
        (!step.volume_mounts.is_empty(), "volumeMounts", "volumeMounts"),
        (!step.results.is_empty(), "results", "results"),
    ] {
        if is_set {
            errors.also(FieldError::new(format!("{what} cannot be used with Ref"), field));
        }
    }
    errors
}

fn check_without_ref(step: &Step) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if !step.params.is_empty() {
        errors.also(FieldError::new("params cannot be used without Ref", "params"));
    }
    if step.image.is_empty() {
        errors.also(FieldError::missing("Image"));
    }
    errors.also(check_script_and_command(&step.script, &step.command));
    errors
}

/// A container runs either a script or a command.
pub(crate) fn check_script_and_command(script: &str, command: &[String]) -> Option<FieldError> {
    (!script.is_empty() && !command.is_empty())
        .then(|| FieldError::new("script cannot be used with command", "script"))
}

fn check_mounts(step: &Step) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (index, mount) in step.volume_mounts.iter().enumerate() {
        let (name, path) = (&mount.name, &mount.mount_path);
        let cleaned = clean_path(path);
        let mut complain = |message: String, field: &str| {
            let error = FieldErrors::from(FieldError::new(message, field));
            errors.also(error.via_field_index("volumeMounts", index));
        };
        if cleaned.starts_with("/tekton/") && !cleaned.starts_with("/tekton/home") {
            complain(
                format!(
                    "volumeMount cannot be mounted under /tekton/ (volumeMount {} mounted at {})",
                    quote(name),
                    quote(path)
                ),
                "mountPath",
            );
        }
        if name.starts_with("tekton-internal-") {
            let name = quote(name);
            complain(
                format!("volumeMount name {name} cannot start with \"tekton-internal-\""),
                "name",
            );
        }
    }
    errors
}

/// Whether a step names artifacts, in a field where it may, although their flag is off.
pub(crate) fn uses_artifacts_without_flag(context: Context<'_>, step: &Step) -> bool {
    if context.flags.enable_artifacts {
        return false;
    }
    let mut texts = std::iter::once(&step.script)
        .chain(&step.command)
        .chain(&step.args)
        .chain(step.env.iter().map(|variable| &variable.value));
    texts.any(|text| {
        text.contains("$(")
            && (has_step_artifact(text)
                || has_artifact(text, "tasks.")
                || text.contains("$(artifacts.path)"))
    })
}

/// The error for a use of artifacts without their flag.
pub(crate) fn artifacts_need_flag() -> FieldError {
    FieldError::new(
        "feature flag enable-artifacts should be set to true to use artifacts feature.",
        "",
    )
}

fn has_step_artifact(text: &str) -> bool {
    has_artifact(text, "steps.") || text.contains("$(step.artifacts.path)")
}

/// Whether a text holds `$(OWNER.name.inputs.artifact)` or `….outputs.…`; `owner` ends with a dot.
pub(crate) fn has_artifact(text: &str, owner: &str) -> bool {
    let mut rest = text;
    while let Some(start) = rest.find("$(") {
        rest = &rest[start + 2..];
        let Some((name, after)) = rest.strip_prefix(owner).and_then(|after| after.split_once('.'))
        else {
            continue;
        };
        let artifact =
            after.strip_prefix("inputs.").or_else(|| after.strip_prefix("outputs.")).unwrap_or("");
        let length = artifact.find(['.', ')']).unwrap_or(artifact.len());
        if !name.is_empty() && length > 0 && artifact[length..].starts_with(')') {
            return true;
        }
    }
    false
}

/// Whether a text holds `$(steps.….results.…)` on one line; the first `$(steps.` of a line decides,
/// since whatever could end a later one ends it too.
fn has_step_result(text: &str) -> bool {
    text.lines().any(|line| {
        let after_owner = line.split_once("$(steps.").map(|(_, after)| after);
        let after_results = after_owner.and_then(|after| after.split_once(".results."));
        after_results.is_some_and(|(_, after)| after.contains(')'))
    })
}

/// Results and artifacts of other steps may be used in some fields only.
fn check_step_references(step: &Step) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let mut check = |text: &str, field: &str| {
        if !text.contains("$(") {
            return;
        }
        if has_step_result(text) {
            errors.also(FieldError::new("stepResult substitutions are only allowed in env, command and args. Found usage in", field));
        }
        if field != "script" && has_step_artifact(text) {
            errors.also(FieldError::new("stepArtifact substitutions are only allowed in env, command, args and script. Found usage in", field));
        }
    };
    check(&step.name, "name");
    check(&step.image, "image");
    check(&step.script, "script");
    check(&step.image_pull_policy, "imagePullPolicy");
    check(&step.working_dir, "workingDir");
    for source in &step.env_from {
        check(&source.prefix, "envFrom.prefix");
        if let Some(config_map) = &source.config_map_ref {
            check(&config_map.name, "envFrom.configMapRef");
        }
        if let Some(secret) = &source.secret_ref {
            check(&secret.name, "envFrom.secretRef");
        }
    }
    for mount in &step.volume_mounts {
        check(&mount.name, "volumeMounts.name");
        check(&mount.mount_path, "volumeMounts.mountPath");
        check(&mount.sub_path, "volumeMounts.subPath");
    }
    for device in &step.volume_devices {
        check(&device.name, "volumeDevices.name");
        check(&device.device_path, "volumeDevices.devicePath");
    }
    errors
}

/// `$(step.results.R.path)` in a script must be a result that the step declares.
pub(crate) fn check_result_paths(results: &[StepResult], script: &str) -> FieldErrors {
    let error = unknown(script, Prefix("step.results"), false, |name| {
        results.iter().any(|result| result.name == name)
    });
    FieldErrors::from(error).via_field("script")
}

/// The rule for the results that a step or StepAction declares, relative to the list.
pub(crate) fn check_results(results: &[StepResult]) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (index, result) in results.iter().enumerate() {
        errors.also(FieldErrors::from(check_result(result)).via_index(index));
    }
    errors
}

fn check_result(result: &StepResult) -> Option<FieldError> {
    let StepResult { name, r#type, properties, .. } = result;
    if !has_qualified_form(name) {
        return Some(invalid_result_name(name));
    }
    match r#type.as_str() {
        "" | "string" | "array" => None,
        "object" if properties.is_empty() => {
            Some(FieldError::missing(format!("{name}.properties")))
        }
        "object" => {
            let wrong = keys_of_other_type(properties);
            (!wrong.is_empty()).then(|| {
                FieldError::new(format!("the value type specified for these keys {} is invalid, the type must be string", list(wrong)), format!("{name}.properties"))
            })
        }
        other => Some(FieldError::invalid(other, "type").details(format!("invalid type {other}"))),
    }
}

/// The error for a result's name that breaks [`RESULT_NAME_FORM`].
pub(crate) fn invalid_result_name(name: &str) -> FieldError {
    FieldError::new(format!("invalid key name {}", quote(name)), "name").details(RESULT_NAME_FORM)
}

/// Steps' names differ; relative to the list. v1beta1 says it in other words.
pub(crate) fn check_name_is_new(version: Version, name: &str, index: usize) -> FieldErrors {
    let error = match version {
        Version::V1 => FieldError::multiple_one_of(["name"]),
        Version::V1beta1 => FieldError::invalid(name, "name"),
    };
    FieldErrors::from(error).via_index(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::FeatureFlags;
    use crate::validate::tests::{parsed, shown};

    fn errors_of(step: &str) -> String {
        let flags = FeatureFlags::default();
        let step: Step = parsed(step);
        shown(check_step(Context::new(&flags), &step))
    }

    #[test]
    fn steps() {
        for (step, errors) in [
            (r#"{"image":"x"}"#, ""),
            (r#"{}"#, "missing field(s): Image"),
            (
                r#"{"image":"x","params":[{"name":"a"}]}"#,
                "params cannot be used without Ref: params",
            ),
            (
                r#"{"image":"x","script":"a","command":["b"]}"#,
                "script cannot be used with command: script",
            ),
            (
                r#"{"image":"x","timeout":"-1s","script":"a","command":["b"]}"#,
                "invalid value: -1s: negative timeout",
            ),
            (r#"{"image":"x","onError":"continue"}"#, ""),
            (r#"{"image":"x","onError":"$(params.x)"}"#, ""),
            (
                r#"{"image":"x","onError":"ignore"}"#,
                "invalid value: \"ignore\": onError\nTask step onError must be either \"continue\" or \"stopAndFail\"",
            ),
            (
                r#"{"ref":{"name":"a"},"image":"x","command":["a"],"args":["a"],"script":"x","workingDir":"/","env":[{"name":"a"}],"volumeMounts":[{"name":"v","mountPath":"/v"}],"results":[{"name":"r"}]}"#,
                "args cannot be used with Ref: args\ncommand cannot be used with Ref: command\nenv cannot be used with Ref: env\nimage cannot be used with Ref: image\nresults cannot be used with Ref: results\nscript cannot be used with Ref: script\nvolumeMounts cannot be used with Ref: volumeMounts\nworking dir cannot be used with Ref: workingDir",
            ),
            (
                r#"{"image":"x","volumeMounts":[{"name":"v","mountPath":"/tekton/x"},{"name":"tekton-internal-a","mountPath":"/tekton/home/a"}]}"#,
                "volumeMount cannot be mounted under /tekton/ (volumeMount \"v\" mounted at \"/tekton/x\"): volumeMounts[0].mountPath\nvolumeMount name \"tekton-internal-a\" cannot start with \"tekton-internal-\": volumeMounts[1].name",
            ),
            (
                r#"{"image":"x","script":"\n#!win cmd","stdoutConfig":{"path":"/x"},"stderrConfig":{"path":"/x"}}"#,
                "step stderr stream support requires \"enable-api-fields\" feature gate to be \"alpha\" but it is \"beta\": \nstep stdout stream support requires \"enable-api-fields\" feature gate to be \"alpha\" but it is \"beta\": \nwindows script support requires \"enable-api-fields\" feature gate to be \"alpha\" but it is \"beta\": ",
            ),
            (
                r#"{"image":"$(steps.a.results.b)","script":"$(steps.a.results.b)","args":["$(steps.a.results.b)"]}"#,
                "stepResult substitutions are only allowed in env, command and args. Found usage in: image, script",
            ),
            (
                r#"{"image":"x","script":"$(steps.a.outputs.b)"}"#,
                "feature flag enable-artifacts should be set to true to use artifacts feature.: ",
            ),
            (r#"{"image":"x","script":"$(steps.a.outputs)"}"#, ""),
        ] {
            assert_eq!(errors_of(step), errors, "{step}");
        }
        assert!(errors_of(r#"{"image":"x","name":"A b"}"#).starts_with(
            "invalid value \"A b\": name\nTask step name must be a valid DNS Label, For more info"
        ));
    }

    #[test]
    fn results() {
        for (results, beginning) in [
            (r#"[{"name":"r"},{"name":"s","type":"array"}]"#, ""),
            (
                r#"[{"name":"Bad Name"}]"#,
                "invalid key name \"Bad Name\": [0].name\nName must consist",
            ),
            (r#"[{"name":"r","type":"object"}]"#, "missing field(s): [0].r.properties"),
            (r#"[{"name":"r","type":"odd"}]"#, "invalid value: odd: [0].type\ninvalid type odd"),
            (
                r#"[{"name":"r","type":"object","properties":{"k":{"type":"array"}}}]"#,
                "the value type specified for these keys [k] is invalid, the type must be string: [0].r.properties",
            ),
        ] {
            let results: Vec<StepResult> = parsed(results);
            let found = shown(check_results(&results));
            assert!(
                found.starts_with(beginning) && found.is_empty() == beginning.is_empty(),
                "{found}"
            );
        }
    }

    #[test]
    fn artifacts() {
        for (text, found) in [
            ("$(tasks.a.outputs.b)", true),
            ("$(tasks.a.inputs.b)", true),
            ("$(tasks.a.results.b)", false),
            ("$(tasks.a.outputs)", false),
            ("$(tasks..outputs.b)", false),
            ("$(tasks.a.outputs.b.c)", false),
            ("$($(tasks.a.outputs.b)", true),
        ] {
            assert_eq!(has_artifact(text, "tasks."), found, "{text}");
        }
    }
}
