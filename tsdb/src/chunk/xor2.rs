//! XOR2 chunks of floats (encoding 4), which have start times where these are known. Drawn in
//! `docs/format.md`, section "XOR2 chunk".

use model::{Timestamp, is_stale_nan};

use super::start::{StartReader, StartWriter};
use super::xor::set_count;
use crate::codec::Malformed;
use crate::codec::bits::{BitReader, BitWriter};
use crate::codec::bytes::{Bytes, Put};

/// Where the byte is that says which samples have start times.
const STARTS_AT: usize = 2;

/// The state needed to append to an open chunk whose bytes lie elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Xor2Appender {
    ts: Timestamp,
    delta: u64,
    /// The bits of the last value that is no staleness marker.
    base: u64,
    /// Leading and trailing zeros of the window written last.
    window: Option<(u32, u32)>,
    starts: StartWriter,
    writer: BitWriter,
    count: u16,
}

impl Xor2Appender {
    /// Begins a chunk in `out`, which must be empty. `start` is 0 where it is unknown.
    pub(crate) fn start(out: &mut Vec<u8>, ts: Timestamp, start: Timestamp, value: f64) -> Self {
        debug_assert!(out.is_empty());
        out.extend_from_slice(&[0, 1, 0]);
        out.put_varint(ts);
        out.put_u64(value.to_bits());
        let mut writer = BitWriter::default();
        let starts = StartWriter::first(&mut writer, (out, STARTS_AT), ts, start);
        let base = if is_stale_nan(value) { 0 } else { value.to_bits() };
        Self { ts, delta: 0, base, window: None, starts, writer, count: 1 }
    }

    /// Appends a sample. `ts` should be later than the last one; any order round-trips.
    pub(crate) fn append(&mut self, out: &mut Vec<u8>, ts: Timestamp, start: Timestamp, value: f64) {
        let delta = ts.wrapping_sub(self.ts).cast_unsigned();
        if self.count == 1 {
            out.put_uvarint(delta);
            self.value(out, value);
        } else {
            self.step_and_value(out, delta.wrapping_sub(self.delta), value);
        }
        if !is_stale_nan(value) {
            self.base = value.to_bits();
        }
        let index = usize::from(self.count);
        self.starts.next(&mut self.writer, (out, STARTS_AT), index, (self.ts, start));
        (self.ts, self.delta) = (ts, delta);
        self.count += 1;
        set_count(out, self.count);
    }

    /// Writes the change of the step, and the value.
    fn step_and_value(&mut self, out: &mut Vec<u8>, change: u64, value: f64) {
        match change.cast_signed() {
            0 if is_stale_nan(value) => return self.writer.bits(out, 0b11111, 5),
            0 if value.to_bits() == self.base => return self.writer.bit(out, false),
            0 => {
                self.writer.bits(out, 0b10, 2);
                return self.changed(out, value.to_bits() ^ self.base, (0, 1), (1, 1));
            }
            -4096..=4095 => self.writer.bits(out, 0b110 << 13 | change & 0x1fff, 16),
            -524_288..=524_287 => self.writer.bits(out, 0b1110 << 20 | change & 0xf_ffff, 24),
            _ => {
                self.writer.bits(out, 0b11110, 5);
                self.writer.bits(out, change, 64);
            }
        }
        self.value(out, value);
    }

    /// Writes a value behind a change of the step.
    fn value(&mut self, out: &mut Vec<u8>, value: f64) {
        match value.to_bits() ^ self.base {
            _ if is_stale_nan(value) => self.writer.bits(out, 0b111, 3),
            0 => self.writer.bit(out, false),
            delta => self.changed(out, delta, (0b10, 2), (0b110, 3)),
        }
    }

    /// Writes the bits that differ, behind one of two heads: for the window used last, or for a new one.
    fn changed(&mut self, out: &mut Vec<u8>, delta: u64, within: (u64, u32), fresh: (u64, u32)) {
        // Five bits hold the number of leading zeros, so more than 31 count as 31.
        let (leading, trailing) = (delta.leading_zeros().min(31), delta.trailing_zeros());
        if let Some(window) = self.window.filter(|window| leading >= window.0 && trailing >= window.1) {
            self.writer.bits(out, within.0, within.1);
            return self.writer.bits(out, delta >> window.1, 64 - window.0 - window.1);
        }
        self.window = Some((leading, trailing));
        let width = 64 - leading - trailing;
        self.writer.bits(out, fresh.0, fresh.1);
        // A width of 64 does not fit six bits and is written as 0, which never occurs otherwise.
        self.writer.bits(out, u64::from(leading) << 6 | u64::from(width & 63), 11);
        self.writer.bits(out, delta >> trailing, width);
    }

    /// The time of the last sample.
    pub(crate) fn last_ts(&self) -> Timestamp {
        self.ts
    }

    /// The number of samples.
    pub(crate) fn count(&self) -> u16 {
        self.count
    }
}

/// Where the values are: the last one that is no staleness marker, and the window of its significant bits.
struct Values {
    base: u64,
    window: Option<(u32, u32)>,
}

impl Values {
    /// A value behind a change of the step: `0` as before, `10` within the window, `110` with a new one, `111` stale.
    fn read(&mut self, reader: &mut BitReader<'_>) -> Result<u64, Malformed> {
        match reader.ones(3)? {
            0 => Ok(self.base),
            1 => self.within(reader),
            2 => self.with_window(reader),
            _ => Ok(model::STALE_NAN),
        }
    }

    /// A value that is another one, at the usual step: `0` within the window, `1` with a new one.
    fn read_other(&mut self, reader: &mut BitReader<'_>) -> Result<u64, Malformed> {
        if reader.bits(1)? == 0 { self.within(reader) } else { self.with_window(reader) }
    }

    fn with_window(&mut self, reader: &mut BitReader<'_>) -> Result<u64, Malformed> {
        let [leading, width] =
            [reader.bits(5)?, reader.bits(6)?].map(|bits| u32::from(bits.to_le_bytes()[0]));
        let width = if width == 0 { 64 } else { width };
        if leading + width > 64 {
            return Err(Malformed("XOR2 window wider than 64 bits"));
        }
        self.window = Some((width, 64 - leading - width));
        self.within(reader)
    }

    fn within(&mut self, reader: &mut BitReader<'_>) -> Result<u64, Malformed> {
        let (width, trailing) = self.window.ok_or(Malformed("XOR2 window reused before one was set"))?;
        self.base ^= reader.bits(width)? << trailing;
        Ok(self.base)
    }
}

/// A change of the step in `width` bits.
fn change(reader: &mut BitReader<'_>, width: u32) -> Result<u64, Malformed> {
    let raw = reader.bits(width)?;
    Ok(((raw << (64 - width)).cast_signed() >> (64 - width)).cast_unsigned())
}

/// Calls `visit` with time, start time (0 where it is unknown) and value of the first `limit` samples of the
/// chunk.
pub(super) fn for_each(
    chunk: &[u8],
    limit: usize,
    mut visit: impl FnMut(Timestamp, Timestamp, f64),
) -> Result<(), Malformed> {
    let Some((&[high, low, starts], data)) = chunk.split_first_chunk::<3>() else {
        return Err(Malformed("XOR2 chunk without a header"));
    };
    let count = usize::from(u16::from_be_bytes([high, low])).min(limit);
    let (mut bytes, mut starts) = (Bytes::new(data), StartReader::new(starts));
    if count == 0 {
        return Ok(());
    }
    let (mut ts, first) = (bytes.varint()?, bytes.u64()?);
    // All of the first sample is whole bytes.
    visit(ts, starts.first(&mut BitReader::new(bytes.rest()), ts)?, f64::from_bits(first));
    if count == 1 {
        return Ok(());
    }
    if starts.has_first() {
        bytes.varint()?;
    }
    let mut delta = bytes.uvarint()?;
    let base = if first == model::STALE_NAN { 0 } else { first };
    let mut values = Values { base, window: None };
    let mut reader = BitReader::new(bytes.rest());
    for index in 1..count {
        let value = match if index == 1 { 6 } else { reader.ones(5)? } {
            0 => values.base,
            1 => values.read_other(&mut reader)?,
            5 => model::STALE_NAN,
            6 => values.read(&mut reader)?,
            ones => {
                delta = delta.wrapping_add(change(&mut reader, [13, 20, 64][ones as usize - 2])?);
                values.read(&mut reader)?
            }
        };
        let start = starts.next(&mut reader, index, ts)?;
        ts = ts.wrapping_add(delta.cast_signed());
        visit(ts, start, f64::from_bits(value));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Time, start time, bits.
    type Sample = (i64, i64, u64);

    fn encode(samples: &[Sample]) -> Vec<u8> {
        let (mut out, mut appender) = (Vec::new(), None::<Xor2Appender>);
        for &(ts, start, bits) in samples {
            match &mut appender {
                None => appender = Some(Xor2Appender::start(&mut out, ts, start, f64::from_bits(bits))),
                Some(appender) => appender.append(&mut out, ts, start, f64::from_bits(bits)),
            }
        }
        out
    }

    fn decode(chunk: &[u8]) -> Result<Vec<Sample>, Malformed> {
        let mut out = Vec::new();
        for_each(chunk, usize::MAX, |ts, start, value| out.push((ts, start, value.to_bits())))?;
        Ok(out)
    }

    #[test]
    fn a_known_chunk() {
        // Three samples of 1.0 a second apart, all of one start time: 500.
        let one = 1f64.to_bits();
        let chunk = encode(&[(1000, 500, one), (2000, 500, one), (3000, 500, one)]);
        // Count, the first is known; varints 1000 and 500 with the value between; uvarint 1000; two zero bits.
        let expected = [0, 3, 0x80, 0xd0, 0x0f, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0xe8, 0x07, 0xe8, 0x07, 0];
        assert_eq!(chunk, expected);
        // The third begins anew at 2500: 2000 - 2500 in twelve bits behind 11110.
        let chunk = encode(&[(1000, 500, one), (2000, 500, one), (3000, 2500, one)]);
        assert_eq!(chunk[2], 0x82);
        assert_eq!(chunk[expected.len() - 1..], [0b0011_1101, 0b1100_0001, 0b1000_0000]);
    }

    #[test]
    fn start_times_that_change_late_are_written_in_time() {
        let samples: Vec<Sample> = (0..200).map(|n| (n * 10, if n < 150 { 7 } else { n }, 0)).collect();
        let chunk = encode(&samples);
        assert_eq!(chunk[2], 0xff);
        assert_eq!(decode(&chunk).unwrap(), samples);
    }

    proptest! {
        #[test]
        fn samples_come_back_with_and_without_start_times(
            begin in any::<i64>(),
            steps in prop::collection::vec(
                (
                    prop_oneof![Just(15_000i64), 14_000i64..16_000, -600_000i64..600_000, any::<i64>()],
                    prop_oneof![3 => Just(None), 1 => (-100i64..100_000).prop_map(Some), 1 => any::<i64>().prop_map(Some)],
                    prop_oneof![any::<u64>(), Just(model::STALE_NAN), (0u64..50).prop_map(|n| (n as f64).to_bits())],
                ),
                1..230,
            ),
            known: bool,
        ) {
            let (mut ts, mut start, mut samples) = (begin, 0, Vec::new());
            for (step, new, bits) in steps {
                start = new.filter(|_| known).map_or(start, |back| ts.wrapping_sub(back));
                samples.push((ts, start, bits));
                ts = ts.wrapping_add(step);
            }
            prop_assert_eq!(decode(&encode(&samples)).unwrap(), samples);
        }

        #[test]
        fn garbage_never_panics(chunk: Vec<u8>) {
            let _ = decode(&chunk);
        }
    }
}
