//! The messages of both protocol versions, walked in place.

use model::{Labels, TimeRange};
use tsdb::{Exemplar, Metadata};

use super::{Protocol, ReceiveError};
use crate::message::{ROUTED_METADATA, kind_of};
use crate::wire::{Content, Fields, WireError, packed, take_varint};

/// Why something cannot be read.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The bytes are no message: nothing of the request can be trusted.
    Message(WireError),
    /// A series contradicts itself or its request; the others stand.
    Series(String),
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::Message(error)
    }
}

impl From<Fault> for ReceiveError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Message(error) => error.into(),
            Fault::Series(what) => Self::Malformed(what),
        }
    }
}

/// One label as it stands in a message.
pub(super) type Pair<'a> = (&'a str, &'a str);

/// One series of a request of either version.
#[derive(Clone, Copy)]
pub(crate) struct TimeSeries<'a> {
    pub(crate) message: &'a [u8],
    pub(crate) version: Version<'a>,
}

/// What is needed besides the message to read it.
#[derive(Clone, Copy)]
pub(crate) enum Version<'a> {
    V1,
    V2 { symbols: &'a Symbols<'a> },
}

/// The strings of a 2.0 request. The first is empty.
#[derive(Default)]
pub(crate) struct Symbols<'a>(Vec<&'a [u8]>);

impl<'a> Symbols<'a> {
    fn bytes(&self, at: u64) -> Result<&'a [u8], Fault> {
        let symbol = usize::try_from(at).ok().and_then(|at| self.0.get(at)).copied();
        symbol.ok_or_else(|| Fault::Series(format!("symbol {at} of {} is referred to", self.0.len())))
    }

    fn get(&self, at: u64) -> Result<&'a str, Fault> {
        self.bytes(at).and_then(text)
    }

    /// Appends the labels that `refs`, names and values in turn, refer to.
    fn push_pairs(&self, refs: &[u64], labels: &mut Vec<Pair<'a>>) -> Result<(), Fault> {
        if !refs.len().is_multiple_of(2) {
            return Err(Fault::Series("labels_refs has an odd length".to_owned()));
        }
        for pair in refs.chunks_exact(2) {
            labels.push((self.get(pair[0])?, self.get(pair[1])?));
        }
        Ok(())
    }
}

/// A sample of either version.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct SampleMessage {
    pub(crate) value: f64,
    pub(crate) ts: i64,
    /// From when on the value counts; 0 if that is not said.
    pub(crate) start_ts: i64,
}

/// What can be said of a series without reading its labels and items.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outline<'a> {
    /// The bytes that hold the labels, which in every writer known are all fields at the front of the message. If
    /// labels also stand further back, there is none, and the series is looked up by its labels instead.
    pub(super) raw_labels: Option<&'a [u8]>,
    pub(super) has_items: bool,
    /// The start of all its items that name none; 0 if that is not said.
    pub(crate) start_ts: i64,
    pub(super) metadata: Option<&'a [u8]>,
}

/// What one series of a request holds besides its labels.
pub(crate) enum Item<'a> {
    Sample(SampleMessage),
    Histogram(&'a [u8]),
    Exemplar(&'a [u8]),
}

/// Field numbers: those of 1.0 and 2.0 differ by one place.
struct Numbers {
    labels: u32,
    samples: u32,
    histograms: u32,
    exemplars: u32,
}

impl<'a> TimeSeries<'a> {
    fn numbers(&self) -> Numbers {
        match self.version {
            Version::V1 => Numbers { labels: 1, samples: 2, exemplars: 3, histograms: 4 },
            Version::V2 { .. } => Numbers { labels: 1, samples: 2, histograms: 3, exemplars: 4 },
        }
    }

    /// Looks at the fields behind the labels, not into them.
    pub(super) fn outline(&self) -> Result<Outline<'a>, WireError> {
        let (raw, rest) = self.message.split_at(labels_end(self.message));
        let mut outline = Outline { raw_labels: Some(raw), ..Outline::default() };
        let mut fields = Fields::new(rest);
        let is_second = matches!(self.version, Version::V2 { .. });
        while let Some((number, content)) = fields.next()? {
            match number {
                1 => outline.raw_labels = None,
                2..=4 => outline.has_items = true,
                5 if is_second => outline.metadata = Some(content.bytes()?),
                6 if is_second => outline.start_ts = content.int64()?,
                ROUTED_METADATA if !is_second => outline.metadata = Some(content.bytes()?),
                _ => {}
            }
        }
        Ok(outline)
    }

    /// Reads all labels.
    pub(crate) fn labels(&self) -> Result<Vec<Pair<'a>>, Fault> {
        let number = self.numbers().labels;
        let mut fields = Fields::new(self.message);
        let mut labels = Vec::new();
        let mut refs: Vec<u64> = Vec::new();
        while let Some((found, content)) = fields.next()? {
            if found != number {
                continue;
            }
            match self.version {
                Version::V1 => labels.push(label(content.bytes()?)?),
                Version::V2 { .. } => packed(content, &mut refs, |at| at)?,
            }
        }
        if let Version::V2 { symbols } = self.version {
            symbols.push_pairs(&refs, &mut labels)?;
        }
        Ok(labels)
    }

    /// Calls `visit` with each sample, histogram and exemplar.
    pub(crate) fn visit(
        &self,
        mut visit: impl FnMut(Item<'a>) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let numbers = self.numbers();
        let mut fields = Fields::new(&self.message[labels_end(self.message)..]);
        while let Some((found, content)) = fields.next()? {
            if found == numbers.samples {
                visit(Item::Sample(sample(content.bytes()?)?))?;
            } else if found == numbers.histograms {
                visit(Item::Histogram(content.bytes()?))?;
            } else if found == numbers.exemplars {
                visit(Item::Exemplar(content.bytes()?))?;
            }
        }
        Ok(())
    }
}

impl Version<'_> {
    /// Reads an exemplar: `{labels = 1, value = 2, timestamp = 3}`, where 2.0 refers to its symbols.
    pub(super) fn exemplar(&self, message: &[u8]) -> Result<Exemplar, Fault> {
        let (mut labels, mut refs) = (Vec::new(), Vec::new());
        let (mut ts, mut value) = (0, 0.0);
        let mut fields = Fields::new(message);
        while let Some((number, content)) = fields.next()? {
            match (number, self) {
                (1, Version::V1) => labels.push(label(content.bytes()?)?),
                (1, Version::V2 { .. }) => packed(content, &mut refs, |at| at)?,
                (2, _) => value = content.double()?,
                (3, _) => ts = content.int64()?,
                _ => {}
            }
        }
        if let Version::V2 { symbols } = self {
            symbols.push_pairs(&refs, &mut labels)?;
        }
        Ok(Exemplar { labels: Labels::from_pairs(labels), ts, value })
    }

    /// Reads what is said of a metric: `{type = 1, help = 3, unit = 4}`, where 2.0 refers to its symbols.
    pub(super) fn metadata(&self, message: &[u8]) -> Result<Metadata, Fault> {
        let mut metadata = Metadata::default();
        let mut fields = Fields::new(message);
        while let Some((number, content)) = fields.next()? {
            if number == 1 {
                metadata.kind = kind_of(content.uint64()?);
                continue;
            }
            let into = match number {
                3 => &mut metadata.help,
                4 => &mut metadata.unit,
                _ => continue,
            };
            let said = match self {
                Version::V1 => text(content.bytes()?)?,
                Version::V2 { symbols } => symbols.get(content.uint64()?)?,
            };
            said.clone_into(into);
        }
        Ok(metadata)
    }
}

fn text(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| Fault::Series("a text is not valid UTF-8".to_owned()))
}

fn label(message: &[u8]) -> Result<Pair<'_>, Fault> {
    let (mut name, mut value) = ("", "");
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => name = text(content.bytes()?)?,
            2 => value = text(content.bytes()?)?,
            _ => {}
        }
    }
    Ok((name, value))
}

/// Where the label fields at the front of a series end. Both versions give them number 1 and a length,
/// nearly always of one byte: two loads and an addition a label.
fn labels_end(message: &[u8]) -> usize {
    const LABEL: u8 = 1 << 3 | 2;
    let mut end = 0;
    while let Some([LABEL, length, rest @ ..]) = message.get(end..) {
        let Some(next) = rest.get(usize::from(*length)..).filter(|_| *length < 0x80) else {
            return end + long_labels(&message[end..]);
        };
        end = message.len() - next.len();
    }
    end
}

/// The same where a label is 128 bytes or longer, or cut off.
#[cold]
fn long_labels(message: &[u8]) -> usize {
    let mut fields = Fields::new(message);
    loop {
        let before = message.len() - fields.rest().len();
        match fields.next() {
            Ok(Some((1, _))) => {}
            _ => return before,
        }
    }
}

fn sample(message: &[u8]) -> Result<SampleMessage, WireError> {
    // As every writer writes it: the value, then the time.
    if let [0x09, a, b, c, d, e, f, g, h, 0x10, rest @ ..] = message {
        let mut rest = rest;
        let ts = take_varint(&mut rest)?.cast_signed();
        if rest.is_empty() {
            let value = f64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            return Ok(SampleMessage { value, ts, start_ts: 0 });
        }
    }
    let mut sample = SampleMessage::default();
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => sample.value = content.double()?,
            2 => sample.ts = content.int64()?,
            3 => sample.start_ts = content.int64()?,
            _ => {}
        }
    }
    Ok(sample)
}

impl<'a> Symbols<'a> {
    /// The strings of a 2.0 request, which may stand behind the series; a 1.0 request has none.
    pub(super) fn of(protocol: Protocol, message: &'a [u8]) -> Result<Self, WireError> {
        let mut symbols = Self::default();
        if protocol == Protocol::V1 {
            return Ok(symbols);
        }
        let mut fields = Fields::new(message);
        while let Some((number, content)) = fields.next()? {
            if number == 4 {
                symbols.0.push(content.bytes()?);
            }
        }
        Ok(symbols)
    }

    /// Calls `visit` with each series of a request.
    pub(super) fn each_series(
        &'a self,
        protocol: Protocol,
        message: &'a [u8],
        mut visit: impl FnMut(TimeSeries<'a>) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let (wanted, version) = match protocol {
            Protocol::V1 => (1, Version::V1),
            Protocol::V2 => (5, Version::V2 { symbols: self }),
        };
        let mut fields = Fields::new(message);
        while let Some((number, content)) = fields.next()? {
            if number == wanted {
                visit(TimeSeries { message: content.bytes()?, version })?;
            }
        }
        Ok(())
    }
}

/// The times of all samples, histograms and exemplars of a 1.0 message; none if it has none.
pub(crate) fn times_of(message: &[u8]) -> Result<Option<TimeRange>, WireError> {
    let mut range: Option<TimeRange> = None;
    let symbols = Symbols::default();
    symbols.each_series(Protocol::V1, message, |series| {
        series.visit(|item| {
            let ts = match item {
                Item::Sample(sample) => sample.ts,
                Item::Histogram(message) => number_of(message, 15)?,
                Item::Exemplar(message) => number_of(message, 3)?,
            };
            range = Some(
                range.map_or(TimeRange::new(ts, ts), |r| TimeRange::new(r.start.min(ts), r.end.max(ts))),
            );
            Ok(())
        })
    })?;
    Ok(range)
}

/// The last number of a field; 0 without one.
fn number_of(message: &[u8], wanted: u32) -> Result<i64, WireError> {
    let mut value = 0;
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        if number == wanted {
            value = content.int64()?;
        }
    }
    Ok(value)
}

/// Appends what identifies a 2.0 series across requests, whose symbol numbers differ: the texts.
pub(super) fn resolve_raw(raw: &[u8], symbols: &Symbols<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    out.clear();
    let mut fields = Fields::new(raw);
    while let Some((_, content)) = fields.next()? {
        match content {
            Content::Bytes(mut packed) => {
                while !packed.is_empty() {
                    push_symbol(take_varint(&mut packed)?, symbols, out)?;
                }
            }
            other => push_symbol(other.uint64()?, symbols, out)?,
        }
    }
    Ok(())
}

fn push_symbol(at: u64, symbols: &Symbols<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    out.extend_from_slice(symbols.bytes(at)?);
    out.push(0xff); // occurs in no UTF-8 text
    Ok(())
}
