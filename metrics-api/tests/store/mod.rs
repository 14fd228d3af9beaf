//! A store of a few series, and what a cluster has besides.

use std::collections::BTreeSet;
use std::hash::{Hash as _, Hasher as _};

use model::{Labels, Matcher, Querier, Samples, Selection, SeriesSet, StorageError, TimeRange, Timestamp};

/// A store of a few series.
#[derive(Clone, Default)]
pub(crate) struct Series(Vec<(Labels, Samples)>);

impl Series {
    /// A series of a kubelet's resource page.
    pub(crate) fn add(&mut self, pairs: &[(&str, &str)], samples: &[(Timestamp, f64)]) {
        let all = pairs.iter().copied().chain([("metrics_path", "/metrics/resource"), ("job", "kubelet")]);
        self.put(&all.collect::<Vec<_>>(), samples);
    }

    pub(crate) fn put(&mut self, pairs: &[(&str, &str)], samples: &[(Timestamp, f64)]) {
        let mut column = Samples::default();
        samples.iter().for_each(|(ts, value)| column.push_float(*ts, *value));
        self.0.push((Labels::from_pairs(pairs.iter().copied()), column));
        self.0.sort_by(|a, b| a.0.cmp(&b.0));
    }

    pub(crate) fn container(
        &mut self,
        pod: (&str, &str),
        container: &str,
        cpu: &[(Timestamp, f64)],
        memory: f64,
    ) {
        let labels =
            |name| [("__name__", name), ("namespace", pod.0), ("pod", pod.1), ("container", container)];
        let last = cpu.last().map_or(0, |(ts, _)| *ts);
        self.add(&labels("container_cpu_usage_seconds_total"), cpu);
        self.add(&labels("container_memory_working_set_bytes"), &[(last, memory)]);
    }
}

struct Set(Vec<(Labels, Samples)>);

impl SeriesSet for Set {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn visit_labels(&self, index: usize, visit: &mut dyn FnMut(&str, &str)) {
        self.0[index].0.iter().for_each(|(name, value)| visit(name, value));
    }

    fn fingerprint(&self) -> Option<u64> {
        let mut hasher = std::hash::DefaultHasher::new();
        self.0.iter().for_each(|(labels, _)| labels.hash(&mut hasher));
        Some(hasher.finish())
    }

    fn samples(&self, index: usize, range: TimeRange, into: &mut Samples) -> Result<(), StorageError> {
        into.clear();
        let all = &self.0[index].1;
        let points = all.ts.iter().zip(&all.values).filter(|(ts, _)| range.contains(**ts));
        points.for_each(|(ts, value)| into.push_float(*ts, *value));
        Ok(())
    }
}

impl Querier for Series {
    fn select(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
        let matches = |labels: &Labels| {
            selection.matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or_default()))
        };
        let has_samples = |samples: &Samples| samples.ts.iter().any(|ts| selection.range.contains(*ts));
        let found = self.0.iter().filter(|(labels, samples)| matches(labels) && has_samples(samples));
        Ok(Box::new(Set(found.cloned().collect())))
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        let set = self.select(&Selection::new(matchers, range))?;
        let labels = (0..set.len()).map(|index| set.labels(index));
        let names: BTreeSet<String> =
            labels.flat_map(|labels| labels.iter().map(|(n, _)| n.to_owned()).collect::<Vec<_>>()).collect();
        Ok(names.into_iter().take(if limit == 0 { usize::MAX } else { limit }).collect())
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        let set = self.select(&Selection::new(matchers, range))?;
        let labels = (0..set.len()).map(|index| set.labels(index));
        let values: BTreeSet<String> =
            labels.filter_map(|labels| labels.get(name).map(str::to_owned)).collect();
        Ok(values.into_iter().take(if limit == 0 { usize::MAX } else { limit }).collect())
    }
}
