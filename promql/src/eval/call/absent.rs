//! `absent` and `absent_over_time`.

use model::{Labels, LabelsBuilder, METRIC_NAME, MatchOp, Matcher};

use super::super::column::Column;
use super::super::grid::Grid;
use super::super::range::{RangeFunction, Ranged};
use super::super::source::{NameRule, Series};
use crate::annotations::Site;
use crate::ast::{Expr, ExprKind};
use crate::engine::QueryError;
use crate::eval::Evaluator;

impl Evaluator<'_> {
    /// One where `expr` has no series.
    pub(super) fn absent(&self, expr: &Expr, grid: Grid) -> Result<Vec<Series>, QueryError> {
        let mut seen = vec![false; grid.count];
        let source = self.source(expr, grid)?;
        self.for_each(source.as_ref(), (expr, grid), |_, column| {
            note(column, &mut seen);
            Ok(())
        })?;
        Ok(gaps(&seen, expected_labels(expr)))
    }

    /// One where the range vector `expr` has no samples.
    pub(super) fn absent_over_time(&self, expr: &Expr, grid: Grid) -> Result<Vec<Series>, QueryError> {
        let arg = expr.unwrapped();
        let vector = self.range_vector(arg, grid)?;
        let present: RangeFunction<'_> = Box::new(|_, _| Some(model::Value::Float(1.0)));
        let source = Ranged {
            evaluator: self,
            expr: arg,
            at: Site::new(arg, arg),
            input: vector.input,
            names_unique: vector.names_unique,
            windows: vector.windows,
            code: present.into(),
            name: NameRule::Keep,
        };
        let mut seen = vec![false; grid.count];
        self.for_each(&source, (expr, grid), |_, column| {
            note(column, &mut seen);
            Ok(())
        })?;
        Ok(gaps(&seen, expected_labels(arg)))
    }
}

fn note(column: &Column, seen: &mut [bool]) {
    for (step, seen) in seen.iter_mut().enumerate() {
        *seen |= column.get(step).is_some();
    }
}

fn gaps(seen: &[bool], labels: Labels) -> Vec<Series> {
    let mut column = Column::new(seen.len());
    for (step, _) in seen.iter().enumerate().filter(|(_, seen)| !**seen) {
        column.set_float(step, 1.0);
    }
    if column.is_empty() { Vec::new() } else { vec![Series { labels, drop_name: false, column }] }
}

/// The labels that the missing series would have had, as far as the selector tells: the first `=` on a label
/// sets it; whatever else comes later on the same label takes it away. The order is that in which the
/// reference's store has left the matchers: first those that select series, then those that take some away.
fn expected_labels(expr: &Expr) -> Labels {
    let matchers: &[Matcher] = match &expr.kind {
        ExprKind::Vector(selector) => &selector.matchers,
        ExprKind::Matrix(matrix) => &matrix.selector.matchers,
        _ => return Labels::empty(),
    };
    let mut labels = LabelsBuilder::new();
    let mut set: Vec<&str> = Vec::new();
    let is_required = |name: &str| matchers.iter().any(|m| *m.name == *name && !m.matches_empty());
    let selects = |m: &&Matcher| {
        let negative = matches!(m.op, MatchOp::NotEqual | MatchOp::NotRegex);
        is_required(&m.name) && !(negative && m.matches_empty())
    };
    let (selecting, subtracting): (Vec<&Matcher>, Vec<&Matcher>) = matchers.iter().partition(selects);
    for matcher in selecting.into_iter().chain(subtracting).filter(|m| *m.name != *METRIC_NAME) {
        if matcher.op == MatchOp::Equal && !set.contains(&&*matcher.name) {
            labels.set(&matcher.name, &matcher.value);
            set.push(&matcher.name);
        } else {
            labels.remove(&matcher.name);
        }
    }
    labels.build()
}
