//! Numbers of variable width in bit streams. Drawn in `docs/format.md`, section "Histogram chunks".

use crate::codec::Malformed;
use crate::codec::bits::{BitReader, BitWriter};

/// Widths by the number of one-bits in front; a width of 0 stands for the number 0.
const WIDTHS: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];
/// The number of one-bits in front of the greatest width, which no zero-bit ends.
const ONES_MAX: u32 = 8;

/// Writes the prefix of the first width that `fits`, and the number's low bits.
fn write(writer: &mut BitWriter, out: &mut Vec<u8>, raw: u64, fits: impl Fn(u32) -> bool) {
    for (ones, width) in (0..=ONES_MAX).zip(WIDTHS) {
        if ones == ONES_MAX || fits(width) {
            let prefix = (1 << ones) - 1;
            if ones == ONES_MAX {
                writer.bits(out, prefix, ones);
            } else {
                writer.bits(out, prefix << 1, ones + 1);
            }
            return writer.bits(out, raw, width);
        }
    }
}

fn read(reader: &mut BitReader<'_>) -> Result<(u64, u32), Malformed> {
    let width = WIDTHS[reader.ones(ONES_MAX)? as usize];
    Ok((reader.bits(width)?, width))
}

pub(super) fn write_unsigned(writer: &mut BitWriter, out: &mut Vec<u8>, value: u64) {
    let needed = 64 - value.leading_zeros();
    write(writer, out, value, |width| needed <= width);
}

pub(super) fn write_signed(writer: &mut BitWriter, out: &mut Vec<u8>, value: i64) {
    write(writer, out, value.cast_unsigned(), |width| match width {
        0 => value == 0,
        _ => -((1 << (width - 1)) - 1) <= value && value <= 1 << (width - 1),
    });
}

pub(super) fn read_unsigned(reader: &mut BitReader<'_>) -> Result<u64, Malformed> {
    Ok(read(reader)?.0)
}

pub(super) fn read_signed(reader: &mut BitReader<'_>) -> Result<i64, Malformed> {
    let (raw, width) = read(reader)?;
    let raw = raw.cast_signed();
    Ok(if (1..64).contains(&width) && raw > 1 << (width - 1) { raw - (1 << width) } else { raw })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_of_every_width_round_trip(values in prop::collection::vec((any::<i64>(), 0u32..64), 1..50)) {
            let (mut out, mut writer) = (Vec::new(), BitWriter::default());
            let values: Vec<i64> = values.into_iter().map(|(value, shift)| value >> shift).collect();
            for &value in &values {
                write_signed(&mut writer, &mut out, value);
                write_unsigned(&mut writer, &mut out, value.cast_unsigned());
            }
            let mut reader = BitReader::new(&out);
            for &value in &values {
                prop_assert_eq!(read_signed(&mut reader), Ok(value));
                prop_assert_eq!(read_unsigned(&mut reader), Ok(value.cast_unsigned()));
            }
        }
    }

    #[test]
    fn edges_of_the_lopsided_ranges() {
        for width in [3, 6, 9, 12, 18, 25, 56] {
            for value in [1i64 << (width - 1), -((1 << (width - 1)) - 1)] {
                let (mut out, mut writer) = (Vec::new(), BitWriter::default());
                write_signed(&mut writer, &mut out, value);
                assert_eq!(read_signed(&mut BitReader::new(&out)), Ok(value));
            }
        }
    }
}
