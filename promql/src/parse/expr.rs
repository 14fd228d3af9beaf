//! Expressions.

use nom::Parser as _;

use super::input::{Parsed, Tokens, expect};
use super::{HEIGHT_MAX, ParseError, ParseErrorKind, duration, selector};
use crate::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Cardinality, Expr, ExprKind, Extension, Matching,
    MatrixSelector, Number, Selector, Span, Subquery, Unary,
};
use crate::functions::Function;
use crate::lex::{Keyword, TokenKind};
use crate::{plan, stack};

/// A whole query.
pub(super) fn query(input: Tokens<'_>) -> Result<Expr, ParseError> {
    if matches!(input.kind(), TokenKind::End) {
        let message = "no expression found in input".to_owned();
        return Err(*input.error(ParseErrorKind::Syntax, Span::default(), message));
    }
    let parsed = binary(input, 0).and_then(|(rest, expr)| match rest.kind() {
        TokenKind::End => Ok(expr),
        _ => Err(nom::Err::Failure(rest.unexpected(""))),
    });
    parsed.map_err(|error| match error {
        nom::Err::Error(error) | nom::Err::Failure(error) => *error,
        nom::Err::Incomplete(_) => *input.unexpected(""),
    })
}

fn operator(input: Tokens<'_>) -> Option<BinaryOp> {
    match input.kind() {
        TokenKind::Operator(op) => Some(*op),
        TokenKind::Keyword(keyword) => keyword.operator(),
        _ => None,
    }
}

/// Operators of precedence `min` and above, and their operands.
///
/// Everything that nests comes by here.
fn binary(input: Tokens<'_>, min: u8) -> Parsed<'_, Expr> {
    stack::guarded(|| {
        let (mut rest, mut left) = unary(input.deeper()?)?;
        let mut chain = 0;
        while let Some(op) = operator(rest).filter(|op| op.precedence() >= min) {
            chain += 1;
            check_chain(rest, chain)?;
            (rest, left) = operation(rest, left, op)?;
        }
        Ok((rest.at_depth_of(input), left))
    })
}

/// The operator `op`, which comes next, and its right operand.
fn operation(input: Tokens<'_>, left: Expr, op: BinaryOp) -> Parsed<'_, Expr> {
    let op_span = input.first().span;
    let (rest, modifiers) = modifiers(input.skip(), op)?;
    let next_min = op.precedence() + u8::from(op != BinaryOp::Pow);
    let (rest, right) = binary(rest, next_min)?;
    let start = left.span.start;
    check_modifiers(rest, op, &modifiers, (op_span, rest.span_from(start)))?;
    let bool_modifier = modifiers.bool_end.is_some();
    let binary = Box::new(Binary { op, left, right, matching: modifiers.matching, bool_modifier });
    Ok((rest, rest.expr(start, ExprKind::Binary(binary))))
}

fn check_modifiers(
    input: Tokens<'_>,
    op: BinaryOp,
    modifiers: &Modifiers,
    (op_span, span): (Span, Span),
) -> Result<(), nom::Err<Box<ParseError>>> {
    if modifiers.filled && !input.options.fill_modifiers {
        let message = "binop fill modifiers are experimental and not enabled".to_owned();
        return Err(input.fail(ParseErrorKind::NotEnabled, span, message));
    }
    if let (true, Some(end)) = (!op.is_comparison(), modifiers.bool_end) {
        let message = "bool modifier can only be used on comparison operators".to_owned();
        let span = Span { start: op_span.start, end: end - 1 };
        return Err(input.fail(ParseErrorKind::Type, span, message));
    }
    Ok(())
}

fn check_chain(input: Tokens<'_>, length: usize) -> Result<(), nom::Err<Box<ParseError>>> {
    if length < HEIGHT_MAX {
        return Ok(());
    }
    Err(input.too_deep(input.first().span, ("operators in a chain", HEIGHT_MAX)))
}

/// Refuses what is too high as a whole, though no chain and no nesting of it is. No tree is higher than it has
/// tokens.
pub(super) fn check_height(input: Tokens<'_>, tokens: usize, expr: &Expr) -> Result<(), ParseError> {
    if tokens <= HEIGHT_MAX || plan::height(expr) <= HEIGHT_MAX {
        return Ok(());
    }
    let limit = ("levels of operators and parentheses", HEIGHT_MAX);
    Err(*input.error(ParseErrorKind::TooDeep, expr.span, Tokens::too_deep_message(limit)))
}

/// What may stand between a binary operator and its right operand.
#[derive(Default)]
struct Modifiers {
    bool_end: Option<usize>,
    matching: Matching,
    filled: bool,
}

fn modifiers(mut input: Tokens<'_>, op: BinaryOp) -> Parsed<'_, Modifiers> {
    let mut out = Modifiers::default();
    if op.is_set() {
        out.matching.cardinality = Cardinality::ManyToMany;
    }
    if input.keyword() == Some(Keyword::Bool) {
        out.bool_end = Some(input.first().span.end);
        input = input.skip();
    }
    if let Some(keyword @ (Keyword::On | Keyword::Ignoring)) = input.keyword() {
        out.matching.on = keyword == Keyword::On;
        (input, out.matching.labels) = selector::label_list(input.skip())?;
        if let Some(side @ (Keyword::GroupLeft | Keyword::GroupRight)) = input.keyword() {
            let left = side == Keyword::GroupLeft;
            out.matching.cardinality = if left { Cardinality::ManyToOne } else { Cardinality::OneToMany };
            input = input.skip();
            match input.kind() {
                TokenKind::LeftParen => (input, out.matching.include) = selector::label_list(input)?,
                TokenKind::Keyword(Keyword::Bool | Keyword::On | Keyword::Ignoring) => {
                    return input.refuse(" in grouping opts, expected \"(\"");
                }
                _ => {}
            }
        }
    }
    while let Some(side @ (Keyword::Fill | Keyword::FillLeft | Keyword::FillRight)) = input.keyword() {
        let (rest, value) = fill_value(input.skip())?;
        let sides = [&mut out.matching.fill_left, &mut out.matching.fill_right];
        let wanted = [side != Keyword::FillRight, side != Keyword::FillLeft];
        for (slot, _) in sides.into_iter().zip(wanted).filter(|(_, wanted)| *wanted) {
            if slot.replace(Number { value, is_duration: false }).is_some() {
                return input.refuse("");
            }
        }
        out.filled = true;
        input = rest;
    }
    Ok((input, out))
}

fn fill_value(input: Tokens<'_>) -> Parsed<'_, f64> {
    let (rest, _) = expect(&TokenKind::LeftParen, " in fill modifier, expected \"(\"").parse(input)?;
    let (rest, value) = signed_number(rest, " in fill modifier, expected number")?;
    let (rest, _) = expect(&TokenKind::RightParen, " in fill modifier, expected \")\"").parse(rest)?;
    Ok((rest, value))
}

fn signed_number<'a>(input: Tokens<'a>, context: &str) -> Parsed<'a, f64> {
    let (rest, sign) = match input.kind() {
        TokenKind::Operator(BinaryOp::Sub) => (input.skip(), -1.0),
        TokenKind::Operator(BinaryOp::Add) => (input.skip(), 1.0),
        _ => (input, 1.0),
    };
    match rest.kind() {
        TokenKind::Number(value) | TokenKind::Duration(value) => {
            let value = value
                .clone()
                .map_err(|message| rest.fail(ParseErrorKind::Value, rest.first().span, message))?;
            Ok((rest.skip(), sign * value))
        }
        _ => rest.refuse(context),
    }
}

/// Signs bind weaker than `^` and tighter than everything else.
fn unary(input: Tokens<'_>) -> Parsed<'_, Expr> {
    let TokenKind::Operator(sign @ (BinaryOp::Add | BinaryOp::Sub)) = input.kind() else {
        return postfix(input);
    };
    let start = input.first().span.start;
    let negative = *sign == BinaryOp::Sub;
    let (rest, operand) = binary(input.skip(), BinaryOp::Pow.precedence())?;
    let kind = match &operand.kind {
        ExprKind::Number(number) => ExprKind::Number(if negative { number.negated() } else { *number }),
        _ => ExprKind::Unary(Box::new(Unary { negative, expr: operand })),
    };
    Ok((rest, rest.expr(start, kind)))
}

/// A primary expression and the modifiers after it.
fn postfix(input: Tokens<'_>) -> Parsed<'_, Expr> {
    let (mut rest, mut expr) = primary(input)?;
    let mut length = 0;
    while is_modifier(rest) {
        length += 1;
        check_chain(rest, length)?;
        (rest, expr) = modifier(rest, expr)?;
    }
    Ok((rest, expr))
}

/// Whether something comes next that is added to the expression before it.
fn is_modifier(input: Tokens<'_>) -> bool {
    matches!(
        input.kind(),
        TokenKind::LeftBracket
            | TokenKind::At
            | TokenKind::Keyword(Keyword::Offset | Keyword::Anchored | Keyword::Smoothed)
    )
}

fn modifier(input: Tokens<'_>, expr: Expr) -> Parsed<'_, Expr> {
    match input.kind() {
        TokenKind::LeftBracket => brackets(input, expr),
        TokenKind::At => at(input, expr),
        TokenKind::Keyword(Keyword::Offset) => offset(input, expr),
        TokenKind::Keyword(Keyword::Anchored) => extension(input, expr, Extension::Anchored),
        _ => extension(input, expr, Extension::Smoothed),
    }
}

fn primary(input: Tokens<'_>) -> Parsed<'_, Expr> {
    let opens = matches!(input.second(), Some(TokenKind::LeftParen));
    match input.kind() {
        TokenKind::Number(_) | TokenKind::Duration(_) | TokenKind::String(_) => literal(input),
        TokenKind::LeftParen => paren(input),
        TokenKind::Keyword(Keyword::Aggregate(op)) if opens || groups(input) => aggregate(input, *op),
        TokenKind::Keyword(
            Keyword::Start | Keyword::End | Keyword::Step | Keyword::Range | Keyword::MinOf | Keyword::MaxOf,
        ) if opens => call(input),
        TokenKind::Identifier if opens => call(input),
        TokenKind::Keyword(keyword) if keyword.may_be_metric() => vector(input),
        TokenKind::Identifier | TokenKind::LeftBrace => vector(input),
        _ => input.refuse(""),
    }
}

/// Whether the token after the next one is `by` or `without`.
fn groups(input: Tokens<'_>) -> bool {
    matches!(input.second(), Some(TokenKind::Keyword(Keyword::By | Keyword::Without)))
}

fn literal(input: Tokens<'_>) -> Parsed<'_, Expr> {
    let span = input.first().span;
    let kind = match input.kind() {
        TokenKind::Number(Ok(value)) => ExprKind::Number(Number { value: *value, is_duration: false }),
        TokenKind::Duration(Ok(value)) => ExprKind::Number(Number { value: *value, is_duration: true }),
        TokenKind::Number(Err(message)) | TokenKind::Duration(Err(message)) => {
            return Err(input.fail(ParseErrorKind::Value, span, message.clone()));
        }
        TokenKind::String(text) => ExprKind::String(text.clone()),
        _ => return input.refuse(""),
    };
    let rest = input.skip();
    Ok((rest, rest.expr(span.start, kind)))
}

fn paren(input: Tokens<'_>) -> Parsed<'_, Expr> {
    let (rest, inner) = binary(input.skip(), 0)?;
    let (rest, _) = expect(&TokenKind::RightParen, "").parse(rest)?;
    Ok((rest, rest.expr(input.first().span.start, ExprKind::Paren(Box::new(inner)))))
}

fn vector(input: Tokens<'_>) -> Parsed<'_, Expr> {
    let start = input.first().span.start;
    let (rest, selector) = selector::selector(input)?;
    Ok((rest, rest.expr(start, ExprKind::Vector(selector))))
}

/// `(a, b)`: the arguments of a call or an aggregation.
fn arguments(input: Tokens<'_>) -> Parsed<'_, Vec<Expr>> {
    let (mut rest, _) = expect(&TokenKind::LeftParen, "").parse(input)?;
    let mut args = Vec::new();
    if matches!(rest.kind(), TokenKind::RightParen) {
        return Ok((rest.skip(), args));
    }
    loop {
        let (after, arg) = binary(rest, 0)?;
        args.push(arg);
        rest = match after.kind() {
            TokenKind::RightParen => return Ok((after.skip(), args)),
            TokenKind::Comma => after.skip(),
            _ => return after.refuse(""),
        };
        if matches!(rest.kind(), TokenKind::RightParen) {
            let message = "trailing commas not allowed in function call args".to_owned();
            return Err(rest.fail(ParseErrorKind::Syntax, after.first().span, message));
        }
    }
}

fn call(input: Tokens<'_>) -> Parsed<'_, Expr> {
    let span = input.first().span;
    let name = input.word();
    let (rest, args) = arguments(input.skip())?;
    let Some(function) = Function::named(name) else {
        let message = format!("unknown function with name \"{name}\"");
        return Err(input.fail(ParseErrorKind::UnknownFunction, span, message));
    };
    if function.signature().experimental && !input.options.experimental_functions {
        let message = format!("function \"{name}\" is not enabled");
        return Err(input.fail(ParseErrorKind::NotEnabled, span, message));
    }
    Ok((rest, rest.expr(span.start, ExprKind::Call(Box::new(Call { function, args })))))
}

/// `by (...)` or `without (...)`: whether it is `without`, and the labels.
fn grouping(input: Tokens<'_>) -> Parsed<'_, Option<(bool, Vec<String>)>> {
    let without = match input.keyword() {
        Some(Keyword::By) => false,
        Some(Keyword::Without) => true,
        _ => return Ok((input, None)),
    };
    let (rest, labels) = selector::label_list(input.skip())?;
    Ok((rest, Some((without, labels))))
}

fn aggregate(input: Tokens<'_>, op: AggregateOp) -> Parsed<'_, Expr> {
    let start = input.first().span.start;
    let (rest, before) = grouping(input.skip())?;
    if before.is_some() && !matches!(rest.kind(), TokenKind::LeftParen) {
        return rest.refuse(" in aggregation");
    }
    let (rest, mut args) = arguments(rest)?;
    let (rest, grouped) = match before {
        Some(before) => (rest, Some(before)),
        None => grouping(rest)?,
    };
    let span = rest.span_from(start);
    let refuse = |kind, message| Err(input.fail(kind, span, message));
    if args.is_empty() {
        return refuse(ParseErrorKind::Type, "no arguments for aggregate expression provided".to_owned());
    }
    let wanted = 1 + usize::from(op.param_type().is_some());
    if args.len() != wanted {
        let message = format!(
            "wrong number of arguments for aggregate expression provided, expected {wanted}, got {}",
            args.len()
        );
        return refuse(ParseErrorKind::Type, message);
    }
    let experimental = matches!(op, AggregateOp::Limitk | AggregateOp::LimitRatio);
    if experimental && !input.options.experimental_functions {
        let message = format!(
            "{}() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
            op.as_str()
        );
        return refuse(ParseErrorKind::NotEnabled, message);
    }
    let (without, grouping) = grouped.unwrap_or_default();
    let expr = args.remove(wanted - 1);
    let aggregate = Aggregate { op, param: args.pop(), expr, without, grouping };
    Ok((rest, rest.expr(start, ExprKind::Aggregate(Box::new(aggregate)))))
}

/// `[range]` or `[range:step]` after `inner`.
fn brackets(input: Tokens<'_>, mut inner: Expr) -> Parsed<'_, Expr> {
    let start = inner.span.start;
    let open = input.first().span.start;
    let (mut rest, range) = duration::positive(input.skip())?;
    if matches!(rest.kind(), TokenKind::Colon) {
        rest = rest.skip();
        let mut step = None;
        if !matches!(rest.kind(), TokenKind::RightBracket) {
            let (after, duration) = duration::positive(rest)?;
            (rest, step) = (after, Some(duration));
        }
        let (rest, _) =
            expect(&TokenKind::RightBracket, " in subquery selector, expected \"]\"").parse(rest)?;
        let subquery = Subquery { expr: inner, range, step, offset: None, at: None };
        return Ok((rest, rest.expr(start, ExprKind::Subquery(Box::new(subquery)))));
    }
    let context = " in subquery or range, expected \":\" or \"]\"";
    let (rest, _) = expect(&TokenKind::RightBracket, context).parse(rest)?;
    let span = rest.span_from(open);
    let refuse = |message: &str| Err(input.fail(ParseErrorKind::Type, span, message.to_owned()));
    match inner.take_kind() {
        ExprKind::Vector(selector) if selector.offset.is_some() => {
            refuse("no offset modifiers allowed before range")
        }
        ExprKind::Vector(selector) if selector.at.is_some() => refuse("no @ modifiers allowed before range"),
        ExprKind::Vector(selector) if selector.extension.is_some() => {
            refuse("no anchored or smoothed modifiers allowed before range")
        }
        ExprKind::Vector(selector) => {
            let matrix = MatrixSelector { selector, selector_span: inner.span, range };
            Ok((rest, rest.expr(start, ExprKind::Matrix(Box::new(matrix)))))
        }
        _ => refuse("ranges only allowed for vector selectors"),
    }
}

/// The selector of a vector or matrix expression.
fn selector_of(expr: &mut Expr) -> Option<&mut Selector> {
    match &mut expr.kind {
        ExprKind::Vector(selector) => Some(selector),
        ExprKind::Matrix(matrix) => Some(&mut matrix.selector),
        _ => None,
    }
}

fn misplaced<'a, T>(input: Tokens<'a>, expr: &Expr, what: &str) -> Parsed<'a, T> {
    let message = format!(
        "{what} modifier must be preceded by an instant vector selector or range vector selector or a subquery"
    );
    Err(input.fail(ParseErrorKind::Type, expr.span, message))
}

fn offset(input: Tokens<'_>, mut expr: Expr) -> Parsed<'_, Expr> {
    let (rest, duration) = duration::offset(input.skip())?;
    let span = expr.span;
    let slot = if let ExprKind::Subquery(subquery) = &mut expr.kind {
        &mut subquery.offset
    } else if let Some(selector) = selector_of(&mut expr) {
        &mut selector.offset
    } else {
        return misplaced(input, &expr, "offset");
    };
    if slot.replace(duration).is_some() {
        let message = "offset may not be set multiple times".to_owned();
        return Err(input.fail(ParseErrorKind::Syntax, span, message));
    }
    expr.span = rest.span_from(span.start);
    Ok((rest, expr))
}

fn at(input: Tokens<'_>, mut expr: Expr) -> Parsed<'_, Expr> {
    const CONTEXT: &str = " in @, expected timestamp";
    let rest = input.skip();
    let (rest, time) = match rest.keyword() {
        Some(keyword @ (Keyword::Start | Keyword::End)) => {
            let (rest, _) = expect(&TokenKind::LeftParen, CONTEXT).parse(rest.skip())?;
            let (rest, _) = expect(&TokenKind::RightParen, CONTEXT).parse(rest)?;
            (rest, if keyword == Keyword::Start { At::Start } else { At::End })
        }
        _ => {
            let (rest, seconds) = signed_number(rest, CONTEXT)?;
            (rest, At::Time(milliseconds(input, seconds, expr.span)?))
        }
    };
    let span = expr.span;
    let slot = if let ExprKind::Subquery(subquery) = &mut expr.kind {
        &mut subquery.at
    } else if let Some(selector) = selector_of(&mut expr) {
        &mut selector.at
    } else {
        return misplaced(input, &expr, "@");
    };
    if slot.replace(time).is_some() {
        let message = "@ <timestamp> may not be set multiple times".to_owned();
        return Err(input.fail(ParseErrorKind::Syntax, span, message));
    }
    expr.span = rest.span_from(span.start);
    Ok((rest, expr))
}

fn milliseconds(input: Tokens<'_>, seconds: f64, span: Span) -> Result<i64, nom::Err<Box<ParseError>>> {
    let ms = (seconds * 1000.0).round();
    // The bound is 2^63 in milliseconds.
    if ms.is_nan() || ms.abs() >= 9.223_372_036_854_775e18 {
        let shown =
            if seconds.is_finite() { format!("{seconds:.6}") } else { model::float::format_fixed(seconds) };
        let message = format!("timestamp out of bounds for @ modifier: {shown}");
        return Err(input.fail(ParseErrorKind::Value, span, message));
    }
    #[expect(clippy::cast_possible_truncation, reason = "the bound was checked")]
    Ok(ms as i64)
}

fn extension(input: Tokens<'_>, mut expr: Expr, extension: Extension) -> Parsed<'_, Expr> {
    let span = expr.span;
    let name = extension.as_str();
    if !input.options.extended_selectors {
        let message = format!("{name} modifier is experimental and not enabled");
        return Err(input.fail(ParseErrorKind::NotEnabled, span, message));
    }
    let rest = input.skip();
    let Some(selector) = selector_of(&mut expr) else {
        let what = if matches!(expr.kind, ExprKind::Subquery(_)) {
            format!("{name} modifier is not supported for subqueries")
        } else {
            format!("{name} modifier not implemented")
        };
        return Err(input.fail(ParseErrorKind::Type, span, what));
    };
    match selector.extension.replace(extension) {
        Some(before) if before != extension => {
            let message = "anchored and smoothed modifiers cannot be used together".to_owned();
            return Err(input.fail(ParseErrorKind::Syntax, span, message));
        }
        Some(_) => {
            let message = format!("{name} may not be set multiple times");
            return Err(input.fail(ParseErrorKind::Syntax, span, message));
        }
        None => {}
    }
    expr.span = rest.span_from(span.start);
    Ok((rest, expr))
}
