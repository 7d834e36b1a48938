//! How the log is written into a journal. A record is a tag byte and fixed fields, little endian.
//!
//! Later records override earlier ones: an entry drops all entries at its index and above, a hard state replaces the one before.
//! *Reset* says that the log begins anew after a place, and *compacted* that it is needed only after a place.

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, HardState};

use crate::Position;

const ENTRY: u8 = 1;
const HARD_STATE: u8 = 2;
const RESET: u8 = 3;
const COMPACTED: u8 = 4;

/// A record of the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    Entry(Entry),
    HardState(HardState),
    Reset(Position),
    Compacted(Position),
}

/// The bytes of an entry's record.
pub(crate) fn entry(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(22 + entry.context.len() + entry.data.len());
    bytes.push(ENTRY);
    bytes.extend_from_slice(&entry.index.to_le_bytes());
    bytes.extend_from_slice(&entry.term.to_le_bytes());
    bytes.push(entry.entry_type as u8);
    bytes.extend_from_slice(&(entry.context.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&entry.context);
    bytes.extend_from_slice(&entry.data);
    bytes
}

/// The bytes of a hard state's record.
pub(crate) fn hard_state(state: &HardState) -> Vec<u8> {
    numbers(HARD_STATE, &[state.term, state.vote, state.commit])
}

/// The bytes of a reset's record.
pub(crate) fn reset(after: Position) -> Vec<u8> {
    numbers(RESET, &[after.index, after.term])
}

/// The bytes of a compaction's record.
pub(crate) fn compacted(up_to: Position) -> Vec<u8> {
    numbers(COMPACTED, &[up_to.index, up_to.term])
}

fn numbers(tag: u8, numbers: &[u64]) -> Vec<u8> {
    let mut bytes = vec![tag];
    numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
    bytes
}

/// Reads a record; says what is wrong with it if it is none.
pub(crate) fn decode(bytes: &[u8]) -> Result<Record, String> {
    let (&tag, mut rest) = bytes.split_first().ok_or("is empty")?;
    let mut number = || -> Result<u64, String> {
        let (number, after) = rest.split_first_chunk().ok_or("is cut off")?;
        rest = after;
        Ok(u64::from_le_bytes(*number))
    };
    let record = match tag {
        ENTRY => {
            let (index, term) = (number()?, number()?);
            return decode_entry(index, term, rest).map(Record::Entry);
        }
        HARD_STATE => Record::HardState(HardState {
            term: number()?,
            vote: number()?,
            commit: number()?,
            ..HardState::default()
        }),
        RESET => Record::Reset(Position { index: number()?, term: number()? }),
        COMPACTED => Record::Compacted(Position { index: number()?, term: number()? }),
        _ => return Err(format!("has the unknown kind {tag}; a newer version wrote it")),
    };
    if rest.is_empty() { Ok(record) } else { Err("is too long".into()) }
}

fn decode_entry(index: u64, term: u64, rest: &[u8]) -> Result<Entry, String> {
    let (&kind, rest) = rest.split_first().ok_or("is cut off")?;
    let entry_type = match kind {
        0 => EntryType::EntryNormal,
        1 => EntryType::EntryConfChange,
        2 => EntryType::EntryConfChangeV2,
        _ => return Err(format!("has an entry of the unknown kind {kind}")),
    };
    let (length, rest) = rest.split_first_chunk().ok_or("is cut off")?;
    let length = u32::from_le_bytes(*length) as usize;
    let (context, data) = rest.split_at_checked(length).ok_or("is cut off")?;
    Ok(Entry {
        entry_type,
        index,
        term,
        context: Bytes::copy_from_slice(context),
        data: Bytes::copy_from_slice(data),
        ..Entry::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_their_bytes() {
        let an_entry = Entry {
            entry_type: EntryType::EntryConfChangeV2,
            index: 7,
            term: 3,
            context: Bytes::from_static(b"who"),
            data: Bytes::from_static(b"what"),
            ..Entry::default()
        };
        assert_eq!(decode(&entry(&an_entry)), Ok(Record::Entry(an_entry.clone())));
        let state = HardState { term: 5, vote: 2, commit: 6, ..HardState::default() };
        assert_eq!(decode(&hard_state(&state)), Ok(Record::HardState(state)));
        let at = Position { index: 9, term: 4 };
        assert_eq!(decode(&reset(at)), Ok(Record::Reset(at)));
        assert_eq!(decode(&compacted(at)), Ok(Record::Compacted(at)));
    }

    #[test]
    fn the_format_is_what_it_was() {
        let at = Position { index: 0x0102, term: 3 };
        assert_eq!(reset(at), [3, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        let an_entry = Entry {
            index: 1,
            term: 2,
            data: Bytes::from_static(b"x"),
            context: Bytes::from_static(b"y"),
            ..Entry::default()
        };
        assert_eq!(
            entry(&an_entry),
            [1, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'y', b'x']
        );
    }

    #[test]
    fn what_is_no_record_is_said_to_be_none() {
        let whole = entry(&Entry { index: 1, ..Entry::default() });
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "{length}");
        }
        assert!(decode(&[9]).unwrap_err().contains("newer"));
        assert!(decode(&[reset(Position::default()), vec![0]].concat()).is_err());
    }
}
