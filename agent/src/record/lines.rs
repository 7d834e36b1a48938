//! From the bytes of one output stream to masked lines.
//!
//! Lines end at `\n`, which is dropped; `\r` stays. A line over 64 KiB comes in parts, all but the
//! last marked partial. What is not UTF-8 becomes U+FFFD. Memory is bounded by one frame, one part
//! and the longest secret, whatever the command prints.

use std::collections::VecDeque;

use super::mark::Pending;
use crate::mask::Masker;

/// Longest part of a line, bytes.
pub const LONGEST_LINE: usize = 64 << 10;

/// Where bytes of output are in the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// Offset of their frame.
    pub frame: u64,
    /// The first of them, among the frame's.
    pub byte: u32,
}

impl At {
    fn plus(self, bytes: usize) -> At {
        At { byte: self.byte.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX)), ..self }
    }
}

/// Splits one stream.
#[derive(Default)]
pub struct Lines {
    /// What has come after the last newline.
    pending: Vec<u8>,
    /// Where its pieces come from, and how long they are.
    places: VecDeque<(At, usize)>,
    /// When its first byte came.
    pending_since: i64,
    /// The line has already come out in part.
    continued: bool,
    masked: Vec<u8>,
}

impl Lines {
    /// What has come after the last newline, by where it is in the record.
    pub fn pending(&self) -> Pending {
        let first = self.places.front();
        Pending {
            frame: first.map(|(at, _)| at.frame),
            byte: first.map_or(0, |(at, _)| at.byte),
            since_ms: self.pending_since,
            continued: self.continued,
        }
    }

    /// Goes on as another one stood; what it had [`Lines::pending`] is to be given by
    /// [`Lines::restore`].
    pub fn resume(&mut self, pending: &Pending) {
        self.pending_since = pending.since_ms;
        self.continued = pending.continued;
    }

    /// Takes bytes that had come before, and gives nothing of them.
    pub fn restore(&mut self, at: At, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.places.push_back((at, bytes.len()));
            self.pending.extend_from_slice(bytes);
        }
    }

    /// Takes bytes read at `time_ms`, which are `at` that place; gives each line, its time, and
    /// whether it goes on.
    pub fn push(
        &mut self,
        masker: &Masker,
        time_ms: i64,
        at: At,
        bytes: &[u8],
        mut line: impl FnMut(i64, bool, &str),
    ) {
        let Some(end) = bytes.iter().rposition(|&byte| byte == b'\n') else {
            self.keep(time_ms, at, bytes);
            self.give_parts(masker, &mut line);
            return;
        };
        let (whole, rest) = bytes.split_at(end + 1);
        self.masked.clear();
        if self.pending.is_empty() {
            masker.mask_into(whole, &mut self.masked);
            self.pending_since = time_ms;
        } else {
            self.pending.extend_from_slice(whole);
            masker.mask_into(&self.pending, &mut self.masked);
            self.pending.clear();
            self.places.clear();
        }
        self.give_lines(time_ms, &mut line);
        if !rest.is_empty() {
            self.keep(time_ms, at.plus(end + 1), rest);
        }
    }

    /// No more will come: gives a last line that has no newline.
    pub fn finish(&mut self, masker: &Masker, mut line: impl FnMut(i64, bool, &str)) {
        if self.pending.is_empty() && !self.continued {
            return;
        }
        self.masked.clear();
        masker.mask_into(&self.pending, &mut self.masked);
        self.pending.clear();
        self.places.clear();
        self.masked.push(b'\n');
        self.give_lines(self.pending_since, &mut line);
    }

    /// The other stream is about to print: what stands here without a newline came first, so it is
    /// given now, as a part. What a secret may begin in is kept.
    pub fn interrupt(&mut self, masker: &Masker, mut line: impl FnMut(i64, bool, &str)) {
        let safe = char_boundary(&self.pending, masker.safe_length(&self.pending));
        if safe == 0 {
            return;
        }
        self.masked.clear();
        masker.mask_into(&self.pending[..safe], &mut self.masked);
        line(self.pending_since, true, &String::from_utf8_lossy(&self.masked));
        self.continued = true;
        self.drop_first(safe);
    }

    fn keep(&mut self, time_ms: i64, at: At, bytes: &[u8]) {
        if self.pending.is_empty() {
            self.pending_since = time_ms;
        }
        self.restore(at, bytes);
    }

    fn drop_first(&mut self, mut count: usize) {
        self.pending.drain(..count);
        while let Some((at, length)) = self.places.front_mut() {
            if count < *length {
                *at = at.plus(count);
                *length -= count;
                return;
            }
            count -= *length;
            self.places.pop_front();
        }
    }

    /// Gives what is in `masked`, which ends with a newline (or with a mask that swallowed it).
    fn give_lines(&mut self, time_ms: i64, line: &mut impl FnMut(i64, bool, &str)) {
        let masked = std::mem::take(&mut self.masked);
        let text = masked.strip_suffix(b"\n").unwrap_or(&masked);
        let mut time = self.pending_since;
        for one in text.split(|&byte| byte == b'\n') {
            let mut rest = one;
            while rest.len() > LONGEST_LINE {
                let (part, after) = rest.split_at(char_boundary(rest, LONGEST_LINE));
                line(time, true, &String::from_utf8_lossy(part));
                rest = after;
            }
            line(time, false, &String::from_utf8_lossy(rest));
            time = time_ms;
        }
        self.continued = false;
        self.masked = masked;
    }

    /// Gives parts of a line that is already too long, and keeps what a secret may still begin in.
    fn give_parts(&mut self, masker: &Masker, line: &mut impl FnMut(i64, bool, &str)) {
        while self.pending.len() > LONGEST_LINE + masker.longest() {
            let safe = masker.safe_length(&self.pending).max(1);
            let cut = char_boundary(&self.pending, safe);
            self.masked.clear();
            masker.mask_into(&self.pending[..cut], &mut self.masked);
            let masked = std::mem::take(&mut self.masked);
            let mut rest = &masked[..];
            while !rest.is_empty() {
                let end = char_boundary(rest, LONGEST_LINE.min(rest.len()));
                let (part, after) = rest.split_at(end);
                line(self.pending_since, true, &String::from_utf8_lossy(part));
                rest = after;
            }
            self.masked = masked;
            self.continued = true;
            self.drop_first(cut);
        }
    }
}

/// The last place at or before `at` that does not cut a UTF-8 character.
fn char_boundary(bytes: &[u8], at: usize) -> usize {
    if at >= bytes.len() {
        return bytes.len();
    }
    let is_boundary = |index: &usize| (bytes[*index] as i8) >= -0x40;
    (at.saturating_sub(3)..=at).rev().find(is_boundary).filter(|&index| index > 0).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(masker: &Masker, chunks: &[&[u8]]) -> Vec<(i64, bool, String)> {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for (time, chunk) in chunks.iter().enumerate() {
            lines.push(masker, time as i64, At::default(), chunk, |time, partial, text| {
                seen.push((time, partial, text.to_owned()));
            });
        }
        lines.finish(masker, |time, partial, text| {
            seen.push((time, partial, text.to_owned()));
        });
        seen
    }

    fn texts(masker: &Masker, chunks: &[&[u8]]) -> Vec<String> {
        let lines = split(masker, chunks);
        lines.into_iter().map(|(_, _, text)| text).collect()
    }

    #[test]
    fn an_interrupted_line_comes_in_parts_and_keeps_what_may_begin_a_secret() {
        for (secrets, parts) in [
            (Masker::default(), vec![(true, "doing it hun"), (false, "ter2 done")]),
            (Masker::new([&b"hunter2"[..]]), vec![(true, "doin"), (false, "g it *** done")]),
        ] {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            let mut see = |_, partial, text: &str| seen.push((partial, text.to_owned()));
            lines.push(&secrets, 1, At::default(), b"doing it hun", &mut see);
            lines.interrupt(&secrets, &mut see);
            lines.push(&secrets, 2, At::default(), b"ter2 done\n", &mut see);
            let parts: Vec<_> =
                parts.into_iter().map(|(partial, text)| (partial, text.to_owned())).collect();
            assert_eq!(seen, parts);
        }
    }

    #[test]
    fn lines() {
        let none = Masker::default();
        assert_eq!(
            split(&none, &[b"a\nb", b"c\r\n\n", b"last"]),
            [
                (0, false, "a".to_owned()),
                (0, false, "bc\r".to_owned()),
                (1, false, String::new()),
                (2, false, "last".to_owned()),
            ]
        );
        assert_eq!(texts(&none, &[b"\xff\xfe\n"]), ["\u{fffd}\u{fffd}"]);
        assert_eq!(texts(&none, &[]), Vec::<String>::new());
        assert_eq!(texts(&none, &["ä".as_bytes().split_at(1).0, b"\xa4\n"]), ["ä"]);
    }

    #[test]
    fn a_long_line_comes_in_parts() {
        let masker = Masker::new([&b"secret-value"[..]]);
        let mut text = "ö".repeat(500_000);
        text.push_str("secret-value");
        text.push_str(&"x".repeat(100_000));
        let chunks: Vec<&[u8]> = text.as_bytes().chunks(65_536).collect();
        for end in ["", "\n"] {
            let mut chunks = chunks.clone();
            chunks.push(end.as_bytes());
            let lines = split(&masker, &chunks);
            let whole: String = lines.iter().map(|(_, _, text)| text.as_str()).collect();
            assert_eq!(whole, text.replace("secret-value", "***"));
            let (last, others) = lines.split_last().unwrap();
            assert!(!last.1 && others.iter().all(|line| line.1));
            assert!(lines.iter().all(|line| line.2.len() <= LONGEST_LINE));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_cut_lets_a_secret_through(
            before in "[a-c\n]{0,20}",
            after in "[a-c\n]{0,20}",
            cuts in proptest::collection::vec(0usize..60, 0..6),
        ) {
            let secret = "s3cr3t-v4lue";
            let masker = Masker::new([secret.as_bytes()]);
            let text = format!("{before}{secret}{after}");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &text.as_bytes()[w[0]..w[1]]).collect();
            let joined = texts(&masker, &chunks).join("\n");
            let expected = text.replace(secret, "***");
            proptest::prop_assert_eq!(joined, expected.strip_suffix('\n').unwrap_or(&expected));
        }
    }
}
