//! Which records of the event log belong to a run: few ranges, because a run's events come in
//! stretches.

/// Sorted, disjoint ranges of record indices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds an index that is larger than all before it.
    pub fn push(&mut self, index: u64) {
        match self.0.last_mut() {
            Some((_, end)) if *end == index => *end += 1,
            _ => self.0.push((index, index + 1)),
        }
    }

    /// The ranges `[first, end)` with what is at or after `from`.
    pub fn from(&self, from: u64) -> Vec<(u64, u64)> {
        let after = self.0.partition_point(|(_, end)| *end <= from);
        self.0[after..].iter().map(|(first, end)| ((*first).max(from), *end)).collect()
    }

    /// Variable-length differences: small numbers for what lies close together.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len() * 3);
        let mut last = 0;
        for (first, end) in &self.0 {
            put(first - last, &mut out);
            put(end - first, &mut out);
            last = *end;
        }
        out
    }

    /// Out of [`Ranges::encode`]; `None` if it is something else.
    pub fn decode(mut bytes: &[u8]) -> Option<Ranges> {
        let mut ranges = Vec::new();
        let mut last = 0u64;
        while !bytes.is_empty() {
            let first = last.checked_add(take(&mut bytes)?)?;
            last = first.checked_add(take(&mut bytes)?)?;
            ranges.push((first, last));
        }
        Some(Ranges(ranges))
    }
}

fn put(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_back_and_are_found() {
        let mut ranges = Ranges::default();
        for index in [3, 4, 5, 900, 901, 70_000_000_000] {
            ranges.push(index);
        }
        let bytes = ranges.encode();
        assert_eq!(Ranges::decode(&bytes), Some(ranges.clone()));
        assert_eq!(Ranges::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(ranges.from(4), [(4, 6), (900, 902), (70_000_000_000, 70_000_000_001)]);
        assert_eq!(ranges.from(902), [(70_000_000_000, 70_000_000_001)]);
    }
}
