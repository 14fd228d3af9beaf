//! Planner rule: selectors whose series may come in any order.
//!
//! Sorting a hundred thousand label sets is most of the work of `count by (job) (x)`. Where nothing but an
//! aggregation that treats its members alike sees the series, a store may hand them out as they lie. Sums
//! of the same members in another order may differ in their last bit, as they do in Prometheus, which
//! does not sort either; for one store the order is always the same.

use crate::ast::{AggregateOp, Expr, ExprKind};

/// Where the selectors stand whose series may come in any order.
pub(crate) fn selectors(expr: &Expr) -> Vec<usize> {
    let mut out = Vec::new();
    visit(expr, false, &mut out);
    out
}

fn visit(expr: &Expr, any_order: bool, out: &mut Vec<usize>) {
    match &expr.kind {
        ExprKind::Vector(_) | ExprKind::Matrix(_) => {
            if any_order {
                out.push(expr.span.start);
            }
        }
        ExprKind::Aggregate(aggregate) => {
            let alike = match aggregate.op {
                AggregateOp::Sum
                | AggregateOp::Avg
                | AggregateOp::Min
                | AggregateOp::Max
                | AggregateOp::Count
                | AggregateOp::Group
                | AggregateOp::Stddev
                | AggregateOp::Stdvar
                | AggregateOp::Quantile => true,
                AggregateOp::Topk
                | AggregateOp::Bottomk
                | AggregateOp::Limitk
                | AggregateOp::LimitRatio
                | AggregateOp::CountValues => false,
            };
            aggregate.param.iter().for_each(|param| visit(param, false, out));
            visit(&aggregate.expr, alike, out);
        }
        // What is streamed hands its series on as they come; what is held looks at them itself.
        _ => {
            let passes = any_order && super::is_streamed(expr);
            crate::plan::operands(expr).into_iter().for_each(|operand| visit(operand, passes, out));
        }
    }
}
