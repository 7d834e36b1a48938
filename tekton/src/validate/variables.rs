//! Variable references as Tekton's checks see them: `$(prefix.name)`, `$(prefix["name"])` and
//! `$(prefix['name'])` for one given prefix, and the questions asked about their names.
//!
//! Every question reads a text once, in time linear in its length, and allocates only to complain.
//! Substituting is another module's affair.

use std::borrow::Cow;

use super::field_error::FieldError;
use super::text::quote;

/// What stands between `$(` and the name: `params`, `context.pipelineRun`, `params.anObject`.
#[derive(Clone, Copy)]
pub(crate) struct Prefix<'p>(pub(crate) &'p str);

impl Prefix<'_> {
    /// As Tekton shows it: most of its dotted prefixes are written as regular expressions.
    fn shown(self) -> String {
        if self.0 == "step.results" { self.0.to_owned() } else { self.0.replace('.', "\\.") }
    }
}

/// Params, the prefix of most references.
pub(crate) const PARAMS: Prefix<'static> = Prefix("params");

/// One reference found in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference<'t> {
    /// All of it, from `$(` to `)`.
    pub(crate) whole: &'t str,
    /// What stands after the prefix, its dots and indices included.
    pub(crate) name: &'t str,
    /// Whether the name follows a dot, not in brackets and quotes.
    dotted: bool,
}

impl<'t> Reference<'t> {
    /// The variable's own name: what stands before the first dot, unless it is in quotes.
    fn variable(self) -> &'t str {
        match self.name.split_once('.') {
            Some((variable, _)) if self.dotted => variable,
            _ => self.name,
        }
    }

    fn has_too_many_dots(self) -> bool {
        self.dotted && self.name.bytes().filter(|&byte| byte == b'.').count() > 1
    }
}

/// Finds the references of a prefix in a text.
pub(crate) struct References<'t, 'p> {
    text: &'t str,
    prefix: &'p str,
    at: usize,
    /// End of the line that `at` is in: a reference never spans lines.
    line_end: usize,
    /// For each kind of ending, up to where it is known not to occur.
    barren: [usize; 3],
}

const DOTTED: usize = 0;
const ENDINGS: [&str; 3] = [")", "\"])", "'])"];

/// The references of a prefix in a text, in order.
pub(crate) fn references<'t, 'p>(text: &'t str, prefix: Prefix<'p>) -> References<'t, 'p> {
    References { text, prefix: prefix.0, at: 0, line_end: 0, barren: [0; 3] }
}

impl<'t> Iterator for References<'t, '_> {
    type Item = Reference<'t>;

    fn next(&mut self) -> Option<Reference<'t>> {
        loop {
            let start = self.at + self.text[self.at..].find("$(")?;
            self.at = start + 2;
            let Some(after) = self.text[self.at..].strip_prefix(self.prefix) else {
                continue;
            };
            let (kind, opening) = match after.as_bytes() {
                [b'.', ..] => (DOTTED, 1),
                [b'[', b'"', ..] => (1, 2),
                [b'[', b'\'', ..] => (2, 2),
                _ => continue,
            };
            let name_start = self.at + self.prefix.len() + opening;
            if name_start >= self.line_end {
                let rest = &self.text[name_start..];
                self.line_end = name_start + rest.find('\n').unwrap_or(rest.len());
            }
            if name_start < self.barren[kind] {
                continue;
            }
            let ending = ENDINGS[kind];
            let Some(length) = self.text[name_start..self.line_end].find(ending) else {
                self.barren[kind] = self.line_end;
                continue;
            };
            let name_end = name_start + length;
            self.at = name_end + ending.len();
            return Some(Reference {
                whole: &self.text[start..self.at],
                name: &self.text[name_start..name_end],
                dotted: kind == DOTTED,
            });
        }
    }
}

/// Whether any check could find something in this text.
pub(crate) fn has_references(text: &str) -> bool {
    text.contains("$(")
}

fn too_many_dots(text: &str, prefix: Prefix<'_>) -> Option<FieldError> {
    references(text, prefix).any(Reference::has_too_many_dots).then(|| {
        let shown = prefix.shown();
        FieldError::new(
            format!("Invalid referencing of parameters in \"{text}\"! Only two dot-separated components after the prefix \"{shown}\" are allowed."),
            "",
        )
    })
}

fn wrong_type(text: &str) -> FieldError {
    FieldError::new(format!("variable type invalid in {}", quote(text)), "")
}

fn without_star(name: &str) -> &str {
    name.strip_suffix("[*]").unwrap_or(name)
}

/// Removes every `[1]` and `[*]` of a name.
fn without_indices(name: &str) -> Cow<'_, str> {
    if !name.contains('[') {
        return Cow::Borrowed(name);
    }
    let mut kept = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(open) = rest.find('[') {
        let (before, bracket) = rest.split_at(open);
        kept.push_str(before);
        let inside = bracket[1..].trim_start_matches(|c: char| c.is_ascii_digit());
        let inside = inside.strip_prefix('*').unwrap_or(inside);
        rest = match inside.strip_prefix(']') {
            Some(after) => after,
            None => {
                kept.push('[');
                &bracket[1..]
            }
        };
    }
    kept.push_str(rest);
    Cow::Owned(kept)
}

/// Complains about the first reference whose variable is not known; `named` says which one it is.
pub(crate) fn unknown(
    text: &str,
    prefix: Prefix<'_>,
    named: bool,
    is_known: impl Fn(&str) -> bool,
) -> Option<FieldError> {
    too_many_dots(text, prefix).or_else(|| {
        references(text, prefix).find_map(|reference| {
            let variable = without_indices(reference.variable());
            if is_known(&variable) {
                return None;
            }
            let which = if named { format!(" `{variable}`") } else { String::new() };
            let message = format!("non-existent variable{which} in {}", quote(text));
            Some(FieldError::new(message, "").subject(reference.whole))
        })
    })
}

/// Complains about any reference to a prohibited variable, except to one element of it.
pub(crate) fn prohibited(
    text: &str,
    prefix: Prefix<'_>,
    is_prohibited: impl Fn(&str) -> bool,
) -> Option<FieldError> {
    too_many_dots(text, prefix).or_else(|| {
        references(text, prefix)
            .any(|reference| is_prohibited(without_star(reference.variable())))
            .then(|| wrong_type(text))
    })
}

/// Complains about a reference to all of a prohibited variable; its keys and elements are fine.
pub(crate) fn prohibited_whole(
    text: &str,
    prefix: Prefix<'_>,
    is_prohibited: impl Fn(&str) -> bool,
) -> Option<FieldError> {
    references(text, prefix)
        .any(|reference| is_prohibited(without_star(reference.name)))
        .then(|| wrong_type(text))
}

/// Complains about a reference to one of these variables that has other text around it.
pub(crate) fn not_isolated(
    text: &str,
    prefix: Prefix<'_>,
    must_be_isolated: impl Fn(&str) -> bool,
) -> Option<FieldError> {
    too_many_dots(text, prefix).or_else(|| {
        let first = references(text, prefix).next()?;
        let is_alone = first.whole.len() == text.len();
        let is_mixed = !is_alone
            && references(text, prefix)
                .any(|reference| must_be_isolated(without_star(reference.variable())));
        is_mixed.then(|| {
            let message = format!("variable is not properly isolated in {}", quote(text));
            FieldError::new(message, "")
        })
    })
}

/// Whether a text is nothing but a reference to all of a variable: `$(params.name[*])`.
pub(crate) fn is_isolated_whole(text: &str, prefix: Prefix<'_>) -> bool {
    references(text, prefix).next().is_some_and(|reference| {
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        reference.whole.len() == text.len()
            && reference.name.strip_suffix("[*]").is_some_and(is_name)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names<'t>(text: &'t str, prefix: &str) -> Vec<&'t str> {
        references(text, Prefix(prefix)).map(|reference| reference.name).collect()
    }

    fn text(error: Option<FieldError>) -> Option<String> {
        error.map(|error| error.message)
    }

    #[test]
    fn finds_references() {
        for (text, prefix, found) in [
            ("echo $(params.foo) $(params.bar[*])", "params", vec!["foo", "bar[*]"]),
            (r#"$(params["a.b"])$(params['c'])"#, "params", vec!["a.b", "c"]),
            ("$(params.foo\n)", "params", vec![]),
            ("$(params.)", "params", vec![""]),
            ("$(paramsx.foo) $(params)", "params", vec![]),
            ("$(context.pipelineRun.name)", "context.pipeline", vec![]),
            ("$(context.pipeline.name)", "context.pipeline", vec!["name"]),
            ("$(params.o.key) $(params.o2.key)", "params.o", vec!["key"]),
            ("$(params.a\n$(params.b)", "params", vec!["b"]),
            (r#"$(params["a"][0])"#, "params", vec![]),
        ] {
            assert_eq!(names(text, prefix), found, "{text}");
        }
    }

    #[test]
    fn unknown_variables() {
        let known = |name: &str| name == "known";
        for (value, message) in [
            ("$(params.known)", None),
            ("$(params.known[1]) $(params.known[*])", None),
            ("$(params.known.key)", None),
            ("x $(params.nope)", Some("non-existent variable in \"x $(params.nope)\"")),
            (
                "$(params.nope.b.c)",
                Some(
                    "Invalid referencing of parameters in \"$(params.nope.b.c)\"! Only two dot-separated components after the prefix \"params\" are allowed.",
                ),
            ),
        ] {
            assert_eq!(text(unknown(value, PARAMS, false, known)).as_deref(), message);
        }
        assert_eq!(
            text(unknown("$(params.nope)", PARAMS, true, known)).as_deref(),
            Some("non-existent variable `nope` in \"$(params.nope)\"")
        );
        assert_eq!(
            text(unknown("$(context.task.a.b.c)", Prefix("context.task"), false, known)).as_deref(),
            Some(
                "Invalid referencing of parameters in \"$(context.task.a.b.c)\"! Only two dot-separated components after the prefix \"context\\.task\" are allowed."
            )
        );
    }

    #[test]
    fn arrays_and_objects() {
        let array = |name: &str| name == "a";
        for (value, faulty) in [
            ("$(params.a)", true),
            ("$(params.a[*])", true),
            ("$(params.a[0])", false),
            ("$(params.b)", false),
        ] {
            assert_eq!(prohibited(value, PARAMS, array).is_some(), faulty, "{value}");
        }
        for (value, faulty) in
            [("$(params.a)", true), ("$(params.a[*])", true), ("$(params.a.key)", false)]
        {
            assert_eq!(prohibited_whole(value, PARAMS, array).is_some(), faulty, "{value}");
        }
        for (value, faulty) in [
            ("$(params.a[*])", false),
            ("$(params.a)", false),
            ("x $(params.a[*])", true),
            ("$(params.a[*])$(params.b)", true),
            ("$(params.a[0])x", false),
        ] {
            assert_eq!(not_isolated(value, PARAMS, array).is_some(), faulty, "{value}");
        }
        for (value, isolated) in [
            ("$(params.a[*])", true),
            ("$(params['a.b[*]'])", true),
            ("$(params.a)", false),
            (" $(params.a[*])", false),
        ] {
            assert_eq!(is_isolated_whole(value, PARAMS), isolated, "{value}");
        }
    }

    #[test]
    fn removes_indices() {
        for (name, bare) in [
            ("a", "a"),
            ("a[0]", "a"),
            ("a[*]", "a"),
            ("a[12][3]", "a"),
            ("a[]b", "ab"),
            ("a[x]", "a[x]"),
            ("a[1*]", "a"),
            ("a[", "a["),
        ] {
            assert_eq!(without_indices(name), bare);
        }
    }

    proptest! {
        #[test]
        fn every_reference_is_a_piece_of_the_text(
            text in r#"([$()."'\[\]*\n a-c]|params|\$\(params\.){0,40}"#
        ) {
            let mut end = 0;
            for reference in references(&text, PARAMS) {
                let start = reference.whole.as_ptr() as usize - text.as_ptr() as usize;
                prop_assert!(start >= end);
                end = start + reference.whole.len();
                prop_assert!(reference.whole.starts_with("$(params") && reference.whole.ends_with(')'));
                prop_assert!(!reference.whole.contains('\n'));
            }
        }
    }
}
