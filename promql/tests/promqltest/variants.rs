//! Further ways of asking the question of an instant case, all with the same answer.

use model::Value;
use promql::ast::{At, Expr, ExprKind};
use promql::functions::Function;
use promql::{Engine, ParseOptions, QueryOptions, QueryValue, ValueType};

use super::check::{Fault, scalar, vector};
use super::script::Eval;
use super::storage::Memory;

/// Checks the other ways.
pub fn check(engine: &Engine, store: &Memory, eval: &Eval) -> Result<(), Fault> {
    if eval.step_ms != 0 || eval.fail.is_some() || eval.range_vector.is_some() || eval.string.is_some() {
        return Ok(());
    }
    let Ok(expr) = promql::parse(&eval.query, &ParseOptions::experimental()) else { return Ok(()) };
    if !matches!(expr.value_type(), ValueType::Scalar | ValueType::Vector) || eval.ordered {
        return Ok(());
    }
    if !["start()", "end()", "step()", "range()"].iter().any(|word| eval.query.contains(word)) {
        as_range(engine, store, eval, &expr).map_err(|fault| format!("as a range: {fault}"))?;
        pinned(engine, store, eval, expr).map_err(|fault| format!("pinned: {fault}"))?;
    }
    Ok(())
}

/// As a range of three steps, the middle one of which is the instant.
fn as_range(engine: &Engine, store: &Memory, eval: &Eval, expr: &Expr) -> Result<(), Fault> {
    let minute = 60_000;
    let (start, end) = (eval.start_ms - minute, eval.start_ms + minute);
    let outcome = engine
        .range(store, expr, start, end, minute, &QueryOptions::default())
        .map_err(|error| error.to_string())?;
    let QueryValue::Matrix(series) = outcome.value else { return Err("no matrix".to_owned()) };
    let at_middle: Vec<_> = series
        .iter()
        .filter_map(|s| {
            let sample = s.samples.iter().find(|sample| sample.ts == eval.start_ms)?;
            Some((s.labels.clone(), sample.value))
        })
        .collect();
    if expr.value_type() == ValueType::Scalar {
        return match at_middle.as_slice() {
            [(_, Value::Float(value))] => scalar(eval, *value),
            other => Err(format!("{other:?}")),
        };
    }
    vector(eval, &at_middle, false)
}

/// With `@` on each selector, evaluated at other times.
fn pinned(engine: &Engine, store: &Memory, eval: &Eval, mut expr: Expr) -> Result<(), Fault> {
    if looks_at_time(&expr) {
        return Ok(());
    }
    pin(&mut expr, eval.start_ms);
    let day = 24 * 3_600_000;
    for at in [eval.start_ms - day, eval.start_ms + 7 * day] {
        let outcome = engine
            .instant(store, &expr, at, &QueryOptions::default())
            .map_err(|error| format!("{expr}: {error}"))?;
        match outcome.value {
            QueryValue::Scalar { value, .. } => scalar(eval, value)?,
            QueryValue::Vector(samples) => {
                let samples: Vec<_> = samples.into_iter().map(|s| (s.labels, s.value)).collect();
                vector(eval, &samples, false).map_err(|fault| format!("{expr}: {fault}"))?;
            }
            other => return Err(format!("{other:?}")),
        }
    }
    Ok(())
}

fn looks_at_time(expr: &Expr) -> bool {
    let mut found = false;
    walk(&mut expr.clone(), &mut |expr| {
        if let ExprKind::Call(call) = &expr.kind {
            found |= matches!(
                call.function,
                Function::Time
                    | Function::Timestamp
                    | Function::PredictLinear
                    | Function::Minute
                    | Function::Hour
                    | Function::DayOfWeek
                    | Function::DayOfMonth
                    | Function::DayOfYear
                    | Function::DaysInMonth
                    | Function::Month
                    | Function::Year
                    | Function::Info
            );
        }
        true
    });
    found
}

/// Puts `@ ts` on selectors and subqueries that have none; what is inside of a subquery moves with it.
fn pin(expr: &mut Expr, ts: i64) {
    walk(expr, &mut |expr| match &mut expr.kind {
        ExprKind::Vector(selector) => {
            selector.at.get_or_insert(At::Time(ts));
            true
        }
        ExprKind::Matrix(matrix) => {
            matrix.selector.at.get_or_insert(At::Time(ts));
            true
        }
        ExprKind::Subquery(subquery) => {
            subquery.at.get_or_insert(At::Time(ts));
            false
        }
        _ => true,
    });
}

/// Visits an expression from its root down, as long as `visit` wants to go on.
fn walk(expr: &mut Expr, visit: &mut impl FnMut(&mut Expr) -> bool) {
    if !visit(expr) {
        return;
    }
    match &mut expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Vector(_) | ExprKind::Matrix(_) => {}
        ExprKind::Subquery(subquery) => walk(&mut subquery.expr, visit),
        ExprKind::Paren(inner) => walk(inner, visit),
        ExprKind::Unary(unary) => walk(&mut unary.expr, visit),
        ExprKind::Binary(binary) => {
            walk(&mut binary.left, visit);
            walk(&mut binary.right, visit);
        }
        ExprKind::Aggregate(aggregate) => {
            if let Some(param) = &mut aggregate.param {
                walk(param, visit);
            }
            walk(&mut aggregate.expr, visit);
        }
        ExprKind::Call(call) => call.args.iter_mut().for_each(|arg| walk(arg, visit)),
    }
}
