//! Changes to what is already stored: truncation of a suffix, deletion of a prefix, starting over, compression.
//!
//! Every step leaves a directory that opens: newest segments go first when a suffix is cut and oldest first when a prefix
//! is deleted, each made durable before the next, so that a crash never leaves a gap.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::MutexGuard;

use crate::active::Active;
use crate::disk::Appender;
use crate::journal::{Journal, Segment, Shared, Writer, lock, split_at_index};
use crate::segment::{SEGMENT_HEAD, SegmentFile, SegmentHead};
use crate::source::{BLOCK, Frames, Next, encode_block};
use crate::{Error, directory, frame, recover};

/// A segment with nothing worth keeping is replaced by an empty one only if it is larger than this.
const WORTH_REPLACING: u64 = 256 << 10;

impl Journal {
    /// Drops all records from `from` on, durably.
    pub fn truncate_suffix(&self, from: u64) -> Result<(), Error> {
        let shared = &self.shared;
        let _maintenance = shared.maintain();
        let mut writer = lock(&shared.writer);
        drop(shared.usable_state()?);
        if writer.torn {
            // A write that failed may have left some of these records, or a file for them, behind what counts.
            shared.sync_files(&mut writer)?;
        }
        {
            let mut state = shared.usable_state()?;
            if from >= state.next {
                return Ok(());
            }
            if from < state.first() {
                return Err(Error::Gone { index: from, first: state.first() });
            }
            let keep = split_at_index(&state.pending, state.file_next, from);
            state.pending.truncate(keep);
            state.next = from;
            if from >= state.file_next {
                return Ok(());
            }
            state.file_next = from;
            state.durable_next = state.durable_next.min(from);
        }
        shared.truncate_files(&mut writer, from).map_err(|error| shared.fail(error))
    }

    /// Unlinks segments all of whose records are below `keep_from`. Whole segments only: some records below may stay.
    pub fn delete_prefix(&self, keep_from: u64) -> Result<(), Error> {
        let shared = &self.shared;
        let _maintenance = shared.maintain();
        let mut writer = lock(&shared.writer);
        let nothing_to_keep = {
            let state = shared.usable_state()?;
            state.durable_next == state.next && keep_from >= state.next
        };
        if nothing_to_keep
            && writer.active.as_ref().is_some_and(|active| active.offset > WORTH_REPLACING)
        {
            let next = lock(&shared.state).file_next;
            shared.begin_segment(&mut writer, next)?;
            shared.sync_files(&mut writer)?;
        }
        loop {
            let oldest = {
                let state = lock(&shared.state);
                match &state.segments[..] {
                    [oldest, second, ..] if second.file.first <= keep_from => oldest.file.clone(),
                    _ => return Ok(()),
                }
            };
            shared.unlink(&oldest)?;
            lock(&shared.state).segments.remove(0);
        }
    }

    /// Drops everything, durably and as one step; the next record gets the index `next_index`. After a crash on the way, or
    /// an error that stops the journal, it is the old records or none; after any other error nothing has happened.
    pub fn reset(&self, next_index: u64) -> Result<(), Error> {
        let shared = &self.shared;
        let _maintenance = shared.maintain();
        let mut writer = lock(&shared.writer);
        drop(shared.usable_state()?);
        let fresh = Segment::new(SegmentFile::new(&shared.dir, next_index.max(1), false));
        let announced = shared.announce_reset(&fresh.file)?;
        let start_over = || {
            recover::complete_reset(shared.disk(), &shared.dir, &announced)?;
            Active::open(shared.disk(), &fresh.file)
        };
        writer.active = Some(start_over().map_err(|error| shared.fail(error))?);
        writer.unsynced = false;
        writer.dirty_directory = false;
        writer.torn = false;
        let mut state = lock(&shared.state);
        state.pending.clear();
        state.next = fresh.file.first;
        state.file_next = state.next;
        state.durable_next = state.next;
        state.segments = vec![fresh];
        Ok(())
    }

    /// Compresses all sealed segments that are not compressed yet. Appending goes on meanwhile.
    pub fn compress_sealed(&self, level: i32) -> Result<(), Error> {
        self.shared.compress_sealed(level)
    }
}

/// Held while what is stored is changed.
struct Maintenance<'a> {
    shared: &'a Shared,
    _lock: MutexGuard<'a, ()>,
}

impl Drop for Maintenance<'_> {
    fn drop(&mut self) {
        // Not at the start: a scan that runs meanwhile would put its place back.
        self.shared.places().forget();
    }
}

impl Shared {
    fn maintain(&self) -> Maintenance<'_> {
        Maintenance { shared: self, _lock: lock(&self.maintenance) }
    }

    /// Puts the first segment of a new beginning there, under a name that means that all others go.
    fn announce_reset(&self, fresh: &SegmentFile) -> Result<SegmentFile, Error> {
        let announced = fresh.announced();
        let temporary = fresh.path.with_extension("tmp");
        let announce = || {
            let file = self.disk().create(&temporary);
            let file = file.map_err(Error::io("create the file", &temporary))?;
            let head = SegmentHead { salt: self.salt, first: fresh.first, sealed: false }.encode();
            let written = file.write_all_at(&head, 0).and_then(|()| file.sync_data());
            written.map_err(Error::io("write the file", &temporary))?;
            let renamed = self.disk().rename(&temporary, &announced.path);
            renamed.map_err(Error::io("rename the file", &temporary))
        };
        announce().inspect_err(|_| drop(self.disk().remove_file(&temporary)))?;
        self.sync_directory()?;
        Ok(announced)
    }

    /// Unlinks a segment, durably, in whatever forms it is there.
    fn unlink(&self, segment: &SegmentFile) -> Result<(), Error> {
        // The sealed form counts where there are both, so it goes last.
        for sealed in [false, true] {
            let form = SegmentFile::new(&self.dir, segment.first, sealed);
            if form == *segment || self.disk().exists(&form.path) {
                self.unlink_file(&form.path)?;
            }
        }
        Ok(())
    }

    fn unlink_file(&self, path: &Path) -> Result<(), Error> {
        match self.disk().remove_file(path) {
            // An earlier attempt failed after the first half.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other.map_err(Error::io("remove the file", path))?,
        }
        self.sync_directory()
    }

    fn sync_directory(&self) -> Result<(), Error> {
        directory::sync(self.disk(), &self.dir).map_err(|error| self.fail(error))
    }

    fn truncate_files(&self, writer: &mut Writer, from: u64) -> Result<(), Error> {
        loop {
            let newest = {
                let mut state = lock(&self.state);
                match state.segments.len() {
                    2.. => state.segments.pop_if(|newest| newest.file.first >= from),
                    _ => None,
                }
            };
            let Some(newest) = newest else { break };
            writer.active = None;
            writer.unsynced = false;
            self.unlink(&newest.file)?;
        }
        let Some(tail) = lock(&self.state).segments.last().cloned() else {
            return Ok(());
        };
        let tail =
            if tail.file.sealed { self.unseal(&tail, from)? } else { self.shorten(tail, from)? };
        writer.active = Some(Active::open(self.disk(), &tail.file)?);
        if let Some(last) = lock(&self.state).segments.last_mut() {
            *last = tail;
        }
        Ok(())
    }

    fn shorten(&self, mut segment: Segment, from: u64) -> Result<Segment, Error> {
        let mut frames = self.frames(&segment, from)?;
        while frames.next_index() < from {
            if let Next::Bad(reason) = frames.next()? {
                return Err(segment.file.damaged(frames.offset(), reason));
            }
        }
        let active = Active::open(self.disk(), &segment.file)?;
        active
            .file
            .set_len(frames.offset())
            .map_err(Error::io("shorten the file", &active.path))?;
        active.file.sync_data().map_err(Error::io("sync the file", &active.path))?;
        segment.forget_from(from);
        Ok(segment)
    }

    /// Writes the records below `from` of a sealed segment back in the plain form.
    fn unseal(&self, sealed: &Segment, from: u64) -> Result<Segment, Error> {
        let plain = Segment::new(SegmentFile::new(&self.dir, sealed.file.first, false));
        let mut frames = self.frames(sealed, sealed.file.first)?;
        let mut record = Vec::new();
        self.rewrite(&plain, |out| {
            while frames.next_index() < from {
                let index = frames.next_index();
                match frames.next()? {
                    Next::Record(payload) => {
                        record.clear();
                        // Everything that is sealed was durable, so each record may say so of the one before it.
                        frame::encode(
                            &mut record,
                            self.salt,
                            index,
                            index - 1,
                            &frames.bytes()[payload],
                        );
                        write(out, &record, &plain)?;
                    }
                    Next::End => {
                        return Err(sealed.file.damaged(frames.offset(), "records are missing"));
                    }
                    Next::Bad(reason) => return Err(sealed.file.damaged(frames.offset(), reason)),
                }
            }
            Ok(())
        })?;
        self.unlink_file(&sealed.file.path)?;
        Ok(plain)
    }

    pub(crate) fn compress_sealed(&self, level: i32) -> Result<(), Error> {
        let _maintenance = self.maintain();
        let segments = {
            let state = self.usable_state()?;
            let older = state.segments.split_last().map_or(&[][..], |(_, older)| older);
            older.iter().filter(|segment| !segment.file.sealed).cloned().collect::<Vec<_>>()
        };
        for plain in &segments {
            let sealed = self.seal(plain, level)?;
            let mut state = lock(&self.state);
            if let Some(place) = state.segments.iter_mut().find(|place| place.file == plain.file) {
                *place = sealed;
            }
        }
        Ok(())
    }

    fn seal(&self, plain: &Segment, level: i32) -> Result<Segment, Error> {
        let mut sealed = Segment::new(SegmentFile::new(&self.dir, plain.file.first, true));
        let mut points = Vec::new();
        let mut offset = SEGMENT_HEAD;
        let mut frames = self.frames(plain, plain.file.first)?;
        self.rewrite(&sealed, |out| {
            let mut raw = Vec::new();
            let mut first = plain.file.first;
            loop {
                let next = frames.next()?;
                if let Next::Record(payload) = &next {
                    raw.extend_from_slice(
                        &frames.bytes()[payload.start - frame::HEAD..payload.end],
                    );
                }
                let over = matches!(next, Next::End);
                if let Next::Bad(reason) = next {
                    return Err(plain.file.damaged(frames.offset(), reason));
                }
                if raw.len() >= BLOCK || (over && !raw.is_empty()) {
                    let block = encode_block(self.salt, first, &raw, level)
                        .map_err(Error::io("compress the file", &plain.file.path))?;
                    write(out, &block, &sealed)?;
                    points.push((first, offset));
                    offset += block.len() as u64;
                    first = frames.next_index();
                    raw.clear();
                }
                if over {
                    return Ok(());
                }
            }
        })?;
        points.iter().for_each(|(index, offset)| sealed.note(*index, *offset));
        // The sealed form counts from here on, and the next start removes a plain one that is left beside it.
        let _ = self.unlink_file(&plain.file.path);
        Ok(sealed)
    }

    /// Writes a segment in its other form, durably. The old form is still there.
    fn rewrite(
        &self,
        new: &Segment,
        fill: impl FnOnce(&mut Appender) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let temporary = new.file.path.with_extension("tmp");
        let complete = || {
            let file = self.disk().create(&temporary);
            let mut out = Appender::new(file.map_err(Error::io("create the file", &temporary))?);
            let head =
                SegmentHead { salt: self.salt, first: new.file.first, sealed: new.file.sealed };
            write(&mut out, &head.encode(), new)?;
            fill(&mut out)?;
            out.finish().map_err(Error::io("write the file", &temporary))?;
            let renamed = self.disk().rename(&temporary, &new.file.path);
            renamed.map_err(Error::io("rename the file", &temporary))
        };
        complete().inspect_err(|_| drop(self.disk().remove_file(&temporary)))?;
        self.sync_directory()
    }

    fn frames(&self, segment: &Segment, index: u64) -> Result<Frames, Error> {
        let (at, offset) = segment.seek(index);
        Ok(Frames::new(
            segment.file.clone(),
            segment.file.open(self.disk())?,
            self.salt,
            at,
            offset,
        ))
    }
}

fn write(out: &mut Appender, bytes: &[u8], segment: &Segment) -> Result<(), Error> {
    out.write(bytes).map_err(Error::io("write the file", &segment.file.path))
}
