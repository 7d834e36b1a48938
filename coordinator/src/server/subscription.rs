//! One reader of the event stream: where it is, what it wants, and what it gets next.
//!
//! Nothing is buffered for a reader. It is asked for the next batch when there is room for it, so a
//! slow one costs no memory; one that takes nothing for too long loses its connection, never events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tenon_reporter::history::{self, Stored};
use tenon_reporter::json::Lines;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::control_plane::{ControlPlane, EventSource};
use super::fault::{Fault, Result};
use super::metrics::Counted;
use super::wish::{Head, Wish};

/// About so much is read at a time, and given at a time.
const BATCH: usize = 128 << 10;

/// Ranges of a run's records that are read at a time.
const RANGES: usize = 256;

/// What [`Subscription::next`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Lines.
    Batch(Batch),
    /// Nothing for this reader within the time; everything up to this `seq` was looked at.
    Idle(u64),
    /// Nothing will follow.
    End,
}

/// How long a reader may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// After so long without a line, [`Next::Idle`].
    pub idle: Duration,
    /// So long a reader may take nothing while there is something for it.
    pub stall: Duration,
}

/// A reader's place in the stream.
pub struct Subscription {
    node: Arc<dyn ControlPlane>,
    source: Arc<dyn EventSource>,
    visible: watch::Receiver<u64>,
    shutdown: CancellationToken,
    patience: Patience,
    wish: Wish,
    run: String,
    /// The record to look at next.
    next: u64,
    /// Of a run: ranges that are known to be of interest, from `next` on.
    ranges: VecDeque<(u64, u64)>,
    seq: u64,
    lines: Lines,
    over: bool,
    /// What was unfolded and not given yet.
    rest: Batch,
    /// When the last batch was taken, if more was there.
    taken: Option<Instant>,
    _counted: Counted,
}

impl Subscription {
    /// Finds the place. Faults: `not-found/run`; `gone/events` when some of what was asked for is not
    /// there any more.
    pub async fn open(
        node: Arc<dyn ControlPlane>,
        wish: Wish,
        patience: Patience,
        shutdown: CancellationToken,
        counted: Counted,
    ) -> Result<Subscription> {
        let source = node.events();
        let visible = source.visible();
        let next = {
            let (node, source, since, run) = (node.clone(), source.clone(), wish.since, wish.run);
            blocking(move || {
                if let Some(run) = run {
                    node.get(run)?.ok_or_else(|| Fault::no_such_run(run))?;
                }
                find(&*source, since)
            })
            .await?
        };
        Ok(Subscription {
            node,
            source,
            visible,
            shutdown,
            patience,
            run: wish.run.map(|run| run.to_string()).unwrap_or_default(),
            seq: wish.since,
            wish,
            next,
            ranges: VecDeque::new(),
            lines: Lines::new(),
            over: false,
            rest: Batch::default(),
            taken: None,
            _counted: counted,
        })
    }

    /// What comes next. After an error nothing does.
    pub async fn next(&mut self) -> Result<Next> {
        self.next_by(Instant::now() + self.patience.idle).await
    }

    /// Likewise, of what is there already: [`Next::Idle`] if that is nothing.
    pub async fn next_at_once(&mut self) -> Result<Next> {
        self.next_by(Instant::now()).await
    }

    async fn next_by(&mut self, idle_at: Instant) -> Result<Next> {
        if let Some(taken) = self.taken.take()
            && taken.elapsed() > self.patience.stall
        {
            return Err(self.too_slow());
        }
        if self.shutdown.is_cancelled() {
            return Err(stopping());
        }
        if let Some(batch) = self.piece() {
            return Ok(Next::Batch(batch));
        }
        let mut text = Vec::new();
        while !self.over && text.len() < BATCH {
            let visible = *self.visible.borrow_and_update();
            match self.read(visible).await? {
                Some(records) => {
                    for (index, record) in records {
                        self.look_at(index, &record, &mut text)?;
                        // Packed output unfolds to many times its size.
                        if self.over || text.len() >= BATCH {
                            break;
                        }
                    }
                    // A filter that leaves out much must not keep others from their turn.
                    tokio::task::yield_now().await;
                }
                None if !text.is_empty() => break,
                None if !self.wish.follow || self.run_is_over(visible).await? => self.over = true,
                // Others' events must not keep this reader from hearing that it has none.
                None if Instant::now() >= idle_at => return Ok(Next::Idle(self.seq)),
                None => {
                    tokio::select! {
                        biased;
                        () = self.shutdown.cancelled() => return Err(stopping()),
                        changed = self.visible.changed() => changed.map_err(|_| stopping())?,
                        () = tokio::time::sleep_until(idle_at) => return Ok(Next::Idle(self.seq)),
                    }
                }
            }
        }
        self.rest = Batch { text: text.into(), last_seq: self.seq };
        match self.piece() {
            Some(batch) => Ok(Next::Batch(batch)),
            None => Ok(Next::End),
        }
    }

    /// A piece of what was unfolded and not given yet.
    fn piece(&mut self) -> Option<Batch> {
        let piece = self.rest.split()?;
        if !self.rest.text.is_empty() || self.next <= *self.visible.borrow() {
            self.taken = Some(Instant::now());
        }
        Some(piece)
    }

    /// The next records that may matter; `None` when everything visible was looked at.
    async fn read(&mut self, visible: u64) -> Result<Option<Vec<(u64, Arc<[u8]>)>>> {
        if self.next > visible {
            return Ok(None);
        }
        let Some(run) = self.wish.run else {
            return self.read_ranges(vec![(self.next, visible)]).await.map(Some);
        };
        while self.ranges.front().is_some_and(|(_, last)| *last < self.next) {
            self.ranges.pop_front();
        }
        if self.ranges.is_empty() {
            let (source, next) = (self.source.clone(), self.next);
            self.ranges = blocking(move || source.ranges_of(run, next)).await?.into();
        }
        let ranges = self.ranges.iter().take(RANGES).map(|(first, last)| {
            let first = self.next.max(*first);
            (first, visible.min(*last))
        });
        let ranges: Vec<(u64, u64)> = ranges.filter(|(first, last)| first <= last).collect();
        if ranges.is_empty() {
            self.next = visible + 1;
            return Ok(None);
        }
        self.read_ranges(ranges).await.map(Some)
    }

    /// The first records of these ranges: as many as make a batch.
    async fn read_ranges(&self, ranges: Vec<(u64, u64)>) -> Result<Vec<(u64, Arc<[u8]>)>> {
        let Some((first, last)) = ranges.first().copied() else { return Ok(Vec::new()) };
        let records = match self.source.read_memory(first, at_most(first, last)) {
            Some(mut records) => {
                records.retain(|(index, _)| *index <= last);
                records
            }
            None => {
                let source = self.source.clone();
                blocking(move || read_files(&*source, &ranges)).await?
            }
        };
        match records.first() {
            Some((index, _)) if *index == first => Ok(records),
            _ => Err(self.gone()),
        }
    }

    fn look_at(&mut self, index: u64, record: &[u8], text: &mut Vec<u8>) -> Result<()> {
        self.next = index + 1;
        let Some(header) = event_header(record)? else { return Ok(()) };
        let head: Head<'_> = serde_json::from_slice(header).map_err(Fault::internal)?;
        if !self.wish.is_of_run(&self.run, &head) {
            return Ok(());
        }
        self.over = self.wish.run.is_some() && head.kind == "run-end";
        let since = self.wish.since;
        let packed = 4 + header.len() < record.len();
        if !self.wish.admits(&head) || !packed && head.seq <= since {
            self.seq = self.seq.max(head.seq);
            return Ok(());
        }
        let stored = Stored::new(record.to_vec()).map_err(Fault::internal)?;
        let before = text.len();
        self.lines.write(&stored, since, text).map_err(Fault::internal)?;
        let lines = text[before..].iter().filter(|byte| **byte == b'\n').count() as u64;
        let first = head.seq.max(since + 1);
        self.seq = self.seq.max((first + lines).saturating_sub(1));
        Ok(())
    }

    /// Whether the run is over and has no event that was not looked at.
    async fn run_is_over(&self, visible: u64) -> Result<bool> {
        let Some(run) = self.wish.run else { return Ok(false) };
        let (node, source) = (self.node.clone(), self.source.clone());
        blocking(move || {
            let over = node.get(run)?.is_none_or(|run| run.ended_at.is_some());
            Ok(over && source.ranges_of(run, visible + 1)?.is_empty())
        })
        .await
    }

    fn gone(&self) -> Fault {
        gone(self.wish.since.max(self.seq))
    }

    fn too_slow(&self) -> Fault {
        let message = format!(
            "nothing was taken from this stream for {} s while there was something to take",
            self.patience.stall.as_secs()
        );
        Fault::new("overloaded/slow-subscriber", message)
            .hint("nothing is lost: read on after the last seq that you have")
    }
}

/// The node stops: the reader goes on at another one.
fn stopping() -> Fault {
    Fault::new("unavailable/stopping", "this node is stopping")
        .hint("read on at another node, after the last seq that you have")
}

fn gone(since: u64) -> Fault {
    Fault::new("gone/events", format!("the events after seq {since} are not kept any more"))
        .hint("read from the oldest event that is there: since 0")
}

/// Where a reader of everything after `since` begins.
fn find(source: &dyn EventSource, since: u64) -> Result<u64> {
    let first = source.first_index();
    if since == 0 {
        return Ok(first);
    }
    let next = source.after(since)?;
    if next > first || first <= 1 {
        return Ok(next);
    }
    // The oldest event that is there has to be one that the reader knows, or the next one.
    let mut at = first;
    loop {
        let records = source.read(at, BATCH)?;
        let Some((last, _)) = records.last() else { return Ok(next) };
        at = last + 1;
        for (_, record) in &records {
            if let Some(header) = event_header(record)? {
                let head: Head<'_> = serde_json::from_slice(header).map_err(Fault::internal)?;
                return if head.seq > since + 1 { Err(gone(since)) } else { Ok(next) };
            }
        }
    }
}

/// How much is to be read at a time for records from `first` to `last`: of a few, each alone.
fn at_most(first: u64, last: u64) -> usize {
    if last - first < 4 { 1 } else { BATCH }
}

/// The first records of these ranges, as many as make a batch. Ends before one that is not there.
fn read_files(source: &dyn EventSource, ranges: &[(u64, u64)]) -> Result<Vec<(u64, Arc<[u8]>)>> {
    let mut records = Vec::new();
    let mut bytes = 0;
    for (first, last) in ranges {
        let mut next = *first;
        while next <= *last {
            let found = source.read(next, at_most(next, *last))?;
            if found.first().is_none_or(|(index, _)| *index != next) {
                return Ok(records);
            }
            for (index, record) in found.into_iter().take_while(|(index, _)| index <= last) {
                next = index + 1;
                bytes += record.len();
                records.push((index, record));
            }
            if bytes >= BATCH {
                return Ok(records);
            }
        }
    }
    Ok(records)
}

/// The header of an event's record; `None` for a record that is no event.
fn event_header(record: &[u8]) -> Result<Option<&[u8]>> {
    if !crate::event_log::is_event(record) {
        return Ok(None);
    }
    history::decode(record).map(|(header, _)| Some(header)).map_err(Fault::internal)
}

/// Runs what reads files where it may block.
pub async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result,
        Err(error) => Err(Fault::internal(error)),
    }
}
