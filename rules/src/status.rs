//! What the rules tell about themselves, as plain data.

use std::collections::BTreeMap;

use model::{Labels, Timestamp};

pub use crate::notifier::AlertmanagerStats;

/// A group, now.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// The file it stands in.
    pub file: String,
    /// Time between two evaluations.
    pub interval_ms: i64,
    /// How far back it looks.
    pub query_offset_ms: i64,
    /// At most this many series or alerts a rule (0: any number).
    pub limit: usize,
    /// Its rules.
    pub rules: Vec<RuleStatus>,
    /// How long the last evaluation took.
    pub evaluation_time_s: f64,
    /// The time of the last evaluation.
    pub last_evaluation: Option<Timestamp>,
    /// Evaluations that were due.
    pub iterations: u64,
    /// Evaluations that were left out because an earlier one took too long.
    pub iterations_missed: u64,
    /// Series written by the last evaluation.
    pub last_samples: u64,
}

/// A rule, now.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleStatus {
    /// The name of the series or of the alert.
    pub name: String,
    /// The expression in its canonical form.
    pub query: String,
    /// Labels set on each result.
    pub labels: BTreeMap<String, String>,
    /// Whether the last evaluation went well.
    pub health: Health,
    /// Why it did not.
    pub last_error: Option<String>,
    /// How long the last evaluation took.
    pub evaluation_time_s: f64,
    /// The time of the last evaluation.
    pub last_evaluation: Option<Timestamp>,
    /// What only alerting rules have.
    pub alerting: Option<AlertingStatus>,
}

/// An alerting rule, now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlertingStatus {
    /// The highest state of its alerts.
    pub state: AlertState,
    /// A result must persist this long before its alert fires.
    pub for_ms: i64,
    /// An alert goes on firing this long after its result is gone.
    pub keep_firing_for_ms: i64,
    /// Templates of texts for people.
    pub annotations: BTreeMap<String, String>,
    /// Pending and firing alerts, ascending by labels.
    pub alerts: Vec<AlertStatus>,
}

/// A pending or firing alert.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertStatus {
    /// What identifies it.
    pub labels: Labels,
    /// Texts for people.
    pub annotations: BTreeMap<String, String>,
    /// Pending or firing.
    pub state: AlertState,
    /// Since when there is a result.
    pub active_at: Timestamp,
    /// Since when it fires without a result.
    pub keep_firing_since: Option<Timestamp>,
    /// The last result.
    pub value: f64,
}

/// How far an alert is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertState {
    /// There is no result.
    #[default]
    Inactive,
    /// There is a result, but not for long enough.
    Pending,
    /// It fires.
    Firing,
}

impl AlertState {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
        }
    }
}

/// Whether a rule could be evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It was not evaluated yet.
    #[default]
    Unknown,
    /// It could.
    Ok,
    /// It could not.
    Err,
}

impl Health {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Err => "err",
        }
    }
}

/// Counters since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Rules evaluated.
    pub evaluations: u64,
    /// Rules whose evaluation failed.
    pub evaluation_failures: u64,
    /// Evaluations of groups that were due.
    pub iterations: u64,
    /// Evaluations of groups that were left out because an earlier one took too long.
    pub iterations_missed: u64,
    /// Samples written, staleness markers included.
    pub samples_written: u64,
    /// Samples of results that the store refused.
    pub samples_refused: u64,
    /// Each Alertmanager.
    pub alertmanagers: Vec<AlertmanagerStats>,
    /// The URLs of those that relabelling dropped.
    pub dropped_alertmanagers: Vec<String>,
}
