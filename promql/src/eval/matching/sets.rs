//! `and`, `or`, `unless`.

use model::stale_nan;

use super::{Group, Results, groups};
use crate::ast::{BinaryOp, Matching};
use crate::engine::QueryError;
use crate::eval::column::Column;
use crate::eval::grid::Grid;
use crate::eval::source::Series;

/// Combines two sets of series; labels stay as they are.
pub(super) fn combine(
    op: BinaryOp,
    matching: &Matching,
    mut left: Vec<Series>,
    mut right: Vec<Series>,
    grid: Grid,
) -> Result<Vec<Series>, QueryError> {
    let groups = groups(&left, &right, matching);
    let has_value = |side: &[Series], members: &[usize]| -> Vec<bool> {
        (0..grid.count).map(|step| members.iter().any(|at| side[*at].column.get(step).is_some())).collect()
    };
    if op == BinaryOp::Or {
        for (_, Group { many, one }) in groups.iter().filter(|(_, g)| !g.many.is_empty()) {
            let hidden = if one.is_empty() { continue } else { has_value(&left, many) };
            for at in one {
                keep(&mut right[*at].column, |step| !hidden[step]);
            }
        }
        let mut results = Results::default();
        for series in left.into_iter().chain(right) {
            results.add(series.labels, series.drop_name, series.column)?;
        }
        return Ok(results.series);
    }
    for (_, Group { many, one }) in groups.iter().filter(|(_, g)| !g.many.is_empty()) {
        let present = has_value(&right, one);
        for at in many {
            keep(&mut left[*at].column, |step| present[step] == (op == BinaryOp::And));
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
