//! `quantile` and `count_values`: aggregations that must see all values.

use hashbrown::HashMap;
use model::{Labels, METRIC_NAME};

use super::Aggregation;
use super::group::Groups;
use crate::engine::QueryError;
use crate::eval::column::{Column, Point, is_absent};
use crate::eval::source::Series;
use crate::histogram::total::Remarks as _;
use crate::text::{Quote, has_invalid_utf8};

/// The values of a group, by step.
type StepValues = Vec<Vec<f64>>;

impl Aggregation<'_> {
    /// All floats of each group at each step.
    pub(super) fn collected(&self) -> Result<(Groups, Vec<StepValues>), QueryError> {
        let source = self.evaluator.source(&self.aggregate.expr, self.grid)?;
        let mut values: Vec<StepValues> = Vec::new();
        let mut held = 0;
        let base = self.grid.count * size_of::<Vec<f64>>();
        let groups = self.for_each(source.as_ref(), |group, _, column| {
            if group == values.len() {
                self.evaluator.hold_bytes(0, base, self.expr)?;
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
        self.evaluator.release_bytes(held, 8 * held + base * values.len());
        Ok((groups, values))
    }

    /// How often each value occurs, under a label that holds the value.
    pub(super) fn count_values(&self) -> Result<Vec<Series>, QueryError> {
        let label = self.param_text()?;
        if label.is_empty() || has_invalid_utf8(label) {
            return Err(QueryError::Execution(format!("invalid label name {}", Quote(label))));
        }
        let source = self.evaluator.source(&self.aggregate.expr, self.grid)?;
        let mut index: HashMap<(usize, String), usize> = HashMap::new();
        let mut counted: Vec<(usize, String, Column)> = Vec::new();
        let groups = self.for_each(source.as_ref(), |group, _, column| {
            for step in 0..self.grid.count {
                let Some(point) = column.get(step) else { continue };
                let shown = match point {
                    Point::Float(value) => model::float::format_fixed(value),
                    Point::Histogram(h) => crate::histogram::show(h),
                };
                let slot = *index.entry((group, shown)).or_insert_with_key(|(_, shown)| {
                    counted.push((group, shown.clone(), Column::new(self.grid.count)));
                    counted.len() - 1
                });
                count(&mut counted[slot].2, step, 1.0);
            }
            Ok(())
        })?;
        let groups: Vec<_> = groups.into_labels().collect();
        // `without` may name the very label that is set.
        let listed = self.aggregate.grouping.iter().any(|name| name == label);
        let drops_label = self.aggregate.without && (listed || label == METRIC_NAME);
        // The label may replace one of the grouping labels, so that groups become one.
        let mut place: HashMap<Labels, usize> = HashMap::new();
        let mut series: Vec<Series> = Vec::new();
        for item in self.account().watched(counted) {
            let (group, shown, column) = item?;
            let (labels, drop_name) = &groups[group];
            let mut builder = labels.to_builder();
            builder.set(label, &shown);
            if drops_label {
                builder.remove(label);
            }
            let labels = builder.build();
            match place.get(&labels) {
                Some(at) => {
                    let into = &mut series[*at].column;
                    let present = column.floats().iter().enumerate().filter(|(_, cell)| !is_absent(**cell));
                    present.for_each(|(step, cell)| count(into, step, *cell));
                }
                None => {
                    place.insert(labels.clone(), series.len());
                    series.push(Series { labels, drop_name: *drop_name, column });
                }
            }
        }
        self.evaluator.hold(&series, self.expr)?;
        Ok(series)
    }
}

/// Adds to the count of a step.
fn count(column: &mut Column, step: usize, more: f64) {
    let before = column.floats()[step];
    column.set_float(step, if is_absent(before) { more } else { before + more });
}
