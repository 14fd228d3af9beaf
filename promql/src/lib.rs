//! The Prometheus query language: text to [`Expr`], and [`Expr`] over a [`model::Querier`] to a value.
//!
//! This crate is *not* a store and not a server: it reads samples only through [`model::Querier`], and
//! knows neither HTTP nor JSON nor an asynchronous runtime. Times come from its callers; the clock
//! is read only to keep a query's deadline.
//!
//! ```
//! # fn ask(store: &dyn model::Querier, now: model::Timestamp) -> Result<(), Box<dyn std::error::Error>> {
//! use promql::{Engine, EngineOptions, ParseOptions, QueryOptions, parse};
//!
//! let expr = parse("sum by(job) (rate(requests_total[5m]))", &ParseOptions::default())?;
//! assert_eq!(expr.to_string(), "sum by (job) (rate(requests_total[5m]))");
//! let engine = Engine::new(EngineOptions::default());
//! let answer = engine.instant(store, &expr, now, &QueryOptions::default())?;
//! println!("{:?} {:?}", answer.value, answer.warnings);
//! # Ok(())
//! # }
//! ```
//!
//! The hard decision is the order of evaluation. A query is evaluated *series by series*, not step by
//! step: each series is decoded once into a column, functions run over the whole column, and an
//! aggregation folds it into its groups and forgets it. Memory is that of the result, not of the
//! input; grouping keys and join signatures are computed once a series. Series are computed on
//! all cores but folded in their order, so a result does not depend on the number of cores.

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
mod plan;
mod print;
pub mod series;
mod stack;
pub mod text;

pub use aggregate::GroupSum;
pub use ast::{Expr, ExprKind, Position, Span, ValueType};
pub use engine::{
    Costs, Engine, EngineOptions, EngineStats, Features, MatrixSeries, NodeStats, Outcome, QueryError,
    QueryOptions, QueryValue, Stats, Sums, VectorSample,
};
pub use histogram::{Bucket, all as buckets};
pub use limits::Limits;
pub use parse::{
    DEPTH_MAX, DURATION_MAX, HEIGHT_MAX, ParseError, ParseErrorKind, ParseOptions, parse, parse_selector,
};
pub use plan::Plan;
