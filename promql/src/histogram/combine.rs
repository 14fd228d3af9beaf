//! Sums and differences: both sides are brought to one layout first.

use model::{FloatHistogram, ResetHint};

use super::bounds::upper_bound;
use super::buckets::{self, Entries};
use crate::functions::kahan::Sum;

/// Exponential and custom buckets do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incompatible;

/// A sum or difference.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Combined {
    pub(crate) histogram: FloatHistogram,
    /// One side says that its counter was reset, the other that it was not.
    pub(crate) hints_collide: bool,
    /// Custom bounds differed.
    pub(crate) bounds_differed: bool,
}

/// `a + b`
pub(crate) fn add(a: &FloatHistogram, b: &FloatHistogram) -> Result<Combined, Incompatible> {
    combine(a, b, |a, b| a + b)
}

/// `a - b`, which is a gauge.
pub(crate) fn subtract(a: &FloatHistogram, b: &FloatHistogram) -> Result<Combined, Incompatible> {
    let mut out = combine(a, b, |a, b| a - b)?;
    out.histogram.reset_hint = ResetHint::Gauge;
    Ok(out)
}

fn combine(
    a: &FloatHistogram,
    b: &FloatHistogram,
    f: impl Fn(f64, f64) -> f64 + Copy,
) -> Result<Combined, Incompatible> {
    if a.has_custom_buckets() != b.has_custom_buckets() {
        return Err(Incompatible);
    }
    let (reset_hint, hints_collide) = joint_hint(a.reset_hint, b.reset_hint);
    let (mut x, mut y) = (Layout::<f64>::of(a), Layout::<f64>::of(b));
    let bounds_differed = align(&mut x, &mut y);
    let mut out = FloatHistogram {
        schema: x.schema,
        count: f(a.count, b.count),
        sum: f(a.sum, b.sum),
        zero_threshold: x.zero_threshold,
        zero_count: f(x.zero_count, y.zero_count),
        custom_values: x.custom_values,
        reset_hint,
        ..FloatHistogram::default()
    };
    let positive = buckets::merge(&x.positive, &y.positive, f);
    let negative = buckets::merge(&x.negative, &y.negative, f);
    buckets::set(&mut out, &positive, &negative);
    Ok(Combined { histogram: out, hints_collide, bounds_differed })
}

/// The hint of a sum, and whether the two collide.
pub(super) fn joint_hint(a: ResetHint, b: ResetHint) -> (ResetHint, bool) {
    match (a, b) {
        (a, b) if a == b => (a, false),
        (ResetHint::Gauge, _) | (_, ResetHint::Gauge) => (ResetHint::Gauge, false),
        (ResetHint::Unknown, _) | (_, ResetHint::Unknown) => (ResetHint::Unknown, false),
        _ => (ResetHint::Unknown, true),
    }
}

/// What a bucket may hold.
pub(super) trait Amount: Copy + Default {
    fn of(count: f64) -> Self;
    fn take(&mut self, other: Self);
}

impl Amount for f64 {
    fn of(count: f64) -> Self {
        count
    }

    fn take(&mut self, other: Self) {
        *self += other;
    }
}

impl Amount for Sum {
    fn of(count: f64) -> Self {
        Self { sum: count, compensation: 0.0 }
    }

    fn take(&mut self, other: Self) {
        self.add(other.sum);
        self.compensation += other.compensation;
    }
}

/// The buckets of a histogram in a layout that can be brought in line with another.
#[derive(Clone, Debug)]
pub(super) struct Layout<N> {
    pub(super) schema: i32,
    pub(super) zero_threshold: f64,
    pub(super) zero_count: N,
    pub(super) positive: Entries<N>,
    pub(super) negative: Entries<N>,
    pub(super) custom_values: Vec<f64>,
}

impl<N: Amount> Layout<N> {
    pub(super) fn of(h: &FloatHistogram) -> Self {
        let amounts = |entries: Entries<f64>| entries.into_iter().map(|(i, n)| (i, N::of(n))).collect();
        Self {
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count: N::of(h.zero_count),
            positive: amounts(buckets::positive(h)),
            negative: amounts(buckets::negative(h)),
            custom_values: h.custom_values.clone(),
        }
    }

    fn is_custom(&self) -> bool {
        self.schema == model::histogram::CUSTOM_BUCKETS_SCHEMA
    }

    /// Moves the buckets that lie within `threshold` of zero to the zero bucket.
    fn widen_zero(&mut self, threshold: f64) {
        let schema = self.schema;
        for side in [&mut self.positive, &mut self.negative] {
            side.retain(|(index, count)| {
                let inside = upper_bound(schema, *index) <= threshold;
                if inside {
                    self.zero_count.take(*count);
                }
                !inside
            });
        }
        self.zero_threshold = threshold;
    }

    /// The upper bound of a bucket that `threshold` cuts in two, if there is one.
    fn cut_by(&self, threshold: f64) -> Option<f64> {
        let bounds = |index: i32| (upper_bound(self.schema, index - 1), upper_bound(self.schema, index));
        let sides = self.positive.iter().chain(&self.negative);
        sides.map(|(index, _)| bounds(*index)).find(|(l, u)| *l < threshold && threshold < *u).map(|b| b.1)
    }

    /// Sorts the buckets into those between `bounds`, which are some of its own.
    fn rebound(&mut self, bounds: &[f64]) {
        let mut out: Entries<N> = Vec::new();
        for (index, count) in &self.positive {
            let upper = usize::try_from(*index).ok().and_then(|at| self.custom_values.get(at));
            let at = upper.map_or(bounds.len(), |upper| bounds.partition_point(|bound| bound < upper));
            let at = i32::try_from(at).unwrap_or(i32::MAX);
            match out.last_mut() {
                Some(last) if last.0 == at => last.1.take(*count),
                _ => out.push((at, *count)),
            }
        }
        self.positive = out;
        self.custom_values = bounds.to_vec();
    }
}

/// Brings two histograms of one kind to a common layout: the lower resolution, the wider zero bucket,
/// the custom bounds that both have. Whether custom bounds differed.
pub(super) fn align<A: Amount, B: Amount>(x: &mut Layout<A>, y: &mut Layout<B>) -> bool {
    if x.is_custom() {
        let differ = x.custom_values != y.custom_values;
        if differ {
            let shared: Vec<f64> =
                x.custom_values.iter().filter(|bound| y.custom_values.contains(bound)).copied().collect();
            x.rebound(&shared);
            y.rebound(&shared);
        }
        return differ;
    }
    #[expect(clippy::float_cmp, reason = "thresholds are configured, not computed")]
    if x.zero_threshold != y.zero_threshold {
        let mut threshold = x.zero_threshold.max(y.zero_threshold);
        // A threshold must not cut a bucket, on either side.
        while let Some(wider) = x.cut_by(threshold).or_else(|| y.cut_by(threshold)) {
            threshold = wider;
        }
        x.widen_zero(threshold);
        y.widen_zero(threshold);
    }
    let schema = x.schema.min(y.schema);
    x.positive = buckets::coarser(&x.positive, x.schema, schema);
    x.negative = buckets::coarser(&x.negative, x.schema, schema);
    y.positive = buckets::coarser(&y.positive, y.schema, schema);
    y.negative = buckets::coarser(&y.negative, y.schema, schema);
    (x.schema, y.schema) = (schema, schema);
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Span;

    fn histogram(schema: i32, zero_threshold: f64, counts: &[f64]) -> FloatHistogram {
        FloatHistogram {
            schema,
            zero_threshold,
            count: counts.iter().sum(),
            positive_spans: vec![Span { offset: 0, length: u32::try_from(counts.len()).unwrap() }],
            positive: counts.to_vec(),
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn the_lower_resolution_wins() {
        let sum = add(&histogram(1, 0.0, &[1.0, 2.0, 3.0]), &histogram(0, 0.0, &[10.0, 20.0])).unwrap();
        assert_eq!(sum.histogram.schema, 0);
        assert_eq!(sum.histogram.positive, [11.0, 25.0]);
    }

    #[test]
    fn the_zero_bucket_widens_to_the_bound_of_a_bucket_it_cuts() {
        // Buckets (0.5, 1] and (1, 2]; a threshold of 0.75 cuts the first.
        let sum = add(&histogram(0, 0.0, &[1.0, 2.0]), &histogram(0, 0.75, &[])).unwrap();
        assert_eq!(sum.histogram.zero_threshold, 1.0);
        assert_eq!(sum.histogram.zero_count, 1.0);
        assert_eq!(sum.histogram.positive, [2.0]);
    }

    #[test]
    fn custom_bounds_are_intersected() {
        let custom = |bounds: &[f64], counts: &[f64]| FloatHistogram {
            schema: model::histogram::CUSTOM_BUCKETS_SCHEMA,
            custom_values: bounds.to_vec(),
            ..histogram(0, 0.0, counts)
        };
        let a = custom(&[1.0, 2.0, 3.0], &[1.0, 1.0, 1.0, 1.0]);
        let b = custom(&[2.0], &[10.0, 20.0]);
        let sum = add(&a, &b).unwrap();
        assert!(sum.bounds_differed);
        assert_eq!(sum.histogram.custom_values, [2.0]);
        assert_eq!(sum.histogram.positive, [12.0, 22.0]);
        assert_eq!(add(&a, &histogram(0, 0.0, &[])), Err(Incompatible));
    }
}
