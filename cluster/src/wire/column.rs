//! Columns of samples in few bytes: a counter scraped every 15 seconds takes 1 byte a time and 3 to 4 a value.

use std::sync::Arc;

use model::{FloatHistogram, ResetHint, Samples, Span, Timestamp};

use super::{Reader, WireError, Writer};

const HINTS: [ResetHint; 4] = [ResetHint::Unknown, ResetHint::Reset, ResetHint::NotReset, ResetHint::Gauge];

pub(super) fn push_samples(out: &mut Writer, samples: &Samples) {
    out.varint(samples.ts.len() as u64);
    push_times(out, &samples.ts);
    let mut before = 0u64;
    for value in &samples.values {
        push_bits(out, value.to_bits() ^ before);
        before = value.to_bits();
    }
    push_starts(out, &samples.start_ts);
    out.varint(samples.histogram_ts.len() as u64);
    push_times(out, &samples.histogram_ts);
    samples.histograms.iter().for_each(|histogram| push_histogram(out, histogram));
    push_starts(out, &samples.histogram_start_ts);
}

pub(super) fn read_samples(from: &mut Reader<'_>) -> Result<Samples, WireError> {
    let mut samples = Samples::default();
    let count = from.count()?;
    read_times(from, count, &mut samples.ts)?;
    let mut before = 0u64;
    for _ in 0..count {
        before ^= read_bits(from)?;
        samples.values.push(f64::from_bits(before));
    }
    read_starts(from, count, &mut samples.start_ts)?;
    let count = from.count()?;
    read_times(from, count, &mut samples.histogram_ts)?;
    for _ in 0..count {
        samples.histograms.push(Arc::new(read_histogram(from)?));
    }
    read_starts(from, count, &mut samples.histogram_start_ts)?;
    Ok(samples)
}

fn push_times(out: &mut Writer, times: &[Timestamp]) {
    let (mut before, mut step) = (0i64, 0i64);
    for (at, ts) in times.iter().enumerate() {
        let difference = ts.wrapping_sub(before);
        out.zigzag(if at < 2 { difference } else { difference.wrapping_sub(step) });
        (before, step) = (*ts, difference);
    }
}

fn read_times(from: &mut Reader<'_>, count: usize, out: &mut Vec<Timestamp>) -> Result<(), WireError> {
    let (mut before, mut step) = (0i64, 0i64);
    for at in 0..count {
        let difference = if at < 2 { from.zigzag()? } else { from.zigzag()?.wrapping_add(step) };
        let ts = before.wrapping_add(difference);
        if at > 0 && ts <= before {
            return Err(WireError("times do not ascend"));
        }
        out.push(ts);
        (before, step) = (ts, difference);
    }
    Ok(())
}

fn push_starts(out: &mut Writer, starts: &[Timestamp]) {
    out.byte((!starts.is_empty()).into());
    starts.iter().for_each(|start| out.zigzag(*start));
}

fn read_starts(from: &mut Reader<'_>, count: usize, out: &mut Vec<Timestamp>) -> Result<(), WireError> {
    if from.byte()? == 0 {
        return Ok(());
    }
    for _ in 0..count {
        out.push(from.zigzag()?);
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "at most eight bytes are zero")]
fn push_bits(out: &mut Writer, bits: u64) {
    if bits == 0 {
        return out.byte(0x80);
    }
    let (top, bottom) = (bits.leading_zeros() / 8, bits.trailing_zeros() / 8);
    out.byte((top << 4 | bottom) as u8);
    let bytes = bits.to_le_bytes();
    out.0.extend_from_slice(&bytes[bottom as usize..8 - top as usize]);
}

fn read_bits(from: &mut Reader<'_>) -> Result<u64, WireError> {
    let head = from.byte()?;
    let (top, bottom) = (usize::from(head >> 4), usize::from(head & 15));
    if (top, bottom) == (8, 0) {
        return Ok(0);
    }
    if top + bottom > 7 {
        return Err(WireError("a value has no bytes"));
    }
    let mut bytes = [0; 8];
    bytes[bottom..8 - top].copy_from_slice(from.bytes(8 - top - bottom)?);
    Ok(u64::from_le_bytes(bytes))
}

fn push_histogram(out: &mut Writer, histogram: &FloatHistogram) {
    out.zigzag(histogram.schema.into());
    let hint = HINTS.iter().position(|hint| *hint == histogram.reset_hint).unwrap_or(0);
    out.byte(u8::try_from(hint).unwrap_or(0));
    for value in [histogram.zero_threshold, histogram.zero_count, histogram.count, histogram.sum] {
        out.double(value);
    }
    for spans in [&histogram.positive_spans, &histogram.negative_spans] {
        out.list(spans, |out, span| {
            out.zigzag(span.offset.into());
            out.varint(span.length.into());
        });
    }
    for values in [&histogram.positive, &histogram.negative, &histogram.custom_values] {
        out.list(values, |out, value| out.double(*value));
    }
}

fn read_histogram(from: &mut Reader<'_>) -> Result<FloatHistogram, WireError> {
    let narrow = |value: i64| i32::try_from(value).map_err(|_| WireError("a number is too large"));
    let schema = narrow(from.zigzag()?)?;
    let reset_hint = *HINTS.get(usize::from(from.byte()?)).ok_or(WireError("a reset hint is not known"))?;
    let mut double = || from.double();
    let (zero_threshold, zero_count, count, sum) = (double()?, double()?, double()?, double()?);
    let mut spans = || {
        from.list(|from| {
            let offset = narrow(from.zigzag()?)?;
            let length = u32::try_from(from.varint()?).map_err(|_| WireError("a number is too large"))?;
            Ok(Span { offset, length })
        })
    };
    let (positive_spans, negative_spans) = (spans()?, spans()?);
    let mut doubles = || from.list(Reader::double);
    let (positive, negative, custom_values) = (doubles()?, doubles()?, doubles()?);
    let buckets = |spans: &[Span]| spans.iter().map(|span| u64::from(span.length)).sum::<u64>();
    if buckets(&positive_spans) != positive.len() as u64 || buckets(&negative_spans) != negative.len() as u64
    {
        return Err(WireError("spans and buckets of a histogram differ"));
    }
    Ok(FloatHistogram {
        schema,
        zero_threshold,
        zero_count,
        count,
        sum,
        positive_spans,
        negative_spans,
        positive,
        negative,
        custom_values,
        reset_hint,
    })
}
