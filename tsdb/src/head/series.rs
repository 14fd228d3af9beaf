//! The samples of one series in memory.

use model::{HistogramValue, ResetHint, TimeRange, Timestamp};
use smallvec::SmallVec;

use super::blocks::{Blocks, Chain, NONE};
use super::line::{BEGUN, BOXED, LOGGED, Line, PENDING, SEEN, SPARED, VALUED};
use super::mapped::{MappedChunks, MappedRef, Unmapped};
use super::slab::Slab;
use super::visible::{ChunkBytes, Visible};
use crate::chunk::{self, Encoding, SAMPLES_PER_CHUNK, Sample, Value};
use crate::codec::Malformed;
use crate::codec::bits::Pending;
use crate::wal::record::HistogramRecords;

/// The rest of a series: 40 bytes, and 16 for each mapped chunk (six of them in a 3 h head at 15 s).
#[derive(Debug, Default)]
pub(super) struct Rest {
    pub(super) mapped: Vec<MappedRef>,
    /// The open chunk, if it is not one of floats without start times, which lie in the line and in blocks.
    pub(super) open: Option<Box<Open>>,
    /// The oldest closed chunk in [`Store::closed`], plus 1; 0: there is none.
    pub(super) closed: u32,
    /// Samples ever appended before the open chunk, modulo 2^32.
    pub(super) before: u32,
}

/// An open chunk on its own: of histograms, or of floats with start times. It takes its room as a vector does.
#[derive(Debug)]
pub(super) struct Open {
    appender: chunk::Appender,
    data: Vec<u8>,
}

/// Open chunks of floats are shorter as a rule: 120 samples of eight bytes.
pub(crate) const OPEN_BYTES: usize = 1024;

/// What chunks of the head have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The length of a block: a chunk never crosses a multiple of it.
    pub(crate) range_ms: i64,
    pub(crate) chunks: Chunks,
}

/// What becomes of samples in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// Floats are encoded as XOR.
    Xor,
    /// Floats are encoded as XOR2, with start times.
    Xor2,
    /// Of a series only the newest sample is noted: the log has the others, and that is all they are wanted for.
    None,
}

/// A chunk that takes no more samples and is not on disk yet. Younger than mapped ones.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) min: Timestamp,
    pub(super) max: Timestamp,
    pub(super) count: u16,
    /// The name under which the log has its samples, or the last of them.
    pub(super) wal_ref: u64,
    pub(super) bytes: ClosedBytes,
    /// The next younger one of the series, plus 1; 0: there is none.
    pub(super) next: u32,
}

#[derive(Debug)]
pub(super) enum ClosedBytes {
    /// The blocks of the open chunk that it was, with the bits that filled none.
    Xor(Chain, Pending),
    Other(Encoding, Box<[u8]>),
}

/// What the series of a shard share.
#[derive(Debug, Default)]
pub(super) struct Store {
    blocks: Blocks,
    closed: Slab<Option<Closed>>,
    free: Vec<u32>,
}

/// A series of the head: its parts, for as long as its shard is locked.
///
/// 104 bytes, plus the blocks of the open chunk: 192 at 1.6 bytes a sample before it is full, half of
/// that on average, and half a block of slack.
pub(crate) struct Series<'a> {
    pub(super) line: &'a mut Line,
    pub(super) rest: &'a mut Rest,
    pub(super) store: &'a mut Store,
}

/// Which samples of a series a reader sees, counted from the newest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// The newest, which came too late for it.
    pub(crate) hidden: u32,
    /// Those that the series had before its history was attached, hidden ones included; `u32::MAX`: all.
    pub(crate) known: u32,
}

impl Extent {
    pub(crate) const ALL: Self = Self { hidden: 0, known: u32::MAX };

    pub(crate) fn is_all(self) -> bool {
        self.hidden == 0 && self.known == u32::MAX
    }
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

impl Store {
    /// Where most blocks are free, since many chunks were full at the same time, moves the others together and
    /// gives the rest back to the allocator.
    pub(super) fn compact<'a>(&mut self, lines: impl Iterator<Item = &'a mut Line>) {
        if self.free.len() == self.closed.len() {
            (self.free, self.closed) = (Vec::new(), Slab::default());
        }
        if !self.blocks.is_sparse() {
            return;
        }
        let old = std::mem::take(&mut self.blocks);
        for line in lines.filter(|line| line.count > 0 && line.flags & BOXED == 0) {
            let moved = self.blocks.copy(&old, line.floats().0);
            line.chain = (moved.first, moved.last);
        }
        for chunk in self.closed.iter_mut().flatten() {
            if let ClosedBytes::Xor(chain, _) = &mut chunk.bytes {
                *chain = self.blocks.copy(&old, *chain);
            }
        }
    }

    /// A chunk of floats as it is written.
    fn xor_chunk(&self, count: u16, chain: Chain, pending: Pending) -> Vec<u8> {
        let mut data = Vec::with_capacity(2 + usize::from(chain.words) * 8 + 8);
        data.extend_from_slice(&count.to_be_bytes());
        self.blocks.pieces(chain).for_each(|piece| data.extend_from_slice(piece));
        data.extend(pending.bytes());
        data
    }

    pub(super) fn closed_chunk(&self, chunk: &Closed) -> (Encoding, Vec<u8>) {
        match &chunk.bytes {
            ClosedBytes::Xor(chain, pending) => {
                (Encoding::Xor, self.xor_chunk(chunk.count, *chain, *pending))
            }
            ClosedBytes::Other(encoding, data) => (*encoding, data.to_vec()),
        }
    }

    /// The chunk with number `at` - 1.
    pub(super) fn closed(&self, at: u32) -> Option<&Closed> {
        self.closed.get(at.checked_sub(1)? as usize)?.as_ref()
    }

    fn add_closed(&mut self, chunk: Closed) -> u32 {
        let at = self.free.pop().unwrap_or_else(|| u32::try_from(self.closed.len()).unwrap_or(u32::MAX));
        *self.closed.grow_to(at as usize) = Some(chunk);
        at + 1
    }

    /// Takes a closed chunk out; returns the next one.
    pub(super) fn remove_closed(&mut self, at: u32) -> u32 {
        let Some(slot) = at.checked_sub(1) else { return 0 };
        let Some(chunk) = self.closed.get_mut(slot as usize).and_then(Option::take) else { return 0 };
        if let ClosedBytes::Xor(chain, _) = chunk.bytes {
            self.blocks.free(chain);
        }
        self.free.push(slot);
        chunk.next
    }
}

impl<'a> Series<'a> {
    pub(super) fn new(line: &'a mut Line, rest: &'a mut Rest, store: &'a mut Store) -> Self {
        Self { line, rest, store }
    }

    /// Makes an unused entry a series.
    pub(super) fn begin(&mut self, wal_ref: u64, generation: u32) {
        *self.line = Line { wal_ref, generation, ..Line::default() };
        *self.rest = Rest::default();
    }

    /// Frees what the series has, and its entry.
    pub(super) fn end(&mut self) {
        self.drop_open();
        while self.rest.closed != 0 {
            self.rest.closed = self.store.remove_closed(self.rest.closed);
        }
        (*self.line, *self.rest) = (Line::default(), Rest::default());
    }

    /// The series' name in the log. Never used twice within a directory.
    pub(crate) fn wal_ref(&self) -> u64 {
        self.line.wal_ref
    }

    pub(crate) fn set_wal_ref(&mut self, wal_ref: u64) {
        self.line.wal_ref = wal_ref;
    }

    /// Whether the log has the series record.
    pub(crate) fn is_logged(&self) -> bool {
        self.line.flags & LOGGED != 0
    }

    pub(crate) fn set_logged(&mut self) {
        self.line.flags |= LOGGED;
    }

    /// Whether an appender holds a sample for it that is not committed.
    pub(crate) fn is_pending(&self) -> bool {
        self.line.flags & PENDING != 0
    }

    pub(crate) fn set_pending(&mut self, pending: bool) {
        self.line.flags = self.line.flags & !(PENDING | SEEN) | if pending { PENDING } else { 0 };
    }

    /// The batch that is being committed has a sample for the series. Whether it is not the first one; that may be said
    /// wrongly, but never missed.
    #[inline]
    pub(crate) fn is_seen_again(&mut self) -> bool {
        let again = self.line.flags & SEEN != 0;
        self.line.flags |= SEEN;
        again
    }

    /// The log has the series record and the sample that was pending.
    #[inline]
    pub(crate) fn set_committed(&mut self) {
        self.line.flags = self.line.flags & !(PENDING | SEEN) | LOGGED;
    }

    /// Spares a series that has no sample yet; false if it has been spared before.
    pub(crate) fn spare(&mut self) -> bool {
        let first = self.line.flags & SPARED == 0;
        self.line.flags |= SPARED;
        first
    }

    /// Samples ever appended, modulo 2^32: snapshots tell by it which of the newest are not theirs.
    pub(crate) fn appended(&self) -> u32 {
        self.rest.before.wrapping_add(u32::from(self.line.count))
    }

    /// The closed chunks, oldest first.
    pub(super) fn closed(&self) -> impl Iterator<Item = &Closed> {
        let first = self.store.closed(self.rest.closed);
        std::iter::successors(first, |chunk| self.store.closed(chunk.next))
    }

    pub(super) fn has_open(&self) -> bool {
        self.line.count > 0
    }

    /// The time of the newest sample.
    pub(crate) fn max_ts(&self) -> Option<Timestamp> {
        (self.line.flags & BEGUN != 0).then(|| self.line.newest())
    }

    /// The newest sample, if it is a float that is at hand.
    pub(crate) fn newest_float(&self) -> Option<(Timestamp, f64)> {
        (self.line.flags & VALUED != 0).then(|| (self.line.newest(), f64::from_bits(self.line.bits)))
    }

    /// The time of the oldest sample.
    pub(crate) fn min_ts(&self) -> Option<Timestamp> {
        let mapped = self.rest.mapped.first().map(|chunk| chunk.min());
        mapped
            .or_else(|| self.closed().next().map(|chunk| chunk.min))
            .or_else(|| self.has_open().then_some(self.line.start))
    }

    /// The kind of the newest sample, if it is a histogram.
    pub(crate) fn last_histogram(&self) -> Option<&HistogramValue> {
        self.rest.open.as_ref()?.appender.last_histogram()
    }

    /// Whether a float may follow.
    #[inline]
    pub(crate) fn check(&self, ts: Timestamp, value: f64) -> Result<(), Refusal> {
        self.line.check(ts, value)
    }

    /// Whether a histogram may follow.
    pub(crate) fn check_histogram(&self, ts: Timestamp, value: &HistogramValue) -> Result<(), Refusal> {
        match self.max_ts() {
            Some(newest) if ts < newest => Err(Refusal::OutOfOrder),
            Some(newest) if ts == newest => {
                let same = self.last_histogram().is_some_and(|last| same_histogram(last, value));
                Err(if same { Refusal::Repeated } else { Refusal::Duplicate })
            }
            _ => Ok(()),
        }
    }

    /// Whether a sample may follow.
    pub(crate) fn check_sample(&self, sample: &Sample) -> Result<(), Refusal> {
        match &sample.value {
            Value::Float(value) => self.check(sample.ts, *value),
            Value::Histogram(value) => self.check_histogram(sample.ts, value),
        }
    }

    /// Appends a float that [`Series::check`] accepts. Returns whether a chunk was closed.
    #[inline]
    pub(crate) fn append(&mut self, ts: Timestamp, value: f64, rules: Rules) -> bool {
        if rules.chunks != Chunks::Xor {
            return self.append_sample(&Sample::float(ts, value), rules);
        }
        let mut closed = false;
        if !self.line.append(&mut self.store.blocks, ts, value, rules.range_ms) {
            closed = self.close();
            self.line.begin(&mut self.store.blocks, ts, value, block_end(ts, rules.range_ms));
        }
        if self.line.is_about_to_end() {
            closed |= self.close();
        }
        closed
    }

    /// The same for a sample that [`Series::check_sample`] accepts.
    pub(crate) fn append_sample(&mut self, sample: &Sample, rules: Rules) -> bool {
        match sample.value {
            _ if rules.chunks == Chunks::None => {
                self.note(sample);
                false
            }
            Value::Float(value) if rules.chunks == Chunks::Xor => self.append(sample.ts, value, rules),
            _ => self.append_open(sample, rules),
        }
    }

    /// Notes a sample that the log has, and nobody else.
    pub(crate) fn note(&mut self, sample: &Sample) {
        if self.max_ts().is_some_and(|newest| newest > sample.ts) {
            return;
        }
        (self.line.start, self.line.newest) = (sample.ts, 0);
        self.line.flags = self.line.flags & !VALUED | BEGUN;
        if let Value::Float(value) = sample.value {
            self.line.set_value(value);
        }
    }

    fn append_open(&mut self, sample: &Sample, rules: Rules) -> bool {
        let ts = sample.ts;
        let since = ts.saturating_sub(self.line.start);
        let mut reset = ResetHint::Unknown;
        if let Some(open) = &mut self.rest.open
            && since < i64::from(self.line.end)
            && self.line.count < 2 * SAMPLES_PER_CHUNK
        {
            match open.appender.append(&mut open.data, sample) {
                Ok(()) => {
                    let since = u32::try_from(since).unwrap_or(u32::MAX);
                    self.line.step_to(since);
                    let Value::Float(value) = sample.value else { return false };
                    self.line.set_value(value);
                    self.line.foresee_end(rules.range_ms);
                    return self.line.is_about_to_end() && self.close();
                }
                Err(hint) => reset = hint,
            }
        }
        let closed = self.close();
        let mut data = Vec::new();
        let appender = chunk::Appender::start(&mut data, sample, rules.chunks == Chunks::Xor2, reset);
        self.rest.open = Some(Box::new(Open { appender, data }));
        self.line.begin_open(ts, block_end(ts, rules.range_ms));
        if let Value::Float(value) = sample.value {
            self.line.set_value(value);
        }
        closed
    }

    /// The sample at a time, if there is one that can be read.
    pub(crate) fn value_at(&self, ts: Timestamp, files: &MappedChunks) -> Option<Value> {
        let mut found = None;
        for chunk in self.visible(TimeRange::new(ts, ts), Extent::ALL, files).ok()? {
            let mut take = |sample: Sample| {
                if sample.ts == ts {
                    found = Some(sample.value);
                }
            };
            chunk::for_each(chunk.bytes.encoding(), chunk.bytes.data(), chunk.limit, &mut take).ok()?;
        }
        found
    }

    /// Closes the open chunk; false if there is none.
    pub(crate) fn close(&mut self) -> bool {
        if !self.has_open() {
            return false;
        }
        let (min, max, count) = (self.line.start, self.line.newest(), self.line.count);
        let bytes = match self.rest.open.take() {
            Some(open) => ClosedBytes::Other(open.appender.encoding(), open.data.into()),
            None => {
                let (chain, pending) = self.line.floats();
                ClosedBytes::Xor(chain, pending)
            }
        };
        let wal_ref = self.line.wal_ref;
        self.push_closed(Closed { min, max, count, wal_ref, bytes, next: 0 });
        self.forget_open(max);
        true
    }

    /// There is no open chunk any more; the newest sample is at `newest`.
    fn forget_open(&mut self, newest: Timestamp) {
        self.rest.before = self.rest.before.wrapping_add(u32::from(self.line.count));
        let Line { chain, words, count, held, pending, flags, .. } = &mut *self.line;
        (*chain, *words, *count, *held, *pending) = ((NONE, NONE), 0, 0, 0, 0);
        *flags &= !BOXED;
        (self.line.start, self.line.newest) = (newest, 0);
    }

    pub(super) fn drop_open(&mut self) {
        if self.has_open() {
            let newest = self.line.newest();
            if self.rest.open.take().is_none() {
                self.store.blocks.free(self.line.floats().0);
            }
            self.forget_open(newest);
        }
    }

    pub(super) fn push_closed(&mut self, chunk: Closed) {
        let at = self.store.add_closed(chunk);
        self.link_closed(at);
    }

    /// Makes a closed chunk the youngest of the series.
    pub(super) fn link_closed(&mut self, at: u32) {
        if let Some(chunk) = self.store.closed[at as usize - 1].as_mut() {
            chunk.next = 0;
        }
        let mut last = self.rest.closed;
        if last == 0 {
            self.rest.closed = at;
            return;
        }
        while let Some(chunk) = self.store.closed[last as usize - 1].as_mut() {
            if chunk.next == 0 {
                chunk.next = at;
                return;
            }
            last = chunk.next;
        }
    }

    /// The closed chunks that can be mapped now. A chunk that cannot keeps all later ones in memory, so
    /// that the mapped ones are always the oldest.
    pub(crate) fn unmapped(&self) -> impl Iterator<Item = Unmapped> {
        let mappable = self.closed().take_while(|chunk| MappedRef::can_hold(chunk.min, chunk.max));
        mappable.map(|chunk| {
            let (encoding, data) = self.store.closed_chunk(chunk);
            let (min, max) = (chunk.min, chunk.max);
            Unmapped { wal_ref: chunk.wal_ref, min, max, encoding, data: data.into() }
        })
    }

    /// Replaces the oldest closed chunk, which begins at the reference's time, by the mapped one.
    pub(crate) fn set_mapped(&mut self, reference: MappedRef) {
        if self.closed().next().is_some_and(|chunk| chunk.min == reference.min()) {
            self.rest.closed = self.store.remove_closed(self.rest.closed);
            let at = self.rest.mapped.len();
            push_exact(&mut self.rest.mapped, at, reference);
        }
    }

    /// Drops closed chunks whose samples are all before `min`; and an open one, too.
    pub(crate) fn truncate_before(&mut self, min: Timestamp) {
        self.rest.mapped.retain(|chunk| chunk.max() >= min);
        self.rest.mapped.shrink_to_fit();
        while self.closed().next().is_some_and(|chunk| chunk.max < min) {
            self.rest.closed = self.store.remove_closed(self.rest.closed);
        }
        if self.has_open() && self.line.newest() < min {
            self.drop_open();
        }
        if self.is_empty() {
            self.line.flags &= !(BEGUN | VALUED);
        }
    }

    pub(crate) fn generation(&self) -> u32 {
        self.line.generation
    }

    /// Whether there are chunks that wait to be mapped.
    pub(crate) fn has_closed(&self) -> bool {
        self.rest.closed != 0
    }

    /// Whether there is no sample.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.mapped.is_empty() && self.rest.closed == 0 && !self.has_open()
    }

    pub(crate) fn chunk_count(&self) -> usize {
        self.rest.mapped.len() + self.closed().count() + usize::from(self.has_open())
    }

    /// The bytes of the open chunk, if it is one of floats and all that `range` has of the series: false if it is not.
    pub(crate) fn copy_open(&self, range: TimeRange, into: &mut SmallVec<[u8; OPEN_BYTES]>) -> bool {
        let is_all = range.start >= self.line.start || self.rest.closed == 0 && self.rest.mapped.is_empty();
        if !self.has_open() || self.line.flags & BOXED != 0 || !is_all {
            return false;
        }
        let (chain, pending) = self.line.floats();
        into.extend_from_slice(&self.line.count.to_be_bytes());
        self.store.blocks.pieces(chain).for_each(|piece| into.extend_from_slice(piece));
        into.extend(pending.bytes());
        true
    }

    /// The chunks that overlap `range`, of the newest `known` samples without the newest `hidden` ones.
    pub(crate) fn visible(
        &self,
        range: TimeRange,
        Extent { hidden, known }: Extent,
        files: &MappedChunks,
    ) -> Result<Vec<Visible>, Malformed> {
        let (mut hidden, mut known) = (hidden as usize, known as usize);
        let mut chunks = Vec::new();
        let mut take = |min, max, count: u16, bytes: &dyn Fn() -> Result<ChunkBytes, Malformed>| {
            // A chunk that began before the known samples has, of these, hidden ones only.
            let limit = if known > hidden { usize::from(count).saturating_sub(hidden) } else { 0 };
            hidden = hidden.saturating_sub(usize::from(count));
            known = known.saturating_sub(usize::from(count));
            if limit > 0 && range.overlaps(TimeRange::new(min, max)) {
                chunks.push(Visible { min, max, bytes: bytes()?, limit });
            }
            Ok(hidden > 0 || known == 0)
        };
        let mut more = true;
        if self.has_open() {
            let (line, store) = (&*self.line, &*self.store);
            more = take(line.start, line.newest(), line.count, &|| {
                Ok(match &self.rest.open {
                    Some(open) => ChunkBytes::Memory(open.appender.encoding(), open.data.clone()),
                    None => {
                        let (chain, pending) = line.floats();
                        ChunkBytes::Memory(Encoding::Xor, store.xor_chunk(line.count, chain, pending))
                    }
                })
            })?;
        }
        let closed: SmallVec<[&Closed; 2]> = self.closed().collect();
        for chunk in closed.into_iter().rev() {
            more = take(chunk.min, chunk.max, chunk.count, &|| {
                let (encoding, data) = self.store.closed_chunk(chunk);
                Ok(ChunkBytes::Memory(encoding, data))
            })?;
        }
        for &reference in self.rest.mapped.iter().rev() {
            let span = TimeRange::new(reference.min(), reference.max());
            if more || range.overlaps(span) {
                let chunk = files.chunk(reference)?;
                let count = chunk::count(chunk.encoding, chunk.data());
                more = take(span.start, span.end, count, &|| Ok(ChunkBytes::Mapped(chunk.clone())))?;
            }
        }
        chunks.reverse();
        Ok(chunks)
    }
}

/// Inserts without room for more: a series gets a mapped chunk twice an hour, and keeps it for three.
pub(super) fn push_exact(mapped: &mut Vec<MappedRef>, at: usize, chunk: MappedRef) {
    mapped.reserve_exact(1);
    mapped.insert(at, chunk);
}

/// The end of the block that `ts` falls into.
fn block_end(ts: Timestamp, range_ms: i64) -> Timestamp {
    (ts.div_euclid(range_ms) + 1).saturating_mul(range_ms)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::Samples;

    use super::*;
    use crate::disk::memory::Memory;

    const RANGE: Rules = Rules { range_ms: 7_200_000, chunks: Chunks::Xor };

    fn no_files() -> MappedChunks {
        MappedChunks::open(Arc::new(Memory::new()), std::path::Path::new("/c")).unwrap()
    }

    /// One series on its own.
    #[derive(Default)]
    struct Lone(Line, Rest, Store);

    impl Lone {
        fn new() -> Self {
            let mut lone = Self::default();
            lone.series().begin(1, 1);
            lone
        }

        fn series(&mut self) -> Series<'_> {
            Series::new(&mut self.0, &mut self.1, &mut self.2)
        }
    }

    #[test]
    fn a_series_takes_the_memory_its_documentation_says() {
        assert_eq!((size_of::<Line>(), size_of::<Rest>()), (64, 40));
    }

    #[test]
    fn chunks_respect_the_edge_of_a_block() {
        let mut lone = Lone::new();
        let mut series = lone.series();
        for step in 0..=480 {
            series.append(step * 15_000, step as f64, RANGE);
        }
        let chunks = series.visible(TimeRange::ALL, Extent::ALL, &no_files()).unwrap();
        let counts: Vec<_> = chunks.iter().map(|chunk| chunk.limit).collect();
        assert_eq!(counts.iter().sum::<usize>(), 481);
        assert_eq!(*counts.last().unwrap(), 1, "the sample at 2 h begins a new chunk: {counts:?}");
        assert!(counts[1..counts.len() - 2].iter().all(|&n| n == 120), "{counts:?}");
    }

    #[test]
    fn hidden_samples_are_taken_from_the_end() {
        let mut lone = Lone::new();
        let mut series = lone.series();
        for step in 0..300 {
            series.append(step, 0.0, RANGE);
        }
        let mut samples = Samples::default();
        for chunk in
            series.visible(TimeRange::ALL, Extent { hidden: 250, ..Extent::ALL }, &no_files()).unwrap()
        {
            chunk.decode(TimeRange::ALL, &mut samples).unwrap();
        }
        assert_eq!(samples.ts, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn order_and_duplicates() {
        let mut lone = Lone::new();
        let mut series = lone.series();
        series.append(10, f64::NAN, RANGE);
        assert_eq!(series.check(10, f64::NAN), Err(Refusal::Repeated));
        assert_eq!(series.check(10, model::stale_nan()), Err(Refusal::Duplicate));
        assert_eq!(series.check(9, 1.0), Err(Refusal::OutOfOrder));
        assert_eq!(series.check(11, 1.0), Ok(()));
    }
}
