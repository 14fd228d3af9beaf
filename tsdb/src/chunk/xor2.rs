//! XOR2 chunks of floats (encoding 4), which Prometheus writes where start times are stored. Drawn in
//! `docs/format.md`, section "XOR2 chunk".
//!
//! They are read, and kept as they are where blocks are compacted; start times are read over. What is
//! encoded here anew is encoded as XOR.

use model::Timestamp;

use super::varbit::read_signed;
use crate::codec::Malformed;
use crate::codec::bits::BitReader;
use crate::codec::bytes::Bytes;

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

/// Calls `visit` with the first `limit` samples of the chunk.
pub(super) fn for_each(
    chunk: &[u8],
    limit: usize,
    mut visit: impl FnMut(Timestamp, f64),
) -> Result<(), Malformed> {
    let Some((&[high, low, start_times], data)) = chunk.split_first_chunk::<3>() else {
        return Err(Malformed("XOR2 chunk without a header"));
    };
    let count = usize::from(u16::from_be_bytes([high, low])).min(limit);
    let (first_known, changes_from) = (start_times & 0x80 != 0, usize::from(start_times & 0x7f));
    let mut bytes = Bytes::new(data);
    if count == 0 {
        return Ok(());
    }
    let (mut ts, first) = (bytes.varint()?, bytes.u64()?);
    if first_known {
        bytes.varint()?;
    }
    visit(ts, f64::from_bits(first));
    if count == 1 {
        return Ok(());
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
        ts = ts.wrapping_add(delta.cast_signed());
        visit(ts, f64::from_bits(value));
        if changes_from > 0 && index >= changes_from {
            read_signed(&mut reader)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::varbit::write_signed;
    use super::*;
    use crate::codec::bits::BitWriter;
    use crate::codec::bytes::Put;
    use proptest::prelude::*;

    /// Writes as the format is described, with a start time for every sample where there are any.
    fn encode(samples: &[(i64, u64)], start_times: bool) -> Vec<u8> {
        let mut out = u16::try_from(samples.len()).unwrap().to_be_bytes().to_vec();
        out.push(if start_times { 0x81 } else { 0 });
        let (first_ts, first) = samples[0];
        out.put_varint(first_ts);
        out.put_u64(first);
        if start_times {
            out.put_varint(7);
        }
        let (mut writer, mut delta) = (BitWriter::default(), 0u64);
        let mut base = if first == model::STALE_NAN { 0 } else { first };
        let mut window: Option<(u32, u32)> = None;
        for (index, pair) in samples.windows(2).enumerate() {
            let step = pair[1].0.wrapping_sub(pair[0].0).cast_unsigned();
            let (dod, value) = (step.wrapping_sub(delta).cast_signed(), pair[1].1);
            delta = step;
            let stale = value == model::STALE_NAN;
            let xor = value ^ base;
            let known = index > 0 && dod == 0;
            if index == 0 {
                out.put_uvarint(step);
            } else if dod == 0 {
                match (stale, xor) {
                    (true, _) => writer.bits(&mut out, 0b11111, 5),
                    (false, 0) => writer.bits(&mut out, 0, 1),
                    _ => writer.bits(&mut out, 0b10, 2),
                }
            } else if (-4096..=4095).contains(&dod) {
                writer.bits(&mut out, 0b110 << 13 | dod.cast_unsigned() & 0x1fff, 16);
            } else if (-524_288..=524_287).contains(&dod) {
                writer.bits(&mut out, 0b1110 << 20 | dod.cast_unsigned() & 0xf_ffff, 24);
            } else {
                writer.bits(&mut out, 0b11110, 5);
                writer.bits(&mut out, dod.cast_unsigned(), 64);
            }
            if !known && (stale || xor == 0) {
                writer.bits(&mut out, if stale { 0b111 } else { 0 }, if stale { 3 } else { 1 });
            } else if !stale && xor != 0 {
                let (leading, trailing) = (xor.leading_zeros().min(31), xor.trailing_zeros());
                match window.filter(|w| leading >= w.0 && trailing >= w.1) {
                    Some(w) => {
                        writer.bits(&mut out, if known { 0 } else { 0b10 }, if known { 1 } else { 2 });
                        writer.bits(&mut out, xor >> w.1, 64 - w.0 - w.1);
                    }
                    None => {
                        window = Some((leading, trailing));
                        writer.bits(&mut out, if known { 1 } else { 0b110 }, if known { 1 } else { 3 });
                        let width = 64 - leading - trailing;
                        writer.bits(&mut out, u64::from(leading) << 6 | u64::from(width & 63), 11);
                        writer.bits(&mut out, xor >> trailing, width);
                    }
                }
            }
            if !stale {
                base = value;
            }
            if start_times {
                write_signed(&mut writer, &mut out, i64::try_from(index).unwrap() * 100 - 300);
            }
        }
        out
    }

    fn decode(chunk: &[u8]) -> Result<Vec<(i64, u64)>, Malformed> {
        let mut out = Vec::new();
        for_each(chunk, usize::MAX, |ts, value| out.push((ts, value.to_bits())))?;
        Ok(out)
    }

    proptest! {
        #[test]
        fn samples_come_back_with_and_without_start_times(
            start in any::<i64>(),
            steps in prop::collection::vec(
                (
                    prop_oneof![Just(15_000i64), 14_000i64..16_000, -600_000i64..600_000, any::<i64>()],
                    prop_oneof![any::<u64>(), Just(model::STALE_NAN), (0u64..50).prop_map(|n| (n as f64).to_bits())],
                ),
                1..150,
            ),
            start_times: bool,
        ) {
            let mut samples = vec![(start, steps[0].1)];
            for (step, value) in steps {
                samples.push((samples.last().unwrap().0.wrapping_add(step), value));
            }
            prop_assert_eq!(decode(&encode(&samples, start_times)).unwrap(), samples);
        }

        #[test]
        fn garbage_never_panics(chunk: Vec<u8>) {
            let _ = decode(&chunk);
        }
    }
}
