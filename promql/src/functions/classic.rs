//! Quantiles and fractions of classic histograms: one counter for each upper bound.

/// A bucket: observations at or below `upper`, all smaller ones included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bucket {
    pub(crate) upper: f64,
    pub(crate) count: f64,
}

/// Relative differences below this are noise of computing with floats.
const TOLERANCE: f64 = 1e-12;

/// What was mended before a quantile was computed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Mended {
    /// How many histograms had counts raised to be monotonic.
    pub(crate) count: usize,
    /// The first and the last time of them.
    pub(crate) first: i64,
    pub(crate) last: i64,
    /// The bounds between which that was needed, and by how much at most.
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
    pub(crate) largest: f64,
}

impl Mended {
    /// Takes in what was mended at another step.
    pub(crate) fn join(&mut self, other: &Self) {
        self.count += other.count;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.lowest = self.lowest.min(other.lowest);
        self.highest = self.highest.max(other.highest);
        self.largest = self.largest.max(other.largest);
    }
}

/// Sorts buckets, and adds those of equal bounds.
fn sort(buckets: &mut Vec<Bucket>) {
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    buckets.dedup_by(|next, kept| {
        #[expect(clippy::float_cmp, reason = "the same bound written in two ways")]
        let same = next.upper == kept.upper;
        if same {
            kept.count += next.count;
        }
        same
    });
}

/// Sorts buckets, adds those of equal bounds, and makes counts monotonic.
fn prepare(buckets: &mut Vec<Bucket>) -> Mended {
    sort(buckets);
    let mut mended = Mended::default();
    let Some(first) = buckets.first() else { return mended };
    let mut before = first.count;
    for bucket in &mut buckets[1..] {
        if bucket.count == before {
            continue;
        }
        if is_almost(before, bucket.count) {
            bucket.count = before;
        } else if bucket.count < before {
            if mended.count == 0 {
                mended.lowest = bucket.upper;
            }
            mended.count = 1;
            mended.highest = bucket.upper;
            mended.largest = mended.largest.max(before - bucket.count);
            bucket.count = before;
        } else {
            before = bucket.count;
        }
    }
    mended
}

/// Whether two counts differ by noise only.
fn is_almost(a: f64, b: f64) -> bool {
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan();
    }
    let difference = (a - b).abs();
    let sum = a.abs() + b.abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < TOLERANCE
}

/// The value below which a share `q` of the observations lies.
pub(crate) fn quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, Mended) {
    if q.is_nan() {
        return (f64::NAN, Mended::default());
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, Mended::default());
    }
    if q > 1.0 {
        return (f64::INFINITY, Mended::default());
    }
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    if buckets.last().is_none_or(|last| last.upper != f64::INFINITY) {
        return (f64::NAN, Mended::default());
    }
    let mended = prepare(buckets);
    if buckets.len() < 2 {
        return (f64::NAN, mended);
    }
    let observations = buckets[buckets.len() - 1].count;
    if observations == 0.0 || observations.is_nan() {
        return (f64::NAN, mended);
    }
    let mut rank = q * observations;
    let last = buckets.len() - 1;
    let at = buckets[..last].iter().position(|bucket| bucket.count >= rank).unwrap_or(last);
    if at == last {
        return (buckets[last - 1].upper, mended);
    }
    if at == 0 && buckets[0].upper <= 0.0 {
        return (buckets[0].upper, mended);
    }
    let (mut start, end, mut count) = (0.0, buckets[at].upper, buckets[at].count);
    if at > 0 {
        start = buckets[at - 1].upper;
        count -= buckets[at - 1].count;
        rank -= buckets[at - 1].count;
    }
    (start + (end - start) * (rank / count), mended)
}

/// The share of observations between two bounds. Counts that fall are taken as they are.
pub(crate) fn fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    sort(buckets);
    if buckets.last().is_none_or(|last| last.upper != f64::INFINITY) {
        return f64::NAN;
    }
    let observations = buckets[buckets.len() - 1].count;
    if observations == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let rank = |value| match rank(value, buckets) {
        Some(rank) if rank <= observations || rank.is_nan() => rank,
        _ => observations,
    };
    (rank(upper) - rank(lower)) / observations
}

/// How many observations lie at or below `value`; none if it lies above all bounds.
fn rank(value: f64, buckets: &[Bucket]) -> Option<f64> {
    // Nothing lies below zero if the lowest bound is above it.
    let lowest = if buckets[0].upper <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
    let mut below = Bucket { upper: lowest, count: 0.0 };
    for bucket in buckets {
        if below.upper >= value {
            return Some(below.count);
        }
        if bucket.upper > value {
            // A bucket without a lower bound has no inside to interpolate.
            return Some(if below.upper == f64::NEG_INFINITY {
                bucket.count
            } else {
                let inside = (bucket.count - below.count) * (value - below.upper);
                below.count + inside / (bucket.upper - below.upper)
            });
        }
        below = *bucket;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(list: &[(f64, f64)]) -> Vec<Bucket> {
        list.iter().map(|(upper, count)| Bucket { upper: *upper, count: *count }).collect()
    }

    #[test]
    fn interpolates_within_a_bucket() {
        let mut b = buckets(&[(1.0, 10.0), (2.0, 20.0), (f64::INFINITY, 20.0)]);
        assert_eq!(quantile(0.75, &mut b).0, 1.5);
        assert_eq!(quantile(0.25, &mut b).0, 0.5);
        assert_eq!(quantile(1.0, &mut b).0, 2.0);
    }

    #[test]
    fn the_open_bucket_yields_its_lower_bound() {
        let mut b = buckets(&[(1.0, 1.0), (f64::INFINITY, 10.0)]);
        assert_eq!(quantile(0.9, &mut b).0, 1.0);
        assert!(quantile(0.9, &mut buckets(&[(1.0, 1.0), (2.0, 2.0)])).0.is_nan());
    }

    #[test]
    fn decreasing_counts_are_raised_and_noise_is_not_reported() {
        let mut b = buckets(&[(1.0, 10.0), (2.0, 9.0), (f64::INFINITY, 20.0)]);
        assert_eq!(quantile(0.5, &mut b).1.count, 1);
        let mut b = buckets(&[(1.0, 10.0), (2.0, 10.0 - 1e-13), (f64::INFINITY, 20.0)]);
        assert_eq!(quantile(0.5, &mut b).1.count, 0);
    }

    #[test]
    fn fraction_of_a_bucket() {
        let mut b = buckets(&[(1.0, 10.0), (2.0, 20.0), (f64::INFINITY, 20.0)]);
        assert_eq!(fraction(0.5, 1.5, &mut b), 0.5);
        assert_eq!(fraction(f64::NEG_INFINITY, f64::INFINITY, &mut b), 1.0);
        // Falling counts stay; but no rank lies above the last count.
        let falling = [(1.0, 12.0), (2.0, 6.0), (f64::INFINITY, 8.0)];
        assert_eq!(fraction(0.5, 2.0, &mut buckets(&falling)), 0.0);
        assert_eq!(fraction(0.5, 1.0, &mut buckets(&falling)), 0.25);
    }
}
