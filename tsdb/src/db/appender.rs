//! Batches of samples on their way in.

use std::sync::atomic::{AtomicU64, Ordering};

use model::{FloatHistogram, HistogramValue, IntHistogram, Labels, Timestamp};

use super::Inner;
use crate::chunk::{Value, layout};
use crate::error::{AppendError, CommitError};
use crate::head::series::Refusal;
use crate::head::{SHARDS, SeriesRef, shard_of};
use crate::wal::record::{HistogramRecords, SamplesRecord, SeriesRecord};

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
    shards: [Part; SHARDS],
    samples: SamplesRecord,
    unlogged: Vec<u32>,
}

/// The samples of one shard.
#[derive(Debug, Default)]
struct Part {
    floats: Vec<(SeriesRef, Timestamp, f64)>,
    histograms: Vec<(SeriesRef, Timestamp, HistogramValue)>,
}

impl Part {
    fn is_empty(&self) -> bool {
        self.floats.is_empty() && self.histograms.is_empty()
    }

    fn len(&self) -> usize {
        self.floats.len() + self.histograms.len()
    }
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

    /// Adds a sample. Repeating the newest sample of a series is accepted and does nothing. A staleness
    /// marker for a series of histograms is stored as a histogram.
    ///
    /// # Errors
    /// See [`AppendError`]; [`AppendError::UnknownSeries`] asks for [`Appender::series`] anew.
    pub fn append(&mut self, series: SeriesRef, ts: Timestamp, value: f64) -> Result<(), AppendError> {
        let mut shard = self.inner.head.shard(series.id());
        let found = shard.resolve(series).ok_or(AppendError::UnknownSeries)?;
        if model::is_stale_nan(value)
            && let Some(last) = found.last_histogram()
        {
            let stale = match last {
                HistogramValue::Int(_) => {
                    HistogramValue::Int(IntHistogram { sum: value, ..IntHistogram::default() })
                }
                HistogramValue::Float(_) => {
                    HistogramValue::Float(FloatHistogram { sum: value, ..FloatHistogram::default() })
                }
            };
            drop(shard);
            return self.append_histogram(series, ts, &stale);
        }
        if !self.verdict(ts, || found.check(ts, value))? {
            return Ok(());
        }
        found.pending = true;
        drop(shard);
        self.batch.shards[shard_of(series.id())].floats.push((series, ts, value));
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
        if !layout::is_valid(value) {
            return Err(AppendError::InvalidHistogram);
        }
        let mut shard = self.inner.head.shard(series.id());
        let found = shard.resolve(series).ok_or(AppendError::UnknownSeries)?;
        if !self.verdict(ts, || found.check_histogram(ts, value))? {
            return Ok(());
        }
        found.pending = true;
        drop(shard);
        self.batch.shards[shard_of(series.id())].histograms.push((series, ts, value.clone()));
        Ok(())
    }

    /// Whether a sample is to be stored, by its time and by what its series says. Counts refusals.
    fn verdict(
        &self,
        ts: Timestamp,
        check: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<bool, AppendError> {
        let counters = &self.inner.counters;
        if ts < self.accepts_from {
            return Err(count(&counters.out_of_bounds, AppendError::OutOfBounds));
        }
        match check() {
            Ok(()) => Ok(true),
            Err(Refusal::Repeated) => Ok(false),
            Err(Refusal::OutOfOrder) => Err(count(&counters.out_of_order, AppendError::OutOfOrder)),
            Err(Refusal::Duplicate) => Err(count(&counters.duplicate, AppendError::Duplicate)),
        }
    }

    /// Makes the batch durable against `kill -9` and visible. Returns the number of samples.
    ///
    /// # Errors
    /// The log could not be written; nothing of the batch is stored then.
    pub fn commit(mut self) -> Result<usize, CommitError> {
        let batch = &mut self.batch;
        if batch.shards.iter().all(Part::is_empty) {
            return Ok(0);
        }
        let mut log = self.inner.log.lock();
        let min_valid = self.inner.head.min_valid.load(Ordering::Acquire);
        let Batch { shards, samples, unlogged } = batch;
        let mut histograms = HistogramRecords::new();
        samples.clear();
        unlogged.clear();
        let given: usize = shards.iter().map(Part::len).sum();
        for part in shards.iter_mut().filter(|part| !part.is_empty()) {
            self.inner.encode(part, min_valid, unlogged, (samples, &mut histograms));
        }
        let new_series = self.inner.series_record(unlogged);
        let records = new_series.finish().into_iter().chain(samples.finish()).chain(histograms.finish());
        log.append(records).map_err(|source| CommitError { path: log.path(), source })?;
        if self.inner.options.wal_sync_interval.is_zero() {
            log.sync().map_err(|source| CommitError { path: log.path(), source })?;
        }
        let mut applied = 0;
        for part in shards.iter_mut().filter(|part| !part.is_empty()) {
            applied += self.inner.apply(part);
        }
        let counters = &self.inner.counters;
        counters.appended.fetch_add(applied as u64, Ordering::Relaxed);
        counters.out_of_order.fetch_add((given - applied) as u64, Ordering::Relaxed);
        Ok(applied)
    }
}

fn count(counter: &AtomicU64, error: AppendError) -> AppendError {
    counter.fetch_add(1, Ordering::Relaxed);
    error
}

impl Inner {
    /// Encodes the samples of a part for the log and leaves out those that cannot be stored any more: a
    /// block may have been cut, or another appender may have been quicker.
    fn encode(
        &self,
        part: &mut Part,
        min_valid: Timestamp,
        unlogged: &mut Vec<u32>,
        (samples, histograms): (&mut SamplesRecord, &mut HistogramRecords),
    ) {
        let Some(first) = part.first() else { return };
        let mut shard = self.head.shard(first.id());
        part.floats.retain(|&(series, ts, value)| {
            let found = shard.resolve(series).filter(|_| ts >= min_valid);
            let Some(found) = found.filter(|found| found.check(ts, value).is_ok()) else { return false };
            samples.push(found.wal_ref, ts, value);
            if !found.logged {
                unlogged.push(series.id());
            }
            true
        });
        part.histograms.retain(|(series, ts, value)| {
            let found = shard.resolve(*series).filter(|_| *ts >= min_valid);
            let found = found.filter(|found| found.check_histogram(*ts, value).is_ok());
            let Some(found) = found else { return false };
            histograms.push(found.wal_ref, *ts, value);
            if !found.logged {
                unlogged.push(series.id());
            }
            true
        });
    }

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

    /// Moves the samples of a part, which the log has, into the head. Returns how many could follow.
    fn apply(&self, part: &mut Part) -> usize {
        let Some(first) = part.first() else { return 0 };
        let (mut applied, mut min, mut max) = (0, i64::MAX, i64::MIN);
        let mut shard = self.head.shard(first.id());
        let floats = part.floats.drain(..).map(|(series, ts, value)| (series, ts, Value::Float(value)));
        let histograms = part.histograms.drain(..);
        let histograms = histograms.map(|(series, ts, value)| (series, ts, Value::Histogram(value)));
        for (series, ts, value) in floats.chain(histograms) {
            if let Some(found) = shard.resolve(series) {
                found.logged = true;
            }
            if self.head.apply(&mut shard, series, ts, &value) {
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

impl Part {
    /// Any series of the part; all are of one shard.
    fn first(&self) -> Option<SeriesRef> {
        let float = self.floats.first().map(|float| float.0);
        float.or_else(|| self.histograms.first().map(|histogram| histogram.0))
    }
}

impl Drop for Appender<'_> {
    fn drop(&mut self) {
        for part in &mut self.batch.shards {
            let Some(first) = part.first() else { continue };
            let mut shard = self.inner.head.shard(first.id());
            let floats = part.floats.drain(..).map(|float| float.0);
            let histograms = part.histograms.drain(..).map(|histogram| histogram.0);
            for series in floats.chain(histograms) {
                if let Some(series) = shard.resolve(series) {
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
