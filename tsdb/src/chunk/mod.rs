//! Chunks: the compressed runs of samples that head, blocks and `chunks_head` files share.

pub(crate) mod xor;

use model::{Samples, TimeRange, Timestamp};

use crate::codec::Malformed;

/// How the bytes of a chunk are to be read. The numbers are those on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Encoding {
    /// Floats.
    Xor = 1,
    /// Native histograms with integer counts.
    Histogram = 2,
    /// Native histograms with float counts.
    FloatHistogram = 3,
}

impl Encoding {
    pub(crate) fn from_byte(byte: u8) -> Result<Self, Malformed> {
        match byte {
            1 => Ok(Self::Xor),
            2 => Ok(Self::Histogram),
            3 => Ok(Self::FloatHistogram),
            4..=6 => Err(Malformed("chunk encoding with start times is not supported")),
            _ => Err(Malformed("unknown chunk encoding")),
        }
    }
}

/// Appends those of the first `limit` samples of a chunk that lie in `range` to `into`.
pub(crate) fn decode(
    encoding: Encoding,
    data: &[u8],
    limit: usize,
    range: TimeRange,
    into: &mut Samples,
) -> Result<(), Malformed> {
    match encoding {
        Encoding::Xor => xor::decode(data, limit, range, into),
        Encoding::Histogram | Encoding::FloatHistogram => {
            Err(Malformed("histogram chunks are not supported"))
        }
    }
}

/// A whole chunk with the span of time it covers, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) min: Timestamp,
    pub(crate) max: Timestamp,
    pub(crate) encoding: Encoding,
    pub(crate) data: Box<[u8]>,
}

/// The number of samples in a chunk of any encoding.
pub(crate) use xor::count;

/// Encodes samples into as few chunks as their kinds and the usual size of a chunk allow.
pub(crate) fn encode(samples: &Samples) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut start = 0;
    while start < samples.ts.len() {
        let end = samples.ts.len().min(start + SAMPLES_PER_CHUNK);
        let mut data = Vec::with_capacity(256);
        let mut appender = xor::XorAppender::start(&mut data, samples.ts[start], samples.values[start]);
        for at in start + 1..end {
            appender.append(&mut data, samples.ts[at], samples.values[at]);
        }
        let (min, max) = (samples.ts[start], samples.ts[end - 1]);
        chunks.push(Chunk { min, max, encoding: Encoding::Xor, data: data.into() });
        start = end;
    }
    chunks
}

/// How many samples a chunk is meant to have.
pub(crate) const SAMPLES_PER_CHUNK: usize = 120;
