//! The primitives every on-disk structure is made of. Drawn in `docs/format.md`, section "Primitives".

pub(crate) mod bits;
pub(crate) mod bytes;

/// CRC-32C (Castagnoli), the checksum of every structure on disk.
pub(crate) fn crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
}

/// Bytes are not what they must be. The caller knows the file and adds its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);
