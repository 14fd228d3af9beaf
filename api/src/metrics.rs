//! This process' own metrics, in Prometheus' text format, under Prometheus' names where the meaning is
//! the same.

use std::fmt::Write as _;

use axum::extract::State as Shared;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use model::{Quoted, float};

use crate::State;
use crate::process::Process;

/// A page under construction. Each family is written once, with its help and type.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) -> &mut Self {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}={}", if index == 0 { '{' } else { ',' }, Quoted(value));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {}", float::format_general(value));
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help).sample(name, &[], value as f64);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help).sample(name, &[], value);
    }
}

pub(crate) async fn metrics(Shared(state): Shared<State>) -> Response {
    let mut page = Page(String::with_capacity(16 << 10));
    build(&mut page, &state);
    process(&mut page, &state);
    requests(&mut page, &state);
    if let Ok(running) = state.running() {
        store(&mut page, &running.store.stats());
        scrapes(&mut page, &running.scraper.stats());
        rules(&mut page, &running.rules.stats());
        groups(&mut page, &running.rules.groups());
        senders(&mut page, &(running.senders)());
        running.cell.iter().for_each(|cell| shards(&mut page, cell));
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.0).into_response()
}

fn build(page: &mut Page, state: &State) {
    let build = &state.options().build;
    let labels = [
        ("version", build.version.as_str()),
        ("revision", &build.revision),
        ("rustversion", &build.rust_version),
    ];
    let help = "A constant 1, labelled with what was built.";
    page.family("pyrometer_build_info", "gauge", help).sample("pyrometer_build_info", &labels, 1.0);
    let name = "prometheus_build_info";
    let compatible = [
        ("version", crate::status::COMPATIBLE_VERSION),
        ("revision", build.revision.as_str()),
        ("goversion", build.rust_version.as_str()),
    ];
    page.family(name, "gauge", "A constant 1, labelled with the Prometheus release that this stands for.");
    page.sample(name, &compatible, 1.0);
    let ready = f64::from(u8::from(state.running().is_ok()));
    page.gauge("prometheus_ready", "Whether startup is over and the store can be read.", ready);
    let config = state.0.config.read().map(|config| config.clone()).unwrap_or_default();
    page.gauge(
        "prometheus_config_last_reload_successful",
        "Whether the last configuration reload attempt was successful.",
        f64::from(u8::from(config.last_reload_ok)),
    );
    page.gauge(
        "prometheus_config_last_reload_success_timestamp_seconds",
        "When the configuration in force was loaded.",
        config.loaded_ms as f64 / 1000.0,
    );
}

fn process(page: &mut Page, state: &State) {
    let process = Process::read();
    if let Some(seconds) = process.cpu_seconds {
        let name = "process_cpu_seconds_total";
        page.family(name, "counter", "User and system CPU time spent, in seconds.").sample(
            name,
            &[],
            seconds,
        );
    }
    let gauges = [
        ("process_resident_memory_bytes", "Resident memory.", process.resident_bytes.map(|n| n as f64)),
        ("process_virtual_memory_bytes", "Virtual memory.", process.virtual_bytes.map(|n| n as f64)),
        ("process_open_fds", "Open file descriptors.", process.open_files.map(|n| n as f64)),
        (
            "process_max_fds",
            "Most file descriptors that may be open.",
            process.open_files_max.map(|n| n as f64),
        ),
        ("process_threads", "Threads of the process.", process.threads.map(|n| n as f64)),
        ("process_start_time_seconds", "When the process started.", Some(state.0.started_ms as f64 / 1000.0)),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            page.gauge(name, help, value);
        }
    }
}

fn requests(page: &mut Page, state: &State) {
    let name = "prometheus_http_requests_total";
    page.family(name, "counter", "HTTP requests answered, by route and status code.");
    for (route, code, count) in state.0.requests.counts() {
        page.sample(name, &[("code", &code.to_string()), ("handler", &route)], count as f64);
    }
}

fn store(page: &mut Page, stats: &tsdb::Stats) {
    page.gauge("prometheus_tsdb_head_series", "Series in the head.", stats.head_series as f64);
    page.gauge("prometheus_tsdb_head_chunks", "Chunks in the head.", stats.head_chunks as f64);
    let seconds = |ts: Option<i64>| ts.unwrap_or(0) as f64 / 1000.0;
    page.gauge(
        "prometheus_tsdb_head_min_time_seconds",
        "Oldest sample of the head.",
        seconds(stats.head_min_ts),
    );
    page.gauge(
        "prometheus_tsdb_head_max_time_seconds",
        "Newest sample of the head.",
        seconds(stats.head_max_ts),
    );
    let name = "prometheus_tsdb_head_samples_appended_total";
    page.family(name, "counter", "Samples appended to the head.");
    page.sample(name, &[("type", "float")], stats.samples_appended as f64);
    page.counter(
        "prometheus_tsdb_out_of_order_samples_total",
        "Samples refused because their series has a later one.",
        stats.samples_out_of_order,
    );
    page.counter(
        "prometheus_tsdb_out_of_bound_samples_total",
        "Samples refused because they are older than the head takes.",
        stats.samples_out_of_bounds,
    );
    page.counter(
        "pyrometer_tsdb_duplicate_samples_total",
        "Samples refused because their series has another value at that time.",
        stats.samples_duplicate,
    );
    page.gauge(
        "prometheus_tsdb_wal_segment_current",
        "Segment the log is writing.",
        stats.wal_segment as f64,
    );
    page.gauge("prometheus_tsdb_wal_storage_size_bytes", "Size of the log.", stats.wal_bytes as f64);
    page.gauge("prometheus_tsdb_blocks_loaded", "Blocks that are open.", stats.blocks as f64);
    page.gauge("prometheus_tsdb_storage_blocks_bytes", "Size of all blocks.", stats.blocks_bytes as f64);
}

fn scrapes(page: &mut Page, stats: &scraper::Stats) {
    page.gauge("pyrometer_target_scrape_pools", "Scrape pools running.", stats.pools as f64);
    page.gauge("pyrometer_target_scrape_pool_targets", "Targets being scraped.", stats.targets as f64);
    page.gauge(
        "pyrometer_target_scrape_cache_series",
        "Series in all scrape caches.",
        stats.cached_series as f64,
    );
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

fn rules(page: &mut Page, stats: &rules::Stats) {
    for (name, help, value) in [
        ("prometheus_rule_evaluations_total", "Rules evaluated.", stats.evaluations),
        (
            "prometheus_rule_evaluation_failures_total",
            "Rules whose evaluation failed.",
            stats.evaluation_failures,
        ),
        ("pyrometer_rule_samples_total", "Samples written by rules.", stats.samples_written),
        (
            "pyrometer_rule_samples_refused_total",
            "Samples of rules that were refused.",
            stats.samples_refused,
        ),
    ] {
        page.counter(name, help, value);
    }
    let all = &stats.alertmanagers;
    let discovered = "prometheus_notifications_alertmanagers_discovered";
    page.gauge(discovered, "Alertmanagers that alerts are sent to.", all.len() as f64);
    type Figure = fn(&rules::AlertmanagerStats) -> u64;
    let figures: [(&str, &str, &str, Figure); 5] = [
        ("prometheus_notifications_sent_total", "counter", "Alerts that were taken.", |one| one.sent),
        ("prometheus_notifications_errors_total", "counter", "Requests that failed.", |one| one.errors),
        ("prometheus_notifications_dropped_total", "counter", "Alerts that were given up.", |one| {
            one.dropped
        }),
        ("prometheus_notifications_queue_length", "gauge", "Alerts that wait.", |one| one.queue_length),
        ("prometheus_notifications_queue_capacity", "gauge", "Alerts that may wait.", |one| {
            one.queue_capacity
        }),
    ];
    for (name, kind, help, figure) in figures {
        page.family(name, kind, help);
        for one in all {
            page.sample(name, &[("alertmanager", &one.url)], figure(one) as f64);
        }
    }
}

/// What is known of each group, under the label that Prometheus gives it: file and name.
fn groups(page: &mut Page, groups: &[rules::GroupStatus]) {
    type Figure = fn(&rules::GroupStatus) -> f64;
    let figures: [(&str, &str, &str, Figure); 7] = [
        ("prometheus_rule_group_iterations_total", "counter", "Evaluations that were due.", |group| {
            group.iterations as f64
        }),
        (
            "prometheus_rule_group_iterations_missed_total",
            "counter",
            "Evaluations left out because the one before took too long.",
            |group| group.iterations_missed as f64,
        ),
        ("prometheus_rule_group_interval_seconds", "gauge", "Time between two evaluations.", |group| {
            group.interval_ms as f64 / 1000.0
        }),
        ("prometheus_rule_group_last_duration_seconds", "gauge", "Length of the last evaluation.", |group| {
            group.evaluation_time_s
        }),
        (
            "prometheus_rule_group_last_evaluation_timestamp_seconds",
            "gauge",
            "Time of the last evaluation.",
            |group| group.last_evaluation.unwrap_or(0) as f64 / 1000.0,
        ),
        (
            "prometheus_rule_group_last_evaluation_samples",
            "gauge",
            "Samples of the last evaluation.",
            |group| group.last_samples as f64,
        ),
        ("prometheus_rule_group_rules", "gauge", "Rules of the group.", |group| group.rules.len() as f64),
    ];
    for (name, kind, help, figure) in figures {
        page.family(name, kind, help);
        for group in groups {
            page.sample(name, &[("rule_group", &format!("{};{}", group.file, group.name))], figure(group));
        }
    }
}

fn shards(page: &mut Page, cell: &cluster::Cell) {
    let map = cell.map();
    page.gauge("pyrometer_querier_slot_map_epoch", "The slot map in force.", map.epoch() as f64);
    page.gauge("pyrometer_querier_shards", "Shards in it.", map.shards().len() as f64);
    page.counter("pyrometer_querier_bytes_total", "Bytes that shards have answered.", cell.bytes_moved());
    let help = "Parts of queries that shards have evaluated themselves.";
    page.counter("pyrometer_querier_pushed_total", help, cell.parts_pushed());
}

fn senders(page: &mut Page, all: &[remote::send::SenderStats]) {
    type Figure = fn(&remote::send::SenderStats) -> f64;
    let figures: [(&str, &str, &str, Figure); 11] = [
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
        (
            "prometheus_remote_storage_samples_dropped_total",
            "counter",
            "Samples that were not sent.",
            |one| one.dropped as f64,
        ),
        ("prometheus_remote_storage_samples_retried_total", "counter", "Samples sent again.", |one| {
            one.retried as f64
        }),
        ("prometheus_remote_storage_bytes_total", "counter", "Bytes of requests that were taken.", |one| {
            one.bytes as f64
        }),
        ("prometheus_remote_storage_samples_pending", "gauge", "Samples under way.", |one| {
            one.pending as f64
        }),
        ("prometheus_remote_storage_shards", "gauge", "Requests that are sent at once.", |one| {
            one.shards as f64
        }),
        ("prometheus_remote_storage_highest_timestamp_in_seconds", "gauge", "Newest sample read.", |one| {
            one.newest_read as f64 / 1000.0
        }),
        (
            "prometheus_remote_storage_queue_highest_sent_timestamp_seconds",
            "gauge",
            "Newest sample taken.",
            |one| one.newest_sent as f64 / 1000.0,
        ),
    ];
    for (name, kind, help, figure) in figures.into_iter().filter(|_| !all.is_empty()) {
        page.family(name, kind, help);
        for one in all {
            page.sample(name, &[("remote_name", &one.name), ("url", &one.url)], figure(one));
        }
    }
}
