//! Batches of samples on their way in.

use std::sync::atomic::{AtomicU64, Ordering};

use model::{HistogramValue, Labels, Timestamp};

use super::Inner;
use crate::error::{AppendError, CommitError};
use crate::head::series::Refusal;
use crate::head::{SHARDS, SeriesRef, shard_of};
use crate::wal::record::{SamplesRecord, SeriesRecord};

/// A batch of samples of one moment, typically one scrape: all or nothing in the log, seen as a whole by
/// readers. Dropping it without `commit` forgets the samples.
///
/// A sample that cannot be stored is refused by a typed error, and the rest of the batch is kept. Two
/// samples of one series within a batch must ascend in time; where they do not, the later one is left
/// out and counted.
pub struct Appender<'a> {
    inner: &'a Inner,
    batch: Batch,
    accepts_from: Timestamp,
}

/// The samples of a batch by shard, so that a commit takes each shard's lock once. Reused between
/// appenders.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    floats: [Vec<Float>; SHARDS],
    samples: Option<SamplesRecord>,
    unlogged: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Float {
    series: SeriesRef,
    ts: Timestamp,
    value: f64,
}

impl<'a> Appender<'a> {
    pub(super) fn new(inner: &'a Inner) -> Self {
        let batch = inner.batches.lock().pop().unwrap_or_default();
        Self { inner, batch, accepts_from: inner.head.accepts_from() }
    }

    /// The reference of the series with these labels; creates it if it is new.
    ///
    /// # Errors
    /// [`AppendError::SeriesLimit`].
    pub fn series(&mut self, labels: &Labels) -> Result<SeriesRef, AppendError> {
        self.inner.head.series(labels)
    }

    /// Adds a sample. Repeating the newest sample of a series is accepted and does nothing.
    ///
    /// # Errors
    /// See [`AppendError`]; [`AppendError::UnknownSeries`] asks for [`Appender::series`] anew.
    pub fn append(&mut self, series: SeriesRef, ts: Timestamp, value: f64) -> Result<(), AppendError> {
        let counters = &self.inner.counters;
        let mut shard = self.inner.head.shard(series.id());
        let found = shard.resolve(series).ok_or(AppendError::UnknownSeries)?;
        if ts < self.accepts_from {
            return Err(count(&counters.out_of_bounds, AppendError::OutOfBounds));
        }
        match found.check(ts, value) {
            Ok(()) => {}
            Err(Refusal::Repeated) => return Ok(()),
            Err(Refusal::OutOfOrder) => return Err(count(&counters.out_of_order, AppendError::OutOfOrder)),
            Err(Refusal::Duplicate) => return Err(count(&counters.duplicate, AppendError::Duplicate)),
        }
        found.pending = true;
        drop(shard);
        self.batch.floats[shard_of(series.id())].push(Float { series, ts, value });
        Ok(())
    }

    /// Adds a native histogram.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_histogram(
        &mut self,
        series: SeriesRef,
        ts: Timestamp,
        value: &HistogramValue,
    ) -> Result<(), AppendError> {
        let _ = (series, ts, value);
        Err(AppendError::InvalidHistogram)
    }

    /// Makes the batch durable against `kill -9` and visible. Returns the number of samples.
    ///
    /// # Errors
    /// The log could not be written; nothing of the batch is stored then.
    pub fn commit(mut self) -> Result<usize, CommitError> {
        let batch = &mut self.batch;
        if batch.floats.iter().all(Vec::is_empty) {
            return Ok(0);
        }
        let mut log = self.inner.log.lock();
        let min_valid = self.inner.head.min_valid.load(Ordering::Acquire);
        let Batch { floats, samples, unlogged } = batch;
        let samples = samples.get_or_insert_with(SamplesRecord::new);
        samples.clear();
        unlogged.clear();
        let mut dropped = 0;
        for floats in floats.iter_mut() {
            let Some(first) = floats.first() else { continue };
            let mut shard = self.inner.head.shard(first.series.id());
            floats.retain(|float| {
                // A block may have been cut, or another appender may have been quicker.
                let found = shard.resolve(float.series).filter(|_| float.ts >= min_valid);
                let found = found.filter(|series| series.check(float.ts, float.value).is_ok());
                let Some(series) = found else {
                    dropped += 1;
                    return false;
                };
                samples.push(series.wal_ref, float.ts, float.value);
                if !series.logged {
                    unlogged.push(float.series.id());
                }
                true
            });
        }
        let new_series = self.inner.series_record(unlogged);
        let records = new_series.finish().into_iter().chain(samples.finish());
        log.append(records).map_err(|source| CommitError { path: log.path(), source })?;
        let mut applied = 0;
        for floats in floats.iter_mut().filter(|floats| !floats.is_empty()) {
            applied += self.inner.apply(floats);
            dropped += floats.len();
            floats.clear();
        }
        dropped -= applied;
        self.inner.counters.appended.fetch_add(applied as u64, Ordering::Relaxed);
        self.inner.counters.out_of_order.fetch_add(dropped as u64, Ordering::Relaxed);
        if self.inner.options.wal_sync_interval.is_zero() {
            log.sync().map_err(|source| CommitError { path: log.path(), source })?;
        }
        Ok(applied)
    }
}

fn count(counter: &AtomicU64, error: AppendError) -> AppendError {
    counter.fetch_add(1, Ordering::Relaxed);
    error
}

impl Inner {
    /// The series record for series that the log does not know yet.
    fn series_record(&self, unlogged: &mut Vec<u32>) -> SeriesRecord {
        let mut record = SeriesRecord::new();
        if unlogged.is_empty() {
            return record;
        }
        unlogged.sort_unstable();
        unlogged.dedup();
        let catalog = self.head.catalog.read_recursive();
        for &id in unlogged.iter() {
            if let Some(series) = self.head.shard(id).get(id) {
                record.push(series.wal_ref, catalog.pairs(id));
            }
        }
        record
    }

    /// Puts samples of one shard, which the log has, into the head. Returns how many could follow.
    fn apply(&self, floats: &[Float]) -> usize {
        let Some(first) = floats.first() else { return 0 };
        let (mut applied, mut min, mut max) = (0, i64::MAX, i64::MIN);
        let mut shard = self.head.shard(first.series.id());
        for &Float { series, ts, value } in floats {
            if let Some(found) = shard.resolve(series) {
                found.logged = true;
            }
            if self.head.apply(&mut shard, series, ts, value) {
                applied += 1;
                (min, max) = (min.min(ts), max.max(ts));
            }
        }
        drop(shard);
        if applied > 0 {
            self.head.extend_time(min, max);
        }
        applied
    }
}

impl Drop for Appender<'_> {
    fn drop(&mut self) {
        for floats in &mut self.batch.floats {
            let Some(first) = floats.first() else { continue };
            let mut shard = self.inner.head.shard(first.series.id());
            for float in floats.drain(..) {
                if let Some(series) = shard.resolve(float.series) {
                    series.pending = false;
                }
            }
        }
        let mut batches = self.inner.batches.lock();
        if batches.len() < 16 {
            batches.push(std::mem::take(&mut self.batch));
        }
    }
}
