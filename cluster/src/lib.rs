//! One query over many shards: who answers for which slots, what shards evaluate themselves, and how their
//! answers are put together.
//!
//! This crate is *not* a database cluster: the map from slots to shards is a file (or an object of
//! Kubernetes), durability is each shard's log, and nothing here writes a sample. It knows no HTTP server
//! either: a shard's questions come in as [`Request`]s and go out as bytes.
//!
//! ```
//! # fn ask(cell: &std::sync::Arc<cluster::Cell>, engine: &promql::Engine) -> Result<(), Box<dyn std::error::Error>> {
//! use cluster::Question;
//! use model::TimeRange;
//!
//! let text = "sum by (namespace) (rate(requests_total[5m]))";
//! let expr = promql::parse(text, &promql::ParseOptions::default())?;
//! let (range, options) = (TimeRange::new(1_000, 1_000), promql::QueryOptions::default());
//! let outcome = cell.query(engine, &Question { text, expr: &expr, range, step_ms: 0, options, strict: false })?;
//! println!("{:?}, complete: {}", outcome.value, outcome.warnings.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! The hard decision: each slot is read from exactly one shard that has everything of it, so replication
//! never counts a sample twice, no deduplication by value is needed, and aggregations can be evaluated in
//! the shards whatever the replication: a question says which slots count. Which shard has everything is
//! known: by the map, and from the routers, who tell what they still hold for whom. If none has, the answer says so.

mod assign;
mod cell;
mod filter;
mod plan;
mod series;
mod shard;
mod transport;
mod view;
mod wire;

pub use cell::{Cell, Question};
pub use shard::{FindExemplars, answer};
pub use transport::{AskError, BACKLOG_PATH, Http, SHARD_QUERY_PATH, Transport};
pub use view::View;
pub use wire::{Answer, Ask, Part, Request, Row, Table, WireError};
