//! `promql ...`: expressions in, expressions out.

use model::{MatchOp, Matcher};
use promql::ParseOptions;
use promql::ast::{Expr, ExprKind, Selector};

use crate::cli::tools::{LabelMatchers, Promql};

pub(super) fn run(command: &Promql) -> anyhow::Result<()> {
    match command {
        Promql::Format { query } => say!("{}", parse(query)?.pretty()),
        Promql::LabelMatchers(LabelMatchers::Set { kind, query, name, value }) => {
            let op = match kind.as_str() {
                "!=" => MatchOp::NotEqual,
                "=~" => MatchOp::Regex,
                "!~" => MatchOp::NotRegex,
                _ => MatchOp::Equal,
            };
            let matcher = Matcher::new(name, op, value)?;
            let mut expr = parse(query)?;
            each_selector(&mut expr, &mut |selector| {
                let known = selector.matchers.iter_mut().find(|known| *known.name == *name);
                match known {
                    Some(known) => *known = matcher.clone(),
                    None => selector.matchers.push(matcher.clone()),
                }
            });
            say!("{}", expr.pretty());
        }
        Promql::LabelMatchers(LabelMatchers::Delete { query, name }) => {
            let mut expr = parse(query)?;
            each_selector(&mut expr, &mut |selector| selector.matchers.retain(|known| *known.name != *name));
            say!("{}", expr.pretty());
        }
    }
    Ok(())
}

fn parse(text: &str) -> anyhow::Result<Expr> {
    promql::parse(text, &ParseOptions::experimental()).map_err(|error| anyhow::anyhow!("{error}"))
}

/// Calls `change` with every selector of `expr`.
fn each_selector(expr: &mut Expr, change: &mut dyn FnMut(&mut Selector)) {
    match &mut expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => {}
        ExprKind::Vector(selector) => change(selector),
        ExprKind::Matrix(matrix) => change(&mut matrix.selector),
        ExprKind::Subquery(subquery) => each_selector(&mut subquery.expr, change),
        ExprKind::Paren(inner) => each_selector(inner, change),
        ExprKind::Unary(unary) => each_selector(&mut unary.expr, change),
        ExprKind::Binary(binary) => {
            each_selector(&mut binary.left, change);
            each_selector(&mut binary.right, change);
        }
        ExprKind::Aggregate(aggregate) => {
            aggregate.param.iter_mut().for_each(|param| each_selector(param, change));
            each_selector(&mut aggregate.expr, change);
        }
        ExprKind::Call(call) => call.args.iter_mut().for_each(|arg| each_selector(arg, change)),
    }
}
