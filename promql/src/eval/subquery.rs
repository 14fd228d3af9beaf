//! Range vectors: selectors with a range, and subqueries.

use std::sync::Arc;

use model::{Histogram, ResetHint, Samples};

use super::grid::Grid;
use super::range::{Input, Windows};
use super::source::{Series, have_one_name};
use super::{Evaluator, misplaced};
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
                let windows = self.times.windows(matrix, grid)?;
                let range = windows.reach();
                let (set, names_unique) = self.select(expr, selector, range)?;
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
        let (windows, inner) = self.times.subquery(subquery, expr, grid)?;
        let series = match inner {
            Some(inner) => {
                let series = self.vector(&subquery.expr, inner)?;
                let with_samples = |s: &Series| (s.labels.clone(), s.drop_name, to_samples(s, inner));
                let watched = self.account.watched(&series).map(|series| series.map(with_samples));
                let samples = watched.collect::<Result<Vec<_>, _>>()?;
                self.release(&series);
                for item in self.account.watched(&samples) {
                    let (_, _, samples) = item?;
                    self.hold_bytes(super::range::sample_count(samples), samples.heap_bytes(), expr)?;
                }
                samples
            }
            None => Vec::new(),
        };
        let names_unique = have_one_name(series.iter().map(|(labels, _, _)| labels), self.account);
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
