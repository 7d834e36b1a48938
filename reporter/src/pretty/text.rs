//! Text as a terminal shows it: widths, shortening, durations, and making foreign output harmless.

use std::borrow::Cow;

use unicode_width::UnicodeWidthStr;

/// Columns that `text` takes; it must hold no escape sequences.
pub fn width(text: &str) -> usize {
    text.width()
}

/// `text` in at most `columns` columns, with `…` where something is missing at the end.
pub fn truncate(text: &str, columns: usize) -> Cow<'_, str> {
    if text.width() <= columns {
        return Cow::Borrowed(text);
    }
    let mut short = String::new();
    for c in text.chars() {
        let length = short.len();
        short.push(c);
        // The width of a text is not the sum of its characters' widths.
        if short.width() + 1 > columns {
            short.truncate(length);
            break;
        }
    }
    if columns > 0 {
        short.push('…');
    }
    Cow::Owned(short)
}

/// `text` truncated and filled with blanks to exactly `columns` columns.
pub fn pad(text: &str, columns: usize) -> String {
    let text = truncate(text, columns);
    let blanks = columns.saturating_sub(text.width());
    format!("{text}{}", " ".repeat(blanks))
}

/// `text` as lines of at most `columns` columns; a word that is wider has a line of its own, whole.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for part in text.lines() {
        let mut line = String::new();
        for word in part.split_whitespace() {
            if !line.is_empty() && line.width() + 1 + word.width() > columns {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// The first line of `text`, so that one message never takes several rows of a table.
pub fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// A duration for people: `0.4s`, `12.3s`, `3m07s`, `2h05m`.
pub fn duration(millis: i64) -> String {
    let millis = millis.max(0);
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{}.{}s", seconds, millis % 1000 / 100),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// Bytes for people.
pub fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{} kB", count / 1_000),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.1} GB", count as f64 / 1e9),
    }
}

/// A line of step output that cannot move the cursor, clear the screen or set the title of the
/// terminal it is shown on. Colours stay if `color`. Of a line that was redrawn with carriage
/// returns (a progress bar) what was drawn last is left, as the terminal would show it.
pub fn harmless(line: &str, color: bool) -> Cow<'_, str> {
    if !line.bytes().any(|byte| byte < 0x20 && byte != b'\t' || byte == 0x7f)
        && !line.contains(|c: char| ('\u{80}'..'\u{a0}').contains(&c))
    {
        return Cow::Borrowed(line);
    }
    let line = line.trim_end_matches('\r');
    let line = line.rsplit('\r').next().unwrap_or_default();
    let mut out = String::with_capacity(line.len());
    let mut colored = false;
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\x1b' => {
                let (sequence, after) = rest.split_at(sequence_length(rest));
                rest = after;
                if color && sequence.starts_with('[') && sequence.ends_with('m') {
                    out.push('\x1b');
                    out.push_str(sequence);
                    colored = true;
                }
            }
            '\t' => out.push('\t'),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    if colored {
        out.push_str("\x1b[0m");
    }
    Cow::Owned(out)
}

/// Length of the escape sequence whose ESC stands just before `text`.
fn sequence_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    match bytes.first() {
        // CSI: parameters and intermediates, then one final byte.
        Some(b'[') => {
            let body = bytes[1..].iter().take_while(|byte| (0x20..0x40).contains(*byte)).count();
            let last = bytes.get(1 + body).is_some_and(|byte| (0x40..0x7f).contains(byte));
            1 + body + usize::from(last)
        }
        // OSC, DCS, APC, PM: up to BEL or ST, or the rest of the line.
        Some(b']' | b'P' | b'_' | b'^') => match text.find(['\x07', '\u{9c}']) {
            Some(end) => end + text[end..].chars().next().map_or(0, char::len_utf8),
            None => text.find("\x1b\\").map_or(text.len(), |end| end + 2),
        },
        Some(byte) if (0x20..0x7f).contains(byte) => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shortening() {
        for (text, columns, want) in [
            ("build", 5, "build"),
            ("build", 4, "bui…"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("abc", 1, "…"),
            ("abc", 0, ""),
        ] {
            assert_eq!(truncate(text, columns), want, "{text} in {columns}");
        }
        assert_eq!(pad("日", 4), "日  ");
    }

    #[test]
    fn wrapping() {
        assert_eq!(wrap("no agent has\nroom", 8), ["no agent", "has", "room"]);
        assert_eq!(wrap("a http://long:7070 b", 6), ["a", "http://long:7070", "b"]);
        assert!(wrap("", 5).is_empty());
    }

    #[test]
    fn durations() {
        for (millis, want) in [
            (-5, "0.0s"),
            (99, "0.0s"),
            (450, "0.4s"),
            (59_999, "59.9s"),
            (60_000, "1m00s"),
            (187_000, "3m07s"),
            (7_500_000, "2h05m"),
        ] {
            assert_eq!(duration(millis), want);
        }
    }

    #[test]
    fn foreign_output_is_tamed() {
        for (line, color, want) in [
            ("plain äöü", true, "plain äöü"),
            ("a\tb", true, "a\tb"),
            ("\x1b[31mred\x1b[0m", true, "\x1b[31mred\x1b[0m\x1b[0m"),
            ("\x1b[31mred", false, "red"),
            ("\x1b[2J\x1b[Hgone", true, "gone"),
            ("\x1b]0;title\x07text", true, "text"),
            ("\x1b]0;title\x1b\\text", true, "text"),
            ("10%\r50%\r100%\r", true, "100%"),
            ("bell\x07 \u{9b}31m", true, "bell 31m"),
            ("\x1b", true, ""),
            ("\x1b[", true, ""),
        ] {
            assert_eq!(harmless(line, color), want, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn only_colours_survive(line in "(?s)[\\x00-\\x7f\u{80}-\u{ff}]{0,40}") {
            let tame = harmless(&line, true);
            let bare = harmless(&line, false);
            prop_assert!(!bare.chars().any(|c| c.is_control() && c != '\t'), "{:?}", bare);
            for (at, _) in tame.match_indices('\x1b') {
                prop_assert!(tame[at + 1..].starts_with('['), "{:?}", tame);
            }
        }

        #[test]
        fn never_wider(text in ".{0,30}", columns in 0usize..20) {
            prop_assert!(width(&truncate(&text, columns)) <= columns);
        }
    }
}
