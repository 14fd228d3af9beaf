//! Samples between processes: the remote-write receiver, and remote read served; the sender, the router
//! and the StoreAPI are to come.
//!
//! This crate is *not* a transport of queries (that is `cluster`) and knows no HTTP server: a request
//! comes in as bytes with its two headers, and goes out as counts or a typed error. What is not there
//! yet answers with [`NotSupported`], so that whoever reads a configuration can refuse with the reason.
//!
//! ```
//! use remote::receive::{Encoding, Protocol};
//!
//! let encoding = Encoding::from_headers(Some("application/x-protobuf"), Some("snappy")).unwrap();
//! assert_eq!(encoding.protocol, Protocol::V1);
//! let refused = remote::Sender::start(&remote::Destination { url: "http://a/write".into() });
//! assert_eq!(refused.err().unwrap().to_string(), "remote write to http://a/write is not supported yet");
//! ```
//!
//! The hard decision: a request is never decoded into owned structures. The receiver walks the
//! protobuf bytes in place and finds a known series by the hash of its raw label bytes, so the common
//! request costs no allocation and no comparison of strings.

mod message;
pub mod otlp;
pub mod read;
pub mod receive;
pub mod send;
mod wire;

/// A part of the protocol that is not there yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not supported yet")]
pub struct NotSupported(pub String);

/// Where a sender sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The receiver's URL.
    pub url: String,
}

/// Sends what is appended to the store to another process.
#[derive(Debug)]
pub struct Sender(());

impl Sender {
    /// Starts sending to `destination`.
    ///
    /// # Errors
    /// Always, until the sender is there.
    pub fn start(destination: &Destination) -> Result<Self, NotSupported> {
        Err(NotSupported(format!("remote write to {}", destination.url)))
    }
}
