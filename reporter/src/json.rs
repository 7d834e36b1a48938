//! Stored events as lines of the JSON contract.
//!
//! An event's header is its line, copied as it is. Packed step output is unfolded into one line for
//! each line of output: the header's keys, then `stream`, `line` and, where a line goes on in the
//! next one, `partial`. Since only stored bytes go in, live output and replay are the same bytes.

use tenon_journal::output::{self, Stream};

use crate::history::Stored;
use crate::stamp::Stamp;

/// Turns stored events into contract lines, and keeps what makes that fast.
#[derive(Debug, Default)]
pub struct Lines {
    stamp: Stamp,
}

/// The parts of a step-log's header between which the numbers of each line go.
struct Frame<'a> {
    /// `{"kind":"step-log","time":"`
    start: &'a str,
    seq: u64,
    run_seq: u64,
    /// From the comma after `runSeq` up to the closing brace, which is left out.
    rest: &'a str,
    sidecar: bool,
}

impl Lines {
    /// Makes an unfolder.
    pub fn new() -> Lines {
        Lines::default()
    }

    /// Appends the line or lines of `stored` to `out`, leaving out output up to and including the
    /// sequence number `since`. The error says what is wrong with the record.
    pub fn write(&mut self, stored: &Stored, since: u64, out: &mut Vec<u8>) -> Result<(), String> {
        if stored.chunk().is_empty() {
            out.extend_from_slice(stored.header());
            out.push(b'\n');
            return Ok(());
        }
        let header = std::str::from_utf8(stored.header()).map_err(|error| error.to_string())?;
        let frame = Frame::parse(header).ok_or("step output without the keys of step output")?;
        let chunk = output::unpack(stored.chunk()).map_err(|error| error.to_string())?;
        out.reserve(chunk.len() * (header.len() + 64) + stored.chunk().len());
        let mut number = itoa::Buffer::new();
        for (position, line) in (0..).zip(chunk.lines()) {
            let seq = frame.seq + position;
            if seq <= since {
                continue;
            }
            out.extend_from_slice(frame.start.as_bytes());
            self.stamp.write(line.time_ms, out);
            out.extend_from_slice(b"\",\"seq\":");
            out.extend_from_slice(number.format(seq).as_bytes());
            out.extend_from_slice(b",\"runSeq\":");
            out.extend_from_slice(number.format(frame.run_seq + position).as_bytes());
            out.extend_from_slice(frame.rest.as_bytes());
            out.extend_from_slice(match (frame.sidecar, line.stream) {
                (false, Stream::Stdout) => b",\"stream\":\"stdout\",\"line\":\"".as_slice(),
                (false, Stream::Stderr) => b",\"stream\":\"stderr\",\"line\":\"",
                (true, Stream::Stdout) => b",\"stream\":\"sidecar-stdout\",\"line\":\"",
                (true, Stream::Stderr) => b",\"stream\":\"sidecar-stderr\",\"line\":\"",
            });
            escape(line.text, out);
            out.extend_from_slice(match line.partial {
                false => b"\"}\n".as_slice(),
                true => b"\",\"partial\":true}\n",
            });
        }
        Ok(())
    }
}

impl<'a> Frame<'a> {
    /// Takes a header apart; `None` if it does not begin with `kind`, `time`, `seq`, `runSeq`.
    fn parse(header: &'a str) -> Option<Frame<'a>> {
        const TIME: &str = "\"time\":\"";
        let time = header.find(TIME)? + TIME.len();
        let start = &header[..time];
        let (_, after) = header[time..].split_once("\",\"seq\":")?;
        let (seq, after) = after.split_once(",\"runSeq\":")?;
        let digits = after.find(|c: char| !c.is_ascii_digit())?;
        Some(Frame {
            start,
            seq: seq.parse().ok()?,
            run_seq: after[..digits].parse().ok()?,
            rest: after[digits..].strip_suffix('}')?,
            sidecar: start.starts_with("{\"kind\":\"sidecar-log\""),
        })
    }
}

/// How each byte of a string is written: 0 as it is, `u` as `\u00XX`, else after a backslash.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Appends the inside of a JSON string, byte for byte as `serde_json` writes it.
pub fn escape(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (position, byte) in bytes.iter().enumerate() {
        let escape = ESCAPES[usize::from(*byte)];
        if escape == 0 {
            continue;
        }
        out.extend_from_slice(&bytes[copied..position]);
        copied = position + 1;
        if escape == b'u' {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
        } else {
            out.extend_from_slice(&[b'\\', escape]);
        }
    }
    out.extend_from_slice(&bytes[copied..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{chunk, event, stored};
    use proptest::prelude::*;
    use tenon_engine::Kind;
    use tenon_journal::output::Stream::{Stderr, Stdout};

    proptest! {
        #[test]
        fn escaping_equals_serde_json(text in "(?s).{0,60}") {
            let mut ours = vec![b'"'];
            escape(&text, &mut ours);
            ours.push(b'"');
            prop_assert_eq!(String::from_utf8(ours).unwrap(), serde_json::to_string(&text).unwrap());
        }
    }

    fn text(stored: &Stored, since: u64) -> String {
        let mut out = Vec::new();
        Lines::new().write(stored, since, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_is_its_header() {
        let mut start = event(Kind::StepStart, 7);
        start.step = Some("build".into());
        assert_eq!(
            text(&stored(&start), 0),
            format!("{}\n", serde_json::to_string(&start).unwrap())
        );
    }

    #[test]
    fn packed_output_is_one_line_each() {
        let mut log = event(Kind::StepLog, 10);
        log.step = Some("build".into());
        log.output = Some(chunk(&[
            (1_700_000_000_001, Stdout, false, "plain"),
            (1_700_000_000_999, Stderr, true, "a \"quoted\"\ttab \u{1b}[1m \u{2028}"),
            (1_700_000_001_000, Stderr, false, ""),
        ]));
        let common = r#""runId":"01HF7YAT00000000000000000A","namespace":"default","pipeline":"p","pipelineRun":"p-run","task":"t","taskRun":"p-run-t","attempt":1,"step":"build""#;
        let want = [
            format!(
                r#"{{"kind":"step-log","time":"2023-11-14T22:13:20.001Z","seq":10,"runSeq":10,{common},"stream":"stdout","line":"plain"}}"#
            ),
            format!(
                r#"{{"kind":"step-log","time":"2023-11-14T22:13:20.999Z","seq":11,"runSeq":11,{common},"stream":"stderr","line":"a \"quoted\"\ttab \u001b[1m {}","partial":true}}"#,
                '\u{2028}'
            ),
            format!(
                r#"{{"kind":"step-log","time":"2023-11-14T22:13:21.000Z","seq":12,"runSeq":12,{common},"stream":"stderr","line":""}}"#
            ),
        ];
        let stored = stored(&log);
        assert_eq!(text(&stored, 0), want.join("\n") + "\n");
        assert_eq!(text(&stored, 11), format!("{}\n", want[2]));
        assert_eq!(text(&stored, 12), "");
    }

    #[test]
    fn sidecars_have_streams_of_their_own() {
        let mut log = event(Kind::SidecarLog, 1);
        log.output = Some(chunk(&[(0, Stdout, false, "x"), (0, Stderr, false, "y")]));
        let text = text(&stored(&log), 0);
        assert!(text.contains(r#""stream":"sidecar-stdout","line":"x""#), "{text}");
        assert!(text.contains(r#""stream":"sidecar-stderr","line":"y""#), "{text}");
    }

    #[test]
    fn a_damaged_record_is_an_error_not_a_panic() {
        for (header, chunk) in [(&b"{}"[..], &b"x"[..]), (b"\xff", b"x"), (b"{\"time\":\"", b"")] {
            let mut record = (header.len() as u32).to_le_bytes().to_vec();
            record.extend_from_slice(header);
            record.extend_from_slice(chunk);
            let stored = Stored::new(record).unwrap();
            let result = Lines::new().write(&stored, 0, &mut Vec::new());
            assert_eq!(result.is_err(), !chunk.is_empty());
        }
    }
}
