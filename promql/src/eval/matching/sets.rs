//! `and`, `or`, `unless`.

use model::stale_nan;

use super::{Group, Results, groups};
use crate::ast::{Binary, BinaryOp};
use crate::engine::QueryError;
use crate::eval::column::Column;
use crate::eval::grid::Grid;
use crate::eval::source::Series;
use crate::limits::Account;

/// Combines two sets of series; labels stay as they are.
pub(super) fn combine(
    Binary { op, matching, .. }: &Binary,
    (mut left, mut right): (Vec<Series>, Vec<Series>),
    grid: Grid,
    account: &Account<'_>,
) -> Result<Vec<Series>, QueryError> {
    let groups = groups(&left, &right, matching, account)?;
    let has_value = |side: &[Series], members: &[usize]| -> Result<Vec<bool>, QueryError> {
        let any = |step| members.iter().any(|at| side[*at].column.get(step).is_some());
        account.watched(0..grid.count).map(|step| step.map(any)).collect()
    };
    if *op == BinaryOp::Or {
        for group in account.watched(groups.iter().filter(|(_, g)| !g.many.is_empty())) {
            let (_, Group { many, one }) = group?;
            let hidden = if one.is_empty() { continue } else { has_value(&left, many)? };
            for at in account.watched(one) {
                keep(&mut right[*at?].column, |step| !hidden[step]);
            }
        }
        let mut results = Results::default();
        for series in account.watched(left.into_iter().chain(right)) {
            let series = series?;
            results.add(series.labels, series.drop_name, series.column)?;
        }
        return Ok(results.series);
    }
    for group in account.watched(groups.iter().filter(|(_, g)| !g.many.is_empty())) {
        let (_, Group { many, one }) = group?;
        let present = has_value(&right, one)?;
        for at in account.watched(many) {
            keep(&mut left[*at?].column, |step| present[step] == (*op == BinaryOp::And));
        }
    }
    left.retain(|series| !series.column.is_empty());
    Ok(left)
}

/// Empties the cells for which `wanted` is false.
fn keep(column: &mut Column, wanted: impl Fn(usize) -> bool) {
    if column.histograms().is_empty() {
        column.map_floats(|step, value| Some(if wanted(step) { value } else { stale_nan() }));
    } else {
        column.map(|step, point| wanted(step).then(|| point.to_value()));
    }
}
