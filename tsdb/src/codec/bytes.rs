//! Byte-wise numbers and strings: big-endian integers, Go's varints, length-prefixed text.

use super::{Malformed, crc};

/// Maps a signed number to an unsigned one whose size follows the magnitude.
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// The inverse of [`zigzag`].
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// Writing, as methods on the output vector.
pub(crate) trait Put {
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put_i64(&mut self, value: i64);
    fn put_f64(&mut self, value: f64);
    fn put_uvarint(&mut self, value: u64);
    fn put_varint(&mut self, value: i64);
    fn put_text(&mut self, text: &str);
    /// CRC-32C of everything from `start` on.
    fn put_crc_since(&mut self, start: usize);
}

impl Put for Vec<u8> {
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_be_bytes());
    }
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_be_bytes());
    }
    fn put_i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_be_bytes());
    }
    fn put_f64(&mut self, value: f64) {
        self.put_u64(value.to_bits());
    }
    #[expect(clippy::cast_possible_truncation, reason = "masked to seven bits")]
    fn put_uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }
    fn put_varint(&mut self, value: i64) {
        self.put_uvarint(zigzag(value));
    }
    fn put_text(&mut self, text: &str) {
        self.put_uvarint(text.len() as u64);
        self.extend_from_slice(text.as_bytes());
    }
    fn put_crc_since(&mut self, start: usize) {
        let sum = crc(&self[start..]);
        self.put_u32(sum);
    }
}

/// Reading. Every read past the end is an error, whatever the input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<'a> {
    rest: &'a [u8],
}

const SHORT: Malformed = Malformed("data ends too early");

impl<'a> Bytes<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What has not been read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(SHORT)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub(crate) fn f64(&mut self) -> Result<f64, Malformed> {
        Ok(f64::from_bits(self.u64()?))
    }

    #[inline]
    pub(crate) fn uvarint(&mut self) -> Result<u64, Malformed> {
        match *self.rest {
            [byte, ref rest @ ..] if byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            [low, high, ref rest @ ..] if high < 0x80 => {
                self.rest = rest;
                Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => self.long_uvarint(),
        }
    }

    fn long_uvarint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (at, &byte) in self.rest.iter().enumerate().take(10) {
            if at == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(Malformed("variable-length number cut short or too long"))
    }

    pub(crate) fn uvarint_u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.uvarint()?).map_err(|_| Malformed("number exceeds 32 bits"))
    }

    /// A count or length that must not exceed what is left to read, so that nobody allocates for it
    /// more than the input is long.
    pub(crate) fn count(&mut self) -> Result<usize, Malformed> {
        let value = self.uvarint()?;
        usize::try_from(value)
            .ok()
            .filter(|&count| count <= self.rest.len())
            .ok_or(Malformed("count exceeds the data"))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<i64, Malformed> {
        Ok(unzigzag(self.uvarint()?))
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.count()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed("text is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip(a: u64, b: i64, c: u32, text in ".{0,200}") {
            let mut out = Vec::new();
            out.put_uvarint(a);
            out.put_varint(b);
            out.put_u32(c);
            out.put_text(&text);
            let mut bytes = Bytes::new(&out);
            prop_assert_eq!(bytes.uvarint(), Ok(a));
            prop_assert_eq!(bytes.varint(), Ok(b));
            prop_assert_eq!(bytes.u32(), Ok(c));
            prop_assert_eq!(bytes.text(), Ok(text.as_str()));
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn garbage_is_an_error_or_a_value(data: Vec<u8>) {
            let _ = Bytes::new(&data).uvarint();
            let _ = Bytes::new(&data).text();
        }
    }
}
