//! The messages between queriers and shards, drawn in `docs/wire.md`.

mod answer;
mod column;
mod request;
#[cfg(test)]
mod tests;

pub(crate) use answer::TableWriter;
pub use answer::{Answer, Part, Row, Table};
pub use request::{Ask, Request};

/// The version of both messages.
const VERSION: u8 = 1;

/// A decompressed request has at most this many bytes: an expression, matchers and 2 KiB of slots.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// A decompressed answer has at most this many bytes; a shard whose answer would be longer refuses.
pub(crate) const ANSWER_BYTES_MAX: usize = 512 << 20;

/// Bytes that are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct WireError(pub(crate) &'static str);

/// Puts the version before the compressed content.
fn seal(content: &[u8]) -> Vec<u8> {
    let mut out = vec![VERSION];
    // Compressing into memory has no errors.
    out.extend(zstd::bulk::compress(content, 1).unwrap_or_default());
    out
}

fn unseal(message: &[u8], bytes_max: usize) -> Result<Vec<u8>, WireError> {
    use std::io::Read as _;
    let (version, frame) = message.split_first().ok_or(WireError("it is empty"))?;
    if *version != VERSION {
        return Err(WireError("it is of another version"));
    }
    let mut out = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(frame).map_err(|_| WireError("it is no zstd frame"))?;
    let read = decoder.take(bytes_max as u64 + 1).read_to_end(&mut out);
    read.map_err(|_| WireError("the zstd frame is damaged"))?;
    if out.len() > bytes_max { Err(WireError("it is too long")) } else { Ok(out) }
}

/// A message under construction.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    #[expect(clippy::cast_possible_truncation, reason = "seven bits fit")]
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn zigzag(&mut self, value: i64) {
        self.varint((value << 1 ^ value >> 63).cast_unsigned());
    }

    fn double(&mut self, value: f64) {
        self.0.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.varint(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.varint(items.len() as u64);
        items.iter().for_each(|item| write(self, item));
    }
}

/// A message that is read in place.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(WireError("it is cut off"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, WireError> {
        Ok(self.bytes(1)?[0])
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let (mut value, mut shift) = (0u64, 0u32);
        loop {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(WireError("a number is longer than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    fn zigzag(&mut self) -> Result<i64, WireError> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn double(&mut self) -> Result<f64, WireError> {
        let bits = self.bytes(8)?.first_chunk::<8>().copied().unwrap_or_default();
        Ok(f64::from_bits(u64::from_le_bytes(bits)))
    }

    /// A count of things that take at least a byte each.
    fn count(&mut self) -> Result<usize, WireError> {
        let count = usize::try_from(self.varint()?).ok().filter(|count| *count <= self.0.len());
        count.ok_or(WireError("a count is larger than the message"))
    }

    fn text(&mut self) -> Result<&'a str, WireError> {
        let length = self.count()?;
        std::str::from_utf8(self.bytes(length)?).map_err(|_| WireError("a text is not valid UTF-8"))
    }

    fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let count = self.count()?;
        // What it says is not to be believed before it is read.
        let mut out = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            out.push(read(self)?);
        }
        Ok(out)
    }

    fn end(&self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError("something stands behind its end")) }
    }
}
