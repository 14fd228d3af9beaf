//! Sums and means of many histograms, compensated like those of floats.

use model::{FloatHistogram, ResetHint};

use super::buckets;
use super::combine::{Amount, Layout, align};
use crate::functions::kahan::Sum;

/// What there is to say about a sum.
pub(crate) trait Remarks {
    /// Warns.
    fn warn(&self, text: &str);
    /// Warns, naming the metric where there is one.
    fn warn_of_metric(&self, text: &str);
    /// Informs.
    fn info(&self, text: &str);
}

/// A power of two, by which to divide is exact; more histograms than this never meet.
const SCALE: f64 = 18_446_744_073_709_551_616.0;

/// Histograms that are being added up, or whose mean is being taken.
#[derive(Clone, Debug)]
pub(crate) struct Total {
    layout: Layout<Sum>,
    count: Sum,
    sum: Sum,
    /// How many came in.
    members: f64,
    /// Whether everything is held divided by [`SCALE`], because the sum would overflow.
    scaled: bool,
    hint: ResetHint,
    any_reset: bool,
    any_not_reset: bool,
    incompatible: bool,
}

impl Total {
    pub(crate) fn new(first: &FloatHistogram) -> Self {
        Self {
            layout: Layout::of(first),
            count: Sum::of(first.count),
            sum: Sum::of(first.sum),
            members: 1.0,
            scaled: false,
            hint: first.reset_hint,
            any_reset: first.reset_hint == ResetHint::Reset,
            any_not_reset: first.reset_hint == ResetHint::NotReset,
            incompatible: false,
        }
    }

    /// Takes a histogram in. `for_mean`: the sum must not overflow.
    pub(crate) fn add(&mut self, next: &FloatHistogram, for_mean: bool, remarks: &dyn Remarks) {
        self.members += 1.0;
        self.any_reset |= next.reset_hint == ResetHint::Reset;
        self.any_not_reset |= next.reset_hint == ResetHint::NotReset;
        self.hint = super::combine::joint_hint(self.hint, next.reset_hint).0;
        let custom = self.layout.schema == model::histogram::CUSTOM_BUCKETS_SCHEMA;
        if custom != next.has_custom_buckets() {
            self.incompatible = true;
            remarks.warn_of_metric(super::MIXED_SCHEMAS);
        }
        if self.incompatible {
            return;
        }
        if for_mean && !self.scaled && self.would_overflow(next) {
            self.scaled = true;
            self.divide(SCALE);
        }
        if self.scaled {
            self.take(&super::divided(next, SCALE), remarks);
        } else {
            self.take(next, remarks);
        }
    }

    fn would_overflow(&self, next: &FloatHistogram) -> bool {
        (self.count.sum + next.count).is_infinite()
            || (self.sum.sum + next.sum).is_infinite()
            || (self.layout.zero_count.sum + next.zero_count).is_infinite()
    }

    fn take(&mut self, next: &FloatHistogram, remarks: &dyn Remarks) {
        self.count.add(next.count);
        self.sum.add(next.sum);
        let mut other = Layout::<f64>::of(next);
        if align(&mut self.layout, &mut other) {
            remarks.info("mismatched custom buckets were reconciled during aggregation");
        }
        self.layout.zero_count.add(other.zero_count);
        for (mine, theirs) in
            [(&mut self.layout.positive, other.positive), (&mut self.layout.negative, other.negative)]
        {
            buckets::add_into(mine, &theirs);
        }
    }

    fn divide(&mut self, divisor: f64) {
        let layout = &mut self.layout;
        let buckets = layout.positive.iter_mut().chain(&mut layout.negative).map(|(_, amount)| amount);
        for amount in buckets.chain([&mut layout.zero_count, &mut self.count, &mut self.sum]) {
            amount.sum /= divisor;
            amount.compensation /= divisor;
        }
    }

    /// The sum; none if exponential and custom buckets were mixed.
    pub(crate) fn into_sum(self, remarks: &dyn Remarks) -> Option<FloatHistogram> {
        if self.any_reset && self.any_not_reset {
            remarks.warn("conflicting counter resets during histogram aggregation");
        }
        if self.incompatible {
            return None;
        }
        let values = |entries: buckets::Entries<Sum>| -> buckets::Entries<f64> {
            entries.into_iter().map(|(index, amount)| (index, amount.value())).collect()
        };
        let mut out = FloatHistogram {
            schema: self.layout.schema,
            zero_threshold: self.layout.zero_threshold,
            zero_count: self.layout.zero_count.value(),
            count: self.count.value(),
            sum: self.sum.value(),
            custom_values: self.layout.custom_values,
            reset_hint: self.hint,
            ..FloatHistogram::default()
        };
        buckets::set(&mut out, &values(self.layout.positive), &values(self.layout.negative));
        Some(out)
    }

    /// The mean; none if exponential and custom buckets were mixed.
    pub(crate) fn into_mean(self, remarks: &dyn Remarks) -> Option<FloatHistogram> {
        let (members, scale) = (self.members, if self.scaled { SCALE } else { 1.0 });
        self.into_sum(remarks).map(|sum| super::multiplied(&super::divided(&sum, members), scale))
    }
}
