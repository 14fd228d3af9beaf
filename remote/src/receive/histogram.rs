//! Native histograms of remote write; the message is the same in 1.0 and 2.0.

use model::{Histogram, HistogramValue, ResetHint, Span};

use super::request::Fault;
use crate::wire::{Content, Fields, WireError, packed, packed_doubles, unzigzag};

/// The message with its oneofs still open.
#[derive(Default)]
struct Message {
    count_int: Option<u64>,
    count_float: Option<f64>,
    zero_count_int: u64,
    zero_count_float: f64,
    sum: f64,
    schema: i32,
    zero_threshold: f64,
    negative_spans: Vec<Span>,
    negative_deltas: Vec<i64>,
    negative_counts: Vec<f64>,
    positive_spans: Vec<Span>,
    positive_deltas: Vec<i64>,
    positive_counts: Vec<f64>,
    reset_hint: ResetHint,
    custom_values: Vec<f64>,
}

/// Reads a histogram with its timestamp and the time from which on it counts, 0 if that is not said.
pub(crate) fn read(bytes: &[u8]) -> Result<((i64, i64), HistogramValue), Fault> {
    let mut message = Message::default();
    let (mut ts, mut start_ts) = (0, 0);
    let mut fields = Fields::new(bytes);
    while let Some((number, content)) = fields.next()? {
        match number {
            15 => ts = content.int64()?,
            17 => start_ts = content.int64()?,
            _ => message.take(number, content)?,
        }
    }
    Ok(((ts, start_ts), message.finish()?))
}

impl Message {
    fn take(&mut self, number: u32, content: Content<'_>) -> Result<(), WireError> {
        match number {
            1 => self.count_int = Some(content.uint64()?),
            2 => self.count_float = Some(content.double()?),
            3 => self.sum = content.double()?,
            4 => self.schema = content.sint32()?,
            5 => self.zero_threshold = content.double()?,
            6 => self.zero_count_int = content.uint64()?,
            7 => self.zero_count_float = content.double()?,
            8 => self.negative_spans.push(span(content.bytes()?)?),
            9 => packed(content, &mut self.negative_deltas, unzigzag)?,
            10 => packed_doubles(content, &mut self.negative_counts)?,
            11 => self.positive_spans.push(span(content.bytes()?)?),
            12 => packed(content, &mut self.positive_deltas, unzigzag)?,
            13 => packed_doubles(content, &mut self.positive_counts)?,
            14 => {
                self.reset_hint = match content.uint64()? {
                    1 => ResetHint::Reset,
                    2 => ResetHint::NotReset,
                    3 => ResetHint::Gauge,
                    _ => ResetHint::Unknown,
                }
            }
            16 => packed_doubles(content, &mut self.custom_values)?,
            _ => {}
        }
        Ok(())
    }

    /// A histogram of integers, unless its count is a float.
    fn finish(self) -> Result<HistogramValue, Fault> {
        let is_float = self.count_float.is_some() && self.count_int.is_none();
        if is_float {
            return Ok(HistogramValue::Float(Histogram {
                schema: self.schema,
                zero_threshold: self.zero_threshold,
                zero_count: self.zero_count_float,
                count: self.count_float.unwrap_or(0.0),
                sum: self.sum,
                positive_spans: self.positive_spans,
                negative_spans: self.negative_spans,
                positive: self.positive_counts,
                negative: self.negative_counts,
                custom_values: self.custom_values,
                reset_hint: self.reset_hint,
            }));
        }
        Ok(HistogramValue::Int(Histogram {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count_int,
            count: self.count_int.unwrap_or(0),
            sum: self.sum,
            positive: absolute(&self.positive_deltas)?,
            negative: absolute(&self.negative_deltas)?,
            positive_spans: self.positive_spans,
            negative_spans: self.negative_spans,
            custom_values: self.custom_values,
            reset_hint: self.reset_hint,
        }))
    }
}

fn span(message: &[u8]) -> Result<Span, WireError> {
    let mut span = Span::default();
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => span.offset = content.sint32()?,
            2 => span.length = content.uint32()?,
            _ => {}
        }
    }
    Ok(span)
}

/// Running sums; none may be negative.
fn absolute(deltas: &[i64]) -> Result<Vec<u64>, Fault> {
    let mut count = 0i64;
    let mut out = Vec::with_capacity(deltas.len());
    for delta in deltas {
        let next = count.checked_add(*delta).and_then(|sum| u64::try_from(sum).ok());
        let next = next.ok_or_else(|| Fault::Series("a histogram bucket has a negative count".to_owned()))?;
        count = next.cast_signed();
        out.push(next);
    }
    Ok(out)
}
