//! The samples of one series in memory.

use std::sync::Arc;

use model::{HistogramValue, ResetHint, Samples, TimeRange, Timestamp};

use super::mapped::{MappedChunk, MappedChunks, MappedRef, Unmapped};
use crate::block::tombstones::Intervals;
use crate::chunk::{self, Appender, Chunk, Encoding, SAMPLES_PER_CHUNK, Value};
use crate::codec::Malformed;
use crate::wal::record::HistogramRecords;

/// Growth steps of an open chunk, so that the average slack stays below 24 bytes.
const GROWTH_BYTES: usize = 48;
/// The most that one float adds to a chunk: 4 + 64 bits of time and 13 + 64 of value.
const FLOAT_BYTES_MAX: usize = 19;

/// A series of the head.
///
/// 144 bytes, plus the bytes of the open chunk (about 100 on average at 1.6 bytes a sample), plus 16
/// bytes for each mapped chunk (six of them in a 3 h head at 15 s).
#[derive(Debug)]
pub(crate) struct Series {
    /// The series' name in the log. Never used twice within a directory.
    pub(crate) wal_ref: u64,
    pub(crate) generation: u32,
    /// Samples ever appended, modulo 2^32: snapshots tell by it which of the newest are not theirs.
    pub(crate) appended: u32,
    /// Whether the log has the series record.
    pub(crate) logged: bool,
    /// Whether an appender holds a sample for it that is not committed.
    pub(crate) pending: bool,
    /// Whether it may leave the head although it never had a sample: its maker has had time to append.
    pub(crate) spared: bool,
    open: Option<Open>,
    /// Chunks that take no more samples and are not on disk yet; usually none, and then 8 bytes. Younger
    /// than `mapped`.
    #[expect(clippy::box_collection, reason = "a thin pointer for what is nearly always empty")]
    closed: Option<Box<Vec<Closed>>>,
    mapped: Vec<MappedRef>,
}

#[derive(Debug)]
struct Open {
    appender: Appender,
    data: Vec<u8>,
    min: Timestamp,
    /// The chunk is closed by a sample at or after this.
    cut_at: Timestamp,
}

/// A chunk that takes no more samples.
#[derive(Clone, Debug)]
struct Closed {
    min: Timestamp,
    max: Timestamp,
    encoding: Encoding,
    /// The open chunk's bytes, cut to size in place: moving them would leave holes in the heap.
    data: Box<[u8]>,
}

/// Why a sample cannot follow the samples of its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Older than the newest.
    OutOfOrder,
    /// The newest has this time and another value.
    Duplicate,
    /// The newest has this time and this value: nothing needs to be done.
    Repeated,
}

impl Series {
    pub(crate) fn new(wal_ref: u64, generation: u32) -> Self {
        Self {
            wal_ref,
            generation,
            appended: 0,
            logged: false,
            pending: false,
            spared: false,
            open: None,
            closed: None,
            mapped: Vec::new(),
        }
    }

    fn closed(&self) -> &[Closed] {
        self.closed.as_ref().map_or(&[], |closed| closed)
    }

    fn closed_mut(&mut self) -> &mut Vec<Closed> {
        self.closed.get_or_insert_default()
    }

    /// The time of the newest sample.
    pub(crate) fn max_ts(&self) -> Option<Timestamp> {
        let open = self.open.as_ref().map(|open| open.appender.last_ts());
        open.or_else(|| self.closed().last().map(|chunk| chunk.max))
            .or_else(|| self.mapped.last().map(|chunk| chunk.max()))
    }

    /// The time of the oldest sample.
    pub(crate) fn min_ts(&self) -> Option<Timestamp> {
        let mapped = self.mapped.first().map(|chunk| chunk.min());
        mapped
            .or_else(|| self.closed().first().map(|chunk| chunk.min))
            .or_else(|| self.open.as_ref().map(|open| open.min))
    }

    /// The kind of the newest sample, if it is a histogram.
    pub(crate) fn last_histogram(&self) -> Option<&HistogramValue> {
        match &self.open.as_ref()?.appender {
            Appender::Histogram(appender) => Some(appender.last()),
            Appender::Xor(_) => None,
        }
    }

    /// Whether a float may follow.
    pub(crate) fn check(&self, ts: Timestamp, value: f64) -> Result<(), Refusal> {
        self.check_time(ts, || match &self.open.as_ref()?.appender {
            Appender::Xor(appender) => Some(appender.last_value().to_bits() == value.to_bits()),
            Appender::Histogram(_) => Some(false),
        })
    }

    /// Whether a histogram may follow.
    pub(crate) fn check_histogram(&self, ts: Timestamp, value: &HistogramValue) -> Result<(), Refusal> {
        self.check_time(ts, || self.last_histogram().map(|last| same_histogram(last, value)))
    }

    /// Whether a sample of any kind may follow.
    pub(crate) fn check_value(&self, ts: Timestamp, value: &Value) -> Result<(), Refusal> {
        match value {
            Value::Float(value) => self.check(ts, *value),
            Value::Histogram(value) => self.check_histogram(ts, value),
        }
    }

    fn check_time(&self, ts: Timestamp, same: impl FnOnce() -> Option<bool>) -> Result<(), Refusal> {
        match self.max_ts() {
            Some(newest) if ts < newest => Err(Refusal::OutOfOrder),
            Some(newest) if ts == newest => {
                Err(if same() == Some(true) { Refusal::Repeated } else { Refusal::Duplicate })
            }
            _ => Ok(()),
        }
    }

    /// Appends a sample that [`Series::check_value`] accepts. `range_ms` is the length of a block: a
    /// chunk never crosses a multiple of it. Returns whether a chunk was closed.
    pub(crate) fn append(&mut self, ts: Timestamp, value: &Value, range_ms: i64) -> bool {
        self.appended = self.appended.wrapping_add(1);
        let mut reset = ResetHint::Unknown;
        if let Some(open) = &mut self.open {
            match open.append(ts, value) {
                Ok(()) => return false,
                Err(hint) => reset = hint,
            }
        }
        let closed = self.close();
        let mut data = Vec::with_capacity(GROWTH_BYTES);
        let appender = Appender::start(&mut data, ts, value, reset);
        let cut_at = (ts.div_euclid(range_ms) + 1).saturating_mul(range_ms);
        self.open = Some(Open { appender, data, min: ts, cut_at });
        closed
    }

    /// Closes the open chunk; false if there is none.
    pub(crate) fn close(&mut self) -> bool {
        let Some(open) = self.open.take() else { return false };
        self.closed_mut().push(Closed {
            min: open.min,
            max: open.appender.last_ts(),
            encoding: open.appender.encoding(),
            data: open.data.into_boxed_slice(),
        });
        true
    }

    /// The closed chunks that can be mapped now. A chunk that cannot keeps all later ones in memory, so
    /// that the mapped ones are always the oldest.
    pub(crate) fn unmapped(&self) -> impl Iterator<Item = Unmapped> + '_ {
        let mappable = self.closed().iter().take_while(|chunk| MappedRef::can_hold(chunk.min, chunk.max));
        mappable.map(|chunk| Unmapped {
            wal_ref: self.wal_ref,
            min: chunk.min,
            max: chunk.max,
            encoding: chunk.encoding,
            data: chunk.data.clone(),
        })
    }

    /// Replaces the oldest closed chunk, which begins at the reference's time, by the mapped one.
    pub(crate) fn set_mapped(&mut self, reference: MappedRef) {
        if self.closed().first().is_some_and(|chunk| chunk.min == reference.min()) {
            self.closed_mut().remove(0);
            self.mapped.push(reference);
            if self.closed().is_empty() {
                self.closed = None;
            }
        }
    }

    /// Takes over mapped chunks found at opening, where they do not overlap what the series has. A
    /// series may have had several names in the log, each with its chunks; and after a power cut the
    /// log may lack samples that chunks have.
    pub(crate) fn adopt(&mut self, chunks: &[MappedRef], from: Timestamp, files: &MappedChunks) {
        for &chunk in chunks.iter().filter(|chunk| chunk.max() >= from) {
            let at = self.mapped.partition_point(|other| other.min() < chunk.min());
            let follows = at == 0 || self.mapped[at - 1].max() < chunk.min();
            let memory = self.closed().first().map(|closed| closed.min);
            let memory = memory.or_else(|| self.open.as_ref().map(|open| open.min));
            let next = self.mapped.get(at).map(|next| next.min()).or(memory);
            if follows && next.is_none_or(|next| chunk.max() < next) {
                self.mapped.insert(at, chunk);
            } else if self.max_ts().is_some_and(|newest| newest < chunk.min())
                && let Ok(found) = files.chunk(chunk)
            {
                // Mapped chunks must be older than those in memory, so this one joins the latter.
                self.close();
                let (min, max, data) = (chunk.min(), chunk.max(), found.data().into());
                self.closed_mut().push(Closed { min, max, encoding: found.encoding, data });
            }
        }
    }

    /// Drops closed chunks whose samples are all before `min`; and an open one, too.
    pub(crate) fn truncate_before(&mut self, min: Timestamp) {
        self.mapped.retain(|chunk| chunk.max() >= min);
        self.mapped.shrink_to_fit();
        if let Some(closed) = &mut self.closed {
            closed.retain(|chunk| chunk.max >= min);
        }
        if self.open.as_ref().is_some_and(|open| open.appender.last_ts() < min) {
            self.open = None;
        }
    }

    /// Whether there is no sample.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunk_count() == 0
    }

    pub(crate) fn chunk_count(&self) -> usize {
        self.mapped.len() + self.closed().len() + usize::from(self.open.is_some())
    }

    /// The chunks that overlap `range`, without the newest `hidden` samples.
    pub(crate) fn visible(
        &self,
        range: TimeRange,
        hidden: u32,
        files: &MappedChunks,
    ) -> Result<Vec<Visible>, Malformed> {
        let mut hidden = hidden as usize;
        let mut chunks = Vec::with_capacity(self.chunk_count());
        let mut take = |min, max, bytes: ChunkBytes| {
            let count = usize::from(chunk::count(bytes.data()));
            let limit = count.saturating_sub(hidden);
            hidden = hidden.saturating_sub(count);
            if limit > 0 && range.overlaps(TimeRange::new(min, max)) {
                chunks.push(Visible { min, max, bytes, limit });
            }
            hidden > 0
        };
        let mut more = true;
        if let Some(open) = &self.open {
            let bytes = ChunkBytes::Memory(open.appender.encoding(), open.data.as_slice().into());
            more = take(open.min, open.appender.last_ts(), bytes);
        }
        for closed in self.closed().iter().rev() {
            let bytes = ChunkBytes::Memory(closed.encoding, Arc::from(&*closed.data));
            more = take(closed.min, closed.max, bytes);
        }
        for &reference in self.mapped.iter().rev() {
            let span = TimeRange::new(reference.min(), reference.max());
            if more || range.overlaps(span) {
                more = take(span.start, span.end, ChunkBytes::Mapped(files.chunk(reference)?));
            }
        }
        chunks.reverse();
        Ok(chunks)
    }
}

/// Whether two histograms are the same, NaNs by their bits. The log's form is the measure.
fn same_histogram(a: &HistogramValue, b: &HistogramValue) -> bool {
    let bytes = |value| {
        let mut records = HistogramRecords::new();
        records.push(0, 0, value);
        records.finish().map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    a == b || bytes(a) == bytes(b)
}

/// The bytes of a chunk of the head.
#[derive(Clone)]
enum ChunkBytes {
    Memory(Encoding, Arc<[u8]>),
    Mapped(MappedChunk),
}

impl ChunkBytes {
    fn data(&self) -> &[u8] {
        match self {
            Self::Memory(_, data) => data,
            Self::Mapped(chunk) => chunk.data(),
        }
    }

    fn encoding(&self) -> Encoding {
        match self {
            Self::Memory(encoding, _) => *encoding,
            Self::Mapped(chunk) => chunk.encoding,
        }
    }
}

/// A chunk as a reader may see it: its first `limit` samples.
#[derive(Clone)]
pub(crate) struct Visible {
    pub(crate) min: Timestamp,
    pub(crate) max: Timestamp,
    bytes: ChunkBytes,
    limit: usize,
}

impl Visible {
    pub(crate) fn decode(&self, range: TimeRange, into: &mut Samples) -> Result<(), Malformed> {
        chunk::decode(self.bytes.encoding(), self.bytes.data(), self.limit, range, into)
    }

    /// The samples in `range` that are not deleted as chunks of their own; the same bytes where that is
    /// all of them.
    pub(crate) fn cut_to(
        &self,
        range: TimeRange,
        deleted: Option<&Intervals>,
    ) -> Result<Vec<Chunk>, Malformed> {
        let (data, encoding) = (self.bytes.data(), self.bytes.encoding());
        let whole = self.limit == usize::from(chunk::count(data)) && deleted.is_none();
        if whole && range.contains(self.min) && range.contains(self.max) {
            return Ok(vec![Chunk { min: self.min, max: self.max, encoding, data: data.into() }]);
        }
        let keep = |ts| range.contains(ts) && !deleted.is_some_and(|deleted| deleted.contains(ts));
        chunk::filter(encoding, data, self.limit, keep)
    }
}

impl Open {
    /// Appends, or says what is known about a counter reset at this place.
    fn append(&mut self, ts: Timestamp, value: &Value) -> Result<(), ResetHint> {
        if ts >= self.cut_at || chunk::count(&self.data) >= 2 * SAMPLES_PER_CHUNK {
            return Err(ResetHint::Unknown);
        }
        if self.data.capacity() - self.data.len() < FLOAT_BYTES_MAX {
            self.data.reserve_exact(GROWTH_BYTES);
        }
        self.appender.append(&mut self.data, ts, value)?;
        let quarter = SAMPLES_PER_CHUNK / 4;
        if chunk::count(&self.data) == quarter && self.appender.encoding() == Encoding::Xor {
            self.cut_at = predicted_end(self.min, ts, self.cut_at);
        }
        Ok(())
    }
}

/// Evens out the chunks of a block: after a quarter of a chunk the number of chunks up to `end` is
/// foreseen, and each gets an equal part of the time that is left.
fn predicted_end(start: Timestamp, now: Timestamp, end: Timestamp) -> Timestamp {
    let quarter = now.saturating_sub(start).saturating_add(1).max(1);
    let chunks = end.saturating_sub(start) / quarter.saturating_mul(4);
    if chunks <= 1 { end } else { start + (end - start) / chunks }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::memory::Memory;

    const RANGE: i64 = 7_200_000;

    fn no_files() -> MappedChunks {
        MappedChunks::open(Arc::new(Memory::new()), std::path::Path::new("/c")).unwrap().0
    }

    #[test]
    fn a_series_takes_the_memory_its_documentation_says() {
        assert!(size_of::<Option<Series>>() <= 144, "{}", size_of::<Option<Series>>());
    }

    #[test]
    fn chunks_are_even_and_respect_the_edge_of_a_block() {
        let mut series = Series::new(1, 1);
        for step in 0..=480 {
            series.append(step * 15_000, &Value::Float(step as f64), RANGE);
        }
        let chunks = series.visible(TimeRange::ALL, 0, &no_files()).unwrap();
        let counts: Vec<_> = chunks.iter().map(|chunk| chunk.limit).collect();
        assert_eq!(counts.iter().sum::<usize>(), 481);
        assert_eq!(*counts.last().unwrap(), 1, "the sample at 2 h begins a new chunk: {counts:?}");
        assert!(counts[..counts.len() - 1].iter().all(|&n| (100..=160).contains(&n)), "{counts:?}");
    }

    #[test]
    fn hidden_samples_are_taken_from_the_end() {
        let mut series = Series::new(1, 1);
        for step in 0..300 {
            series.append(step, &Value::Float(0.0), RANGE);
        }
        let mut samples = Samples::default();
        for chunk in series.visible(TimeRange::ALL, 250, &no_files()).unwrap() {
            chunk.decode(TimeRange::ALL, &mut samples).unwrap();
        }
        assert_eq!(samples.ts, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn order_and_duplicates() {
        let mut series = Series::new(1, 1);
        series.append(10, &Value::Float(f64::NAN), RANGE);
        assert_eq!(series.check(10, f64::NAN), Err(Refusal::Repeated));
        assert_eq!(series.check(10, model::stale_nan()), Err(Refusal::Duplicate));
        assert_eq!(series.check(9, 1.0), Err(Refusal::OutOfOrder));
        assert_eq!(series.check(11, 1.0), Ok(()));
    }
}
