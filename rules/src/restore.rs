//! Since when alerts are active, from what was stored before a restart.

use model::{Labels, Matcher, Querier as _, Samples, Selection, StorageError, TimeRange, Timestamp};

use crate::alerting::since_labels;
use crate::group::RuleState;
use crate::query::Environment;
use crate::rule::RuleKind;
use crate::status::AlertState;

impl Environment {
    /// The newest float of a series from `start` to `end`, both included.
    pub(crate) fn latest(
        &self,
        labels: &Labels,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<Option<(Timestamp, f64)>, StorageError> {
        let matchers: Vec<_> = labels.iter().map(|(name, value)| Matcher::equal(name, value)).collect();
        let range = TimeRange::new(start, end);
        let snapshot = self.db.snapshot();
        let found = snapshot.select(&Selection::new(&matchers, range))?;
        let mut samples = Samples::default();
        // Series with further labels match as well.
        let Some(index) = (0..found.len()).find(|&index| found.labels(index) == *labels) else {
            return Ok(None);
        };
        found.samples(index, range, &mut samples)?;
        Ok(samples.ts.last().copied().zip(samples.values.last().copied()))
    }
}

impl RuleState {
    /// Looks up at `ts` since when each alert is active, so that a restart does not begin its waiting
    /// anew. The time while nothing was evaluated does not count, and an alert that would fire within
    /// the grace period fires at its end: things may have mended themselves meanwhile.
    pub(crate) fn restore(&mut self, env: &Environment, ts: Timestamp) {
        self.alerts.restored = true;
        let RuleKind::Alerting { for_ms, .. } = self.rule.kind else { return };
        if for_ms < env.grace_period_ms {
            return;
        }
        for (labels, alert) in &mut self.alerts.active {
            if alert.state == AlertState::Inactive {
                continue;
            }
            let series = since_labels(labels, &self.rule.name);
            match env.latest(&series, ts - env.outage_tolerance_ms, ts) {
                Ok(Some((down_at, since))) if !since.is_nan() => {
                    alert.active_at = resumed(ts, (down_at, since), for_ms, env.grace_period_ms);
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%labels, %error, "the state of an alert could not be restored"),
            }
        }
    }
}

/// Since when an alert counts as active at `ts` that, when last seen at `down_at`, was active since the
/// second `since_s`.
fn resumed(ts: Timestamp, (down_at, since_s): (Timestamp, f64), for_ms: i64, grace_ms: i64) -> Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "a float beyond the range becomes its end")]
    let since = (since_s as i64).saturating_mul(1_000);
    let remaining = for_ms.saturating_sub(down_at.saturating_sub(since));
    if remaining <= 0 {
        since
    } else if remaining < grace_ms {
        ts + grace_ms - for_ms
    } else {
        since + (ts - down_at)
    }
}

#[cfg(test)]
mod tests {
    use super::resumed;

    const MINUTE: i64 = 60_000;

    #[test]
    fn time_without_evaluation_does_not_count() {
        let now = 1_000 * MINUTE;
        let seen = |minute: i64, since: f64| (minute * MINUTE, since * 60.0);
        // It fired already.
        assert_eq!(resumed(now, seen(990, 950.0), 30 * MINUTE, 10 * MINUTE), 950 * MINUTE);
        // 15 of 30 minutes were over, then nothing for 10.
        assert_eq!(resumed(now, seen(990, 975.0), 30 * MINUTE, 10 * MINUTE), 985 * MINUTE);
        // Two minutes remained: the grace period.
        assert_eq!(resumed(now, seen(990, 962.0), 30 * MINUTE, 10 * MINUTE), 980 * MINUTE);
    }
}
