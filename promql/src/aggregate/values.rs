//! `quantile` and `count_values`: aggregations that must see all values.

use hashbrown::HashMap;
use model::Labels;

use super::Aggregation;
use super::group::Groups;
use crate::engine::QueryError;
use crate::eval::column::{Column, Point, is_absent};
use crate::eval::source::{Series, join_equal};
use crate::text::{Quote, has_invalid_utf8};

/// The values of a group, by step.
type StepValues = Vec<Vec<f64>>;

impl Aggregation<'_> {
    /// All floats of each group at each step.
    pub(super) fn collected(&self) -> Result<(Groups, Vec<StepValues>), QueryError> {
        let source = self.evaluator.source(&self.aggregate.expr, self.grid)?;
        let mut groups = Groups::new(self.aggregate);
        let mut values: Vec<StepValues> = Vec::new();
        let mut held = 0;
        self.evaluator.for_each(source.as_ref(), self.grid, |at, column| {
            if column.is_empty() {
                return Ok(());
            }
            let group = groups.of(source.as_ref(), at);
            if group == values.len() {
                values.push(vec![Vec::new(); self.grid.count]);
            }
            if !column.histograms().is_empty() {
                self.remarks().info("ignored histogram in quantile aggregation");
            }
            self.evaluator.hold_bytes(column.samples(), 8 * column.samples(), self.expr)?;
            held += column.samples();
            for (values, cell) in values[group].iter_mut().zip(column.floats()) {
                if !is_absent(*cell) {
                    values.push(*cell);
                }
            }
            Ok(())
        })?;
        self.evaluator.release_bytes(held, 8 * held);
        Ok((groups, values))
    }

    /// How often each value occurs, under a label that holds the value.
    pub(super) fn count_values(&self) -> Result<Vec<Series>, QueryError> {
        let label = self.param_text()?;
        if label.is_empty() || has_invalid_utf8(label) {
            return Err(QueryError::Execution(format!("invalid label name {}", Quote(label))));
        }
        let source = self.evaluator.source(&self.aggregate.expr, self.grid)?;
        let mut groups = Groups::new(self.aggregate);
        let mut index: HashMap<(usize, String), usize> = HashMap::new();
        let mut counted: Vec<(usize, String, Column)> = Vec::new();
        self.evaluator.for_each(source.as_ref(), self.grid, |at, column| {
            for step in 0..self.grid.count {
                let Some(point) = column.get(step) else { continue };
                let group = groups.of(source.as_ref(), at);
                let shown = match point {
                    Point::Float(value) => model::float::format_fixed(value),
                    Point::Histogram(h) => crate::histogram::show(h),
                };
                let slot = *index.entry((group, shown)).or_insert_with_key(|(_, shown)| {
                    counted.push((group, shown.clone(), Column::new(self.grid.count)));
                    counted.len() - 1
                });
                let counts = &mut counted[slot].2;
                let before = counts.floats()[step];
                counts.set_float(step, if is_absent(before) { 1.0 } else { before + 1.0 });
            }
            Ok(())
        })?;
        let groups = groups.into_labels();
        let series = counted.into_iter().map(|(group, shown, column)| {
            let (labels, drop_name) = &groups[group];
            let mut builder = labels.to_builder();
            builder.set(label, &shown);
            let labels: Labels = builder.build();
            Series { labels, drop_name: *drop_name, column }
        });
        let series = join_equal(series.collect())?;
        self.evaluator.hold(&series, self.expr)?;
        Ok(series)
    }
}
