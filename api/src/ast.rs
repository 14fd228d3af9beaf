//! An expression as JSON, for `parse_query`: the tree that Prometheus' own front end draws.

use promql::ast::{
    Aggregate, At, Binary, Call, Cardinality, Duration, Expr, ExprKind, Matching, Selector, Subquery, Unary,
};
use serde_json::{Value, json};

/// The tree of `expr`. It is as high as the expression: what is done with it takes [`Expr::with_stack`].
pub(crate) fn tree(expr: &Expr) -> Value {
    match &expr.kind {
        ExprKind::Number(number) => {
            json!({"type": "numberLiteral", "val": model::float::format_fixed(number.value)})
        }
        ExprKind::String(text) => json!({"type": "stringLiteral", "val": text}),
        ExprKind::Vector(vector) => selector("vectorSelector", vector),
        ExprKind::Matrix(matrix) => {
            let mut value = selector("matrixSelector", &matrix.selector);
            value["range"] = milliseconds(Some(&matrix.range));
            value
        }
        ExprKind::Subquery(inner) => subquery(inner),
        ExprKind::Paren(inner) => json!({"type": "parenExpr", "expr": tree(inner)}),
        ExprKind::Unary(inner) => unary(inner),
        ExprKind::Binary(inner) => binary(inner),
        ExprKind::Aggregate(inner) => aggregate(inner),
        ExprKind::Call(inner) => call(inner),
    }
}

fn selector(kind: &str, selector: &Selector) -> Value {
    // The condition on the name stands last, wherever it was written.
    let mut matchers: Vec<_> = selector.matchers.iter().collect();
    if selector.name.is_some() {
        matchers.rotate_left(1);
    }
    let matchers: Vec<Value> =
        matchers.iter().map(|m| json!({"name": *m.name, "type": m.op.as_str(), "value": *m.value})).collect();
    let (timestamp, start_or_end) = at(selector.at.as_ref());
    json!({
        "type": kind,
        "name": selector.name.as_deref().unwrap_or_default(),
        "matchers": matchers,
        "offset": milliseconds(selector.offset.as_ref()),
        "timestamp": timestamp,
        "startOrEnd": start_or_end,
    })
}

fn at(at: Option<&At>) -> (Value, Value) {
    match at {
        None => (Value::Null, Value::Null),
        Some(At::Time(ts)) => (json!(ts), Value::Null),
        Some(At::Start) => (Value::Null, "start".into()),
        Some(At::End) => (Value::Null, "end".into()),
    }
}

/// A duration in milliseconds; 0 where it is absent or has to be computed.
#[expect(clippy::cast_possible_truncation, reason = "the parser has checked the bounds")]
fn milliseconds(duration: Option<&Duration>) -> Value {
    match duration {
        Some(Duration::Number(number)) => json!((number.value * 1000.0).round() as i64),
        Some(Duration::Negative(inner)) => match milliseconds(Some(inner)).as_i64() {
            Some(ms) => json!(-ms),
            None => json!(0),
        },
        Some(Duration::Paren(inner)) => milliseconds(Some(inner)),
        _ => json!(0),
    }
}

fn subquery(subquery: &Subquery) -> Value {
    let (timestamp, start_or_end) = at(subquery.at.as_ref());
    json!({
        "type": "subquery",
        "expr": tree(&subquery.expr),
        "range": milliseconds(Some(&subquery.range)),
        "step": milliseconds(subquery.step.as_ref()),
        "offset": milliseconds(subquery.offset.as_ref()),
        "timestamp": timestamp,
        "startOrEnd": start_or_end,
    })
}

fn unary(unary: &Unary) -> Value {
    json!({"type": "unaryExpr", "op": if unary.negative { "-" } else { "+" }, "expr": tree(&unary.expr)})
}

fn binary(binary: &Binary) -> Value {
    let vector = |expr: &Expr| expr.value_type() == promql::ValueType::Vector;
    let matching = (vector(&binary.left) && vector(&binary.right)).then(|| self::matching(&binary.matching));
    json!({
        "type": "binaryExpr",
        "op": binary.op.as_str(),
        "lhs": tree(&binary.left),
        "rhs": tree(&binary.right),
        "bool": binary.bool_modifier,
        "matching": matching,
    })
}

fn matching(matching: &Matching) -> Value {
    let cardinality = match matching.cardinality {
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
        Cardinality::ManyToMany => "many-to-many",
    };
    json!({"card": cardinality, "labels": matching.labels, "on": matching.on, "include": matching.include})
}

fn aggregate(aggregate: &Aggregate) -> Value {
    json!({
        "type": "aggregation",
        "op": aggregate.op.as_str(),
        "expr": tree(&aggregate.expr),
        "param": aggregate.param.as_ref().map(tree),
        "grouping": aggregate.grouping,
        "without": aggregate.without,
    })
}

fn call(call: &Call) -> Value {
    let signature = call.function.signature();
    let types: Vec<&str> = signature.args.iter().map(|kind| kind.as_str()).collect();
    json!({
        "type": "call",
        "func": {
            "name": signature.name,
            "argTypes": types,
            "variadic": signature.variadic,
            "returnType": signature.returns.as_str(),
        },
        "args": call.args.iter().map(tree).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Value {
        tree(&promql::parse(text, &promql::ParseOptions::default()).unwrap())
    }

    #[test]
    fn trees_are_those_of_prometheus() {
        assert_eq!(
            parsed("sum by (a) (rate(x{b=\"c\"}[5m] offset 1m))"),
            json!({
                "type": "aggregation", "op": "sum", "param": null, "grouping": ["a"], "without": false,
                "expr": {
                    "type": "call",
                    "func": {"name": "rate", "argTypes": ["matrix"], "returnType": "vector", "variadic": 0},
                    "args": [{
                        "type": "matrixSelector", "name": "x", "offset": 60000, "range": 300_000,
                        "startOrEnd": null, "timestamp": null,
                        "matchers": [
                            {"name": "b", "type": "=", "value": "c"}, {"name": "__name__", "type": "=", "value": "x"},
                        ],
                    }],
                },
            })
        );
        let matched = parsed("a / on (z) group_left (q) (-b > bool 3)");
        assert_eq!(
            matched["matching"],
            json!({"card": "many-to-one", "include": ["q"], "labels": ["z"], "on": true})
        );
        assert_eq!(matched["rhs"]["expr"]["matching"], Value::Null);
        assert_eq!(matched["rhs"]["expr"]["bool"], true);
        let sub = parsed("max_over_time(x[5m:1m] @ 10)");
        assert_eq!((&sub["args"][0]["timestamp"], &sub["args"][0]["step"]), (&json!(10_000), &json!(60_000)));
    }
}
