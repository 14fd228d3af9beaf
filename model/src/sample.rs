//! Timestamps, samples and columns of samples.

use std::sync::Arc;

use crate::histogram::FloatHistogram;
use crate::labels::Labels;

/// Milliseconds since the Unix epoch.
pub type Timestamp = i64;

/// The bit pattern of a staleness marker. An ordinary NaN (`0x7ff8_0000_0000_0001` in Prometheus)
/// is a value; only these exact bits end a series.
pub const STALE_NAN: u64 = 0x7ff0_0000_0000_0002;

/// The staleness marker as a float.
#[must_use]
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN)
}

/// Whether `value` is the staleness marker, by its bits.
#[must_use]
pub fn is_stale_nan(value: f64) -> bool {
    value.to_bits() == STALE_NAN
}

/// A span of time, both ends included, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// The first millisecond that belongs to the range.
    pub start: Timestamp,
    /// The last millisecond that belongs to the range.
    pub end: Timestamp,
}

impl TimeRange {
    /// All of time.
    pub const ALL: Self = Self { start: Timestamp::MIN, end: Timestamp::MAX };

    /// The range from `start` to `end`, both included.
    #[must_use]
    pub const fn new(start: Timestamp, end: Timestamp) -> Self {
        Self { start, end }
    }

    /// Whether `ts` lies in the range.
    #[must_use]
    pub const fn contains(self, ts: Timestamp) -> bool {
        self.start <= ts && ts <= self.end
    }

    /// Whether the two ranges share a millisecond.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}

/// An example of what was measured, typically with the identifier of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// What identifies the example.
    pub labels: Labels,
    /// When it was measured.
    pub ts: Timestamp,
    /// What was measured.
    pub value: f64,
}

/// One value of a series: a float or a native histogram.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<FloatHistogram>),
}

/// A value with its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When, in milliseconds since the epoch.
    pub ts: Timestamp,
    /// What.
    pub value: Value,
}

/// The samples of one series over a span of time, as columns.
///
/// Floats and histograms are two separate pairs of columns, each in ascending order of time; a
/// timestamp occurs in at most one of them. A series of floats, which nearly all are, costs 16 bytes
/// a sample, and its two histogram columns never allocate. The struct is meant to be reused: a
/// reader clears it and appends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Times of the floats.
    pub ts: Vec<Timestamp>,
    /// The floats; staleness markers included.
    pub values: Vec<f64>,
    /// Times of the histograms.
    pub histogram_ts: Vec<Timestamp>,
    /// The histograms; a staleness marker is one whose `sum` has the bits of [`STALE_NAN`].
    pub histograms: Vec<Arc<FloatHistogram>>,
    /// Start timestamps of the floats, 0 where unknown. Empty if the store keeps none for this series.
    pub start_ts: Vec<Timestamp>,
    /// Start timestamps of the histograms, 0 where unknown. Empty if the store keeps none.
    pub histogram_start_ts: Vec<Timestamp>,
}

impl Samples {
    /// Forgets all samples and keeps the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.ts.clear();
        self.values.clear();
        self.histogram_ts.clear();
        self.histograms.clear();
        self.start_ts.clear();
        self.histogram_start_ts.clear();
    }

    /// The number of samples, floats and histograms together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ts.len() + self.histogram_ts.len()
    }

    /// Whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a float.
    #[inline]
    pub fn push_float(&mut self, ts: Timestamp, value: f64) {
        self.ts.push(ts);
        self.values.push(value);
    }

    /// Appends a histogram.
    pub fn push_histogram(&mut self, ts: Timestamp, histogram: Arc<FloatHistogram>) {
        self.histogram_ts.push(ts);
        self.histograms.push(histogram);
    }

    /// All samples in order of time.
    pub fn iter(&self) -> impl Iterator<Item = Sample> + '_ {
        let (mut float, mut histogram) = (0, 0);
        std::iter::from_fn(move || {
            let next_float = self.ts.get(float).copied();
            let next_histogram = self.histogram_ts.get(histogram).copied();
            match (next_float, next_histogram) {
                (Some(ts), other) if other.is_none_or(|other| ts <= other) => {
                    float += 1;
                    Some(Sample { ts, value: Value::Float(self.values[float - 1]) })
                }
                (_, Some(ts)) => {
                    histogram += 1;
                    Some(Sample { ts, value: Value::Histogram(Arc::clone(&self.histograms[histogram - 1])) })
                }
                _ => None,
            }
        })
    }

    /// Bytes of heap behind the columns, histogram bodies included.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        8 * (self.ts.capacity() + self.values.capacity() + self.histogram_ts.capacity())
            + 8 * (self.start_ts.capacity() + self.histogram_start_ts.capacity() + self.histograms.capacity())
            + self.histograms.iter().map(|h| h.heap_bytes()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_marker_differs_from_other_nans() {
        assert!(is_stale_nan(stale_nan()));
        assert!(!is_stale_nan(f64::NAN));
        assert!(!is_stale_nan(f64::from_bits(0x7ff8_0000_0000_0001)));
    }

    #[test]
    fn iteration_merges_the_columns_by_time() {
        let mut samples = Samples::default();
        samples.push_float(1, 1.0);
        samples.push_histogram(2, Arc::default());
        samples.push_float(3, 3.0);
        let times: Vec<_> = samples.iter().map(|sample| sample.ts).collect();
        assert_eq!(times, [1, 2, 3]);
        assert_eq!(samples.len(), 3);
    }
}
