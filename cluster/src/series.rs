//! Series that lie in memory.

use std::collections::BTreeMap;

use model::{Labels, Samples, SeriesSet, StorageError, TimeRange};

/// Series with their samples.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(pub(crate) Vec<(Labels, Samples)>);

impl SeriesSet for Held {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn visit_labels(&self, index: usize, visit: &mut dyn FnMut(&str, &str)) {
        self.0[index].0.iter().for_each(|(name, value)| visit(name, value));
    }

    fn labels(&self, index: usize) -> Labels {
        self.0[index].0.clone()
    }

    fn samples(&self, index: usize, range: TimeRange, into: &mut Samples) -> Result<(), StorageError> {
        into.clear();
        copy(&self.0[index].1, range, into);
        Ok(())
    }
}

/// The part of a sorted column that lies in a range.
fn within(times: &[i64], range: TimeRange) -> std::ops::Range<usize> {
    let start = times.partition_point(|ts| *ts < range.start);
    start..times.partition_point(|ts| *ts <= range.end).max(start)
}

fn copy(from: &Samples, range: TimeRange, into: &mut Samples) {
    let part = within(&from.ts, range);
    into.ts.extend_from_slice(&from.ts[part.clone()]);
    into.values.extend_from_slice(&from.values[part.clone()]);
    if !from.start_ts.is_empty() {
        into.start_ts.extend_from_slice(&from.start_ts[part]);
    }
    let part = within(&from.histogram_ts, range);
    into.histogram_ts.extend_from_slice(&from.histogram_ts[part.clone()]);
    into.histograms.extend_from_slice(&from.histograms[part.clone()]);
    if !from.histogram_start_ts.is_empty() {
        into.histogram_start_ts.extend_from_slice(&from.histogram_start_ts[part]);
    }
}

/// Puts the series of several shards together. What two shards have of the same series at the same time is
/// the same sample, as a router copies bytes.
#[derive(Default)]
pub(crate) struct Merge(BTreeMap<Labels, Samples>);

impl Merge {
    pub(crate) fn add(&mut self, labels: Labels, samples: Samples) {
        match self.0.entry(labels) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(samples);
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => merge(entry.get_mut(), &samples),
        }
    }

    pub(crate) fn finish(self) -> Held {
        Held(self.0.into_iter().collect())
    }
}

/// Merges by time; of two samples of one time that of `known` stays.
fn merge(known: &mut Samples, other: &Samples) {
    type Found = (Option<(f64, Option<i64>)>, Option<(usize, bool)>);
    let mut all: BTreeMap<i64, Found> = BTreeMap::new();
    for (samples, is_other) in [(&*known, false), (other, true)] {
        for (at, ts) in samples.ts.iter().enumerate() {
            let start = samples.start_ts.get(at).copied();
            all.entry(*ts).or_insert((Some((samples.values[at], start)), None));
        }
        for (at, ts) in samples.histogram_ts.iter().enumerate() {
            all.entry(*ts).or_insert((None, Some((at, is_other))));
        }
    }
    let (starts, histogram_starts) = [known, other].iter().fold((false, false), |(a, b), samples| {
        (a || !samples.start_ts.is_empty(), b || !samples.histogram_start_ts.is_empty())
    });
    let mut merged = Samples::default();
    for (ts, (float, histogram)) in all {
        if let Some((value, start)) = float {
            merged.push_float(ts, value);
            if starts {
                merged.start_ts.push(start.unwrap_or(0));
            }
        } else if let Some((at, is_other)) = histogram {
            let from = if is_other { other } else { &*known };
            merged.push_histogram(ts, from.histograms[at].clone());
            if histogram_starts {
                merged.histogram_start_ts.push(from.histogram_start_ts.get(at).copied().unwrap_or(0));
            }
        }
    }
    *known = merged;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(times: &[i64]) -> Samples {
        let mut samples = Samples::default();
        times.iter().for_each(|ts| samples.push_float(*ts, *ts as f64));
        samples
    }

    #[test]
    fn pieces_of_a_series_are_one() {
        let labels = Labels::from_pairs([("a", "1")]);
        let mut merge = Merge::default();
        merge.add(labels.clone(), samples(&[3, 4, 5]));
        merge.add(labels.clone(), samples(&[1, 2, 3, 4]));
        let held = merge.finish();
        assert_eq!(held.0, [(labels, samples(&[1, 2, 3, 4, 5]))]);
        let mut into = Samples::default();
        held.samples(0, TimeRange::new(2, 4), &mut into).unwrap();
        assert_eq!(into, samples(&[2, 3, 4]));
    }
}
