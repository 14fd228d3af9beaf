//! Tokens to a tree, with `nom` over a slice of tokens.
//!
//! The grammar is LL(1) but for two places (is a keyword a metric name? is a string in braces a
//! metric name?), so nearly every mismatch is final: a rule returns a recoverable error only where
//! it stands before its first token. Binary operators are read by precedence climbing.

mod check;
mod duration;
mod expr;
mod input;
mod selector;

use std::fmt;

use crate::ast::{Expr, Position, Span, line_ends};
use crate::lex;
use input::Tokens;

/// Which parts of the language that can be switched are on. The default is that of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseOptions {
    /// Functions and aggregations marked experimental.
    pub experimental_functions: bool,
    /// Arithmetic, `step()`, `range()`, `min_of` and `max_of` in durations.
    pub duration_expressions: bool,
    /// `anchored` and `smoothed` selectors.
    pub extended_selectors: bool,
    /// `fill`, `fill_left` and `fill_right`.
    pub fill_modifiers: bool,
}

impl Default for ParseOptions {
    fn default() -> Self {
        Self { duration_expressions: true, ..Self::bare() }
    }
}

impl ParseOptions {
    /// Everything off, which is how the parser of Prometheus stands on its own.
    #[must_use]
    pub const fn bare() -> Self {
        Self {
            experimental_functions: false,
            duration_expressions: false,
            extended_selectors: false,
            fill_modifiers: false,
        }
    }

    /// Everything on.
    #[must_use]
    pub const fn experimental() -> Self {
        Self {
            experimental_functions: true,
            duration_expressions: true,
            extended_selectors: true,
            fill_modifiers: true,
        }
    }
}

/// The sorts of mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseErrorKind {
    /// Characters that form no token.
    Lexical,
    /// Tokens in an order the grammar does not know.
    Syntax,
    /// Operands or arguments of the wrong type or number.
    Type,
    /// A value that is not allowed where it stands.
    Value,
    /// A function that does not exist.
    UnknownFunction,
    /// Something that needs a flag which is off.
    NotEnabled,
    /// Nesting beyond [`DEPTH_MAX`], [`HEIGHT_MAX`] or [`DURATION_MAX`].
    TooDeep,
}

/// A refusal to read a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The part of the text that is wrong, in bytes.
    pub span: Span,
    /// Where that part starts, for people.
    pub position: Position,
    /// The sort of mistake.
    pub kind: ParseErrorKind,
    /// The mistake in words.
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: parse error: {}", self.position, self.message)
    }
}

impl std::error::Error for ParseError {}

/// Parentheses, calls and brackets may nest this deep.
pub const DEPTH_MAX: usize = 1000;

/// The tree of an expression may be this high. That of `a + a + a` is as high as the chain is long, and
/// everything that walks the tree recurses.
pub const HEIGHT_MAX: usize = 5000;

/// A computed duration may have this many operators.
pub const DURATION_MAX: usize = 1000;

/// Reads an expression.
///
/// # Errors
/// The first mistake in the text.
pub fn parse(text: &str, options: &ParseOptions) -> Result<Expr, ParseError> {
    let tokens = lex::tokens(text);
    let line_ends = line_ends(text);
    let input = Tokens::new((text, &line_ends), &tokens, options);
    let expr = expr::query(input)?;
    expr::check_height(input, tokens.len(), &expr)?;
    check::check(&expr, text)?;
    Ok(expr)
}

/// Reads a selector, `name{label="value"}`, up to the end of `text`. Unlike in an expression, it may
/// select everything.
///
/// # Errors
/// The first mistake in the text.
pub fn parse_selector(text: &str) -> Result<crate::ast::Selector, ParseError> {
    let tokens = lex::tokens(text);
    let options = ParseOptions::default();
    selector::alone(Tokens::new((text, &line_ends(text)), &tokens, &options))
}
