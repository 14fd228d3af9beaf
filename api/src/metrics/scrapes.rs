//! Targets and where they come from.

use scraper::{PoolStatus, Stats};

use super::Page;

pub(super) fn totals(page: &mut Page, stats: &Stats) {
    for (name, help, value) in [
        ("pyrometer_target_scrapes_total", "Scrapes begun.", stats.scrapes),
        ("pyrometer_target_scrapes_failed_total", "Scrapes that failed.", stats.scrapes_failed),
        (
            "pyrometer_target_scrapes_missed_total",
            "Scrapes that could not begin in time because the one before still ran.",
            stats.scrapes_missed,
        ),
        ("pyrometer_target_scrape_samples_total", "Samples stored by scrapes.", stats.samples),
        (
            "pyrometer_target_scrape_body_bytes_total",
            "Bytes of scraped pages, uncompressed.",
            stats.body_bytes,
        ),
        (
            "prometheus_target_scrapes_exceeded_body_size_limit_total",
            "Scrapes refused for their body size.",
            stats.exceeded_body_size,
        ),
        (
            "prometheus_target_scrapes_exceeded_sample_limit_total",
            "Scrapes refused for their number of samples.",
            stats.exceeded_sample_limit,
        ),
        (
            "prometheus_target_scrape_pool_exceeded_label_limits_total",
            "Scrapes refused for the labels of a series.",
            stats.exceeded_label_limit,
        ),
        (
            "prometheus_target_scrape_pool_exceeded_target_limit_total",
            "Scrapes refused because their job has too many targets.",
            stats.exceeded_target_limit,
        ),
        (
            "pyrometer_target_scrapes_exceeded_bucket_limit_total",
            "Scrapes refused for the buckets of a native histogram.",
            stats.exceeded_bucket_limit,
        ),
        (
            "prometheus_target_scrapes_sample_duplicate_timestamp_total",
            "Scraped samples dropped because their series has another value at that time.",
            stats.samples_duplicate,
        ),
        (
            "prometheus_target_scrapes_sample_out_of_order_total",
            "Scraped samples dropped because their series has a later one.",
            stats.samples_out_of_order,
        ),
        (
            "prometheus_target_scrapes_sample_out_of_bounds_total",
            "Scraped samples dropped because they are too old or too far ahead.",
            stats.samples_out_of_bounds,
        ),
        (
            "prometheus_target_scrape_pool_reloads_total",
            "Configurations applied after the first.",
            stats.reloads,
        ),
    ] {
        page.counter(name, help, value);
    }
}

/// What is known of each job.
pub(super) fn pools(page: &mut Page, pools: &[PoolStatus]) {
    page.gauge("pyrometer_target_scrape_pools", "Scrape pools running.", pools.len() as f64);
    let series: u64 = pools.iter().map(|pool| pool.cached_series).sum();
    page.gauge("pyrometer_target_scrape_cache_series", "Series in all scrape caches.", series as f64);
    type Figure = fn(&PoolStatus) -> u64;
    let figures: [(&str, &str, Figure); 3] = [
        ("prometheus_target_scrape_pool_targets", "Targets being scraped.", |pool| pool.targets),
        ("prometheus_target_scrape_pool_target_limit", "Most targets, 0 for no limit.", |pool| {
            pool.targets_max
        }),
        ("prometheus_target_metadata_cache_entries", "Series in scrape caches.", |pool| pool.cached_series),
    ];
    for (name, help, figure) in figures {
        let family = page.family(name, "gauge", help);
        for pool in pools {
            family.sample(&[("scrape_job", &pool.name)], figure(pool) as f64);
        }
    }
    let name = "prometheus_sd_discovered_targets";
    let family = page.family(name, "gauge", "Targets before relabelling.");
    for pool in pools {
        let found = pool.targets + pool.dropped;
        family.sample(&[("config", &pool.name), ("name", "scrape")], found as f64);
    }
    let name = "prometheus_sd_refresh_failures_total";
    let family = page.family(name, "counter", "Times that targets could not be looked for.");
    for pool in pools {
        for (mechanism, failures) in &pool.discoveries {
            family.sample(&[("config", &pool.name), ("mechanism", mechanism)], *failures as f64);
        }
    }
}
