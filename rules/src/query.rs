//! What an evaluation needs, and the two things it does with the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use model::{HistogramValue, Labels, Querier, QueryCancelled, Timestamp, Value};
use promql::{Engine, Expr, Outcome, ParseOptions, QueryError, QueryOptions, QueryValue, VectorSample};
use tsdb::{AppendError, Appender, CommitError, Db, SeriesRef, Snapshot};

use crate::rule::Group;
use crate::template::{Found, Lookup};

/// What all groups share.
pub(crate) struct Environment {
    pub(crate) engine: Arc<Engine>,
    pub(crate) db: Arc<Db>,
    pub(crate) external_labels: Labels,
    pub(crate) external_url: String,
    pub(crate) grammar: ParseOptions,
    pub(crate) resend_delay_ms: i64,
    pub(crate) outage_tolerance_ms: i64,
    pub(crate) grace_period_ms: i64,
    /// Set when nobody waits for results any more.
    pub(crate) cancelled: Arc<QueryCancelled>,
    pub(crate) counters: Counters,
    /// Is told of each query that has ended.
    pub(crate) observer: Option<Arc<dyn Observer>>,
    /// What queries read besides.
    pub(crate) beyond: Option<Beyond>,
    /// Rules that may be evaluated beside those of the groups' own threads; none if groups keep their order.
    pub(crate) beside: Permits,
}

/// Hands a querier that has what the store has, and more, to whoever is to read it; and says in words what it lacks.
/// Called on a thread that may wait.
pub type Beyond = Arc<dyn Fn(&Snapshot, &mut dyn FnMut(&dyn Querier)) -> Vec<String> + Send + Sync>;

/// Is told of the queries of rules, for a log.
pub trait Observer: Send + Sync {
    /// Whether it wants to know what the parts of a query cost.
    fn wants_costs(&self) -> bool;

    /// A query has ended.
    fn ended(&self, query: &EndedQuery<'_>);
}

/// A query of a rule that has ended.
#[derive(Debug)]
pub struct EndedQuery<'a> {
    /// The rule's group.
    pub group: &'a Group,
    /// The expression.
    pub expr: &'a Expr,
    /// The time at which it was evaluated.
    pub at: Timestamp,
    /// What came of it.
    pub result: Result<&'a Outcome, &'a QueryError>,
}

/// So many more things may be done at once.
#[derive(Debug, Default)]
pub(crate) struct Permits(AtomicUsize);

/// One of them; dropping it gives it back.
pub(crate) struct Permit<'a>(&'a Permits);

impl Permits {
    pub(crate) fn new(count: usize) -> Self {
        Self(AtomicUsize::new(count))
    }

    /// A permit, if there is one now.
    pub(crate) fn take(&self) -> Option<Permit<'_>> {
        let one_less = |free: usize| free.checked_sub(1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).ok().map(|_| Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counted since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) evaluations: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) iterations: AtomicU64,
    pub(crate) missed: AtomicU64,
    pub(crate) written: AtomicU64,
    pub(crate) refused: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// Why a rule could not be evaluated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuleError {
    #[error("{0}")]
    Query(#[from] QueryError),
    #[error("rule result is not a vector or scalar")]
    NotVector,
    #[error("vector contains metrics with the same labelset after applying {0} labels")]
    Duplicate(&'static str),
    #[error("exceeded limit of {limit} with {found} {what}")]
    Limit { limit: usize, found: usize, what: &'static str },
    #[error("{0}")]
    Refused(AppendError),
    #[error("{0}")]
    Commit(#[from] CommitError),
}

/// The samples of a rule's last evaluation, which say whose series end with the next.
pub(crate) type Written = HashMap<Labels, SeriesRef>;

/// What rules and templates read.
struct Reading {
    engine: Arc<Engine>,
    db: Arc<Db>,
    beyond: Option<Beyond>,
}

impl Reading {
    fn instant(&self, expr: &Expr, at: Timestamp, options: &QueryOptions<'_>) -> Result<Outcome, QueryError> {
        let snapshot = self.db.snapshot();
        let run = |querier: &dyn Querier| self.engine.instant(querier, expr, at, options);
        let Some(beyond) = &self.beyond else { return run(&snapshot) };
        let mut result = None;
        let warnings = beyond(&snapshot, &mut |querier| result = Some(run(querier)));
        // Whoever does not read at all has nothing beyond the store.
        let mut outcome = result.unwrap_or_else(|| run(&snapshot))?;
        outcome.warnings.extend(warnings);
        Ok(outcome)
    }
}

impl Environment {
    /// Evaluates an expression of a group on what is stored now.
    pub(crate) fn query(
        &self,
        group: &Group,
        expr: &Expr,
        at: Timestamp,
    ) -> Result<Vec<VectorSample>, RuleError> {
        let with_costs = self.observer.as_ref().is_some_and(|observer| observer.wants_costs());
        let options =
            QueryOptions { cancelled: Some(&self.cancelled), with_costs, ..QueryOptions::default() };
        let result = self.reading().instant(expr, at, &options);
        if let Some(observer) = &self.observer {
            observer.ended(&EndedQuery { group, expr, at, result: result.as_ref() });
        }
        match result?.value {
            QueryValue::Vector(samples) => Ok(samples),
            QueryValue::Scalar { ts, value } => {
                Ok(vec![VectorSample { labels: Labels::empty(), ts, value: Value::Float(value) }])
            }
            _ => Err(RuleError::NotVector),
        }
    }

    fn reading(&self) -> Reading {
        let (engine, db) = (Arc::clone(&self.engine), Arc::clone(&self.db));
        Reading { engine, db, beyond: self.beyond.clone() }
    }

    /// The `query` function of templates at one time.
    pub(crate) fn lookup(&self, at: Timestamp) -> Lookup {
        let reading = self.reading();
        let (cancelled, grammar) = (Arc::clone(&self.cancelled), self.grammar);
        Arc::new(move |text| {
            let options = QueryOptions { cancelled: Some(&cancelled), ..QueryOptions::default() };
            let expr = promql::parse(text, &grammar).map_err(|error| error.to_string())?;
            let outcome = reading.instant(&expr, at, &options);
            match outcome.map_err(|error| error.to_string())?.value {
                QueryValue::Vector(samples) => Ok(samples
                    .into_iter()
                    .map(|sample| Found { value: plain(&sample.value), labels: sample.labels })
                    .collect()),
                QueryValue::Scalar { value, .. } => Ok(vec![Found { labels: Labels::empty(), value }]),
                _ => Err("query result is not a vector or scalar".to_owned()),
            }
        })
    }

    /// Stores the results of a rule, ends the series that were there last time and are no more, and
    /// returns how many samples were taken. A result that the store refuses does not keep back the rest.
    pub(crate) fn write(
        &self,
        written: &mut Written,
        results: Vec<(Labels, Value)>,
        ts: Timestamp,
    ) -> Result<u64, RuleError> {
        let mut appender = self.db.appender();
        let mut now = Written::with_capacity(results.len());
        let mut refused = None;
        for (labels, value) in results {
            let known = written.get(&labels).copied();
            match append(&mut appender, (&labels, known), ts, &value) {
                Ok(series) => {
                    now.insert(labels, series);
                }
                Err((error, series)) => {
                    count(&self.counters.refused, 1);
                    refused.get_or_insert(error);
                    now.extend(series.map(|series| (labels, series)));
                }
            }
        }
        let stale = Value::Float(model::stale_nan());
        for (labels, series) in written.iter().filter(|(labels, _)| !now.contains_key(labels)) {
            if let Err((error, _)) = append(&mut appender, (labels, Some(*series)), ts, &stale) {
                tracing::debug!(%labels, %error, "a staleness marker was refused");
            }
        }
        let stored = appender.commit().map(|stored| stored as u64)?;
        count(&self.counters.written, stored);
        *written = now;
        match refused {
            Some(error) => Err(RuleError::Refused(error)),
            None => Ok(stored),
        }
    }
}

/// Appends one sample; a reference that has left the head is looked up anew. With an error comes the
/// reference of the series, if there is one.
fn append(
    appender: &mut Appender<'_>,
    (labels, known): (&Labels, Option<SeriesRef>),
    ts: Timestamp,
    value: &Value,
) -> Result<SeriesRef, (AppendError, Option<SeriesRef>)> {
    let put = |appender: &mut Appender<'_>, series| match value {
        Value::Float(value) => appender.append(series, ts, *value),
        Value::Histogram(histogram) => {
            appender.append_histogram(series, ts, &HistogramValue::Float((**histogram).clone()))
        }
    };
    if let Some(series) = known {
        match put(appender, series) {
            Err(AppendError::UnknownSeries) => {}
            result => return result.map(|()| series).map_err(|error| (error, Some(series))),
        }
    }
    let series = appender.series(labels).map_err(|error| (error, None))?;
    put(appender, series).map(|()| series).map_err(|error| (error, Some(series)))
}

/// A value as a float; a histogram has none.
pub(crate) fn plain(value: &Value) -> f64 {
    match value {
        Value::Float(value) => *value,
        Value::Histogram(_) => 0.0,
    }
}
