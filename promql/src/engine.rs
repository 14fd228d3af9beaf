//! The engine: limits, threads, and the two ways to ask.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::{Labels, Querier, QueryCancelled, Samples, StorageError, Timestamp, Value};

use crate::aggregate::GroupSum;
use crate::ast::{Expr, Span, ValueType};
use crate::eval::at::Times;
use crate::eval::{Evaluator, Grid};
use crate::limits::{Account, Gate, Limits};
use crate::plan::{self, Plan};

/// Switches for parts of the language's meaning that are off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// The metric name is dropped only at the end of a query, so that `label_replace` may rescue it.
    pub delayed_name_removal: bool,
    /// `rate` and its kin use the start timestamps of samples.
    pub start_timestamps: bool,
}

/// What an engine is built from.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// What a query may use.
    pub limits: Limits,
    /// How far back an instant selector looks.
    pub lookback_ms: i64,
    /// The step of a subquery that gives none.
    pub subquery_step_ms: i64,
    /// Switches.
    pub features: Features,
    /// Threads that evaluate queries; 0: one a core.
    pub workers: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            lookback_ms: 300_000,
            subquery_step_ms: 60_000,
            features: Features::default(),
            workers: 0,
        }
    }
}

/// What may differ from one query to the next.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueryOptions<'a> {
    /// Replaces the engine's look-back.
    pub lookback_ms: Option<i64>,
    /// Set by whoever asked when the answer is not wanted any more.
    pub cancelled: Option<&'a QueryCancelled>,
    /// At most this many series are returned (0: all); more is a warning.
    pub limit: usize,
    /// Replaces the engine's timeout if it is shorter.
    pub timeout: Option<Duration>,
    /// Whether costs are counted by node and by step, which costs a little itself.
    pub with_costs: bool,
}

/// One series of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSample {
    /// Which series.
    pub labels: Labels,
    /// When.
    pub ts: Timestamp,
    /// Its value.
    pub value: Value,
}

/// One series of a range of time.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSeries {
    /// Which series.
    pub labels: Labels,
    /// Its samples.
    pub samples: Samples,
}

/// The value of a query.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryValue {
    /// A number.
    Scalar {
        /// When.
        ts: Timestamp,
        /// The number.
        value: f64,
    },
    /// A string.
    String {
        /// When.
        ts: Timestamp,
        /// The text.
        text: String,
    },
    /// Series with one value each.
    Vector(Vec<VectorSample>),
    /// Series with samples over a range of time.
    Matrix(Vec<MatrixSeries>),
}

/// What a query cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Series read from the store.
    pub series: u64,
    /// Samples read from the store.
    pub samples: u64,
    /// The most samples held at once.
    pub samples_peak: u64,
    /// The most bytes held at once, as far as they are counted.
    pub bytes_peak: u64,
    /// Waiting for a free place.
    pub queued: Duration,
    /// Evaluating.
    pub elapsed: Duration,
}

/// What a part of a query cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStats {
    /// Where the part stands.
    pub span: Span,
    /// Series read, or made.
    pub series: u64,
    /// Samples read, or made.
    pub samples: u64,
    /// The most bytes that it held at once.
    pub bytes: u64,
    /// Time from its start to its end; where series are computed one by one, of all workers together.
    pub elapsed: Duration,
}

/// What the parts of a query cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// Samples that each step looks at. What several steps see counts for each of them.
    pub samples_per_step: Vec<u64>,
    /// Costs by node.
    pub nodes: Vec<NodeStats>,
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The value.
    pub value: QueryValue,
    /// Results that are probably not what was meant.
    pub warnings: Vec<String>,
    /// Things worth knowing.
    pub infos: Vec<String>,
    /// What it cost.
    pub stats: Stats,
    /// What its parts cost, if that was asked for.
    pub costs: Option<Costs>,
}

/// The sums behind an aggregation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// By group.
    pub groups: Vec<GroupSum>,
    /// As in [`Outcome`].
    pub warnings: Vec<String>,
    /// As in [`Outcome`].
    pub infos: Vec<String>,
}

/// What comes with a value.
struct Parts {
    warnings: Vec<String>,
    infos: Vec<String>,
    stats: Stats,
    costs: Option<Costs>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Whoever asked gave up.
    #[error("query was canceled in query execution")]
    Cancelled,
    /// It took too long.
    #[error("query timed out in {0}")]
    Timeout(&'static str),
    /// It would need more than a query may use.
    #[error("query processing would {what} ({limit}={allowed}) while evaluating {expr}")]
    Limit {
        /// What went beyond, in words.
        what: &'static str,
        /// The limit's name.
        limit: &'static str,
        /// The limit's value.
        allowed: u64,
        /// The part of the query that went beyond.
        expr: String,
    },
    /// The query has no answer: duplicate series, a bad parameter, and the like.
    #[error("{0}")]
    Execution(String),
    /// The store failed.
    #[error("{0}")]
    Storage(StorageError),
}

impl From<StorageError> for QueryError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Cancelled => Self::Cancelled,
            error => Self::Storage(error),
        }
    }
}

/// Evaluates queries. Share one by reference.
#[derive(Debug)]
pub struct Engine {
    options: EngineOptions,
    gate: Gate,
    pool: Option<rayon::ThreadPool>,
    totals: Totals,
}

/// What an engine has done since it was built.
#[derive(Debug, Default)]
struct Totals {
    queries: AtomicU64,
    queued_ns: AtomicU64,
    elapsed_ns: AtomicU64,
    samples: AtomicU64,
}

/// What an engine has done since it was built, and does now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EngineStats {
    /// Queries that are evaluated now.
    pub running: usize,
    /// Queries that may be evaluated at once.
    pub concurrency: usize,
    /// Queries that have ended.
    pub queries: u64,
    /// How long they have waited.
    pub queued: Duration,
    /// How long they were evaluated.
    pub elapsed: Duration,
    /// Samples that were read.
    pub samples: u64,
}

/// Longer than any query runs.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The stack of a worker, which computes one series through all that its expression does to it. Pages that are
/// not touched take no memory.
const WORKER_STACK_BYTES: usize = 16 << 20;

impl Engine {
    /// Builds an engine and starts its threads.
    #[must_use]
    pub fn new(options: EngineOptions) -> Self {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.workers)
            .stack_size(WORKER_STACK_BYTES)
            .thread_name(|at| format!("query-{at}"))
            .build()
            // Without threads, the caller's own does the work.
            .ok();
        Self { gate: Gate::new(&options.limits), options, pool, totals: Totals::default() }
    }

    /// What the engine was built from.
    #[must_use]
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Bytes that all queries under way hold, as far as they are counted.
    #[must_use]
    pub fn bytes_held(&self) -> u64 {
        self.gate.bytes().load(Ordering::Relaxed)
    }

    /// What it has done, and does now.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let concurrency = self.options.limits.concurrency.max(1);
        EngineStats {
            running: concurrency - self.gate.free(),
            concurrency,
            queries: load(&self.totals.queries),
            queued: Duration::from_nanos(load(&self.totals.queued_ns)),
            elapsed: Duration::from_nanos(load(&self.totals.elapsed_ns)),
            samples: load(&self.totals.samples),
        }
    }

    /// Evaluates `expr` at one time.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn instant(
        &self,
        querier: &dyn Querier,
        expr: &Expr,
        at: Timestamp,
        options: &QueryOptions<'_>,
    ) -> Result<Outcome, QueryError> {
        self.run(querier, expr, self.times(Grid::instant(at), at, options), options)
    }

    /// Evaluates `expr` at `start`, `start + step_ms`, ... up to `end`.
    ///
    /// # Errors
    /// See [`QueryError`]; also if `step_ms` is not above zero, `end` lies before `start`, or `expr` is
    /// of a type that has no range form.
    #[expect(clippy::too_many_arguments, reason = "the three times read better apart")]
    pub fn range(
        &self,
        querier: &dyn Querier,
        expr: &Expr,
        start: Timestamp,
        end: Timestamp,
        step_ms: i64,
        options: &QueryOptions<'_>,
    ) -> Result<Outcome, QueryError> {
        let kind = expr.value_type();
        if !matches!(kind, ValueType::Scalar | ValueType::Vector) {
            return Err(QueryError::Execution(format!(
                "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
                kind.documented()
            )));
        }
        let grid = Grid::range(start, end, step_ms).ok_or_else(invalid_range)?;
        self.run(querier, expr, self.times(grid, end, options), options)
    }

    /// Evaluates the sums behind `expr`, which is a `sum` or an `avg`, from `start` to `end`; a `step_ms` of 0
    /// means at `start` alone.
    ///
    /// # Errors
    /// See [`QueryError`]; also if `expr` is no aggregation.
    pub fn sums(
        &self,
        querier: &dyn Querier,
        expr: &Expr,
        (start, end): (Timestamp, Timestamp),
        step_ms: i64,
        options: &QueryOptions<'_>,
    ) -> Result<Sums, QueryError> {
        let grid = if step_ms == 0 { Some(Grid::instant(start)) } else { Grid::range(start, end, step_ms) };
        let grid = grid.ok_or_else(invalid_range)?;
        let times = self.times(grid, if step_ms == 0 { start } else { end }, options);
        let (groups, parts) =
            self.evaluated(querier, (expr, times), options, |evaluator| evaluator.sums(expr))?;
        Ok(Sums { groups, warnings: parts.warnings, infos: parts.infos })
    }

    /// How `expr` would be evaluated from `start` to `end`; a `step_ms` of 0 means at `start` alone.
    ///
    /// # Errors
    /// A duration in `expr` is out of bounds, or the range of time is not sensible.
    pub fn explain(
        &self,
        expr: &Expr,
        (start, end): (Timestamp, Timestamp),
        step_ms: i64,
        options: &QueryOptions<'_>,
    ) -> Result<Plan, QueryError> {
        let grid = if step_ms == 0 { Some(Grid::instant(start)) } else { Grid::range(start, end, step_ms) };
        let grid = grid.ok_or_else(invalid_range)?;
        let times = self.times(grid, if step_ms == 0 { start } else { end }, options);
        expr.with_stack(|| plan::explain(expr, &times))
    }

    fn times(&self, query: Grid, end: Timestamp, options: &QueryOptions<'_>) -> Times {
        Times {
            query,
            end,
            lookback_ms: options.lookback_ms.filter(|ms| *ms > 0).unwrap_or(self.options.lookback_ms),
            subquery_step_ms: self.options.subquery_step_ms.max(1),
        }
    }

    fn run(
        &self,
        querier: &dyn Querier,
        expr: &Expr,
        times: Times,
        options: &QueryOptions<'_>,
    ) -> Result<Outcome, QueryError> {
        let evaluated = self.evaluated(querier, (expr, times), options, |evaluator| evaluator.query(expr));
        let (value, mut parts) = evaluated?;
        let (value, cut) = limited(value, options.limit);
        if cut {
            parts.warnings.push("results truncated due to limit".to_owned());
        }
        let Parts { warnings, infos, stats, costs } = parts;
        Ok(Outcome { value, warnings, infos, stats, costs })
    }

    /// Evaluates in a place at the gate, under the limits, on the caller's thread. The pool computes series for it,
    /// but no thread of the pool ever waits for another query, so that a long one does not hold up a short one.
    fn evaluated<T>(
        &self,
        querier: &dyn Querier,
        (expr, times): (&Expr, Times),
        options: &QueryOptions<'_>,
        evaluation: impl FnOnce(&Evaluator<'_>) -> Result<T, QueryError>,
    ) -> Result<(T, Parts), QueryError> {
        let limits = &self.options.limits;
        let timeout = options.timeout.map_or(limits.timeout, |timeout| timeout.min(limits.timeout));
        let asked = Instant::now();
        // A timeout beyond the clock's range is no timeout.
        let deadline = asked.checked_add(timeout).unwrap_or(asked + FOREVER);
        let place = self.gate.enter(deadline, options.cancelled)?;
        let entered = Instant::now();
        let account = Account::new(limits, self.gate.bytes(), deadline, options.cancelled).at(&place);
        let evaluated =
            expr.with_stack(|| self.evaluated_on(&account, (querier, expr, times), options, evaluation));
        let mut stats = account.stats();
        (stats.queued, stats.elapsed) = (entered - asked, entered.elapsed());
        self.totals.add(&stats);
        evaluated.map(|(value, parts)| (value, Parts { stats, ..parts }))
    }

    fn evaluated_on<T>(
        &self,
        account: &Account<'_>,
        (querier, expr, times): (&dyn Querier, &Expr, Times),
        options: &QueryOptions<'_>,
        evaluation: impl FnOnce(&Evaluator<'_>) -> Result<T, QueryError>,
    ) -> Result<(T, Parts), QueryError> {
        let evaluator =
            Evaluator::new(querier, &self.options, account, times, self.pool.as_ref()).for_query(expr)?;
        let evaluator = if options.with_costs { evaluator.with_tally(expr) } else { evaluator };
        let value = evaluation(&evaluator)?;
        let (warnings, infos, tally) = evaluator.into_parts();
        let costs = tally.map(|tally| {
            let (samples_per_step, nodes) = tally.into_parts();
            Costs { samples_per_step, nodes }
        });
        Ok((value, Parts { warnings, infos, stats: Stats::default(), costs }))
    }
}

impl Totals {
    fn add(&self, stats: &Stats) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        for (counter, more) in [
            (&self.queries, 1),
            (&self.queued_ns, nanos(stats.queued)),
            (&self.elapsed_ns, nanos(stats.elapsed)),
            (&self.samples, stats.samples),
        ] {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }
}

fn invalid_range() -> QueryError {
    QueryError::Execution("invalid time range of the query".to_owned())
}

/// Cuts a result to `limit` series.
fn limited(mut value: QueryValue, limit: usize) -> (QueryValue, bool) {
    let cut = match &mut value {
        QueryValue::Vector(samples) if limit > 0 && samples.len() > limit => {
            samples.truncate(limit);
            true
        }
        QueryValue::Matrix(series) if limit > 0 && series.len() > limit => {
            series.truncate(limit);
            true
        }
        _ => false,
    };
    (value, cut)
}
