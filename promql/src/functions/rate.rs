//! `rate`, `increase`, `delta` and their instant kin.

use std::sync::Arc;

use model::{Samples, Value};

use super::started::Starts;
use crate::eval::column::Column;
use crate::eval::range::{Remarks, Window, Windows};
use crate::histogram;

/// What is extrapolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Growth of a counter a second.
    Rate,
    /// Growth of a counter.
    Increase,
    /// Difference of a gauge.
    Delta,
}

impl Kind {
    pub(super) fn is_counter(self) -> bool {
        self != Self::Delta
    }
}

const MIXED: &str = "encountered a mix of histograms and floats";

#[expect(clippy::cast_precision_loss, reason = "milliseconds in seconds, as floats")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// Informs about a counter whose name does not say that it is one.
pub(super) fn check_counter_name(remarks: &Remarks<'_>) {
    if remarks.counter_name_checked() {
        return;
    }
    let name = remarks.name();
    let counted = ["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| name.ends_with(suffix));
    if !name.is_empty() && !counted {
        let text = format!(
            "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
            crate::text::Quote(&name)
        );
        remarks.evaluator.annotations.info(remarks.at, &text);
    }
}

/// The start times of the samples that a function looks at, if it is to use them.
fn starts<'a>(window: &Window<'a>, remarks: &Remarks<'_>, kind: Kind) -> Option<Starts<'a>> {
    let (ts, starts) = if window.histograms.is_empty() {
        (window.ts, window.start_ts)
    } else {
        (window.histogram_ts, window.histogram_start_ts)
    };
    let used = remarks.evaluator.features.start_timestamps && kind.is_counter() && !starts.is_empty();
    used.then_some(Starts { ts, starts })
}

/// The difference over the window, extrapolated to its edges where samples come close to them.
pub(super) fn extrapolated(window: &Window<'_>, remarks: &Remarks<'_>, kind: Kind) -> Option<Value> {
    if !window.values.is_empty() && !window.histograms.is_empty() {
        remarks.warn(MIXED);
        return None;
    }
    let starts = starts(window, remarks, kind);
    let started = starts.and_then(|starts| starts.within(window.start));
    if window.len() < 2 && started.is_none() {
        return None;
    }
    if let Some(starts) = starts {
        starts.check(remarks);
    }
    if !window.histograms.is_empty() {
        return extrapolated_histogram(window, remarks, kind, (starts, started));
    }
    if kind.is_counter() {
        check_counter_name(remarks);
    }
    let mut raw = match starts {
        Some(starts) => difference_of_started(window.values, starts),
        None => difference(window.values, kind.is_counter()),
    };
    let first = window.values[0];
    if started.is_some() {
        raw += first;
    }
    Some(Value::Float(raw * factor(window, window.ts, (raw, first), (kind, started))))
}

fn extrapolated_histogram(
    window: &Window<'_>,
    remarks: &Remarks<'_>,
    kind: Kind,
    (starts, started): (Option<Starts<'_>>, Option<i64>),
) -> Option<Value> {
    let histograms = window.histograms;
    let first = &histograms[0];
    let mut raw = match starts {
        Some(starts) => {
            let reset = |at| starts.is_reset(at);
            histogram::difference_with_resets(histograms, reset, remarks)?
        }
        None => histogram::difference(histograms, kind.is_counter(), remarks)?,
    };
    if started.is_some() {
        raw = histogram::add(&raw, first).ok()?.histogram;
        raw.reset_hint = model::ResetHint::Gauge;
    }
    let factor = factor(window, window.histogram_ts, (raw.count, first.count), (kind, started));
    Some(Value::Histogram(Arc::new(histogram::multiplied(&raw, factor))))
}

/// By how much the difference over a window, with samples at `ts`, is to be multiplied.
fn factor(
    window: &Window<'_>,
    ts: &[i64],
    difference: (f64, f64),
    (kind, started): (Kind, Option<i64>),
) -> f64 {
    let reach = Reach::of((ts[0], ts[ts.len() - 1], ts.len()), (window.start, window.end), started);
    reach.factor(difference, kind, seconds(window.end - window.start))
}

/// Last minus first; for counters, what was lost in resets is added back.
pub(super) fn difference(values: &[f64], is_counter: bool) -> f64 {
    let mut difference = values[values.len() - 1] - values[0];
    if is_counter {
        for pair in values.windows(2) {
            if pair[1] < pair[0] {
                difference += pair[0];
            }
        }
    }
    difference
}

/// The same for a counter whose start times tell of resets too.
fn difference_of_started(values: &[f64], starts: Starts<'_>) -> f64 {
    let mut difference = values[values.len() - 1] - values[0];
    for at in 1..values.len() {
        if values[at] < values[at - 1] || starts.is_reset(at) {
            difference += values[at - 1];
        }
    }
    difference
}

/// A sample further from the edge than this many average gaps says that the series starts or ends there.
const NEAR: f64 = 1.1;

/// All windows of a series of floats. What [`extrapolated`] finds out window by window is found out once
/// here: where the counter was reset. So a window costs the same whatever it holds. Where samples come as
/// regularly as steps, all windows but the first and last ones lie alike, and their reach, with most of the
/// divisions, is computed once; what is left is about 10 ns a window.
pub(super) fn column(
    samples: &Samples,
    windows: &Windows,
    remarks: &Remarks<'_>,
    kind: Kind,
    out: &mut Column,
) -> bool {
    let uses_starts = remarks.uses_starts() && !samples.start_ts.is_empty();
    if !samples.histograms.is_empty() || uses_starts {
        return false;
    }
    let (ts, values) = (&samples.ts, &samples.values);
    // Hardly any series has one, which is found out eight samples at a time.
    let falls = || values.iter().zip(values.iter().skip(1)).fold(false, |falls, (a, b)| falls | (b < a));
    let resets: Vec<usize> = if kind.is_counter() && falls() {
        (1..values.len()).filter(|at| values[*at] < values[*at - 1]).collect()
    } else {
        Vec::new()
    };
    let (mut first_reset, mut any) = (0, false);
    let mut known = ((0, 0, 0, 0), Reach { span: 0.0, left: 0.0, right: 0.0 });
    let range_seconds = seconds(windows.range_ms);
    windows.slide_floats(ts, remarks, |step, (start, end), range| {
        if range.len() < 2 {
            return;
        }
        any = true;
        let first = values[range.start];
        let mut raw = values[range.end - 1] - first;
        while resets.get(first_reset).is_some_and(|at| *at <= range.start) {
            first_reset += 1;
        }
        for at in resets[first_reset..].iter().take_while(|at| **at < range.end) {
            raw += values[at - 1];
        }
        let (first_ts, last_ts) = (ts[range.start], ts[range.end - 1]);
        let lies = (last_ts - first_ts, first_ts - start, end - last_ts, range.len());
        if known.0 != lies {
            known = (lies, Reach::of((first_ts, last_ts, range.len()), (start, end), None));
        }
        out.set_float(step, raw * known.1.factor((raw, first), kind, range_seconds));
    });
    if any && kind.is_counter() {
        check_counter_name(remarks);
    }
    true
}

/// How far the samples of a window reach, and how far beyond them to extrapolate, in seconds.
#[derive(Clone, Copy)]
struct Reach {
    span: f64,
    left: f64,
    right: f64,
}

impl Reach {
    /// `started`: when the counter started, if that was within the window.
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 samples")]
    #[inline]
    fn of((first, last, count): (i64, i64, usize), (start, end): (i64, i64), started: Option<i64>) -> Self {
        let between = seconds(last - first);
        let gap = if count > 1 { between / (count - 1) as f64 } else { 0.0 };
        let extended = |distance: f64| if distance >= gap * NEAR { gap / 2.0 } else { distance };
        let right = extended(seconds(end - last));
        match started {
            Some(started) => Self { span: seconds(last - started), left: 0.0, right },
            None => Self { span: between, left: extended(seconds(first - start)), right },
        }
    }

    /// By how much the difference `raw` of samples that begin with `first` is to be multiplied. `range` is
    /// the width of the window in seconds.
    #[inline]
    fn factor(self, (raw, first): (f64, f64), kind: Kind, range: f64) -> f64 {
        let mut left = self.left;
        if kind.is_counter() && raw > 0.0 && first >= 0.0 {
            // A counter was never below zero, so it does not start before the line reaches zero.
            left = left.min(self.span * (first / raw));
        }
        let factor = (self.span + left + self.right) / self.span;
        if kind == Kind::Rate { factor / range } else { factor }
    }
}

/// `irate` and `idelta`: the last two samples.
pub(super) fn instant(window: &Window<'_>, remarks: &Remarks<'_>, is_rate: bool) -> Option<Value> {
    if window.len() < 2 {
        return None;
    }
    // Of the two newest samples, one of each kind is a mixture.
    let tail = |ts: &[i64], back: usize| ts.len().checked_sub(back).map(|at| ts[at]);
    let (last_float, last_histogram) = (tail(window.ts, 1), tail(window.histogram_ts, 1));
    let is_float = last_float > last_histogram;
    let (before, other) = if is_float {
        (tail(window.ts, 2), last_histogram)
    } else {
        (tail(window.histogram_ts, 2), last_float)
    };
    if before <= other {
        remarks.warn(MIXED);
        return None;
    }
    let (last, before) = (last_float.max(last_histogram)?, before?);
    if last == before {
        return None;
    }
    let elapsed = seconds(last - before);
    let (ts, starts) = if is_float {
        (window.ts, window.start_ts)
    } else {
        (window.histogram_ts, window.histogram_start_ts)
    };
    let uses_starts = is_rate && remarks.evaluator.features.start_timestamps && !starts.is_empty();
    let restarted = uses_starts && Starts { ts, starts }.is_reset(ts.len() - 1);
    if !is_float {
        let [.., a, b] = window.histograms else { return None };
        let change = histogram::instant_difference(a, b, (is_rate, restarted), remarks)?;
        let change = if is_rate { histogram::divided(&change, elapsed) } else { change };
        return Some(Value::Histogram(Arc::new(change)));
    }
    let [.., a, b] = window.values else { return None };
    if !is_rate {
        return Some(Value::Float(b - a));
    }
    let change = if b < a || restarted { *b } else { b - a };
    Some(Value::Float(change / elapsed))
}
