//! The streamed answer: chunks as they are stored, one series after the other.
//!
//! Nothing is decoded, and no more than a frame is held: a series of 240 samples is about 350 bytes here, and
//! 4 KB as samples.

use model::{Labels, Matcher, Selection};
use tsdb::Snapshot;

use super::frames::push_frame;
use super::{ReadError, ReadQuery, inside, with_external};
use crate::message::push_labels;
use crate::wire::Writer;

/// Frames are handed on when they have this many bytes together.
const PIECE_BYTES: usize = 64 << 10;

/// Answers all queries of a request with frames of at most about `frame_bytes_max` bytes, which `out` takes in
/// pieces until it returns false. Labels of `external` are added to series that lack them, and conditions on
/// them are taken as fulfilled; series come in the order of their own labels.
///
/// # Errors
/// The store cannot be read. What was handed on until then is not a whole answer.
pub fn stream(
    snapshot: &Snapshot,
    queries: &[ReadQuery],
    external: &Labels,
    frame_bytes_max: usize,
    out: &mut dyn FnMut(Vec<u8>) -> bool,
) -> Result<(), ReadError> {
    let mut piece = Vec::with_capacity(PIECE_BYTES * 2);
    for (nth, query) in (0_i64..).zip(queries) {
        let matchers: Vec<Matcher> = query.matchers.iter().map(|matcher| inside(matcher, external)).collect();
        let set = snapshot.select_chunks(&Selection::new(&matchers, query.range))?;
        for index in 0..set.len() {
            let mut labels = Writer::default();
            push_labels(&mut labels, &with_external(&set.labels(index), external));
            let mut series = Series { nth, labels: &labels, chunks: Vec::new(), piece: &mut piece };
            set.chunks(index, query.range, &mut |chunk| {
                let mut message = Writer::default();
                message.message(2, |message| {
                    message.int64(1, chunk.min_ts);
                    message.int64(2, chunk.max_ts);
                    message.uint64(3, chunk.encoding as u64);
                    message.bytes(4, chunk.bytes);
                });
                let size = series.labels.0.len() + series.chunks.len() + message.0.len();
                if size > frame_bytes_max && !series.chunks.is_empty() {
                    series.end_frame();
                }
                series.chunks.extend_from_slice(&message.0);
            })?;
            if !series.chunks.is_empty() {
                series.end_frame();
            }
            if piece.len() >= PIECE_BYTES
                && !out(std::mem::replace(&mut piece, Vec::with_capacity(PIECE_BYTES * 2)))
            {
                return Ok(());
            }
        }
    }
    if !piece.is_empty() {
        out(piece);
    }
    Ok(())
}

/// A series under way.
struct Series<'a> {
    /// The place of its query.
    nth: i64,
    labels: &'a Writer,
    /// Encoded fields of its chunks.
    chunks: Vec<u8>,
    piece: &'a mut Vec<u8>,
}

impl Series<'_> {
    /// A frame of the chunks so far.
    fn end_frame(&mut self) {
        let mut frame = Writer::default();
        frame.message(1, |series| {
            series.0.extend_from_slice(&self.labels.0);
            series.0.append(&mut self.chunks);
        });
        frame.int64(2, self.nth);
        push_frame(self.piece, &frame.0);
    }
}
