//! The bytes of one stored event: `u32` little-endian length of the header, the header (the
//! event's contract line without its newline), and for step output the packed chunk.
//!
//! The header is stored as it is printed, so a replay copies bytes and cannot differ.

use tenon_engine::Event;

/// Longest header that is believed; a longer one means that the record is not ours.
const MAX_HEADER: usize = 16 << 20;

/// The record of an event.
pub fn encode(event: &Event) -> Vec<u8> {
    let chunk = event.output.as_ref().map_or(&[][..], |output| &output.chunk);
    let mut record = Vec::with_capacity(512 + chunk.len());
    record.extend_from_slice(&[0; 4]);
    serde_json::to_writer(&mut record, event).expect(
        "writing JSON into memory because an event has string keys only and Vec never fails",
    );
    let header = u32::try_from(record.len() - 4).unwrap_or(u32::MAX);
    record[..4].copy_from_slice(&header.to_le_bytes());
    record.extend_from_slice(chunk);
    record
}

/// Header and chunk of a record; what is wrong with it otherwise.
pub fn decode(record: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let Some((length, rest)) = record.split_first_chunk::<4>() else {
        return Err(format!("{} bytes are no record", record.len()));
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_HEADER || length > rest.len() {
        return Err(format!("header of {length} bytes in a record of {}", record.len()));
    }
    Ok(rest.split_at(length))
}
