//! `$(steps.S.results.R)`, `[i]`, `[*]` and `.key` in a step's environment, `when` and command,
//! filled in from the files that earlier steps left.
//!
//! As in Tekton an error here does not stop the step: it is logged, and what was not replaced by
//! then stays as it is.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tenon_entrypoint::When;

use super::json::{Value, read_result};

/// Where the results of earlier steps are.
pub struct StepResults<'a> {
    pub steps_dir: &'a Path,
}

/// What a reference stands for: one text, or all elements of an array.
#[derive(Debug, PartialEq, Eq)]
enum Replacement {
    Text(String),
    Array(Vec<String>),
}

impl StepResults<'_> {
    /// Replaces in place, in Tekton's order: environment, `when`, command.
    pub fn apply(
        &self,
        env: &mut BTreeMap<OsString, OsString>,
        when: &mut [When],
        argv: &mut Vec<String>,
    ) -> Result<(), String> {
        for value in env.values_mut() {
            if let Some(text) = value.to_str().filter(|text| text.contains("$(steps.")) {
                *value = self.text(text)?.into();
            }
        }
        for when in when {
            when.values = self.list(&when.values)?;
            when.input = self.text(&when.input)?;
            when.cel = self.text(&when.cel)?;
        }
        *argv = self.list(argv)?;
        Ok(())
    }

    /// References inside a text; an array stands for nothing there.
    fn text(&self, text: &str) -> Result<String, String> {
        let mut replaced = text.to_owned();
        for reference in references(text) {
            let value = match self.look_up(reference)? {
                Replacement::Text(value) => value,
                Replacement::Array(_) => String::new(),
            };
            replaced = replaced.replace(reference, &value);
        }
        Ok(replaced)
    }

    /// References inside a list of texts, where an element that is a whole array becomes its elements.
    fn list(&self, texts: &[String]) -> Result<Vec<String>, String> {
        let mut replaced = Vec::with_capacity(texts.len());
        for text in texts {
            let mut current = vec![text.clone()];
            for reference in references(text) {
                match self.look_up(reference)? {
                    Replacement::Array(values) if !values.is_empty() => {
                        if text != reference {
                            return Err("value must be in \"$(steps.<step-name>.results.<result-name>[*])\" format, \
                                        when using array results"
                                .to_owned());
                        }
                        current = values;
                    }
                    Replacement::Array(_) => current = vec![current[0].replace(reference, "")],
                    Replacement::Text(value) => {
                        current = vec![current[0].replace(reference, &value)];
                    }
                }
            }
            replaced.append(&mut current);
        }
        Ok(replaced)
    }

    fn look_up(&self, reference: &str) -> Result<Replacement, String> {
        let wrong = || format!("failed to find replacement for {reference}");
        let inner =
            reference.strip_prefix("$(").and_then(|r| r.strip_suffix(')')).ok_or_else(wrong)?;
        let parts: Vec<&str> = inner.split('.').collect();
        let (step, result, key) = match parts[..] {
            ["steps", step, "results", result] => (step, result, None),
            ["steps", step, "results", result, key] => (step, result, Some(key)),
            _ => return Err(wrong()),
        };
        let (result, index) = match (key, split_index(result)) {
            (None, Some((result, index))) => (result, Some(index)),
            _ => (result, None),
        };
        let file = self.steps_dir.join(format!("step-{step}")).join("results").join(result);
        let bytes = std::fs::read(&file).map_err(|error| {
            format!("{}: open {}: {}", wrong(), file.display(), crate::sys::describe(&error))
        })?;
        let value = read_result(&bytes);
        match (value, key, index) {
            (Value::Object(mut object), Some(key), _) => {
                Ok(Replacement::Text(object.remove(key).unwrap_or_default()))
            }
            (Value::Array(array), None, Some("*")) => Ok(Replacement::Array(array)),
            (Value::Array(mut array), None, Some(index)) => {
                let index: usize = index.parse().map_err(|_| wrong())?;
                if index >= array.len() {
                    return Err(format!("{}: it has only {} elements", wrong(), array.len()));
                }
                Ok(Replacement::Text(array.swap_remove(index)))
            }
            (Value::Text(text), None, None) => Ok(Replacement::Text(text)),
            // The value has another type than the reference says: nothing, as in Tekton.
            _ => Ok(Replacement::Text(String::new())),
        }
    }
}

/// `name[3]` or `name[*]` in two parts.
fn split_index(result: &str) -> Option<(&str, &str)> {
    let (name, index) = result.strip_suffix(']')?.rsplit_once('[')?;
    let digits = !index.is_empty() && index.bytes().all(|digit| digit.is_ascii_digit());
    (index == "*" || digits).then_some((name, index))
}

/// All references in a text, each as it stands there.
fn references(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = text[from..].find("$(steps.").map(|at| from + at) {
        from = start + "$(steps.".len();
        let line_end = text[from..].find('\n').map_or(text.len(), |at| from + at);
        let line = &text[start..line_end];
        let Some(results) = line.find(".results.") else {
            continue;
        };
        let Some(close) = line[results..].find(')') else {
            continue;
        };
        let end = start + results + close + 1;
        found.push(&text[start..end]);
        from = end;
    }
    found
}

/// Whether a name or value could hold a reference at all; most steps have none.
pub fn mentions_step_results(text: &OsStr) -> bool {
    text.as_bytes().windows(8).any(|window| window == b"$(steps.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_entrypoint::WhenOperator;

    fn steps() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let results = directory.path().join("step-a/results");
        std::fs::create_dir_all(&results).unwrap();
        for (name, contents) in [
            ("text", "x y\n"),
            ("list", "[\"1\",\"two words\"]"),
            ("none", "[]"),
            ("object", "{\"k\":\"v\"}"),
            ("quoted", "\"q\""),
        ] {
            std::fs::write(results.join(name), contents).unwrap();
        }
        directory
    }

    #[test]
    fn arguments_are_replaced_as_tekton_does() {
        let directory = steps();
        let results = StepResults { steps_dir: directory.path() };
        let cases: &[(&str, &[&str])] = &[
            ("plain $(x) $(steps.a.path)", &["plain $(x) $(steps.a.path)"]),
            ("$(steps.a.results.text)", &["x y\n"]),
            ("<$(steps.a.results.text)|$(steps.a.results.quoted)>", &["<x y\n|q>"]),
            ("$(steps.a.results.list[*])", &["1", "two words"]),
            ("$(steps.a.results.list[1])!", &["two words!"]),
            ("$(steps.a.results.none[*])", &[""]),
            ("$(steps.a.results.object.k)", &["v"]),
            ("$(steps.a.results.object.other)", &[""]),
            ("$(steps.a.results.list)", &[""]),
            ("$(steps.a.results.text[0])", &[""]),
        ];
        for (given, want) in cases {
            let given = ["sh".to_owned(), (*given).to_owned()];
            let got = results.list(&given).unwrap();
            assert_eq!(&got[1..], *want, "{}", given[1]);
        }
    }

    #[test]
    fn what_cannot_be_replaced_is_an_error() {
        let directory = steps();
        let results = StepResults { steps_dir: directory.path() };
        for (given, want) in [
            ("$(steps.a.results.absent)", "no such file or directory"),
            ("$(steps.b.results.text)", "no such file or directory"),
            ("$(steps.a.results.list[2])", "it has only 2 elements"),
            ("x$(steps.a.results.list[*])", "value must be in"),
            ("$(steps.a.results.object.k.deeper)", "failed to find replacement"),
        ] {
            let error = results.list(&[given.to_owned()]).unwrap_err();
            assert!(error.contains(want), "{given}: {error}");
        }
    }

    #[test]
    fn environment_and_when_are_replaced_too() {
        let directory = steps();
        let results = StepResults { steps_dir: directory.path() };
        let mut env = BTreeMap::from([
            ("L".into(), "len=$(steps.a.results.text)".into()),
            ("K".into(), "k".into()),
        ]);
        let mut when = [When {
            input: "$(steps.a.results.quoted)".into(),
            operator: WhenOperator::In,
            values: vec!["$(steps.a.results.list[*])".into(), "q".into()],
            cel: String::new(),
        }];
        let mut argv = vec!["echo".to_owned()];
        results.apply(&mut env, &mut when, &mut argv).unwrap();
        assert_eq!(env[OsStr::new("L")], "len=x y\n");
        assert_eq!(when[0].input, "q");
        assert_eq!(when[0].values, ["1", "two words", "q"]);
        assert_eq!(argv, ["echo"]);
    }

    #[test]
    fn references_end_at_their_line() {
        assert_eq!(references("a $(steps.a.results.b) $(steps.c.results.d[*])").len(), 2);
        assert!(references("$(steps.a\n.results.b)").is_empty());
        assert!(references("$(steps.a.results.b").is_empty());
    }
}
