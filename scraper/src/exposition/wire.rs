//! Fields of a protobuf message, borrowed.

/// A message that is cut short or malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// One field's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// Reads a message front to back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        // Nearly all keys and lengths take one byte.
        if let Some((&byte, rest)) = self.0.split_first()
            && byte < 0x80
        {
            self.0 = rest;
            return Ok(u64::from(byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            let low = u64::from(byte & 0x7f);
            if shift == 63 && low > 1 {
                return Err(Malformed);
            }
            value |= low << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    #[inline]
    pub(super) fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn fixed64(&mut self) -> Result<u64, Malformed> {
        let bytes: [u8; 8] = self.take(8)?.try_into().map_err(|_| Malformed)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The next field with its number, `None` at the end.
    #[inline]
    pub(super) fn field(&mut self) -> Result<Option<(u64, Field<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(self.fixed64()?),
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Field::Fixed32
            }
            _ => return Err(Malformed),
        };
        if key >> 3 == 0 { Err(Malformed) } else { Ok(Some((key >> 3, field))) }
    }

    /// Appends the numbers of a repeated field, packed or not.
    pub(super) fn push_varints(field: Field<'a>, out: &mut Vec<u64>) -> Result<(), Malformed> {
        match field {
            Field::Varint(value) => out.push(value),
            Field::Bytes(packed) => {
                let mut reader = Reader(packed);
                while !reader.0.is_empty() {
                    out.push(reader.varint()?);
                }
            }
            _ => return Err(Malformed),
        }
        Ok(())
    }

    /// Appends the floats of a repeated field, packed or not.
    pub(super) fn push_doubles(field: Field<'a>, out: &mut Vec<f64>) -> Result<(), Malformed> {
        match field {
            Field::Fixed64(bits) => out.push(f64::from_bits(bits)),
            Field::Bytes(packed) => {
                let mut reader = Reader(packed);
                while !reader.0.is_empty() {
                    out.push(f64::from_bits(reader.fixed64()?));
                }
            }
            _ => return Err(Malformed),
        }
        Ok(())
    }
}

impl<'a> Field<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(Malformed) }
    }

    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    pub(super) fn unsigned(self) -> Result<u64, Malformed> {
        if let Self::Varint(value) = self { Ok(value) } else { Err(Malformed) }
    }

    pub(super) fn double(self) -> Result<f64, Malformed> {
        if let Self::Fixed64(bits) = self { Ok(f64::from_bits(bits)) } else { Err(Malformed) }
    }
}

/// Undoes the zigzag coding of signed numbers.
pub(super) fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_do_not_end_are_refused() {
        assert_eq!(Reader(&[0x80; 20]).varint(), Err(Malformed));
        assert_eq!(Reader(&[0xff; 9]).varint(), Err(Malformed));
        let mut max = [0xff; 10];
        max[9] = 1;
        assert_eq!(Reader(&max).varint(), Ok(u64::MAX));
        max[9] = 2;
        assert_eq!(Reader(&max).varint(), Err(Malformed));
        assert_eq!(Reader(&[0x0a, 0x05, 1]).field(), Err(Malformed));
    }

    #[test]
    fn zigzag_is_undone() {
        for (coded, value) in [(0, 0), (1, -1), (2, 1), (u64::MAX, i64::MIN), (u64::MAX - 1, i64::MAX)] {
            assert_eq!(zigzag(coded), value);
        }
    }
}
