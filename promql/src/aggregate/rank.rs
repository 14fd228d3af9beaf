//! `topk`, `bottomk`, `limitk`, `limit_ratio`: aggregations that pick series.

use std::cmp::Ordering;

use hashbrown::HashMap;
use model::Value;

use super::Aggregation;
use super::group::Groups;
use crate::ast::AggregateOp;
use crate::engine::QueryError;
use crate::eval::column::{Column, Point};
use crate::eval::source::Series;
use crate::histogram::total::Remarks as _;

/// A value that has been picked so far.
struct Picked {
    series: usize,
    value: Value,
}

/// Whether `a` ranks before `b`. NaN ranks last; of equals, the earlier series ranks first.
fn ranks(op: AggregateOp, a: f64, b: f64) -> Ordering {
    let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
    let order = if op == AggregateOp::Topk { order.reverse() } else { order };
    a.is_nan().cmp(&b.is_nan()).then(order)
}

impl Aggregation<'_> {
    pub(super) fn rank(&self) -> Result<Vec<Series>, QueryError> {
        let op = self.aggregate.op;
        let params = self.param()?;
        let limits: Vec<usize> = if op == AggregateOp::LimitRatio {
            self.check_ratios(&params)?;
            vec![usize::MAX; self.grid.count]
        } else {
            params.iter().map(|k| count_param(*k)).collect::<Result<_, _>>()?
        };
        let ratios: Vec<f64> = params.iter().map(|ratio| ratio.clamp(-1.0, 1.0)).collect();
        let source = self.evaluator.source(&self.aggregate.expr, self.grid)?;
        let mut groups = Groups::new(self.aggregate);
        // By group, then step: the picked values in order of rank.
        let mut picked: Vec<Vec<Vec<Picked>>> = Vec::new();
        let mut held = 0;
        let base = self.grid.count * size_of::<Vec<Picked>>();
        self.evaluator.for_each(source.as_ref(), (self.expr, self.grid), |at, column| {
            if column.is_empty() {
                return Ok(());
            }
            let group = groups.of(source.as_ref(), at);
            if group == picked.len() {
                self.evaluator.hold_bytes(0, base, self.expr)?;
                picked.push((0..self.grid.count).map(|_| Vec::new()).collect());
            }
            let share = if op == AggregateOp::LimitRatio { share(&source.labels(at)) } else { 0.0 };
            let before = held;
            for (step, picked) in picked[group].iter_mut().enumerate() {
                let Some(point) = column.get(step) else { continue };
                let candidate = Picked { series: at, value: point.to_value() };
                held += match op {
                    AggregateOp::Limitk => usize::from(limit(picked, candidate, limits[step])),
                    AggregateOp::LimitRatio => {
                        let taken = is_in_ratio(ratios[step], share);
                        if taken {
                            picked.push(candidate);
                        }
                        usize::from(taken)
                    }
                    _ => usize::from(self.insert(picked, point, candidate, limits[step])),
                };
            }
            self.evaluator.hold_bytes(held - before, size_of::<Picked>() * (held - before), self.expr)
        })?;
        let labels = |at| (source.labels(at), source.drop_name(at));
        let groups = picked.len();
        let out = unfold(picked, self.grid.count, labels);
        self.evaluator.release_bytes(0, base * groups);
        self.evaluator.release_bytes(held, size_of::<Picked>() * held);
        self.evaluator.hold(&out, self.expr)?;
        Ok(out)
    }

    /// Puts a value in its place among the best; whether there is one more than before.
    fn insert(&self, picked: &mut Vec<Picked>, point: Point<'_>, new: Picked, limit: usize) -> bool {
        let op = self.aggregate.op;
        let Point::Float(value) = point else {
            self.remarks().info(&format!("ignored histogram in {} aggregation", op.as_str()));
            return false;
        };
        let float = |picked: &Picked| match picked.value {
            Value::Float(value) => value,
            Value::Histogram(_) => f64::NAN,
        };
        let at = picked.partition_point(|other| ranks(op, float(other), value) != Ordering::Greater);
        if at >= limit {
            return false;
        }
        let full = picked.len() >= limit;
        if full {
            picked.pop();
        }
        picked.insert(at, new);
        !full
    }

    fn check_ratios(&self, ratios: &[f64]) -> Result<(), QueryError> {
        for ratio in ratios {
            if ratio.is_nan() {
                return Err(QueryError::Execution("Ratio value is NaN".to_owned()));
            }
            if ratio.abs() > 1.0 {
                let show = model::float::format_general;
                let text = format!(
                    "ratio value should be between -1 and 1, got {}, capping to {}",
                    show(*ratio),
                    show(ratio.clamp(-1.0, 1.0))
                );
                self.evaluator.annotations.warn(self.param_position(), &text);
            }
        }
        Ok(())
    }
}

/// Takes a value as long as there is room.
fn limit(picked: &mut Vec<Picked>, new: Picked, limit: usize) -> bool {
    let room = picked.len() < limit;
    if room {
        picked.push(new);
    }
    room
}

/// The parameter of `topk` and its like as a number of series.
fn count_param(k: f64) -> Result<usize, QueryError> {
    /// The bound of a signed number of 64 bits.
    const TWO_63: f64 = 9_223_372_036_854_775_808.0;
    if k.is_nan() {
        return Err(QueryError::Execution("Parameter value is NaN".to_owned()));
    }
    if !(-TWO_63..TWO_63).contains(&k) {
        let shown = model::float::format_general(k);
        return Err(QueryError::Execution(format!("Scalar value {shown} overflows int64")));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= k < 2^63")]
    Ok(if k < 1.0 { 0 } else { k as usize })
}

/// Where a series lies between 0 and 1, by the hash of its labels.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more bits than a float has")]
fn share(labels: &model::Labels) -> f64 {
    labels.hash64() as f64 / u64::MAX as f64
}

/// Whether a series belongs to the part that `ratio` asks for; a negative one asks for what its
/// complement leaves.
fn is_in_ratio(ratio: f64, share: f64) -> bool {
    ratio >= 0.0 && share < ratio || ratio < 0.0 && share >= 1.0 + ratio
}

/// Series of the picked values, in order of group and rank.
fn unfold(
    picked: Vec<Vec<Vec<Picked>>>,
    steps: usize,
    labels: impl Fn(usize) -> (model::Labels, bool),
) -> Vec<Series> {
    let mut index: HashMap<usize, usize> = HashMap::new();
    let mut out: Vec<Series> = Vec::new();
    for group in picked {
        for (step, picked) in group.into_iter().enumerate() {
            for Picked { series, value } in picked {
                let at = *index.entry(series).or_insert_with(|| {
                    let (labels, drop_name) = labels(series);
                    out.push(Series { labels, drop_name, column: Column::new(steps) });
                    out.len() - 1
                });
                out[at].column.set(step, value);
            }
        }
    }
    out
}
