//! The canonical form of an expression: one line, the same for all ways of writing it.

mod pretty;

use std::fmt::{self, Display, Formatter};

use model::is_legacy_label_name;

use crate::ast::{
    Aggregate, At, Binary, Cardinality, Duration, Expr, ExprKind, Matching, Number, Selector, Subquery,
};
use crate::stack;
use crate::text::Quote;

impl Expr {
    /// The expression over several lines, as the `format_query` endpoint returns it.
    #[must_use]
    pub fn pretty(&self) -> String {
        pretty::pretty(self)
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        stack::guarded(|| self.print(f))
    }
}

impl Expr {
    fn print(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Number(number) => number.fmt(f),
            ExprKind::String(text) => Quote(text).fmt(f),
            ExprKind::Vector(selector) => write!(f, "{}{}", Head(selector), Tail(selector)),
            ExprKind::Matrix(matrix) => {
                write!(f, "{}[{}]{}", Head(&matrix.selector), Top(&matrix.range), Tail(&matrix.selector))
            }
            ExprKind::Subquery(subquery) => write!(f, "{}{}", subquery.expr, Brackets(subquery)),
            ExprKind::Paren(inner) => write!(f, "({inner})"),
            ExprKind::Unary(unary) => write!(f, "{}{}", sign(unary.negative), unary.expr),
            ExprKind::Binary(binary) => {
                write!(f, "{} {} {}", binary.left, Operator(binary), binary.right)
            }
            ExprKind::Aggregate(aggregate) => {
                write!(f, "{}(", Operation(aggregate))?;
                if let Some(param) = &aggregate.param {
                    write!(f, "{param}, ")?;
                }
                write!(f, "{})", aggregate.expr)
            }
            ExprKind::Call(call) => {
                write!(f, "{}(", call.function.name())?;
                separated(f, &call.args, Display::fmt)?;
                f.write_str(")")
            }
        }
    }
}

fn sign(negative: bool) -> &'static str {
    if negative { "-" } else { "+" }
}

fn separated<T>(
    f: &mut Formatter<'_>,
    items: &[T],
    write: impl Fn(&T, &mut Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        write(item, f)?;
    }
    Ok(())
}

/// `(a, "b.c")`
struct LabelList<'a>(&'a [String]);

impl Display for LabelList<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        separated(f, self.0, |label, f| {
            if is_legacy_label_name(label) { f.write_str(label) } else { Quote(label).fmt(f) }
        })?;
        f.write_str(")")
    }
}

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_duration {
            f.write_str(&model::duration::format_ms(milliseconds(self.value)))
        } else {
            f.write_str(&model::float::format_fixed(self.value))
        }
    }
}

/// Seconds in milliseconds, by way of whole nanoseconds as long as floats have these: beyond a hundred days a whole
/// number of seconds would lose a millisecond on that way.
#[expect(clippy::cast_possible_truncation, reason = "saturates; the parser bounds durations")]
pub(crate) fn milliseconds(seconds: f64) -> i64 {
    const NANOSECONDS_EXACT: f64 = 9_007_199_254_740_992.0;
    let nanoseconds = (seconds * 1e9).round();
    if nanoseconds.abs() < NANOSECONDS_EXACT {
        nanoseconds as i64 / 1_000_000
    } else {
        (seconds * 1e3).round() as i64
    }
}

/// A duration in brackets or after `offset`: a plain number is shown as a duration.
struct Top<'a>(&'a Duration);

impl Display for Top<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Duration::Number(number) => f.write_str(&model::duration::format_ms(milliseconds(number.value))),
            other => other.fmt(f),
        }
    }
}

impl Display for Duration {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        stack::guarded(|| match self {
            Self::Number(number) => number.fmt(f),
            Self::Step => f.write_str("step()"),
            Self::Range => f.write_str("range()"),
            Self::Negative(inner) => write!(f, "-{inner}"),
            Self::Paren(inner) => write!(f, "({inner})"),
            Self::Binary(op, sides) => write!(f, "{} {} {}", sides.0, op.as_str(), sides.1),
            Self::MinOf(pair) => write!(f, "min_of({}, {})", pair.0, pair.1),
            Self::MaxOf(pair) => write!(f, "max_of({}, {})", pair.0, pair.1),
        })
    }
}

/// Name and matchers; the latter sorted.
struct Head<'a>(&'a Selector);

impl Display for Head<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(selector) = self;
        let hidden = usize::from(selector.name.is_some());
        let mut matchers: Vec<String> = selector.matchers[hidden..]
            .iter()
            .map(|m| {
                let quoted = !is_legacy_label_name(&m.name);
                let name = if quoted { Quote(&m.name).to_string() } else { m.name.to_string() };
                format!("{name}{}{}", m.op.as_str(), Quote(&m.value))
            })
            .collect();
        matchers.sort_unstable();
        f.write_str(selector.name.as_deref().unwrap_or(""))?;
        if matchers.is_empty() && selector.name.is_some() {
            return Ok(());
        }
        write!(f, "{{{}}}", matchers.join(","))
    }
}

/// The modifiers of a selector.
struct Tail<'a>(&'a Selector);

impl Display for Tail<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(extension) = self.0.extension {
            write!(f, " {}", extension.as_str())?;
        }
        times(f, self.0.at, self.0.offset.as_ref())
    }
}

fn times(f: &mut Formatter<'_>, at: Option<At>, offset: Option<&Duration>) -> fmt::Result {
    match at {
        #[expect(clippy::cast_precision_loss, reason = "three decimals are shown")]
        Some(At::Time(ms)) => write!(f, " @ {:.3}", ms as f64 / 1000.0)?,
        Some(At::Start) => f.write_str(" @ start()")?,
        Some(At::End) => f.write_str(" @ end()")?,
        None => {}
    }
    match offset {
        Some(offset) => write!(f, " offset {}", Top(offset)),
        None => Ok(()),
    }
}

/// What follows the expression of a subquery.
struct Brackets<'a>(&'a Subquery);

impl Display for Brackets<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "[{}:", Top(&self.0.range))?;
        if let Some(step) = &self.0.step {
            Top(step).fmt(f)?;
        }
        f.write_str("]")?;
        times(f, self.0.at, self.0.offset.as_ref())
    }
}

/// The operator of a binary operation with its modifiers.
struct Operator<'a>(&'a Binary);

impl Display for Operator<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.op.as_str())?;
        if self.0.bool_modifier {
            f.write_str(" bool")?;
        }
        let Matching { cardinality, on, labels, include, fill_left, fill_right } = &self.0.matching;
        let grouped = match cardinality {
            Cardinality::ManyToOne => Some("group_left"),
            Cardinality::OneToMany => Some("group_right"),
            Cardinality::OneToOne | Cardinality::ManyToMany => None,
        };
        if *on {
            write!(f, " on {}", LabelList(labels))?;
        } else if !labels.is_empty() || grouped.is_some() {
            write!(f, " ignoring {}", LabelList(labels))?;
        }
        if let Some(side) = grouped {
            write!(f, " {side} {}", LabelList(include))?;
        }
        match (fill_left, fill_right) {
            (Some(left), Some(right)) if left == right => write!(f, " fill ({left})"),
            _ => {
                if let Some(left) = fill_left {
                    write!(f, " fill_left ({left})")?;
                }
                match fill_right {
                    Some(right) => write!(f, " fill_right ({right})"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// The operator of an aggregation with its grouping.
struct Operation<'a>(&'a Aggregate);

impl Display for Operation<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Aggregate { op, without, grouping, .. } = self.0;
        f.write_str(op.as_str())?;
        if *without {
            write!(f, " without {} ", LabelList(grouping))
        } else if grouping.is_empty() {
            Ok(())
        } else {
            write!(f, " by {} ", LabelList(grouping))
        }
    }
}
