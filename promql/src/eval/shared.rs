//! Selectors that occur more than once are read once.
//!
//! What is equal in more than its selectors is computed once ([`super::sharing`]); this is for the rest.
//! `a / (a + b)` and `rate(x[5m]) / rate(x[1h])` name the same series twice. Which series fulfil the
//! matchers is found out once, for all the time that any of the occurrences reads; each then reads its
//! own part. A set may hold series without samples in that part: they come out empty and vanish.
//!
//! The first to read a series decodes all of that time and keeps it; the others copy their part. A sample
//! takes 16 bytes and about 1 ns to copy where decoding takes 5. [`KEPT_MAX`] bounds what a query keeps, to
//! two million samples; series beyond are decoded by each reader, as they would be without this.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use model::{Labels, Matcher, Querier, Samples, Selection, SeriesSet, StorageError, TimeRange, Timestamp};

use super::sharing::Reading;
use crate::engine::QueryError;
use crate::limits::Account;

/// Bytes of decoded samples that one selection keeps, at most.
const KEPT_MAX: usize = 32 << 20;

/// A selection with several users.
pub(super) struct Shared<'a> {
    matchers: Vec<Matcher>,
    range: TimeRange,
    pub(super) set: Arc<dyn SeriesSet + 'a>,
    /// Whether its series come in any order.
    pub(super) unordered: bool,
}

impl Shared<'_> {
    /// Whether the selection has all series that `matchers` and `range` ask for.
    pub(super) fn serves(&self, matchers: &[Matcher], range: TimeRange) -> bool {
        self.range.start <= range.start && range.end <= self.range.end && self.matchers == matchers
    }
}

/// Makes those selections that have several users.
pub(super) fn select<'a>(
    querier: &'a dyn Querier,
    readings: &[Reading],
    account: &'a Account<'a>,
) -> Result<Vec<Shared<'a>>, QueryError> {
    let mut out = Vec::new();
    for reading in readings.iter().filter(|reading| reading.lookups > 1) {
        let Reading { range, unordered, .. } = *reading;
        let selection = Selection::new(&reading.matchers, range).until(account.cancelled());
        let inner =
            if unordered { querier.select_unordered(&selection)? } else { querier.select(&selection)? };
        let set: Arc<dyn SeriesSet> = if reading.readers > 1 {
            let columns = (0..inner.len()).map(|_| OnceLock::new()).collect();
            Arc::new(Kept { inner, range, columns, bytes: AtomicUsize::new(0), account })
        } else {
            Arc::from(inner)
        };
        out.push(Shared { matchers: reading.matchers.clone(), range, set, unordered });
    }
    Ok(out)
}

/// A set whose series are decoded once, if they are floats.
struct Kept<'a> {
    inner: Box<dyn SeriesSet + 'a>,
    range: TimeRange,
    /// Times and values of the series in `range`; nothing where they are not worth keeping.
    columns: Box<[OnceLock<Option<Floats>>]>,
    bytes: AtomicUsize,
    account: &'a Account<'a>,
}

type Floats = Box<[(Timestamp, f64)]>;

impl Kept<'_> {
    /// Keeps the floats of `samples`, if they are nothing else and there is room.
    fn keep(&self, samples: &Samples) -> Option<Floats> {
        if samples.histogram_ts.len() + samples.start_ts.len() > 0 {
            return None;
        }
        let bytes = samples.ts.len() * size_of::<(Timestamp, f64)>();
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > KEPT_MAX || !self.account.keep(bytes) {
            return None;
        }
        Some(samples.ts.iter().copied().zip(samples.values.iter().copied()).collect())
    }
}

impl SeriesSet for Kept<'_> {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn visit_labels(&self, index: usize, visit: &mut dyn FnMut(&str, &str)) {
        self.inner.visit_labels(index, visit);
    }

    fn labels(&self, index: usize) -> Labels {
        self.inner.labels(index)
    }

    fn visit_some_labels(&self, index: usize, names: &[String], visit: &mut dyn FnMut(&str, &str)) {
        self.inner.visit_some_labels(index, names, visit);
    }

    fn may_have_label(&self, name: &str) -> bool {
        self.inner.may_have_label(name)
    }

    fn newest_float(&self, index: usize) -> Option<(Timestamp, f64)> {
        self.inner.newest_float(index)
    }

    fn samples(&self, index: usize, range: TimeRange, into: &mut Samples) -> Result<(), StorageError> {
        let cell = &self.columns[index];
        if cell.get().is_none() && self.bytes.load(Ordering::Relaxed) < KEPT_MAX {
            self.inner.samples(index, self.range, into)?;
            // Two readers may come here at once; the second has decoded in vain.
            cell.get_or_init(|| self.keep(into));
            cut(&mut into.ts, range, &mut into.values, &mut into.start_ts);
            cut(&mut into.histogram_ts, range, &mut into.histograms, &mut into.histogram_start_ts);
            return Ok(());
        }
        let Some(Some(floats)) = cell.get() else {
            return self.inner.samples(index, range, into);
        };
        into.clear();
        let start = floats.partition_point(|(ts, _)| *ts < range.start);
        let end = floats.partition_point(|(ts, _)| *ts <= range.end);
        for (ts, value) in &floats[start..end] {
            into.push_float(*ts, *value);
        }
        Ok(())
    }
}

/// Removes what lies outside `range` from columns in order of time.
fn cut<T>(ts: &mut Vec<Timestamp>, range: TimeRange, values: &mut Vec<T>, starts: &mut Vec<Timestamp>) {
    let end = ts.partition_point(|ts| *ts <= range.end);
    let start = ts.partition_point(|ts| *ts < range.start).min(end);
    values.truncate(end);
    values.drain(..start);
    if !starts.is_empty() {
        starts.truncate(end);
        starts.drain(..start);
    }
    ts.truncate(end);
    ts.drain(..start);
}
