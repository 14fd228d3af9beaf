//! What the scraper tells about itself: plain data, taken at one moment.

use model::{Labels, Timestamp};

use crate::exposition::MetricType;

/// Whether the last scrape of a target succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// It has not been scraped yet.
    #[default]
    Unknown,
    /// It succeeded.
    Up,
    /// It failed.
    Down,
}

impl Health {
    /// The word of the HTTP API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// One target that is being scraped.
#[derive(Clone, Debug)]
pub struct TargetStatus {
    /// The job.
    pub pool: String,
    /// Labels before relabelling.
    pub discovered_labels: Labels,
    /// Labels of its series.
    pub labels: Labels,
    /// What is fetched.
    pub url: String,
    /// Why the last scrape failed, if it did.
    pub last_error: Option<String>,
    /// When the last scrape began.
    pub last_scrape: Option<Timestamp>,
    /// How long the last scrape took, in seconds.
    pub last_duration_s: f64,
    /// The outcome of the last scrape.
    pub health: Health,
    /// Its interval.
    pub interval_ms: i64,
    /// Its timeout.
    pub timeout_ms: i64,
    /// Samples of the last successful page.
    pub last_samples: u64,
    /// Bytes of the last page, uncompressed.
    pub last_body_bytes: u64,
    /// Series in the scrape cache.
    pub series: u64,
}

/// What is known of a job as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// The job.
    pub name: String,
    /// Targets being scraped.
    pub targets: u64,
    /// The most there may be; 0 for no limit.
    pub targets_max: u64,
    /// Targets that relabelling dropped.
    pub dropped: u64,
    /// Series in its scrape caches.
    pub cached_series: u64,
    /// How targets are looked for, with how often that failed; fixed ones are not among them.
    pub discoveries: Vec<(&'static str, u64)>,
}

/// A target that relabelling dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedTarget {
    /// The job.
    pub pool: String,
    /// Labels before relabelling.
    pub discovered_labels: Labels,
}

/// All targets at one moment, jobs in the order of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Those that are scraped.
    pub active: Vec<TargetStatus>,
    /// Those that relabelling dropped, up to the job's limit.
    pub dropped: Vec<DroppedTarget>,
    /// How many relabelling dropped, by job.
    pub dropped_counts: Vec<(String, u64)>,
}

/// What a page says about one metric family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyMetadata {
    /// The family's name.
    pub family: String,
    /// Its type.
    pub metric_type: MetricType,
    /// Its help text.
    pub help: String,
    /// Its unit.
    pub unit: String,
}

/// The families of one target.
#[derive(Clone, Debug)]
pub struct TargetMetadata {
    /// The job.
    pub pool: String,
    /// Labels of the target's series.
    pub labels: Labels,
    /// Its families, ascending by name.
    pub families: Vec<FamilyMetadata>,
}

/// Counters since the start, for `prometheus_target_*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Scrapes begun.
    pub scrapes: u64,
    /// Scrapes that failed, for whatever reason.
    pub scrapes_failed: u64,
    /// Scrapes that could not begin in time because the one before still ran.
    pub scrapes_missed: u64,
    /// Scrapes refused for their body size.
    pub exceeded_body_size: u64,
    /// Scrapes refused for their number of samples.
    pub exceeded_sample_limit: u64,
    /// Scrapes refused for a label limit.
    pub exceeded_label_limit: u64,
    /// Scrapes refused for the number of buckets of a native histogram.
    pub exceeded_bucket_limit: u64,
    /// Scrapes refused because their job has too many targets.
    pub exceeded_target_limit: u64,
    /// Samples stored.
    pub samples: u64,
    /// Bytes of pages, uncompressed.
    pub body_bytes: u64,
    /// Samples dropped because their series has one at that time already.
    pub samples_duplicate: u64,
    /// Samples dropped because their series has a later one.
    pub samples_out_of_order: u64,
    /// Samples dropped because they are too old or too far ahead.
    pub samples_out_of_bounds: u64,
    /// Samples dropped because the store takes no more series.
    pub samples_series_limit: u64,
    /// Native histograms dropped because they contradict themselves, or the store takes none.
    pub samples_invalid_histogram: u64,
    /// Commits that the store refused.
    pub commits_failed: u64,
    /// Configurations applied after the first.
    pub reloads: u64,
}
