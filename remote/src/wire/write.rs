//! Writing messages: fields in the order of the calls, appended to one buffer.

/// Appends a number in groups of seven bits, the lowest first.
#[expect(clippy::cast_possible_truncation, reason = "seven bits fit")]
pub(crate) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that a number takes.
pub(crate) fn varint_len(value: u64) -> usize {
    (value | 1).ilog2() as usize / 7 + 1
}

fn low_seven(value: u64) -> u8 {
    (value & 0x7f) as u8
}

/// A message under construction. Scalars that have their default are left out, as proto3 does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    fn key(&mut self, number: u32, kind: u64) {
        self.push_varint(u64::from(number) << 3 | kind);
    }

    fn push_varint(&mut self, value: u64) {
        push_varint(&mut self.0, value);
    }

    /// An unsigned number, an enum or a bool.
    pub(crate) fn uint64(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.key(number, 0);
            self.push_varint(value);
        }
    }

    /// A signed number that is rarely negative.
    pub(crate) fn int64(&mut self, number: u32, value: i64) {
        self.uint64(number, value.cast_unsigned());
    }

    /// A signed number that may as well be negative.
    pub(crate) fn sint64(&mut self, number: u32, value: i64) {
        self.uint64(number, zigzag(value));
    }

    /// A float. Negative zero is not the default.
    pub(crate) fn double(&mut self, number: u32, value: f64) {
        if value.to_bits() != 0 {
            self.member_double(number, value);
        }
    }

    /// A float that says by being there that it is the member of its oneof.
    pub(crate) fn member_double(&mut self, number: u32, value: f64) {
        self.key(number, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A number that says by being there that it is the member of its oneof.
    pub(crate) fn member_uint64(&mut self, number: u32, value: u64) {
        self.key(number, 0);
        self.push_varint(value);
    }

    /// A packed list of signed numbers.
    pub(crate) fn packed_sint64(&mut self, number: u32, values: impl ExactSizeIterator<Item = i64>) {
        if values.len() > 0 {
            self.message(number, |list| values.for_each(|value| list.push_varint(zigzag(value))));
        }
    }

    /// A string or bytes.
    pub(crate) fn bytes(&mut self, number: u32, value: &[u8]) {
        if !value.is_empty() {
            self.key(number, 2);
            self.push_varint(value.len() as u64);
            self.0.extend_from_slice(value);
        }
    }

    /// Bytes that are there even if they are empty: a message that is copied.
    pub(crate) fn present(&mut self, number: u32, value: &[u8]) {
        self.key(number, 2);
        self.push_varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// The key and the length of a message that is written behind it.
    pub(crate) fn header(&mut self, number: u32, length: usize) {
        self.key(number, 2);
        self.push_varint(length as u64);
    }

    /// A message, which is written by `fill`. It is there even if it is empty.
    pub(crate) fn message(&mut self, number: u32, fill: impl FnOnce(&mut Self)) {
        // Nearly all messages are shorter than 128 bytes.
        self.sized(number, 1, fill);
    }

    /// The same, of a message that is likely to have between 128 and 16,383 bytes.
    pub(crate) fn long_message(&mut self, number: u32, fill: impl FnOnce(&mut Self)) {
        self.sized(number, 2, fill);
    }

    /// A message for whose length `left` bytes are left free; if it takes others, the message is moved.
    fn sized(&mut self, number: u32, left: usize, fill: impl FnOnce(&mut Self)) {
        self.key(number, 2);
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 2][..left]);
        fill(self);
        let length = self.0.len() - at - left;
        let needed = varint_len(length as u64);
        if needed != left {
            let end = at + needed + length;
            if end > self.0.len() {
                self.0.resize(end, 0);
            }
            self.0.copy_within(at + left..at + left + length, at + needed);
            self.0.truncate(end);
        }
        let mut rest = length as u64;
        for byte in &mut self.0[at..at + needed] {
            *byte = low_seven(rest) | 0x80;
            rest >>= 7;
        }
        self.0[at + needed - 1] &= 0x7f;
    }

    /// A packed list of floats.
    pub(crate) fn packed_doubles(&mut self, number: u32, values: &[f64]) {
        if !values.is_empty() {
            self.message(number, |list| {
                values.iter().for_each(|value| list.0.extend_from_slice(&value.to_le_bytes()));
            });
        }
    }
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Content, Fields, packed_doubles};
    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(unsigned in 1u64.., signed in any::<i64>().prop_filter("the default is left out", |v| *v != 0), text in "\\PC{1,300}",
                                   floats in proptest::collection::vec(any::<f64>(), 1..40)) {
            let mut writer = Writer::default();
            writer.uint64(1, unsigned);
            writer.sint64(2, signed);
            writer.message(3, |inner| inner.bytes(300, text.as_bytes()));
            writer.packed_doubles(5, &floats);
            let mut fields = Fields::new(&writer.0);
            prop_assert_eq!(fields.next(), Ok(Some((1, Content::Varint(unsigned)))));
            let (_, content) = fields.next().unwrap().unwrap();
            prop_assert_eq!(content.sint64(), Ok(signed));
            let (_, content) = fields.next().unwrap().unwrap();
            let mut inner = Fields::new(content.bytes().unwrap());
            prop_assert_eq!(inner.next(), Ok(Some((300, Content::Bytes(text.as_bytes())))));
            let mut doubles = Vec::new();
            packed_doubles(fields.next().unwrap().unwrap().1, &mut doubles).unwrap();
            let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&doubles), bits(&floats));
            prop_assert_eq!(fields.next(), Ok(None));
        }

        /// A length may take one byte, two or three, whatever was expected.
        #[test]
        fn lengths_are_as_short_as_they_can_be(length in prop_oneof![0usize..300, 16_000usize..17_000], long: bool) {
            let (mut writer, inner) = (Writer(vec![7]), vec![9; length]);
            let fill = |message: &mut Writer| message.0.extend_from_slice(&inner);
            if long { writer.long_message(3, fill) } else { writer.message(3, fill) }
            let mut wanted = vec![7, 3 << 3 | 2];
            push_varint(&mut wanted, length as u64);
            wanted.extend_from_slice(&inner);
            prop_assert_eq!(writer.0, wanted);
        }
    }
}
