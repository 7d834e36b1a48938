//! From Tekton's errors to places in the text, with a guess at what was meant.

use super::field_error::FieldError;
use super::validate_document;
use crate::flags::FeatureFlags;
use crate::load::{Diagnostic, Document, Node, Span, Value, nearest};

/// The most errors that are told of one document; who has more mends these first.
const MOST_ERRORS: usize = 100;

/// Validates documents, each by itself; the errors are located, in the order of the documents.
pub fn check<'a>(
    documents: impl IntoIterator<Item = &'a Document>,
    flags: &FeatureFlags,
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for document in documents {
        let errors = validate_document(document, flags);
        let more = errors.len().saturating_sub(MOST_ERRORS);
        let told = errors.into_iter().take(MOST_ERRORS);
        found.extend(told.map(|error| locate(document, error)));
        if more > 0 {
            let message = format!("{more} more errors in this document");
            found.push(document.diagnostic("validate/more", message, ""));
        }
    }
    found
}

fn locate(document: &Document, error: FieldError) -> Diagnostic {
    let FieldError { message, paths, details, place, subject } = error;
    let code = code(&message);
    let place = place.as_ref().or(paths.first());
    let place = place.map(|path| without_repeated_places(path)).unwrap_or_default();
    let mut diagnostic = document.diagnostic(code, message, place);
    diagnostic.path = paths.join(", ");
    diagnostic.details = details;
    if !subject.is_empty() {
        let text = &document.source.text;
        diagnostic.span = find(text, diagnostic.span, &subject).unwrap_or(diagnostic.span);
        diagnostic.help = suggestion(&document.root, &subject);
    }
    diagnostic
}

/// The stable code of an error, by the beginning of Tekton's text.
fn code(message: &str) -> &'static str {
    const CODES: [(&str, &str); 8] = [
        ("missing field(s)", "validate/missing-field"),
        ("must not set the field(s)", "validate/disallowed-field"),
        ("expected exactly one", "validate/one-of"),
        ("non-existent variable", "validate/unknown-variable"),
        ("variable ", "validate/variable-use"),
        ("feature flag ", "validate/feature-flag"),
        ("invalid value: couldn't add link", "validate/unknown-task"),
        ("invalid value: cycle detected", "validate/cycle"),
    ];
    let known = CODES.iter().find(|(beginning, _)| message.starts_with(beginning));
    match known {
        Some((_, code)) => code,
        None if message.contains("\"enable-api-fields\" feature gate") => "validate/feature-flag",
        None => "validate/invalid",
    }
}

/// `steps[1].steps[0].script` is a habit of Tekton's: the last place is where the fault is.
fn without_repeated_places(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('.') {
        if part.starts_with("steps[") && kept.last().is_some_and(|last| last.starts_with("steps["))
        {
            kept.pop();
        }
        kept.push(part);
    }
    kept.join(".")
}

/// Where in the text, from `around` on, the subject stands as a word of its own.
fn find(text: &str, around: Span, subject: &str) -> Option<Span> {
    let start = usize::try_from(around.start).ok()?;
    let rest = text.get(start..)?;
    let is_part_of_word = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    let at = rest.match_indices(subject).map(|(at, _)| at).find(|&at| {
        !rest[..at].ends_with(is_part_of_word)
            && !rest[at + subject.len()..].starts_with(is_part_of_word)
    })?;
    let before = &text[..start + at];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let skipped_lines = rest[..at].bytes().filter(|&byte| byte == b'\n').count();
    Some(Span {
        start: u32::try_from(start + at).ok()?,
        end: u32::try_from(start + at + subject.len()).ok()?,
        line: around.line + u32::try_from(skipped_lines).ok()?,
        column: u32::try_from(before[line_start..].chars().count()).ok()? + 1,
    })
}

/// The nearest name in the document: of its params for a reference to one, of its tasks for a task.
fn suggestion(root: &Node, subject: &str) -> Option<String> {
    let mut names = Vec::new();
    let meant = match subject.strip_prefix("$(params") {
        Some(reference) => {
            let wanted =
                reference.trim_matches(|c| matches!(c, '.' | '[' | ']' | '"' | '\'' | ')'));
            let wanted = wanted.split(['.', '[']).next().unwrap_or_default();
            collect_names(root, &["params"], &mut names);
            names.retain(|name| *name != wanted);
            nearest(wanted, names.into_iter())
        }
        None if subject.starts_with("$(") => None,
        None => {
            collect_names(root, &["tasks"], &mut names);
            nearest(subject, names.into_iter())
        }
    };
    meant.map(|meant| format!("did you mean `{meant}`?"))
}

/// The `name`s of all items of lists under one of these keys, anywhere in the document.
fn collect_names<'n>(node: &'n Node, keys: &[&str], names: &mut Vec<&'n str>) {
    match &node.value {
        Value::Seq(items) => items.iter().for_each(|item| collect_names(item, keys, names)),
        Value::Map(entries) => {
            for entry in entries {
                if keys.contains(&&*entry.key) {
                    let items = entry.value.as_seq().unwrap_or_default();
                    names.extend(items.iter().filter_map(|item| item.get("name")?.as_str()));
                }
                collect_names(&entry.value, keys, names);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::load::{Source, load};

    fn rendered(text: &str) -> Vec<String> {
        let flags = FeatureFlags::default();
        let source = Source { name: "p.yaml".to_owned(), text: Arc::from(text) };
        let loaded = load(&[source], &flags);
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        let found = check(&loaded.bundle.documents, &flags);
        found
            .iter()
            .map(|it| format!("{}:{} {} {:?}", it.span.line, it.span.column, it.text(), it.help))
            .collect()
    }

    #[test]
    fn points_at_the_reference() {
        let text = "\
apiVersion: tekton.dev/v1
kind: Task
metadata: {name: t}
spec:
  params:
    - name: message
  steps:
    - image: x
      script: |
        set -e
        echo $(params.mesage)
    - image: x
";
        assert_eq!(
            rendered(text),
            [
                "11:14 non-existent variable in \"set -e\\necho $(params.mesage)\\n\": spec.steps[0].script Some(\"did you mean `message`?\")"
            ]
        );
    }

    #[test]
    fn points_at_the_missing_task() {
        let text = "\
apiVersion: tekton.dev/v1
kind: Pipeline
metadata: {name: p}
spec:
  tasks:
    - name: build
      taskRef: {name: t}
    - name: test
      runAfter: [biuld]
      taskRef: {name: t}
";
        assert_eq!(
            rendered(text),
            [
                "9:18 invalid value: couldn't add link between test and biuld: task test depends on biuld but biuld wasn't present in Pipeline: spec.tasks Some(\"did you mean `build`?\")"
            ]
        );
    }

    #[test]
    fn points_where_tekton_names_no_field() {
        let text = "\
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: p}
spec:
  pipelineSpec:
    tasks:
      - name: a
        taskSpec:
          steps:
            - image: x
              stdoutConfig: {path: /x}
              script: echo $(params.nope)
";
        assert_eq!(
            rendered(text),
            [
                "12:28 non-existent variable in \"echo $(params.nope)\": spec.steps[0].script None",
                "11:15 step stdout stream support requires \"enable-api-fields\" feature gate to be \"alpha\" but it is \"beta\" None",
            ]
        );
    }

    #[test]
    fn tells_a_bounded_number_of_errors() {
        let steps = "    - {}\n".repeat(MOST_ERRORS * 2);
        let names: String = (0..MOST_ERRORS * 2)
            .map(|index| format!("    - {{image: x, script: {index} $(params.nope)}}\n"))
            .collect();
        let text = format!(
            "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {{name: t}}\nspec:\n  steps:\n{steps}{names}"
        );
        let found = rendered(&text);
        assert_eq!(found.len(), MOST_ERRORS + 1);
        assert_eq!(found[MOST_ERRORS], "1:1 101 more errors in this document None");
    }

    #[test]
    fn places() {
        assert_eq!(
            without_repeated_places("spec.steps[2].steps[1].steps[0].script"),
            "spec.steps[0].script"
        );
        assert_eq!(
            without_repeated_places("spec.tasks[0].steps[1].script"),
            "spec.tasks[0].steps[1].script"
        );
    }
}
