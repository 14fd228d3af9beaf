//! The head: every series that had a sample lately, with its newest samples, in memory.
//!
//! What a series of 12 labels costs in bytes, three hours of it at 15 s and 1.6 bytes a sample:
//!
//! ```text
//! catalog    row 24, value symbols 48, lookup 12
//! postings   4 in each pair with few series, 2 in each with many: 40
//! strings    one or two of its own, or its share of those of its pod: 30
//! series     104
//! open chunk 96 on average, half of that in blocks of 64, and 4 to find each
//! mapped     six references of 16
//!            together about 460, and what the allocator adds by rounding
//! ```
//!
//! Locks, in the order in which they are taken: the commit lock of the database, the catalog, one
//! shard. Nobody holds two shards.

mod blocks;
pub(crate) mod catalog;
pub(crate) mod exemplars;
mod joining;
pub(crate) mod late;
mod line;
pub(crate) mod mapped;
pub(crate) mod metadata;
pub(crate) mod names;
pub(crate) mod past;
mod postings;
mod ranks;
pub(crate) mod series;
mod slab;
pub(crate) mod snapshots;
mod symbols;
mod visible;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use croaring::Bitmap;
use hashbrown::HashMap;
use model::{Labels, Samples, TimeRange, Timestamp};
use parking_lot::{Mutex, MutexGuard, RwLock};
use smallvec::SmallVec;

use catalog::Catalog;
use late::Late;
use line::Line;
use mapped::{Found, MappedChunks};
use metadata::AllMetadata;
use names::Names;
use past::Past;
use series::{Chunks, Extent, Rest, Rules, Series, Store};
use slab::Slab;
use snapshots::Snapshots;
pub(crate) use visible::Visible;

use crate::block::tombstones::Intervals;
use crate::chunk::{self, Encoding, Sample};
use crate::codec::Malformed;
use crate::error::{AppendError, IoError};

/// Shards, so that readers of one series do not wait for the writer of another.
pub(crate) const SHARDS: usize = 16;

/// A series of the head. Stable while the series is in the head; 0 is never one.
///
/// The high half is the generation of the number in the low half, so that a reference to a series that
/// is gone can never mean another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesRef(pub u64);

impl SeriesRef {
    pub(crate) fn new(id: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(id))
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    pub(crate) fn id(self) -> u32 {
        self.0 as u32
    }

    pub(crate) fn generation(self) -> u32 {
        // A 64-bit number shifted by 32 fits 32 bits.
        u32::try_from(self.0 >> 32).unwrap_or(0)
    }
}

/// As many series in a row share a shard, and a page of its arrays. Those of one target, which are made together, lie
/// together: a query for some of each target's series finds them on one page each, not on one of every shard.
const ROW: usize = slab::PAGE;

pub(crate) fn shard_of(id: u32) -> usize {
    id as usize / ROW % SHARDS
}

/// How many series are looked at or sorted before others may have the catalog, or the query may have been cancelled.
const SERIES_A_TURN: usize = 4096;
/// How many series are locked, copied and written in one go where chunks are mapped.
const SERIES_MAPPED_AT_ONCE: usize = 1024;

fn slot_of(id: u32) -> usize {
    id as usize / (ROW * SHARDS) * ROW + id as usize % ROW
}

/// The number of the series in a slot of a shard.
fn id_of(shard: usize, slot: usize) -> u32 {
    u32::try_from((slot / ROW * SHARDS + shard) * ROW + slot % ROW).unwrap_or(u32::MAX)
}

/// For one series: before the first append after snapshot `.0` was taken, it had `.1` samples.
type Marks = SmallVec<[(u64, u32); 1]>;

/// A sixteenth of the series.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    lines: Slab<Line>,
    rests: Slab<Rest>,
    store: Store,
    /// What the log says, until it is attached.
    past: Option<Box<Past>>,
    /// Only series that were appended to while snapshots were alive; empty otherwise.
    marks: HashMap<u32, Marks>,
    /// Series with closed chunks that wait to be mapped; some more than once, some that are gone.
    closed: Vec<SeriesRef>,
}

impl Shard {
    /// The series with this number.
    #[inline]
    pub(crate) fn get(&mut self, id: u32) -> Option<Series<'_>> {
        self.find(id, |generation| generation != 0)
    }

    /// The series, unless it is gone.
    #[inline]
    pub(crate) fn resolve(&mut self, series: SeriesRef) -> Option<Series<'_>> {
        self.find(series.id(), |generation| generation != 0 && generation == series.generation())
    }

    #[inline]
    fn find(&mut self, id: u32, wanted: impl FnOnce(u32) -> bool) -> Option<Series<'_>> {
        let line = self.lines.get_mut(slot_of(id))?;
        if !wanted(line.generation()) {
            return None;
        }
        Some(Series::new(line, self.rests.get_mut(slot_of(id))?, &mut self.store))
    }

    fn insert(&mut self, id: u32, wal_ref: u64, generation: u32) {
        let (line, rest) = (self.lines.grow_to(slot_of(id)), self.rests.grow_to(slot_of(id)));
        Series::new(line, rest, &mut self.store).begin(wal_ref, generation);
    }

    /// Touches series that are about to be looked at. What comes first of each is a cache miss, and in a loop that does
    /// nothing else a dozen of them are under way at once: 15 ns a series instead of 75.
    fn fetch(&self, ids: impl Iterator<Item = u32>) {
        let lines = ids.filter_map(|id| self.lines.get(slot_of(id)));
        black_box(lines.fold(0, |sum, line| sum ^ line.generation()));
    }

    /// Which samples of a series snapshot `snapshot` sees, if history was attached at snapshot `attached`.
    fn extent(&mut self, id: u32, snapshot: u64, attached: u64) -> Extent {
        let marks = self.marks.get(&id);
        let mark = marks.and_then(|marks| marks.iter().find(|&&(taken, _)| taken >= snapshot));
        let before = mark.map(|&(_, before)| before);
        if before.is_none() && snapshot >= attached {
            return Extent::ALL;
        }
        let appended = self.get(id).map_or(0, |series| series.appended());
        let hidden = before.map_or(0, |before| appended.wrapping_sub(before));
        Extent { hidden, known: if snapshot < attached { appended } else { u32::MAX } }
    }

    /// Calls `visit` with every series and its slot.
    fn for_each(&mut self, mut visit: impl FnMut(usize, Series<'_>)) {
        let pairs = self.lines.iter_mut().zip(self.rests.iter_mut()).enumerate();
        for (slot, (line, rest)) in pairs.filter(|(_, (line, _))| line.generation() != 0) {
            visit(slot, Series::new(line, rest, &mut self.store));
        }
    }
}

/// What a reader may see of the head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// The snapshot's number.
    pub(crate) snapshot: u64,
    /// Older samples are in blocks.
    pub(crate) from: Timestamp,
    /// There were neither late samples nor deletions when the snapshot was taken; it does not see those that came since.
    pub(crate) plain: bool,
}

/// The head.
pub(crate) struct Head {
    pub(crate) catalog: RwLock<Catalog>,
    shards: [Mutex<Shard>; SHARDS],
    pub(crate) snapshots: Snapshots,
    /// Samples before this are in blocks already, or would be refused anyway.
    pub(crate) min_valid: AtomicI64,
    /// `i64::MAX` while there is no sample.
    min_ts: AtomicI64,
    /// `i64::MIN` while there is no sample.
    max_ts: AtomicI64,
    pub(crate) names: Arc<Names>,
    /// The first snapshot that sees what the log had at the start; `u64::MAX` as long as none does.
    attached: AtomicU64,
    rules: Rules,
    /// How late a sample of history may have come.
    late_window_ms: i64,
    series_max: u64,
    /// How often a new series was refused, as there are as many as there may be.
    pub(crate) refused: AtomicU64,
    files: MappedChunks,
    pub(crate) late: Late,
    pub(crate) metadata: AllMetadata,
    /// Deleted spans by series, each with the first snapshot that may not see its samples any more.
    deleted: RwLock<HashMap<u32, Vec<(u64, TimeRange)>>>,
    /// Series that left, with the snapshot number from which on nobody can still know them.
    limbo: Mutex<Vec<(u64, Vec<u32>)>>,
}

impl Head {
    pub(crate) fn new(
        (rules, late_window_ms): (Rules, i64),
        series_max: Option<u64>,
        files: MappedChunks,
        names: Arc<Names>,
    ) -> Self {
        Self {
            catalog: RwLock::new(Catalog::new(rules.chunks != Chunks::None)),
            shards: std::array::from_fn(|_| Mutex::default()),
            snapshots: Snapshots::default(),
            min_valid: AtomicI64::new(i64::MIN),
            min_ts: AtomicI64::new(i64::MAX),
            max_ts: AtomicI64::new(i64::MIN),
            names,
            attached: AtomicU64::new(u64::MAX),
            rules,
            late_window_ms,
            series_max: series_max.unwrap_or(u64::from(u32::MAX) - 1),
            refused: AtomicU64::new(0),
            files,
            late: Late::default(),
            metadata: AllMetadata::default(),
            deleted: RwLock::default(),
            limbo: Mutex::default(),
        }
    }

    pub(crate) fn shard(&self, id: u32) -> MutexGuard<'_, Shard> {
        self.shards[shard_of(id)].lock()
    }

    /// Whether samples have start times here.
    pub(crate) fn keeps_starts(&self) -> bool {
        self.rules.chunks == Chunks::Xor2
    }

    /// Whether samples go to the log only.
    pub(crate) fn is_log_only(&self) -> bool {
        self.rules.chunks == Chunks::None
    }

    pub(crate) fn min_ts(&self) -> Option<Timestamp> {
        Some(self.min_ts.load(Ordering::Acquire)).filter(|&ts| ts != i64::MAX)
    }

    pub(crate) fn max_ts(&self) -> Option<Timestamp> {
        Some(self.max_ts.load(Ordering::Acquire)).filter(|&ts| ts != i64::MIN)
    }

    /// The oldest time that is accepted: half a block before the newest sample, and nothing that a
    /// block may hold already.
    pub(crate) fn accepts_from(&self) -> Timestamp {
        if self.is_log_only() {
            return i64::MIN;
        }
        let newest = self.max_ts().map_or(i64::MIN, |max| max.saturating_sub(self.rules.range_ms / 2));
        newest.max(self.min_valid.load(Ordering::Acquire))
    }

    /// Finds or creates a series.
    pub(crate) fn series(&self, labels: &Labels) -> Result<SeriesRef, AppendError> {
        let hash = Catalog::hash(labels);
        let added = {
            let catalog = self.catalog.read_recursive();
            if let Some(id) = catalog.find(labels, hash) {
                return Ok(SeriesRef::new(id, catalog.generation(id)));
            }
            catalog.added()
        };
        let mut catalog = self.catalog.write();
        if catalog.added() != added
            && let Some(id) = catalog.find(labels, hash)
        {
            return Ok(SeriesRef::new(id, catalog.generation(id)));
        }
        if catalog.len() as u64 >= self.series_max {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(AppendError::SeriesLimit);
        }
        let wal_ref = self.names.next();
        Ok(self.create(&mut catalog, labels, hash, wal_ref))
    }

    fn create(&self, catalog: &mut Catalog, labels: &Labels, hash: u64, wal_ref: u64) -> SeriesRef {
        let id = catalog.add(labels, hash);
        let generation = catalog.generation(id);
        self.shard(id).insert(id, wal_ref, generation);
        SeriesRef::new(id, generation)
    }

    /// Puts the values of a label that is often asked for in order.
    pub(crate) fn rank(&self, name: &str) {
        ranks::build(&self.catalog, name);
    }

    /// The name of a series in the log.
    pub(crate) fn name_of(&self, id: u32) -> Option<u64> {
        self.shard(id).get(id).map(|series| series.wal_ref())
    }

    /// Whether the log has the series record of a series that is here.
    pub(crate) fn is_logged(&self, id: u32) -> bool {
        self.shard(id).get(id).is_none_or(|series| series.is_logged())
    }

    /// The log has the series records of these.
    pub(crate) fn set_logged(&self, ids: &[u32]) {
        for &id in ids {
            self.shard(id).get(id).into_iter().for_each(|mut series| series.set_logged());
        }
    }

    /// Where full chunks are.
    pub(crate) fn mapped(&self) -> &MappedChunks {
        &self.files
    }

    /// Sorts series by their labels, in turns: whoever creates series waits for one turn at most, however many
    /// series there are. Before each turn, `check` says whether to go on.
    pub(crate) fn sort<E>(&self, ids: &mut [u32], check: impl Fn() -> Result<(), E>) -> Result<(), E> {
        for run in ids.chunks_mut(SERIES_A_TURN) {
            check()?;
            self.catalog.read().sort(run);
        }
        let (mut merged, mut width) = (Vec::with_capacity(ids.len()), SERIES_A_TURN);
        while width < ids.len() {
            merged.clear();
            for pair in ids.chunks(2 * width) {
                let (mut low, mut high) = pair.split_at(width.min(pair.len()));
                while !low.is_empty() && !high.is_empty() {
                    check()?;
                    let catalog = self.catalog.read();
                    for _ in 0..SERIES_A_TURN {
                        let (Some((&a, rest_a)), Some((&b, rest_b))) =
                            (low.split_first(), high.split_first())
                        else {
                            break;
                        };
                        if catalog.compare(b, a) == std::cmp::Ordering::Less {
                            merged.push(b);
                            high = rest_b;
                        } else {
                            merged.push(a);
                            low = rest_a;
                        }
                    }
                }
                merged.extend_from_slice(low);
                merged.extend_from_slice(high);
            }
            ids.copy_from_slice(&merged);
            width *= 2;
        }
        Ok(())
    }

    /// Reads which chunks are mapped. To be done before any is written.
    pub(crate) fn load_mapped(&self) -> Result<Found, IoError> {
        self.files.load()
    }

    /// Appends a sample that the log has to a series of `shard`; false if it may not follow what the
    /// series has.
    #[inline]
    pub(crate) fn apply(&self, shard: &mut Shard, series: SeriesRef, ts: Timestamp, value: f64) -> bool {
        let Some(mut found) = shard.resolve(series) else { return false };
        found.set_committed();
        if self.is_log_only() {
            found.note(&Sample::float(ts, value));
            return true;
        }
        if found.check(ts, value).is_err() {
            return false;
        }
        let before = found.appended();
        let closed = found.append(ts, value, self.rules);
        self.applied(shard, series, before, closed);
        true
    }

    /// The same for a sample of any kind.
    pub(crate) fn apply_sample(&self, shard: &mut Shard, series: SeriesRef, sample: &Sample) -> bool {
        let Some(mut found) = shard.resolve(series) else { return false };
        found.set_committed();
        if self.is_log_only() {
            found.note(sample);
            return true;
        }
        if found.check_sample(sample).is_err() {
            return false;
        }
        let before = found.appended();
        let closed = found.append_sample(sample, self.rules);
        self.applied(shard, series, before, closed);
        true
    }

    /// A sample was appended to a series that had had `before` of them.
    #[inline]
    fn applied(&self, shard: &mut Shard, series: SeriesRef, before: u32, closed: bool) {
        let newest_snapshot = self.snapshots.newest();
        if newest_snapshot != 0 {
            let marks = shard.marks.entry(series.id()).or_default();
            if marks.last().is_none_or(|&(taken, _)| taken < newest_snapshot) {
                let oldest = self.snapshots.oldest();
                marks.retain(|&mut (taken, _)| taken >= oldest);
                marks.push((newest_snapshot, before));
            }
        } else if !shard.marks.is_empty() {
            shard.marks = HashMap::new();
        }
        if closed {
            shard.closed.push(series);
        }
    }

    /// Tells of samples that were applied.
    pub(crate) fn extend_time(&self, min: Timestamp, max: Timestamp) {
        self.min_ts.fetch_min(min, Ordering::AcqRel);
        self.max_ts.fetch_max(max, Ordering::AcqRel);
    }

    /// The chunks of a series in `range`, as `view` may see them.
    pub(crate) fn visible(&self, id: u32, view: View, range: TimeRange) -> Result<Vec<Visible>, Malformed> {
        let range = TimeRange::new(range.start.max(view.from), range.end);
        let attached = self.attached.load(Ordering::Acquire);
        let mut shard = self.shard(id);
        let extent = shard.extent(id, view.snapshot, attached);
        shard.get(id).map_or(Ok(Vec::new()), |series| series.visible(range, extent, &self.files))
    }

    /// Appends the samples of a series in `range` as `view` may see them.
    pub(crate) fn samples(
        &self,
        id: u32,
        view: View,
        range: TimeRange,
        into: &mut Samples,
    ) -> Result<(), Malformed> {
        let range = TimeRange::new(range.start.max(view.from), range.end);
        let attached = self.attached.load(Ordering::Acquire);
        // Most ask for what is in the open chunk only, which is copied without a detour through the heap.
        let mut open = SmallVec::new();
        let mut shard = self.shard(id);
        let extent = shard.extent(id, view.snapshot, attached);
        let Some(series) = shard.get(id) else { return Ok(()) };
        if extent.is_all() && series.copy_open(range, &mut open) {
            drop(shard);
            return chunk::decode(Encoding::Xor, &open, usize::MAX, range, into);
        }
        let chunks = series.visible(range, extent, &self.files);
        drop(shard);
        chunks?.iter().try_for_each(|chunk| chunk.decode(range, into))
    }

    /// The newest sample of a series, if it is a float at hand and `view` sees all of the series.
    pub(crate) fn newest_float(&self, id: u32, view: View) -> Option<(Timestamp, f64)> {
        let mut shard = self.shard(id);
        if !view.plain || !shard.marks.is_empty() && shard.marks.contains_key(&id) {
            return None;
        }
        shard.get(id)?.newest_float().filter(|(ts, _)| *ts >= view.from)
    }

    /// Those of `ids` that may have samples in `range` which `view` may see, ascending by number. Now and then,
    /// `check` says whether to go on.
    pub(crate) fn with_samples<E>(
        &self,
        ids: &Bitmap,
        (view, range): (View, TimeRange),
        check: impl Fn() -> Result<(), E>,
    ) -> Result<Vec<u32>, E> {
        let attached = self.attached.load(Ordering::Acquire);
        let (mut kept, mut ids) = (Vec::new(), ids.iter());
        let (mut turn, mut is_kept) = (Vec::with_capacity(SERIES_A_TURN), Vec::new());
        // Places in the turn. Each shard is locked once a turn: between two locks a processor does not look ahead, so
        // series that lie apart would be fetched from memory one after the other.
        let mut places: [Vec<usize>; SHARDS] = std::array::from_fn(|_| Vec::new());
        loop {
            check()?;
            turn.clear();
            turn.extend(ids.by_ref().take(SERIES_A_TURN));
            if turn.is_empty() {
                return Ok(kept);
            }
            is_kept.clear();
            is_kept
                .extend(turn.iter().map(|id| !view.plain && self.late.overlaps(*id, range, view.snapshot)));
            for (at, id) in turn.iter().enumerate().filter(|(at, _)| !is_kept[*at]) {
                places[shard_of(*id)].push(at);
            }
            for (places, shard) in
                places.iter_mut().zip(&self.shards).filter(|(places, _)| !places.is_empty())
            {
                let mut shard = shard.lock();
                shard.fetch(places.iter().map(|&at| turn[at]));
                for at in places.drain(..) {
                    is_kept[at] = self.has_samples(&mut shard, turn[at], (view, range), attached);
                }
            }
            kept.extend(turn.iter().zip(&is_kept).filter(|(_, is_kept)| **is_kept).map(|(id, _)| *id));
        }
    }

    /// Whether a series of `shard` may have samples in `range` that came in order and that `view` may see.
    fn has_samples(
        &self,
        shard: &mut Shard,
        id: u32,
        (view, range): (View, TimeRange),
        attached: u64,
    ) -> bool {
        let range = TimeRange::new(range.start.max(view.from), range.end);
        let extent = shard.extent(id, view.snapshot, attached);
        let Some(series) = shard.get(id) else { return false };
        let Some(max) = series.max_ts() else { return false };
        if view.plain && extent.is_all() && range.contains(max) {
            return true;
        }
        let Some(min) = series.min_ts() else { return false };
        // A chunk that cannot be read is reported by whoever reads the samples.
        let none = || series.visible(range, extent, &self.files).is_ok_and(|visible| visible.is_empty());
        let overlaps = range.overlaps(TimeRange::new(min, max));
        let gone = self.deleted(id, view).is_some_and(|gone| gone.covers(TimeRange::new(min, max)));
        overlaps && !gone && (extent.is_all() || !none())
    }

    /// Drops samples before `min` chunk by chunk, then series that have none left. Returns the log's
    /// names of the dropped series.
    pub(crate) fn truncate(&self, min: Timestamp) -> Vec<u64> {
        let (mut empty, mut oldest) = (Vec::new(), i64::MAX);
        for (number, shard) in self.shards.iter().enumerate() {
            shard.lock().for_each(|slot, mut series| {
                series.truncate_before(min);
                match series.min_ts() {
                    Some(ts) => oldest = oldest.min(ts),
                    None if series.appended() == 0 && series.spare() => {}
                    None => empty.push(id_of(number, slot)),
                }
            });
        }
        // Appends that came meanwhile are newer than `min`, and lower the bound by themselves.
        let oldest = if oldest == i64::MAX { oldest } else { oldest.max(min) };
        self.min_ts.store(oldest, Ordering::Release);
        self.drop_series(empty, &|series| series.is_empty())
    }

    /// Drops the series of a head without chunks that have had no sample at or after `since`. Returns their names in
    /// the log.
    pub(crate) fn drop_silent(&self, since: Timestamp) -> Vec<u64> {
        let silent = |series: &Series<'_>| series.max_ts().is_none_or(|newest| newest < since);
        let mut found = Vec::new();
        for (number, shard) in self.shards.iter().enumerate() {
            shard.lock().for_each(|slot, mut series| {
                // One that has no sample at all may be about to get its first.
                if silent(&series) && (series.max_ts().is_some() || !series.spare()) {
                    found.push(id_of(number, slot));
                }
            });
        }
        self.drop_series(found, &silent)
    }

    fn drop_series(&self, mut ids: Vec<u32>, is_over: &dyn Fn(&Series<'_>) -> bool) -> Vec<u64> {
        ids.sort_unstable();
        let mut dropped = Vec::new();
        let mut catalog = self.catalog.write();
        ids.retain(|&id| {
            let mut shard = self.shard(id);
            let Some(mut series) = shard.get(id) else { return false };
            let gone = is_over(&series) && !series.is_pending() && !self.late.has(id);
            if gone {
                dropped.push(series.wal_ref());
                series.end();
            }
            gone
        });
        self.deleted.write().retain(|id, _| ids.binary_search(id).is_err());
        self.metadata.forget(&ids);
        catalog.unlist(&ids);
        self.limbo.lock().push((self.snapshots.next(), ids));
        self.forget(&mut catalog);
        dropped
    }

    /// Frees the labels of dropped series that no snapshot can know any more.
    fn forget(&self, catalog: &mut Catalog) {
        let oldest = self.snapshots.oldest();
        self.limbo.lock().retain(|(from, ids)| {
            let known = oldest < *from;
            if !known {
                catalog.forget(ids);
            }
            known
        });
    }

    /// What a deletion in `range` means for each of `ids` that has samples there: its number, its name in
    /// the log, and the span. Those of `late` have had late ones there, which the log may have, too.
    pub(crate) fn deletable(
        &self,
        ids: &Bitmap,
        range: TimeRange,
        late: &Bitmap,
    ) -> Vec<(u32, u64, TimeRange)> {
        let mut spans = Vec::new();
        for id in ids.iter() {
            let mut shard = self.shard(id);
            let Some(series) = shard.get(id) else { continue };
            let (Some(min), Some(max)) = (series.min_ts(), series.max_ts()) else { continue };
            let start = if late.contains(id) { range.start } else { range.start.max(min) };
            let span = TimeRange::new(start, range.end.min(max));
            if span.start <= span.end {
                spans.push((id, series.wal_ref(), span));
            }
        }
        spans
    }

    /// Deletes a span of a series for snapshots from `from_snapshot` on.
    pub(crate) fn delete(&self, id: u32, span: TimeRange, from_snapshot: u64) {
        self.deleted.write().entry(id).or_default().push((from_snapshot, span));
    }

    /// Whether there are neither late samples nor deletions.
    pub(crate) fn is_plain(&self) -> bool {
        self.late.is_empty() && self.deleted.read().is_empty()
    }

    /// What is deleted of a series, as `view` sees it.
    pub(crate) fn deleted(&self, id: u32, view: View) -> Option<Intervals> {
        if view.plain {
            return None;
        }
        let deleted = self.deleted.read();
        if deleted.is_empty() {
            return None;
        }
        let mut intervals = Intervals::default();
        for &(from_snapshot, span) in deleted.get(&id)? {
            if from_snapshot <= view.snapshot {
                intervals.add(span);
            }
        }
        Some(intervals)
    }

    /// Closes the open chunk of a series.
    pub(crate) fn seal(&self, series: SeriesRef) {
        let mut shard = self.shard(series.id());
        if shard.resolve(series).is_some_and(|mut series| series.close()) {
            shard.closed.push(series);
        }
    }

    /// Writes closed chunks to files and maps them, so that they leave the heap.
    pub(crate) fn map_closed(&self) -> Result<(), IoError> {
        for shard in &self.shards {
            let mut closed = std::mem::take(&mut shard.lock().closed);
            closed.sort_unstable();
            closed.dedup();
            while !closed.is_empty() {
                let part = closed.split_off(closed.len().saturating_sub(SERIES_MAPPED_AT_ONCE));
                if let Err(error) = self.map_chunks(shard, &part, |shard, &series| shard.resolve(series)) {
                    shard.lock().closed.extend(closed.into_iter().chain(part));
                    return Err(error);
                }
            }
            let mut shard = shard.lock();
            let Shard { lines, store, .. } = &mut *shard;
            store.compact(lines.iter_mut());
        }
        Ok(())
    }

    /// Maps the closed chunks of some series of a shard.
    fn map_chunks<T>(
        &self,
        shard: &Mutex<Shard>,
        all: &[T],
        find: impl for<'s> Fn(&'s mut Shard, &T) -> Option<Series<'s>>,
    ) -> Result<(), IoError> {
        let (mut waiting, mut chunks) = (Vec::with_capacity(all.len()), Vec::with_capacity(all.len()));
        {
            let mut shard = shard.lock();
            for series in all {
                let Some(found) = find(&mut shard, series) else { continue };
                let before = chunks.len();
                chunks.extend(found.unmapped());
                waiting.push((series, chunks.len() - before));
            }
        }
        // The disk may be slow: appends go on meanwhile.
        let mut written = self.files.write(&chunks)?.into_iter();
        let mut shard = shard.lock();
        for (series, count) in waiting {
            for reference in written.by_ref().take(count).flatten() {
                if let Some(mut found) = find(&mut shard, series) {
                    found.set_mapped(reference);
                }
            }
        }
        Ok(())
    }

    /// Deletes files of mapped chunks that have no sample at or after `min`.
    pub(crate) fn truncate_files(&self, min: Timestamp) -> Result<(), IoError> {
        self.files.truncate(min)
    }

    /// Calls `visit` with every series.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Series<'_>)) {
        for shard in &self.shards {
            shard.lock().for_each(|_, series| visit(&series));
        }
    }
}
