//! `</` and `>/`: the part of a histogram on one side of a bound.
//!
//! Whole buckets stay or go; a bucket that the bound cuts keeps the share that interpolation puts on
//! the kept side. The sum of what is kept is not known any more and is estimated from the middles of
//! the kept parts.

use model::FloatHistogram;

use super::buckets::{self, Bucket, Entry};
use super::shape::{is_linear, share, zero_bounds};

/// Which side is kept.
#[derive(Clone, Copy, PartialEq)]
enum Keep {
    Below,
    Above,
}

/// What is left of a bucket: its count, and the value that stands for it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Part {
    count: f64,
    middle: f64,
}

/// The observations at or below `bound`.
pub(super) fn below(h: &FloatHistogram, bound: f64) -> FloatHistogram {
    trim(h, bound, Keep::Below)
}

/// The observations above `bound`.
pub(super) fn above(h: &FloatHistogram, bound: f64) -> FloatHistogram {
    trim(h, bound, Keep::Above)
}

fn trim(h: &FloatHistogram, bound: f64, keep: Keep) -> FloatHistogram {
    let (mut count, mut sum, mut trimmed) = (0.0, 0.0, false);
    let mut note = |bucket: Bucket| -> f64 {
        let part = part(h, &bucket, bound, keep);
        trimmed |= part.count != bucket.count;
        count += part.count;
        if part.count != 0.0 {
            sum += part.count * part.middle;
        }
        part.count
    };
    let mut side = |entries: Vec<Entry>, negative: bool| -> Vec<Entry> {
        let kept = entries.into_iter().map(|(index, count)| {
            let (lower, upper) = buckets::bounds(h, index);
            let (lower, upper) = if negative { (-upper, -lower) } else { (lower, upper) };
            (index, note(Bucket { lower, upper, count }))
        });
        kept.collect()
    };
    let negative = side(buckets::negative(h), true);
    let positive = side(buckets::positive(h), false);
    let mut zero_count = 0.0;
    if h.zero_count != 0.0 && !h.has_custom_buckets() {
        let zero = Bucket { lower: -h.zero_threshold, upper: h.zero_threshold, count: h.zero_count };
        zero_count = note(zero_bounds(h, zero));
    }
    if !trimmed {
        return h.clone();
    }
    let mut out = FloatHistogram { zero_count, count, sum, ..h.clone() };
    buckets::set(&mut out, &positive, &negative);
    out
}

/// What is left of one bucket.
fn part(h: &FloatHistogram, bucket: &Bucket, bound: f64, keep: Keep) -> Part {
    if h.has_custom_buckets() && bucket.lower == f64::NEG_INFINITY {
        return open_below(h, bucket, bound, keep);
    }
    if bucket.upper == f64::INFINITY {
        return open_above(bucket, bound, keep);
    }
    inner(h, bucket, bound, keep)
}

/// A bucket with two finite bounds.
fn inner(h: &FloatHistogram, bucket: &Bucket, bound: f64, keep: Keep) -> Part {
    let whole = Part { count: bucket.count, middle: middle(h, bucket, bucket.lower, bucket.upper) };
    let nothing = Part { count: 0.0, middle: 0.0 };
    if bound >= bucket.upper {
        return if keep == Keep::Below { whole } else { nothing };
    }
    if bound <= bucket.lower {
        return if keep == Keep::Below { nothing } else { whole };
    }
    let share = share(h, bucket, bound);
    match keep {
        Keep::Below => Part { count: bucket.count * share, middle: middle(h, bucket, bucket.lower, bound) },
        Keep::Above => {
            Part { count: bucket.count * (1.0 - share), middle: middle(h, bucket, bound, bucket.upper) }
        }
    }
}

/// The value that stands for the observations between two bounds within a bucket.
fn middle(h: &FloatHistogram, bucket: &Bucket, lower: f64, upper: f64) -> f64 {
    if is_linear(h, bucket) { f64::midpoint(lower, upper) } else { (lower * upper).sqrt().copysign(upper) }
}

/// The last custom bucket, which has no upper bound: nothing is known about how far it reaches, so it
/// goes as a whole, and stands for the lowest value it can hold.
fn open_above(bucket: &Bucket, bound: f64, keep: Keep) -> Part {
    let kept = match keep {
        Keep::Below => bound == f64::INFINITY,
        Keep::Above => bound < f64::INFINITY,
    };
    if !kept {
        return Part { count: 0.0, middle: 0.0 };
    }
    let middle = if keep == Keep::Above { bucket.lower.max(bound) } else { bucket.lower };
    Part { count: bucket.count, middle }
}

/// The first custom bucket, which has no lower bound. If its upper bound is above zero, it is taken to
/// start at zero.
fn open_below(h: &FloatHistogram, bucket: &Bucket, bound: f64, keep: Keep) -> Part {
    let nothing = Part { count: 0.0, middle: 0.0 };
    let whole = |middle| Part { count: bucket.count, middle };
    if bucket.upper == f64::INFINITY {
        // The only bucket, open at both ends.
        let kept = match keep {
            Keep::Below => bound == f64::INFINITY,
            Keep::Above => bound == f64::NEG_INFINITY,
        };
        return if kept { whole(0.0) } else { nothing };
    }
    let from_zero = bucket.upper > 0.0;
    match keep {
        Keep::Below if bound == f64::NEG_INFINITY => nothing,
        Keep::Above if bound == f64::NEG_INFINITY => whole(bucket.upper),
        _ if from_zero && (keep == Keep::Below || bound >= 0.0) => {
            inner(h, &Bucket { lower: 0.0, ..*bucket }, bound, keep)
        }
        Keep::Below => whole(bucket.upper.min(bound)),
        Keep::Above => nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Span;

    #[test]
    fn the_cut_bucket_keeps_a_share() {
        let h = FloatHistogram {
            schema: model::histogram::CUSTOM_BUCKETS_SCHEMA,
            custom_values: vec![5.0, 10.0],
            count: 7.0,
            sum: 100.0,
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive: vec![1.0, 4.0, 2.0],
            ..FloatHistogram::default()
        };
        let kept = below(&h, 7.5);
        assert_eq!(kept.positive, [1.0, 2.0]);
        assert_eq!((kept.count, kept.sum), (3.0, 2.5 + 2.0 * 6.25));
        assert_eq!(below(&h, f64::INFINITY), h);
        assert_eq!(above(&h, 20.0).sum, 40.0);
    }
}
