//! Quantiles, fractions, variance.

use model::FloatHistogram;

use super::buckets::{self, Bucket};

/// A quantile, and what observations of NaN did to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Quantile {
    Value(f64),
    /// The rank lies among observations of NaN.
    IsNan,
    /// Observations of NaN count as larger than all others.
    Skewed(f64),
}

/// The zero bucket of a histogram without observations on one side reaches only to the other.
pub(super) fn zero_bounds(h: &FloatHistogram, mut bucket: Bucket) -> Bucket {
    if !h.has_custom_buckets() && bucket.lower < 0.0 && bucket.upper > 0.0 {
        if h.negative.is_empty() && !h.positive.is_empty() {
            bucket.lower = 0.0;
        } else if h.positive.is_empty() && !h.negative.is_empty() {
            bucket.upper = 0.0;
        }
    }
    bucket
}

/// Whether values are spread evenly, rather than exponentially, over a bucket.
pub(super) fn is_linear(h: &FloatHistogram, bucket: &Bucket) -> bool {
    h.has_custom_buckets() || bucket.lower <= 0.0 && bucket.upper >= 0.0
}

/// The value below which a share `q` of the observations lies.
pub(crate) fn quantile(q: f64, h: &FloatHistogram) -> Quantile {
    if q < 0.0 {
        return Quantile::Value(f64::NEG_INFINITY);
    }
    if q > 1.0 {
        return Quantile::Value(f64::INFINITY);
    }
    if h.count == 0.0 || q.is_nan() {
        return Quantile::Value(f64::NAN);
    }
    // The shorter way is the more exact one. Observations of NaN are in no bucket and count as
    // largest, so with them the way from the top is barred.
    let has_nan = h.sum.is_nan();
    let from_below = has_nan || q < 0.5;
    let mut all = buckets::all(h);
    if !from_below {
        all.reverse();
    }
    let mut rank = if from_below { q * h.count } else { (1.0 - q) * h.count };
    let mut count = 0.0;
    let mut found = None;
    for bucket in all {
        count += bucket.count;
        found = Some(bucket);
        if count >= rank {
            break;
        }
    }
    let Some(found) = found else {
        return if has_nan { Quantile::IsNan } else { Quantile::Value(0.0) };
    };
    let mut bucket = zero_bounds(h, found);
    let wrap = |value| if has_nan { Quantile::Skewed(value) } else { Quantile::Value(value) };
    if h.has_custom_buckets() {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return wrap(bucket.upper);
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY && !(has_nan && count < rank) {
            return wrap(bucket.lower);
        }
    }
    // Rounding may let the counts of the buckets add up to more than the total.
    count = count.min(h.count);
    if count < rank {
        return if has_nan { Quantile::IsNan } else { Quantile::Value(bucket.upper) };
    }
    rank = if from_below { rank - (count - bucket.count) } else { count - rank };
    wrap(interpolated(h, &bucket, rank / bucket.count))
}

/// The value that lies `share` of the way into a bucket.
fn interpolated(h: &FloatHistogram, bucket: &Bucket, share: f64) -> f64 {
    if is_linear(h, bucket) {
        return bucket.lower + (bucket.upper - bucket.lower) * share;
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    if bucket.lower > 0.0 {
        (lower + (upper - lower) * share).exp2()
    } else {
        -(upper + (lower - upper) * (1.0 - share)).exp2()
    }
}

/// How far into a bucket a value lies.
pub(super) fn share(h: &FloatHistogram, bucket: &Bucket, value: f64) -> f64 {
    if is_linear(h, bucket) {
        if bucket.lower == f64::NEG_INFINITY {
            return 1.0;
        }
        if bucket.upper == f64::INFINITY {
            return 0.0;
        }
        return (value - bucket.lower) / (bucket.upper - bucket.lower);
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    if value > 0.0 {
        (value.log2() - lower) / (upper - lower)
    } else {
        1.0 - ((-value).log2() - upper) / (lower - upper)
    }
}

/// The share of the observations between two values, and whether there are observations of NaN.
pub(crate) fn fraction(lower: f64, upper: f64, h: &FloatHistogram) -> (f64, bool) {
    let has_nan = h.sum.is_nan();
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, false);
    }
    if lower >= upper {
        return (0.0, false);
    }
    let mut below = [None, None];
    let mut rank = 0.0;
    for bucket in buckets::all(h) {
        let mut bucket = zero_bounds(h, bucket);
        if h.has_custom_buckets() && bucket.lower == f64::NEG_INFINITY && bucket.upper > 0.0 {
            bucket.lower = 0.0;
        }
        for (slot, value) in below.iter_mut().zip([lower, upper]) {
            if slot.is_none() && bucket.lower >= value {
                *slot = Some(rank);
            } else if slot.is_none() && bucket.upper > value {
                *slot = Some(rank + bucket.count * share(h, &bucket, value));
            }
        }
        rank += bucket.count;
    }
    let total = if has_nan { rank } else { h.count };
    let [lower, upper] = below.map(|rank| rank.map_or(total, |rank| rank.min(total)));
    ((upper - lower) / h.count, has_nan)
}

/// The population variance, with every observation in the middle of its bucket.
pub(crate) fn variance(h: &FloatHistogram) -> f64 {
    let mean = h.sum / h.count;
    let mut squares = crate::functions::kahan::Sum::default();
    for bucket in buckets::all(h) {
        let middle = if h.has_custom_buckets() {
            f64::midpoint(bucket.lower, bucket.upper)
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            (bucket.lower * bucket.upper).sqrt().copysign(bucket.upper)
        };
        squares.add(bucket.count * (middle - mean) * (middle - mean));
    }
    squares.value() / h.count
}
