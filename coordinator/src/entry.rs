//! The bytes of one log entry: a version, then any number of proposals.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | [`VERSION`] |
//! | 16 | [`RequestId`] of a proposal |
//! | 4 + 4 | lengths of its JSON and of its bytes, little-endian |
//! | … | the JSON of the [`Command`] without its bytes, then the bytes |
//!
//! Version rule: a member of release N reads what N-1 writes. A member that meets a version or a
//! command it does not know stops applying and says so, because going on would make it differ from
//! the others.

use crate::command::Command;

/// Version of the layout and of the commands.
pub const VERSION: u8 = 1;

/// Who waits for a proposal: the member, and a number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The member that proposed it.
    pub node: u64,
    /// Unique on this member, over restarts too.
    pub number: u64,
}

impl RequestId {
    /// As it travels.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.node.to_le_bytes());
        bytes[8..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    /// Out of what travelled; `None` if it is too short.
    pub fn from_bytes(bytes: &[u8]) -> Option<RequestId> {
        let (node, rest) = bytes.split_first_chunk::<8>()?;
        let number = rest.first_chunk::<8>()?;
        Some(RequestId { node: u64::from_le_bytes(*node), number: u64::from_le_bytes(*number) })
    }
}

/// Why an entry cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum Undecodable {
    /// Written by a newer release.
    #[error(
        "it has version {0} and this release knows versions up to {VERSION}: upgrade this node; \
         until then it does not go on, so that it cannot differ from the others"
    )]
    Version(u8),
    /// A command that this release does not know, or a damaged one.
    #[error(
        "a command of it is unknown to this release ({0}): upgrade this node; until then it does \
         not go on, so that it cannot differ from the others"
    )]
    Command(serde_json::Error),
    /// The bytes end too early.
    #[error("it ends in the middle of a proposal")]
    Short,
}

/// One proposal, encoded, ready to be put into an entry.
pub fn encode_proposal(id: RequestId, command: &Command) -> Vec<u8> {
    let bytes = command.bytes();
    let mut out = Vec::with_capacity(256 + bytes.len());
    out.extend_from_slice(&id.to_bytes());
    out.extend_from_slice(&[0; 8]);
    serde_json::to_writer(&mut out, command)
        .expect("writing JSON into memory, and a command has string keys only");
    let json = u32::try_from(out.len() - 24).unwrap_or(u32::MAX);
    out[16..20].copy_from_slice(&json.to_le_bytes());
    out[20..24].copy_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
    out
}

/// Puts proposals together into one entry.
pub fn join<'a>(proposals: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut entry = vec![VERSION];
    proposals.into_iter().for_each(|proposal| entry.extend_from_slice(proposal));
    entry
}

/// Takes an entry apart. All of it is understood before any of it may be applied.
pub fn decode(entry: &[u8]) -> Result<Vec<(RequestId, Command)>, Undecodable> {
    let (version, mut rest) = entry.split_first().ok_or(Undecodable::Short)?;
    if *version != VERSION {
        return Err(Undecodable::Version(*version));
    }
    let mut proposals = Vec::new();
    while !rest.is_empty() {
        let id = RequestId::from_bytes(rest).ok_or(Undecodable::Short)?;
        let lengths = rest.get(16..24).ok_or(Undecodable::Short)?;
        let length = |at: usize| {
            lengths[at..].first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
        };
        let (json, bytes) = (length(0), length(4));
        let end = 24usize.checked_add(json).ok_or(Undecodable::Short)?;
        let text = rest.get(24..end).ok_or(Undecodable::Short)?;
        let last = end.checked_add(bytes).ok_or(Undecodable::Short)?;
        let tail = rest.get(end..last).ok_or(Undecodable::Short)?;
        let mut command: Command = serde_json::from_slice(text).map_err(Undecodable::Command)?;
        if !tail.is_empty() {
            command.set_bytes(tail.to_vec());
        }
        proposals.push((id, command));
        rest = &rest[last..];
    }
    Ok(proposals)
}

#[cfg(test)]
mod tests {
    use tenon_engine::{AttemptId, Report, RunId, Time};

    use super::*;

    fn output(chunk: Vec<u8>) -> Command {
        Command::Report {
            time: Time(3),
            agent: "a".to_owned(),
            incarnation: "i".to_owned(),
            number: 7,
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
    fn proposals_come_back_as_they_went_in() {
        let commands =
            [Command::Tick { time: Time(7) }, output(vec![0, 255, 1, 2]), output(vec![])];
        let encoded: Vec<Vec<u8>> = (0..)
            .zip(&commands)
            .map(|(number, command)| encode_proposal(RequestId { node: 3, number }, command))
            .collect();
        let decoded = decode(&join(encoded.iter().map(Vec::as_slice))).unwrap();
        let ids: Vec<u64> = decoded.iter().map(|(id, _)| id.number).collect();
        assert_eq!(ids, [0, 1, 2]);
        assert_eq!(decoded.into_iter().map(|(_, command)| command).collect::<Vec<_>>(), commands);
    }

    #[test]
    fn what_is_not_an_entry_is_refused() {
        let good = encode_proposal(RequestId { node: 1, number: 1 }, &output(vec![1, 2, 3]));
        let entry = join([good.as_slice()]);
        for end in 2..entry.len() {
            assert!(decode(&entry[..end]).is_err(), "cut at {end}");
        }
        assert!(decode(&[]).is_err());
        assert!(matches!(decode(&[VERSION + 1]), Err(Undecodable::Version(_))));
        let mut unknown = good;
        let text = String::from_utf8_lossy(&unknown[24..]).replace("Report", "Strange");
        unknown.truncate(24);
        unknown[16..20].copy_from_slice(&(text.len() as u32 - 3).to_le_bytes());
        unknown.extend_from_slice(&text.as_bytes()[..text.len()]);
        assert!(decode(&join([unknown.as_slice()])).is_err());
    }
}
