//! Requests under construction: `prometheus.WriteRequest`.

use std::time::Instant;

use model::{HistogramValue, Labels, Timestamp};
use tsdb::Position;

use crate::message::{push_exemplar, push_histogram, push_int_histogram, push_labels, push_sample};
use crate::wire::Writer;

/// A compressed `prometheus.WriteRequest` with one float sample each: labels, milliseconds since the
/// epoch, value.
#[must_use]
pub fn request(samples: impl IntoIterator<Item = (Labels, i64, f64)>) -> Vec<u8> {
    let mut message = Writer::default();
    for (labels, ts, value) in samples {
        message.message(1, |series| {
            push_labels(series, &labels);
            push_sample(series, 2, ts, value);
        });
    }
    compressed(&message.0)
}

/// In snappy's block format. Its only error is a text of 4 GiB, which would not fit memory twice.
fn compressed(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).unwrap_or_default()
}

/// A request that is being filled.
pub(super) struct Batch {
    message: Writer,
    pub(super) samples: u64,
    pub(super) histograms: u64,
    pub(super) exemplars: u64,
    pub(super) newest: Timestamp,
    /// The place in the log before the first sample.
    pub(super) from: Position,
    /// When the first sample came.
    pub(super) begun: Instant,
}

impl Batch {
    pub(super) fn new(from: Position) -> Self {
        Self {
            message: Writer::default(),
            samples: 0,
            histograms: 0,
            exemplars: 0,
            newest: Timestamp::MIN,
            from,
            begun: Instant::now(),
        }
    }

    /// Samples of all kinds.
    pub(super) fn len(&self) -> u64 {
        self.samples + self.histograms + self.exemplars
    }

    pub(super) fn push_float(&mut self, labels: &[u8], ts: Timestamp, value: f64) {
        self.message.message(1, |series| {
            series.0.extend_from_slice(labels);
            push_sample(series, 2, ts, value);
        });
        self.samples += 1;
        self.newest = self.newest.max(ts);
    }

    pub(super) fn push_histogram(&mut self, labels: &[u8], ts: Timestamp, value: &HistogramValue) {
        self.message.message(1, |series| {
            series.0.extend_from_slice(labels);
            match value {
                HistogramValue::Int(histogram) => push_int_histogram(series, 4, ts, histogram),
                HistogramValue::Float(histogram) => push_histogram(series, 4, ts, histogram),
            }
        });
        self.histograms += 1;
        self.newest = self.newest.max(ts);
    }

    pub(super) fn push_exemplar(&mut self, labels: &[u8], ts: Timestamp, value: f64, own: &Labels) {
        self.message.message(1, |series| {
            series.0.extend_from_slice(labels);
            push_exemplar(series, 3, (ts, value), own);
        });
        self.exemplars += 1;
    }

    /// The body of the request.
    pub(super) fn body(&self) -> Vec<u8> {
        compressed(&self.message.0)
    }
}
