//! Selectors that occur more than once are looked up once.
//!
//! `a / (a + b)` and `rate(x[5m]) / rate(x[1h])` name the same series twice. Which series fulfil the
//! matchers is found out once, for all the time that any of the occurrences reads; each then reads its
//! own part. A set may hold series without samples in that part: they come out empty and vanish.

use std::sync::Arc;

use model::{Matcher, Querier, Selection, SeriesSet, TimeRange};

use crate::ast::Expr;
use crate::engine::QueryError;
use crate::eval::at::Times;
use crate::plan::{self, Reading};

/// A selection with several users.
pub(super) struct Shared<'a> {
    matchers: Vec<Matcher>,
    range: TimeRange,
    pub(super) set: Arc<dyn SeriesSet + 'a>,
}

impl Shared<'_> {
    /// Whether the selection has all series that `matchers` and `range` ask for.
    pub(super) fn serves(&self, matchers: &[Matcher], range: TimeRange) -> bool {
        self.range.start <= range.start && range.end <= self.range.end && self.matchers == matchers
    }
}

/// Makes the selections of `expr` that have several users.
pub(super) fn select<'a>(
    querier: &'a dyn Querier,
    expr: &Expr,
    times: &Times,
) -> Result<Vec<Shared<'a>>, QueryError> {
    let mut out = Vec::new();
    for Reading { matchers, range, users } in plan::readings(expr, times)? {
        if users > 1 {
            let set = Arc::from(querier.select(&Selection { matchers: &matchers, range })?);
            out.push(Shared { matchers, range, set });
        }
    }
    Ok(out)
}
