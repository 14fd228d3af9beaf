//! Answers with samples, written as they go over the wire.
//!
//! A label takes its text and 6 bytes, a chunk its bytes and at most 28: a series of 12 labels of 22 bytes with an hour of
//! samples (3 chunks of 160 bytes) some 900 bytes. They are copied twice, into the series' message and into the frame
//! that is sent, and nothing is allocated for a series but the frame.
//!
//! ```text
//! SeriesResponse  1 series: Series | 2 warning: string | 4 batch: SeriesBatch
//! SeriesBatch     1 series: Series, repeated
//! Series          1 labels: Label{1 name, 2 value}, repeated | 2 chunks: AggrChunk, repeated
//! AggrChunk       1 min_time | 2 max_time | 3 raw: Chunk{1 type, 2 data}
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use model::Labels;
use tsdb::{ChunkEncoding, RawChunk};

/// A series is continued in the next frame, and a batch is sent, before they exceed this.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 20;

/// A field whose content has a length.
const fn bytes_key(field: u8) -> u8 {
    field << 3 | 2
}

fn varint(into: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        // The low seven bits of what is at most 64 of them.
        into.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    into.put_u8(value.to_le_bytes()[0]);
}

fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn len_of(length: usize) -> u64 {
    length as u64
}

/// The length of a field with its key and length.
fn field_len(content: usize) -> usize {
    1 + varint_len(len_of(content)) + content
}

fn field(into: &mut impl BufMut, key: u8, content: &[u8]) {
    into.put_u8(bytes_key(key));
    varint(into, len_of(content.len()));
    into.put_slice(content);
}

fn number(into: &mut impl BufMut, key: u8, value: i64) {
    if value != 0 {
        into.put_u8(key << 3);
        varint(into, value.cast_unsigned());
    }
}

fn number_len(value: i64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value.cast_unsigned()) }
}

/// A `Series` in the making.
#[derive(Default)]
pub(crate) struct Series {
    labels: Vec<u8>,
    chunks: Vec<u8>,
}

impl Series {
    /// Begins another series.
    pub(crate) fn begin(&mut self, labels: &Labels) {
        self.labels.clear();
        self.chunks.clear();
        for (name, value) in labels {
            let text = |text: &str| if text.is_empty() { 0 } else { field_len(text.len()) };
            self.labels.put_u8(bytes_key(1));
            varint(&mut self.labels, len_of(text(name) + text(value)));
            for (key, text) in [(1, name), (2, value)].into_iter().filter(|(_, text)| !text.is_empty()) {
                field(&mut self.labels, key, text.as_bytes());
            }
        }
    }

    /// Adds a chunk.
    pub(crate) fn push(&mut self, chunk: &RawChunk<'_>) {
        let kind = match chunk.encoding {
            ChunkEncoding::Xor => 0,
            ChunkEncoding::Histogram => 1,
            ChunkEncoding::FloatHistogram => 2,
        };
        let data = field_len(chunk.bytes.len());
        let raw = number_len(kind) + data;
        let whole = number_len(chunk.min_ts) + number_len(chunk.max_ts) + field_len(raw);
        let into = &mut self.chunks;
        into.put_u8(bytes_key(2));
        varint(into, len_of(whole));
        number(into, 1, chunk.min_ts);
        number(into, 2, chunk.max_ts);
        into.put_u8(bytes_key(3));
        varint(into, len_of(raw));
        number(into, 1, kind);
        field(into, 2, chunk.bytes);
    }

    /// Whether there is no chunk.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether another chunk of `bytes` belongs into the next frame.
    pub(crate) fn is_full_for(&self, bytes: usize) -> bool {
        !self.is_empty() && self.len() + bytes + 64 > FRAME_BYTES_MAX
    }

    /// Goes on with the same series in the next frame.
    pub(crate) fn go_on(&mut self) {
        self.chunks.clear();
    }

    fn len(&self) -> usize {
        self.labels.len() + self.chunks.len()
    }

    fn put(&self, into: &mut impl BufMut) {
        into.put_u8(bytes_key(1));
        varint(into, len_of(self.len()));
        into.put_slice(&self.labels);
        into.put_slice(&self.chunks);
    }
}

/// A `SeriesResponse` of one series.
pub(crate) fn one(series: &Series) -> Bytes {
    let mut frame = BytesMut::with_capacity(field_len(series.len()));
    series.put(&mut frame);
    frame.freeze()
}

/// A `SeriesResponse` that warns.
pub(crate) fn warning(text: &str) -> Bytes {
    let mut frame = BytesMut::with_capacity(field_len(text.len()));
    field(&mut frame, 2, text.as_bytes());
    frame.freeze()
}

/// Series that go into one `SeriesResponse`.
#[derive(Default)]
pub(crate) struct Batch {
    series: Vec<u8>,
    count: usize,
}

impl Batch {
    /// Adds a series, or a part of it.
    pub(crate) fn push(&mut self, series: &Series) {
        series.put(&mut self.series);
        self.count += 1;
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Whether another one would make it too long.
    pub(crate) fn is_full_for(&self, series: &Series) -> bool {
        self.count > 0 && self.series.len() + series.len() + 16 > FRAME_BYTES_MAX
    }

    /// The response, if there is anything in it; begins anew.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        let count = std::mem::take(&mut self.count);
        let frame = (count > 0).then(|| {
            let mut frame = BytesMut::with_capacity(field_len(self.series.len()));
            field(&mut frame, 4, &self.series);
            frame.freeze()
        });
        self.series.clear();
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_takes_as_many_bytes_as_is_said_above() {
        let texts: Vec<(String, String)> =
            (0..12).map(|label| (format!("label_{label:02}"), format!("value_{label:08}"))).collect();
        let labels = Labels::from_pairs(texts.iter().map(|(name, value)| (name, value)));
        let mut series = Series::default();
        series.begin(&labels);
        assert_eq!(series.len(), 12 * (22 + 6));
        let now = 1_790_000_000_000;
        for encoding in [ChunkEncoding::Xor, ChunkEncoding::Histogram, ChunkEncoding::FloatHistogram] {
            let before = series.len();
            series.push(&RawChunk { min_ts: now, max_ts: now + 1, encoding, bytes: &[7; 160] });
            assert!(series.len() - before <= 160 + 28, "{}", series.len() - before);
        }
        assert!((850..950).contains(&one(&series).len()));
    }

    #[test]
    fn numbers_are_as_long_as_they_are_said_to_be() {
        for value in
            (0..64).map(|bit| 1_u64 << bit).flat_map(|value| [value - 1, value, value + 1]).chain([u64::MAX])
        {
            let mut bytes = Vec::new();
            varint(&mut bytes, value);
            assert_eq!(bytes.len(), varint_len(value), "{value}");
        }
    }
}
