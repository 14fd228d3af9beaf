//! Times: `@`, `offset`, computed durations, and what does not change from step to step.

use model::{TimeRange, Timestamp};

use super::grid::{Grid, STEPS_MAX};
use super::range::Windows;
use crate::ast::{At, BinaryOp, Duration, Expr, ExprKind, Extension, MatrixSelector, Selector, Subquery};
use crate::engine::QueryError;
use crate::functions::Function;

/// What the times in a query refer to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// The grid of the whole query: what `@ start()`, `step()` and the like refer to.
    pub(crate) query: Grid,
    /// The end that was asked for; the last step may lie before it.
    pub(crate) end: Timestamp,
    pub(crate) lookback_ms: i64,
    pub(crate) subquery_step_ms: i64,
}

impl Times {
    /// The steps of an instant selector, and the time that is read for them.
    pub(crate) fn instant(&self, selector: &Selector, grid: Grid) -> Result<(Grid, TimeRange), QueryError> {
        let grid = self.moved(grid, selector.at, selector.offset.as_ref())?;
        let from = grid.start.saturating_sub(self.lookback_ms).saturating_add(1);
        let smoothed = selector.extension == Some(Extension::Smoothed);
        let ahead = if smoothed { self.lookback_ms } else { 0 };
        Ok((grid, TimeRange::new(from, grid.end().saturating_add(ahead))))
    }

    /// The windows of a range selector.
    pub(crate) fn windows(&self, matrix: &MatrixSelector, grid: Grid) -> Result<Windows, QueryError> {
        let selector = &matrix.selector;
        Ok(Windows {
            times: grid,
            edges: self.moved(grid, selector.at, selector.offset.as_ref())?,
            range_ms: self.positive_ms(&matrix.range)?,
            extension: selector.extension,
            lookback_ms: self.lookback_ms,
        })
    }

    /// The windows of a subquery, and the steps at which its expression is evaluated.
    pub(crate) fn subquery(
        &self,
        subquery: &Subquery,
        expr: &Expr,
        grid: Grid,
    ) -> Result<(Windows, Option<Grid>), QueryError> {
        let edges = self.moved(grid, subquery.at, subquery.offset.as_ref())?;
        let range_ms = self.positive_ms(&subquery.range)?;
        let step_ms = match &subquery.step {
            Some(step) => self.positive_ms(step)?,
            None => self.subquery_step_ms,
        };
        let after = edges.start.saturating_sub(range_ms);
        let inner = Grid::aligned(after, edges.end(), step_ms).map_err(|_| QueryError::Limit {
            what: "evaluate a subquery at too many steps",
            limit: "subquery_steps_max",
            allowed: STEPS_MAX.unsigned_abs(),
            expr: expr.to_string(),
        })?;
        let lookback_ms = self.lookback_ms;
        Ok((Windows { times: grid, edges, range_ms, extension: None, lookback_ms }, inner))
    }

    /// `grid` moved by the modifiers of a selector. With `@` all steps read the same time, and the
    /// callers have seen to it that there is only one step, or that the function needs them all.
    pub(crate) fn moved(
        &self,
        grid: Grid,
        at: Option<At>,
        offset: Option<&Duration>,
    ) -> Result<Grid, QueryError> {
        let offset = offset.map_or(Ok(0), |offset| self.duration_ms(offset))?;
        let (start, step) = match at {
            Some(at) => (self.at_ms(at), 0),
            None => (grid.start, grid.step),
        };
        Ok(Grid { start: start.saturating_sub(offset), step, count: grid.count })
    }

    pub(crate) fn at_ms(&self, at: At) -> i64 {
        match at {
            At::Time(ms) => ms,
            At::Start => self.query.start,
            At::End => self.end,
        }
    }

    /// Step and length of the whole query in seconds, as `step()` and `range()` give them.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds in seconds, as floats")]
    pub(crate) fn step_and_range(&self) -> (f64, f64) {
        let range = self.end - self.query.start;
        (self.query.step as f64 / 1000.0, range as f64 / 1000.0)
    }

    /// A duration in milliseconds.
    pub(crate) fn duration_ms(&self, duration: &Duration) -> Result<i64, QueryError> {
        let seconds = self.seconds(duration)?;
        // A duration has 63 bits of nanoseconds.
        if seconds.is_nan() || seconds.abs() >= 9.223_372_036_854_775e9 {
            return Err(QueryError::Execution("duration is out of range".to_owned()));
        }
        #[expect(clippy::cast_possible_truncation, reason = "the bound was checked")]
        let nanoseconds = (seconds * 1e9).round() as i64;
        Ok(nanoseconds / 1_000_000)
    }

    /// A range or step in milliseconds, which must be above zero.
    pub(crate) fn positive_ms(&self, duration: &Duration) -> Result<i64, QueryError> {
        match self.duration_ms(duration)? {
            ms @ 1.. => Ok(ms),
            _ => Err(QueryError::Execution("duration must be greater than 0".to_owned())),
        }
    }

    fn seconds(&self, duration: &Duration) -> Result<f64, QueryError> {
        crate::stack::guarded(|| self.seconds_of(duration))
    }

    fn seconds_of(&self, duration: &Duration) -> Result<f64, QueryError> {
        Ok(match duration {
            Duration::Number(number) => number.value,
            Duration::Step => self.step_and_range().0,
            Duration::Range => self.step_and_range().1,
            Duration::Negative(inner) => -self.seconds(inner)?,
            Duration::Paren(inner) => self.seconds(inner)?,
            Duration::MinOf(pair) => self.seconds(&pair.0)?.min(self.seconds(&pair.1)?),
            Duration::MaxOf(pair) => self.seconds(&pair.0)?.max(self.seconds(&pair.1)?),
            Duration::Binary(op, pair) => {
                let (left, right) = (self.seconds(&pair.0)?, self.seconds(&pair.1)?);
                if right == 0.0 && matches!(op, BinaryOp::Div | BinaryOp::Mod) {
                    let what = if *op == BinaryOp::Div { "division by zero" } else { "modulo by zero" };
                    return Err(QueryError::Execution(what.to_owned()));
                }
                super::binary::scalars(*op, left, right)
            }
        })
    }
}

/// Whether an expression has the same value at every step: all its selectors are pinned by `@`, and
/// it calls nothing that looks at the time of evaluation.
pub(crate) fn is_constant(expr: &Expr) -> bool {
    crate::stack::guarded(|| is_constant_kind(expr))
}

fn is_constant_kind(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => true,
        ExprKind::Vector(selector) => selector.at.is_some(),
        ExprKind::Matrix(matrix) => matrix.selector.at.is_some(),
        ExprKind::Subquery(subquery) => subquery.at.is_some(),
        ExprKind::Paren(inner) => is_constant(inner),
        ExprKind::Unary(unary) => is_constant(&unary.expr),
        // Chains are high at their left.
        ExprKind::Binary(binary) => is_constant(&binary.right) && is_constant(&binary.left),
        ExprKind::Aggregate(aggregate) => {
            is_constant(&aggregate.expr) && aggregate.param.as_ref().is_none_or(is_constant)
        }
        ExprKind::Call(call) => {
            !looks_at_time(call.function, call.args.len()) && call.args.iter().all(is_constant)
        }
    }
}

fn looks_at_time(function: Function, args: usize) -> bool {
    match function {
        Function::Time | Function::Timestamp | Function::PredictLinear => true,
        // Without an argument they look at the time of evaluation.
        Function::Minute
        | Function::Hour
        | Function::DayOfWeek
        | Function::DayOfMonth
        | Function::DayOfYear
        | Function::DaysInMonth
        | Function::Month
        | Function::Year => args == 0,
        _ => false,
    }
}
