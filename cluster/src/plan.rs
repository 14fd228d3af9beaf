//! What of an expression the shards evaluate themselves.
//!
//! An aggregation is *pushed down* if what it aggregates can be computed for each series by itself, or from
//! series that always share a shard: selectors, functions over them, arithmetic with numbers, and
//! operations between two such vectors whose series find each other by all their labels (all but the metric name, so
//! both sides are of one slot). Every shard aggregates its own slots; their results take the place of
//! what was aggregated, and the same aggregation over them is the result:
//!
//! | asked | a shard evaluates | put together |
//! |---|---|---|
//! | `sum` | sums, and what rounding took | `sum` of both |
//! | `count` | `count` | `sum` |
//! | `avg` | sums and counts | `sum / sum` |
//! | `min`, `max`, `group` | the same | the same |
//! | `topk`, `bottomk` | the same | the same, over all that were chosen |
//!
//! One thing is not seen this way: that `label_replace` or `label_join` made two series of different shards
//! equal, which is an error if one store has both.

use model::Matcher;
use promql::ast::{Aggregate, AggregateOp, Binary, BinaryOp, Call, Cardinality, Matching, Selector};
use promql::functions::Function;
use promql::{Expr, ExprKind, ValueType};

/// The label by which the results of shards are selected. No series has it.
pub(crate) const PART_LABEL: &str = "__pyrometer_part__";

/// A part that shards evaluate.
#[derive(Debug)]
pub(crate) struct Pushed {
    /// As it was written.
    pub(crate) expr: Expr,
    /// Whether the sums behind it are wanted, and if so whether a mean is made of them.
    pub(crate) sums: Option<Mean>,
}

/// What is made of sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mean {
    No,
    Yes,
}

/// An expression over the results of shards, and what these evaluate.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) expr: Expr,
    pub(crate) parts: Vec<Pushed>,
}

impl Plan {
    /// Pushes as much of `expr` down as can be.
    pub(crate) fn new(expr: &Expr) -> Self {
        let mut plan = Self { expr: expr.clone(), parts: Vec::new() };
        let mut root = plan.expr.clone();
        expr.with_stack(|| plan.push_down(&mut root));
        plan.expr = root;
        plan
    }

    fn push_down(&mut self, expr: &mut Expr) {
        match &mut expr.kind {
            ExprKind::Aggregate(aggregate) if is_pushed(aggregate) => {
                let part = self.parts.len();
                let sums = match aggregate.op {
                    AggregateOp::Sum => Some(Mean::No),
                    AggregateOp::Avg => Some(Mean::Yes),
                    _ => None,
                };
                let original = expr.clone();
                let ExprKind::Aggregate(aggregate) = &mut expr.kind else { return };
                aggregate.expr = result(&aggregate.expr, part, false);
                match aggregate.op {
                    AggregateOp::Count => aggregate.op = AggregateOp::Sum,
                    AggregateOp::Avg => *expr = mean(expr, part),
                    _ => {}
                }
                self.parts.push(Pushed { expr: original, sums });
            }
            ExprKind::Aggregate(aggregate) => {
                aggregate.param.iter_mut().for_each(|param| self.push_down(param));
                self.push_down(&mut aggregate.expr);
            }
            ExprKind::Paren(inner) => self.push_down(inner),
            ExprKind::Unary(unary) => self.push_down(&mut unary.expr),
            ExprKind::Binary(binary) => {
                self.push_down(&mut binary.left);
                self.push_down(&mut binary.right);
            }
            // `info` reads more than its arguments say.
            ExprKind::Call(call) if call.function != Function::Info => {
                call.args.iter_mut().for_each(|argument| self.push_down(argument));
            }
            // What stands in a subquery is evaluated at other times.
            ExprKind::Call(_)
            | ExprKind::Number(_)
            | ExprKind::String(_)
            | ExprKind::Vector(_)
            | ExprKind::Matrix(_)
            | ExprKind::Subquery(_) => {}
        }
    }
}

/// The name of a part's values, or of their counts.
pub(crate) fn part_name(part: usize, counts: bool) -> String {
    format!("{part}{}", if counts { " counts" } else { "" })
}

/// The selector of a part's results, where `stood` was.
fn result(stood: &Expr, part: usize, counts: bool) -> Expr {
    let matchers = vec![Matcher::equal(PART_LABEL, &part_name(part, counts))];
    let selector = Selector { matchers, ..Selector::default() };
    Expr { kind: ExprKind::Vector(selector), span: stood.span, position: stood.position }
}

/// `avg` over a part as `sum / sum`.
fn mean(avg: &Expr, part: usize) -> Expr {
    let sum = |counts: bool| {
        let mut sum = avg.clone();
        if let ExprKind::Aggregate(aggregate) = &mut sum.kind {
            aggregate.op = AggregateOp::Sum;
            aggregate.expr = result(&aggregate.expr, part, counts);
        }
        sum
    };
    let binary = Binary {
        op: BinaryOp::Div,
        left: sum(false),
        right: sum(true),
        matching: Matching::default(),
        bool_modifier: false,
    };
    Expr { kind: ExprKind::Binary(Box::new(binary)), span: avg.span, position: avg.position }
}

fn is_pushed(aggregate: &Aggregate) -> bool {
    let known = match aggregate.op {
        AggregateOp::Sum | AggregateOp::Count | AggregateOp::Min | AggregateOp::Max | AggregateOp::Group => {
            true
        }
        // Division takes the name, and what describes it, away.
        AggregateOp::Avg => {
            aggregate.without || !aggregate.grouping.iter().any(|label| label.starts_with("__"))
        }
        AggregateOp::Topk | AggregateOp::Bottomk => aggregate.param.as_ref().is_some_and(is_independent),
        _ => false,
    };
    known && of_series(&aggregate.expr).is_some()
}

/// What an expression does to the labels that tell slots.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Labels {
    Kept,
    Changed,
}

/// Whether an expression is evaluated series by series, or from series of one slot.
fn of_series(expr: &Expr) -> Option<Labels> {
    match &expr.kind {
        ExprKind::Vector(_) | ExprKind::Matrix(_) => Some(Labels::Kept),
        ExprKind::Paren(inner) => of_series(inner),
        ExprKind::Unary(unary) => of_series(&unary.expr),
        // A shard may have another default of the step.
        ExprKind::Subquery(subquery) => subquery.step.as_ref().and_then(|_| of_series(&subquery.expr)),
        ExprKind::Binary(binary) => operation(binary),
        ExprKind::Call(call) => function(call),
        ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Aggregate(_) => None,
    }
}

fn operation(binary: &Binary) -> Option<Labels> {
    let is_scalar = |expr: &Expr| expr.value_type() == ValueType::Scalar;
    match (is_scalar(&binary.left), is_scalar(&binary.right)) {
        (true, true) => None,
        (true, false) => of_series(&binary.right).filter(|_| is_independent(&binary.left)),
        (false, true) => of_series(&binary.left).filter(|_| is_independent(&binary.right)),
        (false, false) => {
            let matching = &binary.matching;
            let by_all = !matching.on
                && matching.labels.is_empty()
                && matching.include.is_empty()
                && matching.fill_left.is_none()
                && matching.fill_right.is_none()
                && matches!(matching.cardinality, Cardinality::OneToOne | Cardinality::ManyToMany);
            let kept = |expr: &Expr| of_series(expr) == Some(Labels::Kept);
            (by_all && kept(&binary.left) && kept(&binary.right)).then_some(Labels::Kept)
        }
    }
}

fn function(call: &Call) -> Option<Labels> {
    let of_all_series = matches!(
        call.function,
        Function::Absent
            | Function::AbsentOverTime
            | Function::Info
            | Function::Scalar
            | Function::Vector
            | Function::HistogramQuantiles
            | Function::Sort
            | Function::SortDesc
            | Function::SortByLabel
            | Function::SortByLabelDesc
    );
    if of_all_series {
        return None;
    }
    let mut labels = None;
    for argument in &call.args {
        match argument.value_type() {
            ValueType::Vector | ValueType::Matrix => labels = Some(of_series(argument)?),
            ValueType::Scalar if !is_independent(argument) => return None,
            ValueType::Scalar | ValueType::String => {}
        }
    }
    match call.function {
        Function::LabelReplace | Function::LabelJoin => labels.map(|_| Labels::Changed),
        // Buckets find each other by all labels but `le`, which tells no slot either.
        Function::HistogramQuantile | Function::HistogramFraction => labels.filter(|l| *l == Labels::Kept),
        _ => labels,
    }
}

/// Whether a number is the same in every shard.
fn is_independent(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Number(_) => true,
        ExprKind::Paren(inner) => is_independent(inner),
        ExprKind::Unary(unary) => is_independent(&unary.expr),
        ExprKind::Binary(binary) => is_independent(&binary.left) && is_independent(&binary.right),
        ExprKind::Call(call) => {
            call.function.signature().returns == ValueType::Scalar
                && call.function != Function::Scalar
                && call.args.iter().all(is_independent)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use promql::{ParseOptions, parse};

    /// The expression over the results, and what is evaluated in shards.
    fn planned(text: &str) -> (String, Vec<String>) {
        let plan = Plan::new(&parse(text, &ParseOptions::experimental()).unwrap());
        (plan.expr.to_string(), plan.parts.iter().map(|part| part.expr.to_string()).collect())
    }

    #[test]
    fn what_is_of_single_series_goes_down() {
        for text in [
            "sum by (a) (rate(x[5m]))",
            "count(x > 5)",
            "max without (b) (abs(-x) * 2 + time())",
            "topk(2 + 1, x)",
            "sum(x / y)",
            "min(rate(x[1m]) unless y)",
            "sum(max_over_time(rate(x[5m])[30m:1m]))",
            "group(label_replace(x, \"a\", \"$1\", \"b\", \"(.*)\"))",
            "max(histogram_quantile(0.9, rate(x_bucket[5m])))",
        ] {
            let (_, parts) = planned(text);
            assert_eq!(parts, [parse(text, &ParseOptions::experimental()).unwrap().to_string()]);
        }
    }

    #[test]
    fn results_take_the_place_of_what_was_aggregated() {
        let part = |name: &str| format!("{{__pyrometer_part__=\"{name}\"}}");
        assert_eq!(planned("count by (a) (x)").0, format!("sum by (a) ({})", part("0")));
        let (expr, parts) = planned("histogram_quantile(0.9, sum by (le) (rate(x[5m]))) > avg(y)");
        let mean = format!("sum({}) / sum({})", part("1"), part("1 counts"));
        let quantile = format!("histogram_quantile(0.9, sum by (le) ({}))", part("0"));
        assert_eq!(expr.replace(['(', ')'], ""), format!("{quantile} > {mean}").replace(['(', ')'], ""));
        assert_eq!(parts.len(), 2);
        assert_eq!(planned("stddev(sum by (a) (x))").1, ["sum by (a) (x)"]);
    }

    #[test]
    fn what_needs_several_shards_stays() {
        for text in [
            "x",
            "rate(x[5m])",
            "quantile(0.5, x)",
            "sum(x * on (a) y)",
            "sum(x * ignoring (b) group_left () y)",
            "sum(absent(x))",
            "sum(x * scalar(y))",
            "sum(vector(1))",
            "topk(scalar(y), x)",
            "sum(label_replace(x, \"a\", \"\", \"\", \"\") + y)",
            "max_over_time(sum(x)[5m:1m])",
            "sum(max_over_time(x[5m:]))",
            "avg by (__name__) (x)",
            "sum(hour())",
            "count_values(\"v\", x)",
            "sum(info(x))",
        ] {
            assert_eq!(planned(text).1, [""; 0], "{text}");
        }
    }
}
