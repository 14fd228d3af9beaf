//! Chunks: the compressed runs of samples that head, blocks and `chunks_head` files share.

pub(crate) mod histogram;
pub(crate) mod layout;
mod varbit;
pub(crate) mod xor;
mod xor2;

use std::sync::Arc;

use histogram::{Fit, HistogramAppender};
use model::{HistogramValue, ResetHint, Samples, TimeRange, Timestamp};
use xor::XorAppender;

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
    /// Floats, perhaps with start times.
    Xor2 = 4,
}

impl Encoding {
    pub(crate) fn from_byte(byte: u8) -> Result<Self, Malformed> {
        match byte {
            1 => Ok(Self::Xor),
            2 => Ok(Self::Histogram),
            3 => Ok(Self::FloatHistogram),
            4 => Ok(Self::Xor2),
            5 | 6 => Err(Malformed("histogram chunks with start times are not supported")),
            _ => Err(Malformed("unknown chunk encoding")),
        }
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
        Encoding::Xor2 => xor2::for_each(data, limit, |ts, value| {
            if range.contains(ts) {
                into.push_float(ts, value);
            }
        }),
        Encoding::Histogram | Encoding::FloatHistogram => {
            histogram::for_each(encoding, data, limit, &mut |ts, value| {
                if range.contains(ts) {
                    let value = match value {
                        HistogramValue::Int(histogram) => histogram.to_float(),
                        HistogramValue::Float(histogram) => histogram,
                    };
                    into.push_histogram(ts, Arc::new(value));
                }
            })
        }
    }
}

/// Calls `visit` with the first `limit` samples of a chunk as they are.
pub(crate) fn for_each(
    encoding: Encoding,
    data: &[u8],
    limit: usize,
    visit: &mut dyn FnMut(Timestamp, Value),
) -> Result<(), Malformed> {
    match encoding {
        Encoding::Xor => xor::for_each(data, limit, |ts, value| visit(ts, Value::Float(value))),
        Encoding::Xor2 => xor2::for_each(data, limit, |ts, value| visit(ts, Value::Float(value))),
        Encoding::Histogram | Encoding::FloatHistogram => {
            histogram::for_each(encoding, data, limit, &mut |ts, value| visit(ts, Value::Histogram(value)))
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
    Histogram(Box<HistogramAppender>),
}

impl Appender {
    /// Begins a chunk in `out`, which must be empty. `reset` is what is known about a counter reset in
    /// front of it.
    pub(crate) fn start(out: &mut Vec<u8>, ts: Timestamp, value: &Value, reset: ResetHint) -> Self {
        match value {
            Value::Float(value) => Self::Xor(XorAppender::start(out, ts, *value)),
            Value::Histogram(value) => {
                Self::Histogram(Box::new(HistogramAppender::start(out, ts, value, reset)))
            }
        }
    }

    /// Appends to `out`; where the sample does not fit, says what is known about a counter reset
    /// between the chunk and the sample.
    pub(crate) fn append(
        &mut self,
        out: &mut Vec<u8>,
        ts: Timestamp,
        value: &Value,
    ) -> Result<(), ResetHint> {
        match (self, value) {
            (Self::Xor(appender), Value::Float(value)) if out.len() <= XOR_BYTES_MAX => {
                appender.append(out, ts, *value);
                Ok(())
            }
            (Self::Histogram(appender), Value::Histogram(value)) => match appender.fit(value) {
                Fit::Fits if out.len() < HISTOGRAM_BYTES_TARGET || count(out) < HISTOGRAMS_MIN => {
                    appender.append(out, ts, value);
                    Ok(())
                }
                Fit::Fits => Err(ResetHint::NotReset),
                Fit::Reset => Err(ResetHint::Reset),
                Fit::Differs => Err(ResetHint::Unknown),
            },
            _ => Err(ResetHint::Unknown),
        }
    }

    pub(crate) fn encoding(&self) -> Encoding {
        match self {
            Self::Xor(_) => Encoding::Xor,
            Self::Histogram(appender) => appender.encoding(),
        }
    }

    /// The number of samples, if they are floats.
    fn float_count(&self) -> Option<u16> {
        match self {
            Self::Xor(appender) => Some(appender.count()),
            Self::Histogram(_) => None,
        }
    }

    /// The time of the last sample.
    pub(crate) fn last_ts(&self) -> Timestamp {
        match self {
            Self::Xor(appender) => appender.last_ts(),
            Self::Histogram(appender) => appender.last_ts(),
        }
    }
}

/// Encodes samples, which ascend in time, into as few chunks as their kinds and the usual size allow.
#[derive(Default)]
pub(crate) struct Encoder {
    open: Option<(Timestamp, Appender, Vec<u8>)>,
    chunks: Vec<Chunk>,
}

impl Encoder {
    pub(crate) fn push(&mut self, ts: Timestamp, value: &Value) {
        let mut reset = ResetHint::Unknown;
        if let Some((_, appender, data)) = &mut self.open {
            let full = appender.float_count().is_some_and(|count| count >= SAMPLES_PER_CHUNK);
            if !full {
                match appender.append(data, ts, value) {
                    Ok(()) => return,
                    Err(hint) => reset = hint,
                }
            }
        }
        self.close();
        let mut data = Vec::with_capacity(256);
        let appender = Appender::start(&mut data, ts, value, reset);
        self.open = Some((ts, appender, data));
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

/// Encodes anew the samples of a chunk that `keep` wants.
pub(crate) fn filter(
    encoding: Encoding,
    data: &[u8],
    limit: usize,
    mut keep: impl FnMut(Timestamp) -> bool,
) -> Result<Vec<Chunk>, Malformed> {
    let mut encoder = Encoder::default();
    for_each(encoding, data, limit, &mut |ts, value| {
        if keep(ts) {
            encoder.push(ts, &value);
        }
    })?;
    Ok(encoder.finish())
}
