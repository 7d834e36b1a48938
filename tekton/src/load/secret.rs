//! Where a text holds a Secret, no diagnostic may quote it (invariant 9): not its line, and not what
//! a message of the YAML parser repeats of it.
//!
//! Looks at the text and not at the tree, because what has a fault often has no tree. It would
//! rather hide too much: a whole document counts as secret, from one `---` to the next.

/// A kind with its tag, anchor and quotes is not longer.
const LONGEST: usize = 64;

/// Whether the document around byte `at` is a Secret, or a list that holds one.
pub(super) fn is_secret(text: &str, at: usize) -> bool {
    let document = document_around(text, at);
    document.match_indices(['k', 'K']).any(|(at, _)| {
        let Some((word, rest)) = document[at..].split_at_checked(4) else { return false };
        word.eq_ignore_ascii_case("kind") && names_secret(rest)
    })
}

/// The text between the `---` lines around `at`.
fn document_around(text: &str, at: usize) -> &str {
    let (mut start, mut end) = (0, text.len());
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        let is_border = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if is_border {
            if line_start <= at {
                start = line_start;
            } else {
                end = line_start;
                break;
            }
        }
        line_start += line.len();
    }
    &text[start..end]
}

/// Whether what follows the word `kind` says that it is Secret: `: Secret`, `": "Secret"`, …
fn names_secret(rest: &str) -> bool {
    let rest = rest.trim_start_matches(['"', '\'', ' ', '\t']);
    let Some(value) = rest.strip_prefix(':') else { return false };
    let value: String = value.trim_start().chars().take(LONGEST).collect();
    let value = value.split(['\n', ',', '}']).next().unwrap_or_default();
    value.split(|c: char| !c.is_alphanumeric()).any(|word| word == "Secret")
}

/// A message without what it quotes of the text.
pub(super) fn without_quotes(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(at) = rest.find(['`', '\'', '"']) {
        let (before, quoted) = rest.split_at(at);
        let (quote, quoted) = quoted.split_at(1);
        out.push_str(before);
        let Some(end) = quoted.rfind(quote) else {
            return out + "***";
        };
        out.push_str("***");
        rest = &quoted[end + 1..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_secret_from_border_to_border() {
        let text = "kind: Task\na: 1\n--- # next\ndata: {b: 2}\nkind: Secret\n---\nkind: ConfigMap\nc: 3\n";
        for (place, secret) in [("a: 1", false), ("b: 2", true), ("c: 3", false)] {
            assert_eq!(is_secret(text, text.find(place).unwrap()), secret, "{place}");
        }
        assert!(!is_secret("", 0) && !is_secret("kind", 4));
    }

    #[test]
    fn however_the_kind_is_written() {
        for secret in [
            "kind: Secret",
            "Kind : 'Secret'",
            "{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"data\":{",
            "{\"kind\":\n  \"Secret\"",
            "kind: !!str Secret # x",
            "kind: List\nitems:\n- kind: Secret",
        ] {
            assert!(is_secret(secret, 0), "{secret}");
        }
        for plain in [
            "kind: SecretX",
            "kind: Task\nname: Secret",
            "{\"kind\":\"Task\",\"a\":\"Secret\"}",
            "kind:\n",
        ] {
            assert!(!is_secret(plain, 0), "{plain}");
        }
    }

    #[test]
    fn quotes_are_left_out() {
        for (message, expected) in [
            ("cannot decode !!str `pa`ss` as a !!int", "cannot decode !!str *** as a !!int"),
            ("unknown anchor 'pass", "unknown anchor ***"),
            ("nothing quoted", "nothing quoted"),
        ] {
            assert_eq!(without_quotes(message), expected);
        }
    }
}
