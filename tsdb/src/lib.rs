//! Samples in, durable, out: a time-series store whose directory is a Prometheus data directory.

mod face;
pub use face::*;
