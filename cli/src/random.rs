//! Bits that nobody can guess, for ids and names.

use ulid::Ulid;

use crate::terminal;

/// Random bits for ids and names.
pub fn random() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer is as long as is said; the kernel fills it.
    let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    match filled {
        8 => u64::from_ne_bytes(bytes),
        // Only a kernel older than any that runs containers has no such call.
        _ => {
            u64::try_from(terminal::now().0).unwrap_or_default()
                ^ u64::from(std::process::id()) << 32
        }
    }
}

/// A new id: the time, and random bits.
pub fn new_id() -> Ulid {
    let millis = u64::try_from(terminal::now().0).unwrap_or_default();
    Ulid::from_parts(millis, u128::from(random()) << 64 | u128::from(random()))
}
