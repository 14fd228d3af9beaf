//! How a query will be evaluated, for people to read.
//!
//! A plan names what the evaluator decides: what is streamed and what is held, what is computed once
//! because `@` pins it, which time each selector reads, and which selections are shared.

use std::fmt;

use model::TimeRange;

use crate::ast::{Expr, ExprKind, Selector, Span};
use crate::engine::{Costs, NodeStats, QueryError};
use crate::eval::Grid;
use crate::eval::at::{Times, is_constant};
use crate::eval::sharing::{Marks, Sharing};
use crate::eval::{detect, is_streamed, unordered};

/// A query's plan; prints as a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The expression, in short.
    pub what: String,
    /// What is decided about it.
    pub notes: Vec<String>,
    /// Where it stands.
    pub span: Span,
    /// Its operands.
    pub operands: Vec<Plan>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tree(f, "", "")
    }
}

impl Plan {
    /// The plan with what its parts have cost.
    #[must_use]
    pub fn with_costs(mut self, costs: &Costs) -> Self {
        if let Some(node) = costs.nodes.iter().find(|node| node.span == self.span) {
            let NodeStats { series, samples, bytes, elapsed, .. } = node;
            self.notes.push(format!("{series} series, {samples} samples, {bytes} bytes, {elapsed:.1?}"));
        }
        self.operands = self.operands.into_iter().map(|operand| operand.with_costs(costs)).collect();
        self
    }

    fn tree(&self, f: &mut fmt::Formatter<'_>, first: &str, rest: &str) -> fmt::Result {
        write!(f, "{first}{}", self.what)?;
        if !self.notes.is_empty() {
            write!(f, ": {}", self.notes.join(", "))?;
        }
        f.write_str("\n")?;
        let last = self.operands.len().saturating_sub(1);
        for (at, operand) in self.operands.iter().enumerate() {
            let (branch, below) = if at == last { ("└ ", "  ") } else { ("├ ", "│ ") };
            operand.tree(f, &format!("{rest}{branch}"), &format!("{rest}{below}"))?;
        }
        Ok(())
    }
}

/// The operands of an expression; the matchers that `info` takes are none.
pub(crate) fn operands(expr: &Expr) -> Vec<&Expr> {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Vector(_) | ExprKind::Matrix(_) => Vec::new(),
        ExprKind::Subquery(subquery) => vec![&subquery.expr],
        ExprKind::Paren(inner) => vec![inner],
        ExprKind::Unary(unary) => vec![&unary.expr],
        ExprKind::Binary(binary) => vec![&binary.left, &binary.right],
        ExprKind::Aggregate(aggregate) => aggregate.param.iter().chain([&aggregate.expr]).collect(),
        ExprKind::Call(call) => {
            let count = if call.function.name() == "info" { 1 } else { call.args.len() };
            call.args.iter().take(count).collect()
        }
    }
}

/// How deep an expression nests.
pub(crate) fn height(expr: &Expr) -> usize {
    let below = |operand| crate::stack::guarded(|| height(operand));
    1 + operands(expr).into_iter().map(below).max().unwrap_or(0)
}

/// The plan of a query.
pub(crate) fn explain(expr: &Expr, times: &Times) -> Result<Plan, QueryError> {
    let (detecting, unordered) = (detect::selectors(expr), unordered::selectors(expr));
    let marks = Marks { detecting: &detecting, unordered: &unordered };
    let planner = Planner { times, sharing: Sharing::of(expr, times, marks)?, unordered: &unordered };
    planner.node((expr, expr), times.query, false)
}

struct Planner<'a> {
    times: &'a Times,
    sharing: Sharing<'a>,
    /// Selectors whose series may come in any order.
    unordered: &'a [usize],
}

impl Planner<'_> {
    /// The plan of `expr`, in whose place its equal `evaluated` is evaluated.
    fn node(
        &self,
        (expr, evaluated): (&Expr, &Expr),
        grid: Grid,
        inside_constant: bool,
    ) -> Result<Plan, QueryError> {
        let (expr, evaluated) = (expr.unwrapped(), evaluated.unwrapped());
        let mut notes = Vec::new();
        let is_literal = matches!(expr.kind, ExprKind::Number(_) | ExprKind::String(_));
        let constant = !is_literal && is_constant(expr);
        if constant && !inside_constant && grid.count > 1 {
            notes.push("computed once".to_owned());
        }
        let shared = self.sharing.occurrence(expr);
        let repeats = shared.is_some_and(|(_, repeats)| repeats);
        let evaluated = shared.map_or(evaluated, |(slot, _)| slot.expr);
        if let Some((slot, false)) = shared {
            notes.push(format!("computed once for {}", slot.uses));
        }
        let mut inner = grid;
        let what = match &expr.kind {
            ExprKind::Number(_) | ExprKind::String(_) => expr.to_string(),
            ExprKind::Vector(selector) => {
                let range = self.times.instant(selector, grid)?.1;
                self.reads(expr, selector, range, &mut notes);
                expr.to_string()
            }
            ExprKind::Matrix(matrix) => {
                let range = self.times.windows(matrix, grid)?.reach();
                self.reads(expr, &matrix.selector, range, &mut notes);
                expr.to_string()
            }
            ExprKind::Subquery(subquery) => {
                inner = self.times.subquery(subquery, expr, grid)?.1.unwrap_or(grid);
                notes.push(format!("{} steps, held", inner.count));
                "subquery".to_owned()
            }
            ExprKind::Aggregate(aggregate) => {
                notes.push("folds".to_owned());
                aggregate.op.as_str().to_owned()
            }
            ExprKind::Unary(_) => "-".to_owned(),
            ExprKind::Binary(binary) => binary.op.as_str().to_owned(),
            ExprKind::Call(call) => call.function.name().to_owned(),
            ExprKind::Paren(_) => String::new(),
        };
        if matches!(expr.kind, ExprKind::Unary(_) | ExprKind::Binary(_) | ExprKind::Call(_))
            && expr.value_type() == crate::ValueType::Vector
        {
            notes.push(if is_streamed(expr) { "streams" } else { "holds" }.to_owned());
        }
        if repeats {
            return Ok(Plan {
                what,
                notes: vec!["as before".to_owned()],
                span: expr.span,
                operands: Vec::new(),
            });
        }
        let operands = operands(expr)
            .into_iter()
            .zip(operands(evaluated))
            .map(|pair| self.node(pair, inner, inside_constant || constant))
            .collect::<Result<_, _>>()?;
        Ok(Plan { what, notes, span: evaluated.span, operands })
    }

    fn reads(&self, expr: &Expr, selector: &Selector, range: TimeRange, notes: &mut Vec<String>) {
        notes.push(format!("reads {}..{}", range.start, range.end));
        let shared = self.sharing.readings.iter().any(|reading| {
            reading.lookups > 1 && reading.matchers == selector.matchers && reading.range.overlaps(range)
        });
        if shared {
            notes.push("shared".to_owned());
        } else if self.unordered.contains(&expr.span.start) {
            notes.push("unsorted".to_owned());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{ParseOptions, parse};

    /// The plan of a query over ten minutes.
    pub(crate) fn plan(text: &str) -> String {
        let expr = parse(text, &ParseOptions::default()).unwrap();
        let query = Grid { start: 1_000_000, step: 60_000, count: 11 };
        let times = Times { query, end: query.end(), lookback_ms: 300_000, subquery_step_ms: 60_000 };
        explain(&expr, &times).unwrap().to_string()
    }

    #[test]
    fn an_aggregation_over_a_function_of_a_selector_streams() {
        let wanted = "\
sum: folds
└ rate: streams
  └ x[5m]: reads 700001..1600000, unsorted
";
        assert_eq!(plan("sum(rate(x[5m]))"), wanted);
    }

    #[test]
    fn series_are_sorted_where_somebody_sees_their_order() {
        assert!(plan("sum by (y) (abs(x) + 1)").contains("unsorted"));
        for ordered in ["x", "topk(2, x)", "sum(a + b)", "count_values(\"v\", x)", "sum(sort(x))"] {
            assert!(!plan(ordered).contains("unsorted"), "{ordered}");
        }
    }

    #[test]
    fn what_is_pinned_is_computed_once() {
        let wanted = "\
-: holds
├ a: reads 700001..1600000
└ max: computed once, folds
  └ b @ 60.000: reads -239999..60000, unsorted
";
        assert_eq!(plan("a - max(b @ 60)"), wanted);
    }

    #[test]
    fn far_parts_of_one_series_are_looked_up_apart() {
        assert!(!plan("a - a offset 1d").contains("shared"));
    }
}
