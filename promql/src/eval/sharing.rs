//! Planner rule: what a query names several times is computed once.
//!
//! `(a - b) / a` and `sum(rate(x[5m])) / count(rate(x[5m]))` hold equal parts. Each part that reads the store gets a
//! class; parts of one class mean the same, character by character up to layout and parentheses, and are
//! used in the same way. Where a class is evaluated more than once on the same grid, it gets a [`Slot`]:
//!
//! - as a *whole*, the series of an operand, an argument or a subquery: the first use keeps a copy of its
//!   result for the others, as long as half of the query's memory is free;
//! - as a *stream*, series that an aggregation folds one by one: their columns are kept up to a fixed size,
//!   in place of the samples that they are made of, which are longer.
//!
//! What does not fit is evaluated again. No function of the language is random or has memory, so equal
//! parts have equal results; what a part remarks on, it remarks on at its last occurrence, so that one is
//! evaluated for all of them ([`crate::annotations`]).
//!
//! A plan costs about 0.1 µs a node, and nothing for a query of one selector.

use std::hash::{DefaultHasher, Hash, Hasher};

use hashbrown::HashMap;
use model::{Matcher, TimeRange};

use super::at::{Times, is_constant};
use super::grid::Grid;
use super::{call, is_streamed};
use crate::ast::{Expr, ExprKind, Selector, ValueType};
use crate::engine::QueryError;
use crate::functions::Function;
use crate::plan;

/// How a part is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Use {
    /// All its series at once.
    Whole,
    /// Series by series.
    Stream,
}

/// What is computed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    class: u32,
    grid: Grid,
    used: Use,
}

/// A part that is evaluated several times.
pub(crate) struct Slot<'e> {
    /// Its last occurrence in the text.
    pub(crate) expr: &'e Expr,
    /// How often it is evaluated.
    pub(crate) uses: usize,
}

/// A selection that a query makes.
pub(crate) struct Reading {
    pub(crate) matchers: Vec<Matcher>,
    /// All the time that is read.
    pub(crate) range: TimeRange,
    /// How many selectors look it up.
    pub(crate) lookups: usize,
    /// How many of them read samples; the others find columns that have been computed.
    pub(crate) readers: usize,
    /// Whether none of them cares for the order of the series.
    pub(crate) unordered: bool,
}

/// Where selectors stand that are treated in some way, by the first byte of their text.
#[derive(Clone, Copy)]
pub(crate) struct Marks<'m> {
    /// Those whose histograms are used for their counts and sums only.
    pub(crate) detecting: &'m [usize],
    /// Those whose series may come in any order.
    pub(crate) unordered: &'m [usize],
}

/// What the parts of a query share.
#[derive(Default)]
pub(crate) struct Sharing<'e> {
    classes: HashMap<usize, u32>,
    pub(crate) slots: HashMap<Key, Slot<'e>>,
    /// Equal selectors make one, if the times that they read overlap.
    pub(crate) readings: Vec<Reading>,
    /// The occurrences of shared parts by address, and whether they are not the first.
    occurrences: HashMap<usize, (Key, bool)>,
}

/// A node's address: what it is known by while the query lives.
fn address(expr: &Expr) -> usize {
    std::ptr::from_ref(expr).addr()
}

impl<'e> Sharing<'e> {
    /// The sharing in a query.
    pub(crate) fn of(expr: &'e Expr, times: &Times, marks: Marks<'_>) -> Result<Self, QueryError> {
        let mut selectors = 0;
        count_selectors(expr, &mut selectors);
        if selectors < 2 {
            return Ok(Self::default());
        }
        let mut walk = Walk {
            times,
            marks,
            sharing: Self::default(),
            interned: HashMap::new(),
            count: 0,
            has_selector: Vec::new(),
            again: false,
        };
        walk.intern(expr);
        walk.operand(expr, times.query, Use::Whole)?;
        let mut sharing = walk.sharing;
        sharing.slots.retain(|_, slot| slot.uses > 1);
        Ok(sharing)
    }

    /// The key of what `expr` shares with others when it is used so on `grid`.
    pub(crate) fn key(&self, expr: &Expr, grid: Grid, used: Use) -> Option<Key> {
        if self.slots.is_empty() {
            return None;
        }
        let class = *self.classes.get(&address(expr))?;
        Some(Key { class, grid, used }).filter(|key| self.slots.contains_key(key))
    }

    /// What `expr` shares with others, and whether it repeats another.
    pub(crate) fn occurrence(&self, expr: &Expr) -> Option<(&Slot<'e>, bool)> {
        let (key, repeats) = self.occurrences.get(&address(expr))?;
        Some((self.slots.get(key)?, *repeats))
    }
}

fn count_selectors(expr: &Expr, count: &mut usize) {
    match expr.kind {
        ExprKind::Vector(_) | ExprKind::Matrix(_) => *count += 1,
        _ => plan::operands(expr).into_iter().for_each(|operand| count_selectors(operand, count)),
    }
}

/// The parts of an expression that are expressions: its operands, and all arguments of a call.
fn parts(expr: &Expr) -> Vec<&Expr> {
    match &expr.kind {
        ExprKind::Call(call) => call.args.iter().collect(),
        _ => plan::operands(expr),
    }
}

/// Whether two expressions are equal but for their parts.
fn is_alike(a: &Expr, b: &Expr) -> bool {
    match (&a.kind, &b.kind) {
        (ExprKind::Number(a), ExprKind::Number(b)) => a == b,
        (ExprKind::String(a), ExprKind::String(b)) => a == b,
        (ExprKind::Vector(a), ExprKind::Vector(b)) => a == b,
        (ExprKind::Matrix(a), ExprKind::Matrix(b)) => a == b,
        (ExprKind::Subquery(a), ExprKind::Subquery(b)) => {
            a.range == b.range && a.step == b.step && a.offset == b.offset && a.at == b.at
        }
        (ExprKind::Unary(a), ExprKind::Unary(b)) => a.negative == b.negative,
        (ExprKind::Binary(a), ExprKind::Binary(b)) => {
            a.op == b.op && a.bool_modifier == b.bool_modifier && a.matching == b.matching
        }
        (ExprKind::Aggregate(a), ExprKind::Aggregate(b)) => {
            a.op == b.op && a.without == b.without && a.grouping == b.grouping
        }
        (ExprKind::Call(a), ExprKind::Call(b)) => a.function == b.function,
        _ => false,
    }
}

/// Whether the evaluator computes the series of `expr` one by one on `grid`.
fn is_chain(expr: &Expr, grid: Grid) -> bool {
    let streams = match expr.kind {
        ExprKind::Vector(_) | ExprKind::Unary(_) | ExprKind::Binary(_) | ExprKind::Call(_) => {
            is_streamed(expr)
        }
        _ => false,
    };
    streams && !(grid.count > 1 && is_constant(expr))
}

/// The selector that `timestamp` looks into, if it looks into one.
fn looked_into(expr: &Expr) -> Option<&Expr> {
    let ExprKind::Call(call) = &expr.kind else { return None };
    if !matches!(call.function, Function::Timestamp | Function::StartTimestamp) {
        return None;
    }
    let arg = call.args.first()?.unwrapped();
    matches!(&arg.kind, ExprKind::Vector(selector) if selector.extension.is_none()).then_some(arg)
}

/// Whether the columns of a chain are worth keeping: they are computed from samples, not taken from what
/// the store has at hand or from series that are held anyway.
fn is_worth_keeping(expr: &Expr, grid: Grid) -> bool {
    match &expr.unwrapped().kind {
        ExprKind::Vector(_) => grid.count > 1,
        ExprKind::Matrix(_) => true,
        ExprKind::Unary(_) | ExprKind::Binary(_) | ExprKind::Call(_) if is_streamed(expr.unwrapped()) => {
            let streamed = |part: &&Expr| matches!(part.value_type(), ValueType::Vector | ValueType::Matrix);
            parts(expr.unwrapped()).into_iter().filter(streamed).all(|part| is_worth_keeping(part, grid))
        }
        _ => false,
    }
}

/// The first expression of a class, with the classes of its parts and its own.
struct Interned<'e> {
    expr: &'e Expr,
    parts: Vec<u32>,
    class: u32,
}

struct Walk<'e, 'w> {
    times: &'w Times,
    marks: Marks<'w>,
    sharing: Sharing<'e>,
    /// Those that have a class, by hash.
    interned: HashMap<u64, Vec<Interned<'e>>>,
    count: u32,
    /// Of each class, whether it reads the store.
    has_selector: Vec<bool>,
    /// Inside of what will not be evaluated, because its first occurrence has been: nothing is counted,
    /// but a later occurrence of what has been counted takes the place of an earlier one.
    again: bool,
}

impl<'e> Walk<'e, '_> {
    /// The class of `expr`; gives classes to all below it.
    fn intern(&mut self, expr: &'e Expr) -> u32 {
        let expr = expr.unwrapped();
        let below: Vec<u32> = parts(expr).into_iter().map(|part| self.intern(part)).collect();
        let mut hasher = DefaultHasher::new();
        std::mem::discriminant(&expr.kind).hash(&mut hasher);
        below.hash(&mut hasher);
        let selector = match &expr.kind {
            ExprKind::Vector(selector) => Some(selector),
            ExprKind::Matrix(matrix) => Some(&matrix.selector),
            ExprKind::Call(call) => {
                call.function.hash(&mut hasher);
                None
            }
            ExprKind::Binary(binary) => {
                binary.op.hash(&mut hasher);
                None
            }
            _ => None,
        };
        if let Some(selector) = selector {
            selector.name.hash(&mut hasher);
            selector.matchers.len().hash(&mut hasher);
            self.context(expr).hash(&mut hasher);
        }
        let hash = hasher.finish();
        let known = self.interned.get(&hash).and_then(|candidates| {
            let same = |candidate: &&Interned<'e>| {
                candidate.parts == below
                    && is_alike(candidate.expr, expr)
                    && (selector.is_none() || self.context(candidate.expr) == self.context(expr))
            };
            candidates.iter().find(same).map(|candidate| candidate.class)
        });
        let class = known.unwrap_or_else(|| {
            let class = self.count;
            self.count += 1;
            let reads = selector.is_some() || below.iter().any(|part| self.reads(*part));
            self.has_selector.push(reads);
            self.interned.entry(hash).or_default().push(Interned { expr, parts: below, class });
            class
        });
        self.sharing.classes.insert(address(expr), class);
        class
    }

    fn reads(&self, class: u32) -> bool {
        usize::try_from(class).is_ok_and(|class| self.has_selector.get(class) == Some(&true))
    }

    /// How a selector is treated, beyond what it says.
    fn context(&self, selector: &Expr) -> (bool, bool) {
        let at = &selector.span.start;
        (self.marks.detecting.contains(at), self.marks.unordered.contains(at))
    }

    /// Notes that `expr` is evaluated on `grid`; whether it has been before.
    fn note(&mut self, expr: &'e Expr, grid: Grid, used: Use) -> bool {
        let Some(class) = self.sharing.classes.get(&address(expr)).copied() else { return false };
        if !self.reads(class) {
            return false;
        }
        let key = Key { class, grid, used };
        if self.again && !self.sharing.slots.contains_key(&key) {
            return false;
        }
        let slot = self.sharing.slots.entry(key).or_insert(Slot { expr, uses: 0 });
        if slot.expr.span.end < expr.span.end {
            slot.expr = expr;
        }
        if self.again {
            return false;
        }
        slot.uses += 1;
        let repeats = slot.uses > 1;
        self.sharing.occurrences.insert(address(expr), (key, repeats));
        repeats
    }

    /// A part of whatever type.
    fn operand(&mut self, expr: &'e Expr, grid: Grid, used: Use) -> Result<(), QueryError> {
        match (expr.value_type(), used) {
            (ValueType::String, _) => Ok(()),
            (ValueType::Scalar, _) => self.scalar(expr, grid),
            (ValueType::Matrix, _) => self.range(expr, grid, false),
            (ValueType::Vector, Use::Whole) => self.whole(expr, grid),
            (ValueType::Vector, Use::Stream) => self.stream(expr, grid),
        }
    }

    /// All series of `expr`.
    fn whole(&mut self, expr: &'e Expr, grid: Grid) -> Result<(), QueryError> {
        let expr = expr.unwrapped();
        let grid = if grid.count > 1 && is_constant(expr) { grid.first() } else { grid };
        let again = self.again;
        self.again |= self.note(expr, grid, Use::Whole);
        let done = match &expr.kind {
            ExprKind::Aggregate(_) => self.operands(expr, grid, Use::Stream),
            ExprKind::Call(call) if call.function == Function::Absent => {
                self.operands(expr, grid, Use::Stream)
            }
            ExprKind::Call(call) if call::is_whole(call) => self.operands(expr, grid, Use::Whole),
            ExprKind::Binary(_) if !is_streamed(expr) => self.operands(expr, grid, Use::Whole),
            _ => self.chain(expr, grid, false),
        };
        self.again = again;
        done
    }

    fn operands(&mut self, expr: &'e Expr, grid: Grid, used: Use) -> Result<(), QueryError> {
        plan::operands(expr).into_iter().try_for_each(|operand| self.operand(operand, grid, used))
    }

    /// The series of `expr` one by one.
    fn stream(&mut self, expr: &'e Expr, grid: Grid) -> Result<(), QueryError> {
        let expr = expr.unwrapped();
        if !is_chain(expr, grid) {
            return self.whole(expr, grid);
        }
        let repeats = is_worth_keeping(expr, grid) && self.note(expr, grid, Use::Stream);
        self.chain(expr, grid, repeats)
    }

    /// What is below a chain. A repeated one is set up again, but finds its columns computed.
    fn chain(&mut self, expr: &'e Expr, grid: Grid, repeats: bool) -> Result<(), QueryError> {
        if let ExprKind::Vector(selector) = &expr.kind {
            let range = self.times.instant(selector, grid)?.1;
            self.read(expr, selector, (range, repeats));
            return Ok(());
        }
        if let Some(arg) = looked_into(expr) {
            return self.chain(arg, grid, repeats);
        }
        for part in plan::operands(expr) {
            match part.value_type() {
                ValueType::Vector if repeats && is_chain(part.unwrapped(), grid) => {
                    self.chain(part.unwrapped(), grid, true)?;
                }
                ValueType::Matrix => self.range(part, grid, repeats)?,
                _ => self.operand(part, grid, Use::Stream)?,
            }
        }
        Ok(())
    }

    fn range(&mut self, expr: &'e Expr, grid: Grid, repeats: bool) -> Result<(), QueryError> {
        let expr = expr.unwrapped();
        match &expr.kind {
            ExprKind::Matrix(matrix) => {
                let range = self.times.windows(matrix, grid)?.reach();
                self.read(expr, &matrix.selector, (range, repeats));
                Ok(())
            }
            ExprKind::Subquery(subquery) => match self.times.subquery(subquery, expr, grid)?.1 {
                Some(inner) => self.whole(&subquery.expr, inner),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn scalar(&mut self, expr: &'e Expr, grid: Grid) -> Result<(), QueryError> {
        let expr = expr.unwrapped();
        let grid = if grid.count > 1 && is_constant(expr) { grid.first() } else { grid };
        self.operands(expr, grid, Use::Stream)
    }

    /// Notes that samples of `range` are read.
    fn read(&mut self, expr: &Expr, selector: &Selector, (range, repeats): (TimeRange, bool)) {
        if self.again {
            return;
        }
        let unordered = self.context(expr).1;
        let same = |other: &&mut Reading| other.matchers == selector.matchers && other.range.overlaps(range);
        match self.sharing.readings.iter_mut().find(same) {
            Some(reading) => {
                let (start, end) = (reading.range.start.min(range.start), reading.range.end.max(range.end));
                reading.range = TimeRange::new(start, end);
                reading.lookups += 1;
                reading.readers += usize::from(!repeats);
                reading.unordered &= unordered;
            }
            None => self.sharing.readings.push(Reading {
                matchers: selector.matchers.clone(),
                range,
                lookups: 1,
                readers: 1,
                unordered,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::plan;
    use crate::{ParseOptions, parse};

    /// Before: two parts that differ in a matcher. After: the same parts, equal.
    #[test]
    fn equal_operands_are_computed_once() {
        let before = "\
/: holds
├ rate: streams
│ └ x{y=\"1\"}[5m]: reads 700001..1600000
└ rate: streams
  └ x{y=\"2\"}[5m]: reads 700001..1600000
";
        let after = "\
/: holds
├ rate: computed once for 2, streams
│ └ x{y=\"1\"}[5m]: reads 700001..1600000
└ rate: as before
";
        assert_eq!(plan("rate(x{y=\"1\"}[5m]) / on() rate(x{y=\"2\"}[5m])"), before);
        assert_eq!(plan("rate(x{y=\"1\"}[5m]) / on() (rate(x{ y='1' }[300s]))"), after);
    }

    #[test]
    fn what_aggregations_fold_is_looked_up_and_computed_once() {
        let wanted = "\
/: holds
├ sum: folds
│ └ rate: computed once for 2, streams
│   └ x[5m]: reads 700001..1600000, shared
└ count: folds
  └ rate: as before
";
        assert_eq!(plan("sum(rate(x[5m])) / count(rate(x[5m]))"), wanted);
    }

    #[test]
    fn the_largest_equal_parts_are_shared_and_what_is_left_reads_once() {
        let wanted = "\
+: holds
├ /: computed once for 2, holds
│ ├ sum: computed once for 2, folds
│ │ └ a: reads 700001..1600000, unsorted
│ └ b: reads 700001..1600000
└ +: holds
  ├ /: as before
  └ sum: as before
";
        assert_eq!(plan("sum(a) / b + (sum(a) / b + sum(a))"), wanted);
        let wanted = "\
/: holds
├ a: computed once for 2, reads 700001..1600000
└ +: holds
  ├ a: as before
  └ b: reads 700001..1600000
";
        assert_eq!(plan("a / (a + b)"), wanted);
    }

    #[test]
    fn parts_that_are_used_otherwise_are_not_shared() {
        for apart in [
            // Another grid, another order, another treatment of histograms, other times.
            "max_over_time(a[5m:1m]) - a",
            "max_over_time(sum(a)[5m:1m]) - sum(a)",
            "topk(2, a) - sum(a)",
            "histogram_count(sum(a)) + sum(a)",
            "a - a offset 1m",
            "a @ 60 - a @ 61",
            "rate(a[5m]) - rate(a[6m])",
            "sum by (x) (a) - sum by (y) (a)",
            "info(a, {x=\"1\"}) - info(a, {x=\"2\"})",
            // The first looks into the selector.
            "timestamp(a) - timestamp(a + 0)",
        ] {
            let expr = parse(apart, &ParseOptions::experimental()).unwrap();
            let query = Grid { start: 1_000_000, step: 60_000, count: 11 };
            let times = Times { query, end: query.end(), lookback_ms: 300_000, subquery_step_ms: 60_000 };
            let (detecting, unordered) =
                (crate::eval::detect::selectors(&expr), crate::eval::unordered::selectors(&expr));
            let marks = Marks { detecting: &detecting, unordered: &unordered };
            let sharing = Sharing::of(&expr, &times, marks).unwrap();
            let aggregates = |slot: &Slot<'_>| matches!(slot.expr.kind, ExprKind::Aggregate(_));
            let top = sharing.slots.values().any(|slot| aggregates(slot) || slot.expr.span.start == 0);
            assert!(!top, "{apart}");
        }
    }
}
