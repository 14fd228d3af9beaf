//! Histograms of one series over time: differences, sums, means.

use std::sync::Arc;

use model::{FloatHistogram, ResetHint};

use super::total::{self, Total};
use super::{Combined, MIXED_SCHEMAS, add, is_reset, subtract};
use crate::eval::range::Remarks;
use crate::text::Quote;

fn not_a(remarks: &Remarks<'_>, what: &str) {
    let name = remarks.name();
    let text = format!("this native histogram metric is not a {what}: {}", Quote(&name));
    remarks.evaluator.annotations.warn(remarks.at, &text);
}

/// Unpacks a combination and says what there is to say about it.
fn noted(
    combined: Result<Combined, super::Incompatible>,
    remarks: &Remarks<'_>,
    operation: &str,
) -> Option<FloatHistogram> {
    let Ok(combined) = combined else {
        remarks.warn(MIXED_SCHEMAS);
        return None;
    };
    if combined.bounds_differed {
        let text = format!("mismatched custom buckets were reconciled during {operation}");
        remarks.evaluator.annotations.info(remarks.at, &text);
    }
    Some(combined.histogram)
}

fn is_gauge(h: &FloatHistogram) -> bool {
    h.reset_hint == ResetHint::Gauge
}

/// Last minus first; for counters, what was lost in resets is added back.
pub(crate) fn difference(
    histograms: &[Arc<FloatHistogram>],
    is_counter: bool,
    remarks: &Remarks<'_>,
) -> Option<FloatHistogram> {
    if is_counter {
        return difference_with_resets(histograms, |_| false, remarks);
    }
    let (first, last) = (histograms.first()?, histograms.last()?);
    if !(is_gauge(first) && is_gauge(last)) {
        not_a(remarks, "gauge");
    }
    noted(subtract(last, first), remarks, "subtraction")
}

/// The growth of a counter. `is_reset_at(i)` tells of resets before histogram `i` that the histograms
/// themselves do not show.
pub(crate) fn difference_with_resets(
    histograms: &[Arc<FloatHistogram>],
    is_reset_at: impl Fn(usize) -> bool,
    remarks: &Remarks<'_>,
) -> Option<FloatHistogram> {
    let (first, last) = (histograms.first()?, histograms.last()?);
    if histograms.iter().any(|h| is_gauge(h)) {
        not_a(remarks, "counter");
    }
    let reset = |at: usize| is_reset_at(at) || is_reset(&histograms[at - 1], &histograms[at]);
    // If the counter was reset after the first histogram, that one contributes nothing, and its
    // layout does not matter.
    let restarted = histograms.len() > 1 && reset(1);
    let from = usize::from(restarted);
    if histograms[from..].iter().any(|h| h.has_custom_buckets() != last.has_custom_buckets()) {
        remarks.warn(MIXED_SCHEMAS);
        return None;
    }
    let mut out =
        if restarted { last.as_ref().clone() } else { noted(subtract(last, first), remarks, "subtraction")? };
    for at in from + 1..histograms.len() {
        if reset(at) {
            out = noted(add(&out, &histograms[at - 1]), remarks, "addition")?;
        }
    }
    // The result has the lowest resolution seen.
    let lowest = histograms[from..].iter().map(|h| h.schema).min().unwrap_or(out.schema);
    if lowest < out.schema && !out.has_custom_buckets() {
        let zero_threshold = out.zero_threshold;
        let coarse = FloatHistogram { schema: lowest, zero_threshold, ..FloatHistogram::default() };
        out = noted(add(&out, &coarse), remarks, "addition")?;
    }
    out.reset_hint = ResetHint::Gauge;
    Some(out)
}

/// The difference of the last two histograms; for a counter that was reset, the last one itself.
pub(crate) fn instant_difference(
    before: &FloatHistogram,
    last: &FloatHistogram,
    (is_counter, restarted): (bool, bool),
    remarks: &Remarks<'_>,
) -> Option<FloatHistogram> {
    if is_counter && (is_gauge(before) || is_gauge(last)) {
        not_a(remarks, "counter");
    }
    if !(is_counter || is_gauge(before) && is_gauge(last)) {
        not_a(remarks, "gauge");
    }
    let mut out = if is_counter && (restarted || is_reset(before, last)) {
        last.clone()
    } else {
        noted(subtract(last, before), remarks, "subtraction")?
    };
    out.reset_hint = ResetHint::Gauge;
    Some(out)
}

impl total::Remarks for Remarks<'_> {
    fn warn(&self, text: &str) {
        self.evaluator.annotations.warn(self.at, text);
    }

    fn warn_of_metric(&self, text: &str) {
        Remarks::warn(self, text);
    }

    fn info(&self, text: &str) {
        self.evaluator.annotations.info(self.at, text);
    }
}

/// All histograms taken together.
fn total(histograms: &[Arc<FloatHistogram>], for_mean: bool, remarks: &Remarks<'_>) -> Option<Total> {
    let mut total = Total::new(histograms.first()?);
    for histogram in &histograms[1..] {
        total.add(histogram, for_mean, remarks);
    }
    Some(total)
}

/// The sum.
pub(crate) fn sum(histograms: &[Arc<FloatHistogram>], remarks: &Remarks<'_>) -> Option<FloatHistogram> {
    total(histograms, false, remarks)?.into_sum(remarks)
}

/// The mean.
pub(crate) fn mean(histograms: &[Arc<FloatHistogram>], remarks: &Remarks<'_>) -> Option<FloatHistogram> {
    total(histograms, true, remarks)?.into_mean(remarks)
}
