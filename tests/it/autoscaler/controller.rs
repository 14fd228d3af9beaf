//! What a horizontal pod autoscaler decides, as its documentation describes it: a model that tests compare with nothing
//! but numbers worked out by hand, and that then acts on the answers of the real binary.
//!
//! All values are in thousandths, all times in milliseconds; `now` is given, so that five minutes pass at once.

use std::collections::BTreeMap;

/// Ratios that differ from 1 by no more than this change nothing.
const TOLERANCE: f64 = 0.1;
/// For so long after its start a pod's CPU counts only from when it became ready.
const CPU_INITIALISATION_MS: i64 = 300_000;
/// A pod that has not been ready since so soon after its start never was.
const READINESS_DELAY_MS: i64 = 30_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Pending,
    Running,
    Failed,
}

/// A pod as the controller's own watch shows it.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) phase: Phase,
    pub(crate) deleted: bool,
    pub(crate) started_ms: Option<i64>,
    /// Whether it is ready, and since when that is so.
    pub(crate) ready: Option<(bool, i64)>,
    /// CPU requests of its containers.
    pub(crate) requests: Vec<(&'static str, Option<i64>)>,
}

impl Pod {
    /// One that has been ready for long.
    pub(crate) fn settled(name: &str, request: i64) -> Self {
        Self {
            name: name.to_owned(),
            phase: Phase::Running,
            deleted: false,
            started_ms: Some(0),
            ready: Some((true, 0)),
            requests: vec![("main", Some(request))],
        }
    }

    fn is_ready(&self) -> bool {
        self.phase == Phase::Running && matches!(self.ready, Some((true, _)))
    }

    /// What one container requests, or all together; an error if one says nothing.
    fn request(&self, only: Option<&str>) -> Result<i64, String> {
        let wanted = |(name, _): &&(&str, Option<i64>)| only.is_none_or(|only| only == *name);
        let requests: Option<Vec<i64>> = self.requests.iter().filter(wanted).map(|it| it.1).collect();
        requests
            .map(|all| all.iter().sum())
            .ok_or_else(|| format!("missing request for cpu of pod {}", self.name))
    }
}

/// One pod's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) value: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) window_ms: i64,
}

pub(crate) type Values = BTreeMap<String, Measured>;

/// What pods' values are compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// Percent of what one container, or the whole pod, requests.
    Utilisation(i64, Option<&'static str>),
    /// On average over pods. Whether the value is CPU, which is not yet one while a pod begins.
    Average(i64, bool),
}

/// Pods by what their values are worth.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Groups {
    pub(crate) counted: Values,
    pub(crate) missing: Vec<String>,
    pub(crate) unready: Vec<String>,
}

/// Sorts pods by what their values are worth. Those that are being deleted or have failed are nowhere.
pub(crate) fn group(pods: &[Pod], values: &Values, is_cpu: bool, now: i64) -> Groups {
    let mut groups = Groups::default();
    for pod in pods.iter().filter(|pod| !pod.deleted && pod.phase != Phase::Failed) {
        let Some(measured) = values.get(&pod.name) else {
            let group = if pod.phase == Phase::Pending { &mut groups.unready } else { &mut groups.missing };
            group.push(pod.name.clone());
            continue;
        };
        if pod.phase == Phase::Pending || is_cpu && !has_begun(pod, measured, now) {
            groups.unready.push(pod.name.clone());
        } else {
            groups.counted.insert(pod.name.clone(), *measured);
        }
    }
    groups
}

/// Whether a pod's CPU is that of its work and no longer that of its start.
fn has_begun(pod: &Pod, measured: &Measured, now: i64) -> bool {
    let (Some(started), Some((ready, since))) = (pod.started_ms, pod.ready) else { return false };
    if now < started + CPU_INITIALISATION_MS {
        // The window of the value must lie behind the moment when the pod became ready.
        ready && measured.timestamp_ms >= since + measured.window_ms
    } else {
        ready || since >= started + READINESS_DELAY_MS
    }
}

fn within_tolerance(ratio: f64) -> bool {
    (1.0 - TOLERANCE..=1.0 + TOLERANCE).contains(&ratio)
}

/// The smallest whole number that is not less.
fn up(exact: f64) -> i64 {
    (0..100_000).find(|count| *count as f64 >= exact - 1e-9).unwrap()
}

/// How many replicas pods' values ask for.
pub(crate) fn by_pods(
    pods: &[Pod],
    values: &Values,
    (target, current): (Target, i64),
    now: i64,
) -> Result<i64, String> {
    if values.is_empty() {
        return Err("no metrics returned".to_owned());
    }
    let is_cpu = matches!(target, Target::Utilisation(..) | Target::Average(_, true));
    let groups = group(pods, values, is_cpu, now);
    if groups.counted.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let request = |name: &String| {
        let pod = pods.iter().find(|pod| pod.name == *name).unwrap();
        match target {
            Target::Utilisation(_, container) => pod.request(container),
            Target::Average(..) => Ok(0),
        }
    };
    let mut counted = BTreeMap::new();
    for (name, measured) in &groups.counted {
        counted.insert(name.clone(), (measured.value, request(name)?));
    }
    let ratio_of = |counted: &BTreeMap<String, (i64, i64)>| {
        let used: i64 = counted.values().map(|it| it.0).sum();
        match target {
            Target::Utilisation(percent, _) => {
                let requested: i64 = counted.values().map(|it| it.1).sum();
                // Percents are whole.
                (used * 100 / requested) as f64 / percent as f64
            }
            Target::Average(target, _) => {
                let average = used / i64::try_from(counted.len()).unwrap();
                average as f64 / target as f64
            }
        }
    };
    let ratio = ratio_of(&counted);
    let counts_unready = ratio > 1.0 && !groups.unready.is_empty();
    if groups.missing.is_empty() && !counts_unready {
        let count = i64::try_from(counted.len()).unwrap();
        return Ok(if within_tolerance(ratio) { current } else { up(ratio * count as f64) });
    }
    for name in &groups.missing {
        let requested = request(name)?;
        let full = match target {
            Target::Utilisation(percent, _) => requested * percent.max(100) / 100,
            Target::Average(target, _) => target,
        };
        let assumed = if ratio < 1.0 { full } else { 0 };
        counted.insert(name.clone(), (assumed, requested));
    }
    for name in groups.unready.iter().filter(|_| counts_unready) {
        counted.insert(name.clone(), (0, request(name)?));
    }
    let careful = ratio_of(&counted);
    if within_tolerance(careful) || (ratio < 1.0) != (careful < 1.0) {
        return Ok(current);
    }
    let count = up(careful * counted.len() as f64);
    // What was assumed may stop a change but not turn it.
    let turned = careful < 1.0 && count > current || careful > 1.0 && count < current;
    Ok(if turned { current } else { count })
}

/// How many replicas one value asks for, of an object or of something outside.
pub(crate) fn by_value(pods: &[Pod], value: i64, target: i64, current: i64) -> i64 {
    let ratio = value as f64 / target as f64;
    let ready = pods.iter().filter(|pod| pod.is_ready()).count();
    if within_tolerance(ratio) { current } else { up(ratio * ready as f64) }
}

/// How many replicas one value asks for of which each replica can have a share.
pub(crate) fn by_share(value: i64, share: i64, replicas: i64) -> i64 {
    let ratio = value as f64 / (share * replicas) as f64;
    if within_tolerance(ratio) { replicas } else { up(value as f64 / share as f64) }
}

/// How much may be changed within a time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Policy {
    Pods(i64, i64),
    Percent(i64, i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Max,
    Min,
    Disabled,
}

/// How fast it may go in one direction.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    pub(crate) window_ms: i64,
    pub(crate) choice: Choice,
    pub(crate) policies: Vec<Policy>,
}

/// An autoscaler with its memory.
#[derive(Clone, Debug)]
pub(crate) struct Autoscaler {
    pub(crate) replicas: i64,
    pub(crate) min: i64,
    pub(crate) max: i64,
    pub(crate) up: Pace,
    pub(crate) down: Pace,
    recommended: Vec<(i64, i64)>,
    changed: Vec<(i64, i64)>,
}

impl Autoscaler {
    /// As one without a word about its behaviour.
    pub(crate) fn new(replicas: i64, (min, max): (i64, i64)) -> Self {
        let fast = vec![Policy::Pods(4, 15_000), Policy::Percent(100, 15_000)];
        Self {
            replicas,
            min,
            max,
            up: Pace { window_ms: 0, choice: Choice::Max, policies: fast },
            down: Pace {
                window_ms: 300_000,
                choice: Choice::Max,
                policies: vec![Policy::Percent(100, 15_000)],
            },
            recommended: Vec::new(),
            changed: Vec::new(),
        }
    }

    /// What several metrics ask for together: the most. If one cannot be had, nothing is taken away.
    pub(crate) fn together(&self, asked: &[Result<i64, String>]) -> Result<i64, String> {
        let most = asked.iter().filter_map(|it| it.as_ref().ok()).max().copied();
        let broken = asked.iter().find_map(|it| it.as_ref().err());
        match (most, broken) {
            (Some(most), None) => Ok(most),
            (Some(most), Some(_)) if most > self.replicas => Ok(most),
            (_, Some(why)) => Err(why.clone()),
            (None, None) => Err("no metrics".to_owned()),
        }
    }

    /// Takes one step; gives the number of replicas from now on.
    pub(crate) fn step(&mut self, asked: i64, now: i64) -> i64 {
        let longest = self.up.window_ms.max(self.down.window_ms);
        self.recommended.retain(|(at, _)| *at > now - longest);
        self.recommended.push((now, asked));
        let within = |window_ms: i64| {
            self.recommended.iter().filter(move |(at, _)| *at > now - window_ms || *at == now).map(|it| it.1)
        };
        // Up to the least, down to the most that was asked for in the time of looking back.
        let (least, most) = (within(self.up.window_ms).min(), within(self.down.window_ms).max());
        let calm = self.replicas.max(least.unwrap_or(asked)).min(most.unwrap_or(asked));
        let limited =
            if calm > self.replicas { calm.min(self.highest(now)) } else { calm.max(self.lowest(now)) };
        let next = limited.clamp(self.min, self.max);
        if next != self.replicas {
            self.changed.push((now, next - self.replicas));
            self.replicas = next;
        }
        next
    }

    /// How many there were `span` ago, as far as changes in one direction go.
    fn before(&self, now: i64, span: i64) -> (i64, i64) {
        let recent = self.changed.iter().filter(|(at, _)| *at > now - span).map(|it| it.1);
        let added: i64 = recent.clone().filter(|change| *change > 0).sum();
        let removed: i64 = -recent.filter(|change| *change < 0).sum::<i64>();
        (added, removed)
    }

    fn highest(&self, now: i64) -> i64 {
        let limits = self.up.policies.iter().map(|policy| match *policy {
            Policy::Pods(pods, span) => self.begun(now, span) + pods,
            Policy::Percent(percent, span) => {
                up(self.begun(now, span) as f64 * (100 + percent) as f64 / 100.0)
            }
        });
        match self.up.choice {
            Choice::Disabled => self.replicas,
            Choice::Max => limits.max().unwrap(),
            Choice::Min => limits.min().unwrap(),
        }
    }

    fn lowest(&self, now: i64) -> i64 {
        let limits = self.down.policies.iter().map(|policy| match *policy {
            Policy::Pods(pods, span) => self.begun(now, span) - pods,
            // Part of a pod is a whole one, so as few stay as can.
            Policy::Percent(percent, span) => self.begun(now, span) * (100 - percent) / 100,
        });
        // The policy that changes most is the one that lets the fewest stay.
        match self.down.choice {
            Choice::Disabled => self.replicas,
            Choice::Max => limits.min().unwrap(),
            Choice::Min => limits.max().unwrap(),
        }
    }

    fn begun(&self, now: i64, span: i64) -> i64 {
        let (added, removed) = self.before(now, span);
        self.replicas - added + removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 10_000_000;

    fn values(all: &[(&str, i64)]) -> Values {
        let measured = |value| Measured { value, timestamp_ms: NOW - 1_000, window_ms: 15_000 };
        all.iter().map(|(name, value)| ((*name).to_owned(), measured(*value))).collect()
    }

    fn pods(count: usize) -> Vec<Pod> {
        (0..count).map(|at| Pod::settled(&format!("p{at}"), 1_000)).collect()
    }

    const HALF: Target = Target::Utilisation(50, None);

    fn asked(pods: &[Pod], all: &[(&str, i64)], target: Target) -> Result<i64, String> {
        by_pods(pods, &values(all), (target, i64::try_from(pods.len()).unwrap()), NOW)
    }

    #[test]
    fn ratios_are_rounded_up_and_small_ones_change_nothing() {
        assert_eq!(asked(&pods(2), &[("p0", 800), ("p1", 800)], HALF), Ok(4), "3.2");
        assert_eq!(asked(&pods(2), &[("p0", 550), ("p1", 550)], HALF), Ok(2), "a tenth above");
        assert_eq!(asked(&pods(2), &[("p0", 450), ("p1", 450)], HALF), Ok(2), "a tenth below");
        assert_eq!(asked(&pods(2), &[("p0", 560), ("p1", 560)], HALF), Ok(3));
        assert_eq!(asked(&pods(4), &[("p0", 100), ("p1", 100), ("p2", 100), ("p3", 100)], HALF), Ok(1));
        let average = Target::Average(20_000, false);
        assert_eq!(asked(&pods(3), &[("p0", 30_000), ("p1", 30_000), ("p2", 10_000)], average), Ok(4));
    }

    #[test]
    fn missing_pods_are_full_on_the_way_down_and_idle_on_the_way_up() {
        // Of four pods one has no value. 20 % of what three request: two by themselves; with the fourth at 100 % it is 40 %.
        let low = [("p0", 200), ("p1", 200), ("p2", 200)];
        assert_eq!(asked(&pods(3), &low, HALF), Ok(2));
        assert_eq!(asked(&pods(4), &low, HALF), Ok(4), "40 of 50 % of four: 3.2");
        // With a target above 100 % it is taken to be at that.
        assert_eq!(asked(&pods(4), &low, Target::Utilisation(200, None)), Ok(2), "65 of 200 %: 1.3");
        // 90 % of three is 67 of four.
        let high = [("p0", 900), ("p1", 900), ("p2", 900)];
        assert_eq!(asked(&pods(3), &high, HALF), Ok(6), "5.4");
        assert_eq!(asked(&pods(4), &high, HALF), Ok(6), "67 of 50 % of four: 5.36");
        // Two of three without a value would turn the direction: nothing changes.
        assert_eq!(asked(&pods(3), &[("p0", 700)], HALF), Ok(3));
        assert_eq!(asked(&pods(3), &[("p0", 400)], HALF), Ok(3));
        // Values that are compared with a number: at it on the way down.
        let average = Target::Average(100, false);
        assert_eq!(asked(&pods(4), &[("p0", 20), ("p1", 20), ("p2", 20)], average), Ok(2), "160 of 100 each");
        assert_eq!(asked(&pods(4), &[("p0", 300), ("p1", 300), ("p2", 300)], average), Ok(9));
    }

    #[test]
    fn pods_that_begin_do_not_count_and_keep_growth_small() {
        let mut all = pods(3);
        (all[2].started_ms, all[2].ready) = (Some(NOW - 20_000), Some((true, NOW - 10_000)));
        let high = [("p0", 900), ("p1", 900), ("p2", 1_000)];
        // Its value is of before it was ready, and is taken for nothing: 1800 of 3000.
        let groups = group(&all, &values(&high), true, NOW);
        assert_eq!((groups.counted.len(), &*groups.unready), (2, &["p2".to_owned()][..]));
        assert_eq!(asked(&all, &high, HALF), Ok(4), "60 of 50 % of three: 3.6");
        // On the way down it is left out.
        assert_eq!(asked(&all, &[("p0", 200), ("p1", 200), ("p2", 1_000)], HALF), Ok(1), "40 % of two");
        // Once its window lies behind, it counts.
        let mut later = values(&high);
        later
            .insert("p2".to_owned(), Measured { value: 1_000, timestamp_ms: NOW + 5_000, window_ms: 15_000 });
        assert!(group(&all, &later, true, NOW + 5_000).unready.is_empty());
        // A value that is not CPU counts at once.
        assert!(group(&all, &values(&high), false, NOW).unready.is_empty());
    }

    #[test]
    fn readiness_phase_and_deletion_decide_the_group() {
        let of = |change: &dyn Fn(&mut Pod)| {
            let mut all = pods(1);
            change(&mut all[0]);
            let groups = group(&all, &values(&[("p0", 1)]), true, NOW);
            (groups.counted.len(), groups.missing.len(), groups.unready.len())
        };
        assert_eq!(of(&|_| {}), (1, 0, 0));
        assert_eq!(of(&|pod| pod.deleted = true), (0, 0, 0));
        assert_eq!(of(&|pod| pod.phase = Phase::Failed), (0, 0, 0));
        assert_eq!(of(&|pod| pod.phase = Phase::Pending), (0, 0, 1));
        assert_eq!(of(&|pod| pod.ready = None), (0, 0, 1));
        assert_eq!(of(&|pod| pod.started_ms = None), (0, 0, 1));
        let started = NOW - 400_000;
        let unready_since = |since: i64| {
            of(&move |pod: &mut Pod| (pod.started_ms, pod.ready) = (Some(started), Some((false, since))))
        };
        assert_eq!(unready_since(started + 20_000), (0, 0, 1), "it never was ready");
        assert_eq!(unready_since(started + 90_000), (1, 0, 0), "it was, so its CPU is that of its work");
        let mut young = pods(1);
        (young[0].started_ms, young[0].ready) = (Some(NOW - 60_000), Some((false, NOW - 1)));
        assert_eq!(group(&young, &values(&[("p0", 1)]), true, NOW).unready.len(), 1);
        // Without a value a pod that waits for its node is unready, any other is missing.
        young[0].phase = Phase::Pending;
        assert_eq!(group(&young, &Values::new(), true, NOW).unready.len(), 1);
        young[0].phase = Phase::Running;
        assert_eq!(group(&young, &Values::new(), true, NOW).missing.len(), 1);
    }

    #[test]
    fn without_values_or_requests_there_is_no_answer() {
        assert!(asked(&pods(2), &[], HALF).unwrap_err().contains("no metrics returned"));
        let mut unready = pods(1);
        unready[0].ready = None;
        assert!(asked(&unready, &[("p0", 1)], HALF).unwrap_err().contains("might be unready"));
        let mut open = pods(1);
        open[0].requests.push(("side", None));
        assert!(asked(&open, &[("p0", 1)], HALF).unwrap_err().contains("missing request for cpu"));
        assert_eq!(asked(&open, &[("p0", 500)], Target::Utilisation(50, Some("main"))), Ok(1));
    }

    #[test]
    fn one_value_is_shared_or_is_that_of_all_ready_pods() {
        let mut all = pods(4);
        all[3].ready = Some((false, 0));
        assert_eq!(by_value(&all, 20_000, 10_000, 4), 6, "twice as many as are ready");
        assert_eq!(by_value(&all, 10_900, 10_000, 4), 4);
        assert_eq!(
            (by_share(37_000, 10_000, 2), by_share(37_000, 10_000, 4), by_share(1, 10_000, 4)),
            (4, 4, 1)
        );
    }

    #[test]
    fn the_most_that_any_metric_asks_for_and_nothing_less_while_one_is_broken() {
        let scaler = Autoscaler::new(4, (1, 10));
        let broken = || Err("gone".to_owned());
        assert_eq!(scaler.together(&[Ok(3), Ok(7), Ok(1)]), Ok(7));
        assert_eq!(scaler.together(&[Ok(7), broken()]), Ok(7));
        assert_eq!(scaler.together(&[Ok(2), broken()]), broken());
        assert_eq!(scaler.together(&[broken()]), broken());
    }

    #[test]
    fn down_goes_to_the_most_that_was_asked_for_in_five_minutes() {
        let mut scaler = Autoscaler::new(10, (1, 20));
        let asked = [(0, 9), (60, 3), (120, 5), (250, 2), (299, 2)];
        let steps: Vec<i64> = asked.iter().map(|(s, count)| scaler.step(*count, NOW + s * 1_000)).collect();
        assert_eq!(steps, [9, 9, 9, 9, 9]);
        assert_eq!(scaler.step(2, NOW + 301_000), 5, "9 is forgotten, 3 and 5 are not");
        assert_eq!(scaler.step(2, NOW + 421_000), 2);
        assert_eq!(scaler.step(6, NOW + 422_000), 6, "up at once");
    }

    #[test]
    fn up_goes_by_four_or_doubles_every_quarter_of_a_minute() {
        let mut scaler = Autoscaler::new(1, (1, 30));
        assert_eq!(scaler.step(100, NOW), 5);
        assert_eq!(scaler.step(100, NOW + 10_000), 5, "not before the time is over");
        assert_eq!(scaler.step(100, NOW + 15_001), 10);
        assert_eq!(scaler.step(100, NOW + 30_002), 20);
        assert_eq!(scaler.step(100, NOW + 45_003), 30, "the maximum");
        assert_eq!(scaler.step(0, NOW + 1_000_000), 1, "the minimum");
    }

    #[test]
    fn behaviours_say_how_fast() {
        let mut scaler = Autoscaler::new(80, (1, 100));
        scaler.down = Pace {
            window_ms: 0,
            choice: Choice::Max,
            policies: vec![Policy::Pods(4, 60_000), Policy::Percent(10, 60_000)],
        };
        let down = |scaler: &mut Autoscaler, minute: i64| scaler.step(1, NOW + minute * 60_001);
        assert_eq!(
            (down(&mut scaler, 0), down(&mut scaler, 1), down(&mut scaler, 2)),
            (72, 64, 57),
            "7.2 is 8"
        );
        assert_eq!(scaler.step(1, NOW + 2 * 60_001 + 1_000), 57, "the minute's share is taken");
        scaler.down.choice = Choice::Min;
        assert_eq!(down(&mut scaler, 4), 53);
        scaler.down.choice = Choice::Disabled;
        assert_eq!(down(&mut scaler, 6), 53);
        // Growth that lasts.
        scaler.up = Pace { window_ms: 60_000, choice: Choice::Max, policies: vec![Policy::Pods(10, 1)] };
        assert_eq!(scaler.step(1, NOW + 450_000), 53);
        assert_eq!(scaler.step(60, NOW + 500_000), 53, "less was asked for in the last minute");
        assert_eq!(scaler.step(70, NOW + 550_000), 60);
        scaler.up.choice = Choice::Disabled;
        assert_eq!(scaler.step(90, NOW + 640_000), 60);
    }
}
