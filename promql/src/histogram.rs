//! Native histograms: algebra, order in time, and what can be read off them.
//!
//! Buckets are worked on as sorted lists of (index, count), without the empty ones; spans exist only
//! at the border to the store.

mod binary;
mod bounds;
mod buckets;
mod combine;
mod over_time;
mod reset;
mod shape;
pub(crate) mod total;
mod trim;

use model::FloatHistogram;

pub(crate) use binary::{BinaryRemarks, Outcome, binary};
pub use buckets::{Bucket, all};
pub(crate) use combine::{Combined, Incompatible, add, subtract};
pub(crate) use over_time::{difference, difference_with_resets, instant_difference, mean, sum};
pub(crate) use reset::is_reset;
pub(crate) use shape::{Quantile, fraction, quantile, variance};

use model::ResetHint;

/// Said of histograms that cannot be combined.
pub(crate) const MIXED_SCHEMAS: &str =
    "vector contains a mix of histograms with exponential and custom buckets schemas";

/// `histogram * factor`.
pub(crate) fn scaled(histogram: &FloatHistogram, factor: f64) -> FloatHistogram {
    let mut out = multiplied(histogram, factor);
    if factor < 0.0 {
        out.reset_hint = ResetHint::Gauge;
    }
    out
}

/// `histogram * factor`, hint and all.
pub(crate) fn multiplied(histogram: &FloatHistogram, factor: f64) -> FloatHistogram {
    mapped(histogram, |value| value * factor)
}

/// `histogram / divisor`.
pub(crate) fn divided(histogram: &FloatHistogram, divisor: f64) -> FloatHistogram {
    let mut out = mapped(histogram, |value| value / divisor);
    if divisor < 0.0 {
        out.reset_hint = ResetHint::Gauge;
    }
    if divisor == 0.0 {
        // Nothing is left that a bucket could hold.
        out.positive_spans.clear();
        out.negative_spans.clear();
        out.positive.clear();
        out.negative.clear();
    }
    out
}

fn mapped(histogram: &FloatHistogram, f: impl Fn(f64) -> f64 + Copy) -> FloatHistogram {
    let mut out = histogram.clone();
    out.zero_count = f(out.zero_count);
    out.count = f(out.count);
    out.sum = f(out.sum);
    out.positive.iter_mut().chain(&mut out.negative).for_each(|count| *count = f(*count));
    out
}

/// Whether two histograms show the same observations: layout and hints aside.
#[expect(clippy::float_cmp, reason = "the language compares exactly")]
pub(crate) fn equals(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let same = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan();
    a.schema == b.schema
        && same(a.count, b.count)
        && same(a.sum, b.sum)
        && (a.has_custom_buckets()
            || a.zero_threshold == b.zero_threshold && same(a.zero_count, b.zero_count))
        && a.custom_values == b.custom_values
        && buckets::positive(a) == buckets::positive(b)
        && buckets::negative(a) == buckets::negative(b)
}

/// The mean of the observations.
pub(crate) fn average(histogram: &FloatHistogram) -> f64 {
    histogram.sum / histogram.count
}

/// A histogram as text: `{count:3, sum:1.5, [-1,1]:1, (1,2]:2}`.
pub(crate) fn show(h: &FloatHistogram) -> String {
    use std::fmt::Write as _;
    let number = model::float::format_general;
    let mut out = format!("{{count:{}, sum:{}", number(h.count), number(h.sum));
    for bucket in all(h) {
        let zero = bucket.lower <= 0.0 && bucket.upper >= 0.0 && !h.has_custom_buckets();
        let open = if zero || bucket.upper <= 0.0 && !h.has_custom_buckets() { '[' } else { '(' };
        let close = if zero || bucket.upper > 0.0 || h.has_custom_buckets() { ']' } else { ')' };
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            ", {open}{},{}{close}:{}",
            number(bucket.lower),
            number(bucket.upper),
            number(bucket.count)
        );
    }
    out.push('}');
    out
}
