//! Following the log, as a sender of samples does.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{HistogramValue, Labels, Timestamp};

use super::{Db, Inner, WAL_DIR};
use crate::chunk::{Sample, Value};
use crate::codec::Malformed;
use crate::error::{CommitError, IoError};
use crate::head::metadata::Metadata;
use crate::wal::page::{Damage, PAGE_BYTES, Records};
use crate::wal::record::{self, Record};
use crate::wal::{checkpoint, segment_path, segments};

/// Bytes that are read at once.
const READ_BYTES: usize = 32 * PAGE_BYTES;

/// A place in the log, between two records. It survives restarts; as text or numbers it may be kept anywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The number of the segment.
    pub segment: u64,
    /// Bytes from its begin.
    pub offset: u64,
}

/// What the log says. Series have numbers there; the number of a series may change, but none is used twice. Samples have
/// two times, their own and their start time, which is 0 where it is unknown or not kept ([`crate::Options::float_chunks`]).
#[derive(Clone, Debug, PartialEq)]
pub enum Logged {
    /// From here on these numbers mean these series.
    Series(Vec<(u64, Labels)>),
    /// Floats: series, times, value.
    Samples(Vec<(u64, (Timestamp, Timestamp), f64)>),
    /// Native histograms: series, times, value.
    Histograms(Vec<(u64, (Timestamp, Timestamp), HistogramValue)>),
    /// Exemplars: series, time, value, labels.
    Exemplars(Vec<(u64, Timestamp, f64, Labels)>),
    /// What targets say about metrics.
    Metadata(Vec<(u64, Metadata)>),
    /// The segments between these places are gone, by checkpoints or damage, and their samples were not yielded.
    Skipped {
        /// Where reading stopped.
        from: Position,
        /// Where it goes on.
        to: Position,
    },
}

/// A reader of the log, see [`Db::tail`].
pub struct Tail {
    inner: Arc<Inner>,
    dir: PathBuf,
    position: Position,
    /// What is read and not yielded yet, with the place behind it.
    ready: VecDeque<(Logged, Position)>,
    /// Segments before this were read for their series only.
    named_until: u64,
}

impl Db {
    /// Reads the log from `position` on, or from its end: first the series that have been named before, then
    /// everything that is committed, as it comes, late samples included.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn tail(&self, position: Option<Position>) -> Result<Tail, CommitError> {
        let inner = Arc::clone(&self.inner);
        let position = position.unwrap_or_else(|| inner.log_end());
        let dir = inner.dir.join(WAL_DIR);
        let mut tail = Tail { inner, dir, position, ready: VecDeque::new(), named_until: 0 };
        tail.read_names()?;
        Ok(tail)
    }
}

impl Inner {
    fn log_end(&self) -> Position {
        let (segment, offset) = self.log.lock().wal.end();
        Position { segment, offset }
    }
}

impl Tail {
    /// The place behind what has been yielded: a reader that begins there goes on where this one is.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Waits until something may be there to be read; false if nothing was for that long.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        let mut log = self.inner.log.lock();
        loop {
            let (segment, offset) = log.wal.end();
            let end = Position { segment, offset };
            if !self.ready.is_empty() || end > self.position {
                return true;
            }
            if self.inner.committed.wait_for(&mut log, patience).timed_out() {
                return false;
            }
        }
    }

    /// What comes next; `None` if everything committed has been yielded.
    ///
    /// # Errors
    /// The log cannot be read. A damaged record is reported once, and the rest of its segment is skipped.
    pub fn read(&mut self) -> Result<Option<Logged>, CommitError> {
        loop {
            if let Some((logged, position)) = self.ready.pop_front() {
                self.position = position;
                return Ok(Some(logged));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Reads on; false if nothing is there.
    fn fill(&mut self) -> Result<bool, IoError> {
        let end = self.inner.log_end();
        if self.position >= end {
            return Ok(false);
        }
        let path = segment_path(&self.dir, self.position.segment);
        // From the begin of a page on, since fragments depend on it.
        let page = self.position.offset / PAGE_BYTES as u64 * PAGE_BYTES as u64;
        let mut bytes = READ_BYTES;
        loop {
            let committed = if self.position.segment == end.segment { end.offset } else { u64::MAX };
            let limit = usize::try_from(committed.saturating_sub(page)).unwrap_or(usize::MAX);
            let data = match self.inner.disk.read_at(&path, page, bytes.min(limit)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return self.skip(end),
                data => data.map_err(CommitError::at(&path))?,
            };
            let whole = data.len() < bytes;
            let before = self.position;
            let damage = self.take(&data, page);
            if !self.ready.is_empty() {
                return Ok(true);
            }
            match damage {
                // A record longer than what was read.
                Some(damage) if damage.torn && !whole => bytes *= 2,
                Some(Damage { what, offset, .. }) => {
                    let to = Position { segment: before.segment + 1, offset: 0 };
                    self.ready.push_back((Logged::Skipped { from: before, to }, to));
                    let source = std::io::Error::new(
                        std::io::ErrorKind::InvalidData,
                        format!("{what} at offset {}", page + offset as u64),
                    );
                    return Err(CommitError { path, source });
                }
                None if before.segment < end.segment && whole => {
                    self.position = Position { segment: before.segment + 1, offset: 0 };
                    return Ok(true);
                }
                None if whole => return Ok(false),
                None => return Ok(true),
            }
        }
    }

    /// Takes the records of `data`, which begins at `page` of the segment.
    fn take(&mut self, data: &[u8], page: u64) -> Option<Damage> {
        let start = usize::try_from(self.position.offset - page).unwrap_or(usize::MAX);
        let (mut records, mut space) = (Records::at(data, start), Vec::new());
        let segment = self.position.segment;
        let mut position = self.position;
        while let Some(next) = records.next() {
            let decoded = next.and_then(|stored| {
                let data = stored.unpack(&mut space)?;
                record::decode(data).map_err(|Malformed(what)| Damage {
                    offset: stored.start,
                    torn: false,
                    what,
                })
            });
            match decoded {
                Err(damage) => return Some(damage),
                Ok(record) => {
                    position = Position { segment, offset: page + records.offset() as u64 };
                    self.ready.extend(logged(record).map(|logged| (logged, position)));
                }
            }
        }
        if self.ready.is_empty() {
            // Nothing for the caller, or padding.
            self.position = position.max(Position { segment, offset: page + records.offset() as u64 });
        }
        None
    }

    /// The segment to be read is gone: goes on with the first one that is there.
    fn skip(&mut self, end: Position) -> Result<bool, IoError> {
        let all = segments(&*self.inner.disk, &self.dir).map_err(CommitError::at(&self.dir))?;
        let next = all.into_iter().map(|(number, _)| number).find(|&number| number > self.position.segment);
        let (from, to) = (self.position, Position { segment: next.unwrap_or(end.segment), offset: 0 });
        self.position = to;
        self.read_names()?;
        self.ready.push_front((Logged::Skipped { from, to }, to));
        Ok(true)
    }

    /// Reads the series that were named before the position: those of the checkpoint and of the segments
    /// that it does not stand for.
    fn read_names(&mut self) -> Result<(), IoError> {
        let disk = Arc::clone(&self.inner.disk);
        let newest = || checkpoint::newest(&*disk, &self.dir).map_err(CommitError::at(&self.dir));
        let mut found = newest()?;
        while let Some((last, dir)) = found {
            for (number, _) in segments(&*disk, &dir).map_err(CommitError::at(&dir))? {
                self.read_names_of(&segment_path(&dir, number), u64::MAX)?;
            }
            // Another one may have taken its place before it was read to its end.
            let newest = checkpoint::newest(&*disk, &self.dir).map_err(CommitError::at(&self.dir))?;
            found = newest.filter(|(newer, _)| *newer > last);
        }
        for (number, _) in segments(&*disk, &self.dir).map_err(CommitError::at(&self.dir))? {
            let known = number < self.named_until;
            if number <= self.position.segment && !known {
                let until = if number == self.position.segment { self.position.offset } else { u64::MAX };
                self.read_names_of(&segment_path(&self.dir, number), until)?;
            }
        }
        self.named_until = self.position.segment;
        Ok(())
    }

    fn read_names_of(&mut self, path: &std::path::Path, until: u64) -> Result<(), IoError> {
        let data = match self.inner.disk.read(path) {
            // A checkpoint was written meanwhile; it has the names.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            data => data.map_err(CommitError::at(path))?,
        };
        let data = &data[..usize::try_from(until).unwrap_or(usize::MAX).min(data.len())];
        let (mut records, mut space) = (Records::new(data), Vec::new());
        while let Some(Ok(stored)) = records.next() {
            let Ok(data) = stored.unpack(&mut space) else { break };
            let Ok(record) = record::decode_some(data, |_, _| false) else { break };
            let wanted = matches!(record, Record::Series(_) | Record::Metadata(_));
            self.ready.extend(logged(record).filter(|_| wanted).map(|logged| (logged, self.position)));
        }
        Ok(())
    }
}

fn without_starts<T>(entries: Vec<(u64, Timestamp, T)>) -> Vec<(u64, (Timestamp, Timestamp), T)> {
    entries.into_iter().map(|(series, ts, value)| (series, (ts, 0), value)).collect()
}

/// What a reader is told of a record.
fn logged(record: Record) -> Option<Logged> {
    let (is_empty, logged) = match record {
        Record::Series(entries) => (entries.is_empty(), Logged::Series(entries)),
        Record::Metadata(entries) => (entries.is_empty(), Logged::Metadata(entries)),
        Record::Samples(entries) => (entries.is_empty(), Logged::Samples(without_starts(entries))),
        Record::Histograms(entries) => (entries.is_empty(), Logged::Histograms(without_starts(entries))),
        Record::Started(entries) => {
            let (mut floats, mut histograms) = (Vec::new(), Vec::new());
            for (series, Sample { ts, start, value }) in entries {
                match value {
                    Value::Float(value) => floats.push((series, (ts, start), value)),
                    Value::Histogram(value) => histograms.push((series, (ts, start), value)),
                }
            }
            // A record is of one kind.
            let is_empty = floats.is_empty() && histograms.is_empty();
            let floats = Logged::Samples(floats);
            (is_empty, if histograms.is_empty() { floats } else { Logged::Histograms(histograms) })
        }
        Record::Exemplars(entries) => (entries.is_empty(), Logged::Exemplars(entries)),
        Record::Tombstones(_) | Record::MappedMarkers | Record::CopyMark | Record::Unknown => {
            return None;
        }
    };
    (!is_empty).then_some(logged)
}
