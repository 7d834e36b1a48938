//! The kubelet's `$(VAR)` expansion of commands, arguments and values of variables.
//!
//! `$(NAME)` becomes the variable's value, or stays as it is when there is none; `$$` becomes `$`,
//! so `$$(NAME)` is the way to write `$(NAME)`. What was replaced is not looked at again.

/// Expands one text. `lookup` gives a variable's value.
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            expanded.push('$');
            rest = tail;
        } else if let Some(tail) = after.strip_prefix('(') {
            match tail.split_once(')') {
                Some((name, tail)) => {
                    match lookup(name) {
                        Some(value) => expanded.push_str(value),
                        None => expanded.extend(["$(", name, ")"]),
                    }
                    rest = tail;
                }
                None => {
                    expanded.push_str("$(");
                    rest = tail;
                }
            }
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_kubelet_does() {
        let lookup = |name: &str| match name {
            "A" => Some("a"),
            "B" => Some("$(A)"),
            "" => Some("empty"),
            _ => None,
        };
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "a"),
            ("x$(A)y$(A)", "xaya"),
            ("$(B)", "$(A)"),
            ("$(C)", "$(C)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$$", "$"),
            ("$$$$", "$$"),
            ("$", "$"),
            ("$A ${A}", "$A ${A}"),
            ("$(A", "$(A"),
            ("$(A $(A)", "$(A $(A)"),
            ("$()", "empty"),
            ("ä$ö$(A)", "ä$öa"),
        ] {
            assert_eq!(expand(text, lookup), expected, "{text}");
        }
    }
}
