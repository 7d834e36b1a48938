//! A snapshot's way into this member: offered, fetched part by part, checked, installed.

use tenon_proto::raft::v1::Chunk;

use super::{Coordinator, Output};
use crate::error::Result;
use crate::replica::snapshot::{Descriptor, Fetch};

impl Coordinator {
    /// Makes a snapshot of what is applied.
    pub fn make_snapshot(&mut self) -> Result<Descriptor> {
        self.replica.make_snapshot(&*self.disk, &self.dir.join("snapshots"))
    }

    pub(super) fn offered(&mut self, from: u64, descriptor: &[u8]) -> Result<()> {
        let descriptor = Descriptor::from_bytes(descriptor)?;
        let incoming = self.dir.join("incoming");
        let fetch = Fetch::begin(self.disk.clone(), &incoming, descriptor, &mut self.replica)?;
        self.fetch = Some((from, fetch));
        self.fetch_next()
    }

    pub(super) fn fetch_next(&mut self) -> Result<()> {
        if let Some((from, fetch)) = &self.fetch {
            // Said with which snapshot: another may have been offered meanwhile.
            let descriptor = fetch.descriptor().clone();
            self.out.push(match fetch.next() {
                Some(request) => Output::Fetch(*from, request),
                None if fetch.is_sound()? => Output::Fetched(descriptor),
                None => {
                    self.fetch = None;
                    Output::FetchFailed(descriptor)
                }
            });
        }
        Ok(())
    }

    pub(super) fn chunk(&mut self, chunk: &Chunk) -> Result<()> {
        if let Some((_, fetch)) = &mut self.fetch {
            fetch.take(&mut self.replica, chunk)?;
            self.fetch_next()?;
        }
        Ok(())
    }

    pub(super) fn install(&mut self) -> Result<()> {
        let Some((_, fetch)) = self.fetch.take() else { return Ok(()) };
        self.replica.install(&fetch)?;
        self.out.push(Output::Installed);
        self.out.push(Output::Members(self.replica.meta().members.clone()));
        Ok(())
    }
}
