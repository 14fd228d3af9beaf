//! What all histograms of one chunk have in common.

use model::histogram::CUSTOM_BUCKETS_SCHEMA;
use model::{Histogram, HistogramValue, Span};

use super::varbit::{read_signed, read_unsigned, write_signed, write_unsigned};
use crate::codec::Malformed;
use crate::codec::bits::{BitReader, BitWriter};

/// The greatest number of thousandths that is written as an integer.
const THOUSANDTHS_MAX: f64 = 33_554_430.0;

/// The shape of a histogram: everything but its counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Layout {
    pub(super) schema: i32,
    pub(super) zero_threshold: f64,
    pub(super) positive: Vec<Span>,
    pub(super) negative: Vec<Span>,
    pub(super) custom_values: Vec<f64>,
}

impl Layout {
    pub(super) fn of<N>(histogram: &Histogram<N>) -> Self {
        Self {
            schema: histogram.schema,
            zero_threshold: histogram.zero_threshold,
            positive: histogram.positive_spans.clone(),
            negative: histogram.negative_spans.clone(),
            custom_values: histogram.custom_values.clone(),
        }
    }

    /// Whether a histogram has this shape.
    pub(super) fn fits<N>(&self, histogram: &Histogram<N>) -> bool {
        self.schema == histogram.schema
            && self.zero_threshold.to_bits() == histogram.zero_threshold.to_bits()
            && self.positive == histogram.positive_spans
            && self.negative == histogram.negative_spans
            && same_bits(&self.custom_values, &histogram.custom_values)
    }

    /// A histogram of this shape.
    pub(super) fn histogram<N>(&self, counts: Counts<N>) -> Histogram<N> {
        Histogram {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: counts.zero_count,
            count: counts.count,
            sum: counts.sum,
            positive_spans: self.positive.clone(),
            negative_spans: self.negative.clone(),
            positive: counts.positive,
            negative: counts.negative,
            custom_values: self.custom_values.clone(),
            reset_hint: counts.reset_hint,
        }
    }

    pub(super) fn write(&self, writer: &mut BitWriter, out: &mut Vec<u8>) {
        write_zero_threshold(writer, out, self.zero_threshold);
        write_signed(writer, out, i64::from(self.schema));
        for spans in [&self.positive, &self.negative] {
            write_unsigned(writer, out, spans.len() as u64);
            for span in spans {
                write_unsigned(writer, out, u64::from(span.length));
                write_signed(writer, out, i64::from(span.offset));
            }
        }
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            write_unsigned(writer, out, self.custom_values.len() as u64);
            for &bound in &self.custom_values {
                write_custom_bound(writer, out, bound);
            }
        }
    }

    /// Reads a layout from a chunk of `bits_max` bits: no list in it can have more entries than that.
    pub(super) fn read(reader: &mut BitReader<'_>, bits_max: u64) -> Result<Self, Malformed> {
        let zero_threshold = read_zero_threshold(reader)?;
        let schema = i32::try_from(read_signed(reader)?).map_err(|_| Malformed("schema exceeds 32 bits"))?;
        let (positive, negative) = (read_spans(reader, bits_max)?, read_spans(reader, bits_max)?);
        let mut custom_values = Vec::new();
        if schema == CUSTOM_BUCKETS_SCHEMA {
            for _ in 0..count(reader, bits_max)? {
                custom_values.push(read_custom_bound(reader)?);
            }
        }
        Ok(Self { schema, zero_threshold, positive, negative, custom_values })
    }

    pub(super) fn positive_buckets(&self) -> usize {
        buckets(&self.positive).unwrap_or(0)
    }

    pub(super) fn negative_buckets(&self) -> usize {
        buckets(&self.negative).unwrap_or(0)
    }
}

/// What distinguishes histograms of one shape.
pub(super) struct Counts<N> {
    pub(super) zero_count: N,
    pub(super) count: N,
    pub(super) sum: f64,
    pub(super) positive: Vec<N>,
    pub(super) negative: Vec<N>,
    pub(super) reset_hint: model::ResetHint,
}

/// Whether two lists of floats are the same, NaNs by their bits.
fn same_bits(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// The number of buckets of spans, if it is sane.
fn buckets(spans: &[Span]) -> Option<usize> {
    let total: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
    usize::try_from(total).ok().filter(|&total| total <= 1 << 24)
}

/// Whether the lists of buckets are as long as their spans say, so that the histogram can be encoded.
pub(crate) fn is_consistent(value: &HistogramValue) -> bool {
    fn check<N>(h: &Histogram<N>) -> bool {
        buckets(&h.positive_spans) == Some(h.positive.len())
            && buckets(&h.negative_spans) == Some(h.negative.len())
    }
    match value {
        HistogramValue::Int(histogram) => check(histogram),
        HistogramValue::Float(histogram) => check(histogram),
    }
}

/// Whether a histogram is one that a target may send: consistent, of a known schema, with buckets that
/// add up to its count (or to no more, where the sum is NaN and some observations are in no bucket).
pub(crate) fn is_valid(value: &HistogramValue) -> bool {
    fn known<N>(h: &Histogram<N>) -> bool {
        let ascending = h.custom_values.windows(2).all(|pair| pair[0] < pair[1]);
        let gaps = |spans: &[Span]| spans.iter().skip(1).all(|span| span.offset >= 0);
        let custom = h.has_custom_buckets()
            && ascending
            && h.negative_spans.is_empty()
            && h.positive.len() <= h.custom_values.len() + 1;
        let exponential = (-4..=52).contains(&h.schema) && h.custom_values.is_empty();
        (custom || exponential) && gaps(&h.positive_spans) && gaps(&h.negative_spans)
    }
    if !is_consistent(value) {
        return false;
    }
    match value {
        HistogramValue::Int(h) => {
            let buckets = h.positive.iter().chain(&h.negative);
            let total = buckets.fold(u128::from(h.zero_count), |total, &count| total + u128::from(count));
            let count = u128::from(h.count);
            known(h) && if h.sum.is_nan() { total <= count } else { total == count }
        }
        // Sums of floats are inexact, so only signs are checked.
        HistogramValue::Float(h) => {
            let buckets = h.positive.iter().chain(&h.negative).chain([&h.zero_count, &h.count]);
            known(h) && buckets.into_iter().all(|&count| count >= 0.0 || count.is_nan())
        }
    }
}

/// A count of things of which each takes a bit at least.
fn count(reader: &mut BitReader<'_>, bits_max: u64) -> Result<u64, Malformed> {
    let count = read_unsigned(reader)?;
    if count > bits_max { Err(Malformed("count exceeds the chunk")) } else { Ok(count) }
}

fn read_spans(reader: &mut BitReader<'_>, bits_max: u64) -> Result<Vec<Span>, Malformed> {
    let mut spans = Vec::new();
    let mut total = 0;
    for _ in 0..count(reader, bits_max)? {
        let length = count(reader, bits_max)?;
        total += length;
        let length = u32::try_from(length).map_err(|_| Malformed("span exceeds 32 bits"))?;
        let offset =
            i32::try_from(read_signed(reader)?).map_err(|_| Malformed("span offset exceeds 32 bits"))?;
        spans.push(Span { offset, length });
    }
    if total > bits_max {
        return Err(Malformed("more buckets than the chunk can hold"));
    }
    Ok(spans)
}

/// A power of two from 2^-243 to 2^10 takes one byte: its exponent, moved so that 1 is the least.
fn write_zero_threshold(writer: &mut BitWriter, out: &mut Vec<u8>, threshold: f64) {
    if threshold.to_bits() == 0 {
        writer.bits(out, 0, 8);
        return;
    }
    let bits = threshold.to_bits();
    let (exponent, mantissa) = ((bits >> 52 & 0x7ff).cast_signed(), bits & ((1 << 52) - 1));
    // In the form 0.5 * 2^e the exponent is one greater than in 1.0 * 2^e.
    let exponent = exponent - 1022;
    if threshold > 0.0 && mantissa == 0 && (-242..=11).contains(&exponent) {
        writer.bits(out, (exponent + 243).cast_unsigned(), 8);
    } else {
        writer.bits(out, 255, 8);
        writer.bits(out, bits, 64);
    }
}

fn read_zero_threshold(reader: &mut BitReader<'_>) -> Result<f64, Malformed> {
    Ok(match reader.byte()? {
        0 => 0.0,
        255 => f64::from_bits(reader.bits(64)?),
        byte => 2f64.powi(i32::from(byte) - 243 - 1),
    })
}

/// Whole thousandths are written as integers, one greater, so that 0 can announce a raw float.
fn write_custom_bound(writer: &mut BitWriter, out: &mut Vec<u8>, bound: f64) {
    let thousandths = bound * 1000.0;
    let whole = thousandths.round();
    let fits = whole.is_sign_positive() && whole <= THOUSANDTHS_MAX;
    if fits && (whole / 1000.0).to_bits() == bound.to_bits() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "just checked")]
        write_unsigned(writer, out, whole as u64 + 1);
    } else {
        writer.bit(out, false);
        writer.bits(out, bound.to_bits(), 64);
    }
}

fn read_custom_bound(reader: &mut BitReader<'_>) -> Result<f64, Malformed> {
    Ok(match read_unsigned(reader)? {
        0 => f64::from_bits(reader.bits(64)?),
        #[expect(clippy::cast_precision_loss, reason = "written numbers are below 2^25")]
        number => (number - 1) as f64 / 1000.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_and_bounds_keep_their_bits() {
        for value in [
            0.0,
            -0.0,
            1.0,
            0.5,
            0.1,
            2f64.powi(-128),
            2f64.powi(-243),
            2f64.powi(-244),
            1024.0,
            2048.0,
            0.005,
            33_554.43,
            33_554.431,
            -1.0,
            f64::INFINITY,
            f64::NAN,
            5e-324,
        ] {
            let (mut out, mut writer) = (Vec::new(), BitWriter::default());
            write_zero_threshold(&mut writer, &mut out, value);
            write_custom_bound(&mut writer, &mut out, value);
            let mut reader = BitReader::new(&out);
            assert_eq!(read_zero_threshold(&mut reader).unwrap().to_bits(), value.to_bits(), "{value}");
            assert_eq!(read_custom_bound(&mut reader).unwrap().to_bits(), value.to_bits(), "{value}");
        }
        let (mut out, mut writer) = (Vec::new(), BitWriter::default());
        write_zero_threshold(&mut writer, &mut out, 2f64.powi(-128));
        assert_eq!(out, [116], "2^-128 = 0.5 * 2^-127");
    }
}
