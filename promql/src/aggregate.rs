//! Aggregations: series are folded into their groups one by one, and forgotten.

mod fold;
mod group;
mod rank;
mod values;

use model::Value;

use crate::annotations::Site;
use crate::ast::{Aggregate, AggregateOp, Expr};
use crate::engine::QueryError;
use crate::eval::column::Column;
use crate::eval::source::Series;
use crate::eval::{Evaluator, Grid, text};
use crate::functions::quantile;
use crate::histogram::total;
use fold::Accumulator;
use group::Groups;

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
    pub(super) fn remarks(&self) -> Remarks<'_> {
        Remarks { evaluator: self.evaluator, at: Site::new(self.expr, &self.aggregate.expr) }
    }

    /// An aggregation of constant memory for each group and step.
    fn fold<A: Accumulator>(&self) -> Result<Vec<Series>, QueryError> {
        let source = self.evaluator.source(&self.aggregate.expr, self.grid)?;
        let mut groups = Groups::new(self.aggregate);
        let mut accumulators = Accumulators::<A>::new(self.grid.count);
        let remarks = self.remarks();
        self.evaluator.for_each(source.as_ref(), (self.expr, self.grid), |at, column| {
            if column.is_empty() {
                return Ok(());
            }
            let group = groups.of(source.as_ref(), at);
            if accumulators.is_full(group) {
                self.evaluator.hold_bytes(0, accumulators.block_bytes(), self.expr)?;
                accumulators.grow();
            }
            A::fold(accumulators.of(group), column, &remarks);
            Ok(())
        })?;
        let bytes = accumulators.blocks.len() * accumulators.block_bytes();
        let mut out = Vec::with_capacity(groups.len());
        let mut steps = accumulators.blocks.into_iter().flatten();
        for (labels, drop_name) in groups.into_labels() {
            let mut column = Column::new(self.grid.count);
            for (step, accumulator) in steps.by_ref().take(self.grid.count).enumerate() {
                if let Some(value) = accumulator.finish(&remarks) {
                    column.set(step, value);
                }
            }
            if !column.is_empty() {
                out.push(Series { labels, drop_name, column });
            }
        }
        self.evaluator.release_bytes(0, bytes);
        self.evaluator.hold(&out, self.expr)?;
        Ok(out)
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
            for (step, values) in values.iter_mut().enumerate().filter(|(_, values)| !values.is_empty()) {
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
