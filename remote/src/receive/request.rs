//! The messages of both protocol versions, walked in place.

use model::Labels;
use tsdb::Exemplar;

use super::ReceiveError;
use crate::wire::{Content, Fields, WireError, packed, take_varint};

/// One label as it stands in a message.
pub(super) type Pair<'a> = (&'a str, &'a str);

/// One series of a request of either version.
#[derive(Clone, Copy)]
pub(super) struct TimeSeries<'a> {
    pub(super) message: &'a [u8],
    pub(super) version: Version<'a>,
}

/// What is needed besides the message to read it.
#[derive(Clone, Copy)]
pub(super) enum Version<'a> {
    V1,
    V2 { symbols: &'a Symbols<'a> },
}

/// The strings of a 2.0 request. The first is empty.
#[derive(Default)]
pub(super) struct Symbols<'a>(pub(super) Vec<&'a str>);

impl<'a> Symbols<'a> {
    fn get(&self, at: u64) -> Result<&'a str, ReceiveError> {
        let symbol = usize::try_from(at).ok().and_then(|at| self.0.get(at)).copied();
        symbol
            .ok_or_else(|| ReceiveError::Malformed(format!("symbol {at} of {} is referred to", self.0.len())))
    }

    /// Appends the labels that `refs`, names and values in turn, refer to.
    fn push_pairs(&self, refs: &[u64], labels: &mut Vec<Pair<'a>>) -> Result<(), ReceiveError> {
        if !refs.len().is_multiple_of(2) {
            return Err(ReceiveError::Malformed("labels_refs has an odd length".to_owned()));
        }
        for pair in refs.chunks_exact(2) {
            labels.push((self.get(pair[0])?, self.get(pair[1])?));
        }
        Ok(())
    }
}

/// A sample of either version.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct SampleMessage {
    pub(super) value: f64,
    pub(super) ts: i64,
}

/// What one series of a request holds besides its labels.
pub(super) enum Item<'a> {
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

    /// The bytes that hold the labels: from the start of the message to the end of the last label
    /// field at its front, which is all of them in every writer known. If labels also stand further
    /// back, there is none, and the series is looked up by its labels instead.
    pub(super) fn raw_labels(&self) -> Result<Option<&'a [u8]>, WireError> {
        let mut fields = Fields::new(self.message);
        let mut end = None;
        loop {
            let before = self.message.len() - fields.rest().len();
            match fields.next()? {
                Some((1, _)) if end.is_none() => {}
                Some((1, _)) => return Ok(None),
                Some(_) => end = end.or(Some(before)),
                None => return Ok(Some(&self.message[..end.unwrap_or(before)])),
            }
        }
    }

    /// Reads all labels.
    pub(super) fn labels(&self) -> Result<Vec<Pair<'a>>, ReceiveError> {
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
    pub(super) fn visit(
        &self,
        mut visit: impl FnMut(Item<'a>) -> Result<(), ReceiveError>,
    ) -> Result<(), ReceiveError> {
        let numbers = self.numbers();
        let mut fields = Fields::new(self.message);
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
    pub(super) fn exemplar(&self, message: &[u8]) -> Result<Exemplar, ReceiveError> {
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
}

fn label(message: &[u8]) -> Result<Pair<'_>, WireError> {
    let (mut name, mut value) = ("", "");
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => name = content.text()?,
            2 => value = content.text()?,
            _ => {}
        }
    }
    Ok((name, value))
}

fn sample(message: &[u8]) -> Result<SampleMessage, WireError> {
    let mut sample = SampleMessage::default();
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => sample.value = content.double()?,
            2 => sample.ts = content.int64()?,
            _ => {}
        }
    }
    Ok(sample)
}

/// Calls `visit` with each series of a 1.0 request.
pub(super) fn visit_v1<'a>(
    message: &'a [u8],
    mut visit: impl FnMut(TimeSeries<'a>) -> Result<(), ReceiveError>,
) -> Result<(), ReceiveError> {
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        if number == 1 {
            visit(TimeSeries { message: content.bytes()?, version: Version::V1 })?;
        }
    }
    Ok(())
}

/// Calls `visit` with each series of a 2.0 request. The symbols may stand behind the series, so they
/// are gathered first.
pub(super) fn visit_v2(
    message: &[u8],
    mut visit: impl FnMut(TimeSeries<'_>) -> Result<(), ReceiveError>,
) -> Result<(), ReceiveError> {
    let mut symbols = Symbols::default();
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        if number == 4 {
            symbols.0.push(content.text()?);
        }
    }
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        if number == 5 {
            visit(TimeSeries { message: content.bytes()?, version: Version::V2 { symbols: &symbols } })?;
        }
    }
    Ok(())
}

/// Appends what identifies a 2.0 series across requests, whose symbol numbers differ: the texts.
pub(super) fn resolve_raw(raw: &[u8], symbols: &Symbols<'_>, out: &mut Vec<u8>) -> Result<(), ReceiveError> {
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

fn push_symbol(at: u64, symbols: &Symbols<'_>, out: &mut Vec<u8>) -> Result<(), ReceiveError> {
    let text = symbols.get(at)?;
    out.extend_from_slice(text.as_bytes());
    out.push(0xff); // occurs in no UTF-8 text
    Ok(())
}
