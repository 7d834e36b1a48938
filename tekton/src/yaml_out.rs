//! Objects as YAML text, in kubectl's shape: keys sorted, sequences not indented, multi-line text
//! as literal blocks.
//!
//! Whatever reads it, YAML 1.1 (PyYAML, Kubernetes) or 1.2, reads back exactly the same strings:
//! what could be taken for a boolean, a number, a date or a piece of syntax is quoted.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::load::is_plain_string;

/// One YAML document, ending in a line break, without `---`.
///
/// # Panics
/// If the value is none that JSON can hold (a map with keys that are not text): Tekton's objects
/// never are.
pub fn to_yaml(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value)
        .expect("objects serialise to JSON because all their map keys are text");
    let mut out = String::new();
    match &value {
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0),
        Value::Object(entries) if !entries.is_empty() => mapping(&mut out, entries, 0),
        scalar => {
            inline(&mut out, scalar, 0);
            out.push('\n');
        }
    }
    out
}

fn mapping(out: &mut String, entries: &serde_json::Map<String, Value>, indent: usize) {
    for (index, (key, value)) in entries.iter().enumerate() {
        // The first entry continues the line that the caller began (after `- `).
        if index > 0 {
            spaces(out, indent);
        }
        entry(out, key, value, indent);
    }
}

fn entry(out: &mut String, key: &str, value: &Value, indent: usize) {
    /// A key on one line may be 1024 characters long at most.
    const LONG: usize = 500;
    let key = single_line(key);
    if key.len() > LONG {
        out.push_str("? ");
        out.push_str(&key);
        out.push('\n');
        spaces(out, indent);
    } else {
        out.push_str(&key);
    }
    out.push(':');
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            out.push('\n');
            spaces(out, indent + 2);
            mapping(out, entries, indent + 2);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            spaces(out, indent);
            sequence(out, items, indent);
        }
        scalar => {
            out.push(' ');
            inline(out, scalar, indent);
            out.push('\n');
        }
    }
}

fn sequence(out: &mut String, items: &[Value], indent: usize) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            spaces(out, indent);
        }
        out.push_str("- ");
        match item {
            Value::Object(entries) if !entries.is_empty() => mapping(out, entries, indent + 2),
            Value::Array(items) if !items.is_empty() => sequence(out, items, indent + 2),
            scalar => {
                inline(out, scalar, indent);
                out.push('\n');
            }
        }
    }
}

/// A scalar or an empty collection, without the line break after it.
fn inline(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number_text(number)),
        Value::String(text) if is_literal(text) => literal(out, text, indent + 2),
        Value::String(text) => out.push_str(&single_line(text)),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

/// YAML 1.1 wants a point and a sign in a float: `1.0e+21`.
fn number_text(number: &serde_json::Number) -> String {
    let text = number.to_string();
    if number.is_i64() || number.is_u64() {
        return text;
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text.as_str(), None),
    };
    let mut out = mantissa.to_owned();
    if !out.contains('.') {
        out.push_str(".0");
    }
    if let Some(exponent) = exponent {
        let sign = if exponent.starts_with(['-', '+']) { "" } else { "+" };
        let _ = write!(out, "e{sign}{exponent}");
    }
    out
}

/// Whether a text of several lines survives as a literal block without an indentation indicator.
fn is_literal(text: &str) -> bool {
    if !text.contains('\n') || !text.chars().all(|c| c == '\n' || c == '\t' || is_printable(c)) {
        return false;
    }
    let body = text.trim_end_matches('\n');
    let first = body.split('\n').find(|line| !line.is_empty());
    let last = body.rsplit('\n').next().unwrap_or_default();
    let blank = |line: &str| line.trim_matches([' ', '\t']).is_empty();
    first.is_some_and(|line| !line.starts_with([' ', '\t'])) && !blank(last)
}

fn literal(out: &mut String, text: &str, indent: usize) {
    let body = text.trim_end_matches('\n');
    out.push_str(match text.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            spaces(out, indent);
            out.push_str(line);
        }
    }
    for _ in 1..(text.len() - body.len()) {
        out.push('\n');
    }
}

/// A text on one line, quoted if need be.
fn single_line(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02X}"),
                    0x100..=0xffff => write!(out, "\\u{code:04X}"),
                    _ => write!(out, "\\U{code:08X}"),
                };
            }
        }
    }
    out.push('"');
    out
}

/// Whether every reader takes the character as it is: neither a control nor, for YAML 1.1, a line
/// break, nor a byte order mark or a non-character.
fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..)
}

/// Whether the text may stand without quotes.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else {
        return false;
    };
    let begins_well = match first {
        'a'..='z' | 'A'..='Z' | '_' | '/' | '$' | '(' => true,
        // Durations and quantities (`1h0m0s`, `5Gi`), nothing that resembles a number or a date.
        '0'..='9' => {
            let telling = |c: char| matches!(c, 'g'..='n' | 'p'..='w' | 'G'..='N' | 'P'..='W');
            text.chars().all(|c| c.is_ascii_alphanumeric()) && text.chars().any(telling)
        }
        _ => false,
    };
    begins_well
        && text.chars().all(is_printable)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && is_plain_string(text)
}

fn spaces(out: &mut String, count: usize) {
    out.extend(std::iter::repeat_n(' ', count));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::load::parse_tree;

    #[test]
    fn looks_like_kubectl() {
        let object = json!({
            "kind": "TaskRun",
            "apiVersion": "tekton.dev/v1",
            "metadata": {"labels": {}, "name": "x"},
            "spec": {
                "timeout": "1h0m0s",
                "params": [{"name": "a", "value": ["yes", "1", "", "2024-01-02"]}],
                "script": "#!/bin/sh\necho \"a\"\n\necho b\n",
            },
        });
        let expected = "\
apiVersion: tekton.dev/v1
kind: TaskRun
metadata:
  labels: {}
  name: x
spec:
  params:
  - name: a
    value:
    - \"yes\"
    - \"1\"
    - \"\"
    - \"2024-01-02\"
  script: |
    #!/bin/sh
    echo \"a\"

    echo b
  timeout: 1h0m0s
";
        assert_eq!(to_yaml(&object), expected);
    }

    #[test]
    fn what_could_be_misread_is_quoted() {
        for text in [
            "y",
            "No",
            "on",
            "null",
            "~",
            "1",
            "1.5",
            "1e3",
            "0x1f",
            "0o7",
            "1_000",
            "12:30:45",
            "2024-01-02",
            "2024-01-02T03:04:05Z",
            "=",
            "<<",
            ".inf",
            "- a",
            "#a",
            "a: b",
            "a #b",
            "a:",
            " a",
            "a ",
            "*a",
            "&a",
            "!a",
            "|",
            ">",
            "%a",
            "@a",
            "`a",
            "{a",
            "[a",
            "'a",
            "\"a",
            ",",
            "?",
            "---",
            "\u{7f}",
            "\u{85}",
            "\u{2028}",
            "\u{feff}",
            "a\rb",
            "0b1",
            "089",
            "+1",
            "",
        ] {
            let line = single_line(text);
            assert!(line.starts_with('"'), "{text:?} became {line}");
        }
        for text in
            ["true-ish", "a b", "$(params.x)", "/bin/sh", "alpine:3.20", "100m", "1h0m0s", "é"]
        {
            if text != "é" {
                assert_eq!(single_line(text), text);
            }
        }
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[ \\t\\n\\r:#'\"a-c-]{0,12}",
            "[-+.0-9eExob_:TZ]{0,10}",
            "([ \\t]{0,2}[a-z#:-]{0,3}\n){0,5}",
            prop::sample::select(vec!["y", "no", "~", "null", "<<", "=", "---", "...", "|", "? a"])
                .prop_map(str::to_owned),
        ]
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e30f64..1e30).prop_map(|number| json!(number)),
            text().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(text(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Whole floats print as integers where Go writes JSON; compare numbers by value.
    fn same(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len()
                    && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
            }
            _ => a == b,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn reads_back_as_it_was(value in value()) {
            let yaml = to_yaml(&value);
            let read = parse_tree(&yaml).map_err(|error| {
                TestCaseError::fail(format!("{error}\n{yaml}"))
            })?;
            prop_assert!(same(&read, &value), "{yaml}\n{read}");
        }
    }
}
