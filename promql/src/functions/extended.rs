//! `anchored` and `smoothed`: what stands at the edges of a range, instead of extrapolation.
//!
//! The windows of these selectors reach beyond their edges by the look-back. *Anchored*: the last
//! sample at or before the left edge is taken as if it stood there. *Smoothed*: the values at both edges
//! are interpolated between the samples around them.

use std::sync::Arc;

use model::{FloatHistogram, ResetHint, Value};

use super::rate::{self, Kind};
use crate::ast::Extension;
use crate::eval::range::{Remarks, Window};
use crate::histogram;

const MIXED: &str = "encountered a mix of histograms and floats";

/// How far `time` lies between two times.
#[expect(clippy::cast_precision_loss, reason = "milliseconds")]
fn share(before: i64, after: i64, time: i64) -> f64 {
    (time - before) as f64 / (after - before) as f64
}

/// The value between two; a counter that was reset started at zero.
pub(crate) fn interpolated(before: f64, after: f64, share: f64, is_counter: bool) -> f64 {
    let before = if is_counter && after < before { 0.0 } else { before };
    before + (after - before) * share
}

/// The histogram between two; none if their buckets are of different kinds. Unless it is a gauge, a
/// histogram that was reset started empty.
pub(crate) fn interpolated_histogram(
    before: &FloatHistogram,
    after: &FloatHistogram,
    share: f64,
) -> Option<FloatHistogram> {
    if before.has_custom_buckets() != after.has_custom_buckets() {
        return None;
    }
    let gauge = before.reset_hint == ResetHint::Gauge && after.reset_hint == ResetHint::Gauge;
    let reset = !gauge && histogram::is_reset(before, after);
    let mut out = if reset {
        histogram::multiplied(after, share)
    } else {
        let growth = histogram::subtract(after, before).ok()?.histogram;
        histogram::add(before, &histogram::multiplied(&growth, share)).ok()?.histogram
    };
    out.reset_hint = match (gauge, reset) {
        (true, _) => ResetHint::Gauge,
        (_, true) => ResetHint::Reset,
        _ => ResetHint::NotReset,
    };
    Some(out)
}

/// Where a column of times meets the edges of a window.
struct Edges {
    /// The first sample after the left edge.
    from: usize,
    /// The first sample after the right edge.
    to: usize,
    len: usize,
}

impl Edges {
    fn of(ts: &[i64], window: &Window<'_>) -> Self {
        Self {
            from: ts.partition_point(|ts| *ts <= window.start),
            to: ts.partition_point(|ts| *ts <= window.end),
            len: ts.len(),
        }
    }

    /// Whether there is enough for an answer.
    fn suffices(&self, extension: Extension) -> bool {
        let inside = self.from < self.to;
        let spans = extension == Extension::Smoothed && self.from > 0 && self.to < self.len;
        inside || spans
    }
}

/// `rate`, `increase` and `delta` of an extended selector.
pub(super) fn rate(
    window: &Window<'_>,
    remarks: &Remarks<'_>,
    kind: Kind,
    extension: Extension,
) -> Option<Value> {
    let floats = Edges::of(window.ts, window);
    let histograms = Edges::of(window.histogram_ts, window);
    let difference = match (floats.suffices(extension), histograms.suffices(extension)) {
        (true, true) => {
            remarks.warn(MIXED);
            return None;
        }
        (true, false) => {
            if kind.is_counter() {
                rate::check_counter_name(remarks);
            }
            let values = float_points(window, &floats, kind, extension);
            Value::Float(rate::difference(&values, kind.is_counter()))
        }
        (false, true) => {
            let points = histogram_points(window, &histograms, extension);
            let Some(points) = points else {
                remarks.warn(histogram::MIXED_SCHEMAS);
                return None;
            };
            Value::Histogram(Arc::new(histogram::difference(&points, kind.is_counter(), remarks)?))
        }
        (false, false) => return None,
    };
    if kind != Kind::Rate {
        return Some(difference);
    }
    #[expect(clippy::cast_precision_loss, reason = "milliseconds in seconds, as floats")]
    let seconds = (window.end - window.start) as f64 / 1000.0;
    Some(match difference {
        Value::Float(value) => Value::Float(value / seconds),
        Value::Histogram(h) => Value::Histogram(Arc::new(histogram::divided(&h, seconds))),
    })
}

/// The values at the left edge, inside, and at the right edge.
fn float_points(window: &Window<'_>, edges: &Edges, kind: Kind, extension: Extension) -> Vec<f64> {
    let (ts, values) = (window.ts, window.values);
    if extension == Extension::Anchored {
        return values[edges.from.saturating_sub(1)..edges.to].to_vec();
    }
    let at = |next: usize, time: i64| {
        if next == 0 || next == edges.len || ts[next - 1] == time {
            return values[next.saturating_sub(usize::from(next > 0))];
        }
        let share = share(ts[next - 1], ts[next], time);
        interpolated(values[next - 1], values[next], share, kind.is_counter())
    };
    let mut points = Vec::with_capacity(edges.to - edges.from + 2);
    points.push(at(edges.from, window.start));
    points.extend_from_slice(&values[edges.from..edges.to]);
    points.push(at(edges.to, window.end));
    points
}

/// The same for histograms; none if kinds of buckets are mixed at an edge.
fn histogram_points(
    window: &Window<'_>,
    edges: &Edges,
    extension: Extension,
) -> Option<Vec<Arc<FloatHistogram>>> {
    let (ts, values) = (window.histogram_ts, window.histograms);
    if extension == Extension::Anchored {
        return Some(values[edges.from.saturating_sub(1)..edges.to].to_vec());
    }
    let at = |next: usize, time: i64| {
        if next == 0 || next == edges.len || ts[next - 1] == time {
            return Some(Arc::clone(&values[next.saturating_sub(usize::from(next > 0))]));
        }
        let share = share(ts[next - 1], ts[next], time);
        interpolated_histogram(&values[next - 1], &values[next], share).map(Arc::new)
    };
    let left = at(edges.from, window.start)?;
    let mut inside = values[edges.from..edges.to].to_vec();
    let mut right = at(edges.to, window.end)?;
    // A reset between the sample before the left edge and the one after it is in the value at the edge
    // already. The same holds for the value at the right edge if nothing lies inside.
    let cut = edges.from > 0 && ts[edges.from - 1] < window.start;
    if cut
        && let Some(next) =
            inside.first_mut().or(Some(&mut right)).filter(|h| h.reset_hint == ResetHint::Reset)
    {
        *next = Arc::new(FloatHistogram { reset_hint: ResetHint::NotReset, ..FloatHistogram::clone(next) });
    }
    let mut points = vec![left];
    points.append(&mut inside);
    points.push(right);
    Some(points)
}

/// `changes` and `resets` of an anchored selector: `f` of the window from its anchor on.
pub(super) fn anchored(window: &Window<'_>, f: fn(&Window<'_>) -> Option<Value>) -> Option<Value> {
    let floats = Edges::of(window.ts, window);
    let histograms = Edges::of(window.histogram_ts, window);
    if floats.from == floats.to && histograms.from == histograms.to {
        return None;
    }
    let before = |ts: &[i64], edges: &Edges| edges.from.checked_sub(1).map(|at| ts[at]);
    let (float, histogram) = (before(window.ts, &floats), before(window.histogram_ts, &histograms));
    // The later of the two is the anchor.
    let float_from = floats.from - usize::from(float > histogram);
    let histogram_from = histograms.from - usize::from(histogram > float);
    let part = |all: &'_ [i64], from: usize, to: usize| if all.is_empty() { 0..0 } else { from..to };
    f(&Window {
        ts: &window.ts[float_from..floats.to],
        values: &window.values[float_from..floats.to],
        histogram_ts: &window.histogram_ts[histogram_from..histograms.to],
        histograms: &window.histograms[histogram_from..histograms.to],
        start_ts: &window.start_ts[part(window.start_ts, float_from, floats.to)],
        histogram_start_ts: &window.histogram_start_ts
            [part(window.histogram_start_ts, histogram_from, histograms.to)],
        ..*window
    })
}
