//! Frames of a streamed answer.
//!
//! ```text
//! ┌────────────────┬───────────────────────┬──────────────────────────────┐
//! │ length: varint │ CRC-32C, big endian: 4 │ ChunkedReadResponse: length │
//! └────────────────┴───────────────────────┴──────────────────────────────┘
//! ```
//! Source: `storage/remote/chunked.go` and `prompb/{remote,types}.proto` of Prometheus' published interface. A
//! message holds one series and the place of its query; a series with many chunks goes on in further frames.

use model::{Labels, Samples, TimeRange, Timestamp};
use tsdb::{ChunkEncoding, RawChunk};

use crate::wire::{Fields, WireError, push_varint, take_varint};

/// A frame may have this many bytes.
const FRAME_BYTES_MAX: usize = 50 << 20;

/// Appends a frame that holds `message`.
pub(super) fn push_frame(out: &mut Vec<u8>, message: &[u8]) {
    push_varint(out, message.len() as u64);
    out.extend_from_slice(&crc32c::crc32c(message).to_be_bytes());
    out.extend_from_slice(message);
}

/// Bytes that are no streamed answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame is longer than any that is taken.
    #[error("a frame of {0} bytes, at most {FRAME_BYTES_MAX} are taken")]
    TooLong(u64),
    /// A frame's checksum is not that of its bytes.
    #[error("the checksum of a frame is wrong")]
    Checksum,
    /// A message cannot be read.
    #[error("{0}")]
    Malformed(&'static str),
}

impl From<WireError> for FrameError {
    fn from(_: WireError) -> Self {
        Self::Malformed("a frame holds no ChunkedReadResponse")
    }
}

/// Part of a series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChunkedSeries {
    /// The place of the query that it answers.
    pub query: usize,
    /// Its labels.
    pub labels: Labels,
    chunks: Vec<StoredChunk>,
}

/// First and last time, encoding, and bytes of a chunk.
type StoredChunk = (Timestamp, Timestamp, ChunkEncoding, Box<[u8]>);

impl ChunkedSeries {
    /// Appends its samples in `range` to `into`.
    ///
    /// # Errors
    /// A chunk cannot be decoded.
    pub fn decode(&self, range: TimeRange, into: &mut Samples) -> Result<(), tsdb::MalformedChunk> {
        let overlapping = |chunk: &RawChunk<'_>| chunk.min_ts <= range.end && range.start <= chunk.max_ts;
        self.chunks().filter(overlapping).try_for_each(|chunk| chunk.decode(range, into))
    }

    /// Goes on with another part of the same series.
    pub(super) fn absorb(&mut self, part: Self) {
        self.chunks.extend(part.chunks);
    }

    /// Its chunks, in order of time.
    pub fn chunks(&self) -> impl Iterator<Item = RawChunk<'_>> {
        self.chunks.iter().map(|(min_ts, max_ts, encoding, bytes)| RawChunk {
            min_ts: *min_ts,
            max_ts: *max_ts,
            encoding: *encoding,
            bytes,
        })
    }
}

/// Takes a streamed answer apart as it comes.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    /// What of them is done with.
    read: usize,
}

impl Frames {
    /// Adds bytes of the answer.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether an answer could end here.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.read == self.bytes.len()
    }

    /// The series of the next frame, if it is whole.
    ///
    /// # Errors
    /// See [`FrameError`]; nothing after it can be read.
    pub fn take(&mut self) -> Result<Option<Vec<ChunkedSeries>>, FrameError> {
        let mut rest = &self.bytes[self.read..];
        let is_varint_whole = rest.iter().take(10).any(|byte| byte & 0x80 == 0);
        if !is_varint_whole {
            let endless = rest.len() >= 10;
            return if endless { Err(FrameError::Malformed("a length without end")) } else { Ok(None) };
        }
        let length = take_varint(&mut rest)?;
        let length = match usize::try_from(length) {
            Ok(length) if length <= FRAME_BYTES_MAX => length,
            _ => return Err(FrameError::TooLong(length)),
        };
        let Some((checksum, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let Some((message, rest)) = rest.split_at_checked(length) else { return Ok(None) };
        if crc32c::crc32c(message) != u32::from_be_bytes(*checksum) {
            return Err(FrameError::Checksum);
        }
        let series = response(message)?;
        self.read = self.bytes.len() - rest.len();
        Ok(Some(series))
    }
}

fn response(message: &[u8]) -> Result<Vec<ChunkedSeries>, FrameError> {
    let (mut all, mut query) = (Vec::new(), 0);
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => all.push(series(content.bytes()?)?),
            2 => {
                query = usize::try_from(content.int64()?)
                    .map_err(|_| FrameError::Malformed("a negative query"))?;
            }
            _ => {}
        }
    }
    all.iter_mut().for_each(|series: &mut ChunkedSeries| series.query = query);
    Ok(all)
}

fn series(message: &[u8]) -> Result<ChunkedSeries, FrameError> {
    let (mut labels, mut chunks) = (Vec::new(), Vec::new());
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => {
                let (mut name, mut value) = ("", "");
                let mut label = Fields::new(content.bytes()?);
                while let Some((number, content)) = label.next()? {
                    match number {
                        1 => name = content.text()?,
                        2 => value = content.text()?,
                        _ => {}
                    }
                }
                labels.push((name, value));
            }
            2 => chunks.push(chunk(content.bytes()?)?),
            _ => {}
        }
    }
    Ok(ChunkedSeries { query: 0, labels: Labels::from_pairs(labels), chunks })
}

fn chunk(message: &[u8]) -> Result<StoredChunk, FrameError> {
    let (mut min_ts, mut max_ts, mut encoding, mut bytes) = (0, 0, None, &[][..]);
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => min_ts = content.int64()?,
            2 => max_ts = content.int64()?,
            3 => {
                encoding = match content.uint64()? {
                    1 => Some(ChunkEncoding::Xor),
                    2 => Some(ChunkEncoding::Histogram),
                    3 => Some(ChunkEncoding::FloatHistogram),
                    _ => None,
                }
            }
            4 => bytes = content.bytes()?,
            _ => {}
        }
    }
    let encoding = encoding.ok_or(FrameError::Malformed("a chunk of an unknown encoding"))?;
    Ok((min_ts, max_ts, encoding, bytes.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let mut stream = Vec::new();
        let messages: Vec<Vec<u8>> = vec![Vec::new(), vec![0x10, 5], vec![0x10, 7]];
        messages.iter().for_each(|message| push_frame(&mut stream, message));
        for size in 1..stream.len() {
            let (mut frames, mut seen) = (Frames::default(), 0);
            for part in stream.chunks(size) {
                frames.push(part);
                while let Some(series) = frames.take().unwrap() {
                    assert!(series.is_empty());
                    seen += 1;
                }
            }
            assert!(seen == 3 && frames.is_at_end(), "{size}");
        }
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let mut stream = Vec::new();
        push_frame(&mut stream, &[0x10, 5]);
        *stream.last_mut().unwrap() ^= 1;
        let mut frames = Frames::default();
        frames.push(&stream);
        assert_eq!(frames.take(), Err(FrameError::Checksum));
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut frames = Frames::default();
            frames.push(&bytes);
            while let Ok(Some(_)) = frames.take() {}
            let _ = response(&bytes);
        }
    }
}
