//! CPU and memory of nodes and containers, computed from the kubelet's series in the store.
//!
//! Memory is the newest sample. CPU is the increase between the two newest samples of the counter,
//! which is what PromQL's `irate` gives; `window` is the time between those two and `timestamp` that
//! of the newest. A container that started between them counts from zero at its start time, so a
//! fresh container has a value after one scrape.
//!
//! Arithmetic of listing all pods, of which a large cluster asks for every few seconds: a container has three series, so
//! 14,000 containers are 42,000. Per series that is 3 labels (60 ns) and one hash (10 ns); of the counter's also the
//! decoding of one open chunk (some 500 ns). Texts go into one buffer for each metric, rows take 40 bytes, and the gauges
//! are read beside the counters by a second thread: about 10 ms, and 4 MB while it lasts. `benches/src/bin/metrics-api.rs`
//! measures it.
//!
//! Better than metrics-server on purpose: the last good point stays until [`crate::POINT_AGE_MAX_MS`]
//! old; a container that has used no CPU yet is shown with 0 and does not hide its pod; containers are
//! sorted by name.

use model::{Matcher, Querier, Samples, Selection, StorageError, TimeRange, Timestamp, is_stale_nan};
use rapidhash::RapidHashMap;

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

/// Points of the series of one metric by the values of three labels.
#[derive(Default)]
struct Points {
    /// The values of all rows, one after the other, each value ended by [`END`].
    texts: String,
    rows: Vec<Row>,
    /// Rows by the texts of their labels.
    by_key: RapidHashMap<u64, u32>,
}

/// Stands in no name of an object, and so ends one.
const END: char = '\u{1f}';

struct Row {
    start: u32,
    /// Where each value ends, counted from `start`.
    ends: [u16; 3],
    counter: Counter,
}

impl Points {
    fn key(&self, row: &Row) -> &str {
        let start = row.start as usize;
        &self.texts[start..=start + usize::from(row.ends[2])]
    }

    /// The values of a row's labels in the order of their names.
    fn values(&self, row: &Row) -> [&str; 3] {
        let text = &self.texts[row.start as usize..];
        let [first, second, third] = row.ends.map(usize::from);
        [&text[..first], &text[first + 1..second], &text[second + 1..third]]
    }

    /// The row of the same labels.
    fn find(&self, key: &str) -> Option<&Row> {
        let at = *self.by_key.get(&hash(key))?;
        self.rows.get(at as usize).filter(|row| self.key(row) == key)
    }

    /// Adds a row whose texts have been put at the end of the buffer. Of two series of one container (it moved to another
    /// node) the newer one counts.
    fn add(&mut self, start: usize, counter: Counter) {
        let text = &self.texts[start..];
        let mut ends = [0_u16; 3];
        for (slot, (end, _)) in ends.iter_mut().zip(text.match_indices(END)) {
            *slot = u16::try_from(end).unwrap_or(u16::MAX);
        }
        let place = u32::try_from(start).ok().filter(|_| text.len() <= usize::from(u16::MAX));
        let Some(place) = place else { return self.texts.truncate(start) };
        let known = self.by_key.get(&hash(text)).copied();
        let known = known.filter(|at| self.rows.get(*at as usize).is_some_and(|row| self.key(row) == text));
        match known.and_then(|at| self.rows.get_mut(at as usize)) {
            Some(row) => {
                if counter.last.0 > row.counter.last.0 {
                    row.counter = counter;
                }
                self.texts.truncate(start);
            }
            None => {
                let at = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
                self.by_key.insert(hash(text), at);
                self.rows.push(Row { start: place, ends, counter });
            }
        }
    }
}

/// Of two keys with one hash the later one is found, and the other one has no gauge: a container of 2^64.
fn hash(key: &str) -> u64 {
    rapidhash::v3::rapidhash_v3(key.as_bytes())
}

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
        let labels = ["node".to_owned()];
        let read = |metric, depth| self.read(querier, now, (metric, depth), &only, &labels);
        let cpu = read("node_cpu_usage_seconds_total", Depth::Two)?;
        let memory = read("node_memory_working_set_bytes", Depth::One)?;
        let mut nodes = Vec::with_capacity(cpu.rows.len());
        for row in &cpu.rows {
            let memory = memory.find(cpu.key(row)).map(|row| &row.counter);
            if let Some(usage) = usage(&row.counter, memory, None) {
                nodes.push(NodeUsage { name: cpu.values(row)[0].to_owned(), usage });
            }
        }
        nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(nodes)
    }

    /// Usage of the pods in `scope`, in ascending order of namespace and name.
    pub(crate) fn pods(
        &self,
        querier: &dyn Querier,
        now: Timestamp,
        scope: PodScope<'_>,
    ) -> Result<Vec<PodUsage>, StorageError> {
        let only: Vec<Matcher> = scope.matchers().collect();
        let labels = ["container", "namespace", "pod"].map(str::to_owned);
        let read = |metric, depth| self.read(querier, now, (metric, depth), &only, &labels);
        let gauges = || {
            let memory = read("container_memory_working_set_bytes", Depth::One)?;
            Ok::<_, StorageError>((memory, read("container_start_time_seconds", Depth::Recent)?))
        };
        let counters = || read("container_cpu_usage_seconds_total", Depth::Two);
        let (cpu, (memory, start)) = if scope.namespace.is_some() {
            (counters()?, gauges()?)
        } else {
            std::thread::scope(|scope| {
                let beside = scope.spawn(gauges);
                let cpu = counters()?;
                let gauges = beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                Ok::<_, StorageError>((cpu, gauges))
            })?
        };
        Ok(together(&cpu, &memory, &start))
    }

    /// The newest points of every series of a metric, by the values of `labels`, of which there are one or three.
    fn read(
        &self,
        querier: &dyn Querier,
        now: Timestamp,
        (metric, depth): (&str, Depth),
        only: &[Matcher],
        labels: &[String],
    ) -> Result<Points, StorageError> {
        let mut matchers = vec![Matcher::equal(model::METRIC_NAME, metric)];
        matchers.extend_from_slice(&self.kubelet);
        matchers.extend_from_slice(only);
        let range = TimeRange::new(now - self.age_max_ms, now);
        let series = querier.select_unordered(&Selection::new(&matchers, range))?;
        let mut points = Points::default();
        points.rows.reserve(series.len());
        points.by_key.reserve(series.len());
        points.texts.reserve(series.len() * 64);
        let mut samples = Samples::default();
        for index in 0..series.len() {
            let at_hand =
                series.newest_float(index).filter(|(ts, _)| depth == Depth::One && range.contains(*ts));
            let counter = match at_hand {
                Some((_, value)) if is_stale_nan(value) => None,
                Some(last) => Some(Counter { last, previous: None }),
                None => {
                    series.samples(index, range, &mut samples)?;
                    newest(&samples)
                }
            };
            let Some(counter) = counter else { continue };
            if depth == Depth::Recent && seconds_to_ms(counter.last.1) < range.start - self.age_max_ms {
                continue;
            }
            let begin = points.texts.len();
            let mut next = 0;
            series.visit_some_labels(index, labels, &mut |name, value| {
                while labels.get(next).is_some_and(|label| label != name) {
                    points.texts.push(END);
                    next += 1;
                }
                points.texts.push_str(value);
                points.texts.push(END);
                next += 1;
            });
            (next..3).for_each(|_| points.texts.push(END));
            points.add(begin, counter);
        }
        Ok(points)
    }
}

/// Which points of a series are needed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// The newest.
    One,
    /// The newest two.
    Two,
    /// The newest, if it is a time that is not long ago: a container that started before every point that is looked at
    /// is one of which no start is known.
    Recent,
}

/// Pods of their containers' points. A pod of which one container has no value yet is left out whole: the autoscaler adds
/// up the containers that it is shown, so half a pod would look like an idle one.
fn together(cpu: &Points, memory: &Points, start: &Points) -> Vec<PodUsage> {
    let mut places: RapidHashMap<(&str, &str), usize> = RapidHashMap::default();
    let mut pods: Vec<(PodUsage, bool)> = Vec::new();
    for row in &cpu.rows {
        let (key, [container, namespace, pod]) = (cpu.key(row), cpu.values(row));
        let at = *places.entry((namespace, pod)).or_insert_with(|| {
            let usage =
                PodUsage { namespace: namespace.to_owned(), name: pod.to_owned(), containers: Vec::new() };
            pods.push((usage, true));
            pods.len() - 1
        });
        let started = start.find(key).map(|row| seconds_to_ms(row.counter.last.1));
        match usage(&row.counter, memory.find(key).map(|row| &row.counter), started) {
            Some(usage) => pods[at].0.containers.push(ContainerUsage { name: container.to_owned(), usage }),
            None => pods[at].1 = false,
        }
    }
    let mut complete: Vec<PodUsage> =
        pods.into_iter().filter(|(_, whole)| *whole).map(|(pod, _)| pod).collect();
    for pod in &mut complete {
        pod.containers.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    }
    complete.sort_unstable_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    complete
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
