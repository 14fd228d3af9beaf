//! The form over several lines: what is longer than a line is split at its outermost operator.

use std::fmt::Write as _;

use super::{Brackets, Operation, Operator, sign};
use crate::ast::{Expr, ExprKind};
use crate::stack;

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
    stack::guarded(|| write_guarded(out, expr, level));
}

fn write_guarded(out: &mut String, expr: &Expr, level: usize) {
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
    let mut line = Line(String::new());
    if has_many_parts(expr) || write!(line, "{expr}").is_err() {
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
    let _ = write!(out, "{expr}");
}

/// Whether an expression has more parts than a line has bytes.
fn has_many_parts(expr: &Expr) -> bool {
    let (mut waiting, mut count) = (vec![expr], 0);
    while let Some(expr) = waiting.pop() {
        count += 1;
        if count > LINE_MAX {
            return true;
        }
        waiting.extend(crate::plan::operands(expr));
    }
    false
}

/// A line that takes no more than [`LINE_MAX`] bytes.
struct Line(String);

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.0.len() + text.len() > LINE_MAX {
            return Err(std::fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}
