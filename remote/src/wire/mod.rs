//! Protobuf's wire format, read in place.
//!
//! Source: the protobuf encoding guide. A message is a sequence of fields; each begins with a varint
//! `number << 3 | type`, type 0 a varint, 1 eight bytes, 2 a length and that many bytes, 5 four bytes.

mod write;

pub(crate) use write::{Writer, push_varint, varint_len};

/// Bytes that are no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed protobuf: {0}")]
pub struct WireError(&'static str);

impl WireError {
    pub(crate) fn new(what: &'static str) -> Self {
        Self(what)
    }
}

/// The content of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Content<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Content<'a> {
    pub(crate) fn bytes(self) -> Result<&'a [u8], WireError> {
        if let Self::Bytes(bytes) = self {
            Ok(bytes)
        } else {
            Err(WireError("a message or string was expected"))
        }
    }

    pub(crate) fn text(self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError("a string is not valid UTF-8"))
    }

    pub(crate) fn double(self) -> Result<f64, WireError> {
        if let Self::Fixed64(bits) = self {
            Ok(f64::from_bits(bits))
        } else {
            Err(WireError("a double was expected"))
        }
    }

    pub(crate) fn uint64(self) -> Result<u64, WireError> {
        if let Self::Varint(value) = self { Ok(value) } else { Err(WireError("a number was expected")) }
    }

    pub(crate) fn uint32(self) -> Result<u32, WireError> {
        u32::try_from(self.uint64()?).map_err(|_| WireError("a number is too large"))
    }

    /// A negative `int64` is written as the varint of its two's complement.
    pub(crate) fn int64(self) -> Result<i64, WireError> {
        Ok(self.uint64()?.cast_signed())
    }

    pub(crate) fn sint64(self) -> Result<i64, WireError> {
        Ok(unzigzag(self.uint64()?))
    }

    pub(crate) fn sint32(self) -> Result<i32, WireError> {
        i32::try_from(self.sint64()?).map_err(|_| WireError("a number is too large"))
    }
}

pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// The fields of a message, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next field's number and content.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Content<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = take_varint(&mut self.rest)?;
        let number = u32::try_from(key >> 3).map_err(|_| WireError("a field number is too large"))?;
        let content = match key & 7 {
            0 => Content::Varint(take_varint(&mut self.rest)?),
            1 => Content::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = take_varint(&mut self.rest)?;
                let length = usize::try_from(length).map_err(|_| WireError("a length is too large"))?;
                let (bytes, rest) = self
                    .rest
                    .split_at_checked(length)
                    .ok_or(WireError("a field is longer than its message"))?;
                self.rest = rest;
                Content::Bytes(bytes)
            }
            5 => Content::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(WireError("unknown wire type")),
        };
        Ok(Some((number, content)))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(WireError("a number is cut off"))?;
        self.rest = rest;
        Ok(*bytes)
    }
}

/// Reads a varint from the front of `bytes`.
#[inline]
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Result<u64, WireError> {
    let (mut value, mut shift) = (0u64, 0u32);
    for (at, byte) in bytes.iter().enumerate() {
        if shift == 63 && *byte > 1 {
            return Err(WireError("a number is longer than 64 bits"));
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return Ok(value);
        }
        shift += 7;
    }
    Err(WireError("a number is cut off"))
}

/// Numbers of a repeated scalar, packed or not: one content may hold many.
pub(crate) fn packed<T>(content: Content<'_>, out: &mut Vec<T>, of: fn(u64) -> T) -> Result<(), WireError> {
    let Content::Bytes(mut bytes) = content else {
        out.push(of(content.uint64()?));
        return Ok(());
    };
    while !bytes.is_empty() {
        out.push(of(take_varint(&mut bytes)?));
    }
    Ok(())
}

/// Doubles of a repeated field, packed or not.
pub(crate) fn packed_doubles(content: Content<'_>, out: &mut Vec<f64>) -> Result<(), WireError> {
    let Content::Bytes(bytes) = content else {
        out.push(content.double()?);
        return Ok(());
    };
    let (chunks, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(WireError("a number is cut off"));
    }
    out.extend(chunks.iter().map(|chunk| f64::from_le_bytes(*chunk)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_type() {
        let message =
            [0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x19, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x25, 1, 0, 0, 0];
        let mut fields = Fields::new(&message);
        assert_eq!(fields.next(), Ok(Some((1, Content::Varint(150)))));
        assert_eq!(fields.next(), Ok(Some((2, Content::Bytes(b"hi")))));
        assert_eq!(fields.next(), Ok(Some((3, Content::Fixed64(1f64.to_bits())))));
        assert_eq!(fields.next(), Ok(Some((4, Content::Fixed32(1)))));
        assert_eq!(fields.next(), Ok(None));
    }

    #[test]
    fn refuses_what_is_cut_off() {
        for message in [&[0x08][..], &[0x08, 0x80], &[0x12, 5, 1], &[0x19, 1], &[0x0b], &[0xff; 11]] {
            assert!(Fields::new(message).next().is_err(), "{message:?}");
        }
        assert_eq!(unzigzag(1), -1);
        assert_eq!(unzigzag(u64::MAX), i64::MIN);
        assert_eq!(Content::Varint(u64::MAX).int64(), Ok(-1));
    }
}
