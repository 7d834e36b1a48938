//! Records into chunks.

use bytes::Bytes;

use super::{Encode, MAX_LIST, Record, START};
use crate::save::cut;
use crate::{ChunkId, Packed, Result};

/// How much of the stream is gathered before it is cut.
const GATHERED: usize = 8 << 20;
/// A stream that is not longer is in the root chunk itself.
const IN_ROOT: usize = 64 << 10;
/// Ids that the root chunk lists at most.
const ROOT_LIST: usize = 4096;

/// Takes records and gives chunks.
pub(crate) struct ManifestWriter<'a> {
    /// Keeps a chunk, and says its id.
    keep: &'a mut dyn FnMut(Bytes) -> Result<ChunkId>,
    stream: Vec<u8>,
    ids: Vec<ChunkId>,
}

impl<'a> ManifestWriter<'a> {
    pub fn new(keep: &'a mut dyn FnMut(Bytes) -> Result<ChunkId>) -> ManifestWriter<'a> {
        ManifestWriter { keep, stream: Vec::new(), ids: Vec::new() }
    }

    pub fn push(&mut self, record: &Record) -> Result<()> {
        self.stream.record(record);
        if self.stream.len() >= GATHERED { self.cut(false) } else { Ok(()) }
    }

    /// Cuts what was gathered. Where the last chunk ends is known only when what follows it is.
    fn cut(&mut self, last: bool) -> Result<()> {
        let stream = Bytes::from(std::mem::take(&mut self.stream));
        let mut chunks = cut::manifest(&stream);
        if !last && let Some(open) = chunks.pop() {
            self.stream.extend_from_slice(&stream[open]);
        }
        for chunk in chunks {
            self.ids.push((self.keep)(stream.slice(chunk))?);
        }
        Ok(())
    }

    /// The root chunk. It is not kept: it may be put only when all others are.
    pub fn finish(mut self) -> Result<Packed> {
        let mut root = START.to_vec();
        if self.ids.is_empty() && self.stream.len() <= IN_ROOT {
            root.push(0);
            root.extend_from_slice(&self.stream);
            return Packed::new(&root);
        }
        self.cut(true)?;
        let mut height = 1;
        while self.ids.len() > ROOT_LIST {
            let ids = std::mem::take(&mut self.ids);
            let mut list = Vec::new();
            for (at, id) in ids.iter().enumerate() {
                list.extend_from_slice(&id.0);
                // Where the ids say, so that an insertion changes one list and not all that follow.
                let ends = id.0[31] == 0 && id.0[30] < 64 && list.len() >= 64 * 32;
                if ends || list.len() == MAX_LIST * 32 || at + 1 == ids.len() {
                    self.ids.push((self.keep)(std::mem::take(&mut list).into())?);
                }
            }
            height += 1;
        }
        root.push(height);
        self.ids.iter().for_each(|id| root.extend_from_slice(&id.0));
        Packed::new(&root)
    }
}
