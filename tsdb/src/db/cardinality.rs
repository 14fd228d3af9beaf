//! Where the series come from.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;

use hashbrown::HashMap;
use model::Timestamp;

use super::maintain::Pending;
use super::{Db, Inner};

/// The largest contributors to the head, each list descending by its number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cardinality {
    /// Series in the head.
    pub series: u64,
    /// Distinct pairs of label name and value.
    pub label_pairs: u64,
    /// Series by metric name.
    pub series_by_metric: Vec<(String, u64)>,
    /// Distinct values by label name.
    pub values_by_label: Vec<(String, u64)>,
    /// Bytes of all distinct values by label name.
    pub bytes_by_label: Vec<(String, u64)>,
    /// Series by `name=value`.
    pub series_by_pair: Vec<(String, u64)>,
}

/// The `limit` largest.
fn largest(mut all: Vec<(String, u64)>, limit: usize) -> Vec<(String, u64)> {
    all.sort_unstable_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
    all.truncate(limit);
    all
}

impl Db {
    /// The labels and metrics with the most series, at most `limit` of each list.
    #[must_use]
    pub fn cardinality(&self, limit: usize) -> Cardinality {
        self.inner.cardinality(limit)
    }
}

/// Refused series are told of this often.
const TOLD_EVERY_MS: i64 = 60_000;

impl Cardinality {
    /// What there is most of: the label that explodes, where one does.
    fn blame(&self) -> String {
        let label = self.values_by_label.iter().find(|(name, _)| name != model::METRIC_NAME);
        let label = label.map(|(name, values)| format!("label {name:?} has {values} values"));
        let metric = self.series_by_metric.first();
        let metric = metric.map(|(name, series)| format!("metric {name:?} has {series} series"));
        label.into_iter().chain(metric).collect::<Vec<_>>().join(", ")
    }
}

impl Inner {
    /// Says that new series are refused, and which label has so many values.
    pub(super) fn tell_of_limit(&self, pending: &mut Pending, now: Timestamp) {
        let (refused, (known, at)) = (self.head.refused.load(Ordering::Relaxed), pending.told);
        let is_due = known == 0 || now < at || now.saturating_sub(at) >= TOLD_EVERY_MS;
        if refused > known && is_due {
            pending.told = (refused, now);
            let found = self.cardinality(2);
            let (times, series) = (refused - known, found.series);
            tracing::warn!(
                "of {series} series, as many as there may be: a new one was refused {times} times; {}",
                found.blame()
            );
        }
    }

    fn cardinality(&self, limit: usize) -> Cardinality {
        let catalog = self.head.catalog.read_recursive();
        let mut found = Cardinality { series: catalog.len() as u64, ..Cardinality::default() };
        let (mut values, mut bytes) = (HashMap::<&str, u64>::new(), HashMap::<&str, u64>::new());
        let (mut metrics, mut pairs) = (Vec::new(), Vec::new());
        // Most pairs have one series; only those that can be among the largest are written out.
        let mut least = 0;
        for (name, value, series) in catalog.pair_counts() {
            found.label_pairs += 1;
            *values.entry(name).or_default() += 1;
            *bytes.entry(name).or_default() += value.len() as u64;
            if name == model::METRIC_NAME {
                metrics.push((value.to_owned(), series));
            }
            if series > least {
                pairs.push((format!("{name}={value}"), series));
                if pairs.len() >= 2 * limit.max(8) {
                    pairs = largest(pairs, limit.max(8));
                    least = pairs.last().map_or(0, |pair| pair.1);
                }
            }
        }
        let owned = |counts: HashMap<&str, u64>| {
            counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
        };
        found.series_by_metric = largest(metrics, limit);
        found.values_by_label = largest(owned(values), limit);
        found.bytes_by_label = largest(owned(bytes), limit);
        found.series_by_pair = largest(pairs, limit);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_with_most_values_is_blamed() {
        let owned = |pairs: &[(&str, u64)]| pairs.iter().map(|&(name, n)| (name.to_owned(), n)).collect();
        let found = Cardinality {
            values_by_label: owned(&[("__name__", 9), ("id", 7)]),
            series_by_metric: owned(&[("m", 5)]),
            ..Cardinality::default()
        };
        assert_eq!(found.blame(), "label \"id\" has 7 values, metric \"m\" has 5 series");
        assert_eq!(Cardinality::default().blame(), "");
    }
}
