//! A look at protobuf bytes before the protobuf library sees them.
//!
//! The library's decoder recurses into groups that it does not know, without a bound (RUSTSEC-2024-0437). No message here
//! has groups, so bytes with groups are refused. Known messages nest four deep at most, and unknown fields are skipped.

/// Which message the bytes are said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Message,
    Entry,
    Snapshot,
    SnapshotMetadata,
    ConfState,
    ConfChange,
    ConfChangeSingle,
}

impl Kind {
    /// The message in a field, if the field holds one.
    fn inside(self, field: u64) -> Option<Kind> {
        match (self, field) {
            (Kind::Message, 7) => Some(Kind::Entry),
            (Kind::Message, 9) => Some(Kind::Snapshot),
            (Kind::Snapshot, 2) => Some(Kind::SnapshotMetadata),
            (Kind::SnapshotMetadata, 1) => Some(Kind::ConfState),
            (Kind::ConfChange, 2) => Some(Kind::ConfChangeSingle),
            _ => None,
        }
    }
}

/// Whether the library can decode these bytes safely; says what is wrong if not.
pub(crate) fn check(mut bytes: &[u8], kind: Kind) -> Result<(), &'static str> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        match key & 7 {
            0 => drop(varint(&mut bytes)?),
            1 => drop(take(&mut bytes, 8)?),
            2 => {
                let length = varint(&mut bytes)?;
                let content = take(&mut bytes, length)?;
                if let Some(inner) = kind.inside(key >> 3) {
                    check(content, inner)?;
                }
            }
            5 => drop(take(&mut bytes, 4)?),
            _ => return Err("a kind of field that no message has"),
        }
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number without an end")
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], &'static str> {
    let length = usize::try_from(length).map_err(|_| "cut off")?;
    let (taken, rest) = bytes.split_at_checked(length).ok_or("cut off")?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_groups_are_refused_before_they_are_decoded() {
        // Field 99 as a group that begins and begins and begins.
        let bytes = [0x9b, 0x06].repeat(200_000);
        assert!(check(&bytes, Kind::Message).is_err());
        let mut inside = vec![0x3a, 0x02, 0x9b, 0x06];
        assert!(check(&inside, Kind::Message).is_err());
        // The same bytes as the content of an unknown field are nobody's business.
        inside[0] = 0x62;
        assert_eq!(check(&inside, Kind::Message), Ok(()));
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        for bytes in [&[0x3a, 0x05, 0x08][..], &[0x08], &[0xff; 11], &[0x09, 1, 2]] {
            assert!(check(bytes, Kind::Message).is_err(), "{bytes:?}");
        }
        assert_eq!(check(&[], Kind::Message), Ok(()));
    }
}
