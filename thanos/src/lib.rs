//! What Thanos needs to have a database in its view: its StoreAPI over gRPC, and blocks in its buckets ([`ship`]).
//!
//! This crate is *not* a client of Thanos and not a query engine: it hands chunks on as they are stored, and those who
//! ask decode them; what is in a bucket is compacted by Thanos. It listens nowhere: [`Store::routes`] are served by whoever has a listener that speaks HTTP/2.
//!
//! ```
//! use std::sync::Arc;
//!
//! let dir = tempfile::tempdir()?;
//! let db = Arc::new(tsdb::Db::open(dir.path(), tsdb::Options::default())?);
//! let external = model::Labels::from_pairs([("cluster", "c1"), ("replica", "a")]);
//! let store = thanos::Store::new(db, external, thanos::Limits::default());
//! let routes: axum::Router = store.routes(); // to be served with HTTP/2
//! assert_eq!(store.stats().requests, 0);
//! # drop(routes);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The hard decision is how series come in the order of the labels that are *sent*, without all of them in memory:
//! see `order.rs`. Chunks never wait in memory: a thread reads the chunks of one series, and goes on when the
//! connection has taken the frame before the one before.

mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod names;
mod order;
mod proto;
mod request;
mod rpc;
mod series;
pub mod ship;
mod store;

pub use store::{Limits, Stats, Store};
