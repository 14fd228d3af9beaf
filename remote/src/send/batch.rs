//! Requests under construction: `prometheus.WriteRequest` and `io.prometheus.write.v2.Request`.

use std::time::Instant;

use bytes::Bytes;
use hashbrown::HashMap;
use model::{HistogramValue, Labels, Timestamp};
use tsdb::{MetricKind, Position};

use super::series::{Name, Texts};
use crate::message::{
    Times, push_exemplar, push_fields, push_histogram, push_int_histogram, push_labels, push_sample,
    sample_len,
};
use crate::numbers::ByNumber;
use crate::receive::{Protocol, Written};
use crate::wire::{Writer, push_varint};

/// A compressed `prometheus.WriteRequest` with one float sample each: labels, milliseconds since the
/// epoch, value.
#[must_use]
pub fn request(samples: impl IntoIterator<Item = (Labels, i64, f64)>) -> Vec<u8> {
    let mut message = Writer::default();
    for (labels, ts, value) in samples {
        message.message(1, |series| {
            push_labels(series, &labels);
            push_sample(series, 2, (ts, 0), value);
        });
    }
    compressed(&message.0)
}

/// In snappy's block format. Its only error is a text of 4 GiB, which would not fit memory twice.
pub(super) fn compressed(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).unwrap_or_default()
}

/// What the numbers of a metric's kinds are, which both versions share with the log.
pub(super) fn number_of(kind: MetricKind) -> u64 {
    kind as u64
}

/// The table of strings of a 2.0 request, under construction.
struct Symbols {
    /// Its fields.
    message: Writer,
    count: u32,
    /// Places of texts that the sender has numbers for.
    numbered: ByNumber<u32, u32>,
    /// Those of others.
    others: HashMap<String, u32>,
}

impl Symbols {
    fn new() -> Self {
        let mut message = Writer::default();
        // The first is empty, always.
        message.present(4, b"");
        Self { message, count: 1, numbered: ByNumber::default(), others: HashMap::new() }
    }

    fn push(message: &mut Writer, count: &mut u32, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        message.present(4, text.as_bytes());
        *count += 1;
        *count - 1
    }

    fn place(&mut self, number: u32, texts: &Texts) -> u32 {
        let Self { message, count, numbered, .. } = self;
        *numbered.entry(number).or_insert_with(|| Self::push(message, count, texts.text(number)))
    }

    fn place_of(&mut self, text: &str) -> u32 {
        let Self { message, count, others, .. } = self;
        *others.entry_ref(text).or_insert_with(|| Self::push(message, count, text))
    }
}

/// A request that is being filled.
pub(super) struct Batch {
    /// Its series.
    series: Writer,
    /// In 2.0.
    symbols: Option<Symbols>,
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
    /// `space` is the memory of one that is done, if there is one.
    pub(super) fn new(protocol: Protocol, from: Position, space: Vec<u8>) -> Self {
        Self {
            series: Writer(space),
            symbols: (protocol == Protocol::V2).then(Symbols::new),
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
        self.counts().all()
    }

    /// How many samples of which kind.
    pub(super) fn counts(&self) -> Written {
        Written { samples: self.samples, histograms: self.histograms, exemplars: self.exemplars }
    }

    pub(super) fn push_float(&mut self, name: Name<'_>, times: Times, value: f64) {
        if self.symbols.is_none() {
            // Nearly everything that is sent: all lengths are known before anything is written.
            let fields = sample_len(times, value);
            let length = name.encoded.len() + 2 + fields;
            self.series.header(1, length);
            self.series.0.extend_from_slice(name.encoded);
            self.series.header(2, fields);
            push_fields(&mut self.series, times, value);
        } else {
            self.push(name, |series, _| push_sample(series, 2, times, value));
        }
        self.samples += 1;
        self.newest = self.newest.max(times.0);
    }

    pub(super) fn push_histogram(&mut self, name: Name<'_>, times: Times, value: &HistogramValue) {
        self.push(name, |series, symbols| {
            let number = if symbols.is_some() { 3 } else { 4 };
            match value {
                HistogramValue::Int(histogram) => push_int_histogram(series, number, times, histogram),
                HistogramValue::Float(histogram) => push_histogram(series, number, times, histogram),
            }
        });
        self.histograms += 1;
        self.newest = self.newest.max(times.0);
    }

    pub(super) fn push_exemplar(&mut self, name: Name<'_>, ts: Timestamp, value: f64, own: &Labels) {
        self.push(name, |series, symbols| {
            let Some(symbols) = symbols else {
                return push_exemplar(series, 3, (ts, value), own);
            };
            series.message(4, |exemplar| {
                exemplar.message(1, |refs| {
                    for text in own.iter().flat_map(|(name, value)| [name, value]) {
                        push_varint(&mut refs.0, symbols.place_of(text).into());
                    }
                });
                exemplar.double(2, value);
                exemplar.int64(3, ts);
            });
        });
        self.exemplars += 1;
    }

    /// A series with what `fill` writes: in 2.0 `TimeSeries{labels_refs = 1, samples = 2, histograms = 3,
    /// exemplars = 4, metadata = 5}`
    fn push(&mut self, name: Name<'_>, fill: impl FnOnce(&mut Writer, Option<&mut Symbols>)) {
        let Some(symbols) = &mut self.symbols else {
            self.series.long_message(1, |series| {
                series.0.extend_from_slice(name.encoded);
                fill(series, None);
            });
            return;
        };
        self.series.message(5, |series| {
            series.message(1, |refs| {
                for number in name.numbers {
                    push_varint(&mut refs.0, symbols.place(*number, name.texts).into());
                }
            });
            fill(series, Some(symbols));
            if let Some(about) = name.about {
                series.message(5, |metadata| {
                    metadata.uint64(1, number_of(about.kind));
                    metadata.uint64(3, symbols.place(about.help, name.texts).into());
                    metadata.uint64(4, symbols.place(about.unit, name.texts).into());
                });
            }
        });
    }

    /// The body of the request; the batch may be filled no more.
    pub(super) fn body(&mut self, press: &mut Press) -> Bytes {
        let Some(symbols) = &self.symbols else { return press.compress(&self.series.0) };
        press.joined.clear();
        press.joined.extend_from_slice(&symbols.message.0);
        press.joined.extend_from_slice(&self.series.0);
        let joined = std::mem::take(&mut press.joined);
        let body = press.compress(&joined);
        press.joined = joined;
        body
    }

    /// Its memory, for another.
    pub(super) fn into_space(self) -> Vec<u8> {
        let mut space = self.series.0;
        space.clear();
        space
    }
}

/// Compresses one request after the other without asking for memory each time: a request of 2,000 samples has 700 KB,
/// and fresh memory of that size costs as much to touch as the request costs to write.
pub(super) struct Press {
    encoder: snap::raw::Encoder,
    joined: Vec<u8>,
    out: Vec<u8>,
}

impl Default for Press {
    fn default() -> Self {
        Self { encoder: snap::raw::Encoder::new(), joined: Vec::new(), out: Vec::new() }
    }
}

impl Press {
    fn compress(&mut self, message: &[u8]) -> Bytes {
        let most = snap::raw::max_compress_len(message.len());
        if self.out.len() < most {
            self.out.resize(most, 0);
        }
        // See `compressed`.
        let length = self.encoder.compress(message, &mut self.out).unwrap_or(0);
        Bytes::copy_from_slice(&self.out[..length])
    }
}
