//! Lines of the event stream on their way to a reader, in pieces of bounded size.

use bytes::Bytes;

/// No message is much larger: packed output unfolds to many times its size.
const PIECE: usize = 1 << 20;

/// Lines that a reader gets at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// JSON objects, each with its line end.
    pub text: Bytes,
    /// Everything up to this `seq` was looked at.
    pub last_seq: u64,
}

impl Batch {
    /// Takes the first lines: as many as [`PIECE`] holds, at least one. `None` when there are none.
    pub fn split(&mut self) -> Option<Batch> {
        if self.text.is_empty() {
            return None;
        }
        let end = |text: &[u8]| text.iter().rposition(|byte| *byte == b'\n');
        let cut = match self.text.len() > PIECE {
            false => self.text.len(),
            true => match end(&self.text[..PIECE]) {
                Some(end) => end + 1,
                None => {
                    let first = self.text.iter().position(|byte| *byte == b'\n');
                    first.map_or(self.text.len(), |end| end + 1)
                }
            },
        };
        let text = self.text.split_to(cut);
        let last_seq = match self.text.is_empty() {
            true => self.last_seq,
            false => {
                let last = end(&text[..text.len() - 1]).map_or(0, |end| end + 1);
                seq_of(&text[last..]).unwrap_or_default()
            }
        };
        Some(Batch { text, last_seq })
    }
}

/// The `seq` of a line of the stream: it is the third key, after `kind` and `time`.
pub fn seq_of(line: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"seq\":";
    let at = line.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let digits = line[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&line[at..at + digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_split_between_lines() {
        let line = |seq: u64, bytes: usize| {
            let text = "x".repeat(bytes);
            format!("{{\"kind\":\"k\",\"time\":\"t\",\"seq\":{seq},\"line\":\"{text}\"}}\n")
        };
        let lines =
            [line(1, PIECE / 2), line(2, PIECE), line(3, 1), line(4, PIECE * 2), line(5, 1)];
        let mut rest = Batch { text: lines.concat().into(), last_seq: 9 };
        let mut pieces = Vec::new();
        while let Some(piece) = rest.split() {
            pieces.push((piece.text.len(), piece.last_seq));
        }
        let sizes: Vec<usize> = lines.iter().map(String::len).collect();
        let want = [(sizes[0], 1), (sizes[1], 2), (sizes[2], 3), (sizes[3], 4), (sizes[4], 9)];
        assert_eq!(pieces, want);
    }
}
