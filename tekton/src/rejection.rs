//! Why a run cannot go on: Tekton's reason and message for the `Succeeded` condition.
//!
//! The reason is one of Tekton's own names and never changes; the message is Tekton's text, word for word.

/// A run or task that Tekton would mark `Succeeded=False` while reconciling.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// Tekton's reason, e.g. `ParameterMissing` or `TaskRunValidationFailed`.
    pub reason: &'static str,
    /// Tekton's message for the condition.
    pub message: String,
}

impl Rejection {
    /// A rejection with Tekton's reason and message.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Rejection { reason, message: message.into() }
    }

    /// Likewise, with the mark that Tekton puts on what only the user can mend.
    pub fn user(reason: &'static str, message: impl std::fmt::Display) -> Self {
        Rejection { reason, message: format!("[User error] {message}") }
    }

    /// The stable code: Tekton's reason.
    pub fn code(&self) -> &'static str {
        self.reason
    }
}

/// Prints a list as Go's `%v` does: `[a b]`.
pub(crate) fn go_list<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    let mut text = String::from("[");
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            text.push(' ');
        }
        text.push_str(item.as_ref());
    }
    text.push(']');
    text
}

/// Prints a map of lists as Go's `%v` does: `map[a:[x y] b:[z]]`.
pub(crate) fn go_map(map: &std::collections::BTreeMap<String, Vec<String>>) -> String {
    let entries: Vec<String> =
        map.iter().map(|(key, items)| format!("{key}:{}", go_list(items))).collect();
    format!("map{}", go_list(entries))
}
