//! Counter resets of histograms that are used for their counts and sums only.
//!
//! A store knows about resets only at the borders of its chunks. Where just the count or the sum of a
//! histogram is asked for, each sample is compared with the one before it, so that an aggregation of
//! series that were reset with series that were not can be remarked on.

use std::sync::Arc;

use model::{FloatHistogram, ResetHint, Samples};

use crate::ast::{Expr, ExprKind};
use crate::functions::Function;
use crate::histogram::is_reset;

/// Where the selectors stand that feed `histogram_count`, `histogram_sum` or `histogram_avg` and nothing that
/// looks at buckets.
pub(crate) fn selectors(expr: &Expr) -> Vec<usize> {
    let mut out = Vec::new();
    visit(expr, false, &mut out);
    out
}

fn visit(expr: &Expr, counted: bool, out: &mut Vec<usize>) {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => {}
        ExprKind::Vector(_) | ExprKind::Matrix(_) => {
            if counted {
                out.push(expr.span.start);
            }
        }
        ExprKind::Subquery(subquery) => visit(&subquery.expr, counted, out),
        ExprKind::Paren(inner) => visit(inner, counted, out),
        ExprKind::Unary(unary) => visit(&unary.expr, counted, out),
        ExprKind::Binary(binary) => {
            visit(&binary.left, counted && !super::binary::is_trim(binary.op), out);
            visit(&binary.right, counted && !super::binary::is_trim(binary.op), out);
        }
        ExprKind::Aggregate(aggregate) => {
            if let Some(param) = &aggregate.param {
                visit(param, false, out);
            }
            visit(&aggregate.expr, counted, out);
        }
        ExprKind::Call(call) => {
            let counted = match call.function {
                Function::HistogramCount | Function::HistogramSum | Function::HistogramAvg => true,
                Function::HistogramQuantile | Function::HistogramQuantiles | Function::HistogramFraction => {
                    false
                }
                _ => counted,
            };
            call.args.iter().for_each(|arg| visit(arg, counted, out));
        }
    }
}

/// Finds out what the hints of `samples` leave open.
pub(super) fn resets(samples: &mut Samples) {
    let mut before: Option<Arc<FloatHistogram>> = None;
    for histogram in samples.histograms.iter_mut().filter(|histogram| !histogram.is_stale()) {
        if let (ResetHint::Unknown, Some(before)) = (histogram.reset_hint, &before) {
            let reset = is_reset(before, histogram);
            let reset_hint = if reset { ResetHint::Reset } else { ResetHint::NotReset };
            *histogram = Arc::new(FloatHistogram { reset_hint, ..FloatHistogram::clone(histogram) });
        }
        before = Some(Arc::clone(histogram));
    }
}
