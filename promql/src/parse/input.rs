//! The parser's input: a slice of tokens, and what every rule may need.

use nom::error::{ErrorKind, ParseError as NomError};

use super::{DEPTH_MAX, ParseError, ParseErrorKind, ParseOptions};
use crate::ast::{Expr, ExprKind, Position, Span};
use crate::lex::{Keyword, Token, TokenKind};

/// The result of a rule.
pub(super) type Parsed<'a, T> = nom::IResult<Tokens<'a>, T, Box<ParseError>>;

/// What is still to be read. Copied freely.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tokens<'a> {
    pub(super) text: &'a str,
    pub(super) options: &'a ParseOptions,
    /// Where lines end, in bytes.
    line_ends: &'a [usize],
    rest: &'a [Token],
    /// The end of the token before.
    last_end: usize,
    depth: usize,
}

impl NomError<Tokens<'_>> for Box<ParseError> {
    fn from_error_kind(input: Tokens<'_>, _: ErrorKind) -> Self {
        input.unexpected("")
    }

    fn append(_: Tokens<'_>, _: ErrorKind, other: Self) -> Self {
        other
    }
}

impl<'a> Tokens<'a> {
    pub(super) fn new(
        (text, line_ends): (&'a str, &'a [usize]),
        tokens: &'a [Token],
        options: &'a ParseOptions,
    ) -> Self {
        Self { text, options, line_ends, rest: tokens, last_end: 0, depth: 0 }
    }

    /// The next token.
    pub(super) fn first(self) -> &'a Token {
        // The lexer ends every list with `End` or `Error`, and neither is ever skipped.
        &self.rest[0]
    }

    pub(super) fn kind(self) -> &'a TokenKind {
        &self.first().kind
    }

    /// The kind of the token after the next one.
    pub(super) fn second(self) -> Option<&'a TokenKind> {
        self.rest.get(1).map(|token| &token.kind)
    }

    pub(super) fn keyword(self) -> Option<Keyword> {
        match self.kind() {
            TokenKind::Keyword(keyword) => Some(*keyword),
            _ => None,
        }
    }

    /// The input after the next token.
    pub(super) fn skip(self) -> Self {
        match self.rest {
            [first, rest @ ..] if !rest.is_empty() => Self { rest, last_end: first.span.end, ..self },
            _ => self,
        }
    }

    /// The input one level deeper.
    pub(super) fn deeper(self) -> Result<Self, nom::Err<Box<ParseError>>> {
        if self.depth >= DEPTH_MAX {
            return Err(self.too_deep(self.first().span, ("levels of nesting", DEPTH_MAX)));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    /// A failure because there is more than `limit` of something.
    pub(super) fn too_deep(self, span: Span, limit: (&str, usize)) -> nom::Err<Box<ParseError>> {
        self.fail(ParseErrorKind::TooDeep, span, Self::too_deep_message(limit))
    }

    pub(super) fn too_deep_message((what, limit): (&str, usize)) -> String {
        format!("expression is nested too deeply: more than {limit} {what}")
    }

    /// The same input back at the depth of `outer`.
    pub(super) fn at_depth_of(self, outer: Self) -> Self {
        Self { depth: outer.depth, ..self }
    }

    /// The words of the token.
    pub(super) fn word(self) -> &'a str {
        let span = self.first().span;
        &self.text[span.start..span.end]
    }

    /// The span from `start` to the end of the last token read.
    pub(super) fn span_from(self, start: usize) -> Span {
        Span { start, end: self.last_end.max(start) }
    }

    /// Builds an expression that starts at `start` and ends with the last token read.
    pub(super) fn expr(self, start: usize, kind: ExprKind) -> Expr {
        Expr { kind, span: self.span_from(start), position: Position::within(self.line_ends, start) }
    }

    /// An error that names the next token, with a context such as ` in grouping opts, expected label`.
    pub(super) fn unexpected(self, context: &str) -> Box<ParseError> {
        let token = self.first();
        let (kind, message) = match &token.kind {
            TokenKind::Error(message) => (ParseErrorKind::Lexical, message.clone()),
            _ => (ParseErrorKind::Syntax, format!("unexpected {}{context}", self.described())),
        };
        self.error(kind, token.span, message)
    }

    /// The same as a failure that no alternative can mend.
    pub(super) fn refuse<T>(self, context: &str) -> Parsed<'a, T> {
        Err(nom::Err::Failure(self.unexpected(context)))
    }

    pub(super) fn error(self, kind: ParseErrorKind, span: Span, message: String) -> Box<ParseError> {
        let span = if message.starts_with("no expression") { Span::default() } else { span };
        let unknown = self.text.is_empty();
        let position =
            if unknown { Position::default() } else { Position::within(self.line_ends, span.start) };
        Box::new(ParseError { span, position, kind, message })
    }

    pub(super) fn fail(self, kind: ParseErrorKind, span: Span, message: String) -> nom::Err<Box<ParseError>> {
        nom::Err::Failure(self.error(kind, span, message))
    }

    fn described(self) -> String {
        let word = self.word();
        match self.kind() {
            TokenKind::End => "end of input".to_owned(),
            TokenKind::Identifier => format!("identifier \"{word}\""),
            TokenKind::Keyword(Keyword::Aggregate(_)) => format!("<aggr:{word}>"),
            TokenKind::Keyword(keyword) if keyword.operator().is_some() => format!("<op:{word}>"),
            TokenKind::Keyword(_) => format!("<{word}>"),
            TokenKind::Operator(_) | TokenKind::At => format!("<op:{word}>"),
            TokenKind::Number(_) => format!("number {}", shortened(word)),
            TokenKind::Duration(_) => format!("duration {}", shortened(word)),
            TokenKind::String(_) => format!("string {}", shortened(word)),
            _ => format!("\"{word}\""),
        }
    }
}

/// At most ten bytes of a token's text, quoted.
fn shortened(word: &str) -> String {
    if word.len() <= 10 {
        return model::Quoted(word).to_string();
    }
    let end = (0..=10).rev().find(|end| word.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", model::Quoted(&word[..end]))
}

/// A rule for one token of a given kind.
pub(super) fn token<'a>(kind: &'static TokenKind) -> impl Fn(Tokens<'a>) -> Parsed<'a, Span> {
    move |input| {
        if input.kind() == kind {
            Ok((input.skip(), input.first().span))
        } else {
            Err(nom::Err::Error(input.unexpected("")))
        }
    }
}

/// A token that must come next.
pub(super) fn expect<'a>(
    kind: &'static TokenKind,
    context: &'static str,
) -> impl Fn(Tokens<'a>) -> Parsed<'a, Span> {
    move |input| {
        if input.kind() == kind { Ok((input.skip(), input.first().span)) } else { input.refuse(context) }
    }
}
