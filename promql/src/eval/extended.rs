//! `smoothed` instant selectors: a value between two samples.

use std::sync::Arc;

use model::{Labels, METRIC_NAME, Samples, SeriesSet, TimeRange, Timestamp, Value};

use super::Evaluator;
use super::column::Column;
use super::grid::Grid;
use super::range::remove_stale;
use super::source::{Scratch, Source};
use crate::annotations::{Site, for_metric};
use crate::ast::Expr;
use crate::engine::QueryError;
use crate::functions::extended::{interpolated, interpolated_histogram};
use crate::histogram;

/// The series of a smoothed instant selector.
pub(super) struct SmoothedSelector<'a> {
    pub(super) evaluator: &'a Evaluator<'a>,
    pub(super) expr: &'a Expr,
    pub(super) set: Arc<dyn SeriesSet + 'a>,
    /// The grid, moved by the offset.
    pub(super) grid: Grid,
    pub(super) range: TimeRange,
    pub(super) lookback_ms: i64,
    pub(super) names_unique: bool,
}

/// The samples around a time.
struct Around {
    before: Option<usize>,
    after: Option<usize>,
}

impl SmoothedSelector<'_> {
    fn around(&self, ts: &[Timestamp], time: Timestamp) -> Around {
        let next = ts.partition_point(|ts| *ts <= time);
        let oldest = time.saturating_sub(self.lookback_ms);
        let newest = time.saturating_add(self.lookback_ms);
        Around {
            before: next.checked_sub(1).filter(|at| ts[*at] > oldest),
            after: ts.get(next).filter(|ts| **ts < newest).map(|_| next),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    fn value(&self, samples: &Samples, time: Timestamp, series: usize) -> Option<Value> {
        let share = |ts: &[Timestamp], a: usize, b: usize| (time - ts[a]) as f64 / (ts[b] - ts[a]) as f64;
        let (ts, values) = (&samples.ts, &samples.values);
        let floats = self.around(ts, time);
        if let Some(before) = floats.before {
            return Some(Value::Float(match floats.after {
                Some(after) if ts[before] < time => {
                    interpolated(values[before], values[after], share(ts, before, after), false)
                }
                _ => values[before],
            }));
        }
        let (ts, values) = (&samples.histogram_ts, &samples.histograms);
        let histograms = self.around(ts, time);
        let before = histograms.before?;
        match histograms.after {
            Some(after) if ts[before] < time => {
                let share = share(ts, before, after);
                let between = interpolated_histogram(&values[before], &values[after], share);
                if between.is_none() {
                    let name = self.set.labels(series).get(METRIC_NAME).unwrap_or("").to_owned();
                    let text = format!("{}{}", histogram::MIXED_SCHEMAS, for_metric(&name));
                    self.evaluator.annotations.warn(Site::new(self.expr, self.expr), &text);
                }
                between.map(|h| Value::Histogram(Arc::new(h)))
            }
            _ => Some(Value::Histogram(Arc::clone(&values[before]))),
        }
    }
}

impl Source for SmoothedSelector<'_> {
    fn len(&self) -> usize {
        self.set.len()
    }

    fn visit_labels(&self, at: usize, visit: &mut dyn FnMut(&str, &str)) {
        self.set.visit_labels(at, visit);
    }

    fn labels(&self, at: usize) -> Labels {
        self.set.labels(at)
    }

    fn drop_name(&self, _: usize) -> bool {
        false
    }

    fn compute(&self, at: usize, scratch: &mut Scratch<'_>, out: &mut Column) -> Result<(), QueryError> {
        out.reset(self.grid.count);
        self.evaluator.read(self.expr, self.set.as_ref(), at, self.range, scratch)?;
        remove_stale(&mut scratch.samples);
        for (step, time) in self.grid.times().enumerate() {
            if let Some(value) = self.value(&scratch.samples, time, at) {
                out.set(step, value);
            }
        }
        Ok(())
    }

    fn names_unique(&self) -> bool {
        self.names_unique
    }
}
