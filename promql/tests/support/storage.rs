//! A store in memory, for tests.

use std::collections::BTreeMap;

use model::{Labels, Matcher, Querier, Samples, Selection, SeriesSet, StorageError, TimeRange, Timestamp};

/// Series in order of labels.
#[derive(Clone, Default)]
pub struct Memory(pub BTreeMap<Labels, Samples>);

struct Selected<'a>(Vec<(&'a Labels, &'a Samples)>);

fn fulfils(labels: &Labels, matchers: &[Matcher]) -> bool {
    matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")))
}

impl Querier for Memory {
    fn select(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
        let within = |samples: &Samples| samples.iter().any(|s| selection.range.contains(s.ts));
        let found = self.0.iter().filter(|(l, s)| fulfils(l, selection.matchers) && within(s));
        Ok(Box::new(Selected(found.collect())))
    }

    /// The other way round, so that whoever relies on the order is found out.
    fn select_unordered(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
        let found = self.0.iter().rev().filter(|(labels, _)| fulfils(labels, selection.matchers));
        Ok(Box::new(Selected(found.collect())))
    }

    fn label_names(&self, _: &[Matcher], _: TimeRange, _: usize) -> Result<Vec<String>, StorageError> {
        Ok(Vec::new())
    }

    fn label_values(
        &self,
        _: &str,
        _: &[Matcher],
        _: TimeRange,
        _: usize,
    ) -> Result<Vec<String>, StorageError> {
        Ok(Vec::new())
    }
}

impl SeriesSet for Selected<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn visit_labels(&self, index: usize, visit: &mut dyn FnMut(&str, &str)) {
        self.0[index].0.iter().for_each(|(name, value)| visit(name, value));
    }

    fn newest_float(&self, index: usize) -> Option<(Timestamp, f64)> {
        let samples = self.0[index].1;
        let newest = samples.ts.last().copied().zip(samples.values.last().copied());
        newest.filter(|(ts, _)| samples.histogram_ts.last().is_none_or(|histogram| histogram < ts))
    }

    fn samples(&self, index: usize, range: TimeRange, into: &mut Samples) -> Result<(), StorageError> {
        into.clear();
        let from = self.0[index].1;
        for (at, ts) in from.ts.iter().enumerate().filter(|(_, ts)| range.contains(**ts)) {
            into.push_float(*ts, from.values[at]);
            if let Some(start) = from.start_ts.get(at) {
                into.start_ts.push(*start);
            }
        }
        for (at, ts) in from.histogram_ts.iter().enumerate().filter(|(_, ts)| range.contains(**ts)) {
            into.push_histogram(*ts, from.histograms[at].clone());
            if let Some(start) = from.histogram_start_ts.get(at) {
                into.histogram_start_ts.push(*start);
            }
        }
        Ok(())
    }
}
