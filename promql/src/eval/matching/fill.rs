//! `fill`: a value for the side of a group that has none.

use model::Labels;

use super::{Group, Join, Results};
use crate::engine::QueryError;
use crate::eval::column::{Column, Point};
use crate::eval::source::Series;

impl Join<'_> {
    /// Adds the results of those steps at which only one side of the group has a value.
    pub(super) fn fill(&self, key: &Labels, group: &Group, results: &mut Results) -> Result<(), QueryError> {
        // With `group_right` the sides change places, and these values stay where they are.
        let (for_many, for_one) = (self.matching.fill_left, self.matching.fill_right);
        let steps = self.grid.count;
        let present = |side: &[Series], members: &[usize]| -> Result<Vec<bool>, QueryError> {
            let any = |step| members.iter().any(|at| side[*at].column.get(step).is_some());
            self.account().watched(0..steps).map(|step| step.map(any)).collect()
        };
        if let Some(value) = for_one {
            let partners = present(self.one, &group.one)?;
            for at in self.account().watched(&group.many) {
                let series = &self.many[*at?];
                let mut out = Column::new(steps);
                for (step, has_partner) in partners.iter().enumerate() {
                    if let (Some(point), false) = (series.column.get(step), has_partner) {
                        self.combine(point, Point::Float(value.value), step, &mut out);
                    }
                }
                // The value that fills in has no labels to include.
                results.add(self.result_labels(&series.labels, Some(key)), self.marks_name(series), out)?;
            }
        }
        if let Some(value) = for_many {
            let partners = present(self.many, &group.many)?;
            for at in self.account().watched(&group.one) {
                let series = &self.one[*at?];
                let mut out = Column::new(steps);
                for (step, has_partner) in partners.iter().enumerate() {
                    if let (Some(point), false) = (series.column.get(step), has_partner) {
                        self.combine(Point::Float(value.value), point, step, &mut out);
                    }
                }
                results.add(self.result_labels(key, Some(&series.labels)), false, out)?;
            }
        }
        Ok(())
    }
}
