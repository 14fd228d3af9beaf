//! Batches of samples on their way in.

use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::{HashMap, HashSet};
use model::{Exemplar, FloatHistogram, HistogramValue, IntHistogram, Labels, Timestamp};
use smallvec::SmallVec;

use super::Inner;
use super::logs::Written;
use crate::chunk::{Sample, Value, layout};
use crate::error::{AppendError, CommitError};
use crate::head::metadata::Metadata;
use crate::head::series::Refusal;
use crate::head::{SHARDS, SeriesRef, Shard, shard_of};
use crate::wal::record::{self, SamplesRecord, SeriesRecord};
use crate::wal::samples::{self, OrderedRecords, SampleRecords};

/// A batch of samples of one moment, typically one scrape: all or nothing in the log, seen as a whole by
/// readers. Dropping it without `commit` forgets the samples.
///
/// A sample that cannot be stored is refused by a typed error, and the rest of the batch is kept. Of two
/// samples of one series within a batch that do not ascend in time, the one that was added later is late: it
/// is stored where the window allows that ([`crate::Options::out_of_order_window_ms`]), and left out and counted otherwise.
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
    exemplars: Vec<(SeriesRef, Labels, Exemplar)>,
    metadata: Vec<(SeriesRef, Metadata)>,
    unlogged: Vec<u32>,
    /// A sample has a start time.
    started: bool,
}

/// The samples of one shard.
#[derive(Debug, Default)]
struct Part {
    /// Floats where there are no start times: nearly everything.
    floats: Vec<(SeriesRef, Timestamp, f64)>,
    others: Vec<(SeriesRef, Sample)>,
    late: Vec<(SeriesRef, Sample)>,
}

impl Part {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.floats.len() + self.others.len() + self.late.len()
    }

    /// The series and times of the samples that come in order.
    fn in_order(&self) -> impl Iterator<Item = (SeriesRef, Timestamp)> {
        let floats = self.floats.iter().map(|float| (float.0, float.1));
        floats.chain(self.others.iter().map(|(series, sample)| (*series, sample.ts)))
    }
}

/// What becomes of a sample.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It follows the newest of its series.
    Store,
    /// It is there already.
    Skip,
    /// It comes late, but within the window.
    Late,
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
        self.append_started(series, (ts, 0), value)
    }

    /// The same with the time from which on the value counts, in milliseconds since the epoch, 0 where that is
    /// unknown. It is kept where [`crate::Options::float_chunks`] says so.
    ///
    /// # Errors
    /// See [`Appender::append`].
    pub fn append_started(
        &mut self,
        series: SeriesRef,
        (ts, start_ts): (Timestamp, Timestamp),
        value: f64,
    ) -> Result<(), AppendError> {
        let mut shard = self.inner.head.shard(series.id());
        let mut found = shard.resolve(series).ok_or(AppendError::UnknownSeries)?;
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
            return self.append_histogram_started(series, (ts, start_ts), &stale);
        }
        let check = self.inner.in_log_order(found.check(ts, value), &found, ts);
        let known = || found.value_at(ts, self.inner.head.mapped());
        let verdict = self.verdict((series, ts), check, || Value::Float(value), known)?;
        let part = &self.batch.shards[shard_of(series.id())];
        // What the batch has of a series shall stay in its order.
        let follows_other = found.is_pending() && part.others.iter().any(|(other, _)| *other == series);
        if verdict != Verdict::Skip {
            found.set_pending(true);
        }
        drop(shard);
        if verdict == Verdict::Store && !self.inner.options.keeps_starts() && !follows_other {
            self.batch.shards[shard_of(series.id())].floats.push((series, ts, value));
        } else {
            self.add(verdict, series, Sample { ts, start: start_ts, value: Value::Float(value) });
        }
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
        self.append_histogram_started(series, (ts, 0), value)
    }

    /// The same with the time from which on it counts, see [`Appender::append_started`].
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_histogram_started(
        &mut self,
        series: SeriesRef,
        (ts, start_ts): (Timestamp, Timestamp),
        value: &HistogramValue,
    ) -> Result<(), AppendError> {
        if !layout::is_valid(value) {
            return Err(AppendError::InvalidHistogram);
        }
        let mut shard = self.inner.head.shard(series.id());
        let mut found = shard.resolve(series).ok_or(AppendError::UnknownSeries)?;
        let check = self.inner.in_log_order(found.check_histogram(ts, value), &found, ts);
        let known = || found.value_at(ts, self.inner.head.mapped());
        let verdict = self.verdict((series, ts), check, || Value::Histogram(value.clone()), known)?;
        if verdict != Verdict::Skip {
            found.set_pending(true);
        }
        drop(shard);
        self.add(verdict, series, Sample { ts, start: start_ts, value: Value::Histogram(value.clone()) });
        Ok(())
    }

    fn add(&mut self, verdict: Verdict, series: SeriesRef, mut sample: Sample) {
        if !self.inner.options.keeps_starts() {
            sample.start = 0;
        }
        self.batch.started |= sample.start != 0;
        let part = &mut self.batch.shards[shard_of(series.id())];
        match verdict {
            Verdict::Skip => {}
            Verdict::Store => part.others.push((series, sample)),
            Verdict::Late => part.late.push((series, sample)),
        }
    }

    /// Adds an exemplar. Repeating the newest one of a series is accepted and does nothing.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_exemplar(&mut self, series: SeriesRef, exemplar: &Exemplar) -> Result<(), AppendError> {
        let known = self.inner.head.shard(series.id()).resolve(series).is_some();
        if !known {
            return Err(AppendError::UnknownSeries);
        }
        let labels = self.inner.head.catalog.read_recursive().labels(series.id());
        if self.inner.exemplars.check(&labels, exemplar)? {
            self.batch.exemplars.push((series, labels, exemplar.clone()));
        }
        Ok(())
    }

    /// Says what a metric is. Repeating what is known does nothing.
    ///
    /// # Errors
    /// [`AppendError::UnknownSeries`].
    pub fn metadata(&mut self, series: SeriesRef, metadata: &Metadata) -> Result<(), AppendError> {
        self.inner.head.shard(series.id()).resolve(series).ok_or(AppendError::UnknownSeries)?;
        let known = self.inner.head.metadata.get(series.id());
        if known.is_none_or(|known| *known != *metadata) {
            self.batch.metadata.push((series, metadata.clone()));
        }
        Ok(())
    }

    /// What becomes of a sample, by its time and by what its series says. Counts refusals.
    fn verdict(
        &self,
        (series, ts): (SeriesRef, Timestamp),
        check: Result<(), Refusal>,
        value: impl FnOnce() -> Value,
        known: impl FnOnce() -> Option<Value>,
    ) -> Result<Verdict, AppendError> {
        let counters = &self.inner.counters;
        let window = self.inner.options.late_window_ms() > 0;
        let in_bounds = ts >= self.accepts_from;
        match check {
            Ok(()) if in_bounds => Ok(Verdict::Store),
            _ if !in_bounds && !window => Err(count(&counters.out_of_bounds, AppendError::OutOfBounds)),
            Err(Refusal::Repeated) => Ok(Verdict::Skip),
            Err(Refusal::Duplicate) => Err(count(&counters.duplicate, AppendError::Duplicate)),
            _ if !window => Err(count(&counters.out_of_order, AppendError::OutOfOrder)),
            _ if !self.inner.accepts_late(ts) => Err(count(&counters.out_of_bounds, AppendError::TooOld)),
            _ => {
                let value = value();
                // A sample that came in order has its time, as one that came late.
                let same = known().map(|known| known.is_same(&value));
                match same.or_else(|| self.inner.head.late.taken(series.id(), ts, &value)) {
                    Some(true) => Ok(Verdict::Skip),
                    Some(false) => Err(count(&counters.duplicate, AppendError::Duplicate)),
                    None => Ok(Verdict::Late),
                }
            }
        }
    }

    /// Makes the batch durable against `kill -9` and visible. Returns the number of samples. On a full disk it is
    /// only visible, until there is space: see [`crate::Options::backlog_bytes_max`].
    ///
    /// # Errors
    /// The log could not be written; nothing of the batch is stored then.
    pub fn commit(mut self) -> Result<usize, CommitError> {
        let batch = &mut self.batch;
        if batch.shards.iter().all(Part::is_empty) && batch.exemplars.is_empty() && batch.metadata.is_empty()
        {
            return Ok(0);
        }
        let mut log = self.inner.log.lock();
        let min_valid = self.inner.head.min_valid.load(Ordering::Acquire);
        let Batch { shards, samples, exemplars, metadata, unlogged, started } = batch;
        let (mut others, mut late) = (OrderedRecords::new(*started), SampleRecords::new(*started));
        samples.clear();
        unlogged.clear();
        let given: usize = shards.iter().map(Part::len).sum();
        for part in shards.iter_mut().filter(|part| !part.is_empty()) {
            self.inner.encode(part, min_valid, unlogged, (samples, &mut others));
            self.inner.encode_late(part, unlogged, &mut late);
        }
        let examples = self.inner.encode_exemplars(exemplars, unlogged);
        let said = self.inner.encode_metadata(metadata, unlogged);
        let new_series = self.inner.series_record(unlogged);
        let late = late.finish();
        let records = new_series.finish().into_iter().chain(samples.finish()).chain(others.finish());
        // Who follows the log hears of late samples, too.
        let records = records.chain(late.iter().flat_map(|record| [record::COPY_MARK, record]));
        let records = records.chain(examples.as_deref()).chain(said.as_deref());
        let records: SmallVec<[&[u8]; 8]> = records.collect();
        let kept: usize = shards.iter().map(Part::len).sum();
        let written = log.commit(&records, &late, kept as u64)?;
        if written == Written::Logged && self.inner.options.wal_sync_interval.is_zero() {
            log.sync()?;
        }
        self.inner.committed.notify_all();
        let mut applied = 0;
        for part in shards.iter_mut().filter(|part| !part.is_empty()) {
            applied += self.inner.apply(part);
        }
        for (series, labels, exemplar) in exemplars.drain(..) {
            self.inner.set_logged(series);
            self.inner.exemplars.add(&labels, exemplar);
        }
        for (series, metadata) in metadata.drain(..) {
            self.inner.set_logged(series);
            self.inner.head.metadata.set(series.id(), &metadata);
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
    /// Encodes the samples of a part for the log. Since they were looked at a block may have been cut, or another
    /// appender may have been quicker; and samples of one batch may be in any order. What does not come in order comes
    /// late, if the store takes late samples, and is left out otherwise: the log has what the head has.
    fn encode(
        &self,
        part: &mut Part,
        min_valid: Timestamp,
        unlogged: &mut Vec<u32>,
        (samples, others): (&mut SamplesRecord, &mut OrderedRecords),
    ) {
        let Some(first) = part.first() else { return };
        let mut shard = self.head.shard(first.id());
        let (mut overtaken, mut again) = (Vec::new(), Vec::new());
        let comes_late = |known: Option<Value>, ts| known.is_none() && self.accepts_late(ts);
        part.floats.retain(|&(series, ts, value)| {
            let Some(mut found) = shard.resolve(series) else { return false };
            if ts < min_valid || self.in_log_order(found.check(ts, value), &found, ts).is_err() {
                found.set_pending(false);
                if comes_late(found.value_at(ts, self.head.mapped()), ts) {
                    overtaken.push((series, Sample { ts, start: 0, value: Value::Float(value) }));
                }
                return false;
            }
            if found.is_seen_again() && !self.head.is_log_only() {
                again.push((series, Sample { ts, start: 0, value: Value::Float(value) }));
                return false;
            }
            samples.push(found.wal_ref(), ts, value);
            if !found.is_logged() {
                unlogged.push(series.id());
            }
            true
        });
        part.others.retain(|(series, sample)| {
            let Some(mut found) = shard.resolve(*series) else { return false };
            let check = self.in_log_order(found.check_sample(sample), &found, sample.ts);
            if sample.ts < min_valid || check.is_err() {
                found.set_pending(false);
                if comes_late(found.value_at(sample.ts, self.head.mapped()), sample.ts) {
                    overtaken.push((*series, sample.clone()));
                }
                return false;
            }
            if found.is_seen_again() && !self.head.is_log_only() {
                again.push((*series, sample.clone()));
                return false;
            }
            others.push(found.wal_ref(), sample);
            if !found.is_logged() {
                unlogged.push(series.id());
            }
            true
        });
        part.late.append(&mut overtaken);
        if !again.is_empty() {
            self.encode_again(part, again, &mut shard, (samples, others));
        }
    }

    /// Encodes what follows other samples of its series in the same batch: in order if it is newer than those, late
    /// otherwise, as if each had been committed by itself.
    fn encode_again(
        &self,
        part: &mut Part,
        again: Vec<(SeriesRef, Sample)>,
        shard: &mut Shard,
        (floats, others): (&mut SamplesRecord, &mut OrderedRecords),
    ) {
        /// The newest sample that comes in order, and its kind, unless it is one of the floats, which are appended first.
        type Newest = (Timestamp, Option<u8>);
        let mut newest: HashMap<SeriesRef, Newest> =
            again.iter().map(|(series, _)| (*series, (Timestamp::MIN, None))).collect();
        for &(series, ts, _) in &part.floats {
            newest.entry(series).and_modify(|newest| *newest = (ts, None));
        }
        for (series, sample) in &part.others {
            newest
                .entry(*series)
                .and_modify(|newest| *newest = (sample.ts.max(newest.0), Some(samples::kind(&sample.value))));
        }
        let mut taken: HashSet<(SeriesRef, Timestamp)> =
            part.in_order().filter(|(series, _)| newest.contains_key(series)).collect();
        for (series, sample) in again {
            let Some(found) = shard.resolve(series) else { continue };
            let Some(known) = newest.get_mut(&series) else { continue };
            let as_float = match sample.value {
                Value::Float(value) if !self.options.keeps_starts() => Some(value),
                _ => None,
            };
            let follows = sample.ts > known.0 || *known == (Timestamp::MIN, None);
            match as_float {
                Some(value) if follows && known.1.is_none() => {
                    taken.insert((series, sample.ts));
                    floats.push(found.wal_ref(), sample.ts, value);
                    part.floats.push((series, sample.ts, value));
                    known.0 = sample.ts;
                }
                _ if follows => {
                    taken.insert((series, sample.ts));
                    let kind = samples::kind(&sample.value);
                    if known.1.is_some_and(|before| before != kind) {
                        others.begin();
                    }
                    others.push(found.wal_ref(), &sample);
                    *known = (sample.ts, Some(kind));
                    part.others.push((series, sample));
                }
                _ => {
                    // The first samples of all are compared with each other.
                    let window = self.options.late_window_ms();
                    let first = self.head.max_ts().is_none() && sample.ts >= known.0.saturating_sub(window);
                    let takes = self.accepts_late(sample.ts) || first && window > 0;
                    if takes && !taken.contains(&(series, sample.ts)) {
                        part.late.push((series, sample));
                    }
                }
            }
        }
    }

    /// The same for late samples. Of two of one time the first is taken.
    fn encode_late(&self, part: &mut Part, unlogged: &mut Vec<u32>, records: &mut SampleRecords) {
        let Some(first) = part.late.first() else { return };
        let mut shard = self.head.shard(first.0.id());
        let mut taken = HashSet::with_capacity(part.late.len());
        part.late.retain(|(series, sample)| {
            let Some(found) = shard.resolve(*series) else { return false };
            let known = self.head.late.taken(series.id(), sample.ts, &sample.value);
            if known.is_some() || !taken.insert((*series, sample.ts)) {
                return false;
            }
            records.push(found.wal_ref(), sample);
            if !found.is_logged() {
                unlogged.push(series.id());
            }
            true
        });
    }

    /// The record of the batch's exemplars, without those that another appender was quicker with.
    fn encode_exemplars(
        &self,
        exemplars: &mut Vec<(SeriesRef, Labels, Exemplar)>,
        unlogged: &mut Vec<u32>,
    ) -> Option<Vec<u8>> {
        let mut names = Vec::with_capacity(exemplars.len());
        exemplars.retain(|(series, labels, exemplar)| {
            let mut shard = self.head.shard(series.id());
            let Some(found) = shard.resolve(*series) else { return false };
            if self.exemplars.check(labels, exemplar) != Ok(true) {
                return false;
            }
            names.push(found.wal_ref());
            if !found.is_logged() {
                unlogged.push(series.id());
            }
            true
        });
        let entries = exemplars.iter().map(|(_, _, exemplar)| exemplar).zip(&names);
        record::exemplars(entries.map(|(e, &name)| (name, e.ts, e.value, &e.labels)))
    }

    /// The record of what the batch says about metrics.
    fn encode_metadata(
        &self,
        metadata: &mut Vec<(SeriesRef, Metadata)>,
        unlogged: &mut Vec<u32>,
    ) -> Option<Vec<u8>> {
        let mut names = Vec::with_capacity(metadata.len());
        metadata.retain(|(series, _)| {
            let mut shard = self.head.shard(series.id());
            let Some(found) = shard.resolve(*series) else { return false };
            names.push(found.wal_ref());
            if !found.is_logged() {
                unlogged.push(series.id());
            }
            true
        });
        record::metadata_record(names.into_iter().zip(metadata.iter().map(|(_, metadata)| metadata)))
    }

    fn set_logged(&self, series: SeriesRef) {
        if let Some(mut found) = self.head.shard(series.id()).resolve(series) {
            found.set_logged();
        }
    }

    /// The series record for series that the log does not know yet.
    pub(super) fn series_record(&self, unlogged: &mut Vec<u32>) -> SeriesRecord {
        let mut record = SeriesRecord::new();
        if unlogged.is_empty() {
            return record;
        }
        unlogged.sort_unstable();
        unlogged.dedup();
        let catalog = self.head.catalog.read_recursive();
        for &id in unlogged.iter() {
            if let Some(series) = self.head.shard(id).get(id) {
                record.push(series.wal_ref(), catalog.pairs(id));
            }
        }
        record
    }

    /// Moves the samples of a part, which the log has, into the head. Returns how many could follow.
    fn apply(&self, part: &mut Part) -> usize {
        let Some(first) = part.first() else { return 0 };
        let (mut applied, mut min, mut max) = (0, i64::MAX, i64::MIN);
        let mut shard = self.head.shard(first.id());
        for (series, ts, value) in part.floats.drain(..) {
            if self.head.apply(&mut shard, series, ts, value) {
                applied += 1;
                (min, max) = (min.min(ts), max.max(ts));
            }
        }
        for (series, sample) in part.others.drain(..) {
            if self.head.apply_sample(&mut shard, series, &sample) {
                applied += 1;
                (min, max) = (min.min(sample.ts), max.max(sample.ts));
            }
        }
        let snapshots = (self.head.snapshots.next(), self.head.snapshots.floor());
        for (series, sample) in part.late.drain(..) {
            if let Some(mut found) = shard.resolve(series) {
                found.set_committed();
                applied += usize::from(self.head.late.add(series.id(), sample, snapshots));
            }
        }
        drop(shard);
        if min <= max {
            self.head.extend_time(min, max);
        }
        applied
    }
}

impl Part {
    /// Any series of the part; all are of one shard.
    fn first(&self) -> Option<SeriesRef> {
        let float = self.floats.first().map(|float| float.0);
        float
            .or_else(|| self.others.first().map(|other| other.0))
            .or_else(|| self.late.first().map(|late| late.0))
    }
}

impl Drop for Appender<'_> {
    fn drop(&mut self) {
        for part in &mut self.batch.shards {
            let Some(first) = part.first() else { continue };
            let mut shard = self.inner.head.shard(first.id());
            let floats = part.floats.drain(..).map(|float| float.0);
            let others = part.others.drain(..).map(|other| other.0);
            let late = part.late.drain(..).map(|late| late.0);
            for series in floats.chain(others).chain(late) {
                if let Some(mut series) = shard.resolve(series) {
                    series.set_pending(false);
                }
            }
        }
        self.batch.exemplars.clear();
        self.batch.metadata.clear();
        self.batch.started = false;
        let mut batches = self.inner.batches.lock();
        if batches.len() < 16 {
            batches.push(std::mem::take(&mut self.batch));
        }
    }
}
