//! Compressing what is stored.
//!
//! A context of the compressor takes some hundred KiB and is slow to make, so each thread keeps one. What
//! comes out depends on the bytes alone, not on what the context was used for before: records are compared
//! when the log is applied again (see [`crate::event_log`]).

use std::cell::RefCell;

use zstd::bulk::Compressor;

/// The level of everything that is packed; another one gives other bytes.
const LEVEL: i32 = 1;

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses bytes: the same bytes to the same, on every member.
pub(crate) fn pack(bytes: &[u8]) -> Vec<u8> {
    let packed = COMPRESSOR.with_borrow_mut(|compressor| {
        if compressor.is_none() {
            *compressor = Compressor::new(LEVEL).ok();
        }
        compressor.as_mut().map(|compressor| compressor.compress(bytes))
    });
    packed
        .unwrap_or_else(|| zstd::bulk::compress(bytes, LEVEL))
        .expect("zstd compresses any bytes into a buffer that it sizes itself")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_before_changes_nothing() {
        let mut seed = 7u64;
        for round in 0..400u32 {
            let mut content = Vec::new();
            while content.len() < (round as usize * 97) % 70_000 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                content.extend_from_slice(format!("{{\"name\":\"t{}\"}}", seed >> 52).as_bytes());
            }
            let packed = pack(&content);
            assert_eq!(packed, zstd::bulk::compress(&content, LEVEL).unwrap(), "round {round}");
            assert_eq!(zstd::decode_all(packed.as_slice()).unwrap(), content);
        }
    }
}
