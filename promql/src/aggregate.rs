//! Aggregations: series are folded into their groups one by one, and forgotten.

mod fold;
mod group;
mod rank;
mod values;

use std::sync::Arc;

use model::{FloatHistogram, Labels, Samples, Timestamp, Value};

use crate::annotations::Site;
use crate::ast::{Aggregate, AggregateOp, Expr};
use crate::engine::QueryError;
use crate::eval::column::Column;
use crate::eval::source::{Series, Source};
use crate::eval::{Evaluator, Grid, text};
use crate::functions::quantile;
use crate::histogram::total;
use crate::limits::Account;
use fold::Accumulator;
use group::{Grouping, Groups, Key};

/// Evaluates an aggregation.
pub(crate) fn aggregate(
    evaluator: &Evaluator<'_>,
    aggregate: &Aggregate,
    expr: &Expr,
    grid: Grid,
) -> Result<Vec<Series>, QueryError> {
    let aggregation = Aggregation { evaluator, aggregate, expr, grid };
    match aggregate.op {
        AggregateOp::Sum => aggregation.fold::<fold::Sum>(),
        AggregateOp::Avg => aggregation.fold::<fold::Avg>(),
        AggregateOp::Min => aggregation.fold::<fold::Min>(),
        AggregateOp::Max => aggregation.fold::<fold::Max>(),
        AggregateOp::Count => aggregation.fold::<fold::Count>(),
        AggregateOp::Group => aggregation.fold::<fold::Group>(),
        AggregateOp::Stdvar => aggregation.fold::<fold::Stdvar>(),
        AggregateOp::Stddev => aggregation.fold::<fold::Stddev>(),
        AggregateOp::Quantile => aggregation.quantile(),
        AggregateOp::CountValues => aggregation.count_values(),
        AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio => {
            aggregation.rank()
        }
    }
}

/// What a sum is made of, group by group: sums of several stores are put together from these without
/// losing more than one sum would.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupSum {
    /// The group.
    pub labels: Labels,
    /// The sum of the floats at each step where there are any, rounded.
    pub floats: Samples,
    /// What rounding took from it, where that is not zero.
    pub compensation: Samples,
    /// The sum of the histograms.
    pub histograms: Samples,
    /// Empty histograms with custom buckets, where there were such and exponential ones: these have no sum. Beside them
    /// stand empty exponential ones in `histograms`, so that whoever adds all of it finds that they do not fit.
    pub misfits: Samples,
    /// How many values there were of either kind.
    pub counts: Samples,
}

impl GroupSum {
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 series")]
    fn push(&mut self, ts: Timestamp, parts: fold::Parts, remarks: &Remarks<'_>) {
        if parts.count == 0 {
            return;
        }
        self.counts.push_float(ts, parts.count as f64);
        if parts.any_floats {
            self.floats.push_float(ts, parts.sum.sum);
            if parts.sum.compensation != 0.0 && parts.sum.sum.is_finite() {
                self.compensation.push_float(ts, parts.sum.compensation);
            }
        }
        let Some(total) = parts.histograms else { return };
        let sum = total.into_sum(remarks).unwrap_or_else(|| {
            let schema = model::histogram::CUSTOM_BUCKETS_SCHEMA;
            self.misfits.push_histogram(ts, Arc::new(FloatHistogram { schema, ..FloatHistogram::default() }));
            FloatHistogram::default()
        });
        self.histograms.push_histogram(ts, Arc::new(sum));
    }
}

/// Evaluates the sums behind an aggregation.
pub(crate) fn sums(
    evaluator: &Evaluator<'_>,
    aggregate: &Aggregate,
    expr: &Expr,
    grid: Grid,
) -> Result<Vec<GroupSum>, QueryError> {
    Aggregation { evaluator, aggregate, expr, grid }.sums()
}

/// An aggregation under way.
pub(super) struct Aggregation<'a> {
    pub(super) evaluator: &'a Evaluator<'a>,
    pub(super) aggregate: &'a Aggregate,
    pub(super) expr: &'a Expr,
    pub(super) grid: Grid,
}

/// Accumulators of all groups at all steps, in blocks: few allocations where groups are many, and no
/// copying where they grow.
struct Accumulators<A> {
    steps: usize,
    groups_per_block: usize,
    blocks: Vec<Vec<A>>,
}

impl<A: Accumulator> Accumulators<A> {
    /// So many cells make a block, unless a single group has more.
    const BLOCK: usize = 512;

    fn new(steps: usize) -> Self {
        Self { steps, groups_per_block: (Self::BLOCK / steps.max(1)).max(1), blocks: Vec::new() }
    }

    fn block_bytes(&self) -> usize {
        self.groups_per_block * self.steps * size_of::<A>()
    }

    /// Whether there is no place for a group yet.
    fn is_full(&self, group: usize) -> bool {
        group / self.groups_per_block == self.blocks.len()
    }

    fn grow(&mut self) {
        self.blocks.push(vec![A::default(); self.groups_per_block * self.steps]);
    }

    /// The accumulators of a group, one a step.
    fn of(&mut self, group: usize) -> &mut [A] {
        let start = group % self.groups_per_block * self.steps;
        &mut self.blocks[group / self.groups_per_block][start..start + self.steps]
    }
}

/// The remarks of an accumulator, which stand at what is aggregated.
pub(super) struct Remarks<'a> {
    evaluator: &'a Evaluator<'a>,
    at: Site,
}

impl total::Remarks for Remarks<'_> {
    fn warn(&self, text: &str) {
        self.evaluator.annotations.warn(self.at, text);
    }

    fn warn_of_metric(&self, text: &str) {
        self.warn(text);
    }

    fn info(&self, text: &str) {
        self.evaluator.annotations.info(self.at, text);
    }
}

impl Aggregation<'_> {
    pub(super) fn account(&self) -> &Account<'_> {
        self.evaluator.account()
    }

    pub(super) fn remarks(&self) -> Remarks<'_> {
        Remarks { evaluator: self.evaluator, at: Site::new(self.expr, &self.aggregate.expr) }
    }

    /// Hands each series of `source` that has values to `fold`, behind the number of its group; returns the groups.
    fn for_each(
        &self,
        source: &dyn Source,
        mut fold: impl FnMut(usize, usize, &mut Column) -> Result<(), QueryError>,
    ) -> Result<Groups, QueryError> {
        let grouping = Grouping::new(self.aggregate, self.evaluator.workers());
        let mut groups = Groups::default();
        let read = |at: usize, key: &mut Key| grouping.read(source, at, key);
        self.evaluator.for_each_with(source, (self.expr, self.grid), read, |at, column, key| {
            if column.is_empty() {
                return Ok(());
            }
            fold(groups.of(&grouping, key, source.drop_name(at)), at, column)
        })?;
        Ok(groups)
    }

    /// An aggregation of constant memory for each group and step.
    fn fold<A: Accumulator>(&self) -> Result<Vec<Series>, QueryError> {
        let remarks = self.remarks();
        let (mut samples, mut bytes) = (0, 0);
        let out = self.fold_groups::<A, _>(|labels, drop_name, steps| {
            let mut column = Column::new(self.grid.count);
            for (step, accumulator) in steps.enumerate() {
                if let Some(value) = accumulator.finish(&remarks) {
                    column.set(step, value);
                }
            }
            samples += column.samples();
            bytes += column.heap_bytes();
            (!column.is_empty()).then_some(Series { labels, drop_name, column })
        })?;
        self.evaluator.hold_bytes(samples, bytes, self.expr)?;
        Ok(out)
    }

    /// Folds all series into their groups, and each group, of which `finish` gets the accumulators, one a step, into a
    /// result. Memory that is touched for the first time costs about 0.2 ns a byte, so the list of results does not grow.
    fn fold_groups<A: Accumulator, T>(
        &self,
        mut finish: impl FnMut(Labels, bool, &mut dyn Iterator<Item = A>) -> Option<T>,
    ) -> Result<Vec<T>, QueryError> {
        let source = self.evaluator.source(&self.aggregate.expr, self.grid)?;
        let mut accumulators = Accumulators::<A>::new(self.grid.count);
        let remarks = self.remarks();
        let groups = self.for_each(source.as_ref(), |group, _, column| {
            if accumulators.is_full(group) {
                self.evaluator.hold_bytes(0, accumulators.block_bytes(), self.expr)?;
                accumulators.grow();
            }
            A::fold(accumulators.of(group), column, &remarks);
            Ok(())
        })?;
        let bytes = accumulators.blocks.len() * accumulators.block_bytes();
        let mut steps = accumulators.blocks.into_iter().flatten();
        let mut out = Vec::with_capacity(groups.len());
        for group in self.account().watched(groups.into_labels()) {
            let (labels, drop_name) = group?;
            out.extend(finish(labels, drop_name, &mut steps.by_ref().take(self.grid.count)));
        }
        self.evaluator.release_bytes(0, bytes);
        Ok(out)
    }

    /// The sums of all groups with what rounding takes from them.
    fn sums(&self) -> Result<Vec<GroupSum>, QueryError> {
        let remarks = self.remarks();
        self.fold_groups::<fold::Parts, _>(|labels, _, steps| {
            let mut group = GroupSum { labels, ..GroupSum::default() };
            for (ts, parts) in self.grid.times().zip(steps) {
                group.push(ts, parts, &remarks);
            }
            Some(group)
        })
    }

    /// The scalar parameter, one number a step.
    pub(super) fn param(&self) -> Result<Vec<f64>, QueryError> {
        match &self.aggregate.param {
            Some(param) => self.evaluator.scalar(param, self.grid),
            None => Ok(vec![f64::NAN; self.grid.count]),
        }
    }

    pub(super) fn param_site(&self) -> Site {
        Site::new(self.expr, self.aggregate.param.as_ref().unwrap_or(self.expr))
    }

    pub(super) fn param_text(&self) -> Result<&str, QueryError> {
        self.aggregate.param.as_ref().map_or(Ok(""), text)
    }

    fn quantile(&self) -> Result<Vec<Series>, QueryError> {
        let q = self.param()?;
        let (lowest, highest) = rank::extremes(&q);
        let nan = q.iter().copied().find(|q| q.is_nan());
        let low = Some(lowest).filter(|q| *q < 0.0);
        let high = Some(highest).filter(|q| *q > 1.0);
        for bad in nan.into_iter().chain(low).chain(high) {
            self.evaluator.annotations.warn(self.param_site(), &quantile::invalid(bad));
        }
        let (groups, mut values) = self.collected()?;
        let mut out = Vec::new();
        for (values, (labels, drop_name)) in values.iter_mut().zip(groups.into_labels()) {
            let mut column = Column::new(self.grid.count);
            let filled = values.iter_mut().enumerate().filter(|(_, values)| !values.is_empty());
            for item in self.account().watched(filled) {
                let (step, values) = item?;
                column.set(step, Value::Float(quantile::quantile(q[step], values)));
            }
            if !column.is_empty() {
                out.push(Series { labels, drop_name, column });
            }
        }
        self.evaluator.hold(&out, self.expr)?;
        Ok(out)
    }
}
