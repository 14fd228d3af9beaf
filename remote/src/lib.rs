//! Samples between processes: remote-write out and in, the router with its spool, the Thanos StoreAPI.
//!
//! This crate is *not* a transport of queries (that is `cluster`), and not there yet: each part
//! answers with a typed [`NotSupported`] until it is. The types stand so that what reads a
//! configuration can refuse with the reason instead of ignoring a section.
//!
//! ```
//! let refused = remote::Sender::start(&remote::Destination { url: "http://a/write".into() });
//! assert_eq!(refused.err().unwrap().to_string(), "remote write to http://a/write is not supported yet");
//! ```
//!
//! The decision that stands: a sender will tail the write-ahead log with a durable cursor and keep no
//! queue of its own, so a restart neither loses nor invents samples.

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
