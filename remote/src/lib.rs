//! Samples between processes: remote write in and out, the router that spreads it over shards, remote read
//! served and asked, OTLP metrics in.
//!
//! This crate is *not* a transport of queries (that is `cluster`) and knows no HTTP server: a request
//! comes in as bytes with its headers, and goes out as counts or a typed error. It sends with a client
//! that it is given.
//!
//! ```
//! use remote::receive::{Encoding, Protocol};
//!
//! let encoding = Encoding::from_headers(Some("application/x-protobuf"), Some("snappy")).unwrap();
//! assert_eq!(encoding.protocol, Protocol::V1);
//! let body = remote::send::request([(model::Labels::from_pairs([("__name__", "up")]), 1_000, 1.0)]);
//! let mut message = Vec::new();
//! assert_eq!(encoding.compression.decompress_into(&body, 1 << 20, &mut message).unwrap(), message.len());
//! ```
//!
//! The hard decision: a request is never decoded into owned structures. The receiver walks the
//! protobuf bytes in place and finds a known series by the hash of its raw label bytes, so the common
//! request costs no allocation and no comparison of strings.

mod message;
mod numbers;
#[cfg(test)]
mod oracle;
pub mod otlp;
pub mod read;
pub mod receive;
pub mod router;
pub mod send;
pub mod slots;
mod wire;
