//! Texts as Go prints them inside Tekton's messages: quoted strings, lists, clean paths.

use std::borrow::Cow;
use std::fmt::Write;

/// Go's `%q`: double quotes, escapes, and nothing unprintable.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            c if is_print(c) => quoted.push(c),
            c if (c as u32) < 0x80 => push_hex(&mut quoted, "\\x", c, 2),
            c if (c as u32) < 0x1_0000 => push_hex(&mut quoted, "\\u", c, 4),
            c => push_hex(&mut quoted, "\\U", c, 8),
        }
    }
    quoted.push('"');
    quoted
}

fn push_hex(text: &mut String, escape: &str, c: char, width: usize) {
    write!(text, "{escape}{:0width$x}", c as u32).expect("writing to a String cannot fail");
}

/// Go's `unicode.IsPrint`, as far as control, space, format and private characters go.
fn is_print(c: char) -> bool {
    let is_format = matches!(c,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0001}'..='\u{e007f}');
    let is_private = matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}');
    c == ' ' || !(c.is_control() || c.is_whitespace() || is_format || is_private)
}

/// Go's `%v` of a list of strings: `[a b]`.
pub(crate) fn list<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let items: Vec<&str> = items.into_iter().collect();
    format!("[{}]", items.join(" "))
}

/// Go's `filepath.Clean`: no doubled or trailing slashes, no `.` and no `..` that can be resolved.
pub(crate) fn clean_path(path: &str) -> Cow<'_, str> {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => drop(parts.pop()),
                _ if rooted => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    let cleaned = match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    };
    if cleaned == path { Cow::Borrowed(path) } else { Cow::Owned(cleaned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        for (text, quoted) in [
            ("a \"b\" \\", r#""a \"b\" \\""#),
            ("a\n\tb\r", r#""a\n\tb\r""#),
            ("ünï ✓ 🎉", "\"ünï ✓ 🎉\""),
            ("\u{0}\u{1b}\u{7f}", r#""\x00\x1b\x7f""#),
            ("a\u{a0}b\u{feff}", r#""a\u00a0b\ufeff""#),
        ] {
            assert_eq!(quote(text), quoted);
        }
    }

    #[test]
    fn cleans_paths_as_go_does() {
        for (path, cleaned) in [
            ("", "."),
            ("/", "/"),
            ("/tekton/", "/tekton"),
            ("/tekton//x/../y/.", "/tekton/y"),
            ("/../a", "/a"),
            ("a/../../b", "../b"),
        ] {
            assert_eq!(clean_path(path), cleaned);
        }
    }
}
