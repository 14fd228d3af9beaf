//! This process' own metrics, in Prometheus' text format, under Prometheus' names where the meaning is
//! the same.

mod page;
mod rules;
mod scrapes;
mod senders;

use axum::extract::State as Shared;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use model::regex::AnchoredRegex;

use crate::State;
use crate::envelope::{ApiError, success};
use crate::params::{Params, invalid};
use crate::process::Process;
use page::Page;

pub(crate) async fn metrics(Shared(state): Shared<State>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, page(&state).text()).into_response()
}

/// `status/self_metrics`: the same as JSON.
pub(crate) async fn self_metrics(Shared(state): Shared<State>, params: Params) -> Result<Response, ApiError> {
    let pattern = params.get("metric_name_pattern").filter(|pattern| !pattern.is_empty());
    let pattern = pattern.map(AnchoredRegex::new).transpose();
    let pattern = pattern.map_err(|error| invalid("metric_name_pattern", &error.to_string()))?;
    Ok(success(&page(&state).json(|name| pattern.as_ref().is_none_or(|pattern| pattern.is_match(name)))))
}

fn page(state: &State) -> Page {
    let mut page = Page::default();
    build(&mut page, state);
    process(&mut page, state);
    requests(&mut page, state);
    queries(&mut page, state);
    if let Ok(running) = state.running() {
        store(&mut page, &running.store.stats());
        let lowest = running.store.min_ts().unwrap_or(0) as f64;
        page.gauge("prometheus_tsdb_lowest_timestamp", "Oldest sample, in milliseconds.", lowest);
        page.gauge("prometheus_tsdb_lowest_timestamp_seconds", "Oldest sample.", lowest / 1000.0);
        scrapes::totals(&mut page, &running.scraper.stats());
        scrapes::pools(&mut page, &running.scraper.pools());
        rules::totals(&mut page, &running.rules.stats());
        rules::groups(&mut page, &running.rules.groups());
        senders::all(&mut page, &(running.senders)());
        running.cell.iter().for_each(|cell| shards(&mut page, cell));
    }
    for figure in
        state.0.figures.read().iter().flat_map(|figures| figures.iter()).flat_map(|figures| figures())
    {
        page.family(figure.name, figure.kind, figure.help).sample(&[], figure.value);
    }
    page
}

fn build(page: &mut Page, state: &State) {
    let build = &state.options().build;
    let labels = [
        ("version", build.version.as_str()),
        ("revision", &build.revision),
        ("rustversion", &build.rust_version),
    ];
    let help = "A constant 1, labelled with what was built.";
    page.family("pyrometer_build_info", "gauge", help).sample(&labels, 1.0);
    let name = "prometheus_build_info";
    let compatible = [
        ("version", crate::status::COMPATIBLE_VERSION),
        ("revision", build.revision.as_str()),
        ("goversion", build.rust_version.as_str()),
    ];
    let family = page.family(
        name,
        "gauge",
        "A constant 1, labelled with the Prometheus release that this stands for.",
    );
    family.sample(&compatible, 1.0);
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
        page.family(name, "counter", "User and system CPU time spent, in seconds.").sample(&[], seconds);
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
    let family = page.family(name, "counter", "HTTP requests answered, by route and status code.");
    for (route, code, count) in state.0.requests.counts() {
        family.sample(&[("code", &code.to_string()), ("handler", &route)], count as f64);
    }
}

/// The engine, under the names that dashboards of Prometheus know.
fn queries(page: &mut Page, state: &State) {
    let stats = state.options().engine.stats();
    page.gauge("prometheus_engine_queries", "Queries being evaluated.", stats.running as f64);
    let most = "prometheus_engine_queries_concurrent_max";
    page.gauge(most, "Queries that may be evaluated at once.", stats.concurrency as f64);
    page.counter("prometheus_engine_query_samples_total", "Samples read by queries.", stats.samples);
    let logged = f64::from(u8::from(state.query_log().is_on()));
    page.gauge("prometheus_engine_query_log_enabled", "Whether queries are logged.", logged);
    let name = "prometheus_engine_query_duration_seconds";
    let family = page.family(name, "summary", "Time that queries took.");
    for (slice, time) in [("inner_eval", stats.elapsed), ("queue_time", stats.queued)] {
        family.part("_sum", &[("slice", slice)], time.as_secs_f64());
        family.part("_count", &[("slice", slice)], stats.queries as f64);
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

fn store(page: &mut Page, stats: &tsdb::Stats) {
    page.gauge("prometheus_tsdb_head_series", "Series in the head.", stats.head_series as f64);
    page.gauge("prometheus_tsdb_head_chunks", "Chunks in the head.", stats.head_chunks as f64);
    let seconds = |ts: Option<i64>| ts.unwrap_or(0) as f64 / 1000.0;
    for (name, help, ts) in [
        ("prometheus_tsdb_head_min_time", "Oldest sample of the head, in milliseconds.", stats.head_min_ts),
        ("prometheus_tsdb_head_max_time", "Newest sample of the head, in milliseconds.", stats.head_max_ts),
    ] {
        page.gauge(name, help, ts.unwrap_or(0) as f64);
    }
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
    let family = page.family(name, "counter", "Samples appended to the head.");
    family.sample(&[("type", "float")], stats.samples_appended as f64);
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
    page.gauge(
        "pyrometer_tsdb_samples_not_durable",
        "Samples that wait for space on a full disk.",
        stats.samples_not_durable as f64,
    );
    page.gauge("prometheus_tsdb_blocks_loaded", "Blocks that are open.", stats.blocks as f64);
    page.gauge("prometheus_tsdb_storage_blocks_bytes", "Size of all blocks.", stats.blocks_bytes as f64);
}
