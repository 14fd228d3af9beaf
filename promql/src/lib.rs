//! The Prometheus query language: text to [`Expr`], and [`Expr`] over a [`model::Querier`] to a value.
//!
//! This crate is *not* a store and not a server: it reads samples only through [`model::Querier`],
//! and knows neither HTTP nor JSON nor an asynchronous runtime, nor the wall clock's date.

mod aggregate;
mod annotations;
pub mod ast;
mod engine;
mod eval;
pub mod functions;
mod histogram;
mod lex;
mod limits;
mod parse;
mod print;
pub mod series;
pub mod text;

pub use ast::{Expr, ExprKind, Position, Span, ValueType};
pub use engine::{
    Engine, EngineOptions, Features, MatrixSeries, Outcome, QueryError, QueryOptions, QueryValue, Stats,
    VectorSample,
};
pub use histogram::{Bucket, all as buckets};
pub use limits::Limits;
pub use parse::{CHAIN_MAX, DEPTH_MAX, ParseError, ParseErrorKind, ParseOptions, parse};
