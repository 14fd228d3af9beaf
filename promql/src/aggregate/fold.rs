//! Accumulators: what a group holds for each step.

use std::sync::Arc;

use model::{FloatHistogram, ResetHint, Value};

use super::Remarks;
use crate::eval::column::{Column, is_absent};
use crate::functions::kahan;
use crate::histogram;

/// The state of one group at one step.
pub(super) trait Accumulator: Clone + Default + Send {
    /// Takes a float in.
    fn add(&mut self, value: f64);

    /// Takes a histogram in.
    fn add_histogram(&mut self, value: &Arc<FloatHistogram>, remarks: &Remarks<'_>);

    /// The result; none if nothing came in.
    fn finish(self, remarks: &Remarks<'_>) -> Option<Value>;

    /// Takes a series in.
    fn fold(steps: &mut [Self], column: &Column, remarks: &Remarks<'_>) {
        for (accumulator, cell) in steps.iter_mut().zip(column.floats()) {
            if !is_absent(*cell) {
                accumulator.add(*cell);
            }
        }
        for (step, histogram) in column.histograms() {
            steps[*step].add_histogram(histogram, remarks);
        }
    }
}

/// Histograms that were summed up.
#[derive(Clone, Debug)]
struct HistogramSum {
    sum: FloatHistogram,
    count: f64,
    /// Whether the counter of some was reset, and of some not.
    reset: bool,
    not_reset: bool,
    incompatible: bool,
}

impl HistogramSum {
    fn new(first: &FloatHistogram) -> Self {
        Self {
            sum: first.clone(),
            count: 1.0,
            reset: first.reset_hint == ResetHint::Reset,
            not_reset: first.reset_hint == ResetHint::NotReset,
            incompatible: false,
        }
    }

    fn add(&mut self, next: &FloatHistogram, remarks: &Remarks<'_>) {
        self.count += 1.0;
        self.reset |= next.reset_hint == ResetHint::Reset;
        self.not_reset |= next.reset_hint == ResetHint::NotReset;
        match histogram::add(&self.sum, next) {
            Ok(combined) => {
                if combined.bounds_differed {
                    remarks.info("mismatched custom buckets were reconciled during aggregation");
                }
                self.sum = combined.histogram;
            }
            Err(histogram::Incompatible) => {
                self.incompatible = true;
                remarks
                    .warn("vector contains a mix of histograms with exponential and custom buckets schemas");
            }
        }
    }

    fn finish(self, remarks: &Remarks<'_>) -> Option<(FloatHistogram, f64)> {
        if self.reset && self.not_reset {
            remarks.warn("conflicting counter resets during histogram aggregation");
        }
        (!self.incompatible).then_some((self.sum, self.count))
    }
}

/// Floats and histograms side by side; a mixture has no result.
#[derive(Clone, Default)]
struct Both<F> {
    floats: F,
    any_floats: bool,
    histograms: Option<Box<HistogramSum>>,
}

impl<F> Both<F> {
    fn add_histogram(&mut self, value: &FloatHistogram, remarks: &Remarks<'_>) {
        match &mut self.histograms {
            Some(sum) => sum.add(value, remarks),
            None => self.histograms = Some(Box::new(HistogramSum::new(value))),
        }
    }

    fn finish(
        self,
        remarks: &Remarks<'_>,
        floats: impl FnOnce(F) -> f64,
        histograms: impl FnOnce(FloatHistogram, f64) -> FloatHistogram,
    ) -> Option<Value> {
        match (self.any_floats, self.histograms) {
            (true, Some(_)) => {
                remarks.warn("encountered a mix of histograms and floats for aggregation");
                None
            }
            (true, None) => Some(Value::Float(floats(self.floats))),
            (false, Some(sum)) => {
                let (sum, count) = sum.finish(remarks)?;
                Some(Value::Histogram(Arc::new(histograms(sum, count))))
            }
            (false, None) => None,
        }
    }
}

/// `sum`
#[derive(Clone, Default)]
pub(super) struct Sum(Both<kahan::Sum>);

impl Accumulator for Sum {
    fn add(&mut self, value: f64) {
        self.0.any_floats = true;
        self.0.floats.add(value);
    }

    fn add_histogram(&mut self, value: &Arc<FloatHistogram>, remarks: &Remarks<'_>) {
        self.0.add_histogram(value, remarks);
    }

    fn finish(self, remarks: &Remarks<'_>) -> Option<Value> {
        self.0.finish(remarks, kahan::Sum::value, |sum, _| sum)
    }
}

/// `avg`
#[derive(Clone, Default)]
pub(super) struct Avg(Both<kahan::Mean>);

impl Accumulator for Avg {
    fn add(&mut self, value: f64) {
        self.0.any_floats = true;
        self.0.floats.add(value);
    }

    fn add_histogram(&mut self, value: &Arc<FloatHistogram>, remarks: &Remarks<'_>) {
        self.0.add_histogram(value, remarks);
    }

    fn finish(self, remarks: &Remarks<'_>) -> Option<Value> {
        self.0.finish(remarks, kahan::Mean::value, |sum, count| histogram::divided(&sum, count))
    }
}

/// Says that histograms are left out of an aggregation.
fn ignored(remarks: &Remarks<'_>, aggregation: &str) {
    remarks.info(&format!("ignored histogram in {aggregation} aggregation"));
}

macro_rules! extreme {
    ($name:ident, $word:literal, $wins:expr) => {
        #[doc = concat!("`", $word, "`; NaN only if there is nothing else.")]
        #[derive(Clone, Default)]
        pub(super) struct $name(Option<f64>);

        impl Accumulator for $name {
            fn add(&mut self, value: f64) {
                let wins: fn(f64, f64) -> bool = $wins;
                if self.0.is_none_or(|old| old.is_nan() || wins(value, old)) {
                    self.0 = Some(value);
                }
            }

            fn add_histogram(&mut self, _: &Arc<FloatHistogram>, remarks: &Remarks<'_>) {
                ignored(remarks, $word);
            }

            fn finish(self, _: &Remarks<'_>) -> Option<Value> {
                self.0.map(Value::Float)
            }
        }
    };
}

extreme!(Min, "min", |new, old| new < old);
extreme!(Max, "max", |new, old| new > old);

/// `count`
#[derive(Clone, Default)]
pub(super) struct Count(u64);

impl Accumulator for Count {
    fn add(&mut self, _: f64) {
        self.0 += 1;
    }

    fn add_histogram(&mut self, _: &Arc<FloatHistogram>, _: &Remarks<'_>) {
        self.0 += 1;
    }

    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 series")]
    fn finish(self, _: &Remarks<'_>) -> Option<Value> {
        (self.0 > 0).then_some(Value::Float(self.0 as f64))
    }
}

/// `group`
#[derive(Clone, Default)]
pub(super) struct Group(bool);

impl Accumulator for Group {
    fn add(&mut self, _: f64) {
        self.0 = true;
    }

    fn add_histogram(&mut self, _: &Arc<FloatHistogram>, _: &Remarks<'_>) {
        self.0 = true;
    }

    fn finish(self, _: &Remarks<'_>) -> Option<Value> {
        self.0.then_some(Value::Float(1.0))
    }
}

macro_rules! spread {
    ($name:ident, $word:literal, $of_variance:expr) => {
        #[doc = concat!("`", $word, "`")]
        #[derive(Clone, Default)]
        pub(super) struct $name(Option<kahan::Variance>);

        impl Accumulator for $name {
            fn add(&mut self, value: f64) {
                self.0.get_or_insert_default().add(value);
            }

            fn add_histogram(&mut self, _: &Arc<FloatHistogram>, remarks: &Remarks<'_>) {
                ignored(remarks, $word);
            }

            fn finish(self, _: &Remarks<'_>) -> Option<Value> {
                let of_variance: fn(f64) -> f64 = $of_variance;
                self.0.map(|variance| Value::Float(of_variance(variance.value())))
            }
        }
    };
}

spread!(Stdvar, "stdvar", |variance| variance);
spread!(Stddev, "stddev", f64::sqrt);
