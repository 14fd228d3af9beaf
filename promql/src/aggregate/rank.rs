//! `topk`, `bottomk`, `limitk`, `limit_ratio`: aggregations that pick series.

use std::cmp::Ordering;

use hashbrown::HashMap;
use model::Value;
use xxhash_rust::xxh64::Xxh64;

use super::Aggregation;
use crate::annotations::Site;
use crate::ast::AggregateOp;
use crate::engine::QueryError;
use crate::eval::column::{Column, Point};
use crate::eval::order;
use crate::eval::source::Series;
use crate::limits::Account;

/// A value that has been picked so far.
struct Picked {
    series: usize,
    value: Value,
}

impl Picked {
    fn float(&self) -> f64 {
        match self.value {
            Value::Float(value) => value,
            Value::Histogram(_) => f64::NAN,
        }
    }
}

impl Aggregation<'_> {
    pub(super) fn rank(&self) -> Result<Vec<Series>, QueryError> {
        let op = self.aggregate.op;
        let params = self.param()?;
        let (lowest, highest) = extremes(&params);
        let nothing =
            if op == AggregateOp::LimitRatio { lowest == 0.0 && highest == 0.0 } else { highest < 1.0 };
        if nothing && !params.iter().any(|param| param.is_nan()) {
            // What is picked from is not even looked at, but it may be wrong.
            self.evaluator
                .vector(&self.aggregate.expr, self.grid)
                .map(|series| self.evaluator.release(&series))?;
            return Ok(Vec::new());
        }
        let limits: Vec<usize> = if op == AggregateOp::LimitRatio {
            self.check_ratios(&params)?;
            vec![usize::MAX; self.grid.count]
        } else {
            params.iter().map(|k| count_param(*k)).collect::<Result<_, _>>()?
        };
        let ratios: Vec<f64> = params.iter().map(|ratio| ratio.clamp(-1.0, 1.0)).collect();
        let source = self.evaluator.source(&self.aggregate.expr, self.grid)?;
        // By group, then step: the picked values.
        let mut picked: Vec<Vec<Vec<Picked>>> = Vec::new();
        let mut held = 0;
        let base = self.grid.count * size_of::<Vec<Picked>>();
        self.for_each(source.as_ref(), |group, at, column| {
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
        if matches!(op, AggregateOp::Topk | AggregateOp::Bottomk) {
            for picked in self.account().watched(picked.iter_mut().flatten()) {
                sort(op, picked?, self.account())?;
            }
        }
        let out = self.unfold(picked, labels)?;
        self.evaluator.release_bytes(0, base * groups);
        self.evaluator.release_bytes(held, size_of::<Picked>() * held);
        self.evaluator.hold(&out, self.expr)?;
        Ok(out)
    }

    /// Puts a value among the best; whether there is one more than before.
    fn insert(&self, picked: &mut Vec<Picked>, point: Point<'_>, new: Picked, limit: usize) -> bool {
        if limit == 0 {
            return false;
        }
        let op = self.aggregate.op;
        let Point::Float(value) = point else {
            let text = format!("ignored histogram in {} aggregation", op.as_str());
            self.evaluator.annotations.info(Site::new(self.expr, self.expr), &text);
            return false;
        };
        let heap = Heap { picked, op };
        if heap.picked.len() < limit {
            heap.push(new);
            return true;
        }
        heap.replace_worst(new, value);
        false
    }

    /// Series of the picked values, in order of group and rank.
    fn unfold(
        &self,
        picked: Vec<Vec<Vec<Picked>>>,
        labels: impl Fn(usize) -> (model::Labels, bool),
    ) -> Result<Vec<Series>, QueryError> {
        let mut index: HashMap<usize, usize> = HashMap::new();
        let mut out: Vec<Series> = Vec::new();
        for group in picked {
            for (step, picked) in group.into_iter().enumerate() {
                for picked in self.account().watched(picked) {
                    let Picked { series, value } = picked?;
                    let at = *index.entry(series).or_insert_with(|| {
                        let (labels, drop_name) = labels(series);
                        out.push(Series { labels, drop_name, column: Column::new(self.grid.count) });
                        out.len() - 1
                    });
                    out[at].column.set(step, value);
                }
            }
        }
        Ok(out)
    }

    /// Refuses ratios that are no numbers, and warns of the furthest that are out of bounds.
    fn check_ratios(&self, ratios: &[f64]) -> Result<(), QueryError> {
        if ratios.iter().any(|ratio| ratio.is_nan()) {
            return Err(QueryError::Execution("Ratio value is NaN".to_owned()));
        }
        let (lowest, highest) = extremes(ratios);
        for (ratio, bound) in [(highest, 1.0), (lowest, -1.0)] {
            if ratio * bound > 1.0 {
                let show = model::float::format_general;
                let (ratio, bound) = (show(ratio), show(bound));
                let text = format!("ratio value should be between -1 and 1, got {ratio}, capping to {bound}");
                self.evaluator.annotations.warn(self.param_site(), &text);
            }
        }
        Ok(())
    }
}

/// The best values so far as a binary heap, the worst of them first. Which of equal values stays follows
/// from where the heap has put them, so it is the heap of the reference: what is new goes to the end and
/// rises; what replaces the first sinks.
struct Heap<'a> {
    picked: &'a mut Vec<Picked>,
    op: AggregateOp,
}

impl Heap<'_> {
    /// Whether the value at `a` is worse than that at `b`; NaN is worse than anything.
    fn is_worse(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.picked[a].float(), self.picked[b].float());
        a.is_nan() || if self.op == AggregateOp::Topk { a < b } else { a > b }
    }

    fn push(self, new: Picked) {
        self.picked.push(new);
        let mut at = self.picked.len() - 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if !self.is_worse(at, parent) {
                break;
            }
            self.picked.swap(at, parent);
            at = parent;
        }
    }

    /// Puts `new` in the place of the worst if it is better.
    fn replace_worst(self, new: Picked, value: f64) {
        let worst = self.picked[0].float();
        let better = if self.op == AggregateOp::Topk { worst < value } else { worst > value };
        let replaces_nan = worst.is_nan() && !value.is_nan();
        if !better && !replaces_nan {
            return;
        }
        self.picked[0] = new;
        let mut at = 0;
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            if left >= self.picked.len() {
                break;
            }
            let child = if right < self.picked.len() && self.is_worse(right, left) { right } else { left };
            if !self.is_worse(child, at) {
                break;
            }
            self.picked.swap(at, child);
            at = child;
        }
    }
}

/// The lowest and the highest of some numbers; NaN where there is nothing else.
pub(super) fn extremes(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::NAN, f64::NAN), |(low, high), value| (low.min(*value), high.max(*value)))
}

/// Puts the best first. NaN is last; of equals, the one that the heap had first is first.
fn sort(op: AggregateOp, picked: &mut Vec<Picked>, account: &Account<'_>) -> Result<(), QueryError> {
    order::sort_by(picked, account, |a, b| {
        let (a, b) = (a.float(), b.float());
        let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
        let order = if op == AggregateOp::Topk { order.reverse() } else { order };
        a.is_nan().cmp(&b.is_nan()).then(order)
    })
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
    if k <= -TWO_63 || k >= TWO_63 {
        let shown = model::float::format_general(k);
        let way = if k < 0.0 { "underflows" } else { "overflows" };
        return Err(QueryError::Execution(format!("Scalar value {shown} {way} int64")));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= k < 2^63")]
    Ok(if k < 1.0 { 0 } else { k as usize })
}

/// Where a series lies between 0 and 1, by the hash of its labels. Which series a ratio picks is seen by
/// users, so the hash is that of the reference: xxHash64 over names and values, each behind its length in
/// one byte, or in three behind a byte 255.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more bits than a float has")]
fn share(labels: &model::Labels) -> f64 {
    let mut hasher = Xxh64::new(0);
    for text in labels.iter().flat_map(|(name, value)| [name, value]) {
        let length = text.len().to_le_bytes();
        if text.len() < 255 {
            hasher.update(&length[..1]);
        } else {
            hasher.update(&[255, length[0], length[1], length[2]]);
        }
        hasher.update(text.as_bytes());
    }
    hasher.digest() as f64 / u64::MAX as f64
}

/// Whether a series belongs to the part that `ratio` asks for; a negative one asks for what its
/// complement leaves.
fn is_in_ratio(ratio: f64, share: f64) -> bool {
    ratio >= 0.0 && share < ratio || ratio < 0.0 && share >= 1.0 + ratio
}
