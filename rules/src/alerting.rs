//! Alerting rules: each result is an alert with a life of its own.
//!
//! An alert is *pending* while its result has not persisted for long enough, then *firing*; without a
//! result a pending one is forgotten, and a firing one is resolved, perhaps after a delay, and kept for a
//! while, so that those who missed the news can be told again.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Labels, Timestamp, Value};
use promql::VectorSample;

use crate::notifier::Alert;
use crate::query::{Environment, RuleError, plain};
use crate::rule::{Group, Rule, RuleKind};
use crate::status::{AlertState, AlertStatus};
use crate::template::{self, Expander, Setting};

/// A resolved alert is kept this long.
const RESOLVED_KEPT_MS: i64 = 15 * 60_000;
/// The series of an alert's state.
pub(crate) const STATE_METRIC: &str = "ALERTS";
/// The series of the time since which an alert is active.
pub(crate) const SINCE_METRIC: &str = "ALERTS_FOR_STATE";
const ALERT_NAME: &str = "alertname";
const ALERT_STATE: &str = "alertstate";

/// The alerts of a rule by their labels.
#[derive(Debug, Default)]
pub(crate) struct Alerts {
    pub(crate) active: BTreeMap<Labels, Active>,
    /// Whether the state before a restart was looked up; until then no series are written, as they
    /// would overwrite it.
    pub(crate) restored: bool,
}

/// One alert.
#[derive(Clone, Debug)]
pub(crate) struct Active {
    annotations: BTreeMap<String, String>,
    pub(crate) state: AlertState,
    value: f64,
    pub(crate) active_at: Timestamp,
    fired_at: Option<Timestamp>,
    resolved_at: Option<Timestamp>,
    keep_firing_since: Option<Timestamp>,
    sent_at: Option<Timestamp>,
}

/// When and within what a rule is evaluated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The time of the evaluation.
    pub(crate) ts: Timestamp,
    /// How far back it looks.
    pub(crate) query_offset_ms: i64,
    /// Time between two evaluations.
    pub(crate) interval_ms: i64,
}

impl Moment {
    /// The time that is looked at.
    pub(crate) fn at(&self) -> Timestamp {
        self.ts - self.query_offset_ms
    }
}

impl Alerts {
    /// Evaluates the rule and moves its alerts on; returns the series that tell of them.
    pub(crate) fn evaluate(
        &mut self,
        env: &Environment,
        group: &Group,
        rule: &Rule,
        moment: Moment,
    ) -> Result<Vec<(Labels, Value)>, RuleError> {
        let RuleKind::Alerting { for_ms, keep_firing_for_ms, annotations } = &rule.kind else {
            return Ok(Vec::new());
        };
        let samples = env.query(group, &rule.expr, moment.at())?;
        let mut found = BTreeMap::new();
        let mut expander = Expander::new(Setting {
            name: template::name(&rule.name),
            external_labels: &env.external_labels,
            external_url: &env.external_url,
            ts: moment.ts,
            lookup: env.lookup(moment.ts),
        });
        for sample in samples {
            let (labels, texts) = expand(&mut expander, rule, annotations, &sample);
            if found.insert(labels, (plain(&sample.value), texts)).is_some() {
                return Err(RuleError::Duplicate("alert"));
            }
        }
        let count = self.advance(found, moment.ts, (*for_ms, *keep_firing_for_ms));
        let limit = group.limit;
        if limit > 0 && count > limit {
            self.active.clear();
            return Err(RuleError::Limit { limit, found: count, what: "alerts" });
        }
        Ok(if self.restored { self.series(&rule.name) } else { Vec::new() })
    }

    /// Moves the alerts on to `ts` with the results of that time; returns how many are pending or firing.
    fn advance(
        &mut self,
        mut found: BTreeMap<Labels, (f64, BTreeMap<String, String>)>,
        ts: Timestamp,
        (for_ms, keep_firing_for_ms): (i64, i64),
    ) -> usize {
        self.active.retain(|labels, alert| {
            if alert.state != AlertState::Inactive
                && let Some((value, annotations)) = found.remove(labels)
            {
                (alert.value, alert.annotations) = (value, annotations);
                alert.keep_firing_since = None;
                return true;
            }
            // An inactive alert with a result begins anew, below.
            !found.contains_key(labels) && alert.miss(ts, keep_firing_for_ms)
        });
        for (labels, (value, annotations)) in found {
            self.active.insert(labels, Active::new(value, annotations, ts));
        }
        let mut count = 0;
        for alert in self.active.values_mut().filter(|alert| alert.state != AlertState::Inactive) {
            count += 1;
            if alert.state == AlertState::Pending && ts - alert.active_at >= for_ms {
                alert.state = AlertState::Firing;
                alert.fired_at = Some(ts);
            }
        }
        count
    }

    /// `ALERTS` and `ALERTS_FOR_STATE` of each pending or firing alert.
    fn series(&self, name: &str) -> Vec<(Labels, Value)> {
        let alerts = self.active.iter().filter(|(_, alert)| alert.state != AlertState::Inactive);
        alerts
            .flat_map(|(labels, alert)| {
                let mut state = labels.to_builder();
                state.set(model::METRIC_NAME, STATE_METRIC).set(ALERT_NAME, name);
                state.set(ALERT_STATE, alert.state.as_str());
                #[expect(clippy::cast_precision_loss, reason = "seconds since the epoch are far below 2^53")]
                let since = alert.active_at.div_euclid(1_000) as f64;
                [(state.build(), Value::Float(1.0)), (since_labels(labels, name), Value::Float(since))]
            })
            .collect()
    }

    /// The alerts that Alertmanager must be told of at `ts`, which is noted.
    pub(crate) fn due(&mut self, env: &Environment, rule: &Rule, moment: Moment) -> Vec<Arc<Alert>> {
        let ts = moment.ts;
        let mut due = Vec::new();
        for (labels, alert) in &mut self.active {
            let Some(starts_at) = alert.fired_at.filter(|_| alert.is_due(ts, env.resend_delay_ms)) else {
                continue;
            };
            alert.sent_at = Some(ts);
            let valid_until = ts + 4 * env.resend_delay_ms.max(moment.interval_ms);
            let mut all = labels.to_builder();
            for (name, value) in &env.external_labels {
                if all.get(name).is_none() {
                    all.set(name, value);
                }
            }
            due.push(Arc::new(Alert {
                labels: all.build(),
                annotations: alert.annotations.clone(),
                starts_at,
                ends_at: alert.resolved_at.unwrap_or(valid_until),
                generator_url: format!("{}{}", env.external_url, template::table_link(&rule.query())),
            }));
        }
        due
    }

    /// Pending and firing alerts.
    pub(crate) fn statuses(&self) -> Vec<AlertStatus> {
        let alerts = self.active.iter().filter(|(_, alert)| alert.state != AlertState::Inactive);
        alerts
            .map(|(labels, alert)| AlertStatus {
                labels: labels.clone(),
                annotations: alert.annotations.clone(),
                state: alert.state,
                active_at: alert.active_at,
                keep_firing_since: alert.keep_firing_since,
                value: alert.value,
            })
            .collect()
    }
}

impl Active {
    fn new(value: f64, annotations: BTreeMap<String, String>, ts: Timestamp) -> Self {
        Self {
            annotations,
            state: AlertState::Pending,
            value,
            active_at: ts,
            fired_at: None,
            resolved_at: None,
            keep_firing_since: None,
            sent_at: None,
        }
    }

    /// There is no result at `ts`; returns whether the alert is still to be kept.
    fn miss(&mut self, ts: Timestamp, keep_firing_for_ms: i64) -> bool {
        match self.state {
            AlertState::Pending => false,
            AlertState::Inactive => self.resolved_at.is_some_and(|at| ts - at <= RESOLVED_KEPT_MS),
            AlertState::Firing => {
                let keeps = keep_firing_for_ms > 0 && {
                    ts - *self.keep_firing_since.get_or_insert(ts) < keep_firing_for_ms
                };
                if !keeps {
                    self.state = AlertState::Inactive;
                    self.resolved_at = Some(ts);
                }
                true
            }
        }
    }

    /// Whether Alertmanager must be told: at once of firing and of the end, and again after a while.
    fn is_due(&self, ts: Timestamp, resend_delay_ms: i64) -> bool {
        let Some(sent_at) = self.sent_at else { return self.state != AlertState::Pending };
        self.resolved_at.is_some_and(|at| at > sent_at) || sent_at + resend_delay_ms < ts
    }
}

/// The labels of the series that remembers since when an alert is active.
pub(crate) fn since_labels(labels: &Labels, name: &str) -> Labels {
    let mut since = labels.to_builder();
    since.set(model::METRIC_NAME, SINCE_METRIC).set(ALERT_NAME, name);
    since.build()
}

/// The identity and the annotations of the alert for a result.
fn expand<'a>(
    expander: &mut Expander<'a>,
    rule: &'a Rule,
    annotations: &'a BTreeMap<String, String>,
    sample: &VectorSample,
) -> (Labels, BTreeMap<String, String>) {
    let value = plain(&sample.value);
    let mut labels = sample.labels.to_builder();
    labels.remove(model::METRIC_NAME);
    for (name, text) in &rule.labels {
        labels.set(name, &expander.expand(text, &sample.labels, value));
    }
    labels.set(ALERT_NAME, &rule.name);
    let texts = annotations
        .iter()
        .map(|(name, text)| (name.clone(), expander.expand(text, &sample.labels, value)))
        .collect();
    (labels.build(), texts)
}
