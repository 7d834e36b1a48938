//! Keeps values of secrets out of output: finds them in any of the forms that programs print them
//! in, and puts `***` in their place.
//!
//! Forms: the value itself, its trimmed self, each of its lines, base64 at any alignment (both
//! alphabets), URL-escaped, JSON-escaped. Values and lines shorter than four bytes are not masked:
//! they would blank out innocent text.

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Shorter forms are not looked for.
const SHORTEST: usize = 4;
const STARS: &[u8] = b"***";

/// A set of values to mask. Cheap to share; has no `Debug`.
#[derive(Clone, Default)]
pub struct Masker {
    automaton: Option<AhoCorasick>,
    longest: usize,
    too_short: usize,
}

impl Masker {
    /// A masker for these values.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Masker {
        let mut forms = Vec::new();
        let mut too_short = 0;
        for value in values {
            let trimmed = value.trim_ascii();
            if trimmed.len() < SHORTEST {
                too_short += usize::from(!trimmed.is_empty());
                continue;
            }
            // Without the blanks around it, so that a mask does not swallow the end of a line.
            add_forms(&mut forms, trimmed);
            add_base64(&mut forms, value);
            if trimmed.contains(&b'\n') {
                for line in trimmed.split(|&byte| byte == b'\n') {
                    add_forms(&mut forms, line.trim_ascii());
                }
            }
        }
        forms.sort_unstable();
        forms.dedup();
        let longest = forms.iter().map(Vec::len).max().unwrap_or(0);
        let automaton = if forms.is_empty() {
            None
        } else {
            // Only too many patterns for its numbers can fail, and then nothing may be printed as is.
            let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&forms);
            Some(built.expect("fits because an attempt's secrets are far below 2^31 bytes"))
        };
        Masker { automaton, longest, too_short }
    }

    /// What to tell the user about values that were too short to be masked.
    pub fn warning(&self) -> Option<String> {
        let values = match self.too_short {
            0 => return None,
            1 => "a secret value is".to_owned(),
            count => format!("{count} secret values are"),
        };
        Some(format!("{values} shorter than {SHORTEST} characters and not masked in output"))
    }

    /// Length of the longest form; 0 when there is nothing to mask.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Appends `bytes` to `out` with every form replaced.
    pub fn mask_into(&self, bytes: &[u8], out: &mut Vec<u8>) {
        let Some(automaton) = &self.automaton else {
            out.extend_from_slice(bytes);
            return;
        };
        let mut done = 0;
        for found in automaton.find_iter(bytes) {
            out.extend_from_slice(&bytes[done..found.start()]);
            out.extend_from_slice(STARS);
            done = found.end();
        }
        out.extend_from_slice(&bytes[done..]);
    }

    /// The text with every form replaced.
    pub fn mask(&self, text: &str) -> String {
        if self.automaton.is_none() {
            return text.to_owned();
        }
        let mut out = Vec::with_capacity(text.len());
        self.mask_into(text.as_bytes(), &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// How much of `bytes` can be masked now when more will follow: whatever begins before that
    /// point ends inside `bytes`, and no match lies across it.
    pub fn safe_length(&self, bytes: &[u8]) -> usize {
        let Some(automaton) = &self.automaton else {
            return bytes.len();
        };
        let mut safe = bytes.len().saturating_sub(self.longest - 1);
        for found in automaton.find_iter(bytes) {
            if found.start() >= safe {
                break;
            }
            safe = safe.max(found.end());
        }
        safe
    }
}

fn add_forms(forms: &mut Vec<Vec<u8>>, value: &[u8]) {
    if value.len() < SHORTEST {
        return;
    }
    forms.push(value.to_vec());
    add_base64(forms, value);
    forms.push(url_escape(value, b"0123456789ABCDEF", false));
    forms.push(url_escape(value, b"0123456789abcdef", false));
    forms.push(url_escape(value, b"0123456789ABCDEF", true));
    if let Ok(text) = std::str::from_utf8(value) {
        let json = serde_json::Value::from(text).to_string();
        forms.push(json.as_bytes()[1..json.len() - 1].to_vec());
    }
}

fn add_base64(forms: &mut Vec<Vec<u8>>, value: &[u8]) {
    for alignment in 0..3 {
        let mut padded = vec![0; alignment];
        padded.extend_from_slice(value);
        // Characters that mix in bits of neighbouring bytes are not part of the form.
        let first = (alignment * 8).div_ceil(6);
        let last = padded.len() * 8 / 6;
        for encoded in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
            let form = &encoded.as_bytes()[first..last];
            if form.len() >= SHORTEST {
                forms.push(form.to_vec());
            }
        }
    }
}

fn url_escape(value: &[u8], digits: &[u8; 16], plus_for_space: bool) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(value.len());
    for &byte in value {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(byte);
        } else if byte == b' ' && plus_for_space {
            escaped.push(b'+');
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            escaped.extend([b'%', digits[high], digits[low]]);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn mask(secret: &str, text: &str) -> String {
        Masker::new([secret.as_bytes()]).mask(text)
    }

    #[test]
    fn every_form() {
        for (secret, text, expected) in [
            ("hunter22", "pw=hunter22.", "pw=***."),
            ("hunter22\n", "pw=hunter22.", "pw=***."),
            ("a b/c&d", "x=a%20b%2Fc%26d", "x=***"),
            ("a b/c&d", "x=a%20b%2fc%26d", "x=***"),
            ("a b/c&d", "x=a+b%2Fc%26d", "x=***"),
            ("say \"hi\"\\", r#"{"k":"say \"hi\"\\"}"#, r#"{"k":"***"}"#),
            ("line one\nline two", "line two", "***"),
            ("line one\nline two", "line one\nline two", "***"),
            ("abc", "abc", "abc"),
        ] {
            assert_eq!(mask(secret, text), expected, "{secret:?} in {text:?}");
        }
        let warning = Masker::new([&b"abc"[..], b"", b"abcd"]).warning();
        assert!(warning.is_some_and(|text| text.starts_with("a secret value is")));
    }

    proptest::proptest! {
        #[test]
        fn base64_at_any_alignment(
            before in proptest::collection::vec(0u8.., 0..6),
            secret in "[ -~]{6,40}",
            after in proptest::collection::vec(0u8.., 0..6),
        ) {
            let mut bytes = before;
            bytes.extend_from_slice(secret.as_bytes());
            bytes.extend_from_slice(&after);
            let encoded = STANDARD.encode(&bytes);
            let masked = Masker::new([secret.as_bytes()]).mask(&encoded);
            proptest::prop_assert!(masked.contains("***"), "{masked}");
            // What remains has fewer characters than would be needed to read the secret.
            proptest::prop_assert!(masked.len() < encoded.len() - secret.len() + 8);
        }

        #[test]
        fn cutting_where_it_is_safe_changes_nothing(
            text in "[ab]{0,60}",
            secrets in proptest::collection::vec("[ab]{4,9}", 1..4),
        ) {
            let masker = Masker::new(secrets.iter().map(|s| s.as_bytes()));
            for length in 0..=text.len() {
                let safe = masker.safe_length(&text.as_bytes()[..length]);
                let cut = masker.mask(&text[..safe]) + &masker.mask(&text[safe..]);
                proptest::prop_assert_eq!(cut, masker.mask(&text));
            }
        }
    }
}
