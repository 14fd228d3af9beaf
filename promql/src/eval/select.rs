//! Instant selectors: the newest sample within the look-back, unless it says that the series ended.

use std::sync::Arc;
use std::time::Instant;

use model::{Labels, Samples, SeriesSet, Timestamp, Value, is_stale_nan};

use super::Evaluator;
use super::column::{Column, Point, histogram_samples};
use super::grid::Grid;
use super::range::LOOK_STEPS;
use super::source::{Scratch, Source};
use crate::ast::Expr;
use crate::engine::QueryError;
use crate::limits::Desk;

/// What an instant selector yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Yield {
    /// The sample.
    Value,
    /// The sample's time, in seconds.
    Time,
    /// The sample's start timestamp, in seconds.
    StartTime,
}

/// The series of an instant selector.
pub(crate) struct InstantSelector<'a> {
    pub(crate) evaluator: &'a Evaluator<'a>,
    pub(crate) expr: &'a Expr,
    pub(crate) set: Arc<dyn SeriesSet + 'a>,
    /// The grid, moved by the offset.
    pub(crate) grid: Grid,
    pub(crate) lookback_ms: i64,
    pub(crate) yields: Yield,
    pub(crate) names_unique: bool,
    /// Whether samples are counted by step.
    pub(crate) counts_steps: bool,
}

impl InstantSelector<'_> {
    /// Whether the only step sees the newest sample of a series, and the store had it at hand.
    fn take_newest(&self, at: usize, desk: &mut Desk<'_>, out: &mut Column) -> bool {
        let (time, since) = (self.grid.start, self.evaluator.tally.as_ref().map(|_| Instant::now()));
        let newest = self.set.newest_float(at).filter(|(ts, _)| *ts <= time);
        let (Some((ts, value)), Yield::Value | Yield::Time) = (newest, self.yields) else { return false };
        out.reset(1);
        self.evaluator.count_newest(self.expr, since, desk);
        if ts > time.saturating_sub(self.lookback_ms) && !is_stale_nan(value) {
            out.set_float(0, if self.yields == Yield::Time { seconds(ts) } else { value });
        }
        true
    }
}

impl InstantSelector<'_> {
    fn count_steps(&self, column: &Column) {
        let Some(tally) = self.evaluator.tally.as_ref().filter(|_| self.counts_steps) else { return };
        for step in 0..self.grid.count {
            let samples = match column.get(step) {
                Some(Point::Float(_)) => 1,
                Some(Point::Histogram(histogram)) => histogram_samples(histogram),
                None => continue,
            };
            tally.step((step, self.grid.count), samples);
        }
    }
}

impl Source for InstantSelector<'_> {
    fn len(&self) -> usize {
        self.set.len()
    }

    fn visit_labels(&self, at: usize, visit: &mut dyn FnMut(&str, &str)) {
        self.set.visit_labels(at, visit);
    }

    fn visit_some_labels(&self, at: usize, names: &[String], visit: &mut dyn FnMut(&str, &str)) {
        self.set.visit_some_labels(at, names, visit);
    }

    fn labels(&self, at: usize) -> Labels {
        self.set.labels(at)
    }

    fn drop_name(&self, _: usize) -> bool {
        false
    }

    fn compute(&self, at: usize, scratch: &mut Scratch<'_>, out: &mut Column) -> Result<(), QueryError> {
        if self.grid.count == 1 && self.take_newest(at, &mut scratch.desk, out) {
            self.count_steps(out);
            return Ok(());
        }
        let range = model::TimeRange::new(
            self.grid.start.saturating_sub(self.lookback_ms).saturating_add(1),
            self.grid.end(),
        );
        self.evaluator.read(self.expr, self.set.as_ref(), at, range, scratch)?;
        let account = self.evaluator.account();
        let goes_on = |step: usize| step & LOOK_STEPS != LOOK_STEPS || !account.is_cancelled();
        fill(&scratch.samples, (self.grid, self.lookback_ms), self.yields, goes_on, out);
        if self.grid.count > LOOK_STEPS {
            account.check()?;
        }
        self.count_steps(out);
        Ok(())
    }

    fn names_unique(&self) -> bool {
        self.names_unique
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds are shown in seconds, as floats")]
fn seconds(ms: Timestamp) -> f64 {
    ms as f64 / 1000.0
}

/// Walks the samples and the steps together, as long as `goes_on` says so.
fn fill(
    samples: &Samples,
    (grid, lookback_ms): (Grid, i64),
    yields: Yield,
    goes_on: impl Fn(usize) -> bool,
    out: &mut Column,
) {
    out.reset(grid.count);
    let (mut float, mut histogram) = (0, 0);
    for (step, time) in grid.times().enumerate().take_while(|(step, _)| goes_on(*step)) {
        while samples.ts.get(float).is_some_and(|ts| *ts <= time) {
            float += 1;
        }
        while samples.histogram_ts.get(histogram).is_some_and(|ts| *ts <= time) {
            histogram += 1;
        }
        let newest = |ts: &[Timestamp], at: usize| {
            at.checked_sub(1).map(|at| ts[at]).filter(|ts| *ts > time.saturating_sub(lookback_ms))
        };
        let (float_ts, histogram_ts) = (newest(&samples.ts, float), newest(&samples.histogram_ts, histogram));
        let start = |starts: &[Timestamp], at: usize| starts.get(at).copied().filter(|start| *start != 0);
        match (float_ts, histogram_ts) {
            (Some(ts), other) if other.is_none_or(|other| other < ts) => {
                let value = samples.values[float - 1];
                if is_stale_nan(value) {
                    continue;
                }
                match yields {
                    Yield::Value => out.set_float(step, value),
                    Yield::Time => out.set_float(step, seconds(ts)),
                    Yield::StartTime => {
                        if let Some(start) = start(&samples.start_ts, float - 1) {
                            out.set_float(step, seconds(start));
                        }
                    }
                }
            }
            (_, Some(ts)) => {
                let value = &samples.histograms[histogram - 1];
                if value.is_stale() {
                    continue;
                }
                match yields {
                    Yield::Value => out.set(step, Value::Histogram(value.clone())),
                    Yield::Time => out.set_float(step, seconds(ts)),
                    Yield::StartTime => {
                        if let Some(start) = start(&samples.histogram_start_ts, histogram - 1) {
                            out.set_float(step, seconds(start));
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(samples: &[(i64, f64)], grid: Grid) -> Vec<Option<f64>> {
        let mut column = Samples::default();
        for (ts, value) in samples {
            column.push_float(*ts, *value);
        }
        let mut out = Column::default();
        fill(&column, (grid, 10), Yield::Value, |_| true, &mut out);
        (0..grid.count)
            .map(|step| match out.get(step) {
                Some(Point::Float(value)) => Some(value),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_sample_exactly_as_old_as_the_lookback_is_gone() {
        let grid = Grid { start: 9, step: 1, count: 3 };
        assert_eq!(floats(&[(0, 1.0)], grid), [Some(1.0), None, None]);
    }

    #[test]
    fn a_marker_hides_what_was_before_it_and_nan_does_not() {
        let grid = Grid { start: 1, step: 1, count: 3 };
        let stale = model::stale_nan();
        assert_eq!(floats(&[(1, 1.0), (2, stale), (3, 2.0)], grid), [Some(1.0), None, Some(2.0)]);
        assert!(floats(&[(1, f64::NAN)], grid)[0].is_some_and(f64::is_nan));
    }
}
