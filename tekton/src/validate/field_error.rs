//! Errors that name fields, as knative's `FieldError` does: a message, the paths it holds for, and
//! details.
//!
//! Rules return [`FieldErrors`] with paths relative to what they were given; whoever called them puts
//! its own field in front. At the end errors with one text are merged and everything is sorted, so
//! the order in which rules run never shows.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

/// One fault, and the fields it is found in.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct FieldError {
    /// Tekton's text.
    pub message: String,
    /// The fields, sorted, each once; may be empty.
    pub paths: Vec<String>,
    /// More about it, often empty.
    pub details: String,
    /// Where to point, if Tekton's paths do not say it or say it wrongly.
    pub(super) place: Option<String>,
    /// The words at that place that are at fault; empty: all of it.
    pub(super) subject: String,
}

impl fmt::Display for FieldError {
    /// `message: path, path`, then the details on a line of their own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.message, self.paths.join(", "))?;
        if !self.details.is_empty() {
            write!(f, "\n{}", self.details)?;
        }
        Ok(())
    }
}

impl FieldError {
    /// An error about one field; an empty path is the field that the caller is looking at.
    pub fn new(message: impl Into<String>, path: impl Into<String>) -> Self {
        FieldError { message: message.into(), paths: vec![path.into()], ..FieldError::default() }
    }

    /// An error about several fields at once, or about none.
    pub fn about<const N: usize>(message: impl Into<String>, paths: [&str; N]) -> Self {
        FieldError {
            message: message.into(),
            paths: paths.map(str::to_owned).to_vec(),
            ..FieldError::default()
        }
    }

    /// A required field is absent.
    pub fn missing(path: impl Into<String>) -> Self {
        FieldError::new("missing field(s)", path)
    }

    /// A field that may not be used.
    pub fn disallowed<const N: usize>(paths: [&str; N]) -> Self {
        FieldError::about("must not set the field(s)", paths)
    }

    /// A field with a wrong value; `value` may be a whole sentence.
    pub fn invalid(value: impl fmt::Display, path: impl Into<String>) -> Self {
        FieldError::new(format!("invalid value: {value}"), path)
    }

    /// None of a group of fields is set.
    pub fn missing_one_of<const N: usize>(paths: [&str; N]) -> Self {
        FieldError::about("expected exactly one, got neither", paths)
    }

    /// More than one of a group of fields is set, or one name is used twice.
    pub fn multiple_one_of<const N: usize>(paths: [&str; N]) -> Self {
        FieldError::about("expected exactly one, got both", paths)
    }

    /// The same error with details.
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The same error, to be shown at a field that its paths do not name.
    pub(super) fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// The same error, with the words to point at.
    pub(super) fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }
}

/// What a rule found; usually nothing, which costs nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct FieldErrors(Vec<FieldError>);

impl From<FieldError> for FieldErrors {
    fn from(error: FieldError) -> Self {
        FieldErrors(vec![error])
    }
}

impl From<Option<FieldError>> for FieldErrors {
    fn from(error: Option<FieldError>) -> Self {
        FieldErrors(error.into_iter().collect())
    }
}

impl FieldErrors {
    /// Adds what another rule found.
    pub(crate) fn also(&mut self, errors: impl Into<FieldErrors>) {
        self.0.append(&mut errors.into().0);
    }

    /// Whether nothing was found.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a field in front of all paths.
    pub(crate) fn via_field(mut self, field: &str) -> Self {
        for error in &mut self.0 {
            for path in error.paths.iter_mut().chain(&mut error.place) {
                *path = join(field, path);
            }
        }
        self
    }

    /// Says where to point for errors that do not say it yet, given the first of their paths.
    pub(crate) fn placed(mut self, place: impl Fn(&str) -> String) -> Self {
        for error in self.0.iter_mut().filter(|error| error.place.is_none()) {
            error.place = Some(place(error.paths.first().map_or("", String::as_str)));
        }
        self
    }

    /// Puts an index in front of all paths.
    pub(crate) fn via_index(self, index: usize) -> Self {
        if self.is_empty() { self } else { self.via_field(&format!("[{index}]")) }
    }

    /// Puts `field[index]` in front of all paths.
    pub(crate) fn via_field_index(self, field: &str, index: usize) -> Self {
        self.via_index(index).via_field(field)
    }

    /// Puts a key in brackets in front of all paths.
    pub(crate) fn via_key(self, key: &str) -> Self {
        if self.is_empty() { self } else { self.via_field(&format!("[{key}]")) }
    }

    /// Puts `field[key]` in front of all paths.
    pub(crate) fn via_field_key(self, field: &str, key: &str) -> Self {
        self.via_key(key).via_field(field)
    }

    /// The errors as they are shown: one for each text, with all its paths.
    pub(crate) fn into_merged(self) -> Vec<FieldError> {
        let mut by_text: BTreeMap<(String, String), FieldError> = BTreeMap::new();
        for mut error in self.0 {
            let text = (error.message.clone(), error.details.clone());
            match by_text.entry(text) {
                Entry::Vacant(place) => drop(place.insert(error)),
                Entry::Occupied(mut known) => known.get_mut().paths.append(&mut error.paths),
            }
        }
        let mut errors: Vec<FieldError> = by_text.into_values().collect();
        for error in &mut errors {
            error.paths.sort_unstable();
            error.paths.dedup();
        }
        errors
    }
}

/// Joins two paths at a dot; an index attaches to what stands before it, and empty parts vanish.
fn join(prefix: &str, path: &str) -> String {
    let mut joined = String::with_capacity(prefix.len() + path.len() + 1);
    for part in prefix.split('.').chain(path.split('.')).filter(|part| !part.is_empty()) {
        let is_index = part.starts_with('[') && part.ends_with(']');
        if !joined.is_empty() && !is_index {
            joined.push('.');
        }
        joined.push_str(part);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_paths_as_knative_does() {
        for (prefix, path, joined) in [
            ("spec", "", "spec"),
            ("", "name", "name"),
            ("steps", "[0].name", "steps[0].name"),
            ("[1]", "[0].name", "[1][0].name"),
            ("params", "[a]", "params[a]"),
            // A dotted key is taken apart: Tekton's own output has these.
            ("params", "[a.b]", "params.[a.b]"),
            ("matrix.include[0].params", "[1].name", "matrix.include[0].params[1].name"),
        ] {
            assert_eq!(join(prefix, path), joined);
        }
    }

    #[test]
    fn merges_and_sorts() {
        let mut errors = FieldErrors::default();
        errors.also(FieldErrors::from(FieldError::new("b", "z")).via_field("spec"));
        errors.also(FieldErrors::from(FieldError::new("b", "a")).via_field("spec"));
        errors.also(FieldErrors::from(FieldError::new("b", "a")).via_field("spec"));
        errors.also(FieldError::new("a", "q").details("why"));
        errors.also(FieldError::about("a", []));
        let shown: Vec<_> = errors.into_merged().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a: ", "a: q\nwhy", "b: spec.a, spec.z"]);
    }
}
