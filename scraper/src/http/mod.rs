//! Requests to targets, proxies, token servers and discovery servers.
//!
//! HTTP/1.1 is spoken by [`exchange`] itself: a scrape has one request under way on its connection, so the
//! answer goes from the socket straight into the page's buffer. An idle connection then holds nothing but
//! its socket (and its TLS state), where a general client keeps a task and a read buffer of 16 KiB, and hands
//! every piece of a page from one task to another. HTTP/2, which is only spoken where TLS negotiates it, is hyper's.

mod assertion;
mod auth;
mod client;
mod dial;
mod exchange;
mod http1;
mod pins;
mod proxy;
mod stream;
mod tls;
mod transport;

pub(crate) use auth::Authorizer;
pub use client::Client;
pub(crate) use dial::{Dialer, Peer, Roots};
pub(crate) use exchange::{Answer, ExchangeError, Outgoing, Session};
pub use pins::Pins;
use stream::Stream;
pub use transport::transport;
pub(crate) use transport::transport_with;

#[cfg(test)]
mod tests;

/// For fuzzing: the head of an answer, and what follows it in chunks.
pub(crate) fn read_answer(bytes: &[u8]) {
    if let Ok(Some((head, length))) = http1::parse_head(bytes) {
        let _ = http1::framing(&head);
        let mut rest = bytes[length..].to_vec();
        let _ = http1::Chunks::default().decode(&mut rest);
    }
}

/// For fuzzing.
pub(crate) fn read_certificate(bytes: &[u8]) {
    let _ = pins::common_name(bytes);
}

/// An error with its causes.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
