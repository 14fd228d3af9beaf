//! `info`: labels of info metrics on the series that they describe.

use hashbrown::{HashMap, HashSet};
use model::{Labels, METRIC_NAME, MatchOp, Matcher};

use super::super::column::{Column, is_absent};
use super::super::grid::Grid;
use super::super::select::Yield;
use super::super::source::Series;
use crate::ast::{At, Call, Duration, Expr, ExprKind, Selector};
use crate::engine::QueryError;
use crate::eval::Evaluator;

/// The labels by which a series finds its info series.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// The info metric that is meant if none is named.
const DEFAULT_NAME: &str = "target_info";

/// What is asked of info series.
struct Wanted {
    names: Vec<Matcher>,
    data: Vec<Matcher>,
}

impl Wanted {
    fn of(selector: Option<&Selector>) -> Self {
        let matchers = selector.map_or(&[][..], |selector| &selector.matchers);
        let (mut names, data): (Vec<_>, Vec<_>) =
            matchers.iter().cloned().partition(|m| *m.name == *METRIC_NAME);
        if names.is_empty() {
            names.push(Matcher::equal(METRIC_NAME, DEFAULT_NAME));
        }
        Self { names, data }
    }

    fn has_positive_name(&self) -> bool {
        self.names.iter().any(|m| !m.is_negative())
    }

    /// Whether a series is a source of info itself, and is left as it is.
    fn is_info(&self, labels: &Labels) -> bool {
        let name = labels.metric_name().unwrap_or("");
        let mut positive = self.names.iter().filter(|m| !m.is_negative()).peekable();
        positive.peek().is_some() && positive.all(|m| m.matches(name))
    }

    /// Whether a series without info may stay.
    fn is_optional(&self) -> bool {
        self.data.iter().all(Matcher::matches_empty)
    }

    /// Whether a label of an info series is to be taken over.
    fn takes(&self, name: &str) -> bool {
        let special = name == METRIC_NAME || IDENTIFYING.contains(&name);
        !special && (self.data.is_empty() || self.data.iter().any(|m| *m.name == *name))
    }

    fn selector(&self) -> Result<Selector, QueryError> {
        let mut matchers = self.names.clone();
        if !self.has_positive_name() {
            let any = Matcher::new(METRIC_NAME, MatchOp::Regex, ".+_info");
            matchers.push(any.map_err(|error| QueryError::Execution(error.to_string()))?);
        }
        matchers.extend(self.data.iter().cloned());
        Ok(Selector { matchers, ..Selector::default() })
    }
}

fn signature(labels: &Labels) -> Labels {
    labels.filtered(|name| IDENTIFYING.contains(&name))
}

/// The `@` and `offset` that place an expression in time: those of its outermost selector.
fn placed(expr: &Expr) -> Option<(Option<At>, Option<&Duration>)> {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => None,
        ExprKind::Vector(selector) => Some((selector.at, selector.offset.as_ref())),
        ExprKind::Matrix(matrix) => Some((matrix.selector.at, matrix.selector.offset.as_ref())),
        ExprKind::Subquery(subquery) => Some((subquery.at, subquery.offset.as_ref())),
        ExprKind::Paren(inner) => placed(inner),
        ExprKind::Unary(unary) => placed(&unary.expr),
        ExprKind::Binary(binary) => placed(&binary.left).or_else(|| placed(&binary.right)),
        ExprKind::Aggregate(aggregate) => placed(&aggregate.expr),
        ExprKind::Call(call) => call.args.iter().find_map(placed),
    }
}

impl Evaluator<'_> {
    pub(super) fn info(&self, call: &Call, grid: Grid) -> Result<Vec<Series>, QueryError> {
        let selector = call.args.get(1).and_then(|arg| match &arg.kind {
            ExprKind::Vector(selector) => Some(selector),
            _ => None,
        });
        let wanted = Wanted::of(selector);
        let base = self.taken(&call.args[0], grid)?;
        let (at, offset) = placed(&call.args[0]).unwrap_or((None, None));
        let times = self.times.moved(grid, at, offset)?;
        let infos = self.info_series(&wanted, call, times)?;
        let mut out: Vec<Series> = Vec::new();
        let mut index: HashMap<(usize, Labels), usize> = HashMap::new();
        for item in self.account.watched(base.iter().enumerate()) {
            let (position, series) = item?;
            if wanted.is_info(&series.labels) {
                out.push(series.clone());
                continue;
            }
            let candidates = infos.get(&signature(&series.labels)).map_or(&[][..], Vec::as_slice);
            for step in self.account.watched(0..grid.count) {
                let step = step?;
                let Some(point) = series.column.get(step) else { continue };
                let current = newest(candidates, step);
                if current.is_empty() && !wanted.is_optional() {
                    continue;
                }
                let labels = enriched(&series.labels, &current, &wanted)?;
                let slot = *index.entry((position, labels)).or_insert_with_key(|(_, labels)| {
                    out.push(Series {
                        labels: labels.clone(),
                        drop_name: series.drop_name,
                        column: Column::new(grid.count),
                    });
                    out.len() - 1
                });
                out[slot].column.set(step, point.to_value());
            }
        }
        super::super::source::join_equal(out, self.account)
    }

    /// The info series by the labels that identify them; their columns hold the times of their samples.
    fn info_series(
        &self,
        wanted: &Wanted,
        call: &Call,
        times: Grid,
    ) -> Result<HashMap<Labels, Vec<Series>>, QueryError> {
        let arg = call.args.get(1).unwrap_or(&call.args[0]);
        let selector = wanted.selector()?;
        let values = self.instant_selector(arg, &selector, times, Yield::Value)?;
        let values = self.collect(values.as_ref(), arg, times)?;
        self.release(&values);
        if values.iter().any(|series| !series.column.histograms().is_empty()) {
            return Err(QueryError::Execution("info metrics must be float samples".to_owned()));
        }
        let source = self.instant_selector(arg, &selector, times, Yield::Time)?;
        let series = self.collect(source.as_ref(), arg, times)?;
        self.release(&series);
        let mut out: HashMap<Labels, Vec<Series>> = HashMap::new();
        for series in self.account.watched(series) {
            let series = series?;
            out.entry(signature(&series.labels)).or_default().push(series);
        }
        Ok(out)
    }
}

/// Of each info metric, the series with the newest sample at a step.
fn newest(candidates: &[Series], step: usize) -> Vec<&Series> {
    let mut out: Vec<&Series> = Vec::new();
    let time = |series: &Series| series.column.floats()[step];
    for series in candidates.iter().filter(|series| !is_absent(time(series))) {
        let name = series.labels.metric_name();
        match out.iter_mut().find(|other| other.labels.metric_name() == name) {
            Some(other) if time(other) < time(series) => *other = series,
            Some(_) => {}
            None => out.push(series),
        }
    }
    out
}

/// The labels of a series with those of its info series.
fn enriched(base: &Labels, infos: &[&Series], wanted: &Wanted) -> Result<Labels, QueryError> {
    let mut builder = base.to_builder();
    let mut added: HashSet<&str> = HashSet::new();
    for info in infos {
        for (name, value) in info.labels.iter().filter(|(name, _)| wanted.takes(name)) {
            if base.get(name).is_some() {
                continue;
            }
            if !added.insert(name) && builder.get(name) != Some(value) {
                return Err(QueryError::Execution(format!("conflicting label: {name}")));
            }
            builder.set(name, value);
        }
    }
    Ok(builder.build())
}
