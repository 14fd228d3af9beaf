//! The value of a whole query.

use model::{Samples, Value};

use super::column::{Column, is_absent};
use super::grid::Grid;
use super::order;
use super::range::{Input, remove_stale};
use super::source::{Scratch, Series, goes_with_name, join_equal};
use super::{Evaluated, Evaluator};
use crate::aggregate::{self, GroupSum};
use crate::ast::{Expr, ExprKind, ValueType};
use crate::engine::{MatrixSeries, QueryError, QueryValue, VectorSample};

impl Evaluator<'_> {
    /// Evaluates the sums behind an aggregation over the query's grid.
    pub(crate) fn sums(&self, expr: &Expr) -> Result<Vec<GroupSum>, QueryError> {
        match &expr.unwrapped().kind {
            ExprKind::Aggregate(aggregate) => aggregate::sums(self, aggregate, expr, self.times.query),
            _ => Err(QueryError::Execution("only an aggregation is made of sums".to_owned())),
        }
    }

    /// Evaluates a query over its grid.
    pub(crate) fn query(&self, expr: &Expr) -> Result<QueryValue, QueryError> {
        let grid = self.times.query;
        if expr.value_type() == ValueType::Matrix {
            return self.matrix(expr, grid);
        }
        let is_instant = grid.step == 0;
        match self.eval(expr, grid)? {
            Evaluated::Text(text) => Ok(QueryValue::String { ts: grid.start, text }),
            Evaluated::Scalar(values) if is_instant => {
                Ok(QueryValue::Scalar { ts: grid.start, value: values[0] })
            }
            Evaluated::Scalar(values) => {
                let mut samples = Samples::default();
                samples.ts.extend(grid.times());
                samples.values = values;
                Ok(QueryValue::Matrix(vec![MatrixSeries { labels: model::Labels::empty(), samples }]))
            }
            Evaluated::Vector(series) => {
                let series = self.without_marked_names(series)?;
                if is_instant { self.instant_vector(series) } else { self.range_of(series) }
            }
        }
    }

    /// Removes the names that were marked for removal.
    fn without_marked_names(&self, mut series: Vec<Series>) -> Result<Vec<Series>, QueryError> {
        let mut any = false;
        for series in self.account.watched(series.iter_mut().filter(|series| series.drop_name)) {
            let series = series?;
            any = true;
            series.labels = series.labels.filtered(|name| !goes_with_name(name));
        }
        if any { join_equal(series, self.account) } else { Ok(series) }
    }

    /// A range vector at one time.
    fn matrix(&self, expr: &Expr, grid: Grid) -> Result<QueryValue, QueryError> {
        let vector = self.range_vector(expr, grid.first())?;
        let windows = vector.windows;
        let end = windows.edges.start;
        let start = end.saturating_sub(windows.range_ms);
        let mut out = Vec::new();
        let mut keep = |labels, mut samples: Samples| -> Result<(), QueryError> {
            within(&mut samples, start, end);
            if !samples.is_empty() {
                self.hold_bytes(super::range::sample_count(&samples), samples.heap_bytes(), expr)?;
                out.push(MatrixSeries { labels, samples });
            }
            Ok(())
        };
        match vector.input {
            Input::Store { set, range } => {
                for at in self.account.watched(0..set.len()) {
                    let at = at?;
                    let mut scratch = Scratch::new(self.account);
                    self.read(expr, set.as_ref(), at, range, &mut scratch)?;
                    let mut samples = std::mem::take(&mut scratch.samples);
                    drop(scratch);
                    remove_stale(&mut samples);
                    keep(set.labels(at), samples)?;
                }
            }
            Input::Computed(series) => {
                for item in self.account.watched(series) {
                    let (labels, drop_name, samples) = item?;
                    let labels =
                        if drop_name { labels.filtered(|name| !goes_with_name(name)) } else { labels };
                    keep(labels, samples)?;
                }
            }
        }
        self.sorted_by_labels(out)
    }

    /// In the memory of the series.
    fn instant_vector(&self, series: Vec<Series>) -> Result<QueryValue, QueryError> {
        let ts = self.times.query.start;
        let sample = |Series { labels, column, .. }: Series| {
            let value = column.get(0)?.to_value();
            Some(VectorSample { labels, ts, value })
        };
        let samples = self.account.watched(series).filter_map(|series| series.map(sample).transpose());
        samples.collect::<Result<_, _>>().map(QueryValue::Vector)
    }

    fn range_of(&self, series: Vec<Series>) -> Result<QueryValue, QueryError> {
        let grid = self.times.query;
        let mut out = Vec::with_capacity(series.len());
        for series in self.account.watched(series) {
            let Series { labels, column, .. } = series?;
            out.push(MatrixSeries { labels, samples: samples(column, grid) });
        }
        self.sorted_by_labels(out)
    }

    fn sorted_by_labels(&self, mut series: Vec<MatrixSeries>) -> Result<QueryValue, QueryError> {
        order::sort_by(&mut series, self.account, |a, b| a.labels.cmp(&b.labels))?;
        Ok(QueryValue::Matrix(series))
    }
}

/// Keeps the samples in `(start, end]`.
fn within(samples: &mut Samples, start: i64, end: i64) {
    let cut = |ts: &[i64]| (ts.partition_point(|ts| *ts <= start), ts.partition_point(|ts| *ts <= end));
    let (low, high) = cut(&samples.ts);
    samples.ts.truncate(high);
    samples.values.truncate(high);
    samples.ts.drain(..low);
    samples.values.drain(..low);
    let (low, high) = cut(&samples.histogram_ts);
    samples.histogram_ts.truncate(high);
    samples.histograms.truncate(high);
    samples.histogram_ts.drain(..low);
    samples.histograms.drain(..low);
    samples.start_ts.clear();
    samples.histogram_start_ts.clear();
}

/// The samples of a column, whose memory goes on as theirs if every step has a float.
fn samples(column: Column, grid: Grid) -> Samples {
    let mut samples = Samples::default();
    let floats = column.floats().iter().filter(|cell| !is_absent(**cell)).count();
    samples.ts.reserve_exact(floats);
    if floats == grid.count {
        samples.ts.extend(grid.times());
        samples.values = column.into_floats();
        return samples;
    }
    samples.values.reserve_exact(floats);
    for (step, time) in grid.times().enumerate() {
        match column.get(step).map(super::column::Point::to_value) {
            Some(Value::Float(value)) => samples.push_float(time, value),
            Some(Value::Histogram(histogram)) => samples.push_histogram(time, histogram),
            None => {}
        }
    }
    samples
}
