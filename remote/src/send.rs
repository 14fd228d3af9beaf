//! Requests of remote write 1.0, out.

use model::Labels;

use crate::message::{push_labels, push_sample};
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
