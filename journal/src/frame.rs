//! One record's bytes: a 20-byte head and the payload.
//!
//! Head, little endian: `crc32c u32` of all that follows, seeded with the journal's salt; `length u32`; `index u64`;
//! `behind u32`, the distance from this index down to the last record that was durable when this one was appended.
//! `behind` is what tells a torn tail from damage: when a bad record is followed by a good one that says the bad one had
//! been durable, acknowledged data is damaged; otherwise the bad one was never acknowledged and may be cut.

/// The longest payload of a record.
pub const MAX_RECORD: usize = 64 << 20;

/// Bytes before the payload.
pub(crate) const HEAD: usize = 20;

/// A decoded head; its checksum covers the payload too and is checked by [`Head::holds`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    crc: u32,
    pub length: usize,
    pub index: u64,
    behind: u32,
}

impl Head {
    /// Reads a head; `None` when there are too few bytes.
    pub fn parse(bytes: &[u8]) -> Option<Head> {
        let bytes: &[u8; HEAD] = bytes.first_chunk()?;
        let [a, b, c, d, length0, length1, length2, length3, rest @ ..] = *bytes;
        let [i0, i1, i2, i3, i4, i5, i6, i7, behind @ ..] = rest;
        Some(Head {
            crc: u32::from_le_bytes([a, b, c, d]),
            length: u32::from_le_bytes([length0, length1, length2, length3]) as usize,
            index: u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
            behind: u32::from_le_bytes(behind),
        })
    }

    /// Bytes of the whole record.
    pub fn total(&self) -> usize {
        HEAD + self.length
    }

    /// The last index that was durable when this record was appended; `None` when that is not known.
    pub fn durable(&self) -> Option<u64> {
        if self.behind == u32::MAX { None } else { self.index.checked_sub(u64::from(self.behind)) }
    }

    /// Whether the whole record's checksum is right.
    pub fn holds(&self, record: &[u8], salt: u32) -> bool {
        record.len() == self.total() && crc32c::crc32c_append(salt, &record[4..]) == self.crc
    }
}

/// Appends a record's bytes. `durable` is the last durable index at this moment.
pub(crate) fn encode(out: &mut Vec<u8>, salt: u32, index: u64, durable: u64, payload: &[u8]) {
    let start = out.len();
    let behind = u32::try_from(index.saturating_sub(durable)).unwrap_or(u32::MAX);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
    out.extend_from_slice(&behind.to_le_bytes());
    out.extend_from_slice(payload);
    let crc = crc32c::crc32c_append(salt, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Looks behind a bad record for a good one that says the bad one had been durable. `rest` begins at the bad record.
pub(crate) fn proof_of_damage(rest: &[u8], salt: u32, bad_index: u64) -> Option<u64> {
    let most = bad_index.saturating_add((rest.len() / HEAD) as u64);
    (1..rest.len().saturating_sub(HEAD - 1)).find_map(|at| {
        let head = Head::parse(&rest[at..])?;
        // The cheap conditions first: nearly every position fails them.
        let plausible = head.index > bad_index
            && head.index <= most
            && head.length <= MAX_RECORD
            && head.total() <= rest.len() - at
            && head.durable().is_some_and(|durable| durable >= bad_index);
        (plausible && head.holds(&rest[at..at + head.total()], salt)).then_some(head.index)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_any_flip_is_noticed() {
        let mut bytes = Vec::new();
        encode(&mut bytes, 7, 42, 40, b"payload");
        let head = Head::parse(&bytes).unwrap();
        assert_eq!((head.index, head.length, head.durable()), (42, 7, Some(40)));
        assert!(head.holds(&bytes, 7));
        assert!(!head.holds(&bytes, 8));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!Head::parse(&bad).unwrap().holds(&bad, 7), "bit {bit}");
        }
    }

    #[test]
    fn only_a_later_record_that_claims_durability_proves_damage() {
        let mut later = Vec::new();
        encode(&mut later, 7, 10, 8, b"bad one");
        let second = later.len();
        encode(&mut later, 7, 11, 8, b"same batch");
        later[HEAD] ^= 1;
        assert_eq!(proof_of_damage(&later, 7, 10), None);
        encode(&mut later, 7, 12, 11, b"next batch");
        assert_eq!(proof_of_damage(&later, 7, 10), Some(12));
        assert_eq!(proof_of_damage(&later[second..], 9, 10), None);
    }
}
