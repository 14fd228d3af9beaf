//! Binary operators of which one operand at least is a histogram.

use std::sync::Arc;

use model::{FloatHistogram, Value};

use super::{Combined, Incompatible, add, divided, equals, scaled, subtract, trim};
use crate::ast::BinaryOp;
use crate::eval::column::Point;

/// What an operation may say.
pub(crate) trait BinaryRemarks {
    /// The operator.
    fn op(&self) -> BinaryOp;
    /// Warns.
    fn warn(&self, text: &str);
    /// Informs.
    fn info(&self, text: &str);
}

/// What comes out.
pub(crate) enum Outcome {
    Value(Value),
    /// Of a comparison.
    Truth(bool),
    /// The operator has no meaning on these operands.
    Nothing,
}

/// The operator on two operands.
pub(crate) fn binary(remarks: &dyn BinaryRemarks, left: Point<'_>, right: Point<'_>) -> Outcome {
    let op = remarks.op();
    let value = |h: FloatHistogram| Outcome::Value(Value::Histogram(Arc::new(h)));
    match (left, right, op) {
        (Point::Histogram(h), Point::Float(f), BinaryOp::Mul)
        | (Point::Float(f), Point::Histogram(h), BinaryOp::Mul) => value(scaled(h, f)),
        (Point::Histogram(h), Point::Float(f), BinaryOp::Div) => value(divided(h, f)),
        (Point::Histogram(h), Point::Float(f), BinaryOp::TrimUpper) => value(trim::below(h, f)),
        (Point::Histogram(h), Point::Float(f), BinaryOp::TrimLower) => value(trim::above(h, f)),
        (Point::Histogram(a), Point::Histogram(b), BinaryOp::Add) => {
            noted(add(a, b), remarks, "addition").map_or(Outcome::Nothing, value)
        }
        (Point::Histogram(a), Point::Histogram(b), BinaryOp::Sub) => {
            noted(subtract(a, b), remarks, "subtraction").map_or(Outcome::Nothing, value)
        }
        (Point::Histogram(a), Point::Histogram(b), BinaryOp::Equal) => Outcome::Truth(equals(a, b)),
        (Point::Histogram(a), Point::Histogram(b), BinaryOp::NotEqual) => Outcome::Truth(!equals(a, b)),
        _ => {
            let kind = |point| match point {
                Point::Float(_) => "float",
                Point::Histogram(_) => "histogram",
            };
            let op = op.as_str();
            remarks.info(&format!(
                "incompatible sample types encountered for binary operator \"{op}\": {} {op} {}",
                kind(left),
                kind(right)
            ));
            Outcome::Nothing
        }
    }
}

fn noted(
    combined: Result<Combined, Incompatible>,
    remarks: &dyn BinaryRemarks,
    operation: &str,
) -> Option<FloatHistogram> {
    let Ok(combined) = combined else {
        remarks.warn(super::MIXED_SCHEMAS);
        return None;
    };
    if combined.bounds_differed {
        remarks.info(&format!("mismatched custom buckets were reconciled during {operation}"));
    }
    if combined.hints_collide {
        remarks.warn(&format!("conflicting counter resets during histogram {operation}"));
    }
    Some(combined.histogram)
}
