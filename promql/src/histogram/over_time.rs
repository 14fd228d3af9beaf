//! Histograms of one series over time: differences, sums, means.

use std::sync::Arc;

use model::{FloatHistogram, ResetHint};

use super::total::{self, Total};
use super::{Combined, add, is_reset, subtract};
use crate::eval::range::Remarks;
use crate::text::Quote;

const MIXED_SCHEMAS: &str = "vector contains a mix of histograms with exponential and custom buckets schemas";

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
    let (first, last) = (histograms.first()?, histograms.last()?);
    if is_counter && histograms.iter().any(|h| is_gauge(h)) {
        not_a(remarks, "counter");
    }
    if !(is_counter || is_gauge(first) && is_gauge(last)) {
        not_a(remarks, "gauge");
    }
    // If the counter was reset after the first histogram, that one contributes nothing, and its
    // layout does not matter.
    let restarted = is_counter && is_reset(first, &histograms[1]);
    let relevant = if restarted { &histograms[1..] } else { histograms };
    let checked = if is_counter { relevant } else { &[Arc::clone(first), Arc::clone(last)][..] };
    if checked.iter().any(|h| h.has_custom_buckets() != last.has_custom_buckets()) {
        remarks.warn(MIXED_SCHEMAS);
        return None;
    }
    let empty = FloatHistogram {
        schema: histograms[1].schema,
        zero_threshold: histograms[1].zero_threshold,
        custom_values: histograms[1].custom_values.clone(),
        ..FloatHistogram::default()
    };
    let base = if restarted { &empty } else { first.as_ref() };
    let mut out = noted(subtract(last, base), remarks, "subtraction")?;
    if is_counter {
        for pair in relevant.windows(2) {
            if is_reset(&pair[0], &pair[1]) {
                out = noted(add(&out, &pair[0]), remarks, "addition")?;
            }
        }
        // The result has the lowest resolution seen.
        let lowest = relevant.iter().map(|h| h.schema).min().unwrap_or(out.schema);
        if lowest < out.schema && !out.has_custom_buckets() {
            let coarse = FloatHistogram {
                schema: lowest,
                zero_threshold: out.zero_threshold,
                ..FloatHistogram::default()
            };
            out = noted(add(&out, &coarse), remarks, "addition")?;
        }
    }
    out.reset_hint = ResetHint::Gauge;
    Some(out)
}

/// The difference of the last two histograms; for a counter that was reset, the last one itself.
pub(crate) fn instant_difference(
    before: &FloatHistogram,
    last: &FloatHistogram,
    is_counter: bool,
    remarks: &Remarks<'_>,
) -> Option<FloatHistogram> {
    if is_counter && (is_gauge(before) || is_gauge(last)) {
        not_a(remarks, "counter");
    }
    if !(is_counter || is_gauge(before) && is_gauge(last)) {
        not_a(remarks, "gauge");
    }
    let mut out = if is_counter && is_reset(before, last) {
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
