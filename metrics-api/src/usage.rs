//! CPU and memory of nodes and containers, computed from the kubelet's series in the store.
//!
//! Memory is the newest sample. CPU is the increase between the two newest samples of the counter,
//! which is what PromQL's `irate` gives; `window` is the time between those two and `timestamp` that
//! of the newest. A container that started between them counts from zero at its start time, so a
//! fresh container has a value after one scrape.
//!
//! Better than metrics-server on purpose: the last good point stays until [`crate::POINT_AGE_MAX_MS`]
//! old; a container that has used no CPU yet is shown with 0 and does not hide its pod; containers are
//! sorted by name.

use std::collections::BTreeMap;
use std::collections::HashMap;

use model::{Matcher, Querier, Samples, Selection, StorageError, TimeRange, Timestamp, is_stale_nan};

/// A container must have run this long before a value computed from its start is shown.
const CONTAINER_AGE_MIN_MS: i64 = 10_000;

/// CPU and memory at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// CPU over the window, in billionths of a core.
    pub cpu_nanocores: u64,
    /// Working set in bytes.
    pub memory_bytes: u64,
    /// When the newest of the two CPU samples was taken.
    pub timestamp: Timestamp,
    /// Time between the two CPU samples, in milliseconds.
    pub window_ms: i64,
}

/// One node's usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeUsage {
    /// The node.
    pub name: String,
    /// Its usage.
    pub usage: Usage,
}

/// One container's usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUsage {
    /// The container.
    pub name: String,
    /// Its usage.
    pub usage: Usage,
}

/// One pod's usage. Never without containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodUsage {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// Containers in ascending order of names.
    pub containers: Vec<ContainerUsage>,
}

impl PodUsage {
    /// The container with the earliest timestamp: its time and window stand for the whole pod.
    #[must_use]
    pub fn earliest(&self) -> Usage {
        let earliest =
            self.containers.iter().map(|container| container.usage).min_by_key(|usage| usage.timestamp);
        earliest.unwrap_or(Usage { cpu_nanocores: 0, memory_bytes: 0, timestamp: 0, window_ms: 0 })
    }
}

/// Which pods to look at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PodScope<'a> {
    pub(crate) namespace: Option<&'a str>,
    pub(crate) name: Option<&'a str>,
}

impl PodScope<'_> {
    fn matchers(self) -> impl Iterator<Item = Matcher> {
        let equal = |label, value: Option<&str>| value.map(|value| Matcher::equal(label, value));
        equal("namespace", self.namespace).into_iter().chain(equal("pod", self.name))
    }
}

/// Computes usage from a store.
#[derive(Clone, Debug)]
pub struct UsageReader {
    /// What marks the series of the kubelets' resource endpoint.
    kubelet: Vec<Matcher>,
    age_max_ms: i64,
}

/// The newest points of a counter.
#[derive(Clone, Copy, Debug)]
struct Counter {
    last: (Timestamp, f64),
    previous: Option<(Timestamp, f64)>,
}

/// Identity of a container: namespace, pod, container.
type ContainerKey = (String, String, String);

impl UsageReader {
    /// Reads the series that fulfil `kubelet`; points older than `age_max_ms` do not count.
    #[must_use]
    pub fn new(kubelet: Vec<Matcher>, age_max_ms: i64) -> Self {
        Self { kubelet, age_max_ms }
    }

    /// Usage of all nodes, or of one, in ascending order of names.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn nodes(
        &self,
        querier: &dyn Querier,
        now: Timestamp,
        name: Option<&str>,
    ) -> Result<Vec<NodeUsage>, StorageError> {
        let only: Vec<Matcher> = name.map(|name| Matcher::equal("node", name)).into_iter().collect();
        let read = |metric| self.read(querier, now, metric, &only, ["node", "node", "node"]);
        let (cpu, memory) = (read("node_cpu_usage_seconds_total")?, read("node_memory_working_set_bytes")?);
        let mut nodes = BTreeMap::new();
        for ((name, _, _), counter) in &cpu {
            let key = (name.clone(), name.clone(), name.clone());
            if let Some(usage) = usage(counter, memory.get(&key), None) {
                nodes.insert(name.clone(), usage);
            }
        }
        Ok(nodes.into_iter().map(|(name, usage)| NodeUsage { name, usage }).collect())
    }

    /// Usage of the pods in `scope`, in ascending order of namespace and name.
    pub(crate) fn pods(
        &self,
        querier: &dyn Querier,
        now: Timestamp,
        scope: PodScope<'_>,
    ) -> Result<Vec<PodUsage>, StorageError> {
        let only: Vec<Matcher> = scope.matchers().collect();
        let read = |metric| self.read(querier, now, metric, &only, ["namespace", "pod", "container"]);
        let cpu = read("container_cpu_usage_seconds_total")?;
        let memory = read("container_memory_working_set_bytes")?;
        let start = read("container_start_time_seconds")?;
        // A pod of which one container has no value yet is left out whole: the autoscaler adds up the
        // containers that it is shown, so half a pod would look like an idle one.
        let mut pods: BTreeMap<(&str, &str), Option<Vec<ContainerUsage>>> = BTreeMap::new();
        for (key, counter) in &cpu {
            let started = start.get(key).map(|start| seconds_to_ms(start.last.1));
            let pod = pods.entry((&key.0, &key.1)).or_insert_with(|| Some(Vec::new()));
            match usage(counter, memory.get(key), started) {
                Some(usage) => {
                    if let Some(containers) = pod {
                        containers.push(ContainerUsage { name: key.2.clone(), usage });
                    }
                }
                None => *pod = None,
            }
        }
        let complete = pods.into_iter().filter_map(|(key, containers)| Some((key, containers?)));
        Ok(complete
            .map(|((namespace, name), mut containers)| {
                containers.sort_by(|a, b| a.name.cmp(&b.name));
                PodUsage { namespace: namespace.to_owned(), name: name.to_owned(), containers }
            })
            .collect())
    }

    /// The two newest points of every series of `metric`, by the values of three labels.
    fn read(
        &self,
        querier: &dyn Querier,
        now: Timestamp,
        metric: &str,
        only: &[Matcher],
        key: [&str; 3],
    ) -> Result<HashMap<ContainerKey, Counter>, StorageError> {
        let mut matchers = vec![Matcher::equal(model::METRIC_NAME, metric)];
        matchers.extend_from_slice(&self.kubelet);
        matchers.extend_from_slice(only);
        let range = TimeRange::new(now - self.age_max_ms, now);
        let series = querier.select(&Selection { matchers: &matchers, range })?;
        let mut points = HashMap::with_capacity(series.len());
        let mut samples = Samples::default();
        for index in 0..series.len() {
            series.samples(index, range, &mut samples)?;
            let Some(counter) = newest(&samples) else { continue };
            let mut names: [String; 3] = Default::default();
            series.visit_labels(index, &mut |name, value| {
                for (at, wanted) in key.iter().enumerate() {
                    if *wanted == name {
                        value.clone_into(&mut names[at]);
                    }
                }
            });
            let [a, b, c] = names;
            // Two series of one container (it moved to another node): the newer one counts.
            let slot = points.entry((a, b, c)).or_insert(counter);
            if counter.last.0 > slot.last.0 {
                *slot = counter;
            }
        }
        Ok(points)
    }
}

fn newest(samples: &Samples) -> Option<Counter> {
    let mut points = samples.ts.iter().copied().zip(samples.values.iter().copied()).rev();
    // A staleness marker as the newest sample: the series has ended.
    let last = points.next().filter(|(_, value)| !is_stale_nan(*value))?;
    let previous = points.next().filter(|(_, value)| !is_stale_nan(*value));
    Some(Counter { last, previous })
}

/// Usage from a CPU counter, a memory gauge and the start time, all of one container or node.
fn usage(cpu: &Counter, memory: Option<&Counter>, started: Option<Timestamp>) -> Option<Usage> {
    let memory_bytes = memory?.last.1;
    let (ts, value) = cpu.last;
    let since = match (cpu.previous, started.filter(|started| *started > 0)) {
        (_, Some(started)) if started > ts => return None,
        (Some(previous), Some(started)) if started > previous.0 => fresh(started, ts)?,
        (Some(previous), _) if previous.1 <= value => previous,
        (Some(_), _) => return None, // a counter without a restart never decreases
        (None, Some(started)) => fresh(started, ts)?,
        (None, None) => return None,
    };
    let window_ms = ts - since.0;
    if window_ms <= 0 {
        return None;
    }
    let cpu_nanocores = to_u64((value - since.1) * 1e12 / window_ms as f64);
    Some(Usage { cpu_nanocores, memory_bytes: to_u64(memory_bytes), timestamp: ts, window_ms })
}

/// The point at which a container's counter stood at zero, if it is old enough to tell and young
/// enough that the average since then is the present.
fn fresh(started: Timestamp, ts: Timestamp) -> Option<(Timestamp, f64)> {
    (CONTAINER_AGE_MIN_MS..crate::POINT_AGE_MAX_MS).contains(&(ts - started)).then_some((started, 0.0))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates; NaN becomes 0")]
pub(crate) fn to_u64(value: f64) -> u64 {
    value as u64
}

#[expect(clippy::cast_possible_truncation, reason = "`as` saturates; NaN becomes 0, which means unknown")]
fn seconds_to_ms(seconds: f64) -> Timestamp {
    (seconds * 1000.0) as Timestamp
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(previous: Option<(i64, f64)>, last: (i64, f64)) -> Counter {
        Counter { last, previous }
    }

    fn cpu(previous: Option<(i64, f64)>, last: (i64, f64), started: Option<i64>) -> Option<(u64, i64)> {
        let memory = counter(None, (last.0, 4096.0));
        let usage = usage(&counter(previous, last), Some(&memory), started)?;
        assert_eq!(usage.timestamp, last.0);
        assert_eq!(usage.memory_bytes, 4096);
        Some((usage.cpu_nanocores, usage.window_ms))
    }

    #[test]
    fn two_points_give_the_increase_over_their_window() {
        assert_eq!(cpu(Some((1_000_000, 100.0)), (1_015_000, 107.5), None), Some((500_000_000, 15_000)));
        assert_eq!(cpu(Some((1_000_000, 100.0)), (1_015_000, 100.0), None), Some((0, 15_000)));
    }

    #[test]
    fn one_point_of_an_old_series_gives_nothing() {
        assert_eq!(cpu(None, (1_000_000, 100.0), None), None);
        assert_eq!(cpu(None, (1_000_000, 100.0), Some(1_000)), None);
    }

    #[test]
    fn a_fresh_container_has_a_value_after_one_scrape() {
        assert_eq!(cpu(None, (1_010_000, 10.0), Some(1_000_000)), Some((1_000_000_000, 10_000)));
        assert_eq!(cpu(None, (1_009_000, 9.0), Some(1_000_000)), None, "nine seconds old");
        assert_eq!(cpu(None, (1_000_000, 9.0), Some(1_000_001)), None, "starts after its own sample");
    }

    #[test]
    fn a_restart_counts_from_the_start_and_a_decrease_gives_nothing() {
        // Restarted at 1,015 s, ten seconds before the newest sample: 5 core-seconds over 10 s.
        let restarted = cpu(Some((1_010_000, 500.0)), (1_025_000, 5.0), Some(1_015_000));
        assert_eq!(restarted, Some((500_000_000, 10_000)));
        assert_eq!(cpu(Some((1_010_000, 500.0)), (1_025_000, 5.0), Some(1_000)), None);
        assert_eq!(cpu(Some((1_010_000, 500.0)), (1_025_000, 5.0), None), None);
    }

    #[test]
    fn memory_must_be_known_and_stale_series_have_ended() {
        assert_eq!(usage(&counter(Some((0, 0.0)), (15_000, 1.0)), None, None), None);
        let mut samples = Samples::default();
        samples.push_float(1, 1.0);
        samples.push_float(2, model::stale_nan());
        assert!(newest(&samples).is_none());
    }
}
