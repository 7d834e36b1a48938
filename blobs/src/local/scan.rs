//! Opening a pack: by its trailer, or by reading through it.
//!
//! A pack without a trailer was being written when its process ended. Its whole records are taken, what follows the last
//! of them is cut off, and damage between them is stepped over: a head that is whole says where the next one is, and
//! where it is not, the next whole head is looked for.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::pack::{FOOT, FOOT_MARK, HEAD, LISTED, MARK, Pack, START, list, parse_head};
use super::{Damage, PACK_BYTES};
use crate::{ChunkId, Error, MAX_PACKED, Result};

/// Opens a pack, and tells `found` of each chunk: id, offset of the record, length. And whether it is sealed.
pub fn open(
    dir: &Path,
    number: u32,
    damage: &mut Vec<Damage>,
    mut found: impl FnMut(ChunkId, u32, u32),
) -> Result<(Pack, bool)> {
    let path = dir.join(format!("pack-{number:08}"));
    let file = OpenOptions::new().read(true).write(true).open(&path);
    let file = file.map_err(Error::io("open", &path))?;
    let read = Error::io("read", &path);
    let length = match file.metadata() {
        Ok(meta) => meta.len(),
        Err(error) => return Err(read(error)),
    };
    if let Some(trailer) = trailer(&file, length).map_err(read)? {
        for entry in trailer.chunks_exact(LISTED) {
            let number =
                |at| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
            let id = ChunkId::from_bytes(&entry[..32]);
            if let Some(id) = id.filter(|_| number(36) as usize <= MAX_PACKED) {
                found(id, number(32), number(36));
            }
        }
        return Ok((Pack::of(number, path, file, length, Vec::new()), true));
    }
    let mut bytes = Vec::new();
    let most = PACK_BYTES * 4;
    let mut reader = std::io::Read::take(&file, most);
    std::io::Read::read_to_end(&mut reader, &mut bytes).map_err(Error::io("read", &path))?;
    let mut listed = Vec::new();
    let mut end = START.len().min(bytes.len());
    let mut at = end;
    while let Some(start) = next_head(&bytes, at) {
        if start > at {
            damage.push(Damage {
                file: path.clone(),
                offset: at as u64,
                bytes: (start - at) as u64,
            });
        }
        at = start;
        let Some((id, length, sum)) = parse_head(&bytes[at..]) else { break };
        let record = HEAD + length as usize;
        match bytes.get(at + HEAD..at + record) {
            Some(content) if crc32c::crc32c(content) == sum => {
                found(id, at as u32, length);
                list(&mut listed, id, at as u32, length);
            }
            // The last record was being written.
            None => break,
            Some(_) => {
                damage.push(Damage { file: path.clone(), offset: at as u64, bytes: record as u64 });
            }
        }
        at += record;
        end = at;
    }
    // A pack that was made a moment before the crash may lack even its first bytes.
    if end <= START.len() {
        file.write_all_at(&START, 0).map_err(Error::io("write", &path))?;
        end = START.len();
    }
    file.set_len(end as u64).map_err(Error::io("cut", &path))?;
    // What was read may be in memory only: from here on it is said to be durable.
    file.sync_all().map_err(Error::io("sync", &path))?;
    Ok((Pack::of(number, path, file, end as u64, listed), false))
}

/// The list of a pack's trailer, if it has a whole one.
fn trailer(file: &std::fs::File, length: u64) -> std::io::Result<Option<Vec<u8>>> {
    let Some(foot_at) = length.checked_sub(FOOT as u64) else { return Ok(None) };
    let mut foot = [0; FOOT];
    file.read_exact_at(&mut foot, foot_at)?;
    let number =
        |at: usize| u32::from_le_bytes([foot[at], foot[at + 1], foot[at + 2], foot[at + 3]]);
    let start = u64::from(number(4)) | u64::from(number(8)) << 32;
    let count = u64::from(number(12));
    if foot[..4] != FOOT_MARK || start.checked_add(count * LISTED as u64) != Some(foot_at) {
        return Ok(None);
    }
    let mut list = vec![0; (foot_at - start) as usize];
    file.read_exact_at(&mut list, start)?;
    let sum = crc32c::crc32c_append(crc32c::crc32c(&list), &foot[..20]);
    Ok((sum == number(20)).then_some(list))
}

/// Where the first whole head at or after this place is.
fn next_head(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let head = bytes.get(at..at + HEAD)?;
        if parse_head(head).is_some_and(|(_, length, _)| length as usize <= MAX_PACKED) {
            return Some(at);
        }
        let rest = &bytes[at + 1..];
        at += 1 + rest.windows(MARK.len()).position(|window| window == MARK)?;
    }
}
