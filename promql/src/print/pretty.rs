//! The form over several lines: what is longer than a line is split at its outermost operator.

use std::fmt::Write as _;

use super::{Brackets, Operation, Operator, sign};
use crate::ast::{Expr, ExprKind};

/// An expression longer than this is split.
const LINE_MAX: usize = 100;

/// See [`Expr::pretty`].
pub(super) fn pretty(expr: &Expr) -> String {
    let mut out = String::new();
    write(&mut out, expr, 0);
    out
}

fn indent(out: &mut String, level: usize) {
    out.extend(std::iter::repeat_n("  ", level));
}

fn list(out: &mut String, items: &[&Expr], level: usize) {
    out.push_str("(\n");
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push_str(",\n");
        }
        write(out, item, level + 1);
    }
    out.push('\n');
    indent(out, level);
    out.push(')');
}

/// Writes `expr`, each line with `level` indents at least. Writing to a String cannot fail.
fn write(out: &mut String, expr: &Expr, level: usize) {
    if let ExprKind::Unary(unary) = &expr.kind {
        let mut inner = String::new();
        write(&mut inner, &unary.expr, level);
        indent(out, level);
        out.push_str(sign(unary.negative));
        out.push_str(inner.trim_start_matches(' '));
        return;
    }
    if let ExprKind::Subquery(subquery) = &expr.kind {
        write(out, &subquery.expr, level);
        let _ = write!(out, "{}", Brackets(subquery));
        return;
    }
    let line = expr.to_string();
    if line.len() > LINE_MAX {
        match &expr.kind {
            ExprKind::Paren(inner) => {
                indent(out, level);
                return list(out, &[inner], level);
            }
            ExprKind::Call(call) => {
                indent(out, level);
                out.push_str(call.function.name());
                return list(out, &call.args.iter().collect::<Vec<_>>(), level);
            }
            ExprKind::Aggregate(aggregate) => {
                indent(out, level);
                let _ = write!(out, "{}", Operation(aggregate));
                let args: Vec<_> = aggregate.param.iter().chain([&aggregate.expr]).collect();
                return list(out, &args, level);
            }
            ExprKind::Binary(binary) => {
                write(out, &binary.left, level + 1);
                out.push('\n');
                indent(out, level);
                let _ = writeln!(out, "{}", Operator(binary));
                return write(out, &binary.right, level + 1);
            }
            _ => {}
        }
    }
    indent(out, level);
    out.push_str(&line);
}
