//! Types: what the grammar cannot say.

use model::METRIC_NAME;

use super::{ParseError, ParseErrorKind};
use crate::ast::{
    Aggregate, Binary, Call, Cardinality, Expr, ExprKind, Position, Selector, Span, Subquery, Unary,
    ValueType,
};
use crate::functions::Function;
use crate::text::Quote;

/// Checks an expression from its leaves up.
pub(super) fn check(expr: &Expr, text: &str) -> Result<(), ParseError> {
    Checker { text }.expr(expr).map(|_| ())
}

struct Checker<'a> {
    text: &'a str,
}

/// The type of what was checked.
type Checked = Result<ValueType, ParseError>;

impl Checker<'_> {
    fn refuse<T>(&self, span: Span, message: String) -> Result<T, ParseError> {
        let position = Position::of(self.text, span.start);
        Err(ParseError { span, position, kind: ParseErrorKind::Type, message })
    }

    fn expr(&self, expr: &Expr) -> Checked {
        crate::stack::guarded(|| self.kind(expr))
    }

    fn kind(&self, expr: &Expr) -> Checked {
        match &expr.kind {
            ExprKind::Number(_) => Ok(ValueType::Scalar),
            ExprKind::String(_) => Ok(ValueType::String),
            ExprKind::Paren(inner) => self.expr(inner),
            ExprKind::Vector(selector) => self.selector(selector, expr.span).map(|()| ValueType::Vector),
            ExprKind::Matrix(matrix) => {
                self.selector(&matrix.selector, matrix.selector_span).map(|()| ValueType::Matrix)
            }
            ExprKind::Subquery(subquery) => self.subquery(subquery, expr.span),
            ExprKind::Unary(unary) => self.unary(unary, expr.span),
            ExprKind::Binary(binary) => self.binary(binary, expr.span),
            ExprKind::Aggregate(aggregate) => self.aggregate(aggregate),
            ExprKind::Call(call) => self.call(call, expr.span),
        }
    }

    fn subquery(&self, subquery: &Subquery, span: Span) -> Checked {
        match self.expr(&subquery.expr)? {
            ValueType::Vector => Ok(ValueType::Matrix),
            other => self.refuse(
                span,
                format!("subquery is only allowed on instant vector, got {} instead", other.as_str()),
            ),
        }
    }

    fn unary(&self, unary: &Unary, span: Span) -> Checked {
        match self.expr(&unary.expr)? {
            operand @ (ValueType::Scalar | ValueType::Vector) => Ok(operand),
            other => self.refuse(
                span,
                format!(
                    "unary expression only allowed on expressions of type scalar or instant vector, got \"{}\"",
                    other.documented()
                ),
            ),
        }
    }

    fn selector(&self, selector: &Selector, span: Span) -> Result<(), ParseError> {
        if let Some(name) = &selector.name {
            // The first matcher is the one that the name itself stands for.
            if let Some(second) = selector.matchers[1..].iter().find(|m| *m.name == *METRIC_NAME) {
                let message =
                    format!("metric name must not be set twice: {} or {}", Quote(name), Quote(&second.value));
                return self.refuse(span, message);
            }
            return Ok(());
        }
        if selector.matchers.iter().all(model::Matcher::matches_empty) {
            let message = "vector selector must contain at least one non-empty matcher".to_owned();
            return self.refuse(span, message);
        }
        Ok(())
    }

    fn expect(&self, expr: &Expr, wanted: ValueType, context: &str) -> Result<(), ParseError> {
        let found = self.expr(expr)?;
        if found == wanted {
            return Ok(());
        }
        let message =
            format!("expected type {} in {context}, got {}", wanted.documented(), found.documented());
        self.refuse(expr.span, message)
    }

    fn binary(&self, binary: &Binary, span: Span) -> Checked {
        let (left, right) = (self.expr(&binary.left)?, self.expr(&binary.right)?);
        self.operands(binary, (left, right), span)?;
        let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
        Ok(if scalars { ValueType::Scalar } else { ValueType::Vector })
    }

    fn operands(
        &self,
        binary: &Binary,
        (left, right): (ValueType, ValueType),
        span: Span,
    ) -> Result<(), ParseError> {
        let (op, matching) = (binary.op, &binary.matching);
        let scalar = |kind| kind == ValueType::Scalar;
        let between = Span { start: binary.left.span.end, end: binary.right.span.start };
        if op.is_comparison() && !binary.bool_modifier && scalar(left) && scalar(right) {
            let message = "comparisons between scalars must use BOOL modifier".to_owned();
            return self.refuse(self.operator_span(between), message);
        }
        if let Some(label) = matching.include.iter().find(|l| matching.on && matching.labels.contains(l)) {
            let message = format!("label {} must not occur in ON and GROUP clause at once", Quote(label));
            return self.refuse(self.operator_span(between), message);
        }
        for (side, kind) in [(&binary.left, left), (&binary.right, right)] {
            if !matches!(kind, ValueType::Scalar | ValueType::Vector) {
                let message =
                    "binary expression must contain only scalar and instant vector types".to_owned();
                return self.refuse(side.span, message);
            }
        }
        let vectors = left == ValueType::Vector && right == ValueType::Vector;
        let filled = matching.fill_left.is_some() || matching.fill_right.is_some();
        if !vectors && (!matching.labels.is_empty() || filled) {
            let message = "vector matching only allowed between instant vectors".to_owned();
            return self.refuse(span, message);
        }
        if !op.is_set() {
            return Ok(());
        }
        if vectors && matching.cardinality != Cardinality::ManyToMany {
            return self.refuse(span, format!("no grouping allowed for \"{}\" operation", op.as_str()));
        }
        if filled {
            let message = "filling in missing series not allowed for set operators".to_owned();
            return self.refuse(span, message);
        }
        if scalar(left) || scalar(right) {
            let message = format!("set operator \"{}\" not allowed in binary scalar expression", op.as_str());
            return self.refuse(span, message);
        }
        Ok(())
    }

    /// The part of `between` without blanks at its ends.
    fn operator_span(&self, between: Span) -> Span {
        let text = self.text.get(between.start..between.end).unwrap_or("");
        let start = between.start + (text.len() - text.trim_start().len());
        Span { start, end: start + text.trim().len() }
    }

    fn aggregate(&self, aggregate: &Aggregate) -> Checked {
        self.expect(&aggregate.expr, ValueType::Vector, "aggregation expression")?;
        match (&aggregate.param, aggregate.op.param_type()) {
            (Some(param), Some(wanted)) => self.expect(param, wanted, "aggregation parameter"),
            _ => Ok(()),
        }?;
        Ok(ValueType::Vector)
    }

    fn call(&self, call: &Call, span: Span) -> Checked {
        let signature = call.function.signature();
        let (count, args) = (call.args.len(), signature.args);
        let arity = |words: String| -> Checked {
            let name = signature.name;
            self.refuse(span, format!("expected {words} argument(s) in call to \"{name}\", got {count}"))
        };
        if signature.variadic == 0 {
            if count != args.len() {
                return arity(args.len().to_string());
            }
        } else {
            let min = args.len() - 1;
            if count < min {
                return arity(format!("at least {min}"));
            }
            if let Ok(extra @ 1..) = usize::try_from(signature.variadic)
                && count > min + extra
            {
                return arity(format!("at most {}", min + extra));
            }
        }
        if call.function == Function::Info
            && let Some(second) = call.args.get(1)
        {
            return self.info(&call.args[0], second).map(|()| signature.returns);
        }
        let context = format!("call to function \"{}\"", signature.name);
        for (at, arg) in call.args.iter().enumerate() {
            self.expect(arg, args[at.min(args.len() - 1)], &context)?;
        }
        Ok(signature.returns)
    }

    /// The second argument of `info` is a set of matchers that looks like a selector.
    fn info(&self, first: &Expr, second: &Expr) -> Result<(), ParseError> {
        self.expect(first, ValueType::Vector, "call to function \"info\"")?;
        match &second.kind {
            ExprKind::Vector(selector) if selector.name.is_none() => Ok(()),
            _ => {
                let message = "expected label selectors only, got vector selector instead".to_owned();
                self.refuse(second.span, message)
            }
        }
    }
}
