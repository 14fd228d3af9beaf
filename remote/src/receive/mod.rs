//! Remote-write 1.0 and 2.0, in.
//!
//! Sources: the remote-write 1.0 and 2.0 specifications. A request is a protobuf message, compressed
//! with snappy's block format (or zstd for 2.0). What can never succeed is answered with 400 and must
//! not be sent again; what may succeed later with 500.

pub(crate) mod histogram;
mod receiver;
pub(crate) mod request;

pub use receiver::{Receiver, Written};
pub(crate) use request::times_of;

use crate::wire::WireError;

/// The two versions of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `prometheus.WriteRequest`
    V1,
    /// `io.prometheus.write.v2.Request`
    V2,
}

impl Protocol {
    /// By the name of its message.
    #[must_use]
    pub fn of_message(name: &str) -> Option<Self> {
        [Self::V1, Self::V2].into_iter().find(|protocol| protocol.message() == name)
    }

    /// The name of its message.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::V1 => "prometheus.WriteRequest",
            Self::V2 => "io.prometheus.write.v2.Request",
        }
    }
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Snappy's block format.
    Snappy,
    /// Zstandard.
    Zstd,
}

/// What a request's headers say of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// The message.
    pub protocol: Protocol,
    /// Its compression.
    pub compression: Compression,
}

/// Why a request was not, or not wholly, taken.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// A content type or encoding that is not known: 415.
    #[error("{0}")]
    Unsupported(String),
    /// More bytes than a request may have, once decompressed: 413.
    #[error("the request has {bytes} bytes, at most {max} are taken")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// Not a request: 400.
    #[error("{0}")]
    Malformed(String),
    /// Samples were refused that would be refused again; the others are stored: 400.
    #[error("{refused} samples refused, {} stored; the first: {first}", written.samples + written.histograms)]
    Partial {
        /// How many were refused.
        refused: u64,
        /// Why the first was, with its series.
        first: String,
        /// What was stored.
        written: Written,
    },
    /// The store could not write; nothing is stored: 500.
    #[error("{0}")]
    Storage(String),
}

impl ReceiveError {
    /// The status of the answer: 4xx for what must not be sent again, 5xx for what may be.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Unsupported(_) => 415,
            Self::TooLarge { .. } => 413,
            Self::Malformed(_) | Self::Partial { .. } => 400,
            Self::Storage(_) => 500,
        }
    }

    /// What was stored all the same.
    #[must_use]
    pub fn written(&self) -> Written {
        if let Self::Partial { written, .. } = self { *written } else { Written::default() }
    }
}

impl From<WireError> for ReceiveError {
    fn from(error: WireError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl Encoding {
    /// Reads `Content-Type` and `Content-Encoding`. Old senders leave out either.
    ///
    /// # Errors
    /// [`ReceiveError::Unsupported`]
    pub fn from_headers(content_type: Option<&str>, encoding: Option<&str>) -> Result<Self, ReceiveError> {
        let unsupported = |what: String| Err(ReceiveError::Unsupported(what));
        let content_type = content_type.unwrap_or("application/x-protobuf");
        let mut parts = content_type.split(';').map(str::trim);
        if parts.next() != Some("application/x-protobuf") {
            return unsupported(format!("{content_type:?} is not application/x-protobuf"));
        }
        if let Some(part) = parts.clone().find(|part| part.split('=').count() != 2) {
            return unsupported(format!("{part:?} in {content_type:?} is not a key and a value"));
        }
        let protocol = match parts.find_map(|part| part.strip_prefix("proto=")) {
            None => Protocol::V1,
            Some(name) => match Protocol::of_message(name) {
                Some(protocol) => protocol,
                None => return unsupported(format!("{name:?} is not a message of remote write")),
            },
        };
        let compression = match encoding.unwrap_or_default() {
            text if text.is_empty() || text.eq_ignore_ascii_case("snappy") => Compression::Snappy,
            text if text.eq_ignore_ascii_case("zstd") => Compression::Zstd,
            other => return unsupported(format!("{other:?} is neither snappy nor zstd")),
        };
        Ok(Self { protocol, compression })
    }
}

impl Compression {
    /// Puts the message inside `body`, which may have at most `max` bytes, at the beginning of `out`,
    /// which grows if it has to and never shrinks; returns the message's length.
    ///
    /// # Errors
    /// It has more, or `body` is damaged.
    pub fn decompress_into(self, body: &[u8], max: usize, out: &mut Vec<u8>) -> Result<usize, ReceiveError> {
        let malformed =
            |error: &dyn std::fmt::Display| ReceiveError::Malformed(format!("decompressing: {error}"));
        let too_large = |bytes: u64| ReceiveError::TooLarge { bytes, max: max as u64 };
        match self {
            Self::Snappy => {
                let length = snap::raw::decompress_len(body).map_err(|error| malformed(&error))?;
                if length > max {
                    return Err(too_large(length as u64));
                }
                if out.len() < length {
                    out.resize(length, 0);
                }
                let written = snap::raw::Decoder::new().decompress(body, &mut out[..length]);
                written.map_err(|error| malformed(&error))
            }
            Self::Zstd => {
                use std::io::Read as _;
                out.clear();
                let decoder = zstd::stream::read::Decoder::new(body).map_err(|error| malformed(&error))?;
                let read =
                    decoder.take(max as u64 + 1).read_to_end(out).map_err(|error| malformed(&error))?;
                if read > max { Err(too_large(read as u64)) } else { Ok(read) }
            }
        }
    }
}

#[cfg(test)]
mod second_tests;
#[cfg(test)]
mod tests;
