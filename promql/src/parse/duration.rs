//! Durations in brackets and after `offset`.

use nom::Parser as _;

use super::input::{Parsed, Tokens, expect};
use super::{DURATION_MAX, ParseErrorKind};
use crate::ast::{BinaryOp, Duration, Number, Span};
use crate::lex::{Keyword, TokenKind};

const RANGE_CONTEXT: &str = " in subquery or range selector, expected number, duration, step(), or range()";
const OFFSET_CONTEXT: &str = " in offset, expected number, duration, step(), or range()";
const INNER_CONTEXT: &str = " in duration expression";

/// A duration that must be above zero: a range or a step.
pub(super) fn positive(input: Tokens<'_>) -> Parsed<'_, Duration> {
    let start = input.first().span.start;
    check_length(input, true)?;
    let (rest, duration) = binary(input, 0, RANGE_CONTEXT)?;
    let span = rest.span_from(start);
    match literal(input, duration, span)? {
        Duration::Number(number) if number.value <= 0.0 => {
            let message = "duration must be greater than 0".to_owned();
            Err(input.fail(ParseErrorKind::Value, span, message))
        }
        duration => Ok((rest, duration)),
    }
}

/// A duration after `offset`: a signed literal, or a computed one in parentheses or by a function.
pub(super) fn offset(input: Tokens<'_>) -> Parsed<'_, Duration> {
    let start = input.first().span.start;
    check_length(input, false)?;
    let (rest, duration) = unary(input, OFFSET_CONTEXT)?;
    let duration = literal(input, duration, rest.span_from(start))?;
    Ok((rest, duration))
}

/// A number that stands alone is a duration, whether it was written as one or not.
/// Durations are whole milliseconds; what is below is cut off.
fn literal(
    input: Tokens<'_>,
    duration: Duration,
    span: Span,
) -> Result<Duration, nom::Err<Box<super::ParseError>>> {
    // A duration has 63 bits of nanoseconds.
    match duration {
        Duration::Number(number)
            if number.value.is_nan() || number.value.abs() >= 9.223_372_036_854_775e9 =>
        {
            Err(input.fail(ParseErrorKind::Value, span, "duration out of range".to_owned()))
        }
        Duration::Number(number) => {
            #[expect(clippy::cast_precision_loss, reason = "below 2^53 milliseconds")]
            let value = crate::print::milliseconds(number.value) as f64 / 1000.0;
            Ok(Duration::Number(Number { value, is_duration: true }))
        }
        other => Ok(other),
    }
}

/// Refuses a duration of too many operators. One in brackets ends where these, a colon or the text end; one after
/// `offset` is a single token or stands in parentheses.
fn check_length(input: Tokens<'_>, bracketed: bool) -> Result<(), nom::Err<Box<super::ParseError>>> {
    let (mut rest, mut operators, mut open) = (input, 0, 0usize);
    loop {
        match rest.kind() {
            TokenKind::RightBracket | TokenKind::Colon | TokenKind::End | TokenKind::Error(_) => break,
            TokenKind::LeftParen => open += 1,
            TokenKind::RightParen => {
                open = open.saturating_sub(1);
                if open == 0 && !bracketed {
                    break;
                }
            }
            TokenKind::Number(_) | TokenKind::Duration(_) if open == 0 && !bracketed => break,
            kind => operators += usize::from(arithmetic(kind).is_some()),
        }
        if operators > DURATION_MAX {
            return Err(input.too_deep(rest.first().span, ("operators in a duration", DURATION_MAX)));
        }
        rest = rest.skip();
    }
    Ok(())
}

fn enabled(input: Tokens<'_>, span: Span) -> Result<(), nom::Err<Box<super::ParseError>>> {
    if input.options.duration_expressions {
        return Ok(());
    }
    let message = "experimental duration expression is not enabled".to_owned();
    Err(input.fail(ParseErrorKind::NotEnabled, span, message))
}

fn arithmetic(kind: &TokenKind) -> Option<BinaryOp> {
    match kind {
        TokenKind::Operator(
            op @ (BinaryOp::Add
            | BinaryOp::Sub
            | BinaryOp::Mul
            | BinaryOp::Div
            | BinaryOp::Mod
            | BinaryOp::Pow),
        ) => Some(*op),
        _ => None,
    }
}

fn binary<'a>(input: Tokens<'a>, min: u8, context: &str) -> Parsed<'a, Duration> {
    crate::stack::guarded(|| operations(input, min, context))
}

fn operations<'a>(input: Tokens<'a>, min: u8, context: &str) -> Parsed<'a, Duration> {
    let start = input.first().span.start;
    let (mut rest, mut left) = unary(input.deeper()?, context)?;
    let mut left_span = rest.span_from(start);
    while let Some(op) = arithmetic(rest.kind()) {
        let precedence = op.precedence();
        if precedence < min {
            break;
        }
        let op_span = rest.first().span;
        let next_min = if op == BinaryOp::Pow { precedence } else { precedence + 1 };
        let (after, right) = binary(rest.skip(), next_min, INNER_CONTEXT)?;
        enabled(input, left_span)?;
        let zero = matches!(right, Duration::Number(n) if n.value == 0.0);
        if zero && matches!(op, BinaryOp::Div | BinaryOp::Mod) {
            let what = if op == BinaryOp::Div { "division by zero" } else { "modulo by zero" };
            return Err(input.fail(ParseErrorKind::Value, op_span, what.to_owned()));
        }
        left = Duration::Binary(op, Box::new((left, right)));
        left_span = after.span_from(start);
        rest = after;
    }
    Ok((rest.at_depth_of(input), left))
}

fn unary<'a>(input: Tokens<'a>, context: &str) -> Parsed<'a, Duration> {
    let TokenKind::Operator(sign @ (BinaryOp::Add | BinaryOp::Sub)) = input.kind() else {
        return primary(input, context);
    };
    // In brackets a sign binds weaker than a power; after `offset` there is no power.
    let inner = input.skip().deeper()?;
    let (rest, operand) = if context == OFFSET_CONTEXT {
        primary(inner, context)?
    } else {
        binary(inner, BinaryOp::Pow.precedence(), INNER_CONTEXT)?
    };
    let duration = match (sign, operand) {
        (BinaryOp::Add, operand) => operand,
        (_, Duration::Number(number)) => Duration::Number(number.negated()),
        (_, operand) => Duration::Negative(Box::new(operand)),
    };
    Ok((rest.at_depth_of(input), duration))
}

fn primary<'a>(input: Tokens<'a>, context: &str) -> Parsed<'a, Duration> {
    let span = input.first().span;
    match input.kind() {
        TokenKind::Number(value) | TokenKind::Duration(value) => {
            let value = value.clone().map_err(|message| input.fail(ParseErrorKind::Value, span, message))?;
            let is_duration = matches!(input.kind(), TokenKind::Duration(_));
            Ok((input.skip(), Duration::Number(Number { value, is_duration })))
        }
        TokenKind::Keyword(Keyword::Step | Keyword::Range) => {
            let (rest, _) = expect(&TokenKind::LeftParen, " in duration expression, expected \"(\"")
                .parse(input.skip())?;
            let (rest, _) =
                expect(&TokenKind::RightParen, " in duration expression, expected \")\"").parse(rest)?;
            enabled(input, rest.span_from(span.start))?;
            let step = input.keyword() == Some(Keyword::Step);
            Ok((rest, if step { Duration::Step } else { Duration::Range }))
        }
        TokenKind::Keyword(keyword @ (Keyword::MinOf | Keyword::MaxOf)) => {
            let (rest, _) = expect(&TokenKind::LeftParen, " in duration expression, expected \"(\"")
                .parse(input.skip())?;
            let args_start = rest.first().span.start;
            let (rest, first) = binary(rest, 0, INNER_CONTEXT)?;
            let (rest, _) =
                expect(&TokenKind::Comma, " in duration expression, expected \",\"").parse(rest)?;
            let (rest, second) = binary(rest, 0, INNER_CONTEXT)?;
            enabled(input, rest.span_from(args_start))?;
            let (rest, _) =
                expect(&TokenKind::RightParen, " in duration expression, expected \")\"").parse(rest)?;
            let pair = Box::new((first, second));
            let min = *keyword == Keyword::MinOf;
            Ok((rest, if min { Duration::MinOf(pair) } else { Duration::MaxOf(pair) }))
        }
        TokenKind::LeftParen => {
            let start = input.skip().first().span.start;
            let (rest, inner) = binary(input.skip(), 0, INNER_CONTEXT)?;
            enabled(input, rest.span_from(start))?;
            let (rest, _) =
                expect(&TokenKind::RightParen, " in duration expression, expected \")\"").parse(rest)?;
            Ok((rest, Duration::Paren(Box::new(inner))))
        }
        _ => input.refuse(context),
    }
}
