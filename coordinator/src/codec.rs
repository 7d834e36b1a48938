//! How a command is stored in the command log: a length, the command as JSON, then the bytes that
//! JSON would blow up (the packed lines of an output report).

use tenon_engine::{Command, Report};

/// A record that is not a command: written by another version, or not by Tenon.
#[derive(Debug, thiserror::Error)]
#[error("a record of the command log is not a command: {0}")]
pub struct Undecodable(String);

/// The record of a command.
pub fn encode(command: &Command) -> Vec<u8> {
    let json = serde_json::to_vec(command)
        .expect("a command has only string keys and finite numbers, so it is always valid JSON");
    let chunk = match command {
        Command::Report { report: Report::Output { chunk, .. }, .. } => chunk.as_slice(),
        _ => &[],
    };
    let mut record = Vec::with_capacity(4 + json.len() + chunk.len());
    let length = u32::try_from(json.len()).expect("a submission is limited to far below 4 GiB");
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&json);
    record.extend_from_slice(chunk);
    record
}

/// The command of a record.
pub fn decode(record: &[u8]) -> Result<Command, Undecodable> {
    let too_short = || Undecodable("it is too short".to_owned());
    let (length, rest) = record.split_first_chunk::<4>().ok_or_else(too_short)?;
    let (json, bytes) =
        rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(too_short)?;
    let mut command: Command =
        serde_json::from_slice(json).map_err(|error| Undecodable(error.to_string()))?;
    if let Command::Report { report: Report::Output { chunk, .. }, .. } = &mut command {
        *chunk = bytes.to_vec();
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use tenon_engine::{AttemptId, RunId, Time};

    use super::*;

    fn output(chunk: Vec<u8>) -> Command {
        Command::Report {
            time: Time(5),
            attempt: AttemptId {
                run: RunId::default(),
                task_run: "t".to_owned(),
                attempt: 1,
                placement: 1,
            },
            report: Report::Output {
                time: Time(4),
                container: "s".to_owned(),
                sidecar: false,
                lines: 2,
                chunk,
            },
        }
    }

    #[test]
    fn a_command_comes_back_as_it_went_in() {
        for command in [Command::Tick { time: Time(7) }, output(vec![0, 255, 1, 2]), output(vec![])]
        {
            assert_eq!(decode(&encode(&command)).unwrap(), command);
        }
    }

    #[test]
    fn what_is_not_a_command_is_refused() {
        for record in [&b""[..], b"abc", b"\xff\xff\xff\xffx", b"\x02\0\0\0{}"] {
            assert!(decode(record).is_err());
        }
    }
}
