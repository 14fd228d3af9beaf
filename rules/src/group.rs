//! A group of rules and one evaluation of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use model::{Labels, Timestamp, Value};
use parking_lot::Mutex;

use crate::alerting::{Alerts, Moment};
use crate::dependencies;
use crate::notifier::Alert;
use crate::query::{Environment, RuleError, Written, count};
use crate::recording;
use crate::rule::{Group, Rule, RuleKind};
use crate::status::{AlertState, AlertingStatus, GroupStatus, Health, RuleStatus};

/// The evaluation that is followed by the look-up of what alerts were before a restart. The first one
/// may come before there are samples, and before the recording rules that alerts depend on.
const RESTORE_AFTER: u64 = 2;

/// A group with what it remembers from one evaluation to the next.
pub(crate) struct GroupState {
    pub(crate) group: Arc<Group>,
    pub(crate) interval_ms: i64,
    pub(crate) query_offset_ms: i64,
    pub(crate) rules: Vec<RuleState>,
    /// The rules, by index, in the order of their evaluation.
    steps: Vec<Vec<usize>>,
    /// Series of rules that are no more; they end with the next evaluation.
    leftover: Vec<Labels>,
    evaluations: u64,
    must_restore: bool,
    /// What others may see.
    pub(crate) live: Arc<Mutex<GroupStatus>>,
}

/// A rule with what it remembers.
pub(crate) struct RuleState {
    pub(crate) rule: Rule,
    pub(crate) written: Written,
    pub(crate) alerts: Alerts,
}

impl GroupState {
    /// A group that was never evaluated. `must_restore`: its alerts may have a state from before.
    pub(crate) fn new(
        group: Arc<Group>,
        (interval_ms, query_offset_ms): (i64, i64),
        must_restore: bool,
    ) -> Self {
        let alerts = || Alerts { restored: !must_restore, ..Alerts::default() };
        let rules: Vec<_> = group
            .rules
            .iter()
            .map(|rule| RuleState { rule: rule.clone(), written: Written::new(), alerts: alerts() })
            .collect();
        let live = GroupStatus {
            name: group.name.clone(),
            file: group.file.clone(),
            interval_ms,
            query_offset_ms,
            limit: group.limit,
            rules: rules.iter().map(RuleState::status).collect(),
            evaluation_time_s: 0.0,
            last_evaluation: None,
            iterations: 0,
            iterations_missed: 0,
            last_samples: 0,
        };
        Self {
            steps: dependencies::steps(&group.rules),
            group,
            interval_ms,
            query_offset_ms,
            rules,
            leftover: Vec::new(),
            evaluations: 0,
            must_restore,
            live: Arc::new(Mutex::new(live)),
        }
    }

    /// Takes over what the rules of an earlier form of the group remember. Series of rules that are no
    /// more end with the next evaluation.
    pub(crate) fn inherit(&mut self, old: Self) {
        let mut old_rules: Vec<_> = old.rules.into_iter().map(Some).collect();
        let statuses = old.live.lock().rules.clone();
        let mut live = self.live.lock();
        for (at, state) in self.rules.iter_mut().enumerate() {
            let same = |old: &Option<RuleState>| {
                old.as_ref().is_some_and(|old| {
                    let is_recording = |rule: &Rule| rule.kind == RuleKind::Recording;
                    old.rule.name == state.rule.name
                        && old.rule.labels == state.rule.labels
                        && is_recording(&old.rule) == is_recording(&state.rule)
                })
            };
            let Some(from) = old_rules.iter().position(same) else { continue };
            let Some(found) = old_rules[from].take() else { continue };
            (state.written, state.alerts) = (found.written, found.alerts);
            let before = &statuses[from];
            let status = &mut live.rules[at];
            (status.health, status.last_evaluation) = (before.health, before.last_evaluation);
            (status.evaluation_time_s, status.last_error) =
                (before.evaluation_time_s, before.last_error.clone());
            if let Some(alerting) = &mut status.alerting {
                alerting.show(&state.alerts);
            }
        }
        drop(live);
        self.must_restore = old.must_restore;
        self.evaluations = old.evaluations;
        for state in &mut self.rules {
            state.alerts.restored = !self.must_restore;
        }
        let orphans = old_rules.into_iter().flatten().flat_map(|old| old.written.into_keys());
        self.leftover = old.leftover.into_iter().chain(orphans).collect();
    }

    /// Evaluates all rules at `ts`; each sees what those before it wrote. Returns the alerts that Alertmanager
    /// must be told of.
    pub(crate) fn evaluate(&mut self, env: &Environment, ts: Timestamp) -> Vec<Arc<Alert>> {
        let began = Instant::now();
        let moment = Moment { ts, query_offset_ms: self.query_offset_ms, interval_ms: self.interval_ms };
        let told = Told { env, group: &self.group, live: &self.live };
        let (mut due, mut samples) = (Vec::new(), 0);
        let mut states: Vec<Option<&mut RuleState>> = self.rules.iter_mut().map(Some).collect();
        for step in &self.steps {
            let rules = step.iter().filter_map(|at| states[*at].take().map(|state| (*at, state))).collect();
            for (stored, alerts) in told.evaluate_step(rules, moment) {
                samples += stored;
                due.extend(alerts);
            }
        }
        self.end_leftover(env, moment.at());
        self.evaluations += 1;
        if self.must_restore && self.evaluations >= RESTORE_AFTER {
            self.must_restore = false;
            for state in &mut self.rules {
                state.restore(env, ts);
            }
        }
        let mut live = self.live.lock();
        live.last_evaluation = Some(ts);
        live.evaluation_time_s = began.elapsed().as_secs_f64();
        live.last_samples = samples;
        live.iterations += 1;
        due
    }

    /// Ends the series of rules that are no more, unless another rule of the group writes them now.
    fn end_leftover(&mut self, env: &Environment, at: Timestamp) {
        if self.leftover.is_empty() {
            return;
        }
        let alive: HashSet<&Labels> = self.rules.iter().flat_map(|state| state.written.keys()).collect();
        let ended = self.leftover.iter().filter(|labels| !alive.contains(labels));
        let stale = ended.map(|labels| (labels.clone(), Value::Float(model::stale_nan()))).collect();
        if let Err(error) = env.write(&mut Written::new(), stale, at) {
            tracing::debug!(group = %self.group.name, %error, "not all series of removed rules could be ended");
        }
        self.leftover.clear();
    }

    /// Ends all series of a group that is no more, but those which somebody else went on writing.
    pub(crate) fn end(mut self, env: &Environment, ts: Timestamp) {
        let since = self.live.lock().last_evaluation.unwrap_or(ts) - self.query_offset_ms;
        let series = self.rules.drain(..).flat_map(|state| state.written.into_keys());
        let goes_on = |labels: &Labels| env.latest(labels, since + 1, ts).is_ok_and(|found| found.is_some());
        self.leftover.extend(series.filter(|labels| !goes_on(labels)));
        self.end_leftover(env, ts);
    }
}

/// Whom the evaluations of a group's rules ask, and whom they tell.
struct Told<'a> {
    env: &'a Environment,
    group: &'a Group,
    live: &'a Mutex<GroupStatus>,
}

/// What an evaluation gives: the number of samples written, and alerts to tell of.
type Given = (u64, Vec<Arc<Alert>>);

impl Told<'_> {
    /// Evaluates rules that do not depend on each other, side by side as far as there are permits. What they
    /// give comes in their order.
    fn evaluate_step(&self, rules: Vec<(usize, &mut RuleState)>, moment: Moment) -> Vec<Given> {
        if rules.len() == 1 {
            return rules.into_iter().map(|(at, state)| self.evaluate_one(at, state, moment)).collect();
        }
        std::thread::scope(|scope| {
            let mut given: Vec<_> = Vec::with_capacity(rules.len());
            let count = rules.len();
            for (nth, (at, state)) in rules.into_iter().enumerate() {
                // The last one is for this thread, which would only wait.
                let permit = if nth + 1 < count { self.env.beside.take() } else { None };
                given.push(match permit {
                    Some(permit) => Err(scope.spawn(move || {
                        let _permit = permit;
                        self.evaluate_one(at, state, moment)
                    })),
                    None => Ok(self.evaluate_one(at, state, moment)),
                });
            }
            let joined = given.into_iter().map(|given| match given {
                Ok(given) => given,
                Err(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            });
            joined.collect()
        })
    }

    fn evaluate_one(&self, at: usize, state: &mut RuleState, moment: Moment) -> Given {
        let env = self.env;
        if env.cancelled.is_set() {
            return (0, Vec::new());
        }
        let began = Instant::now();
        let result = state.evaluate(env, self.group, moment);
        count(&env.counters.evaluations, 1);
        let due = if result.is_ok() { state.alerts.due(env, &state.rule, moment) } else { Vec::new() };
        if let Err(error) = &result {
            count(&env.counters.failures, 1);
            let (group, rule) = (&self.group.name, &state.rule.name);
            tracing::warn!(file = %self.group.file, %group, %rule, %error, "a rule could not be evaluated");
        }
        let mut live = self.live.lock();
        let status = &mut live.rules[at];
        status.last_evaluation = Some(moment.ts);
        status.evaluation_time_s = began.elapsed().as_secs_f64();
        if let Some(alerting) = &mut status.alerting {
            alerting.show(&state.alerts);
        }
        let (health, error, stored) = match result {
            Ok(stored) => (Health::Ok, None, stored),
            Err(error) => (Health::Err, Some(error.to_string()), 0),
        };
        (status.health, status.last_error) = (health, error);
        (stored, due)
    }
}

impl RuleState {
    fn evaluate(&mut self, env: &Environment, group: &Group, moment: Moment) -> Result<u64, RuleError> {
        let results = match self.rule.kind {
            RuleKind::Recording => recording::evaluate(env, group, &self.rule, moment.at())?,
            RuleKind::Alerting { .. } => self.alerts.evaluate(env, group, &self.rule, moment)?,
        };
        env.write(&mut self.written, results, moment.at())
    }

    /// What the rule is, before anything is known of an evaluation.
    fn status(&self) -> RuleStatus {
        let alerting = match &self.rule.kind {
            RuleKind::Recording => None,
            RuleKind::Alerting { for_ms, keep_firing_for_ms, annotations } => {
                let mut status = AlertingStatus {
                    for_ms: *for_ms,
                    keep_firing_for_ms: *keep_firing_for_ms,
                    annotations: annotations.clone(),
                    ..AlertingStatus::default()
                };
                status.show(&self.alerts);
                Some(status)
            }
        };
        RuleStatus {
            name: self.rule.name.clone(),
            query: self.rule.query(),
            labels: self.rule.labels.clone(),
            health: Health::Unknown,
            last_error: None,
            evaluation_time_s: 0.0,
            last_evaluation: None,
            alerting,
        }
    }
}

impl AlertingStatus {
    /// Shows these alerts.
    fn show(&mut self, alerts: &Alerts) {
        self.alerts = alerts.statuses();
        self.state = self.alerts.iter().map(|alert| alert.state).max().unwrap_or(AlertState::Inactive);
    }
}
