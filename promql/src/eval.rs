//! Expressions over a grid of times.
//!
//! [`Evaluator::source`] turns an expression into series that are computed one at a time;
//! [`Evaluator::vector`] computes them all. What sits between a selector and an aggregation is never
//! held as a whole. An instant query is a range query of one step.

pub(crate) mod at;
mod binary;
mod call;
pub(crate) mod column;
pub(crate) mod detect;
mod extended;
mod grid;
mod kept;
mod matching;
pub(crate) mod order;
pub(crate) mod range;
mod result;
mod select;
mod shared;
pub(crate) mod sharing;
pub(crate) mod source;
mod subquery;
pub(crate) mod tally;
pub(crate) mod unordered;

use std::sync::Arc;
use std::time::Instant;

use model::{Labels, METRIC_NAME, MatchOp, Querier, Selection, SeriesSet, TimeRange};
use rayon::prelude::*;

pub(crate) use grid::Grid;

use crate::aggregate;
use crate::annotations::Annotations;
use crate::ast::{Expr, ExprKind, Extension, Selector, ValueType};
use crate::engine::{EngineOptions, Features, QueryError};
use crate::limits::{Account, Desk};
use at::Times;
use column::Column;
use extended::SmoothedSelector;
use kept::Kept;
use select::{InstantSelector, Yield};
use shared::Shared;
use sharing::{Marks, Sharing};
use source::{BoxSource, ColumnMap, Mapped, NameRule, Ready, Scratch, Series, Source, join_equal};
use tally::Tally;

/// So few cells are computed by the caller alone.
const ALONE_MAX: usize = 512;

/// Series that are computed together before they are folded, at most: enough to feed all workers.
const BATCH_MAX: usize = 4096;

/// Cells of the columns that are computed together: few enough to be forgotten, 1 MiB.
const CELLS: usize = 128 << 10;

/// One query under way.
pub(crate) struct Evaluator<'a> {
    querier: &'a dyn Querier,
    account: &'a Account<'a>,
    pub(crate) annotations: Annotations,
    pub(crate) features: Features,
    /// Where selectors stand whose histograms are used for their counts and sums only.
    detecting: Vec<usize>,
    /// Where selectors stand whose series may come in any order.
    unordered: Vec<usize>,
    times: Times,
    shared: Vec<Shared<'a>>,
    kept: Kept<'a>,
    /// Costs by node and step, if they are asked for.
    pub(crate) tally: Option<Tally>,
    pool: Option<&'a rayon::ThreadPool>,
}

/// What an expression evaluates to on a grid.
pub(crate) enum Evaluated {
    /// One number a step.
    Scalar(Vec<f64>),
    /// Series without those that have no value at any step.
    Vector(Vec<Series>),
    /// A string.
    Text(String),
}

impl<'a> Evaluator<'a> {
    pub(crate) fn new(
        querier: &'a dyn Querier,
        engine: &EngineOptions,
        account: &'a Account<'a>,
        times: Times,
        pool: Option<&'a rayon::ThreadPool>,
    ) -> Self {
        Self {
            querier,
            account,
            annotations: Annotations::default(),
            features: engine.features,
            detecting: Vec::new(),
            unordered: Vec::new(),
            times,
            shared: Vec::new(),
            kept: Kept::default(),
            tally: None,
            pool,
        }
    }

    /// Accounts for the costs of `expr` by node and step.
    pub(crate) fn with_tally(mut self, expr: &Expr) -> Self {
        self.tally = Some(Tally::new(expr, self.times.query.count));
        self
    }

    /// Whether what happens on `grid` counts for the steps of the query: the insides of subqueries do not.
    pub(crate) fn counts_steps(&self, grid: Grid) -> bool {
        self.tally.is_some() && (grid == self.times.query || grid == self.times.query.first())
    }

    /// Prepared for the selectors of a query.
    pub(crate) fn for_query(mut self, expr: &'a Expr) -> Result<Self, QueryError> {
        self.detecting = detect::selectors(expr);
        self.unordered = unordered::selectors(expr);
        let marks = Marks { detecting: &self.detecting, unordered: &self.unordered };
        let sharing = Sharing::of(expr, &self.times, marks)?;
        self.shared = shared::select(self.querier, &sharing.readings, self.account)?;
        self.kept = Kept::new(sharing);
        Ok(self)
    }

    /// The remarks (warnings, infos), and the costs.
    pub(crate) fn into_parts(self) -> (Vec<String>, Vec<String>, Option<Tally>) {
        let (warnings, infos) = self.annotations.into_texts();
        (warnings, infos, self.tally)
    }

    /// Evaluates an expression of any type but range vector.
    pub(crate) fn eval(&self, expr: &Expr, grid: Grid) -> Result<Evaluated, QueryError> {
        match expr.value_type() {
            ValueType::Scalar => self.scalar(expr, grid).map(Evaluated::Scalar),
            ValueType::Vector => self.vector(expr, grid).map(Evaluated::Vector),
            ValueType::String => text(expr).map(|text| Evaluated::Text(text.to_owned())),
            ValueType::Matrix => Err(misplaced(expr)),
        }
    }

    /// The numbers of a scalar expression.
    pub(crate) fn scalar(&self, expr: &Expr, grid: Grid) -> Result<Vec<f64>, QueryError> {
        match &expr.kind {
            ExprKind::Number(number) => Ok(vec![number.value; grid.count]),
            ExprKind::Paren(inner) => self.scalar(inner, grid),
            _ if grid.count > 1 && at::is_constant(expr) => {
                Ok(vec![self.scalar(expr, grid.first())?[0]; grid.count])
            }
            ExprKind::Unary(unary) => {
                let mut values = self.scalar(&unary.expr, grid)?;
                if unary.negative {
                    values.iter_mut().for_each(|value| *value = -*value);
                }
                Ok(values)
            }
            ExprKind::Binary(binary) => {
                let mut left = self.scalar(&binary.left, grid)?;
                let right = self.scalar(&binary.right, grid)?;
                for (left, right) in left.iter_mut().zip(right) {
                    *left = binary::scalars(binary.op, *left, right);
                }
                Ok(left)
            }
            ExprKind::Call(call) => self.scalar_call(call, grid),
            _ => Err(misplaced(expr)),
        }
    }

    /// The series of a vector expression, all computed.
    pub(crate) fn vector(&self, expr: &Expr, grid: Grid) -> Result<Vec<Series>, QueryError> {
        self.shared_whole(expr, grid).unwrap_or_else(|| self.own_vector(expr, grid))
    }

    /// As [`Evaluator::vector`], whether or not others compute the same.
    fn own_vector(&self, expr: &Expr, grid: Grid) -> Result<Vec<Series>, QueryError> {
        let Some(tally) = self.tally.as_ref().filter(|_| !matches!(expr.kind, ExprKind::Paren(_))) else {
            return self.whole_vector(expr, grid);
        };
        let since = Instant::now();
        let series = self.whole_vector(expr, grid)?;
        let (samples, bytes) = self.weight(&series)?;
        // What selectors read is counted where they read it.
        let read = matches!(expr.kind, ExprKind::Vector(_));
        tally.add(expr.span, since, if read { (0, 0, bytes) } else { (series.len(), samples, bytes) });
        Ok(series)
    }

    fn whole_vector(&self, expr: &Expr, grid: Grid) -> Result<Vec<Series>, QueryError> {
        match &expr.kind {
            ExprKind::Paren(inner) => self.vector(inner, grid),
            _ if grid.count > 1 && at::is_constant(expr) => {
                let mut series = self.vector(expr, grid.first())?;
                self.release(&series);
                for series in self.account.watched(&mut series) {
                    let series = series?;
                    series.column = series.column.broadcast(grid.count);
                }
                self.hold(&series, expr)?;
                Ok(series)
            }
            ExprKind::Aggregate(aggregate) => aggregate::aggregate(self, aggregate, expr, grid),
            ExprKind::Binary(binary) if binary::is_between_vectors(binary) => {
                let series = self.binary_vectors(binary, expr, grid)?;
                self.hold(&series, expr)?;
                Ok(series)
            }
            ExprKind::Call(call) if call::is_whole(call) => {
                let series = self.whole_call(call, expr, grid)?;
                self.hold(&series, expr)?;
                Ok(series)
            }
            _ => {
                let source = self.own_source(expr, grid)?;
                self.collect(source.as_ref(), expr, grid)
            }
        }
    }

    /// The series of a vector expression, to be computed one at a time.
    pub(crate) fn source<'s>(&'s self, expr: &'s Expr, grid: Grid) -> Result<BoxSource<'s>, QueryError> {
        self.shared_stream(expr, grid).unwrap_or_else(|| self.own_source(expr, grid))
    }

    /// As [`Evaluator::source`], whether or not others compute the same.
    fn own_source<'s>(&'s self, expr: &'s Expr, grid: Grid) -> Result<BoxSource<'s>, QueryError> {
        let constant = grid.count > 1 && at::is_constant(expr);
        match &expr.kind {
            ExprKind::Paren(inner) => self.source(inner, grid),
            ExprKind::Vector(selector) if !constant => {
                self.instant_selector(expr, selector, grid, Yield::Value)
            }
            ExprKind::Unary(unary) if !constant => {
                let inner = self.source(&unary.expr, grid)?;
                if unary.negative {
                    self.mapped(inner, self.drop_rule(), Box::new(binary::negate), (expr, grid))
                } else {
                    Ok(inner)
                }
            }
            ExprKind::Binary(binary) if !constant && !binary::is_between_vectors(binary) => {
                self.binary_with_scalar(binary, expr, grid)
            }
            ExprKind::Call(call) if !constant && !call::is_whole(call) => {
                self.streaming_call(call, expr, grid)
            }
            _ => Ok(Box::new(Ready { series: self.vector(expr, grid)?, evaluator: self })),
        }
    }

    /// What a function does to the metric name that does not keep it.
    pub(crate) fn drop_rule(&self) -> NameRule {
        if self.features.delayed_name_removal { NameRule::Mark } else { NameRule::Drop }
    }

    /// A mapped source. Where series may become equal by losing their names, they are computed and
    /// joined at once.
    pub(crate) fn mapped<'s>(
        &'s self,
        inner: BoxSource<'s>,
        name: NameRule,
        map: ColumnMap<'s>,
        (expr, grid): (&'s Expr, Grid),
    ) -> Result<BoxSource<'s>, QueryError> {
        let joins = name == NameRule::Drop && !inner.names_unique();
        let source: BoxSource<'s> = Box::new(Mapped { inner, name, map });
        self.joined(source, joins, (expr, grid))
    }

    /// `source`, with series of equal labels joined if there may be any.
    pub(crate) fn joined<'s>(
        &'s self,
        source: BoxSource<'s>,
        joins: bool,
        (expr, grid): (&'s Expr, Grid),
    ) -> Result<BoxSource<'s>, QueryError> {
        if !joins {
            return Ok(source);
        }
        let series = self.collect(source.as_ref(), expr, grid)?;
        Ok(Box::new(Ready { series: join_equal(series, self.account)?, evaluator: self }))
    }

    /// Computes all series of `source` and keeps those with a value.
    pub(crate) fn collect(
        &self,
        source: &dyn Source,
        expr: &Expr,
        grid: Grid,
    ) -> Result<Vec<Series>, QueryError> {
        let mut out = Vec::new();
        let read = |at: usize, labels: &mut Option<Labels>| *labels = Some(source.labels(at));
        self.for_each_with(source, (expr, grid), read, |at, column, labels| {
            let Some(labels) = labels.take().filter(|_| !column.is_empty()) else { return Ok(()) };
            self.account.hold(column.samples(), column.heap_bytes(), expr)?;
            out.push(Series { labels, drop_name: source.drop_name(at), column: std::mem::take(column) });
            Ok(())
        })?;
        Ok(out)
    }

    /// Hands the values of each series of `source` to `fold`; see [`Evaluator::for_each_with`].
    pub(crate) fn for_each(
        &self,
        source: &dyn Source,
        at: (&Expr, Grid),
        mut fold: impl FnMut(usize, &mut Column) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        self.for_each_with(source, at, |_, _: &mut ()| {}, |series, column, ()| fold(series, column))
    }

    /// Computes the series of `source` batch by batch on all workers, and hands each to `fold` in
    /// their order, with what `prepare` made of those that have values. So whatever is folded does not depend on
    /// the number of workers. While one batch is folded, the next is computed.
    pub(crate) fn for_each_with<T: Clone + Default + Send>(
        &self,
        source: &dyn Source,
        (expr, grid): (&Expr, Grid),
        prepare: impl Fn(usize, &mut T) + Sync,
        mut fold: impl FnMut(usize, &mut Column, &mut T) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let compute = |at: usize,
                       scratch: &mut Scratch<'_>,
                       (column, more): &mut (Column, T)|
         -> Result<(), QueryError> {
            self.account.check_at(at)?;
            source.compute(at, scratch, column)?;
            if !column.is_empty() {
                prepare(at, more);
            }
            Ok(())
        };
        let cells = source.len().saturating_mul(grid.count);
        let pool = self.pool.filter(|pool| pool.current_num_threads() > 1 && cells > ALONE_MAX);
        let Some(pool) = pool else {
            let (mut scratch, mut item) = (Scratch::new(self.account), (Column::default(), T::default()));
            for at in 0..source.len() {
                compute(at, &mut scratch, &mut item)?;
                fold(at, &mut item.0, &mut item.1)?;
            }
            return Ok(());
        };
        // Of very long columns only a few fit.
        let batch = (CELLS / grid.count).clamp(1, BATCH_MAX).min(source.len());
        let bytes = 2 * batch * grid.count * size_of::<f64>();
        self.account.hold(0, bytes, expr)?;
        let compute_all = |first: usize, items: &mut [(Column, T)]| {
            let count = items.len().min(source.len() - first);
            items[..count].par_iter_mut().enumerate().with_min_len(16).try_for_each_init(
                || Scratch::new(self.account),
                |scratch, (at, item)| compute(first + at, scratch, item),
            )
        };
        let mut now = vec![(Column::default(), T::default()); batch];
        let mut next = now.clone();
        pool.install(|| compute_all(0, &mut now))?;
        for first in (0..source.len()).step_by(batch) {
            let mut computed = Ok(());
            let folded = pool.in_place_scope(|scope| {
                if first + batch < source.len() {
                    let (next, computed, compute_all) = (&mut next, &mut computed, &compute_all);
                    scope.spawn(move |_| *computed = compute_all(first + batch, next));
                }
                let mut items = now.iter_mut().take(source.len() - first).enumerate();
                items.try_for_each(|(at, (column, more))| {
                    self.account.check_at(at)?;
                    fold(first + at, column, more)
                })
            });
            folded?;
            computed?;
            std::mem::swap(&mut now, &mut next);
        }
        self.account.release(0, bytes);
        Ok(())
    }

    /// How many workers the pool has.
    pub(crate) fn workers(&self) -> usize {
        self.pool.map_or(0, rayon::ThreadPool::current_num_threads)
    }

    /// The book of the query.
    pub(crate) fn account(&self) -> &'a Account<'a> {
        self.account
    }

    /// Books the memory of `series`.
    pub(crate) fn hold(&self, series: &[Series], expr: &Expr) -> Result<(), QueryError> {
        let (samples, bytes) = self.weight(series)?;
        self.account.hold(samples, bytes, expr)
    }

    /// Gives the memory of `series` back. What a cancelled query holds goes back with its account.
    pub(crate) fn release(&self, series: &[Series]) {
        if let Ok((samples, bytes)) = self.weight(series) {
            self.account.release(samples, bytes);
        }
    }

    /// Samples and bytes of series.
    fn weight(&self, series: &[Series]) -> Result<(usize, usize), QueryError> {
        self.account.watched(series).try_fold((0, 0), |(samples, bytes), series| {
            let column = &series?.column;
            Ok((samples + column.samples(), bytes + column.heap_bytes()))
        })
    }

    /// Counts a series of which one sample was taken since `since`.
    pub(crate) fn count_newest(&self, expr: &Expr, since: Option<Instant>, desk: &mut Desk<'_>) {
        desk.read(1);
        if let (Some(tally), Some(since)) = (&self.tally, since) {
            tally.add(expr.span, since, (1, 1, 0));
        }
    }

    /// Books `samples` and `bytes` for `expr`.
    pub(crate) fn hold_bytes(&self, samples: usize, bytes: usize, expr: &Expr) -> Result<(), QueryError> {
        self.account.hold(samples, bytes, expr)
    }

    /// Gives `samples` and `bytes` back.
    pub(crate) fn release_bytes(&self, samples: usize, bytes: usize) {
        self.account.release(samples, bytes);
    }

    /// The series of a selector with samples in `range`, and perhaps more; and whether no two of them can
    /// become equal when their names go.
    fn select(
        &self,
        expr: &Expr,
        selector: &Selector,
        range: TimeRange,
    ) -> Result<(Arc<dyn SeriesSet + '_>, bool), QueryError> {
        self.account.check()?;
        if let Some(shared) = self.shared.iter().find(|shared| shared.serves(&selector.matchers, range)) {
            let set = Arc::clone(&shared.set) as Arc<dyn SeriesSet + '_>;
            let fixed = is_name_fixed(selector, set.as_ref(), shared.unordered);
            return Ok((set, fixed));
        }
        let selection = Selection::new(&selector.matchers, range).until(self.account.cancelled());
        let unordered = self.unordered.contains(&expr.span.start);
        let set: Arc<dyn SeriesSet + '_> = Arc::from(if unordered {
            self.querier.select_unordered(&selection)?
        } else {
            self.querier.select(&selection)?
        });
        let fixed = is_name_fixed(selector, set.as_ref(), unordered);
        Ok((set, fixed))
    }

    /// Reads the samples of one series.
    fn read(
        &self,
        expr: &Expr,
        set: &dyn SeriesSet,
        at: usize,
        range: TimeRange,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), QueryError> {
        let into = &mut scratch.samples;
        let since = self.tally.as_ref().map(|_| Instant::now());
        set.samples(at, range, into)?;
        scratch.desk.read(into.len());
        if let (Some(tally), Some(since)) = (&self.tally, since) {
            tally.add(expr.span, since, (1, into.len(), into.heap_bytes()));
        }
        if self.detecting.contains(&expr.span.start) {
            detect::resets(into);
        }
        scratch.desk.hold(range::sample_count(into), into.heap_bytes(), expr)
    }

    fn instant_selector<'s>(
        &'s self,
        expr: &'s Expr,
        selector: &Selector,
        grid: Grid,
        yields: Yield,
    ) -> Result<BoxSource<'s>, QueryError> {
        let counts_steps = self.counts_steps(grid);
        let (mut grid, range) = self.times.instant(selector, grid)?;
        let mut lookback_ms = self.times.lookback_ms;
        let (set, names_unique) = self.select(expr, selector, range)?;
        if let (Some(at), Some(_)) = (selector.at, &selector.offset)
            && yields != Yield::Value
        {
            // With both, the reference reads the time moved by the offset, but looks at it from the pinned
            // one: it sees what both see.
            let pinned = self.times.at_ms(at);
            lookback_ms = lookback_ms.saturating_sub(grid.start.saturating_sub(pinned).saturating_abs());
            grid.start = grid.start.min(pinned);
        }
        if selector.extension == Some(Extension::Smoothed) {
            return Ok(Box::new(SmoothedSelector {
                evaluator: self,
                expr,
                set,
                grid,
                range,
                lookback_ms,
                names_unique,
            }));
        }
        Ok(Box::new(InstantSelector {
            evaluator: self,
            expr,
            set,
            grid,
            lookback_ms,
            yields,
            names_unique,
            counts_steps,
        }))
    }
}

/// Whether no two series of `selector` can become equal when their names go. Type and unit go with the
/// name; they sort right behind it, so the first and the last series tell whether there are any.
fn is_name_fixed(selector: &Selector, set: &dyn SeriesSet, unordered: bool) -> bool {
    if !selector.matchers.iter().any(|m| *m.name == *METRIC_NAME && m.op == MatchOp::Equal) {
        return false;
    }
    if unordered {
        return !source::DESCRIPTIONS.iter().any(|name| set.may_have_label(name));
    }
    let mut described = false;
    for at in [0, set.len().saturating_sub(1)].into_iter().filter(|at| *at < set.len()) {
        set.visit_labels(at, &mut |name, _| described |= source::DESCRIPTIONS.contains(&name));
    }
    !described
}

/// Whether the series of an expression are computed one at a time.
pub(crate) fn is_streamed(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Binary(binary) => !binary::is_between_vectors(binary),
        ExprKind::Call(call) => !call::is_whole(call),
        _ => true,
    }
}

/// The text of a string expression.
pub(crate) fn text(expr: &Expr) -> Result<&str, QueryError> {
    match &expr.unwrapped().kind {
        ExprKind::String(text) => Ok(text),
        _ => Err(misplaced(expr)),
    }
}

/// An expression that stands where the parser lets none of its type stand.
pub(crate) fn misplaced(expr: &Expr) -> QueryError {
    QueryError::Execution(format!("unexpected expression of type {}: {expr}", expr.value_type().documented()))
}
