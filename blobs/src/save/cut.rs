//! Where files and manifests are cut into chunks.
//!
//! The sizes are for build trees: most files are one chunk, a change in a large one costs some hundred kilobytes, and a
//! store's index of a terabyte has eight million entries. Small files share chunks: one request for each of them would
//! take longer than sending them.

use std::ops::Range;

use fastcdc::v2020::FastCDC;

/// Least, usual and most bytes of a chunk of a file.
const FILE: [usize; 3] = [32 << 10, 128 << 10, 512 << 10];
/// Of a manifest: small, because a changed time changes one.
const MANIFEST: [usize; 3] = [8 << 10, 32 << 10, 128 << 10];

/// A file of at most so many bytes shares its chunk.
pub(crate) const SMALL: u64 = 16 << 10;
/// A shared chunk may end after so many bytes, and ends before so many.
pub(crate) const SHARED: [u64; 2] = [64 << 10, 256 << 10];
/// Files that share a chunk at most: empty ones have no bytes.
pub(crate) const SHARING: usize = 256;
/// A large file is read in slices, which are cut by themselves, so that several threads share the work.
pub(crate) const SLICE: u64 = 8 << 20;

/// The chunks of a slice of a file.
pub(crate) fn file(content: &[u8]) -> Vec<Range<usize>> {
    cut(content, FILE)
}

/// The chunks of a piece of a manifest.
pub(crate) fn manifest(content: &[u8]) -> Vec<Range<usize>> {
    cut(content, MANIFEST)
}

fn cut(content: &[u8], [least, usual, most]: [usize; 3]) -> Vec<Range<usize>> {
    let chunks = FastCDC::new(content, least, usual, most);
    chunks.map(|chunk| chunk.offset..chunk.offset + chunk.length).collect()
}

/// Whether a shared chunk may end after a file with this name: one file in eight says so, so that a file that is added
/// or removed changes the chunk that it is in and no other.
pub(crate) fn ends_shared(name: &[u8]) -> bool {
    crc32c::crc32c(name).is_multiple_of(8)
}
