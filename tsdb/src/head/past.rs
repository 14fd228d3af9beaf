//! History on its way into a head that is in use already.
//!
//! While the log is replayed, its samples go to entries of their own beside the living ones, under the
//! same numbers, where nobody sees them. Then both are joined, shard by shard, between two commits.

use std::sync::atomic::Ordering;

use model::{Labels, TimeRange, Timestamp};

use super::catalog::Catalog;
use super::line::Line;
use super::mapped::MappedRef;
use super::series::{Rest, Rules, Series};
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

    /// Appends to the history of a series, if the sample may follow.
    #[inline]
    fn append_past(&mut self, id: u32, ts: Timestamp, value: f64, rules: Rules) {
        if let Some(mut series) = self.known_past(id)
            && series.check(ts, value).is_ok()
        {
            series.append(ts, value, rules);
        }
    }

    /// The same for a value of any kind.
    fn append_past_sample(&mut self, id: u32, sample: &Sample, rules: Rules) {
        if let Some(mut series) = self.known_past(id)
            && series.check_sample(sample).is_ok()
        {
            series.append_sample(sample, rules);
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
            shard.append_past(id, ts, value, self.rules);
        }
    }

    /// The same for values of any kind.
    pub(crate) fn append_past_samples(&self, number: usize, samples: &[(u32, Sample)]) {
        let mut shard = self.shards[number].lock();
        for (id, sample) in samples {
            shard.append_past_sample(*id, sample, self.rules);
        }
    }

    /// Gives a series the chunks that were found under one of its names.
    pub(crate) fn adopt(&self, id: u32, chunks: &[MappedRef]) {
        let from = self.min_valid.load(Ordering::Acquire);
        self.shard(id).past(id).adopt(chunks, self.rules, from, &self.files);
    }

    /// Joins history and present. The caller holds the commit lock. Snapshots from now on see it all.
    /// Returns how many samples were left out, as they are not newer than the history of their series.
    pub(crate) fn attach(&self, deleted: Vec<(u32, TimeRange)>) -> Result<u64, Malformed> {
        let (mut misplaced, mut oldest, mut newest) = (0, i64::MAX, i64::MIN);
        for (number, shard) in self.shards.iter().enumerate() {
            let mut shard = shard.lock();
            let Some(mut past) = shard.past.take() else { continue };
            let Shard { lines, rests, store, closed, .. } = &mut *shard;
            for slot in 0..past.lines.len() {
                let (Some(line), Some(rest)) = (lines.get_mut(slot), rests.get_mut(slot)) else { continue };
                let id = id_of(number, slot);
                let history = (&mut past.lines[slot], &mut past.rests[slot]);
                let mut series = Series::new(line, rest, store);
                series.spare();
                misplaced += series.join(history, self.rules, &self.files)?;
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
