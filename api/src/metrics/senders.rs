//! Remote write.

use remote::send::SenderStats;

use super::Page;

type Figure = fn(&SenderStats) -> f64;

/// Name, kind, meaning and value of what is told of each destination.
const FIGURES: &[(&str, &str, &str, Figure)] = &[
    ("prometheus_remote_storage_samples_total", "counter", "Samples that were taken.", |one| {
        one.samples as f64
    }),
    ("prometheus_remote_storage_histograms_total", "counter", "Histograms that were taken.", |one| {
        one.histograms as f64
    }),
    ("prometheus_remote_storage_exemplars_total", "counter", "Exemplars that were taken.", |one| {
        one.exemplars as f64
    }),
    ("prometheus_remote_storage_samples_failed_total", "counter", "Samples refused for good.", |one| {
        one.failed as f64
    }),
    ("prometheus_remote_storage_samples_dropped_total", "counter", "Samples that were not sent.", |one| {
        one.dropped as f64
    }),
    ("prometheus_remote_storage_samples_retried_total", "counter", "Samples sent again.", |one| {
        one.retried as f64
    }),
    ("prometheus_remote_storage_metadata_total", "counter", "Families whose metadata was taken.", |one| {
        one.metadata as f64
    }),
    (
        "prometheus_remote_storage_metadata_failed_total",
        "counter",
        "Families whose metadata was refused for good.",
        |one| one.metadata_failed as f64,
    ),
    (
        "prometheus_remote_storage_metadata_retried_total",
        "counter",
        "Families whose metadata was sent again.",
        |one| one.metadata_retried as f64,
    ),
    ("prometheus_remote_storage_bytes_total", "counter", "Bytes of requests that were taken.", |one| {
        one.bytes as f64
    }),
    ("prometheus_remote_storage_samples_pending", "gauge", "Samples under way.", |one| one.pending as f64),
    ("prometheus_remote_storage_shards", "gauge", "Requests that are sent at once.", |one| one.shards as f64),
    ("prometheus_remote_storage_shards_min", "gauge", "Fewest requests that are sent at once.", |one| {
        one.queue.shards_min as f64
    }),
    ("prometheus_remote_storage_shards_max", "gauge", "Most requests that are sent at once.", |one| {
        one.queue.shards_max as f64
    }),
    ("prometheus_remote_storage_shard_capacity", "gauge", "Samples that may wait in a shard.", |one| {
        one.queue.capacity as f64
    }),
    ("prometheus_remote_storage_queue_highest_timestamp_seconds", "gauge", "Newest sample read.", |one| {
        one.newest_read as f64 / 1000.0
    }),
    (
        "prometheus_remote_storage_queue_highest_sent_timestamp_seconds",
        "gauge",
        "Newest sample taken.",
        |one| one.newest_sent as f64 / 1000.0,
    ),
];

pub(super) fn all(page: &mut Page, all: &[SenderStats]) {
    let newest = all.iter().map(|one| one.newest_read).max();
    if let Some(newest) = newest {
        let name = "prometheus_remote_storage_highest_timestamp_in_seconds";
        page.gauge(name, "Newest sample read for any destination.", newest as f64 / 1000.0);
    }
    for (name, kind, help, figure) in FIGURES.iter().filter(|_| !all.is_empty()) {
        let family = page.family(name, kind, help);
        for one in all {
            family.sample(&[("remote_name", &one.name), ("url", &one.url)], figure(one));
        }
    }
}
