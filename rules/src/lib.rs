//! Recording and alerting rules, and the notifier that hands alerts to Alertmanager.
//!
//! This crate is *not* a query engine and keeps no samples: a rule reads and writes the same store as
//! everybody else. It reads no files, no clock and no network: all three come from its callers, so that this crate
//! decides what an Alertmanager is told and when, and the binary how it is reached.
//!
//! ```
//! let groups = rules::parse("
//! groups:
//! - name: node
//!   rules:
//!   - record: job:up:sum
//!     expr: sum by(job) (up)
//!   - alert: TargetDown
//!     expr: up == 0
//!     for: 5m
//!     annotations: {summary: '{{ $labels.instance }} is down'}
//! ")?;
//! assert_eq!(groups[0].rules[0].query(), "sum by (job) (up)");
//! let refused = rules::parse("groups: [{name: a, rules: [{record: b, expr: 'sum('}]}]").unwrap_err();
//! assert_eq!((refused.line, refused.column), (1, 46));
//! # Ok::<(), rules::FileError>(())
//! ```
//!
//! The hard decision is who owns a group's memory (the series it wrote, the alerts that are pending): the
//! *task* of the group, by value. An evaluation takes the group in and gives it back, so nothing is
//! locked while queries run, a test evaluates a group by calling a function with a time, and a reload
//! gets the memory of a changed group by waiting for its task. What others may see is a copy, replaced
//! rule by rule.

mod alerting;
mod dependencies;
mod file;
mod group;
mod handle;
mod notifier;
mod query;
mod recording;
mod restore;
mod rule;
mod schedule;
pub mod status;
mod template;
mod trial;

#[cfg(test)]
mod handle_tests;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use model::{Labels, QueryCancelled, Timestamp};
use tokio_util::task::TaskTracker;

pub use file::{Dialect, FileError, Unknown, parse, parse_with};
pub use handle::Handle;
pub use notifier::{Alertmanager, Delivery, Post, Posting, QueueOptions, Relabel};
pub use query::{Beyond, EndedQuery, Observer};
pub use rule::{Group, Rule, RuleKind};
pub use status::{
    AlertState, AlertStatus, AlertingStatus, AlertmanagerStats, GroupStatus, Health, RuleStatus, Stats,
};
pub use tokio_util::sync::CancellationToken as Shutdown;
pub use trial::Trial;

use handle::Shared;
use notifier::Notifier;
use query::{Counters, Environment, Permits};

/// Where timestamps come from: milliseconds since the epoch, now.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Everything the rules need.
#[derive(Clone)]
pub struct Options {
    /// The groups, each with the name of its file.
    pub groups: Vec<Group>,
    /// Evaluates expressions.
    pub engine: Arc<promql::Engine>,
    /// Where samples are read and written.
    pub db: Arc<tsdb::Db>,
    /// Where timestamps come from.
    pub clock: Clock,
    /// Time between two evaluations of a group that gives none.
    pub evaluation_interval_ms: i64,
    /// How far back a group looks that does not say.
    pub query_offset_ms: i64,
    /// Labels added to alerts that do not have them.
    pub external_labels: Labels,
    /// The address of this server, for links; without a slash at its end.
    pub external_url: String,
    /// The language of queries in templates.
    pub grammar: promql::ParseOptions,
    /// A firing alert is sent again after this time.
    pub resend_delay_ms: i64,
    /// After an outage longer than this, alerts begin anew.
    pub for_outage_tolerance_ms: i64,
    /// Only alerts that wait at least this long are restored, and after a restart none fires sooner.
    pub for_grace_period_ms: i64,
    /// How alerts wait for them.
    pub queue: QueueOptions,
    /// Nothing is evaluated before this is cancelled; at once if there is none. For a store whose history
    /// is still being read.
    pub begin: Option<Shutdown>,
    /// Rules of all groups that may be evaluated beside those whose turn it is, if they depend on none of
    /// them. With 0 the rules of a group are evaluated one after the other.
    pub beside_max: usize,
    /// Is told of each query.
    pub observer: Option<Arc<dyn Observer>>,
    /// What queries read besides the store. Alerts are restored from the store alone, as in Prometheus.
    pub beyond: Option<Beyond>,
}

impl Options {
    /// No groups, nobody to tell, and Prometheus' defaults.
    #[must_use]
    pub fn new(engine: Arc<promql::Engine>, db: Arc<tsdb::Db>, clock: Clock) -> Self {
        Self {
            groups: Vec::new(),
            engine,
            db,
            clock,
            evaluation_interval_ms: 60_000,
            query_offset_ms: 0,
            external_labels: Labels::empty(),
            external_url: String::new(),
            grammar: promql::ParseOptions::default(),
            resend_delay_ms: 60_000,
            for_outage_tolerance_ms: 3_600_000,
            for_grace_period_ms: 600_000,
            queue: QueueOptions::default(),
            begin: None,
            beside_max: 0,
            observer: None,
            beyond: None,
        }
    }
}

/// Why rules could not be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Two groups of one name in one file.
    #[error("{file}: group {name:?} is repeated")]
    DuplicateGroup {
        /// The file.
        file: String,
        /// The name.
        name: String,
    },
    /// An interval that is not above zero.
    #[error("evaluation interval {0} ms is not above zero")]
    Interval(i64),
}

fn check_groups(groups: &[Group]) -> Result<(), StartError> {
    let mut seen = HashSet::new();
    for group in groups {
        if !seen.insert((&group.file, &group.name)) {
            return Err(StartError::DuplicateGroup { file: group.file.clone(), name: group.name.clone() });
        }
        if let Some(interval) = group.interval_ms.filter(|interval| *interval <= 0) {
            return Err(StartError::Interval(interval));
        }
    }
    Ok(())
}

/// Starts evaluating on the current tokio runtime. Nobody is told of alerts before [`Handle::set_alertmanagers`].
///
/// # Errors
/// The options cannot be run.
pub fn start(options: Options, shutdown: Shutdown) -> Result<Handle, StartError> {
    if options.evaluation_interval_ms <= 0 {
        return Err(StartError::Interval(options.evaluation_interval_ms));
    }
    check_groups(&options.groups)?;
    let notifier = Notifier::new(options.queue);
    let env = environment(&options);
    let shared = Arc::new(Shared {
        env,
        begin: options.begin,
        clock: options.clock,
        notifier,
        shutdown,
        interval_ms: options.evaluation_interval_ms,
        query_offset_ms: options.query_offset_ms,
        tasks: TaskTracker::new(),
    });
    Ok(Handle::start(shared, options.groups))
}

/// What all groups share.
fn environment(options: &Options) -> Environment {
    Environment {
        engine: Arc::clone(&options.engine),
        db: Arc::clone(&options.db),
        external_labels: options.external_labels.clone(),
        external_url: options.external_url.clone(),
        grammar: options.grammar,
        resend_delay_ms: options.resend_delay_ms,
        outage_tolerance_ms: options.for_outage_tolerance_ms,
        grace_period_ms: options.for_grace_period_ms,
        cancelled: Arc::new(QueryCancelled::new()),
        counters: Counters::default(),
        observer: options.observer.clone(),
        beyond: options.beyond.clone(),
        beside: Permits::new(options.beside_max),
    }
}
