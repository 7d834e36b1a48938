//! From a line of the JSON contract back to what is stored: for whoever gets lines from elsewhere
//! and shows them as if the run's history were here.

use serde::Deserialize;
use tenon_engine::Time;
use tenon_journal::output::{ChunkBuilder, Stream};

use crate::history::Stored;

/// Where the keys of one line of output begin.
const OUTPUT: &[u8] = b",\"stream\":\"";

/// How lines of output begin.
const KINDS: [&[u8]; 2] = [b"{\"kind\":\"step-log\"", b"{\"kind\":\"sidecar-log\""];

/// The keys that a line of output has besides those of its event.
#[derive(Deserialize)]
struct Tail {
    stream: String,
    line: String,
    #[serde(default)]
    partial: bool,
}

/// Only the time of an event.
#[derive(Deserialize)]
struct At {
    time: Time,
}

/// Makes [`Stored`] events of lines, and keeps what makes that fast.
#[derive(Default)]
pub struct Restore {
    chunk: Option<ChunkBuilder>,
}

impl Restore {
    /// As it is: for showing it as the same line again.
    pub fn verbatim(line: &[u8]) -> Result<Stored, String> {
        stored(line, &[])
    }

    /// With step output packed again, as displays for people need it. The error says what is wrong
    /// with the line.
    pub fn event(&mut self, line: &[u8]) -> Result<Stored, String> {
        if !KINDS.iter().any(|kind| line.starts_with(kind)) {
            return stored(line, &[]);
        }
        // A quote inside a value has a backslash before it: this is surely the key.
        let Some(at) = line.windows(OUTPUT.len()).position(|window| window == OUTPUT) else {
            return stored(line, &[]);
        };
        let header = [&line[..at], b"}"].concat();
        let tail = [b"{", &line[at + 1..]].concat();
        let tail: Tail = serde_json::from_slice(&tail).map_err(|error| error.to_string())?;
        let At { time } = serde_json::from_slice(&header).map_err(|error| error.to_string())?;
        let stream = match tail.stream.as_str() {
            "stderr" | "sidecar-stderr" => Stream::Stderr,
            _ => Stream::Stdout,
        };
        let chunk = self.chunk.get_or_insert_default();
        chunk
            .push(time.0, stream, tail.partial, &tail.line)
            .map_err(|_| "a line that is too long".to_owned())?;
        let (_, packed) = chunk.finish();
        stored(&header, &packed)
    }
}

fn stored(header: &[u8], chunk: &[u8]) -> Result<Stored, String> {
    let length = u32::try_from(header.len()).map_err(|_| "a line that is too long".to_owned())?;
    Stored::new([&length.to_le_bytes(), header, chunk].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{chunk, event, stored as fixture};
    use crate::json::Lines;
    use tenon_engine::Kind;

    fn lines(stored: &Stored) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        Lines::new().write(stored, 0, &mut out).unwrap();
        let lines = out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn lines_of_output_come_back_byte_for_byte() {
        let mut log = event(Kind::StepLog, 10);
        log.step = Some("build \",\"stream\":\"".into());
        log.output = Some(chunk(&[
            (1_700_000_000_001, Stream::Stdout, false, "plain"),
            (1_700_000_000_999, Stream::Stderr, true, "a \"quoted\"\ttab ,\"stream\":\"x\""),
        ]));
        let mut restore = Restore::default();
        for line in lines(&fixture(&log)) {
            let restored = restore.event(&line).unwrap();
            assert!(!restored.chunk().is_empty());
            let verbatim = Restore::verbatim(&line).unwrap();
            assert_eq!(lines(&restored), lines(&verbatim));
            assert_eq!(lines(&verbatim), [line]);
        }
    }

    #[test]
    fn other_events_are_their_line() {
        let end = event(Kind::RunEnd, 3);
        let line = serde_json::to_vec(&end).unwrap();
        let restored = Restore::default().event(&line).unwrap();
        assert_eq!(restored.event().unwrap(), end);
        assert_eq!(lines(&restored), [line]);
    }

    #[test]
    fn nonsense_is_an_error() {
        for rest in [r#","stream":"stdout"}"#, r#","time":"now","stream":"stdout","line":""}"#] {
            let line = format!("{{\"kind\":\"step-log\"{rest}");
            assert!(Restore::default().event(line.as_bytes()).is_err(), "{line}");
        }
    }
}
