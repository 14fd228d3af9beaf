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
    let factor = Reach { ts: window.ts, raw, first, started }.factor((window.start, window.end), kind);
    Some(Value::Float(raw * factor))
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
    let reach = Reach { ts: window.histogram_ts, raw: raw.count, first: first.count, started };
    Some(Value::Histogram(Arc::new(histogram::multiplied(
        &raw,
        reach.factor((window.start, window.end), kind),
    ))))
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
/// here: where the counter was reset. So a window costs the same whatever it holds.
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
    let resets: Vec<usize> = if kind.is_counter() {
        (1..values.len()).filter(|at| values[*at] < values[*at - 1]).collect()
    } else {
        Vec::new()
    };
    let mut first_reset = 0;
    windows.slide_floats(ts, |step, (start, end), range| {
        if range.len() < 2 {
            return;
        }
        if kind.is_counter() {
            check_counter_name(remarks);
        }
        let first = values[range.start];
        let mut raw = values[range.end - 1] - first;
        while resets.get(first_reset).is_some_and(|at| *at <= range.start) {
            first_reset += 1;
        }
        for at in resets[first_reset..].iter().take_while(|at| **at < range.end) {
            raw += values[at - 1];
        }
        let reach = Reach { ts: &ts[range], raw, first, started: None };
        out.set_float(step, raw * reach.factor((start, end), kind));
    });
    true
}

/// How far the samples of a window reach.
struct Reach<'a> {
    ts: &'a [i64],
    /// The difference that they show, and the first of them.
    raw: f64,
    first: f64,
    /// When the counter started, if that was within the window.
    started: Option<i64>,
}

impl Reach<'_> {
    /// By how much the difference is to be multiplied.
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 samples")]
    #[inline]
    fn factor(&self, (start, end): (i64, i64), kind: Kind) -> f64 {
        let ts = self.ts;
        let (first_ts, last_ts) = (ts[0], ts[ts.len() - 1]);
        let between = seconds(last_ts - first_ts);
        let gap = if ts.len() > 1 { between / (ts.len() - 1) as f64 } else { 0.0 };
        let mut right = seconds(end - last_ts);
        if right >= gap * NEAR {
            right = gap / 2.0;
        }
        let (span, left) = match self.started {
            Some(started) => (seconds(last_ts - started), 0.0),
            None => (between, self.left(seconds(first_ts - start), kind, (gap, between))),
        };
        let factor = (span + left + right) / span;
        if kind == Kind::Rate { factor / seconds(end - start) } else { factor }
    }

    /// How far to extrapolate to the left.
    #[inline]
    fn left(&self, distance: f64, kind: Kind, (gap, span): (f64, f64)) -> f64 {
        let mut left = distance;
        if left >= gap * NEAR {
            left = gap / 2.0;
        }
        if kind.is_counter() && self.raw > 0.0 && self.first >= 0.0 {
            // A counter was never below zero, so it does not start before the line reaches zero.
            left = left.min(span * (self.first / self.raw));
        }
        left
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
