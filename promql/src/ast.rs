//! The syntax tree: plain data, as written.

use model::{Matcher, Timestamp};

use crate::functions::Function;
use crate::stack;

/// A stretch of the query text, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl Span {
    /// The smallest span that covers both.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start, end: other.end }
    }
}

/// A place in the query text as people count: line and column (in bytes), both from 1. In no text at all, which is
/// what zeros stand for, the place is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The column in bytes, from 1.
    pub column: u32,
}

impl Position {
    /// The position of byte `at` of `text`.
    #[must_use]
    pub fn of(text: &str, at: usize) -> Self {
        Self::within(&line_ends(text), at.min(text.len()))
    }

    /// The position of byte `at` of a text whose lines end at `line_ends`.
    pub(crate) fn within(line_ends: &[usize], at: usize) -> Self {
        let line = line_ends.partition_point(|end| *end < at);
        let start = line.checked_sub(1).map_or(0, |before| line_ends[before] + 1);
        let (line, column) = (line + 1, at - start + 1);
        let clamp = |n| u32::try_from(n).unwrap_or(u32::MAX);
        Self { line: clamp(line), column: clamp(column) }
    }
}

/// Where the lines of a text end, but for the last one.
pub(crate) fn line_ends(text: &str) -> Vec<usize> {
    // Nearly every text is one line.
    if !text.contains('\n') {
        return Vec::new();
    }
    text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect()
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == Self::default() {
            return f.write_str("unknown position");
        }
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// An expression and where it stands. Two expressions are equal if they mean the same text up to
/// layout: spans, positions and the order of matchers are left out of the comparison.
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands, in bytes.
    pub span: Span,
    /// Where it starts, for people; annotations name it.
    pub position: Position,
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        stack::guarded(|| self.kind == other.kind)
    }
}

impl Clone for Expr {
    fn clone(&self) -> Self {
        let kind = stack::guarded(|| self.kind.clone());
        Self { kind, span: self.span, position: self.position }
    }
}

impl std::fmt::Debug for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, span, position } = self;
        let mut f = f.debug_struct("Expr");
        stack::guarded(|| f.field("kind", kind).field("span", span).field("position", position).finish())
    }
}

impl Drop for Expr {
    fn drop(&mut self) {
        let is_leaf = matches!(self.kind, ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Vector(_));
        if !is_leaf && !stack::suffices() {
            let kind = self.take_kind();
            stack::guarded(|| drop(kind));
        }
    }
}

/// The kinds of expression.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// A number, or a duration used as one.
    Number(Number),
    /// A string. A byte that is no UTF-8 stands as [`crate::text::encode_byte`] says.
    String(String),
    /// `name{matchers}`
    Vector(Selector),
    /// `name{matchers}[range]`
    Matrix(Box<MatrixSelector>),
    /// `expr[range:step]`
    Subquery(Box<Subquery>),
    /// `(expr)`
    Paren(Box<Expr>),
    /// `-expr` or `+expr`
    Unary(Box<Unary>),
    /// `left op right`
    Binary(Box<Binary>),
    /// `sum by (a) (expr)`
    Aggregate(Box<Aggregate>),
    /// `function(args)`
    Call(Box<Call>),
}

/// The type of an expression's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// One number a step.
    Scalar,
    /// A set of series with one value each.
    Vector,
    /// A set of series with samples over a range.
    Matrix,
    /// A string.
    String,
}

impl ValueType {
    /// The name as the HTTP API gives it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
            Self::String => "string",
        }
    }

    /// The name as error messages give it.
    #[must_use]
    pub fn documented(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            Self::String => "string",
        }
    }
}

/// A number as written.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    /// Its value; of a duration, seconds.
    pub value: f64,
    /// Whether it was written as a duration.
    pub is_duration: bool,
}

impl Number {
    /// The number with the other sign. A duration has no negative zero, and NaN has no sign that is shown.
    #[must_use]
    pub(crate) fn negated(self) -> Self {
        let value = match self.value {
            nan if nan.is_nan() => nan,
            value if self.is_duration => 0.0 - value,
            value => -value,
        };
        Self { value, ..self }
    }
}

impl PartialEq for Number {
    /// By bits, so that NaN equals NaN.
    fn eq(&self, other: &Self) -> bool {
        self.value.to_bits() == other.value.to_bits() && self.is_duration == other.is_duration
    }
}

/// A selector of series with its modifiers.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// The metric name, if it was written before the braces. It is also the first matcher.
    pub name: Option<String>,
    /// All conditions, that on the name included.
    pub matchers: Vec<Matcher>,
    /// `offset`
    pub offset: Option<Duration>,
    /// `@`
    pub at: Option<At>,
    /// `anchored` or `smoothed`
    pub extension: Option<Extension>,
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        let sorted = |selector: &Self| {
            let mut texts: Vec<_> = selector.matchers.iter().map(ToString::to_string).collect();
            texts.sort_unstable();
            texts
        };
        self.name == other.name
            && self.offset == other.offset
            && self.at == other.at
            && self.extension == other.extension
            && sorted(self) == sorted(other)
    }
}

/// What happens at the edges of an extended selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extension {
    /// The sample at or before the left edge is taken as standing at the edge.
    Anchored,
    /// Values at both edges are interpolated.
    Smoothed,
}

impl Extension {
    /// The keyword.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anchored => "anchored",
            Self::Smoothed => "smoothed",
        }
    }
}

/// The time of an `@` modifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// A fixed time.
    Time(Timestamp),
    /// The start of the query.
    Start,
    /// The end of the query.
    End,
}

/// A selector with a range.
#[derive(Clone, Debug)]
pub struct MatrixSelector {
    /// The series; its modifiers apply to the range.
    pub selector: Selector,
    /// Where the selector without range stands.
    pub selector_span: Span,
    /// The range.
    pub range: Duration,
}

impl PartialEq for MatrixSelector {
    fn eq(&self, other: &Self) -> bool {
        self.selector == other.selector && self.range == other.range
    }
}

/// An expression evaluated over a range of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Subquery {
    /// What is evaluated.
    pub expr: Expr,
    /// Over how long.
    pub range: Duration,
    /// In which steps; the engine's default if absent.
    pub step: Option<Duration>,
    /// `offset`
    pub offset: Option<Duration>,
    /// `@`
    pub at: Option<At>,
}

/// A duration, perhaps computed.
#[derive(Clone, Debug, PartialEq)]
pub enum Duration {
    /// A number of seconds.
    Number(Number),
    /// `step()`
    Step,
    /// `range()`
    Range,
    /// `-d`
    Negative(Box<Duration>),
    /// `(d)`
    Paren(Box<Duration>),
    /// `a op b`; `op` is arithmetic.
    Binary(BinaryOp, Box<(Duration, Duration)>),
    /// `min_of(a, b)`
    MinOf(Box<(Duration, Duration)>),
    /// `max_of(a, b)`
    MaxOf(Box<(Duration, Duration)>),
}

/// A sign before an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Unary {
    /// Whether it is a minus.
    pub negative: bool,
    /// What it applies to.
    pub expr: Expr,
}

/// Binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterEqual,
    LessEqual,
    And,
    Or,
    Unless,
    /// `</`: keep the part of a histogram below a bound.
    TrimUpper,
    /// `>/`: keep the part of a histogram above a bound.
    TrimLower,
}

impl BinaryOp {
    /// The operator as written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::Less => "<",
            Self::GreaterEqual => ">=",
            Self::LessEqual => "<=",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
        }
    }

    /// Whether it compares.
    #[must_use]
    pub fn is_comparison(self) -> bool {
        matches!(
            self,
            Self::Equal | Self::NotEqual | Self::Greater | Self::Less | Self::GreaterEqual | Self::LessEqual
        )
    }

    /// Whether it works on sets of series.
    #[must_use]
    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }

    /// Binding strength; larger binds tighter.
    #[must_use]
    pub(crate) fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::TrimUpper | Self::TrimLower => 3,
            op if op.is_comparison() => 3,
            Self::Add | Self::Sub => 4,
            Self::Pow => 6,
            _ => 5,
        }
    }
}

/// Which side of a binary operation may have many series a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cardinality {
    /// One series on either side.
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// How the series of two vectors find each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Matching {
    /// Who may be many.
    pub cardinality: Cardinality,
    /// Whether `labels` are those that must agree, rather than those left out.
    pub on: bool,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// The labels of `group_left` or `group_right`.
    pub include: Vec<String>,
    /// Value of a missing left series.
    pub fill_left: Option<Number>,
    /// Value of a missing right series.
    pub fill_right: Option<Number>,
}

impl Default for Matching {
    fn default() -> Self {
        Self {
            cardinality: Cardinality::OneToOne,
            on: false,
            labels: Vec::new(),
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        }
    }
}

/// A binary operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// The left operand.
    pub left: Expr,
    /// The right operand.
    pub right: Expr,
    /// How series are matched; used between vectors only.
    pub matching: Matching,
    /// `bool`: a comparison returns 0 or 1 and filters nothing.
    pub bool_modifier: bool,
}

/// Aggregation operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the language")]
pub enum AggregateOp {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    Quantile,
    CountValues,
    Limitk,
    LimitRatio,
}

impl AggregateOp {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Sum,
        Self::Avg,
        Self::Min,
        Self::Max,
        Self::Count,
        Self::Group,
        Self::Stddev,
        Self::Stdvar,
        Self::Topk,
        Self::Bottomk,
        Self::Quantile,
        Self::CountValues,
        Self::Limitk,
        Self::LimitRatio,
    ];

    /// The operator as written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Count => "count",
            Self::Group => "group",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            Self::Quantile => "quantile",
            Self::CountValues => "count_values",
            Self::Limitk => "limitk",
            Self::LimitRatio => "limit_ratio",
        }
    }

    /// The type of the parameter, if the operator takes one.
    #[must_use]
    pub fn param_type(self) -> Option<ValueType> {
        match self {
            Self::Topk | Self::Bottomk | Self::Quantile | Self::Limitk | Self::LimitRatio => {
                Some(ValueType::Scalar)
            }
            Self::CountValues => Some(ValueType::String),
            _ => None,
        }
    }
}

/// An aggregation.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The operator.
    pub op: AggregateOp,
    /// The parameter of those operators that take one.
    pub param: Option<Expr>,
    /// What is aggregated.
    pub expr: Expr,
    /// Whether `grouping` names the labels to leave out rather than those to keep.
    pub without: bool,
    /// The labels of `by` or `without`.
    pub grouping: Vec<String>,
}

/// A function call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The function.
    pub function: Function,
    /// The arguments.
    pub args: Vec<Expr>,
}

impl Expr {
    /// The type of its value.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        match &self.kind {
            ExprKind::Number(_) => ValueType::Scalar,
            ExprKind::String(_) => ValueType::String,
            ExprKind::Vector(_) | ExprKind::Aggregate(_) => ValueType::Vector,
            ExprKind::Matrix(_) | ExprKind::Subquery(_) => ValueType::Matrix,
            ExprKind::Paren(inner) => stack::guarded(|| inner.value_type()),
            ExprKind::Unary(unary) => stack::guarded(|| unary.expr.value_type()),
            ExprKind::Call(call) => call.function.signature().returns,
            ExprKind::Binary(binary) => {
                // Chains are high at their left.
                let scalar = |e: &Self| stack::guarded(|| e.value_type()) == ValueType::Scalar;
                if scalar(&binary.right) && scalar(&binary.left) {
                    ValueType::Scalar
                } else {
                    ValueType::Vector
                }
            }
        }
    }

    /// Takes the kind out; an expression cannot be taken apart otherwise, since dropping it needs care.
    pub(crate) fn take_kind(&mut self) -> ExprKind {
        std::mem::replace(&mut self.kind, ExprKind::String(String::new()))
    }

    /// All selectors that are written, in the order of the text. The function `info` may read a metric besides
    /// that no selector names.
    #[must_use]
    pub fn selectors(&self) -> Vec<&Selector> {
        let mut out = Vec::new();
        self.add_selectors(&mut out);
        out
    }

    fn add_selectors<'a>(&'a self, out: &mut Vec<&'a Selector>) {
        stack::guarded(|| match &self.kind {
            ExprKind::Number(_) | ExprKind::String(_) => {}
            ExprKind::Vector(selector) => out.push(selector),
            ExprKind::Matrix(matrix) => out.push(&matrix.selector),
            ExprKind::Subquery(subquery) => subquery.expr.add_selectors(out),
            ExprKind::Paren(inner) => inner.add_selectors(out),
            ExprKind::Unary(unary) => unary.expr.add_selectors(out),
            ExprKind::Binary(binary) => {
                binary.left.add_selectors(out);
                binary.right.add_selectors(out);
            }
            ExprKind::Aggregate(aggregate) => {
                aggregate.param.iter().chain([&aggregate.expr]).for_each(|expr| expr.add_selectors(out));
            }
            ExprKind::Call(call) => call.args.iter().for_each(|arg| arg.add_selectors(out)),
        });
    }

    /// The expression without parentheses around it.
    #[must_use]
    pub fn unwrapped(&self) -> &Self {
        let mut this = self;
        while let ExprKind::Paren(inner) = &this.kind {
            this = inner;
        }
        this
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_negated_nan_reads_back_as_it_prints() {
        let options = crate::ParseOptions::default();
        for text in ["-NaN", "x - ---nan", "--NaN + 1"] {
            let expr = crate::parse(text, &options).unwrap();
            assert_eq!(crate::parse(&expr.to_string(), &options).as_ref(), Ok(&expr), "{text}");
        }
    }
}
