//! Why there is no value: what a person asks next when an autoscaler says that a metric is missing.

use std::collections::BTreeSet;

use model::{
    Labels, METRIC_NAME, Matcher, Querier, Samples, Selection, StorageError, TimeRange, Timestamp,
    is_stale_nan,
};

use super::reading::Reading;
use crate::quantity;

/// How far back is looked for an answer.
const BACK_MS: i64 = 86_400_000;
/// More series than this are not looked at; the answer is for people.
const SERIES_MAX: usize = 500;

/// A target by its job and instance.
type Target = (String, String);

/// The reason why a query that makes these readings gives no value at `now`.
pub(crate) fn reason(
    querier: &dyn Querier,
    readings: &[Reading],
    now: Timestamp,
    lookback_ms: i64,
) -> Result<String, StorageError> {
    let look = Look { querier, now };
    for reading in readings {
        let span = if reading.range_ms > 0 { reading.range_ms } else { lookback_ms };
        if let Some(reason) = look.absence(&reading.matchers, span)? {
            return Ok(reason);
        }
    }
    let rates = readings.iter().any(|reading| reading.range_ms > 0);
    let hint = if rates { "; a rate needs two samples within its range" } else { "" };
    Ok(format!("the samples are there, but the query gives no value for it{hint}"))
}

struct Look<'a> {
    querier: &'a dyn Querier,
    now: Timestamp,
}

/// The newest sample of some series.
struct Newest {
    ts: Timestamp,
    has_ended: bool,
}

impl Look<'_> {
    fn range(&self) -> TimeRange {
        TimeRange::new(self.now - BACK_MS, self.now)
    }

    /// Why a selector finds nothing; none if it does find something.
    fn absence(&self, matchers: &[Matcher], span: i64) -> Result<Option<String>, StorageError> {
        let range = self.range();
        let series = self.querier.select_unordered(&Selection::new(matchers, range))?;
        if series.is_empty() {
            return self.never(matchers).map(Some);
        }
        let mut newest: Option<Newest> = None;
        let mut targets = BTreeSet::new();
        let mut samples = Samples::default();
        for index in 0..series.len().min(SERIES_MAX) {
            targets.insert(target(&series.labels(index)));
            series.samples(index, range, &mut samples)?;
            let Some(found) = last(&samples) else { continue };
            if newest.as_ref().is_none_or(|newest| found.ts > newest.ts) {
                newest = Some(found);
            }
        }
        let Some(newest) = newest else { return self.never(matchers).map(Some) };
        let age = self.now - newest.ts;
        if age <= span && !newest.has_ended {
            return Ok(None);
        }
        let seen = format!("its newest sample is of {} ({} ago)", quantity::time(newest.ts), seconds(age));
        Ok(Some(format!("{seen}; {}", self.targets(&targets)?)))
    }

    /// What to say of series that were never there.
    fn never(&self, matchers: &[Matcher]) -> Result<String, StorageError> {
        let name: Vec<Matcher> = matchers.iter().filter(|it| &*it.name == METRIC_NAME).cloned().collect();
        let others: Vec<String> =
            matchers.iter().filter(|it| &*it.name != METRIC_NAME).map(ToString::to_string).collect();
        let named: Vec<String> = name.iter().map(|it| it.value.to_string()).collect();
        let names = self.querier.label_values(METRIC_NAME, &name, self.range(), 1)?;
        let hours = BACK_MS / 3_600_000;
        if name.is_empty() || names.is_empty() {
            return Ok(format!("no series {} was ever scraped in the last {hours} hours", named.join(" ")));
        }
        Ok(format!(
            "series {} exist, but none with {} in the last {hours} hours",
            named.join(" "),
            others.join(",")
        ))
    }

    /// How the targets fare that had the series.
    fn targets(&self, targets: &BTreeSet<Target>) -> Result<String, StorageError> {
        let (mut up, mut worst) = (0, None);
        for (job, instance) in targets {
            match self.down_since(job, instance)? {
                None => up += 1,
                Some(what) => worst = worst.or(Some(what)),
            }
        }
        let coverage = format!("scrape coverage {up}/{}", targets.len());
        Ok(match worst {
            Some(what) => format!("{what}; {coverage}"),
            None => format!("its targets are up, and no longer have it; {coverage}"),
        })
    }

    /// Since when a target does not answer; none if it does.
    fn down_since(&self, job: &str, instance: &str) -> Result<Option<String>, StorageError> {
        let mut matchers = vec![Matcher::equal(METRIC_NAME, "up")];
        for (name, value) in [("job", job), ("instance", instance)] {
            matchers.push(Matcher::equal(name, value));
        }
        let range = self.range();
        let series = self.querier.select(&Selection::new(&matchers, range))?;
        let called = format!("target {instance} of job {job}");
        let (mut samples, mut state): (_, Option<(Timestamp, String)>) = (Samples::default(), None);
        for index in 0..series.len() {
            series.samples(index, range, &mut samples)?;
            let Some(found) = last(&samples) else { continue };
            let what = if found.has_ended {
                format!("{called} is gone since {}", quantity::time(found.ts))
            } else if samples.values.last() == Some(&0.0) {
                let points = samples.ts.iter().zip(&samples.values).rev();
                let failed = points.take_while(|(_, value)| **value == 0.0).last();
                let since = failed.map_or(found.ts, |(ts, _)| *ts);
                format!("{called} is down since {}", quantity::time(since))
            } else {
                String::new()
            };
            if state.as_ref().is_none_or(|(ts, _)| found.ts > *ts) {
                state = Some((found.ts, what));
            }
        }
        Ok(match state {
            None if job.is_empty() && instance.is_empty() => None,
            None => Some(format!("{called} is not known")),
            Some((_, what)) => Some(what).filter(|what| !what.is_empty()),
        })
    }
}

fn last(samples: &Samples) -> Option<Newest> {
    let mut points = samples.ts.iter().zip(&samples.values).rev();
    let (ts, value) = points.next()?;
    if is_stale_nan(*value) {
        // The end itself says when the series was last looked for.
        return Some(Newest { ts: points.next().map_or(*ts, |(before, _)| *before), has_ended: true });
    }
    Some(Newest { ts: *ts, has_ended: false })
}

fn target(labels: &Labels) -> Target {
    let of = |name| labels.get(name).unwrap_or_default().to_owned();
    (of("job"), of("instance"))
}

fn seconds(ms: i64) -> String {
    quantity::duration(ms / 1000 * 1000)
}
