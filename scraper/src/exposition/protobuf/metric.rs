//! One metric of a family.

use std::borrow::Cow;

use model::{FloatHistogram, HistogramValue, IntHistogram, ResetHint, Span};

use super::super::wire::{Field, Malformed, Reader};
use super::{number, zigzag};
use crate::resolution::SCHEMA_READ_MAX;

/// The key of a label in a metric: field 1, with a length.
const LABEL: u8 = 1 << 3 | 2;

/// Appends a label as it stands in a message.
fn push_field(out: &mut Vec<u8>, label: &[u8]) {
    out.push(LABEL);
    let mut length = label.len();
    while length >= 0x80 {
        out.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    out.push(length.to_le_bytes()[0]);
    out.extend_from_slice(label);
}

/// A metric. Its labels are the fields 1 of `labels`.
#[derive(Debug)]
pub(super) struct Metric<'a> {
    pub(super) labels: Cow<'a, [u8]>,
    pub(super) ts: Option<i64>,
    pub(super) start_ts: Option<i64>,
    pub(super) points: Points<'a>,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, on the stack")]
pub(super) enum Points<'a> {
    None,
    Single { value: f64, exemplar: Option<RawExemplar<'a>> },
    Summary { count: u64, sum: f64, quantiles: Vec<(f64, f64)> },
    Histogram { classic: Classic<'a>, native: Option<Native>, exemplars: Vec<RawExemplar<'a>> },
}

/// An exemplar; its labels are the fields 1 of `message`.
#[derive(Debug)]
pub(super) struct RawExemplar<'a> {
    pub(super) message: &'a [u8],
    pub(super) value: f64,
    pub(super) ts: Option<i64>,
}

#[derive(Debug, Default)]
pub(super) struct Classic<'a> {
    pub(super) count: f64,
    pub(super) sum: f64,
    pub(super) buckets: Vec<Bucket<'a>>,
}

#[derive(Debug, Default)]
pub(super) struct Bucket<'a> {
    pub(super) upper_bound: f64,
    pub(super) count: f64,
    pub(super) exemplar: Option<RawExemplar<'a>>,
}

/// A native histogram in the coding of the message.
#[derive(Debug, Default)]
pub(super) struct Native {
    schema: i32,
    zero_threshold: f64,
    zero_count: u64,
    zero_count_float: f64,
    count: u64,
    count_float: f64,
    sum: f64,
    positive: Side,
    negative: Side,
}

#[derive(Debug, Default)]
struct Side {
    spans: Vec<Span>,
    deltas: Vec<u64>,
    counts: Vec<f64>,
}

impl<'a> Metric<'a> {
    pub(super) fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(message);
        while let Some((&LABEL, rest)) = reader.0.split_first() {
            reader = Reader(rest);
            let length = reader.varint()?;
            reader.take(length)?;
        }
        let labels = Cow::Borrowed(&message[..message.len() - reader.0.len()]);
        let mut metric = Self { labels, ts: None, start_ts: None, points: Points::None };
        while let Some((number, field)) = reader.field()? {
            match number {
                // One that stands behind the value.
                1 => push_field(metric.labels.to_mut(), field.bytes()?),
                2 | 3 | 5 => metric.points = metric.single(field.bytes()?)?,
                4 => metric.points = metric.summary(field.bytes()?)?,
                6 => metric.ts = Some(field.unsigned()?.cast_signed()).filter(|&ts| ts != 0),
                7 => metric.points = metric.histogram(field.bytes()?)?,
                _ => {}
            }
        }
        Ok(metric)
    }

    /// A gauge, counter or untyped value; only counters have more than a value.
    fn single(&mut self, message: &'a [u8]) -> Result<Points<'a>, Malformed> {
        let (mut value, mut exemplar) = (0.0, None);
        let mut reader = Reader(message);
        while let Some((number, field)) = reader.field()? {
            match number {
                1 => value = field.double()?,
                2 => exemplar = Some(RawExemplar::read(field.bytes()?)?),
                3 => self.start_ts = Some(timestamp(field.bytes()?)?),
                _ => {}
            }
        }
        Ok(Points::Single { value, exemplar })
    }

    fn summary(&mut self, message: &'a [u8]) -> Result<Points<'a>, Malformed> {
        let (mut count, mut sum, mut quantiles) = (0, 0.0, Vec::new());
        let mut reader = Reader(message);
        while let Some((number, field)) = reader.field()? {
            match number {
                1 => count = field.unsigned()?,
                2 => sum = field.double()?,
                3 => {
                    let (mut pair, mut quantile) = (Reader(field.bytes()?), (0.0, 0.0));
                    while let Some((number, field)) = pair.field()? {
                        match number {
                            1 => quantile.0 = field.double()?,
                            2 => quantile.1 = field.double()?,
                            _ => {}
                        }
                    }
                    quantiles.push(quantile);
                }
                4 => self.start_ts = Some(timestamp(field.bytes()?)?),
                _ => {}
            }
        }
        Ok(Points::Summary { count, sum, quantiles })
    }

    fn histogram(&mut self, message: &'a [u8]) -> Result<Points<'a>, Malformed> {
        let (mut classic, mut native, mut exemplars) = (Classic::default(), Native::default(), Vec::new());
        let mut reader = Reader(message);
        while let Some((number, field)) = reader.field()? {
            match number {
                1 => native.count = field.unsigned()?,
                2 => native.sum = field.double()?,
                3 => classic.buckets.push(Bucket::read(field.bytes()?)?),
                4 => native.count_float = field.double()?,
                5 => native.schema = i32::try_from(zigzag(field.unsigned()?)).map_err(|_| Malformed)?,
                6 => native.zero_threshold = field.double()?,
                7 => native.zero_count = field.unsigned()?,
                8 => native.zero_count_float = field.double()?,
                9 => native.negative.spans.push(span(field.bytes()?)?),
                10 => Reader::push_varints(field, &mut native.negative.deltas)?,
                11 => Reader::push_doubles(field, &mut native.negative.counts)?,
                12 => native.positive.spans.push(span(field.bytes()?)?),
                13 => Reader::push_varints(field, &mut native.positive.deltas)?,
                14 => Reader::push_doubles(field, &mut native.positive.counts)?,
                15 => self.start_ts = Some(timestamp(field.bytes()?)?),
                16 => exemplars.push(RawExemplar::read(field.bytes()?)?),
                _ => {}
            }
        }
        classic.sum = native.sum;
        classic.count =
            if native.count_float > 0.0 { native.count_float } else { self::number(native.count) };
        Ok(Points::Histogram { classic, native: native.is_present().then_some(native), exemplars })
    }
}

impl<'a> RawExemplar<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut exemplar = Self { message, value: 0.0, ts: None };
        let mut reader = Reader(message);
        while let Some((number, field)) = reader.field()? {
            match number {
                2 => exemplar.value = field.double()?,
                3 => exemplar.ts = Some(timestamp(field.bytes()?)?),
                _ => {}
            }
        }
        Ok(exemplar)
    }
}

impl<'a> Bucket<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut bucket = Self::default();
        let mut reader = Reader(message);
        while let Some((field_number, field)) = reader.field()? {
            match field_number {
                1 => bucket.count = number(field.unsigned()?),
                2 => bucket.upper_bound = field.double()?,
                3 => bucket.exemplar = Some(RawExemplar::read(field.bytes()?)?),
                4 => {
                    let count = field.double()?;
                    if count > 0.0 {
                        bucket.count = count;
                    }
                }
                _ => {}
            }
        }
        Ok(bucket)
    }
}

impl Native {
    /// A span or anything about the zero bucket makes a histogram native.
    fn is_present(&self) -> bool {
        !self.positive.spans.is_empty()
            || !self.negative.spans.is_empty()
            || self.zero_threshold > 0.0
            || self.zero_count > 0
            || self.zero_count_float > 0.0
    }

    pub(super) fn decode(&self, reset_hint: ResetHint) -> Result<HistogramValue, Malformed> {
        if !(-4..=SCHEMA_READ_MAX).contains(&self.schema) {
            return Err(Malformed);
        }
        let (positive_spans, negative_spans) = (self.positive.spans.clone(), self.negative.spans.clone());
        let custom_values = Vec::new();
        let (schema, zero_threshold, sum) = (self.schema, self.zero_threshold, self.sum);
        if self.count_float > 0.0 || self.zero_count_float > 0.0 {
            return Ok(HistogramValue::Float(FloatHistogram {
                schema,
                zero_threshold,
                zero_count: self.zero_count_float,
                count: self.count_float,
                sum,
                positive: self.positive.float_counts()?,
                negative: self.negative.float_counts()?,
                positive_spans,
                negative_spans,
                custom_values,
                reset_hint,
            }));
        }
        Ok(HistogramValue::Int(IntHistogram {
            schema,
            zero_threshold,
            zero_count: self.zero_count,
            count: self.count,
            sum,
            positive: self.positive.int_counts()?,
            negative: self.negative.int_counts()?,
            positive_spans,
            negative_spans,
            custom_values,
            reset_hint,
        }))
    }
}

impl Side {
    fn check(&self, buckets: usize) -> Result<(), Malformed> {
        let spanned: u64 = self.spans.iter().map(|span| u64::from(span.length)).sum();
        // Only the first span may begin anywhere; the others follow it.
        let ordered = self.spans.iter().skip(1).all(|span| span.offset >= 0);
        if spanned == buckets as u64 && ordered { Ok(()) } else { Err(Malformed) }
    }

    fn float_counts(&self) -> Result<Vec<f64>, Malformed> {
        self.check(self.counts.len())?;
        if self.counts.iter().any(|count| *count < 0.0) { Err(Malformed) } else { Ok(self.counts.clone()) }
    }

    /// Each count is coded as the difference to the one before.
    fn int_counts(&self) -> Result<Vec<u64>, Malformed> {
        self.check(self.deltas.len())?;
        let mut count = 0i64;
        let mut absolute = |delta: &u64| {
            count = count.checked_add(zigzag(*delta)).ok_or(Malformed)?;
            u64::try_from(count).map_err(|_| Malformed)
        };
        self.deltas.iter().map(&mut absolute).collect()
    }
}

fn span(message: &[u8]) -> Result<Span, Malformed> {
    let mut span = Span::default();
    let mut reader = Reader(message);
    while let Some((number, field)) = reader.field()? {
        match number {
            1 => span.offset = i32::try_from(zigzag(field.unsigned()?)).map_err(|_| Malformed)?,
            2 => span.length = u32::try_from(field.unsigned()?).map_err(|_| Malformed)?,
            _ => {}
        }
    }
    Ok(span)
}

/// A `google.protobuf.Timestamp` in milliseconds.
fn timestamp(message: &[u8]) -> Result<i64, Malformed> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    let mut reader = Reader(message);
    while let Some((number, field)) = reader.field()? {
        match (number, field) {
            (1, Field::Varint(value)) => seconds = value.cast_signed(),
            (2, Field::Varint(value)) => nanos = value.cast_signed(),
            _ => {}
        }
    }
    seconds.checked_mul(1_000).and_then(|ms| ms.checked_add(nanos / 1_000_000)).ok_or(Malformed)
}
