//! XOR chunks of floats (encoding 1), after the Gorilla paper. Drawn in `docs/format.md`, section
//! "XOR chunk".

use model::{Samples, TimeRange, Timestamp};

use crate::codec::Malformed;
use crate::codec::bits::{BitReader, BitWriter};
use crate::codec::bytes::Put;

/// No window of significant bits has been written yet.
const NO_WINDOW: u8 = 0xff;

/// Where an encoder of values stands: the previous value and the window of its significant bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct XorValue {
    bits: u64,
    leading: u8,
    trailing: u8,
}

impl XorValue {
    pub(super) fn first(value: f64) -> Self {
        Self { bits: value.to_bits(), leading: NO_WINDOW, trailing: 0 }
    }

    pub(super) fn value(self) -> f64 {
        f64::from_bits(self.bits)
    }

    /// Writes `value` as its difference from the previous one.
    #[expect(clippy::cast_possible_truncation, reason = "counts of bits are at most 64")]
    pub(super) fn write(&mut self, writer: &mut BitWriter, out: &mut Vec<u8>, value: f64) {
        let delta = value.to_bits() ^ self.bits;
        self.bits = value.to_bits();
        if delta == 0 {
            writer.bit(out, false);
            return;
        }
        // Five bits hold the number of leading zeros, so more than 31 count as 31.
        let leading = delta.leading_zeros().min(31) as u8;
        let trailing = delta.trailing_zeros() as u8;
        if self.leading != NO_WINDOW && leading >= self.leading && trailing >= self.trailing {
            let width = 64 - u32::from(self.leading) - u32::from(self.trailing);
            writer.bits(out, 0b10, 2);
            writer.bits(out, delta >> self.trailing, width);
            return;
        }
        (self.leading, self.trailing) = (leading, trailing);
        let width = 64 - u32::from(leading) - u32::from(trailing);
        // A width of 64 does not fit six bits and is written as 0, which never occurs otherwise.
        writer.bits(out, 0b11 << 11 | u64::from(leading) << 6 | u64::from(width & 63), 13);
        writer.bits(out, delta >> trailing, width);
    }

    /// Reads the next value.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "fields of five and six bits")]
    pub(super) fn read(&mut self, reader: &mut BitReader<'_>) -> Result<f64, Malformed> {
        if reader.bit()? {
            if reader.bit()? {
                let header = reader.bits(11)?;
                let (leading, width) = ((header >> 6) as u8, (header & 63) as u8);
                let width = if width == 0 { 64 } else { width };
                if leading + width > 64 {
                    return Err(Malformed("XOR window wider than 64 bits"));
                }
                (self.leading, self.trailing) = (leading, 64 - leading - width);
            } else if self.leading == NO_WINDOW {
                return Err(Malformed("XOR window reused before one was set"));
            }
            let width = 64 - u32::from(self.leading) - u32::from(self.trailing);
            self.bits ^= reader.bits(width)? << self.trailing;
        }
        Ok(self.value())
    }
}

/// The state needed to append to an open XOR chunk whose bytes lie elsewhere.
///
/// 40 bytes a series: time 8, step 8, value with window 16, writer and padding 8.
#[derive(Clone, Copy, Debug)]
pub(crate) struct XorAppender {
    ts: Timestamp,
    delta: u64,
    value: XorValue,
    writer: BitWriter,
}

impl XorAppender {
    /// Begins a chunk in `out`, which must be empty, with its first sample.
    pub(crate) fn start(out: &mut Vec<u8>, ts: Timestamp, value: f64) -> Self {
        debug_assert!(out.is_empty());
        out.put_u16(1);
        out.put_varint(ts);
        out.put_f64(value);
        Self { ts, delta: 0, value: XorValue::first(value), writer: BitWriter::with_free(0) }
    }

    /// Appends a sample. `ts` should be later than the last one; any order round-trips.
    pub(crate) fn append(&mut self, out: &mut Vec<u8>, ts: Timestamp, value: f64) {
        let count = count(out);
        let delta = ts.wrapping_sub(self.ts).cast_unsigned();
        if count == 1 {
            out.put_uvarint(delta);
        } else {
            write_delta_of_delta(&mut self.writer, out, delta.wrapping_sub(self.delta).cast_signed());
        }
        self.value.write(&mut self.writer, out, value);
        (self.ts, self.delta) = (ts, delta);
        set_count(out, count + 1);
    }

    /// The time of the last sample.
    pub(crate) fn last_ts(&self) -> Timestamp {
        self.ts
    }

    /// The value of the last sample.
    pub(crate) fn last_value(&self) -> f64 {
        self.value.value()
    }
}

/// The number of samples in a chunk of any encoding: its first two bytes.
pub(crate) fn count(chunk: &[u8]) -> u16 {
    chunk.first_chunk::<2>().map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

pub(super) fn set_count(chunk: &mut [u8], count: u16) {
    if let Some(bytes) = chunk.first_chunk_mut::<2>() {
        *bytes = count.to_be_bytes();
    }
}

/// Whether `value` fits `width` bits in the encoding's lopsided range `-(2^(n-1)-1) ..= 2^(n-1)`.
fn fits(value: i64, width: u32) -> bool {
    -((1 << (width - 1)) - 1) <= value && value <= 1 << (width - 1)
}

fn write_delta_of_delta(writer: &mut BitWriter, out: &mut Vec<u8>, value: i64) {
    let (prefix, prefix_bits, width) = match value {
        0 => return writer.bit(out, false),
        _ if fits(value, 14) => (0b10, 2, 14),
        _ if fits(value, 17) => (0b110, 3, 17),
        _ if fits(value, 20) => (0b1110, 4, 20),
        _ => (0b1111, 4, 64),
    };
    writer.bits(out, prefix, prefix_bits);
    writer.bits(out, value.cast_unsigned(), width);
}

#[inline]
fn read_delta_of_delta(reader: &mut BitReader<'_>) -> Result<i64, Malformed> {
    let width = match reader.ones(4)? {
        0 => return Ok(0),
        1 => 14,
        2 => 17,
        3 => 20,
        _ => return Ok(reader.bits(64)?.cast_signed()),
    };
    let raw = reader.bits(width)?.cast_signed();
    Ok(if raw > 1 << (width - 1) { raw - (1 << width) } else { raw })
}

/// Calls `visit` with the first `limit` samples of the chunk.
#[inline]
pub(crate) fn for_each(
    chunk: &[u8],
    limit: usize,
    mut visit: impl FnMut(Timestamp, f64),
) -> Result<(), Malformed> {
    let Some((head, data)) = chunk.split_first_chunk::<2>() else {
        return Err(Malformed("XOR chunk without a sample count"));
    };
    let count = usize::from(u16::from_be_bytes(*head)).min(limit);
    if count == 0 {
        return Ok(());
    }
    let mut reader = BitReader::new(data);
    let mut ts = reader.varint()?;
    let mut value = XorValue::first(f64::from_bits(reader.bits(64)?));
    visit(ts, value.value());
    if count == 1 {
        return Ok(());
    }
    let mut delta = reader.uvarint()?;
    for index in 1..count {
        if index > 1 {
            delta = delta.wrapping_add(read_delta_of_delta(&mut reader)?.cast_unsigned());
        }
        ts = ts.wrapping_add(delta.cast_signed());
        visit(ts, value.read(&mut reader)?);
    }
    Ok(())
}

/// Appends those of the first `limit` samples that lie in `range` to `into`.
pub(crate) fn decode(
    chunk: &[u8],
    limit: usize,
    range: TimeRange,
    into: &mut Samples,
) -> Result<(), Malformed> {
    for_each(chunk, limit, |ts, value| {
        if range.contains(ts) {
            into.push_float(ts, value);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(samples: &[(i64, u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut appender: Option<XorAppender> = None;
        for &(ts, bits) in samples {
            match &mut appender {
                None => appender = Some(XorAppender::start(&mut out, ts, f64::from_bits(bits))),
                Some(appender) => appender.append(&mut out, ts, f64::from_bits(bits)),
            }
        }
        out
    }

    fn decode_all(chunk: &[u8]) -> Result<Vec<(i64, u64)>, Malformed> {
        let mut out = Vec::new();
        for_each(chunk, usize::MAX, |ts, value| out.push((ts, value.to_bits())))?;
        Ok(out)
    }

    #[test]
    fn steps_at_the_edges_of_every_width() {
        let mut samples = vec![(0i64, 0u64)];
        let mut delta = 0i64;
        for width in [14u32, 17, 20, 40] {
            for dod in
                [1i64 << (width - 1), (1 << (width - 1)) + 1, -((1 << (width - 1)) - 1), -(1 << (width - 1))]
            {
                delta += dod;
                let ts = samples.last().map_or(0, |last| last.0) + delta;
                samples.push((ts, samples.len() as u64));
            }
        }
        assert_eq!(decode_all(&encode(&samples)).unwrap(), samples);
    }

    #[test]
    fn a_known_chunk() {
        // Two samples one second apart of the same value: count, varint 1000, 1.0, uvarint 1000, bit 0.
        let chunk = encode(&[(1000, 1f64.to_bits()), (2000, 1f64.to_bits())]);
        assert_eq!(chunk, [0, 2, 0xd0, 0x0f, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0xe8, 0x07, 0]);
    }

    /// `cargo test --release -p tsdb --lib xor::tests::time -- --ignored --nocapture`
    #[test]
    #[ignore = "a measurement"]
    fn time_a_sample() {
        let samples: Vec<(i64, u64)> = (0..120i64)
            .map(|n| (1_700_000_000_000 + n * 15_000 + n % 3, (1000.0 + (n * n % 37) as f64 * 0.5).to_bits()))
            .collect();
        let chunk = encode(&samples);
        let rounds: u32 = 20_000;
        let mut best = [f64::MAX; 2];
        for _ in 0..5 {
            let start = std::time::Instant::now();
            for _ in 0..rounds {
                std::hint::black_box(encode(std::hint::black_box(&samples)));
            }
            best[0] = best[0].min(start.elapsed().as_secs_f64());
            let (start, mut into) = (std::time::Instant::now(), Samples::default());
            for _ in 0..rounds {
                into.clear();
                decode(std::hint::black_box(&chunk), usize::MAX, TimeRange::ALL, &mut into).unwrap();
                std::hint::black_box(&into);
            }
            best[1] = best[1].min(start.elapsed().as_secs_f64());
        }
        let [encode, decode] = best.map(|seconds| seconds * 1e9 / f64::from(rounds) / 120.0);
        println!("{encode:.1} ns to encode, {decode:.1} ns to decode, {} bytes", chunk.len());
    }

    proptest! {
        #[test]
        fn every_bit_pattern_survives(samples in prop::collection::vec((any::<i64>(), any::<u64>()), 1..200)) {
            prop_assert_eq!(decode_all(&encode(&samples)).unwrap(), samples);
        }

        #[test]
        fn regular_series_survive(
            start in 0i64..2_000_000_000_000,
            steps in prop::collection::vec((14_990i64..15_010, prop_oneof![Just(0u64), 0..1000u64]), 1..240),
        ) {
            let (mut ts, mut value, mut samples) = (start, 0f64, Vec::new());
            for (step, increase) in steps {
                ts += step;
                value += increase as f64;
                samples.push((ts, value.to_bits()));
            }
            prop_assert_eq!(decode_all(&encode(&samples)).unwrap(), samples);
        }

        #[test]
        fn garbage_never_panics(chunk: Vec<u8>) {
            let _ = decode_all(&chunk);
        }
    }
}
