//! Exemplars: the newest ones, in a ring.

use std::collections::VecDeque;

use hashbrown::HashMap;
use model::{Exemplar, Labels, Matcher, TimeRange};
use parking_lot::RwLock;

use crate::error::AppendError;

/// Names and values of an exemplar's labels together have at most so many characters, as `OpenMetrics`
/// demands.
const LABEL_CHARS_MAX: usize = 128;

/// The ring. An entry costs about 64 bytes and the exemplar's labels; the labels of a series are shared
/// by its entries.
#[derive(Debug)]
pub(crate) struct Exemplars {
    max: usize,
    ring: RwLock<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<(Labels, Exemplar)>,
    /// The newest exemplar of each series in the ring, and how many entries it has.
    newest: HashMap<Labels, (Exemplar, usize)>,
}

impl Exemplars {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, ring: RwLock::default() }
    }

    /// Whether an exemplar is to be stored: `Ok(false)` if it repeats the newest one.
    pub(crate) fn check(&self, series: &Labels, exemplar: &Exemplar) -> Result<bool, AppendError> {
        let chars = exemplar.labels.iter().map(|(name, value)| name.chars().count() + value.chars().count());
        if chars.sum::<usize>() > LABEL_CHARS_MAX {
            return Err(AppendError::InvalidExemplar);
        }
        let ring = self.ring.read();
        let Some((newest, _)) = ring.newest.get(series) else { return Ok(self.max > 0) };
        let same = newest.ts == exemplar.ts
            && newest.value.to_bits() == exemplar.value.to_bits()
            && newest.labels == exemplar.labels;
        match exemplar.ts.cmp(&newest.ts) {
            _ if same => Ok(false),
            std::cmp::Ordering::Less => Err(AppendError::OutOfOrder),
            std::cmp::Ordering::Equal => Err(AppendError::Duplicate),
            std::cmp::Ordering::Greater => Ok(self.max > 0),
        }
    }

    /// Takes in older exemplars, as far as there is room.
    pub(crate) fn put_before(&self, older: Self) {
        let young = std::mem::replace(&mut *self.ring.write(), older.ring.into_inner());
        for (series, exemplar) in young.entries {
            if self.check(&series, &exemplar) == Ok(true) {
                self.add(&series, exemplar);
            }
        }
    }

    /// Adds an exemplar; the oldest of all makes room.
    pub(crate) fn add(&self, series: &Labels, exemplar: Exemplar) {
        let mut ring = self.ring.write();
        if ring.entries.len() >= self.max
            && let Some((old, _)) = ring.entries.pop_front()
            && let Some((_, count)) = ring.newest.get_mut(&old)
        {
            *count -= 1;
            if *count == 0 {
                ring.newest.remove(&old);
            }
        }
        let known = ring.newest.get_key_value(series).map(|(labels, _)| labels.clone());
        let series = known.unwrap_or_else(|| series.clone());
        ring.entries.push_back((series.clone(), exemplar.clone()));
        let newest = ring.newest.entry(series).or_insert_with(|| (exemplar.clone(), 0));
        *newest = (exemplar, newest.1 + 1);
    }

    /// The exemplars in `range` of the series that fulfil all matchers of one of `selectors`, by series
    /// in order of labels.
    pub(crate) fn select(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Vec<(Labels, Vec<Exemplar>)> {
        let ring = self.ring.read();
        let matches = |labels: &Labels| {
            let one = |matcher: &Matcher| matcher.matches(labels.get(&matcher.name).unwrap_or(""));
            selectors.iter().any(|matchers| matchers.iter().all(one))
        };
        let mut found: std::collections::BTreeMap<&Labels, Vec<Exemplar>> = Default::default();
        for (series, exemplar) in ring.entries.iter().filter(|(_, exemplar)| range.contains(exemplar.ts)) {
            if found.contains_key(series) || matches(series) {
                found.entry(series).or_default().push(exemplar.clone());
            }
        }
        found.into_iter().map(|(series, exemplars)| (series.clone(), exemplars)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_newest() {
        let exemplars = Exemplars::new(3);
        let series = |n: i64| Labels::from_pairs([("n", (n % 2).to_string())]);
        let exemplar = |ts| Exemplar { labels: Labels::from_pairs([("trace", "x")]), ts, value: 1.0 };
        for ts in 0..5 {
            assert_eq!(exemplars.check(&series(ts), &exemplar(ts)), Ok(true));
            exemplars.add(&series(ts), exemplar(ts));
        }
        assert_eq!(exemplars.check(&series(0), &exemplar(4)), Ok(false));
        assert_eq!(exemplars.check(&series(0), &exemplar(3)), Err(AppendError::OutOfOrder));
        let long = Labels::from_pairs([("trace", "x".repeat(124))]);
        let too_long = Exemplar { labels: long, ts: 9, value: 1.0 };
        assert_eq!(exemplars.check(&series(0), &too_long), Err(AppendError::InvalidExemplar));
        let all = exemplars.select(&[vec![]], TimeRange::ALL);
        let times: Vec<Vec<i64>> =
            all.iter().map(|(_, found)| found.iter().map(|exemplar| exemplar.ts).collect()).collect();
        assert_eq!(times, [vec![2, 4], vec![3]]);
        assert_eq!(exemplars.select(&[vec![Matcher::equal("n", "1")]], TimeRange::ALL).len(), 1);
    }
}
