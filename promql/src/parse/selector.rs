//! Selectors and label lists.

use model::{METRIC_NAME, MatchOp, Matcher};
use nom::Parser as _;
use nom::combinator::opt;

use super::input::{Parsed, Tokens, expect, token};
use super::{ParseError, ParseErrorKind};
use crate::ast::{BinaryOp, Selector, Span};
use crate::lex::{Keyword, TokenKind};
use crate::text;

/// `name`, `name{...}` or `{...}`; the caller has made sure that one of these comes next.
pub(super) fn selector(input: Tokens<'_>) -> Parsed<'_, Selector> {
    let mut selector = Selector::default();
    let mut rest = input;
    if !matches!(rest.kind(), TokenKind::LeftBrace) {
        let name = rest.word();
        selector.name = Some(name.to_owned());
        selector.matchers.push(Matcher::equal(METRIC_NAME, name));
        rest = rest.skip();
    }
    let (mut rest, open) = opt(token(&TokenKind::LeftBrace)).parse(rest)?;
    if open.is_some() {
        (rest, ()) = matchers(rest, &mut selector.matchers)?;
    }
    Ok((rest, selector))
}

/// A selector and nothing after it.
pub(super) fn alone(input: Tokens<'_>) -> Result<Selector, ParseError> {
    let flatten = |error: nom::Err<Box<ParseError>>| match error {
        nom::Err::Error(error) | nom::Err::Failure(error) => *error,
        nom::Err::Incomplete(_) => *input.unexpected(""),
    };
    let starts = match input.kind() {
        TokenKind::Identifier | TokenKind::LeftBrace => true,
        TokenKind::Keyword(keyword) => keyword.may_be_metric(),
        _ => false,
    };
    if !starts {
        return Err(*input.unexpected(""));
    }
    let (rest, selector) = selector(input).map_err(flatten)?;
    match rest.kind() {
        TokenKind::End => Ok(selector),
        _ => Err(*rest.unexpected("")),
    }
}

/// The matchers between braces; the opening one has been read.
fn matchers<'a>(mut input: Tokens<'a>, into: &mut Vec<Matcher>) -> Parsed<'a, ()> {
    loop {
        if matches!(input.kind(), TokenKind::RightBrace) {
            return Ok((input.skip(), ()));
        }
        let (rest, matcher) = matcher(input)?;
        into.push(matcher);
        input = match rest.kind() {
            TokenKind::Comma => rest.skip(),
            TokenKind::RightBrace => rest,
            _ => return rest.refuse(" in label matching, expected \",\" or \"}\""),
        };
    }
}

/// `label="value"`, or a bare quoted metric name.
fn matcher(input: Tokens<'_>) -> Parsed<'_, Matcher> {
    let start = input.first().span;
    let (name, quoted) = match input.kind() {
        TokenKind::Identifier => (input.word(), false),
        TokenKind::String(name) => (name.as_str(), true),
        _ => return input.refuse(" in label matching, expected identifier or \"}\""),
    };
    let rest = input.skip();
    let op = match rest.kind() {
        TokenKind::Assign => MatchOp::Equal,
        TokenKind::Operator(BinaryOp::NotEqual) => MatchOp::NotEqual,
        TokenKind::RegexMatch => MatchOp::Regex,
        TokenKind::RegexNoMatch => MatchOp::NotRegex,
        _ if quoted => return Ok((rest, Matcher::equal(METRIC_NAME, name))),
        _ => return rest.refuse(" in label matching, expected label matching operator"),
    };
    let rest = rest.skip();
    let TokenKind::String(value) = rest.kind() else {
        return rest.refuse(" in label matching, expected string");
    };
    let rest = rest.skip();
    let span = rest.span_from(start.start);
    let matcher = Matcher::new(name, op, value)
        .map_err(|error| input.fail(ParseErrorKind::Value, span, error.to_string()))?;
    Ok((rest, matcher))
}

/// `(label, "label", ...)`, as after `by`, `on` and `group_left`.
pub(super) fn label_list(input: Tokens<'_>) -> Parsed<'_, Vec<String>> {
    let (mut input, _) = expect(&TokenKind::LeftParen, " in grouping opts, expected \"(\"").parse(input)?;
    let mut labels = Vec::new();
    loop {
        if matches!(input.kind(), TokenKind::RightParen) {
            return Ok((input.skip(), labels));
        }
        let (rest, label) = label(input)?;
        labels.push(label);
        input = match rest.kind() {
            TokenKind::Comma => rest.skip(),
            TokenKind::RightParen => rest,
            _ => return rest.refuse(" in grouping opts, expected \",\" or \")\""),
        };
    }
}

fn label(input: Tokens<'_>) -> Parsed<'_, String> {
    let word = input.word();
    let label = match input.kind() {
        TokenKind::String(label) => {
            check_label(input, label, input.first().span)?;
            label.as_str()
        }
        TokenKind::Identifier if model::is_legacy_label_name(word) => word,
        TokenKind::Keyword(keyword) if *keyword != Keyword::Without => word,
        _ => return input.refuse(" in grouping opts, expected label"),
    };
    Ok((input.skip(), label.to_owned()))
}

fn check_label(input: Tokens<'_>, label: &str, span: Span) -> Result<(), nom::Err<Box<ParseError>>> {
    if label.is_empty() || text::has_invalid_utf8(label) {
        let message = format!("invalid label name {}", text::Quote(label));
        return Err(input.fail(ParseErrorKind::Value, span, message));
    }
    Ok(())
}
