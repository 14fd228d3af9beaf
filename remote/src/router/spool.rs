//! Records for a shard that cannot take them now, on disk, in order. The layout is drawn in
//! `docs/spool.md`.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use model::{TimeRange, Timestamp};
use parking_lot::Mutex;
use tsdb::disk::{AppendFile, Disk, SyncFile};

const MAGIC: &[u8; 8] = b"PYSPOOL1";
const HEADER_BYTES: usize = 16;
const META_BYTES: usize = 40;
const EXTENSION: &str = ".spool";

/// A segment is full at this size.
pub const SEGMENT_BYTES: u64 = 8 << 20;

/// No payload is larger.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// What waits for a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub seq: u64,
    /// The slot map by which it was routed.
    pub epoch: u64,
    /// The times of its samples.
    pub range: TimeRange,
    /// How many samples it has, of all kinds.
    pub samples: u64,
    /// A compressed remote-write 1.0 request.
    pub body: Bytes,
}

/// Why a record was not kept.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Keeping it would take more than the spool may have.
    #[error("the spool {} is full: {bytes} of at most {max} bytes", dir.display())]
    Full {
        /// The shard's directory.
        dir: PathBuf,
        /// What it has.
        bytes: u64,
        /// What it may have.
        max: u64,
    },
    /// The record alone is too large.
    #[error("a record of {0} bytes is too large for the spool")]
    TooLarge(usize),
    /// The disk refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Appends a record as it stands in a segment.
///
/// # Errors
/// It is too large.
pub fn encode(record: &Record, out: &mut Vec<u8>) -> Result<(), SpoolError> {
    let payload = META_BYTES + record.body.len();
    let length = u32::try_from(payload).ok().filter(|_| payload <= RECORD_BYTES_MAX);
    let length = length.ok_or(SpoolError::TooLarge(payload))?;
    out.extend_from_slice(&length.to_le_bytes());
    let crc_at = out.len();
    out.extend_from_slice(&[0; 4]);
    for number in [
        record.seq,
        record.epoch,
        record.range.start.cast_unsigned(),
        record.range.end.cast_unsigned(),
        record.samples,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&record.body);
    let crc = crc32c::crc32c(&out[crc_at + 4..]);
    out[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// Reads the record at the beginning of `bytes`, and how many bytes it takes; none if it is cut off or damaged.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<(Record, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if !(META_BYTES..=RECORD_BYTES_MAX).contains(&length) {
        return None;
    }
    let payload = rest.get(..length)?;
    if crc32c::crc32c(payload) != u32::from_le_bytes(*crc) {
        return None;
    }
    let number =
        |at: usize| payload[at * 8..].first_chunk::<8>().map_or(0, |chunk| u64::from_le_bytes(*chunk));
    let record = Record {
        seq: number(0),
        epoch: number(1),
        range: TimeRange::new(number(2).cast_signed(), number(3).cast_signed()),
        samples: number(4),
        body: Bytes::copy_from_slice(&payload[META_BYTES..]),
    };
    Some((record, 8 + length))
}

/// Reads a whole segment: its records, and how many bytes at its end are none.
///
/// # Errors
/// It does not begin as a segment does.
pub fn decode_segment(bytes: &[u8]) -> Result<(Vec<Record>, usize), &'static str> {
    let Some((header, mut rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        // A segment is created before its header is there.
        return Ok((Vec::new(), bytes.len()));
    };
    if header.first_chunk::<8>() != Some(MAGIC) {
        return Err("it does not begin with PYSPOOL1");
    }
    let mut records = Vec::new();
    while let Some((record, length)) = decode(rest) {
        records.push(record);
        rest = &rest[length..];
    }
    Ok((records, rest.len()))
}

struct Segment {
    path: PathBuf,
    /// Bytes with records in them.
    bytes: u64,
    /// Records that wait.
    records: u64,
    samples: u64,
    /// Times of all its samples.
    range: TimeRange,
}

/// The segment that is appended to.
struct Open {
    file: Box<dyn AppendFile>,
    sync: Arc<dyn SyncFile>,
}

#[derive(Default)]
struct State {
    /// The oldest first; the last is `open`, if there is one.
    segments: VecDeque<Segment>,
    open: Option<Open>,
    /// Where the oldest record that waits stands in the first segment.
    read_at: u64,
    bytes: u64,
    dirty: bool,
    buffer: Vec<u8>,
}

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolStats {
    /// Records.
    pub records: u64,
    /// Samples of all kinds.
    pub samples: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Segments.
    pub segments: u64,
}

/// The records of one shard.
pub struct Spool {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    bytes_max: u64,
    state: Mutex<State>,
}

impl Spool {
    /// Opens the spool in `dir`, which is created if it is missing; also gives the largest number of a
    /// record in it, and what is damaged, in words.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        bytes_max: u64,
    ) -> Result<(Self, u64, Vec<String>), SpoolError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SpoolError::Io { path, source }
        };
        disk.create_dir_all(dir).map_err(failed(dir))?;
        disk.sync_dir(dir.parent().unwrap_or(dir)).map_err(failed(dir))?;
        let (mut state, mut last, mut damage) = (State::default(), 0, Vec::new());
        state.read_at = HEADER_BYTES as u64;
        for entry in disk.list(dir).map_err(failed(dir))? {
            if entry.is_dir || !entry.name.ends_with(EXTENSION) {
                continue;
            }
            let path = dir.join(&entry.name);
            let content = disk.read(&path).map_err(failed(&path))?;
            let (records, lost) = match decode_segment(&content) {
                Ok(found) => found,
                Err(what) => {
                    damage.push(format!("{}: {what}; it is left as it is", path.display()));
                    continue;
                }
            };
            if lost > 0 {
                damage.push(format!("{}: the last {lost} bytes are no whole record", path.display()));
            }
            last = records.iter().map(|record| record.seq).fold(last, u64::max);
            if records.is_empty() {
                disk.remove_file(&path).map_err(failed(&path))?;
                continue;
            }
            // What an earlier run could not sync any more.
            disk.sync_file(&path).map_err(failed(&path))?;
            let bytes = (content.len() - lost) as u64;
            state.bytes += bytes;
            let range = records.iter().map(|record| record.range).reduce(union).unwrap_or(TimeRange::ALL);
            let samples = records.iter().map(|record| record.samples).sum();
            state.segments.push_back(Segment { path, bytes, records: records.len() as u64, samples, range });
        }
        Ok((Self { disk, dir: dir.to_owned(), bytes_max, state: Mutex::new(state) }, last, damage))
    }

    /// Keeps a record: it survives the end of the process when this returns. Blocks for one write.
    ///
    /// # Errors
    /// There is no place for it, or the disk refuses; it is not kept then.
    pub fn append(&self, record: &Record) -> Result<(), SpoolError> {
        let state = &mut *self.state.lock();
        let mut buffer = std::mem::take(&mut state.buffer);
        buffer.clear();
        let outcome = encode(record, &mut buffer).and_then(|()| self.write(state, record, &buffer));
        state.buffer = buffer;
        outcome
    }

    fn write(&self, state: &mut State, record: &Record, encoded: &[u8]) -> Result<(), SpoolError> {
        let length = encoded.len() as u64;
        if state.bytes + length > self.bytes_max {
            let (dir, bytes, max) = (self.dir.clone(), state.bytes, self.bytes_max);
            return Err(SpoolError::Full { dir, bytes, max });
        }
        let full = state.segments.back().is_some_and(|segment| segment.bytes >= SEGMENT_BYTES);
        if full && let Some(open) = state.open.take() {
            open.sync.sync().map_err(|source| SpoolError::Io { path: self.dir.clone(), source })?;
        }
        if state.open.is_none() {
            self.begin(state, record.seq)?;
        }
        let (Some(open), Some(segment)) = (&mut state.open, state.segments.back_mut()) else { return Ok(()) };
        if let Err(source) = open.file.append(encoded) {
            let path = segment.path.clone();
            // What was written of it must not stand before the next record.
            if open.file.truncate(segment.bytes).is_err() {
                state.open = None;
            }
            return Err(SpoolError::Io { path, source });
        }
        segment.range = if segment.records == 0 { record.range } else { union(segment.range, record.range) };
        segment.bytes += length;
        segment.records += 1;
        segment.samples += record.samples;
        state.bytes += length;
        state.dirty = true;
        Ok(())
    }

    fn begin(&self, state: &mut State, seq: u64) -> Result<(), SpoolError> {
        let path = self.dir.join(format!("{seq:020}{EXTENSION}"));
        let failed = |source| SpoolError::Io { path: path.clone(), source };
        let mut file = self.disk.create(&path).map_err(failed)?;
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&seq.to_le_bytes());
        let begun =
            file.append(&header).and_then(|()| self.disk.sync_dir(&self.dir)).and_then(|()| file.syncer());
        let sync = match begun {
            Ok(sync) => sync,
            Err(source) => {
                let _ = self.disk.remove_file(&path);
                return Err(failed(source));
            }
        };
        state.open = Some(Open { file, sync });
        let range = TimeRange::new(Timestamp::MAX, Timestamp::MIN);
        let bytes = HEADER_BYTES as u64;
        state.segments.push_back(Segment { path, bytes, records: 0, samples: 0, range });
        state.bytes += bytes;
        Ok(())
    }

    /// The oldest record that waits. Blocks for a read.
    ///
    /// # Errors
    /// The disk refuses, or gives other bytes than were written.
    pub fn front(&self) -> Result<Option<Record>, SpoolError> {
        let state = self.state.lock();
        let Some(segment) = state.segments.front().filter(|segment| segment.records > 0) else {
            return Ok(None);
        };
        let (path, at) = (segment.path.clone(), state.read_at);
        let rest = segment.bytes - at;
        drop(state);
        let failed = |source| SpoolError::Io { path: path.clone(), source };
        let head = self.disk.read_at(&path, at, 8).map_err(failed)?;
        let length = head.first_chunk::<4>().map_or(0, |chunk| u64::from(u32::from_le_bytes(*chunk)));
        let length = usize::try_from((length + 8).min(rest)).unwrap_or(usize::MAX);
        let bytes = self.disk.read_at(&path, at, length).map_err(failed)?;
        let damaged =
            || failed(io::Error::new(io::ErrorKind::InvalidData, format!("no record at byte {at}")));
        decode(&bytes).map(|(record, _)| Some(record)).ok_or_else(damaged)
    }

    /// Forgets the oldest record, which is `record`; removes its segment if it was the last in it.
    ///
    /// # Errors
    /// The file cannot be removed; its records will be there again after a restart.
    pub fn pop(&self, record: &Record) -> Result<(), SpoolError> {
        let state = &mut *self.state.lock();
        let Some(segment) = state.segments.front_mut() else { return Ok(()) };
        state.read_at += (8 + META_BYTES + record.body.len()) as u64;
        segment.records = segment.records.saturating_sub(1);
        segment.samples = segment.samples.saturating_sub(record.samples);
        if segment.records > 0 {
            return Ok(());
        }
        self.remove_front(state)
    }

    /// Gives up the oldest segment, which cannot be read; gives its path and how many samples were in it.
    pub fn abandon_front(&self) -> Option<(PathBuf, u64)> {
        let state = &mut *self.state.lock();
        let (path, samples) =
            state.segments.front().map(|segment| (segment.path.clone(), segment.samples))?;
        // Whatever can still be made of it is kept beside.
        let _ = self.disk.rename(&path, &path.with_extension("damaged"));
        let _ = self.remove_front(state);
        Some((path, samples))
    }

    fn remove_front(&self, state: &mut State) -> Result<(), SpoolError> {
        let Some(segment) = state.segments.pop_front() else { return Ok(()) };
        if state.segments.is_empty() {
            state.open = None;
        }
        state.read_at = HEADER_BYTES as u64;
        state.bytes -= segment.bytes;
        let removed = self.disk.remove_file(&segment.path);
        match removed {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(SpoolError::Io { path: segment.path, source })
            }
            _ => Ok(()),
        }
    }

    /// Makes what was kept durable. Blocks.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sync(&self) -> Result<(), SpoolError> {
        let mut state = self.state.lock();
        let sync = state.open.as_ref().filter(|_| state.dirty).map(|open| Arc::clone(&open.sync));
        state.dirty = false;
        drop(state);
        let Some(sync) = sync else { return Ok(()) };
        sync.sync().map_err(|source| SpoolError::Io { path: self.dir.clone(), source })
    }

    /// The times of all samples that wait, and perhaps of some that do not any more.
    #[must_use]
    pub fn range(&self) -> Option<TimeRange> {
        self.state.lock().segments.iter().map(|segment| segment.range).reduce(union)
    }

    /// How much waits.
    #[must_use]
    pub fn stats(&self) -> SpoolStats {
        let state = self.state.lock();
        SpoolStats {
            records: state.segments.iter().map(|segment| segment.records).sum(),
            samples: state.segments.iter().map(|segment| segment.samples).sum(),
            bytes: state.bytes,
            segments: state.segments.len() as u64,
        }
    }
}

/// The smallest range that covers both.
pub(super) fn union(a: TimeRange, b: TimeRange) -> TimeRange {
    TimeRange::new(a.start.min(b.start), a.end.max(b.end))
}
