//! CPU and memory of nodes and containers, computed from the kubelet's series in the store.
//!
//! Memory is the newest sample. CPU is the increase between the two newest samples of the counter,
//! which is what PromQL's `irate` gives; `window` is the time between those two and `timestamp` that
//! of the newest. A container that started between them counts from zero at its start time, so a
//! fresh container has a value after one scrape.
//!
//! Arithmetic of listing all pods, of which a large cluster is asked every few seconds: a container has three series, so
//! 14,000 containers are 42,000, and [`crate::roster`] knows whose each is: 5 ms, and 1.6 MB while it lasts (40 bytes of a
//! counter, 16 of each gauge and 40 of the usage per container, 12 per pod). `benches/src/bin/metrics-api.rs` measures it.
//!
//! Better than metrics-server on purpose: the last good point stays until [`crate::POINT_AGE_MAX_MS`]
//! old; a container that has used no CPU yet is shown with 0 and does not hide its pod; containers are
//! sorted by name.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use model::{Matcher, Querier, Samples, Selection, StorageError, TimeRange, Timestamp, is_stale_nan};

use crate::roster::{Counter, Gauge, Lane, Names, Point, Roster};

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
        earliest(self.containers.iter().map(|container| container.usage))
    }
}

fn earliest(usages: impl Iterator<Item = Usage>) -> Usage {
    let earliest = usages.min_by_key(|usage| usage.timestamp);
    earliest.unwrap_or(Usage { cpu_nanocores: 0, memory_bytes: 0, timestamp: 0, window_ms: 0 })
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
#[derive(Debug)]
pub struct UsageReader {
    /// What marks the series of the kubelets' resource endpoint.
    kubelet: Vec<Matcher>,
    age_max_ms: i64,
    /// Whose each series is, as of the last list of all pods.
    roster: Mutex<Roster>,
}

/// The pods of a list with their usage, in ascending order of namespace and name.
pub(crate) struct PodTable {
    names: Arc<Names>,
    pods: Vec<PodRow>,
    containers: Vec<(u32, Usage)>,
}

#[derive(Clone, Copy)]
struct PodRow {
    /// Which one of the pods of the names it is.
    number: u32,
    from: u32,
    to: u32,
}

/// One pod of a table.
#[derive(Clone, Copy)]
pub(crate) struct ListedPod<'a> {
    names: &'a Names,
    /// Which one of the pods of the names it is.
    pub(crate) number: usize,
    pub(crate) namespace: &'a [u8],
    pub(crate) name: &'a [u8],
    containers: &'a [(u32, Usage)],
}

impl<'a> ListedPod<'a> {
    /// Names and usage of its containers, in ascending order of names.
    pub(crate) fn containers(self) -> impl Iterator<Item = (&'a [u8], Usage)> {
        self.containers.iter().map(move |(row, usage)| (self.names.bytes(*row)[0], *usage))
    }

    /// Its namespace and its name.
    pub(crate) fn key(self) -> [&'a str; 2] {
        let [_, namespace, name] =
            self.containers.first().map_or([""; 3], |(row, _)| self.names.values(*row));
        [namespace, name]
    }

    /// Whether no name needs an escape in JSON.
    pub(crate) fn is_plain(self) -> bool {
        self.names.is_plain()
    }

    /// As [`PodUsage::earliest`].
    pub(crate) fn earliest(self) -> Usage {
        earliest(self.containers.iter().map(|(_, usage)| *usage))
    }
}

impl PodTable {
    /// Pods of their containers' points. A pod of which one container has no value yet is left out whole: the autoscaler
    /// adds up the containers that it is shown, so half a pod would look like an idle one.
    ///
    /// `chosen` are places among the pods of `names`; `points` are those of a row, if there is one of its counter.
    pub(crate) fn new(
        names: Arc<Names>,
        chosen: Range<usize>,
        points: impl Fn(u32) -> Option<Points>,
    ) -> Self {
        let is_all = chosen.len() == names.pods().len();
        let (mut pods, mut containers) =
            (Vec::new(), Vec::with_capacity(if is_all { names.len() } else { chosen.len() }));
        for (number, rows) in names.pods().enumerate().take(chosen.end).skip(chosen.start) {
            let from = containers.len();
            let mut whole = true;
            for row in rows {
                match points(*row).map(|points| points.usage()) {
                    Some(Some(usage)) => containers.push((*row, usage)),
                    Some(None) => whole = false,
                    None => {}
                }
            }
            if !whole {
                containers.truncate(from);
            }
            push_pod(&mut pods, number, from, containers.len());
        }
        Self { names, pods, containers }
    }

    /// Of usage in ascending order of namespace and name.
    pub(crate) fn of(usage: &[PodUsage]) -> Self {
        let (mut names, mut pods, mut containers) = (Names::default(), Vec::new(), Vec::new());
        for pod in usage {
            let from = containers.len();
            for container in &pod.containers {
                let row = names.add([&container.name, &pod.namespace, &pod.name]);
                containers.extend(row.map(|row| (row, container.usage)));
            }
            let number = pods.len();
            push_pod(&mut pods, number, from, containers.len());
        }
        names.sort();
        Self { names: Arc::new(names), pods, containers }
    }

    /// The names, of which the same ones are used as long as they are all that there are.
    pub(crate) fn names(&self) -> &Arc<Names> {
        &self.names
    }

    pub(crate) fn len(&self) -> usize {
        self.pods.len()
    }

    pub(crate) fn get(&self, at: usize) -> Option<ListedPod<'_>> {
        let pod = self.pods.get(at)?;
        let containers = self.containers.get(pod.from as usize..pod.to as usize)?;
        let [_, namespace, name] = self.names.bytes(containers.first()?.0);
        Some(ListedPod { names: &self.names, number: pod.number as usize, namespace, name, containers })
    }

    /// All pods.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ListedPod<'_>> {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// The same with texts of its own.
    pub(crate) fn to_usage(&self) -> Vec<PodUsage> {
        let own = |pod: ListedPod<'_>| PodUsage {
            namespace: pod.key()[0].to_owned(),
            name: pod.key()[1].to_owned(),
            containers: pod
                .containers()
                .map(|(name, usage)| ContainerUsage {
                    name: String::from_utf8_lossy(name).into_owned(),
                    usage,
                })
                .collect(),
        };
        self.iter().map(own).collect()
    }
}

/// Adds the pod of these containers, if there are any.
fn push_pod(pods: &mut Vec<PodRow>, number: usize, from: usize, to: usize) {
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    if from < to {
        pods.push(PodRow { number: small(number), from: small(from), to: small(to) });
    }
}

impl UsageReader {
    /// Reads the series that fulfil `kubelet`; points older than `age_max_ms` do not count.
    #[must_use]
    pub fn new(kubelet: Vec<Matcher>, age_max_ms: i64) -> Self {
        Self { kubelet, age_max_ms, roster: Mutex::default() }
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
        let mut roster = Roster::default();
        let view = View { querier, now, only: &only, labels: &labels };
        let mut cpu: Lane<Counter> = self.read(&view, &CPU_OF_NODES, &roster)?;
        cpu.introduce(&mut roster.names);
        let memory: Lane<Gauge> = self.read(&view, &MEMORY_OF_NODES, &roster)?;
        let mut nodes = Vec::with_capacity(roster.names.len());
        for row in (0_u32..).take(roster.names.len()) {
            let points = Points { cpu: cpu.point(row), memory: memory.point(row).value(), started: None };
            if let Some(usage) = points.usage() {
                nodes.push(NodeUsage { name: roster.names.values(row)[0].to_owned(), usage });
            }
        }
        nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(nodes)
    }

    /// Usage of the pods in `scope`.
    pub(crate) fn pods(
        &self,
        querier: &dyn Querier,
        now: Timestamp,
        scope: PodScope<'_>,
    ) -> Result<PodTable, StorageError> {
        let only: Vec<Matcher> = scope.matchers().collect();
        let labels = ["container", "namespace", "pod"].map(str::to_owned);
        let all = only.is_empty();
        let known = || self.roster.lock().unwrap_or_else(PoisonError::into_inner);
        let mut roster = if all { known().clone() } else { Roster::default() };
        let view = View { querier, now, only: &only, labels: &labels };
        let mut cpu: Lane<Counter> = self.read(&view, &CPU, &roster)?;
        let mut memory: Lane<Gauge> = self.read(&view, &MEMORY, &roster)?;
        let mut start: Lane<Gauge> = self.read(&view, &START, &roster)?;
        cpu.introduce(&mut roster.names);
        memory.recognise(&roster.names);
        start.recognise(&roster.names);
        let changed = cpu.is_changed((&roster, CPU.lane))
            || memory.is_changed((&roster, MEMORY.lane))
            || start.is_changed((&roster, START.lane));
        // Names of containers that are gone are forgotten all at once.
        let crowded = roster.names.len() > 2 * cpu.alive() + GONE_MIN;
        let points = |row: u32| {
            let counter = Some(cpu.point(row)).filter(|counter| counter.time() != Timestamp::MIN)?;
            let started = start.point(row).value().map(seconds_to_ms);
            Some(Points { cpu: counter, memory: memory.point(row).value(), started })
        };
        let table = PodTable::new(Arc::clone(&roster.names), 0..roster.names.pods().len(), points);
        if all && changed {
            cpu.keep(&mut roster, CPU.lane);
            memory.keep(&mut roster, MEMORY.lane);
            start.keep(&mut roster, START.lane);
            *known() = if crowded { Roster::default() } else { roster };
        }
        Ok(table)
    }

    /// The newest points of every series of a metric, by the values of one label or of three.
    fn read<P: Point>(
        &self,
        view: &View<'_>,
        metric: &Metric,
        roster: &Roster,
    ) -> Result<Lane<P>, StorageError> {
        let mut matchers = vec![Matcher::equal(model::METRIC_NAME, metric.name)];
        matchers.extend_from_slice(&self.kubelet);
        matchers.extend_from_slice(view.only);
        let range = TimeRange::new(view.now - self.age_max_ms, view.now);
        let series = view.querier.select_unordered(&Selection::new(&matchers, range))?;
        let mut lane = Lane::new((roster, metric.lane), &*series);
        let mut samples = Samples::default();
        for index in 0..series.len() {
            let at_hand = match metric.depth {
                Depth::Two => None,
                Depth::One | Depth::Recent => series.newest_float(index),
            };
            let counter = match at_hand.filter(|(ts, _)| range.contains(*ts)) {
                Some((_, value)) if is_stale_nan(value) => None,
                Some(last) => Some(Counter { last, previous: None }),
                None => {
                    series.samples(index, range, &mut samples)?;
                    newest(&samples)
                }
            };
            let counts = |it: &Counter| {
                metric.depth != Depth::Recent || recent_start(it.last.1, range.start).is_some()
            };
            match counter.filter(counts) {
                Some(counter) => lane.take(&*series, view.labels, counter, (roster, metric.lane)),
                None => lane.pass(roster, metric.lane),
            }
        }
        Ok(lane)
    }
}

/// As many names of containers that are gone do no harm.
const GONE_MIN: usize = 1024;

/// What is read, and when.
struct View<'a> {
    querier: &'a dyn Querier,
    now: Timestamp,
    only: &'a [Matcher],
    labels: &'a [String],
}

/// A metric, how much of it is needed, and its place in a [`Roster`].
struct Metric {
    name: &'static str,
    depth: Depth,
    lane: usize,
}

const fn metric(name: &'static str, depth: Depth, lane: usize) -> Metric {
    Metric { name, depth, lane }
}

pub(crate) const CPU_NAME: &str = "container_cpu_usage_seconds_total";
pub(crate) const MEMORY_NAME: &str = "container_memory_working_set_bytes";
pub(crate) const START_NAME: &str = "container_start_time_seconds";
pub(crate) const NODE_CPU_NAME: &str = "node_cpu_usage_seconds_total";
pub(crate) const NODE_MEMORY_NAME: &str = "node_memory_working_set_bytes";

const CPU: Metric = metric(CPU_NAME, Depth::Two, 0);
const MEMORY: Metric = metric(MEMORY_NAME, Depth::One, 1);
const START: Metric = metric(START_NAME, Depth::Recent, 2);
const CPU_OF_NODES: Metric = metric(NODE_CPU_NAME, Depth::Two, 0);
const MEMORY_OF_NODES: Metric = metric(NODE_MEMORY_NAME, Depth::One, 1);

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

fn newest(samples: &Samples) -> Option<Counter> {
    let mut points = samples.ts.iter().copied().zip(samples.values.iter().copied()).rev();
    // A staleness marker as the newest sample: the series has ended.
    let last = points.next().filter(|(_, value)| !is_stale_nan(*value))?;
    let previous = points.next().filter(|(_, value)| !is_stale_nan(*value));
    Some(Counter { last, previous })
}

/// A start in seconds as a time, if it is not long before the oldest point that is looked at.
pub(crate) fn recent_start(seconds: f64, oldest: Timestamp) -> Option<Timestamp> {
    Some(seconds_to_ms(seconds)).filter(|ms| *ms >= oldest - crate::POINT_AGE_MAX_MS)
}

/// What usage is computed from, all of one container or node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Points {
    pub(crate) cpu: Counter,
    pub(crate) memory: Option<f64>,
    pub(crate) started: Option<Timestamp>,
}

impl Points {
    pub(crate) fn usage(&self) -> Option<Usage> {
        usage(&self.cpu, self.memory, self.started)
    }
}

/// Usage from a CPU counter, a memory gauge and the start time, all of one container or node.
fn usage(cpu: &Counter, memory: Option<f64>, started: Option<Timestamp>) -> Option<Usage> {
    let memory_bytes = memory?;
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
        let usage = usage(&counter(previous, last), Some(4096.0), started)?;
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
