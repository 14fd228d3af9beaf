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

    /// A message, which is written by `fill`. It is there even if it is empty.
    pub(crate) fn message(&mut self, number: u32, fill: impl FnOnce(&mut Self)) {
        self.key(number, 2);
        // Nearly all messages are shorter than 128 bytes: one byte of length is left free.
        let at = self.0.len();
        self.0.push(0);
        fill(self);
        let length = self.0.len() - at - 1;
        if let Some(short) = u8::try_from(length).ok().filter(|length| *length < 0x80) {
            self.0[at] = short;
            return;
        }
        let mut prefix = Self::default();
        prefix.push_varint(length as u64);
        self.0.splice(at..=at, prefix.0);
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
    }
}
