//! Bit streams, most significant bit first, as the chunk codecs use them.

use super::Malformed;

/// Appends bits to a byte vector that the caller owns.
///
/// The writer itself is one byte (how many low bits of the last byte are still free), so that a head
/// series can keep it between appends for next to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BitWriter {
    free: u8,
}

impl BitWriter {
    /// Appends one bit.
    pub(crate) fn bit(&mut self, out: &mut Vec<u8>, bit: bool) {
        self.bits(out, u64::from(bit), 1);
    }

    /// Appends the low `count` bits of `value`, `count` in 0..=64.
    #[expect(clippy::cast_possible_truncation, reason = "every cast keeps the low byte on purpose")]
    pub(crate) fn bits(&mut self, out: &mut Vec<u8>, value: u64, count: u32) {
        debug_assert!(count <= 64);
        let mut left = count;
        if self.free > 0 && left > 0 {
            let take = left.min(u32::from(self.free));
            let part = (value >> (left - take)) & ((1 << take) - 1);
            if let Some(last) = out.last_mut() {
                *last |= (part as u8) << (u32::from(self.free) - take);
            }
            self.free -= take as u8;
            left -= take;
        }
        while left >= 8 {
            left -= 8;
            out.push((value >> left) as u8);
        }
        if left > 0 {
            out.push((value << (8 - left)) as u8);
            self.free = 8 - left as u8;
        }
    }
}

/// Bits that do not fill a word yet, for writers that hand on whole words of eight bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pending {
    /// The bits, left-aligned; the others are zero.
    pub(crate) bits: u64,
    /// How many there are, below 64.
    pub(crate) held: u32,
}

impl Pending {
    /// Appends `count` bits (1 to 64) of `value`, which has no higher ones. A word that is full is passed
    /// to `full`; its most significant byte comes first.
    #[inline]
    pub(crate) fn push(&mut self, value: u64, count: u32, full: &mut impl FnMut(u64)) {
        debug_assert!((1..=64).contains(&count) && (count == 64 || value >> count == 0));
        let room = 64 - self.held;
        if count < room {
            self.bits |= value << (room - count);
            self.held += count;
            return;
        }
        let left = count - room;
        full(self.bits | value >> left);
        self.bits = value.checked_shl(64 - left).unwrap_or(0);
        self.held = left;
    }

    /// The bytes that hold the bits, the last one filled with zeros.
    pub(crate) fn bytes(self) -> impl Iterator<Item = u8> {
        self.bits.to_be_bytes().into_iter().take(self.held.div_ceil(8) as usize)
    }
}

/// Reads what [`BitWriter`] wrote. Every read past the end is an error.
#[derive(Clone, Debug)]
pub(crate) struct BitReader<'a> {
    data: &'a [u8],
    /// Bits not yet handed out, left-aligned.
    window: u64,
    /// How many bits of `window` are valid.
    valid: u32,
}

const PAST_END: Malformed = Malformed("chunk ends in the middle of a sample");

impl<'a> BitReader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, window: 0, valid: 0 }
    }

    /// Fills the window to more than 55 bits if the data has them.
    #[inline]
    fn refill(&mut self) {
        if let Some(word) = self.data.first_chunk::<8>() {
            // Take as many whole bytes as fit; the bits of the word beyond them are read again later.
            self.window |= u64::from_be_bytes(*word) >> self.valid;
            let bytes = (63 - self.valid) >> 3;
            self.data = &self.data[bytes as usize..];
            self.valid += bytes * 8;
            self.window &= !(u64::MAX.checked_shr(self.valid).unwrap_or(0));
            return;
        }
        while self.valid <= 56
            && let Some((&byte, rest)) = self.data.split_first()
        {
            self.window |= u64::from(byte) << (56 - self.valid);
            self.valid += 8;
            self.data = rest;
        }
    }

    /// The next `count` bits, `count` in 0..=64.
    #[inline]
    pub(crate) fn bits(&mut self, count: u32) -> Result<u64, Malformed> {
        if count > 56 {
            let high = self.bits(count - 32)?;
            return Ok(high << 32 | self.bits(32)?);
        }
        if self.valid < count {
            self.refill();
            if self.valid < count {
                return Err(PAST_END);
            }
        }
        let value = if count == 0 { 0 } else { self.window >> (64 - count) };
        self.window <<= count;
        self.valid -= count;
        Ok(value)
    }

    /// Counts one-bits up to a zero-bit, which is consumed, or up to `max` ones, `max` in 1..=8.
    #[inline]
    pub(crate) fn ones(&mut self, max: u32) -> Result<u32, Malformed> {
        if self.valid <= max {
            self.refill();
        }
        // Bits beyond the valid ones are zero, so they end the count, and are found missing below.
        let count = (!self.window).leading_zeros().min(max);
        let taken = count + u32::from(count < max);
        if self.valid < taken {
            return Err(PAST_END);
        }
        self.window <<= taken;
        self.valid -= taken;
        Ok(count)
    }

    /// The next eight bits.
    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.bits(8)?.to_be_bytes()[7])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn reads_what_was_written(items in prop::collection::vec((any::<u64>(), 0u32..=64), 0..60)) {
            let (mut out, mut writer) = (Vec::new(), BitWriter::default());
            for &(value, count) in &items {
                writer.bits(&mut out, value, count);
            }
            let mut reader = BitReader::new(&out);
            for &(value, count) in &items {
                let mask = u64::MAX.checked_shr(64 - count).unwrap_or(0);
                prop_assert_eq!(reader.bits(count).unwrap(), value & mask);
            }
            prop_assert!(reader.bits(8).is_err());
        }

        #[test]
        fn words_are_the_same_bits(items in prop::collection::vec((any::<u64>(), 1u32..=64), 0..60)) {
            let (mut out, mut writer) = (Vec::new(), BitWriter::default());
            let (mut words, mut pending) = (Vec::new(), Pending::default());
            for &(value, count) in &items {
                let value = value & u64::MAX >> (64 - count);
                writer.bits(&mut out, value, count);
                pending.push(value, count, &mut |word| words.extend_from_slice(&word.to_be_bytes()));
            }
            words.extend(pending.bytes());
            prop_assert_eq!(words, out);
        }
    }
}
