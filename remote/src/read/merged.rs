//! The local store and other servers as one store, for the time of one query.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use model::{Labels, Matcher, Querier, Samples, Selection, SeriesSet, StorageError, TimeRange, Timestamp};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;

use super::client::{Endpoint, Fetched};

/// The first two blocks may lack what was scraped before the first start was over.
const COVERED_AFTER_MS: i64 = 2 * 7_200_000;

/// From when on a store is taken to have everything: as Prometheus has it, some time after its oldest block begins, or
/// after `now` if there is none.
#[must_use]
pub fn covered_from(db: &tsdb::Db, now: Timestamp) -> Timestamp {
    let oldest = db.blocks().first().map_or(now, |block| block.min_time);
    oldest.saturating_add(COVERED_AFTER_MS)
}

/// The servers that are asked beside the local store.
pub struct Endpoints {
    all: RwLock<Vec<Endpoint>>,
    runtime: Handle,
}

impl Endpoints {
    /// None yet. They are spoken to on `runtime`.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self { all: RwLock::default(), runtime }
    }

    /// From now on these are asked, and no others.
    pub fn apply(&self, endpoints: Vec<Endpoint>) {
        *self.all.write() = endpoints;
    }

    /// Whether none is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.read().is_empty()
    }

    #[cfg(test)]
    pub(super) fn first(&self) -> Endpoint {
        self.all.read()[0].clone()
    }

    /// `local`, which covers the time from `local_from` on, and what these servers have. What a server does not
    /// answer is missing with a warning, or an error if `strict`.
    ///
    /// Reading blocks, and must not be done on a thread that drives the runtime.
    #[must_use]
    pub fn beside<'q>(&self, local: &'q dyn Querier, local_from: Timestamp, strict: bool) -> Merged<'q> {
        let endpoints = self.all.read().clone();
        Merged {
            local,
            local_from,
            strict,
            endpoints,
            runtime: self.runtime.clone(),
            warnings: Mutex::default(),
        }
    }
}

/// See [`Endpoints::beside`]. Names and values of labels are those of the local store, as in Prometheus: the
/// protocol cannot ask for them.
pub struct Merged<'q> {
    local: &'q dyn Querier,
    local_from: Timestamp,
    strict: bool,
    endpoints: Vec<Endpoint>,
    runtime: Handle,
    warnings: Mutex<BTreeSet<String>>,
}

impl Merged<'_> {
    /// What is missing, in words.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().iter().cloned().collect()
    }

    /// What the other servers have, in the order of the configuration.
    fn fetch(&self, selection: &Selection<'_>) -> Result<Vec<Fetched>, StorageError> {
        let asked = self.endpoints.iter().filter_map(|endpoint| {
            let question = endpoint.question((selection.matchers, selection.range), self.local_from)?;
            Some(endpoint.fetch(question, selection.cancelled))
        });
        let answers = self.runtime.block_on(futures::future::join_all(asked));
        if selection.cancelled.is_some_and(model::QueryCancelled::is_set) {
            return Err(StorageError::Cancelled);
        }
        let mut all = Vec::new();
        for answer in answers {
            match answer {
                Ok(series) => all.extend(series),
                Err(why) if self.strict => return Err(StorageError::Unavailable(why)),
                Err(why) => {
                    self.warnings.lock().insert(why);
                }
            }
        }
        Ok(all)
    }

    fn join<'s>(
        &self,
        local: Box<dyn SeriesSet + 's>,
        fetched: Vec<Fetched>,
        sorted: bool,
    ) -> Box<dyn SeriesSet + 's> {
        if fetched.is_empty() {
            return local;
        }
        let mut parts: HashMap<Labels, Vec<Fetched>> = HashMap::new();
        for series in fetched {
            parts.entry(series.labels.clone()).or_default().push(series);
        }
        let mut rows: Vec<Row> = Vec::with_capacity(local.len() + parts.len());
        for at in 0..local.len() {
            let labels = local.labels(at);
            let parts = parts.remove(&labels).unwrap_or_default();
            rows.push(Row { labels, local: Some(at), parts });
        }
        rows.extend(parts.into_iter().map(|(labels, parts)| Row { labels, local: None, parts }));
        let known = local.len();
        if sorted {
            rows.sort_by(|one, other| one.labels.cmp(&other.labels));
        } else {
            // Any order that is the same the next time.
            rows[known..].sort_by(|one, other| one.labels.cmp(&other.labels));
        }
        Box::new(Joined { local, rows })
    }
}

impl Querier for Merged<'_> {
    fn select(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
        let fetched = self.fetch(selection)?;
        Ok(self.join(self.local.select(selection)?, fetched, true))
    }

    fn select_unordered(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
        let fetched = self.fetch(selection)?;
        Ok(self.join(self.local.select_unordered(selection)?, fetched, false))
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        self.local.label_names(matchers, range, limit)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        self.local.label_values(name, matchers, range, limit)
    }

    fn visit_label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
        visit: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), StorageError> {
        self.local.visit_label_values(name, matchers, range, limit, visit)
    }
}

/// A series, and who has it.
struct Row {
    labels: Labels,
    local: Option<usize>,
    parts: Vec<Fetched>,
}

struct Joined<'s> {
    local: Box<dyn SeriesSet + 's>,
    rows: Vec<Row>,
}

impl SeriesSet for Joined<'_> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn visit_labels(&self, index: usize, visit: &mut dyn FnMut(&str, &str)) {
        self.rows[index].labels.iter().for_each(|(name, value)| visit(name, value));
    }

    fn labels(&self, index: usize) -> Labels {
        self.rows[index].labels.clone()
    }

    fn newest_float(&self, index: usize) -> Option<(Timestamp, f64)> {
        let row = &self.rows[index];
        row.local.filter(|_| row.parts.is_empty()).and_then(|at| self.local.newest_float(at))
    }

    fn samples(&self, index: usize, range: TimeRange, into: &mut Samples) -> Result<(), StorageError> {
        into.clear();
        let row = &self.rows[index];
        if let Some(at) = row.local {
            self.local.samples(at, range, into)?;
        }
        for part in &row.parts {
            let mut more = Samples::default();
            part.decode(range, &mut more).map_err(|error| {
                StorageError::Unavailable(format!("remote read: {}: a chunk of it: {error}", row.labels))
            })?;
            merge(into, more);
        }
        Ok(())
    }
}

/// Adds the samples of `more` at times at which `known` has none. Starts are not read from other servers.
pub(super) fn merge(known: &mut Samples, more: Samples) {
    let is_sorted = more.ts.is_sorted_by(|a, b| a < b) && more.histogram_ts.is_sorted_by(|a, b| a < b);
    let has_starts = !known.start_ts.is_empty() || !known.histogram_start_ts.is_empty();
    if is_sorted && !has_starts {
        // Nearly always one has the older samples and the other the newer ones.
        if last(&more) < first(known) {
            let newer = std::mem::replace(known, more);
            return append(known, newer);
        }
        if last(known) < first(&more) {
            return append(known, more);
        }
    }
    let mut taken: BTreeSet<Timestamp> = known.ts.iter().chain(&known.histogram_ts).copied().collect();
    let is_new = |taken: &mut BTreeSet<Timestamp>, ts: Timestamp| taken.insert(ts);
    let starts = std::mem::take(&mut known.start_ts);
    let mut floats: Vec<(Timestamp, f64, Timestamp)> = known
        .ts
        .iter()
        .zip(&known.values)
        .enumerate()
        .map(|(at, (ts, value))| (*ts, *value, starts.get(at).copied().unwrap_or(0)))
        .collect();
    let new = more.ts.iter().zip(&more.values).filter(|(ts, _)| is_new(&mut taken, **ts));
    floats.extend(new.map(|(ts, value)| (*ts, *value, 0)));
    floats.sort_by_key(|(ts, ..)| *ts);
    known.ts = floats.iter().map(|(ts, ..)| *ts).collect();
    known.values = floats.iter().map(|(_, value, _)| *value).collect();
    if !starts.is_empty() {
        known.start_ts = floats.iter().map(|(.., start)| *start).collect();
    }
    let starts = std::mem::take(&mut known.histogram_start_ts);
    let mut histograms: Vec<_> = std::mem::take(&mut known.histogram_ts)
        .into_iter()
        .zip(std::mem::take(&mut known.histograms))
        .enumerate()
        .map(|(at, (ts, histogram))| (ts, histogram, starts.get(at).copied().unwrap_or(0)))
        .collect();
    let new = more.histogram_ts.into_iter().zip(more.histograms).filter(|(ts, _)| is_new(&mut taken, *ts));
    histograms.extend(new.map(|(ts, histogram)| (ts, histogram, 0)));
    histograms.sort_by_key(|(ts, ..)| *ts);
    if !starts.is_empty() {
        known.histogram_start_ts = histograms.iter().map(|(.., start)| *start).collect();
    }
    for (ts, histogram, _) in histograms {
        known.push_histogram(ts, histogram);
    }
}

/// Newer than anything if there is none.
fn first(samples: &Samples) -> Timestamp {
    samples
        .ts
        .first()
        .into_iter()
        .chain(samples.histogram_ts.first())
        .min()
        .copied()
        .unwrap_or(Timestamp::MAX)
}

/// Older than anything if there is none.
fn last(samples: &Samples) -> Timestamp {
    samples.ts.last().into_iter().chain(samples.histogram_ts.last()).max().copied().unwrap_or(Timestamp::MIN)
}

fn append(older: &mut Samples, newer: Samples) {
    older.ts.extend(newer.ts);
    older.values.extend(newer.values);
    older.histogram_ts.extend(newer.histogram_ts);
    older.histograms.extend(newer.histograms);
}
