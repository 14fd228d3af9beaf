//! Range vectors: selectors with a range, and subqueries.

use std::sync::Arc;

use model::{Histogram, Labels, ResetHint, Samples};

use super::grid::{Grid, STEPS_MAX};
use super::range::{Input, Windows};
use super::source::{Series, goes_with_name};
use super::{Evaluator, is_name_fixed, misplaced};
use crate::ast::{Expr, ExprKind, Subquery};
use crate::engine::QueryError;

/// A range vector, ready to be read window by window.
pub(super) struct RangeVector<'a> {
    pub(super) input: Input<'a>,
    pub(super) windows: Windows,
    pub(super) names_unique: bool,
}

impl Evaluator<'_> {
    /// The range vector of `expr` for each step of `grid`.
    pub(super) fn range_vector<'s>(
        &'s self,
        expr: &'s Expr,
        grid: Grid,
    ) -> Result<RangeVector<'s>, QueryError> {
        match &expr.kind {
            ExprKind::Paren(inner) => self.range_vector(inner, grid),
            ExprKind::Matrix(matrix) => {
                let selector = &matrix.selector;
                let windows = Windows {
                    times: grid,
                    edges: self.moved(grid, selector.at, selector.offset.as_ref())?,
                    range_ms: self.positive_ms(&matrix.range)?,
                    extension: selector.extension,
                    lookback_ms: self.lookback_ms,
                };
                let range = windows.reach();
                let set = self.select(selector, range)?;
                let names_unique = is_name_fixed(selector, set.as_ref());
                Ok(RangeVector { input: Input::Store { set, range }, windows, names_unique })
            }
            ExprKind::Subquery(subquery) => self.subquery(subquery, expr, grid),
            _ => Err(misplaced(expr)),
        }
    }

    fn subquery<'s>(
        &'s self,
        subquery: &'s Subquery,
        expr: &'s Expr,
        grid: Grid,
    ) -> Result<RangeVector<'s>, QueryError> {
        let edges = self.moved(grid, subquery.at, subquery.offset.as_ref())?;
        let range_ms = self.positive_ms(&subquery.range)?;
        let step_ms = match &subquery.step {
            Some(step) => self.positive_ms(step)?,
            None => self.subquery_step_ms,
        };
        let windows =
            Windows { times: grid, edges, range_ms, extension: None, lookback_ms: self.lookback_ms };
        let after = edges.start.saturating_sub(range_ms);
        let inner = Grid::aligned(after, edges.end(), step_ms).map_err(|_| QueryError::Limit {
            what: "evaluate a subquery at too many steps",
            limit: "subquery_steps_max",
            allowed: STEPS_MAX.unsigned_abs(),
            expr: expr.to_string(),
        })?;
        let series = match inner {
            Some(inner) => {
                let series = self.vector(&subquery.expr, inner)?;
                let samples: Vec<_> =
                    series.iter().map(|s| (s.labels.clone(), s.drop_name, to_samples(s, inner))).collect();
                self.release(&series);
                for (_, _, samples) in &samples {
                    self.hold_bytes(super::range::sample_count(samples), samples.heap_bytes(), expr)?;
                }
                samples
            }
            None => Vec::new(),
        };
        let names = |labels: &Labels| labels.filtered(goes_with_name);
        let first = series.first().map(|(labels, _, _)| names(labels));
        let names_unique = series.iter().all(|(labels, _, _)| Some(names(labels)) == first);
        Ok(RangeVector { input: Input::Computed(series), windows, names_unique })
    }
}

/// The values of a series as samples. What was computed has no history: nothing is known about
/// counter resets between its histograms.
fn to_samples(series: &Series, grid: Grid) -> Samples {
    let mut samples = Samples::default();
    for (value, time) in series.column.floats().iter().zip(grid.times()) {
        if !super::column::is_absent(*value) {
            samples.push_float(time, *value);
        }
    }
    for (step, histogram) in series.column.histograms() {
        let histogram = if matches!(histogram.reset_hint, ResetHint::Unknown | ResetHint::Gauge) {
            Arc::clone(histogram)
        } else {
            Arc::new(Histogram { reset_hint: ResetHint::Unknown, ..Histogram::clone(histogram) })
        };
        samples.push_histogram(grid.time(*step), histogram);
    }
    samples
}
