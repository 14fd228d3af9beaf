//! Accumulators: what a group holds for each step.

use std::sync::Arc;

use model::{FloatHistogram, Value};

use super::Remarks;
use crate::eval::column::{Column, is_absent};
use crate::functions::kahan;
use crate::histogram::total::Remarks as _;
use crate::histogram::total::Total;

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

/// Floats and histograms side by side; a mixture has no result.
#[derive(Clone, Default)]
struct Both<F> {
    floats: F,
    any_floats: bool,
    histograms: Option<Box<Total>>,
}

impl<F> Both<F> {
    fn add_histogram(&mut self, value: &FloatHistogram, for_mean: bool, remarks: &Remarks<'_>) {
        match &mut self.histograms {
            Some(total) => total.add(value, for_mean, remarks),
            None => self.histograms = Some(Box::new(Total::new(value))),
        }
    }

    fn finish(
        self,
        remarks: &Remarks<'_>,
        floats: impl FnOnce(F) -> f64,
        histograms: impl FnOnce(Total) -> Option<FloatHistogram>,
    ) -> Option<Value> {
        match (self.any_floats, self.histograms) {
            (true, Some(_)) => {
                remarks.warn("encountered a mix of histograms and floats for aggregation");
                None
            }
            (true, None) => Some(Value::Float(floats(self.floats))),
            (false, Some(total)) => histograms(*total).map(|h| Value::Histogram(Arc::new(h))),
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
        self.0.add_histogram(value, false, remarks);
    }

    fn finish(self, remarks: &Remarks<'_>) -> Option<Value> {
        self.0.finish(remarks, kahan::Sum::value, |total| total.into_sum(remarks))
    }
}

/// What a sum is made of, before it is rounded: for sums that are put together from several stores.
#[derive(Clone, Default)]
pub(super) struct Parts {
    pub(super) sum: kahan::Sum,
    pub(super) any_floats: bool,
    pub(super) histograms: Option<Box<Total>>,
    pub(super) count: u64,
}

impl Accumulator for Parts {
    fn add(&mut self, value: f64) {
        self.any_floats = true;
        self.count += 1;
        self.sum.add(value);
    }

    fn add_histogram(&mut self, value: &Arc<FloatHistogram>, remarks: &Remarks<'_>) {
        self.count += 1;
        match &mut self.histograms {
            Some(total) => total.add(value, false, remarks),
            None => self.histograms = Some(Box::new(Total::new(value))),
        }
    }

    fn finish(self, _: &Remarks<'_>) -> Option<Value> {
        None
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
        self.0.add_histogram(value, true, remarks);
    }

    fn finish(self, remarks: &Remarks<'_>) -> Option<Value> {
        self.0.finish(remarks, kahan::Mean::value, |total| total.into_mean(remarks))
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

/// Welford's variance. Over series, other than over time, the reference does not compensate it.
#[derive(Clone)]
struct Spread {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Spread {
    fn of(first: f64) -> Self {
        Self { count: 1.0, mean: first, squares: if first.is_finite() { 0.0 } else { f64::NAN } }
    }

    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (value - self.mean);
    }
}

macro_rules! spread {
    ($name:ident, $word:literal, $of_variance:expr) => {
        #[doc = concat!("`", $word, "`")]
        #[derive(Clone, Default)]
        pub(super) struct $name(Option<Spread>);

        impl Accumulator for $name {
            fn add(&mut self, value: f64) {
                match &mut self.0 {
                    Some(spread) => spread.add(value),
                    None => self.0 = Some(Spread::of(value)),
                }
            }

            fn add_histogram(&mut self, _: &Arc<FloatHistogram>, remarks: &Remarks<'_>) {
                ignored(remarks, $word);
            }

            fn finish(self, _: &Remarks<'_>) -> Option<Value> {
                let of_variance: fn(f64) -> f64 = $of_variance;
                self.0.map(|spread| Value::Float(of_variance(spread.squares / spread.count)))
            }
        }
    };
}

spread!(Stdvar, "stdvar", |variance| variance);
spread!(Stddev, "stddev", f64::sqrt);
