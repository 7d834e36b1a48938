//! `validate`, `list` and `version`: answers that need nothing but files.

use serde::Serialize;
use serde_json::{Value, json};
use tenon_reporter::pretty::{Paint, pad, truncate, width};
use tenon_tekton::load::Diagnostic;
use tenon_tekton::object::Object;
use tenon_tekton::v1::{ParamSpec, ParamValue};
use tenon_tekton::yaml_out::to_yaml;

use crate::args::{ListArgs, Output, ValidateArgs, VersionArgs};
use crate::exit::{Exit, Failure};
use crate::{input, terminal};

/// One fault in the answer of `validate -o json`.
#[derive(Serialize)]
struct Fault<'a> {
    severity: &'static str,
    code: &'a str,
    message: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    details: &'a str,
    file: &'a str,
    line: u32,
    column: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
}

impl<'a> Fault<'a> {
    fn new(found: &'a Diagnostic) -> Fault<'a> {
        Fault {
            severity: found.severity.as_str(),
            code: found.code,
            message: &found.message,
            path: &found.path,
            details: &found.details,
            file: &found.source.name,
            line: found.span.line,
            column: found.span.column,
            help: found.help.as_deref(),
        }
    }
}

/// Prints `value` as JSON or YAML, or else what `pretty` makes.
pub fn answer(
    output: Output,
    value: &impl Serialize,
    pretty: impl FnOnce() -> String,
) -> Result<(), Failure> {
    match output {
        Output::Pretty => terminal::print(&pretty()),
        Output::Json => terminal::print(&terminal::to_json(value)?),
        Output::Yaml => terminal::print(&to_yaml(value)),
    }
}

/// `tenon validate`.
pub fn validate(args: &ValidateArgs) -> Result<Exit, Failure> {
    let input = input::load(&args.files)?;
    let valid = !input.has_errors();
    let of = |severity: &'static str| -> Vec<Fault<'_>> {
        let faults = input.diagnostics.iter().map(Fault::new);
        faults.filter(|fault| fault.severity == severity).collect()
    };
    let documents: Vec<Value> = input
        .bundle
        .documents
        .iter()
        .map(|document| {
            json!({
                "kind": document.object.kind(),
                "name": document.name(),
                "file": document.source.name,
            })
        })
        .collect();
    let count = documents.len();
    let value = json!({
        "valid": valid,
        "documents": documents,
        "errors": of("error"),
        "warnings": of("warning"),
    });
    if count == 0 && valid {
        return Err(Failure::new(Exit::Usage, "nothing to validate: the files hold no document"));
    }
    if let Err(failure) = input::refuse(&input) {
        if args.output == Output::Pretty {
            return Err(failure);
        }
        terminal::remark(&failure.message);
    }
    let documents = if count == 1 { "document" } else { "documents" };
    answer(args.output, &value, || {
        let style = terminal::stdout_style();
        format!("{} {count} {documents}\n", style.paint(Paint::GOOD, "✓ valid:"))
    })?;
    Ok(if valid { Exit::Success } else { Exit::Validation })
}

/// `tenon list`.
pub fn list(args: &ListArgs) -> Result<Exit, Failure> {
    let bundle = input::load_valid(&args.files)?;
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for document in &bundle.documents {
        let (params, workspaces) = inputs(&document.object);
        let name = match (document.name(), document.object.metadata()) {
            ("", Some(metadata)) => format!("{}*", metadata.generate_name),
            (name, _) => name.to_owned(),
        };
        let mut detail: Vec<String> = params.iter().map(param_text).collect();
        detail.extend(workspaces.iter().map(|name| format!("-w {name}")));
        values.push(json!({
            "kind": document.object.kind(),
            "name": name,
            "file": document.source.name,
            "line": document.root.span.line,
            "params": params,
            "workspaces": workspaces,
        }));
        rows.push([document.object.kind().to_owned(), name, detail.join(" ")]);
    }
    answer(args.output, &values, || table(&["KIND", "NAME", "INPUTS"], &rows))?;
    Ok(Exit::Success)
}

fn param_text(param: &ParamSpec) -> String {
    match &param.default {
        None => format!("-p {}=<{}>", param.name, param.r#type),
        Some(ParamValue::String(text)) => format!("-p {}={text}", param.name),
        Some(value) => {
            let text = serde_json::to_string(value).unwrap_or_default();
            format!("-p {}={text}", param.name)
        }
    }
}

/// Declared params, and the names of declared workspaces.
fn inputs(object: &Object) -> (Vec<ParamSpec>, Vec<String>) {
    let (params, workspaces) = match object {
        Object::Task(task) => (
            &task.spec.params,
            task.spec.workspaces.iter().map(|declared| declared.name.clone()).collect(),
        ),
        Object::Pipeline(pipeline) => (
            &pipeline.spec.params,
            pipeline.spec.workspaces.iter().map(|declared| declared.name.clone()).collect(),
        ),
        Object::StepAction(action) => (&action.spec.params, Vec::new()),
        _ => return (Vec::new(), Vec::new()),
    };
    (params.clone(), workspaces)
}

/// A table as wide as the terminal at most; the last column gives way.
pub fn table<const N: usize>(heading: &[&str; N], rows: &[[String; N]]) -> String {
    let columns = terminal::size().columns;
    let style = terminal::stdout_style();
    let mut widths = heading.map(width);
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(cell)).min(48);
        }
    }
    let used: usize = widths[..N - 1].iter().map(|width| width + 2).sum();
    let rest = columns.saturating_sub(used).max(5);
    let line = |cells: [&str; N]| {
        let mut text = String::new();
        for (position, cell) in cells.into_iter().enumerate() {
            if position + 1 < N {
                text.push_str(&pad(cell, widths[position]));
                text.push_str("  ");
            } else {
                text.push_str(&truncate(cell, rest));
            }
        }
        text.truncate(text.trim_end().len());
        text
    };
    let mut out = style.paint(Paint::BOLD, &line(*heading)) + "\n";
    for row in rows {
        out.push_str(&line(std::array::from_fn(|position| row[position].as_str())));
        out.push('\n');
    }
    out
}

/// `tenon version`.
pub fn version(args: &VersionArgs) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let value = json!({
        "version": version,
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "tekton": "tekton.dev/v1",
    });
    answer(args.output, &value, || format!("tenon {version}\n"))?;
    Ok(Exit::Success)
}
