//! Range selectors: a window that slides over the samples of one series.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use model::{FloatHistogram, Labels, METRIC_NAME, MatchOp, Samples, SeriesSet, TimeRange, Timestamp, Value};

use super::Evaluator;
use super::column::{Column, histogram_samples};
use super::grid::Grid;
use super::source::{NameRule, Scratch, Source, goes_with_name};
use crate::annotations::Site;
use crate::ast::{Expr, ExprKind, Extension};
use crate::engine::QueryError;
use crate::limits::Account;

/// The samples of one series in one window, which is open at the left.
pub(crate) struct Window<'a> {
    pub(crate) ts: &'a [Timestamp],
    pub(crate) values: &'a [f64],
    pub(crate) histogram_ts: &'a [Timestamp],
    pub(crate) histograms: &'a [Arc<FloatHistogram>],
    /// Start timestamps beside `ts`; empty if there are none.
    pub(crate) start_ts: &'a [Timestamp],
    /// Start timestamps beside `histogram_ts`; empty if there are none.
    pub(crate) histogram_start_ts: &'a [Timestamp],
    /// The window is `(start, end]`.
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    /// The time of evaluation.
    pub(crate) time: Timestamp,
    /// The step of evaluation.
    pub(crate) step: usize,
}

impl Window<'_> {
    pub(crate) fn len(&self) -> usize {
        self.ts.len() + self.histogram_ts.len()
    }
}

/// What a range function may say about its input.
pub(crate) struct Remarks<'a> {
    pub(crate) evaluator: &'a Evaluator<'a>,
    /// Where the first argument of the function stands.
    pub(crate) at: Site,
    name: &'a dyn Fn() -> String,
    /// Whether the name of this series has been looked at.
    name_checked: Cell<bool>,
}

impl Remarks<'_> {
    /// The metric name of the series at hand; empty if it has none.
    pub(crate) fn name(&self) -> String {
        (self.name)()
    }

    /// Whether start timestamps count.
    pub(crate) fn uses_starts(&self) -> bool {
        self.evaluator.features.start_timestamps
    }

    /// Whether the series has been asked for a counter's name before.
    pub(crate) fn counter_name_checked(&self) -> bool {
        self.name_checked.replace(true)
    }

    /// Warns with `text` followed by the metric name, if there is one.
    pub(crate) fn warn(&self, text: &str) {
        let text = format!("{text}{}", crate::annotations::for_metric(&self.name()));
        self.evaluator.annotations.warn(self.at, &text);
    }

    /// Informs with `text` followed by the metric name, if there is one.
    pub(crate) fn info(&self, text: &str) {
        let text = format!("{text}{}", crate::annotations::for_metric(&self.name()));
        self.evaluator.annotations.info(self.at, &text);
    }
}

/// A function of a window.
pub(crate) type RangeFunction<'a> = Box<dyn Fn(&Window<'_>, &Remarks<'_>) -> Option<Value> + Sync + 'a>;

/// A function of all windows of a series at once; `false` if it cannot deal with the series.
pub(crate) type ColumnFunction<'a> =
    Box<dyn Fn(&Samples, &Windows, &Remarks<'_>, &mut Column) -> bool + Sync + 'a>;

/// The code of a range function: for each window, and perhaps a faster one for whole series of floats.
pub(crate) struct RangeCode<'a> {
    pub(crate) by_window: RangeFunction<'a>,
    pub(crate) by_column: Option<ColumnFunction<'a>>,
}

impl<'a> From<RangeFunction<'a>> for RangeCode<'a> {
    fn from(by_window: RangeFunction<'a>) -> Self {
        Self { by_window, by_column: None }
    }
}

/// Where samples come from.
pub(crate) enum Input<'a> {
    /// The store, and the time that is read.
    Store { set: Arc<dyn SeriesSet + 'a>, range: TimeRange },
    /// A subquery.
    Computed(Vec<(Labels, bool, Samples)>),
}

/// The series of a function over a range vector.
pub(crate) struct Ranged<'a> {
    pub(crate) evaluator: &'a Evaluator<'a>,
    /// The range vector.
    pub(crate) expr: &'a Expr,
    /// Where remarks are made: at the first argument of the function.
    pub(crate) at: Site,
    pub(crate) input: Input<'a>,
    pub(crate) names_unique: bool,
    pub(crate) windows: Windows,
    pub(crate) code: RangeCode<'a>,
    pub(crate) name: NameRule,
}

/// Where the windows lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    /// Times of evaluation.
    pub(crate) times: Grid,
    /// Right edges.
    pub(crate) edges: Grid,
    /// Width in milliseconds.
    pub(crate) range_ms: i64,
    /// Samples beyond the edges that the function wants to see.
    pub(crate) extension: Option<Extension>,
    pub(crate) lookback_ms: i64,
}

impl Windows {
    /// The time from which samples are needed, and up to which.
    pub(crate) fn reach(&self) -> TimeRange {
        let (before, after) = self.margins();
        TimeRange::new(
            self.edges.start.saturating_sub(self.range_ms).saturating_sub(before).saturating_add(1),
            self.edges.end().saturating_add(after),
        )
    }

    fn margins(&self) -> (i64, i64) {
        match self.extension {
            None => (0, 0),
            Some(Extension::Anchored) => (self.lookback_ms, 0),
            Some(Extension::Smoothed) => (self.lookback_ms, self.lookback_ms),
        }
    }

    /// Slides the window over times of floats, and calls `f` with the step, the edges and the samples
    /// inside. Ends early if the query is over; whoever computes the series looks at that too.
    #[inline]
    pub(crate) fn slide_floats(
        &self,
        ts: &[Timestamp],
        remarks: &Remarks<'_>,
        mut f: impl FnMut(usize, (Timestamp, Timestamp), std::ops::Range<usize>),
    ) {
        let mut floats = Slider::default();
        for (step, end) in self.edges.times().enumerate() {
            let start = end.saturating_sub(self.range_ms);
            if step & LOOK_STEPS == LOOK_STEPS && remarks.evaluator.account().check().is_err() {
                return;
            }
            f(step, (start, end), floats.advance(ts, start, end));
        }
    }

    /// Slides the window over `samples`, which hold no markers, and calls `f` where it holds any.
    fn slide(
        &self,
        samples: &Samples,
        account: &Account<'_>,
        mut f: impl FnMut(&Window<'_>),
    ) -> Result<(), QueryError> {
        let mut seen = 0;
        let mut floats = Slider::default();
        let mut histograms = Slider::default();
        let (before, after) = self.margins();
        for (step, (time, end)) in self.times.times().zip(self.edges.times()).enumerate() {
            let start = end.saturating_sub(self.range_ms);
            let (from, to) = (start.saturating_sub(before), end.saturating_add(after));
            let float = floats.advance(&samples.ts, from, to);
            let histogram = histograms.advance(&samples.histogram_ts, from, to);
            let starts = |all: &'_ [Timestamp], range: &std::ops::Range<usize>| -> std::ops::Range<usize> {
                if all.is_empty() { 0..0 } else { range.clone() }
            };
            let window = Window {
                ts: &samples.ts[float.clone()],
                values: &samples.values[float.clone()],
                histogram_ts: &samples.histogram_ts[histogram.clone()],
                histograms: &samples.histograms[histogram.clone()],
                start_ts: &samples.start_ts[starts(&samples.start_ts, &float)],
                histogram_start_ts: &samples.histogram_start_ts
                    [starts(&samples.histogram_start_ts, &histogram)],
                start,
                end,
                time,
                step,
            };
            if window.len() > 0 {
                f(&window);
            }
            seen += 1 + window.ts.len() + LOOK_STEPS / 64 * window.histograms.len();
            if seen > LOOK_STEPS {
                seen = 0;
                account.check()?;
            }
        }
        Ok(())
    }
}

/// After so many steps, or samples in windows, a function looks whether to go on: some 10 µs. A histogram counts as 64.
pub(super) const LOOK_STEPS: usize = 4095;

/// Two positions in a column of times that only move forwards.
#[derive(Default)]
struct Slider {
    low: usize,
    high: usize,
}

impl Slider {
    /// The samples in `(start, end]`.
    fn advance(&mut self, ts: &[Timestamp], start: Timestamp, end: Timestamp) -> std::ops::Range<usize> {
        while ts.get(self.high).is_some_and(|ts| *ts <= end) {
            self.high += 1;
        }
        while self.low < self.high && ts[self.low] <= start {
            self.low += 1;
        }
        self.low..self.high
    }
}

/// The number of samples as limits count them.
pub(crate) fn sample_count(samples: &Samples) -> usize {
    samples.ts.len() + samples.histograms.iter().map(|h| histogram_samples(h)).sum::<usize>()
}

/// Removes staleness markers.
pub(crate) fn remove_stale(samples: &mut Samples) {
    if samples.values.iter().any(|value| model::is_stale_nan(*value)) {
        let keep: Vec<bool> = samples.values.iter().map(|value| !model::is_stale_nan(*value)).collect();
        retain(&mut samples.ts, &keep);
        retain(&mut samples.values, &keep);
        retain(&mut samples.start_ts, &keep);
    }
    if samples.histograms.iter().any(|histogram| histogram.is_stale()) {
        let keep: Vec<bool> = samples.histograms.iter().map(|histogram| !histogram.is_stale()).collect();
        retain(&mut samples.histogram_ts, &keep);
        retain(&mut samples.histograms, &keep);
        retain(&mut samples.histogram_start_ts, &keep);
    }
}

/// Keeps the items marked in `keep`; an empty column stays empty.
fn retain<T>(items: &mut Vec<T>, keep: &[bool]) {
    let mut at = 0;
    items.retain(|_| {
        at += 1;
        keep[at - 1]
    });
}

impl Ranged<'_> {
    fn raw_labels(&self, at: usize) -> Labels {
        match &self.input {
            Input::Store { set, .. } => set.labels(at),
            Input::Computed(series) => series[at].0.clone(),
        }
    }

    fn raw_visit(&self, at: usize, visit: &mut dyn FnMut(&str, &str)) {
        match &self.input {
            Input::Store { set, .. } => set.visit_labels(at, visit),
            Input::Computed(series) => series[at].0.iter().for_each(|(name, value)| visit(name, value)),
        }
    }

    fn metric_name(&self, at: usize) -> String {
        // All series of most selectors have the name that the selector gives.
        if let ExprKind::Matrix(matrix) = &self.expr.kind {
            let named = |m: &&model::Matcher| *m.name == *METRIC_NAME && m.op == MatchOp::Equal;
            if let Some(matcher) = matrix.selector.matchers.iter().find(named) {
                return matcher.value.to_string();
            }
        }
        let mut found = String::new();
        self.raw_visit(at, &mut |name, value| {
            if name == METRIC_NAME {
                value.clone_into(&mut found);
            }
        });
        found
    }
}

impl Source for Ranged<'_> {
    fn len(&self) -> usize {
        match &self.input {
            Input::Store { set, .. } => set.len(),
            Input::Computed(series) => series.len(),
        }
    }

    fn visit_labels(&self, at: usize, visit: &mut dyn FnMut(&str, &str)) {
        if self.name == NameRule::Drop {
            self.raw_visit(at, &mut |name, value| {
                if !goes_with_name(name) {
                    visit(name, value);
                }
            });
        } else {
            self.raw_visit(at, visit);
        }
    }

    fn visit_some_labels(&self, at: usize, names: &[String], visit: &mut dyn FnMut(&str, &str)) {
        let drops = self.name == NameRule::Drop;
        let mut visit = |name: &str, value: &str| {
            if !drops || !goes_with_name(name) {
                visit(name, value);
            }
        };
        match &self.input {
            Input::Store { set, .. } => set.visit_some_labels(at, names, &mut visit),
            Input::Computed(series) => {
                let labels = series[at].0.iter();
                labels.filter(|(name, _)| names.iter().any(|n| n == name)).for_each(|(n, v)| visit(n, v));
            }
        }
    }

    fn labels(&self, at: usize) -> Labels {
        let labels = self.raw_labels(at);
        if self.name == NameRule::Drop { labels.filtered(|name| !goes_with_name(name)) } else { labels }
    }

    fn drop_name(&self, at: usize) -> bool {
        self.name == NameRule::Mark || matches!(&self.input, Input::Computed(series) if series[at].1)
    }

    fn compute(&self, at: usize, scratch: &mut Scratch<'_>, out: &mut Column) -> Result<(), QueryError> {
        let since = self.evaluator.tally.as_ref().map(|_| Instant::now());
        out.reset(self.windows.times.count);
        let name = || self.metric_name(at);
        let remarks =
            Remarks { evaluator: self.evaluator, at: self.at, name: &name, name_checked: Cell::new(false) };
        let samples = match &self.input {
            Input::Store { set, range } => {
                self.evaluator.read(self.expr, set.as_ref(), at, *range, scratch)?;
                remove_stale(&mut scratch.samples);
                &scratch.samples
            }
            Input::Computed(series) => &series[at].2,
        };
        let by_column = self.code.by_column.as_ref();
        if !by_column.is_some_and(|by_column| by_column(samples, &self.windows, &remarks, out)) {
            self.windows.slide(samples, self.evaluator.account(), |window| {
                if let Some(value) = (self.code.by_window)(window, &remarks) {
                    out.set(window.step, value);
                }
            })?;
        }
        if self.windows.times.count > LOOK_STEPS {
            self.evaluator.account().check()?;
        }
        if let (Some(tally), Some(since)) = (&self.evaluator.tally, since) {
            tally.add(self.at.node, since, (1, out.samples(), out.heap_bytes()));
            let grid = self.windows.times;
            if self.evaluator.counts_steps(grid) {
                let histograms = |window: &Window<'_>| -> usize {
                    window.histograms.iter().map(|h| histogram_samples(h)).sum()
                };
                self.windows.slide(samples, self.evaluator.account(), |window| {
                    tally.step((window.step, grid.count), window.ts.len() + histograms(window));
                })?;
            }
        }
        Ok(())
    }

    fn names_unique(&self) -> bool {
        self.names_unique
    }
}
