//! Names and texts of Go that show in Tekton's decode messages: type names, `%q`, quantities.

/// Kubernetes' message for what is no quantity at all.
pub const QUANTITY_FORMAT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Whether Kubernetes would read this as a quantity; else its message.
pub fn check_quantity(text: &str) -> Result<(), &'static str> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let rest = &unsigned[digits(unsigned)..];
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => &fraction[digits(fraction)..],
        None => rest,
    };
    if text.is_empty() || rest.len() == unsigned.len() && rest.is_empty() {
        return Err(QUANTITY_FORMAT);
    }
    let letters = rest.find(|c: char| !"eEinumkKMGTP".contains(c)).unwrap_or(rest.len());
    let exponent = &rest[letters..];
    let exponent_digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if digits(exponent_digits) != exponent_digits.len() {
        return Err(QUANTITY_FORMAT);
    }
    let known = match &rest[..letters] {
        "e" | "E" if !exponent_digits.is_empty() => true,
        "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" | "Ki" | "Mi" | "Gi" | "Ti"
        | "Pi" | "Ei" => exponent.is_empty(),
        _ => false,
    };
    known.then_some(()).ok_or("unable to parse quantity's suffix")
}

/// Go's `%q` for the keys of a document.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The Go struct that one of our structs stands for.
pub fn struct_name(name: &str) -> &str {
    match name {
        "EmbeddedTaskKeys" => "EmbeddedTask",
        "StepRef" => "Ref",
        "HttpGetAction" => "HTTPGetAction",
        "HttpHeader" => "HTTPHeader",
        "TcpSocketAction" => "TCPSocketAction",
        "GrpcAction" => "GRPCAction",
        "CsiVolumeSource" => "CSIVolumeSource",
        "DownwardApiVolumeSource" => "DownwardAPIVolumeSource",
        "KeySelector" => "SecretKeySelector",
        "EnvSource" => "SecretEnvSource",
        "PodTemplate" => "Template",
        other => other,
    }
}

/// The Go type with its package, as `reflect` prints it.
pub fn qualified(name: &str, package: &str) -> String {
    let package = match name {
        "PodTemplate" => "pod",
        _ if is_tekton(name) => package,
        _ => "v1",
    };
    format!("{package}.{}", struct_name(name))
}

/// Whether the type is of Tekton's API, whose package is named after the version.
fn is_tekton(name: &str) -> bool {
    const TEKTON: [&str; 42] = [
        "Task",
        "TaskSpec",
        "Step",
        "StepRef",
        "StepOutputConfig",
        "StepTemplate",
        "Sidecar",
        "TaskResult",
        "StepAction",
        "StepActionSpec",
        "Pipeline",
        "PipelineSpec",
        "PipelineResult",
        "PipelineTask",
        "PipelineRef",
        "Matrix",
        "IncludeParams",
        "PipelineTaskMetadata",
        "EmbeddedTaskKeys",
        "PipelineRun",
        "PipelineRunSpec",
        "TimeoutFields",
        "PipelineTaskRunTemplate",
        "PipelineTaskRunSpec",
        "TaskRun",
        "TaskRunSpec",
        "TaskRunDebug",
        "TaskBreakpoints",
        "TaskRef",
        "TaskRunStepSpec",
        "CustomRun",
        "CustomRunSpec",
        "Param",
        "ParamSpec",
        "PropertySpec",
        "WhenExpression",
        "WorkspaceDeclaration",
        "WorkspaceBinding",
        "PipelineWorkspaceDeclaration",
        "WorkspacePipelineTaskBinding",
        "WorkspaceUsage",
        "TaskRunSidecarSpec",
    ];
    TEKTON.contains(&name)
}

/// The Go type of a 32-bit integer field.
pub fn int_type(owner: &str, field: &str) -> &'static str {
    match (owner, field) {
        ("PipelineTask" | "TaskRunSpec" | "CustomRunSpec", "retries") => "int",
        _ => "int32",
    }
}

/// The Go type of a text field: Go names some of them.
pub fn string_type(owner: &str, field: &str, package: &str) -> String {
    let name = match (owner, field) {
        ("ParamSpec" | "PropertySpec", "type") => "ParamType",
        ("TaskResult" | "StepResult" | "PipelineResult", "type") => "ResultsType",
        ("Step", "onError") => "OnErrorType",
        ("PipelineTask", "onError") => "PipelineTaskOnErrorType",
        ("TaskRef", "kind") => "TaskKind",
        (_, "resolver") => "ResolverName",
        ("TaskRunSpec", "status") => "TaskRunSpecStatus",
        ("TaskRunSpec", "statusMessage") => "TaskRunSpecStatusMessage",
        ("PipelineRunSpec", "status") => "PipelineRunSpecStatus",
        ("WhenExpression", "operator") => return "selection.Operator".to_owned(),
        (_, "imagePullPolicy") => return "v1.PullPolicy".to_owned(),
        (_, "terminationMessagePolicy") => return "v1.TerminationMessagePolicy".to_owned(),
        _ => return "string".to_owned(),
    };
    format!("{package}.{name}")
}

/// The Go type of a list field, whose elements have the given Go type.
pub fn list_type(field: &str, element: &str, package: &str) -> String {
    match (field, element.rsplit('.').next().unwrap_or(element)) {
        (_, "ParamSpec") => format!("{package}.ParamSpecs"),
        (_, "Param") => format!("{package}.Params"),
        (_, "IncludeParams") => format!("{package}.IncludeParamsList"),
        (_, "WhenExpression") => format!("{package}.WhenExpressions"),
        ("volumes", _) => format!("{package}.Volumes"),
        _ => format!("[]{element}"),
    }
}

/// The Go type of a map field.
pub fn map_type(field: &str, package: &str) -> String {
    match field {
        "properties" => format!("map[string]{package}.PropertySpec"),
        "limits" | "requests" => "v1.ResourceList".to_owned(),
        "data" | "binaryData" => "map[string][]uint8".to_owned(),
        _ => "map[string]string".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_kubernetes() {
        for good in ["1", "100m", "64Mi", "1.5", "1e3", "-1", "+2", "0", "1E6", "2E", ".5", "5Gi"] {
            assert_eq!(check_quantity(good), Ok(()), "{good}");
        }
        for bad in ["", "lots", "1 Gi", "1.2.3", "1Gi!", "$(params.x)"] {
            assert_eq!(check_quantity(bad), Err(QUANTITY_FORMAT), "{bad}");
        }
        for bad in ["1Kb", "64MB", "1mm", "1ki"] {
            assert!(check_quantity(bad).is_err(), "{bad}");
        }
        assert_eq!(check_quantity("1mm"), Err("unable to parse quantity's suffix"));
    }
}
