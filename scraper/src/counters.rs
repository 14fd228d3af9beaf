//! Counters of the scraper since its start.

use std::sync::atomic::{AtomicU64, Ordering};

use tsdb::AppendError;

use crate::status::Stats;

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) scrapes: Counter,
    pub(crate) scrapes_failed: Counter,
    pub(crate) scrapes_missed: Counter,
    pub(crate) exceeded_body_size: Counter,
    pub(crate) exceeded_sample_limit: Counter,
    pub(crate) exceeded_label_limit: Counter,
    pub(crate) exceeded_target_limit: Counter,
    pub(crate) exceeded_bucket_limit: Counter,
    pub(crate) samples: Counter,
    pub(crate) body_bytes: Counter,
    pub(crate) samples_duplicate: Counter,
    pub(crate) samples_out_of_order: Counter,
    pub(crate) samples_out_of_bounds: Counter,
    pub(crate) samples_series_limit: Counter,
    pub(crate) samples_invalid_histogram: Counter,
    pub(crate) commits_failed: Counter,
    pub(crate) reloads: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// Counts a sample that the store refused.
    pub(crate) fn refuse(&self, error: AppendError) {
        let counter = match error {
            AppendError::Duplicate => &self.samples_duplicate,
            AppendError::OutOfOrder => &self.samples_out_of_order,
            AppendError::OutOfBounds | AppendError::TooOld => &self.samples_out_of_bounds,
            AppendError::SeriesLimit => &self.samples_series_limit,
            AppendError::InvalidHistogram => &self.samples_invalid_histogram,
            // No exemplar is appended, and a series that is gone is looked up again.
            AppendError::UnknownSeries | AppendError::InvalidExemplar => return,
        };
        counter.add(1);
    }

    /// The counters.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            scrapes: self.scrapes.get(),
            scrapes_failed: self.scrapes_failed.get(),
            scrapes_missed: self.scrapes_missed.get(),
            exceeded_body_size: self.exceeded_body_size.get(),
            exceeded_sample_limit: self.exceeded_sample_limit.get(),
            exceeded_label_limit: self.exceeded_label_limit.get(),
            exceeded_bucket_limit: self.exceeded_bucket_limit.get(),
            exceeded_target_limit: self.exceeded_target_limit.get(),
            samples: self.samples.get(),
            body_bytes: self.body_bytes.get(),
            samples_duplicate: self.samples_duplicate.get(),
            samples_out_of_order: self.samples_out_of_order.get(),
            samples_out_of_bounds: self.samples_out_of_bounds.get(),
            samples_series_limit: self.samples_series_limit.get(),
            samples_invalid_histogram: self.samples_invalid_histogram.get(),
            commits_failed: self.commits_failed.get(),
            reloads: self.reloads.get(),
        }
    }
}
