//! Doors for the fuzz targets.

use model::{Samples, TimeRange};

use super::client::{Fetched, samples};
use super::frames::{Frames, push_frame};

/// Reads `message` as the content of a frame, and as that of a compressed answer, down to the last sample. A checksum
/// would keep a fuzzer from what is within.
pub fn read_answer(message: &[u8]) {
    let (mut framed, mut frames, mut into) = (Vec::new(), Frames::default(), Samples::default());
    push_frame(&mut framed, message);
    frames.push(&framed);
    while let Ok(Some(all)) = frames.take() {
        let mut decoded = all.iter().map(|series| series.decode(TimeRange::ALL, &mut into));
        let _ = decoded.try_for_each(|outcome| outcome);
    }
    let answer = snap::raw::Encoder::new().compress_vec(message).unwrap_or_default();
    let all: Vec<Fetched> = samples(&answer).unwrap_or_default();
    all.iter().for_each(|series| {
        into.clear();
        let _ = series.decode(TimeRange::ALL, &mut into);
    });
}
