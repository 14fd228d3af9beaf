//! The words every part of Pyrometer shares: labels, matchers, samples, histograms, and the
//! [`Querier`] through which an engine reads a store.
//!
//! This crate is *not* a place for behaviour that belongs to one room: it stores nothing, evaluates
//! nothing and does no I/O. It knows no clock and no environment.
//!
//! ```
//! use model::{Labels, Matcher, MatchOp};
//!
//! let labels = Labels::from_pairs([("job", "node"), ("__name__", "up")]);
//! assert_eq!(labels.to_string(), r#"up{job="node"}"#);
//! let matcher = Matcher::new("job", MatchOp::Regex, "n.*").unwrap();
//! assert!(matcher.matches(labels.get("job").unwrap_or("")));
//! ```
//!
//! The hard decision is the read interface. [`Querier::select`] does not hand out an iterator of
//! iterators; it returns a [`SeriesSet`], a randomly addressable list of series whose samples are
//! decoded one series at a time into a caller-owned column ([`Samples`]). That one shape gives the
//! engine parallelism over series, memory bounded by one column per worker, and label access
//! without building label sets.

pub mod duration;
pub mod float;
pub mod histogram;
mod labels;
mod matcher;
mod query;
pub mod regex;
mod sample;

pub use histogram::{FloatHistogram, Histogram, HistogramValue, IntHistogram, ResetHint, Span};
pub use labels::{
    Labels, LabelsBuffer, LabelsBuilder, METRIC_NAME, Quoted, is_legacy_label_name, is_legacy_metric_name,
};
pub use matcher::{MatchOp, Matcher};
pub use query::{Querier, QueryCancelled, Selection, SeriesSet, StorageError};
pub use sample::{
    Exemplar, STALE_NAN, Sample, Samples, TimeRange, Timestamp, Value, is_stale_nan, stale_nan,
};
