//! The router's own metrics.

use std::fmt::Write as _;

use remote::router::{RouterStats, TargetStats};

/// The page in the text format 0.0.4.
pub(super) fn router_page(stats: &RouterStats) -> String {
    let mut page = String::new();
    let one = [
        ("slot_map_epoch", "gauge", "The slot map in force.", stats.epoch),
        ("requests_total", "counter", "Remote-write requests that came.", stats.requests),
        ("samples_total", "counter", "Samples of all kinds in them.", stats.samples),
        (
            "duplicates_total",
            "counter",
            "Samples of writers of pairs that are not listened to.",
            stats.duplicates,
        ),
        ("unavailable_total", "counter", "Requests that nobody could keep.", stats.unavailable),
    ];
    for (name, kind, help, value) in one {
        head(&mut page, name, kind, help);
        let _ = writeln!(page, "pyrometer_router_{name} {value}");
    }
    type Read = fn(&TargetStats) -> u64;
    let many: [(&str, &str, &str, Read); 10] = [
        ("shard_up", "gauge", "Whether the shard takes samples.", |target| target.up.into()),
        ("shard_requests_total", "counter", "Requests that the shard took.", |target| target.requests),
        ("shard_samples_total", "counter", "Samples that the shard took.", |target| target.samples),
        ("shard_bytes_total", "counter", "Bytes of requests that the shard took.", |target| target.bytes),
        ("shard_refused_total", "counter", "Samples that the shard refused for good.", |target| {
            target.refused
        }),
        ("shard_failures_total", "counter", "Attempts to send to the shard that failed.", |target| {
            target.failed
        }),
        ("spooled_samples_total", "counter", "Samples that were kept for the shard.", |target| {
            target.spooled
        }),
        ("drained_samples_total", "counter", "Samples that the shard took later.", |target| target.drained),
        ("spool_lost_samples_total", "counter", "Samples that the disk did not give back.", |target| {
            target.lost
        }),
        ("spool_bytes", "gauge", "Bytes that wait for the shard.", |target| target.spool.bytes),
    ];
    for (name, kind, help, read) in many {
        head(&mut page, name, kind, help);
        for target in &stats.targets {
            let _ = writeln!(page, "pyrometer_router_{name}{{shard=\"{}\"}} {}", target.shard, read(target));
        }
    }
    page
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(page, "# HELP pyrometer_router_{name} {help}\n# TYPE pyrometer_router_{name} {kind}");
}
