//! The samples of one series in memory.

use model::{Samples, TimeRange, Timestamp};

use crate::chunk::xor::{self, XorAppender};
use crate::chunk::{self, Chunk, Encoding};
use crate::codec::Malformed;

/// A chunk is meant to have so many samples.
const SAMPLES_PER_CHUNK: u16 = 120;
/// A chunk is closed before its bytes would exceed this.
const CHUNK_BYTES_MAX: usize = 1024 - 19;
/// Growth steps of an open chunk, so that the average slack stays below 24 bytes.
const GROWTH_BYTES: usize = 48;

/// A series of the head.
///
/// 144 bytes, plus the bytes of the open chunk (about 100 on average at 1.6 bytes a sample), plus 32
/// bytes for each closed chunk that is mapped (six of them in a 3 h head at 15 s).
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
    open: Option<Open>,
    closed: Vec<Closed>,
}

#[derive(Debug)]
struct Open {
    appender: XorAppender,
    data: Vec<u8>,
    min: Timestamp,
    /// The chunk is closed by a sample at or after this.
    cut_at: Timestamp,
}

/// A chunk that takes no more samples.
#[derive(Clone, Debug)]
pub(crate) struct Closed {
    pub(crate) min: Timestamp,
    pub(crate) max: Timestamp,
    pub(crate) place: Place,
}

/// Where the bytes of a closed chunk are.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Memory(Encoding, std::sync::Arc<[u8]>),
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
            open: None,
            closed: Vec::new(),
        }
    }

    /// The time of the newest sample.
    pub(crate) fn max_ts(&self) -> Option<Timestamp> {
        let open = self.open.as_ref().map(|open| open.appender.last_ts());
        open.or_else(|| self.closed.last().map(|chunk| chunk.max))
    }

    /// The time of the oldest sample.
    pub(crate) fn min_ts(&self) -> Option<Timestamp> {
        self.closed.first().map(|chunk| chunk.min).or_else(|| self.open.as_ref().map(|open| open.min))
    }

    /// Whether a float may follow.
    pub(crate) fn check(&self, ts: Timestamp, value: f64) -> Result<(), Refusal> {
        match self.max_ts() {
            Some(newest) if ts < newest => Err(Refusal::OutOfOrder),
            Some(newest) if ts == newest => {
                let same =
                    self.open.as_ref().is_some_and(|o| o.appender.last_value().to_bits() == value.to_bits());
                Err(if same { Refusal::Repeated } else { Refusal::Duplicate })
            }
            _ => Ok(()),
        }
    }

    /// Appends a float that [`Series::check`] accepts. `range_ms` is the length of a block: a chunk
    /// never crosses a multiple of it. Returns whether a chunk was closed.
    pub(crate) fn append(&mut self, ts: Timestamp, value: f64, range_ms: i64) -> bool {
        self.appended = self.appended.wrapping_add(1);
        let mut closed = false;
        if let Some(open) = &mut self.open {
            if open.has_room(ts) {
                open.append(ts, value);
                return false;
            }
            self.close();
            closed = true;
        }
        let mut data = Vec::with_capacity(GROWTH_BYTES);
        let appender = XorAppender::start(&mut data, ts, value);
        let cut_at = (ts.div_euclid(range_ms) + 1).saturating_mul(range_ms);
        self.open = Some(Open { appender, data, min: ts, cut_at });
        closed
    }

    /// Closes the open chunk.
    pub(crate) fn close(&mut self) {
        if let Some(open) = self.open.take() {
            let (min, max) = (open.min, open.appender.last_ts());
            self.closed.push(Closed { min, max, place: Place::Memory(Encoding::Xor, open.data.into()) });
        }
    }

    /// Drops closed chunks whose samples are all before `min`; and an open one, too.
    pub(crate) fn truncate_before(&mut self, min: Timestamp) {
        self.closed.retain(|chunk| chunk.max >= min);
        self.closed.shrink_to_fit();
        if self.open.as_ref().is_some_and(|open| open.appender.last_ts() < min) {
            self.open = None;
        }
    }

    /// Whether there is no sample.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_none() && self.closed.is_empty()
    }

    pub(crate) fn chunk_count(&self) -> usize {
        self.closed.len() + usize::from(self.open.is_some())
    }

    /// The chunks that overlap `range`, without the newest `hidden` samples.
    pub(crate) fn visible(&self, range: TimeRange, hidden: u32) -> Vec<Visible> {
        let mut hidden = hidden as usize;
        let mut chunks = Vec::with_capacity(self.chunk_count());
        let mut take = |min, max, encoding, data: std::sync::Arc<[u8]>| {
            let count = usize::from(chunk::count(&data));
            let limit = count.saturating_sub(hidden);
            hidden = hidden.saturating_sub(count);
            if limit > 0 && range.overlaps(TimeRange::new(min, max)) {
                chunks.push(Visible { min, max, encoding, data, limit });
            }
        };
        if let Some(open) = &self.open {
            take(open.min, open.appender.last_ts(), Encoding::Xor, open.data.as_slice().into());
        }
        for closed in self.closed.iter().rev() {
            let Place::Memory(encoding, data) = &closed.place;
            take(closed.min, closed.max, *encoding, std::sync::Arc::clone(data));
        }
        chunks.reverse();
        chunks
    }
}

/// A chunk as a reader may see it: its first `limit` samples.
#[derive(Clone, Debug)]
pub(crate) struct Visible {
    pub(crate) min: Timestamp,
    pub(crate) max: Timestamp,
    pub(crate) encoding: Encoding,
    pub(crate) data: std::sync::Arc<[u8]>,
    pub(crate) limit: usize,
}

impl Visible {
    pub(crate) fn decode(&self, range: TimeRange, into: &mut Samples) -> Result<(), Malformed> {
        chunk::decode(self.encoding, &self.data, self.limit, range, into)
    }

    /// The samples in `range` as chunks of their own; the same bytes where all of them are in it.
    pub(crate) fn cut_to(&self, range: TimeRange) -> Result<Vec<Chunk>, Malformed> {
        let whole = self.limit == usize::from(chunk::count(&self.data));
        if whole && range.contains(self.min) && range.contains(self.max) {
            let data = Box::from(&*self.data);
            return Ok(vec![Chunk { min: self.min, max: self.max, encoding: self.encoding, data }]);
        }
        let mut samples = Samples::default();
        self.decode(range, &mut samples)?;
        Ok(chunk::encode(&samples))
    }
}

impl Open {
    fn has_room(&self, ts: Timestamp) -> bool {
        ts < self.cut_at
            && xor::count(&self.data) < 2 * SAMPLES_PER_CHUNK
            && self.data.len() <= CHUNK_BYTES_MAX
    }

    fn append(&mut self, ts: Timestamp, value: f64) {
        // The worst sample takes 4 + 64 bits of time and 13 + 64 of value: 19 bytes.
        if self.data.capacity() - self.data.len() < 19 {
            self.data.reserve_exact(GROWTH_BYTES);
        }
        self.appender.append(&mut self.data, ts, value);
        if xor::count(&self.data) == SAMPLES_PER_CHUNK / 4 {
            self.cut_at = predicted_end(self.min, ts, self.cut_at);
        }
    }
}

/// Evens out the chunks of a block: after a quarter of a chunk the number of chunks up to `end` is
/// foreseen, and each gets an equal part of the time that is left.
fn predicted_end(start: Timestamp, now: Timestamp, end: Timestamp) -> Timestamp {
    let chunks =
        end.saturating_sub(start) / now.saturating_sub(start).saturating_add(1).saturating_mul(4).max(1);
    if chunks <= 1 { end } else { start + (end - start) / chunks }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: i64 = 7_200_000;

    #[test]
    fn chunks_are_even_and_respect_the_edge_of_a_block() {
        let mut series = Series::new(1, 1);
        for step in 0..=480 {
            series.append(step * 15_000, step as f64, RANGE);
        }
        let chunks = series.visible(TimeRange::ALL, 0);
        let counts: Vec<_> = chunks.iter().map(|chunk| chunk.limit).collect();
        assert_eq!(counts.iter().sum::<usize>(), 481);
        assert_eq!(*counts.last().unwrap(), 1, "the sample at 2 h begins a new chunk: {counts:?}");
        assert!(counts[..counts.len() - 1].iter().all(|&n| (100..=160).contains(&n)), "{counts:?}");
    }

    #[test]
    fn hidden_samples_are_taken_from_the_end() {
        let mut series = Series::new(1, 1);
        for step in 0..300 {
            series.append(step, 0.0, RANGE);
        }
        let mut samples = Samples::default();
        for chunk in series.visible(TimeRange::ALL, 250) {
            chunk.decode(TimeRange::ALL, &mut samples).unwrap();
        }
        assert_eq!(samples.ts, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn order_and_duplicates() {
        let mut series = Series::new(1, 1);
        series.append(10, f64::NAN, RANGE);
        assert_eq!(series.check(10, f64::NAN), Err(Refusal::Repeated));
        assert_eq!(series.check(10, model::stale_nan()), Err(Refusal::Duplicate));
        assert_eq!(series.check(9, 1.0), Err(Refusal::OutOfOrder));
        assert_eq!(series.check(11, 1.0), Ok(()));
    }
}
