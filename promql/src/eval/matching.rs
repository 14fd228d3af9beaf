//! Binary operators between vectors: which series meet, and under which labels their result goes.

mod fill;
mod sets;

use hashbrown::HashMap;
use model::{Labels, METRIC_NAME};

use super::Evaluator;
use super::binary::Operation;
use super::column::{Column, Point, is_absent};
use super::grid::Grid;
use super::source::{Series, goes_with_name, same_labelset};
use crate::ast::{Binary, Cardinality, Expr, Matching};
use crate::engine::QueryError;
use crate::limits::Account;

/// Series that agree in the labels that are matched.
#[derive(Default)]
pub(super) struct Group {
    /// Positions on the side that may have many; on the left side where neither may.
    pub(super) many: Vec<usize>,
    /// Positions on the other side.
    pub(super) one: Vec<usize>,
}

/// The labels by which a series finds its partner.
fn signature(labels: &Labels, matching: &Matching) -> Labels {
    labels.filtered(|name| {
        let listed = matching.labels.iter().any(|label| label == name);
        if matching.on { listed } else { !listed && name != METRIC_NAME }
    })
}

/// Sorts both sides into groups; groups come in order of their first series.
fn groups(
    many: &[Series],
    one: &[Series],
    matching: &Matching,
    account: &Account<'_>,
) -> Result<Vec<(Labels, Group)>, QueryError> {
    let mut index: HashMap<Labels, usize> = HashMap::new();
    let mut out: Vec<(Labels, Group)> = Vec::new();
    let sides = many.iter().enumerate().map(|item| (true, item));
    for item in account.watched(sides.chain(one.iter().enumerate().map(|item| (false, item)))) {
        let (is_many, (at, series)) = item?;
        let key = signature(&series.labels, matching);
        let group = *index.entry(key.clone()).or_insert_with(|| {
            out.push((key, Group::default()));
            out.len() - 1
        });
        let group = &mut out[group].1;
        if is_many { group.many.push(at) } else { group.one.push(at) }
    }
    Ok(out)
}

impl Evaluator<'_> {
    /// The result of an operation between two vectors.
    pub(super) fn binary_vectors(
        &self,
        binary: &Binary,
        expr: &Expr,
        grid: Grid,
    ) -> Result<Vec<Series>, QueryError> {
        let left = self.vector(&binary.left, grid)?;
        let right = self.vector(&binary.right, grid)?;
        self.release(&left);
        self.release(&right);
        if binary.op.is_set() {
            return sets::combine(binary, (left, right), grid, self.account);
        }
        let swapped = binary.matching.cardinality == Cardinality::OneToMany;
        let (many, one) = if swapped { (right, left) } else { (left, right) };
        let join = Join {
            operation: self.operation(binary, expr),
            matching: &binary.matching,
            swapped,
            many: &many,
            one: &one,
            grid,
            delayed: self.features.delayed_name_removal,
        };
        join.run()
    }
}

/// A join under way.
pub(super) struct Join<'a> {
    pub(super) operation: Operation<'a>,
    pub(super) matching: &'a Matching,
    /// Whether the side that may have many is the right one.
    pub(super) swapped: bool,
    pub(super) many: &'a [Series],
    pub(super) one: &'a [Series],
    pub(super) grid: Grid,
    delayed: bool,
}

/// Results by their labels.
#[derive(Default)]
pub(super) struct Results {
    index: HashMap<Labels, usize>,
    pub(super) series: Vec<Series>,
}

impl Results {
    /// Adds a result; several results of the same labels must not overlap in time.
    pub(super) fn add(&mut self, labels: Labels, drop_name: bool, column: Column) -> Result<(), QueryError> {
        if column.is_empty() {
            return Ok(());
        }
        if let Some(at) = self.index.get(&labels) {
            let merged = self.series[*at].column.merge(&column);
            return if merged { Ok(()) } else { Err(same_labelset()) };
        }
        self.index.insert(labels.clone(), self.series.len());
        self.series.push(Series { labels, drop_name, column });
        Ok(())
    }
}

impl Join<'_> {
    fn run(&self) -> Result<Vec<Series>, QueryError> {
        let mut results = Results::default();
        let account = self.account();
        for item in account.watched(groups(self.many, self.one, self.matching, account)?) {
            let (key, group) = item?;
            self.check_one_side(&key, &group)?;
            if group.many.is_empty() || group.one.is_empty() {
                self.fill(&key, &group, &mut results)?;
                continue;
            }
            let mut taken = Taken::default();
            for many in &group.many {
                for one in account.watched(&group.one) {
                    self.pair(*many, *one?, &group, (&mut taken, &mut results))?;
                }
            }
            self.fill(&key, &group, &mut results)?;
        }
        Ok(results.series)
    }

    fn account(&self) -> &Account<'_> {
        self.operation.evaluator.account()
    }

    /// Combines two series wherever both have a value.
    fn pair(
        &self,
        many: usize,
        one: usize,
        group: &Group,
        (taken, results): (&mut Taken, &mut Results),
    ) -> Result<(), QueryError> {
        let (m, o) = (&self.many[many], &self.one[one]);
        let labels = self.result_labels(&m.labels, Some(&o.labels));
        if group.many.len() > 1 {
            taken.take(self.matching, &labels, (&m.column, &o.column))?;
        }
        let mut out = Column::new(self.grid.count);
        if m.column.histograms().is_empty() && o.column.histograms().is_empty() && !self.operation.trims() {
            let cells = m.column.floats().iter().zip(o.column.floats());
            for (step, (m, o)) in cells.enumerate() {
                if is_absent(*m) || is_absent(*o) {
                    continue;
                }
                let (left, right) = if self.swapped { (*o, *m) } else { (*m, *o) };
                // A filter yields the left value, whichever side may have many.
                if let Some(value) = self.operation.floats(left, right, left) {
                    out.set_float(step, value);
                }
            }
        } else {
            for step in 0..self.grid.count {
                if let (Some(m), Some(o)) = (m.column.get(step), o.column.get(step)) {
                    self.combine(m, o, step, &mut out);
                }
            }
        }
        results.add(labels, self.marks_name(m), out)
    }

    /// Combines two values.
    pub(super) fn combine(&self, many: Point<'_>, one: Point<'_>, step: usize, out: &mut Column) {
        let (left, right) = if self.swapped { (one, many) } else { (many, one) };
        if let Some(value) = self.operation.points(left, right, false) {
            out.set(step, value);
        }
    }

    /// Whether the name of a result is to be removed at the end.
    pub(super) fn marks_name(&self, many: &Series) -> bool {
        many.drop_name || self.delayed && !self.operation.filters()
    }

    /// The labels of a result.
    pub(super) fn result_labels(&self, many: &Labels, one: Option<&Labels>) -> Labels {
        let Matching { cardinality, on, labels, include, .. } = self.matching;
        let keep_name = self.operation.filters() || self.operation.trims() || self.delayed;
        let one_to_one = *cardinality == Cardinality::OneToOne;
        let kept = many.filtered(|name| {
            let named = keep_name || !goes_with_name(name);
            let listed = labels.iter().any(|label| label == name);
            named && (!one_to_one || listed == *on)
        });
        if include.is_empty() {
            return kept;
        }
        let mut builder = kept.to_builder();
        for label in include {
            builder.set(label, one.and_then(|one| one.get(label)).unwrap_or(""));
        }
        builder.build()
    }

    /// The side that may not have many must not have two series of a group at one step.
    fn check_one_side(&self, key: &Labels, group: &Group) -> Result<(), QueryError> {
        if group.one.len() < 2 {
            return Ok(());
        }
        for step in self.account().watched(0..self.grid.count) {
            let step = step?;
            let mut present = group.one.iter().filter(|at| self.one[**at].column.get(step).is_some());
            let (Some(first), Some(second)) = (present.next(), present.next()) else { continue };
            // An empty side has nothing to match, and no fault is found with the other.
            if !self.many.iter().any(|series| series.column.get(step).is_some()) {
                continue;
            }
            let side = if self.swapped { "left" } else { "right" };
            let series = |at: usize| full(&self.one[at].labels);
            return Err(QueryError::Execution(format!(
                "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
                full(key),
                series(*first),
                series(*second),
            )));
        }
        Ok(())
    }
}

/// Labels with the name among the others, as errors show them.
fn full(labels: &Labels) -> String {
    let pairs: Vec<_> = labels
        .iter()
        .map(|(name, value)| {
            if model::is_legacy_label_name(name) {
                format!("{name}={}", model::Quoted(value))
            } else {
                format!("{}={}", model::Quoted(name), model::Quoted(value))
            }
        })
        .collect();
    format!("{{{}}}", pairs.join(", "))
}

/// The steps at which results of one group have been found, filtered ones included.
#[derive(Default)]
struct Taken {
    by_labels: HashMap<Labels, Vec<bool>>,
}

impl Taken {
    fn take(
        &mut self,
        matching: &Matching,
        labels: &Labels,
        (many, one): (&Column, &Column),
    ) -> Result<(), QueryError> {
        let one_to_one = matching.cardinality == Cardinality::OneToOne;
        // One-to-one: the group may have one result a step, whatever its labels.
        let key = if one_to_one { Labels::empty() } else { labels.clone() };
        let steps = self.by_labels.entry(key).or_insert_with(|| vec![false; many.steps()]);
        for (step, taken) in steps.iter_mut().enumerate() {
            if many.get(step).is_none() || one.get(step).is_none() {
                continue;
            }
            if std::mem::replace(taken, true) {
                let why = if one_to_one {
                    "many-to-one matching must be explicit (group_left/group_right)"
                } else {
                    "grouping labels must ensure unique matches"
                };
                return Err(QueryError::Execution(format!("multiple matches for labels: {why}")));
            }
        }
        Ok(())
    }
}
