//! Chunks: the compressed runs of samples that head, blocks and `chunks_head` files share.

pub(crate) mod histogram;
pub(crate) mod layout;
mod start;
mod varbit;
pub(crate) mod xor;
pub(crate) mod xor2;

use std::sync::Arc;

use histogram::{Fit, HistogramAppender};
use model::{HistogramValue, ResetHint, Samples, TimeRange, Timestamp};
use xor::XorAppender;
use xor2::Xor2Appender;

use crate::codec::Malformed;
use crate::samples;

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
    /// Floats, perhaps with start times.
    Xor2 = 4,
    /// Native histograms with integer counts and start times.
    StartedHistogram = 5,
    /// Native histograms with float counts and start times.
    StartedFloatHistogram = 6,
}

impl Encoding {
    pub(crate) fn from_byte(byte: u8) -> Result<Self, Malformed> {
        match byte {
            1 => Ok(Self::Xor),
            2 => Ok(Self::Histogram),
            3 => Ok(Self::FloatHistogram),
            4 => Ok(Self::Xor2),
            5 => Ok(Self::StartedHistogram),
            6 => Ok(Self::StartedFloatHistogram),
            _ => Err(Malformed("unknown chunk encoding")),
        }
    }

    /// Whether the two high bits of the count are flags.
    fn has_flagged_count(self) -> bool {
        matches!(self, Self::StartedHistogram | Self::StartedFloatHistogram)
    }
}

/// A sample as a chunk holds it: integer histograms are still integers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Float(f64),
    Histogram(HistogramValue),
}

impl Value {
    /// Whether two values are the same, floats by their bits.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (a, b) => a == b,
        }
    }
}

/// A value with its time, and the time from which on it counts, 0 where that is unknown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) ts: Timestamp,
    pub(crate) start: Timestamp,
    pub(crate) value: Value,
}

impl Sample {
    /// A sample of unknown start.
    pub(crate) fn new(ts: Timestamp, value: Value) -> Self {
        Self { ts, start: 0, value }
    }

    pub(crate) fn float(ts: Timestamp, value: f64) -> Self {
        Self::new(ts, Value::Float(value))
    }
}

/// `range`, or all of time where it contains the whole span of a chunk: then no sample has to be looked at.
pub(crate) fn within(range: TimeRange, min: Timestamp, max: Timestamp) -> TimeRange {
    if range.contains(min) && range.contains(max) { TimeRange::ALL } else { range }
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
        Encoding::Xor2 => xor2::for_each(data, limit, |ts, start, value| {
            if range.contains(ts) {
                samples::push_float(into, (ts, start), value);
            }
        }),
        _ => histogram::for_each(encoding, data, limit, &mut |ts, start, value| {
            if range.contains(ts) {
                let value = match value {
                    HistogramValue::Int(histogram) => histogram.to_float(),
                    HistogramValue::Float(histogram) => histogram,
                };
                samples::push_histogram(into, (ts, start), Arc::new(value));
            }
        }),
    }
}

/// Calls `visit` with the first `limit` samples of a chunk as they are.
pub(crate) fn for_each(
    encoding: Encoding,
    data: &[u8],
    limit: usize,
    visit: &mut dyn FnMut(Sample),
) -> Result<(), Malformed> {
    match encoding {
        Encoding::Xor => xor::for_each(data, limit, |ts, value| visit(Sample::float(ts, value))),
        Encoding::Xor2 => xor2::for_each(data, limit, |ts, start, value| {
            visit(Sample { ts, start, value: Value::Float(value) });
        }),
        _ => histogram::for_each(encoding, data, limit, &mut |ts, start, value| {
            visit(Sample { ts, start, value: Value::Histogram(value) });
        }),
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

/// The number of samples in a chunk: its first two bytes, of which flags may have the two high bits.
pub(crate) fn count(encoding: Encoding, chunk: &[u8]) -> u16 {
    let count = chunk.first_chunk::<2>().map_or(0, |bytes| u16::from_be_bytes(*bytes));
    if encoding.has_flagged_count() { count & 0x3fff } else { count }
}

/// How many samples a chunk is meant to have.
pub(crate) const SAMPLES_PER_CHUNK: u16 = 120;
/// A chunk of floats is closed before its bytes would exceed this: the worst sample takes 19.
pub(crate) const XOR_BYTES_MAX: usize = 1024 - 19;
/// A chunk of histograms is closed when it has this many bytes and [`HISTOGRAMS_MIN`] samples.
pub(crate) const HISTOGRAM_BYTES_TARGET: usize = 1024;
/// See [`HISTOGRAM_BYTES_TARGET`].
pub(crate) const HISTOGRAMS_MIN: u16 = 10;

/// The part of an open chunk that is not its bytes.
#[derive(Clone, Debug)]
pub(crate) enum Appender {
    /// 40 bytes, inline, as nearly all chunks are of this kind.
    Xor(XorAppender),
    Xor2(Xor2Appender),
    Histogram(Box<HistogramAppender>),
}

impl Appender {
    /// Begins a chunk in `out`, which must be empty. `reset` is what is known about a counter reset in
    /// front of it. Floats are encoded as XOR2 if their start is known, or if `xor2` says so.
    pub(crate) fn start(out: &mut Vec<u8>, sample: &Sample, xor2: bool, reset: ResetHint) -> Self {
        let &Sample { ts, start, ref value } = sample;
        match value {
            Value::Float(value) if xor2 || start != 0 => {
                Self::Xor2(Xor2Appender::start(out, ts, start, *value))
            }
            Value::Float(value) => Self::Xor(XorAppender::start(out, ts, *value)),
            Value::Histogram(value) => {
                Self::Histogram(Box::new(HistogramAppender::start(out, (ts, start), value, reset)))
            }
        }
    }

    /// Appends to `out`; where the sample does not fit, says what is known about a counter reset
    /// between the chunk and the sample.
    pub(crate) fn append(&mut self, out: &mut Vec<u8>, sample: &Sample) -> Result<(), ResetHint> {
        let &Sample { ts, start, ref value } = sample;
        match (self, value) {
            (Self::Xor(appender), Value::Float(value)) if start == 0 && out.len() <= XOR_BYTES_MAX => {
                appender.append(out, ts, *value);
                Ok(())
            }
            (Self::Xor2(appender), Value::Float(value)) if out.len() <= XOR_BYTES_MAX => {
                appender.append(out, ts, start, *value);
                Ok(())
            }
            (Self::Histogram(appender), Value::Histogram(value)) => {
                let full = out.len() >= HISTOGRAM_BYTES_TARGET && appender.count() >= HISTOGRAMS_MIN;
                match appender.fit(value) {
                    Fit::Fits if !full && appender.takes_start(start) => {
                        appender.append(out, (ts, start), value);
                        Ok(())
                    }
                    Fit::Fits => Err(ResetHint::NotReset),
                    Fit::Reset => Err(ResetHint::Reset),
                    Fit::Differs => Err(ResetHint::Unknown),
                }
            }
            _ => Err(ResetHint::Unknown),
        }
    }

    pub(crate) fn encoding(&self) -> Encoding {
        match self {
            Self::Xor(_) => Encoding::Xor,
            Self::Xor2(_) => Encoding::Xor2,
            Self::Histogram(appender) => appender.encoding(),
        }
    }

    /// The number of samples, if they are floats.
    fn float_count(&self) -> Option<u16> {
        match self {
            Self::Xor(appender) => Some(appender.count()),
            Self::Xor2(appender) => Some(appender.count()),
            Self::Histogram(_) => None,
        }
    }

    /// The time of the last sample.
    pub(crate) fn last_ts(&self) -> Timestamp {
        match self {
            Self::Xor(appender) => appender.last_ts(),
            Self::Xor2(appender) => appender.last_ts(),
            Self::Histogram(appender) => appender.last_ts(),
        }
    }

    /// The last sample, if it is a histogram.
    pub(crate) fn last_histogram(&self) -> Option<&HistogramValue> {
        match self {
            Self::Histogram(appender) => Some(appender.last()),
            _ => None,
        }
    }
}

/// Encodes samples, which ascend in time, into as few chunks as their kinds and the usual size allow.
#[derive(Default)]
pub(crate) struct Encoder {
    /// Floats are encoded as XOR2 also where no start is known.
    xor2: bool,
    open: Option<(Timestamp, Appender, Vec<u8>)>,
    chunks: Vec<Chunk>,
}

impl Encoder {
    /// An encoder in place of those that encoded with `encodings`.
    pub(crate) fn like(encodings: impl IntoIterator<Item = Encoding>) -> Self {
        let xor2 = encodings.into_iter().any(|encoding| encoding == Encoding::Xor2);
        Self { xor2, ..Self::default() }
    }

    pub(crate) fn push(&mut self, sample: &Sample) {
        let mut reset = ResetHint::Unknown;
        if let Some((_, appender, data)) = &mut self.open {
            let full = appender.float_count().is_some_and(|count| count >= SAMPLES_PER_CHUNK);
            if !full {
                match appender.append(data, sample) {
                    Ok(()) => return,
                    Err(hint) => reset = hint,
                }
            }
        }
        self.close();
        let mut data = Vec::with_capacity(256);
        let appender = Appender::start(&mut data, sample, self.xor2, reset);
        self.open = Some((sample.ts, appender, data));
    }

    fn close(&mut self) {
        if let Some((min, appender, mut data)) = self.open.take() {
            let (max, encoding) = (appender.last_ts(), appender.encoding());
            if let Appender::Xor(appender) = appender {
                appender.finish(&mut data);
            }
            self.chunks.push(Chunk { min, max, encoding, data: data.into() });
        }
    }

    pub(crate) fn finish(mut self) -> Vec<Chunk> {
        self.close();
        self.chunks
    }
}

/// Encodes the floats of a series anew if that makes fewer chunks of the usual size: a chunk too many is some 35
/// bytes.
pub(crate) fn join(chunks: &mut Vec<Chunk>) -> Result<(), Malformed> {
    let samples: usize = chunks.iter().map(|chunk| usize::from(count(chunk.encoding, &chunk.data))).sum();
    let floats = chunks.iter().all(|chunk| matches!(chunk.encoding, Encoding::Xor | Encoding::Xor2));
    let fewer = samples.div_ceil(usize::from(SAMPLES_PER_CHUNK));
    if !floats || fewer >= chunks.len() {
        return Ok(());
    }
    let mut encoder = Encoder::like(chunks.iter().map(|chunk| chunk.encoding));
    for chunk in &*chunks {
        for_each(chunk.encoding, &chunk.data, usize::MAX, &mut |sample| encoder.push(&sample))?;
    }
    let joined = encoder.finish();
    if joined.len() < chunks.len() {
        *chunks = joined;
    }
    Ok(())
}

/// Encodes anew the samples of a chunk that `keep` wants.
pub(crate) fn filter(
    encoding: Encoding,
    data: &[u8],
    limit: usize,
    mut keep: impl FnMut(Timestamp) -> bool,
) -> Result<Vec<Chunk>, Malformed> {
    let mut encoder = Encoder::like([encoding]);
    for_each(encoding, data, limit, &mut |sample| {
        if keep(sample.ts) {
            encoder.push(&sample);
        }
    })?;
    Ok(encoder.finish())
}
