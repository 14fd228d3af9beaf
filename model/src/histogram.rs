//! Native histograms as plain data.
//!
//! Shapes follow Prometheus' native histogram specification: exponential schemas -4..=8 (up to 52
//! may be read), and schema -53 for custom bounds. Bucket counts are *absolute* here, for integer
//! and float histograms alike; delta coding exists only inside the codecs that need it.

/// The schema of histograms with custom bucket bounds.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// A run of consecutive buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// Gap to the end of the previous span; of the first span: index of its first bucket.
    pub offset: i32,
    /// Number of buckets.
    pub length: u32,
}

/// What is known about a counter reset between a histogram and the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResetHint {
    /// Nothing is known; it must be detected.
    #[default]
    Unknown,
    /// The counter was reset.
    Reset,
    /// The counter was not reset.
    NotReset,
    /// A gauge: resets mean nothing.
    Gauge,
}

/// A native histogram whose counts are of type `N`: `u64` as scraped, `f64` as computed with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram<N> {
    /// Resolution: bucket bounds grow by `2^(2^-schema)`, or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// Width of the zero bucket on either side.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: N,
    /// All observations.
    pub count: N,
    /// Sum of all observations; the bits of [`crate::STALE_NAN`] here mark staleness.
    pub sum: f64,
    /// Where the entries of `positive` lie.
    pub positive_spans: Vec<Span>,
    /// Where the entries of `negative` lie.
    pub negative_spans: Vec<Span>,
    /// Absolute counts of the positive buckets.
    pub positive: Vec<N>,
    /// Absolute counts of the negative buckets.
    pub negative: Vec<N>,
    /// Upper bounds of custom buckets without +Inf; empty for exponential schemas.
    pub custom_values: Vec<f64>,
    /// Counter reset information.
    pub reset_hint: ResetHint,
}

/// A histogram with integer counts, as scraped from most clients.
pub type IntHistogram = Histogram<u64>;

/// A histogram with float counts, the form that PromQL computes with.
pub type FloatHistogram = Histogram<f64>;

/// A histogram of either kind, as it is appended.
#[derive(Clone, Debug, PartialEq)]
pub enum HistogramValue {
    /// Integer counts.
    Int(IntHistogram),
    /// Float counts.
    Float(FloatHistogram),
}

impl<N> Histogram<N> {
    /// Whether the buckets have custom bounds.
    #[must_use]
    pub fn has_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// Whether this is a staleness marker.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        crate::is_stale_nan(self.sum)
    }

    /// Bytes of heap behind the vectors.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        size_of::<Self>()
            + size_of::<Span>() * (self.positive_spans.capacity() + self.negative_spans.capacity())
            + size_of::<N>() * (self.positive.capacity() + self.negative.capacity())
            + 8 * self.custom_values.capacity()
    }
}

impl IntHistogram {
    /// The same histogram with float counts.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts above 2^53 lose their last bits, as in Prometheus"
    )]
    pub fn to_float(&self) -> FloatHistogram {
        Histogram {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count as f64,
            count: self.count as f64,
            sum: self.sum,
            positive_spans: self.positive_spans.clone(),
            negative_spans: self.negative_spans.clone(),
            positive: self.positive.iter().map(|&n| n as f64).collect(),
            negative: self.negative.iter().map(|&n| n as f64).collect(),
            custom_values: self.custom_values.clone(),
            reset_hint: self.reset_hint,
        }
    }
}
