//! One query over many shards: which owner answers for which slot, and how answers are merged.
//!
//! This crate is *not* a database cluster: membership and the shard map live in Kubernetes, durability
//! in each shard's log. It is not there yet; [`Shards::connect`] answers with a typed error until it is.
//!
//! ```
//! let refused = cluster::Shards::connect(&["http://a:9090".to_owned()]);
//! assert_eq!(refused.err().unwrap().to_string(), "querying 1 shards is not supported yet");
//! ```
//!
//! The decision that stands: each slot is read from exactly one complete owner, so replication never
//! counts a sample twice and no deduplication by value is needed.

/// A part that is not there yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not supported yet")]
pub struct NotSupported(pub String);

/// The shards that answer a query together.
#[derive(Debug)]
pub struct Shards(());

impl Shards {
    /// Connects to the shards at `urls`.
    ///
    /// # Errors
    /// Always, until the querier is there.
    pub fn connect(urls: &[String]) -> Result<Self, NotSupported> {
        Err(NotSupported(format!("querying {} shards", urls.len())))
    }
}
