//! Reads a result file the way Tekton does: an array of strings, an object of strings, a string,
//! or else just its text.
//!
//! Not a general JSON reader: whatever is neither of these three (numbers, nested values, broken
//! text) stays text, so no recursion and no number parsing are needed.

use std::collections::BTreeMap;

/// The value of a step result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Array(Vec<String>),
    Object(BTreeMap<String, String>),
}

/// Never fails: what cannot be read as JSON is text.
pub fn read_result(bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes);
    match bytes.first() {
        Some(b'[') => {
            if let Some(array) = Parser::new(&text).whole(Parser::array) {
                return Value::Array(array);
            }
        }
        Some(b'{') => {
            if let Some(object) = Parser::new(&text).whole(Parser::object) {
                return Value::Object(object);
            }
        }
        _ => {
            if let Some(string) = Parser::new(&text).whole(Parser::string_or_null) {
                return Value::Text(string);
            }
        }
    }
    Value::Text(text.into_owned())
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    fn whole<T>(mut self, value: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let value = value(&mut self)?;
        self.space();
        self.rest.is_empty().then_some(value)
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Takes `token` after white space, if it is there.
    fn token(&mut self, token: &str) -> Option<()> {
        self.space();
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    fn array(&mut self) -> Option<Vec<String>> {
        let mut values = Vec::new();
        self.token("[")?;
        if self.token("]").is_some() {
            return Some(values);
        }
        loop {
            values.push(self.string_or_null()?);
            if self.token("]").is_some() {
                return Some(values);
            }
            self.token(",")?;
        }
    }

    fn object(&mut self) -> Option<BTreeMap<String, String>> {
        let mut values = BTreeMap::new();
        self.token("{")?;
        if self.token("}").is_some() {
            return Some(values);
        }
        loop {
            let key = self.string()?;
            self.token(":")?;
            let value = self.string_or_null()?;
            values.insert(key, value);
            if self.token("}").is_some() {
                return Some(values);
            }
            self.token(",")?;
        }
    }

    /// Go reads null into a string as nothing, which leaves it empty.
    fn string_or_null(&mut self) -> Option<String> {
        if self.token("null").is_some() { Some(String::new()) } else { self.string() }
    }

    fn string(&mut self) -> Option<String> {
        self.token("\"")?;
        let mut value = String::new();
        loop {
            let end = self.rest.find(|letter| letter == '"' || letter == '\\' || letter < ' ')?;
            value.push_str(&self.rest[..end]);
            let special = self.rest.as_bytes()[end];
            self.rest = &self.rest[end + 1..];
            match special {
                b'"' => return Some(value),
                b'\\' => value.push(self.escaped()?),
                _ => return None,
            }
        }
    }

    fn escaped(&mut self) -> Option<char> {
        let mut letters = self.rest.chars();
        let letter = letters.next()?;
        self.rest = letters.as_str();
        Some(match letter {
            '"' | '\\' | '/' => letter,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.four_digits()?;
                self.second_half(first)
            }
            _ => return None,
        })
    }

    fn four_digits(&mut self) -> Option<u32> {
        let digits =
            self.rest.get(..4).filter(|digits| digits.bytes().all(|d| d.is_ascii_hexdigit()))?;
        self.rest = &self.rest[4..];
        u32::from_str_radix(digits, 16).ok()
    }

    /// Joins a surrogate pair; half of one becomes U+FFFD.
    fn second_half(&mut self, first: u32) -> char {
        if let Some(letter) = char::from_u32(first) {
            return letter;
        }
        let before = self.rest;
        if (0xd800..0xdc00).contains(&first)
            && self.token("\\u").is_some()
            && let Some(second) = self.four_digits()
            && (0xdc00..0xe000).contains(&second)
            && let Some(letter) =
                char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
        {
            return letter;
        }
        self.rest = before;
        char::REPLACEMENT_CHARACTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value {
        Value::Text(value.into())
    }

    fn array(values: &[&str]) -> Value {
        Value::Array(values.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn results_are_read_as_tekton_reads_them() {
        let cases: &[(&[u8], Value)] = &[
            (b"", text("")),
            (b"plain\n", text("plain\n")),
            (b"\"quoted\"\n", text("quoted")),
            (b"\"unfinished", text("\"unfinished")),
            (b"null", text("")),
            (b"12", text("12")),
            (b"true", text("true")),
            (b"[]", array(&[])),
            (b"[\"a\", \"b\"]\n", array(&["a", "b"])),
            (b"[null]", array(&[""])),
            (b"[1]", text("[1]")),
            (b"[\"a\",]", text("[\"a\",]")),
            (b"[\"a\"] x", text("[\"a\"] x")),
            (b"[[\"a\"]]", text("[[\"a\"]]")),
            (b" [\"a\"]", text(" [\"a\"]")),
            (b"{\"k\": \"v\", \"k\": \"w\"}", Value::Object([("k".into(), "w".into())].into())),
            (b"{}", Value::Object(BTreeMap::new())),
            (b"{\"k\": 1}", text("{\"k\": 1}")),
            (b"{\"k\" \"v\"}", text("{\"k\" \"v\"}")),
            (
                br#"["\u00e4\n\/", "\ud83d\ude00", "\ud83d", "\ud83dx"]"#,
                array(&["ä\n/", "😀", "\u{fffd}", "\u{fffd}x"]),
            ),
            (br#"["\x"]"#, text(r#"["\x"]"#)),
            (b"[\"a\nb\"]", text("[\"a\nb\"]")),
            (b"a\xffb", text("a\u{fffd}b")),
        ];
        for (bytes, want) in cases {
            assert_eq!(&read_result(bytes), want, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn hostile_text_takes_no_recursion() {
        let deep = "[".repeat(1 << 20);
        assert_eq!(read_result(deep.as_bytes()), text(&deep));
    }
}
