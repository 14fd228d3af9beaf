//! History on its way into a head that is in use already.
//!
//! While the log is replayed, its samples go to entries of their own beside the living ones, under the
//! same numbers, where nobody sees them. Then both are joined, shard by shard, between two commits.

use std::sync::atomic::Ordering;

use model::{Labels, TimeRange, Timestamp};

use super::catalog::Catalog;
use super::line::Line;
use super::mapped::MappedRef;
use super::series::{Refusal, Rest, Rules, Series};
use super::slab::Slab;
use super::{Head, SHARDS, SeriesRef, Shard, id_of, slot_of};
use crate::chunk::Sample;
use crate::codec::Malformed;
use crate::error::IoError;

/// What the log says about the series of a shard.
#[derive(Debug, Default)]
pub(super) struct Past {
    lines: Slab<Line>,
    rests: Slab<Rest>,
    /// Samples that come late in the log of those in order: they were taken when it was not known yet what is before.
    late: Vec<(u32, Sample)>,
}

/// Samples that turned out to be late when history came.
#[derive(Debug, Default)]
pub(crate) struct Misplaced {
    /// Those that an earlier run had taken for new, by series.
    pub(crate) before: Vec<(u32, Sample)>,
    /// Those that this one had.
    pub(crate) now: Vec<(u32, Sample)>,
}

impl Shard {
    /// The history of a series, which begins empty.
    fn past(&mut self, id: u32) -> Series<'_> {
        let past = self.past.get_or_insert_default();
        let (line, rest) = (past.lines.grow_to(slot_of(id)), past.rests.grow_to(slot_of(id)));
        Series::new(line, rest, &mut self.store)
    }

    /// The history of a series that has one.
    #[inline]
    fn known_past(&mut self, id: u32) -> Option<Series<'_>> {
        let past = self.past.as_mut()?;
        let (line, rest) = (past.lines.get_mut(slot_of(id))?, past.rests.get_mut(slot_of(id))?);
        Some(Series::new(line, rest, &mut self.store))
    }

    /// Appends to the history of a series, if the sample may follow. If it is late, but not by more than the window, it
    /// is kept aside.
    #[inline]
    fn append_past(&mut self, id: u32, (ts, value): (Timestamp, f64), (rules, window_ms): (Rules, i64)) {
        let Some(mut series) = self.known_past(id) else { return };
        match series.check(ts, value) {
            Ok(()) => drop(series.append(ts, value, rules)),
            Err(Refusal::OutOfOrder) if window_ms > 0 => {
                let newest = series.max_ts();
                self.keep_late(id, Sample::float(ts, value), (newest, window_ms));
            }
            Err(_) => {}
        }
    }

    /// The same for a value of any kind.
    fn append_past_sample(&mut self, id: u32, sample: &Sample, (rules, window_ms): (Rules, i64)) {
        let Some(mut series) = self.known_past(id) else { return };
        match series.check_sample(sample) {
            Ok(()) => drop(series.append_sample(sample, rules)),
            Err(Refusal::OutOfOrder) if window_ms > 0 => {
                let newest = series.max_ts();
                self.keep_late(id, sample.clone(), (newest, window_ms));
            }
            Err(_) => {}
        }
    }

    fn keep_late(&mut self, id: u32, sample: Sample, (newest, window_ms): (Option<Timestamp>, i64)) {
        if newest.is_some_and(|newest| sample.ts >= newest.saturating_sub(window_ms))
            && let Some(past) = &mut self.past
        {
            past.late.push((id, sample));
        }
    }
}

impl Head {
    /// The number of the series that the log names `wal_ref`, and whether it is new here.
    ///
    /// Names grow with time, so a series keeps the largest: chunks under names in their order are in order of time.
    pub(crate) fn replay_series(&self, wal_ref: u64, labels: &Labels) -> (u32, bool) {
        let hash = Catalog::hash(labels);
        let mut catalog = self.catalog.write();
        let known = catalog.find(labels, hash);
        let id = known.unwrap_or_else(|| self.create(&mut catalog, labels, hash, wal_ref).id());
        drop(catalog);
        let mut shard = self.shard(id);
        shard.past(id).set_wal_ref(wal_ref);
        if let Some(mut series) = shard.get(id)
            && series.wal_ref() <= wal_ref
        {
            series.set_wal_ref(wal_ref);
            series.set_logged();
            series.spare();
        }
        (id, known.is_none())
    }

    /// Appends samples to the history of series of shard `number`.
    pub(crate) fn append_past(&self, number: usize, samples: impl Iterator<Item = (u32, Timestamp, f64)>) {
        let mut shard = self.shards[number].lock();
        for (id, ts, value) in samples {
            shard.append_past(id, (ts, value), (self.rules, self.late_window_ms));
        }
    }

    /// The same for values of any kind.
    pub(crate) fn append_past_samples(&self, number: usize, samples: &[(u32, Sample)]) {
        let mut shard = self.shards[number].lock();
        for (id, sample) in samples {
            shard.append_past_sample(*id, sample, (self.rules, self.late_window_ms));
        }
    }

    /// Gives a series the chunks that were found under one of its names.
    pub(crate) fn adopt(&self, id: u32, chunks: &[MappedRef]) {
        let from = self.min_valid.load(Ordering::Acquire);
        self.shard(id).past(id).adopt(chunks, self.rules, from, &self.files);
    }

    /// The log says that a span of a series was deleted: what it had late until then is gone.
    pub(crate) fn delete_past_late(&self, id: u32, range: TimeRange) {
        if let Some(past) = &mut self.shard(id).past {
            past.late.retain(|(other, sample)| *other != id || !range.contains(sample.ts));
        }
    }

    /// Joins history and present. The caller holds the commit lock. Snapshots from now on see it all.
    /// Returns the samples that were taken out, as they are not newer than the history of their series.
    pub(crate) fn attach(&self, deleted: Vec<(u32, TimeRange)>) -> Result<Misplaced, Malformed> {
        let (mut misplaced, mut oldest, mut newest) = (Misplaced::default(), i64::MAX, i64::MIN);
        let mut found = Vec::new();
        for (number, shard) in self.shards.iter().enumerate() {
            let mut shard = shard.lock();
            let Some(mut past) = shard.past.take() else { continue };
            misplaced.before.append(&mut past.late);
            let Shard { lines, rests, store, closed, marks, .. } = &mut *shard;
            for slot in 0..past.lines.len() {
                let (Some(line), Some(rest)) = (lines.get_mut(slot), rests.get_mut(slot)) else { continue };
                let id = id_of(number, slot);
                let history = (&mut past.lines[slot], &mut past.rests[slot]);
                let mut series = Series::new(line, rest, store);
                series.spare();
                series.join(history, self.rules, (&mut found, &self.files))?;
                if !found.is_empty() {
                    // Older snapshots count without them.
                    let count = u32::try_from(found.len()).unwrap_or(u32::MAX);
                    let marks = marks.get_mut(&id).into_iter().flatten();
                    marks.for_each(|(_, before)| *before = before.saturating_sub(count));
                }
                misplaced.now.extend(found.drain(..).map(|sample| (id, sample)));
                if series.has_closed() {
                    closed.push(SeriesRef::new(id, series.generation()));
                }
                oldest = oldest.min(series.min_ts().unwrap_or(i64::MAX));
                newest = newest.max(series.max_ts().unwrap_or(i64::MIN));
            }
        }
        let snapshot = self.snapshots.next();
        for (id, span) in deleted {
            self.delete(id, span, snapshot);
        }
        if oldest <= newest {
            self.extend_time(oldest, newest);
        }
        self.attached.store(snapshot, Ordering::Release);
        Ok(misplaced)
    }

    /// Maps the closed chunks of history, so that replay does not need more memory than what it rebuilds.
    pub(crate) fn map_past(&self) -> Result<(), IoError> {
        for number in 0..SHARDS {
            let ids: Vec<u32> = {
                let mut shard = self.shards[number].lock();
                let Shard { past: Some(past), store, .. } = &mut *shard else { continue };
                let pairs = past.lines.iter_mut().zip(past.rests.iter_mut()).enumerate();
                let closed = pairs.filter_map(|(slot, (line, rest))| {
                    Series::new(line, rest, store).has_closed().then_some(id_of(number, slot))
                });
                closed.collect()
            };
            for part in ids.chunks(super::SERIES_MAPPED_AT_ONCE) {
                self.map_chunks(&self.shards[number], part, |shard, &id| shard.known_past(id))?;
            }
        }
        Ok(())
    }
}
