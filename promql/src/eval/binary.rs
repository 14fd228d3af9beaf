//! Binary operators on values.

use model::Value;

use super::Evaluator;
use super::column::{Column, Point};
use super::grid::Grid;
use super::source::{BoxSource, ColumnMap, NameRule};
use crate::annotations::Site;
use crate::ast::{Binary, BinaryOp, Expr, ValueType};
use crate::engine::QueryError;
use crate::histogram;

/// Whether both sides are vectors.
pub(super) fn is_between_vectors(binary: &Binary) -> bool {
    // Chains are high at their left.
    binary.right.value_type() == ValueType::Vector && binary.left.value_type() == ValueType::Vector
}

/// Whether the operator cuts histograms.
pub(super) fn is_trim(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper)
}

/// The operator on numbers; comparisons yield 1 or 0.
pub(super) fn scalars(op: BinaryOp, left: f64, right: f64) -> f64 {
    let truth = |holds| if holds { 1.0 } else { 0.0 };
    match op {
        BinaryOp::Add => left + right,
        BinaryOp::Sub => left - right,
        BinaryOp::Mul => left * right,
        BinaryOp::Div => left / right,
        BinaryOp::Mod => left % right,
        BinaryOp::Pow => power(left, right),
        BinaryOp::Atan2 => left.atan2(right),
        op => truth(compares(op, left, right)),
    }
}

/// `x^y`, with 1 for `1^NaN` and `x^0`, as IEEE 754 and Go have it.
fn power(left: f64, right: f64) -> f64 {
    if left == -1.0 && right.is_infinite() { 1.0 } else { left.powf(right) }
}

#[expect(clippy::float_cmp, reason = "the language compares exactly")]
fn compares(op: BinaryOp, left: f64, right: f64) -> bool {
    match op {
        BinaryOp::Equal => left == right,
        BinaryOp::NotEqual => left != right,
        BinaryOp::Greater => left > right,
        BinaryOp::Less => left < right,
        BinaryOp::GreaterEqual => left >= right,
        BinaryOp::LessEqual => left <= right,
        _ => false,
    }
}

/// Changes the sign of all values; a negated histogram is a gauge.
pub(super) fn negate(column: &mut Column) {
    if column.histograms().is_empty() {
        column.map_floats(|_, value| Some(-value));
    } else {
        column.map(|_, point| match point {
            Point::Float(value) => Some(Value::Float(-value)),
            Point::Histogram(h) => Some(Value::Histogram(histogram::scaled(h, -1.0).into())),
        });
    }
}

/// The operator on two values, and what there is to say about it.
pub(super) struct Operation<'a> {
    pub(super) evaluator: &'a Evaluator<'a>,
    pub(super) op: BinaryOp,
    pub(super) bool_modifier: bool,
    /// Where the operation stands.
    pub(super) at: Site,
}

impl Operation<'_> {
    /// Whether the operation filters rather than computes.
    pub(super) fn filters(&self) -> bool {
        self.op.is_comparison() && !self.bool_modifier
    }

    /// The operator on floats; a filter yields `kept` if it holds.
    #[inline]
    pub(super) fn floats(&self, left: f64, right: f64, kept: f64) -> Option<f64> {
        if !self.op.is_comparison() {
            return Some(scalars(self.op, left, right));
        }
        let holds = compares(self.op, left, right);
        if self.bool_modifier { Some(if holds { 1.0 } else { 0.0 }) } else { holds.then_some(kept) }
    }

    /// The operator on values of any kind. `kept_right` says which of them a filter yields.
    pub(super) fn points(&self, left: Point<'_>, right: Point<'_>, kept_right: bool) -> Option<Value> {
        match (left, right) {
            (Point::Float(l), Point::Float(r)) if !self.trims() => {
                self.floats(l, r, if kept_right { r } else { l }).map(Value::Float)
            }
            _ => {
                let result = histogram::binary(self, left, right);
                match result {
                    histogram::Outcome::Value(value) => Some(value),
                    histogram::Outcome::Truth(holds) if self.bool_modifier => {
                        Some(Value::Float(if holds { 1.0 } else { 0.0 }))
                    }
                    histogram::Outcome::Truth(holds) => {
                        holds.then(|| if kept_right { right.to_value() } else { left.to_value() })
                    }
                    histogram::Outcome::Nothing => None,
                }
            }
        }
    }

    pub(super) fn trims(&self) -> bool {
        is_trim(self.op)
    }
}

impl histogram::BinaryRemarks for Operation<'_> {
    fn op(&self) -> BinaryOp {
        self.op
    }

    fn warn(&self, text: &str) {
        self.evaluator.annotations.warn(self.at, text);
    }

    fn info(&self, text: &str) {
        self.evaluator.annotations.info(self.at, text);
    }
}

impl Evaluator<'_> {
    pub(super) fn operation(&self, binary: &Binary, expr: &Expr) -> Operation<'_> {
        Operation {
            evaluator: self,
            op: binary.op,
            bool_modifier: binary.bool_modifier,
            at: Site::new(expr, expr),
        }
    }

    /// An operation of which one side is a scalar.
    pub(super) fn binary_with_scalar<'s>(
        &'s self,
        binary: &'s Binary,
        expr: &'s Expr,
        grid: Grid,
    ) -> Result<BoxSource<'s>, QueryError> {
        let scalar_left = binary.left.value_type() == ValueType::Scalar;
        let (vector, scalar) =
            if scalar_left { (&binary.right, &binary.left) } else { (&binary.left, &binary.right) };
        let inner = self.source(vector, grid)?;
        let numbers = self.scalar(scalar, grid)?;
        let operation = self.operation(binary, expr);
        let name = if operation.filters() || operation.trims() { NameRule::Keep } else { self.drop_rule() };
        let map: ColumnMap<'s> = Box::new(move |column| {
            if column.histograms().is_empty() && !operation.trims() {
                column.map_floats(|step, value| match scalar_left {
                    true => operation.floats(numbers[step], value, value),
                    false => operation.floats(value, numbers[step], value),
                });
                return;
            }
            column.map(|step, point| {
                let number = Point::Float(numbers[step]);
                if scalar_left {
                    operation.points(number, point, true)
                } else {
                    operation.points(point, number, false)
                }
            });
        });
        self.mapped(inner, name, map, (expr, grid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_ieee_and_go() {
        assert_eq!(scalars(BinaryOp::Mod, -7.0, 3.0), -1.0);
        assert_eq!(scalars(BinaryOp::Mod, 7.0, -3.0), 1.0);
        assert!(scalars(BinaryOp::Mod, 1.0, 0.0).is_nan());
        assert_eq!(scalars(BinaryOp::Div, 1.0, 0.0), f64::INFINITY);
        assert_eq!(scalars(BinaryOp::Pow, 1.0, f64::NAN), 1.0);
        assert_eq!(scalars(BinaryOp::Pow, -1.0, f64::INFINITY), 1.0);
        assert_eq!(scalars(BinaryOp::Equal, f64::NAN, f64::NAN), 0.0);
    }
}
