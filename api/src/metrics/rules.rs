//! Rules and alerts.

use rules::{AlertmanagerStats, GroupStatus, Stats};

use super::Page;

pub(super) fn totals(page: &mut Page, stats: &Stats) {
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
    type Figure = fn(&AlertmanagerStats) -> u64;
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
        let family = page.family(name, kind, help);
        for one in all {
            family.sample(&[("alertmanager", &one.url)], figure(one) as f64);
        }
    }
}

/// What is known of each group, under the label that Prometheus gives it: file and name.
pub(super) fn groups(page: &mut Page, groups: &[GroupStatus]) {
    type Figure = fn(&GroupStatus) -> f64;
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
        let family = page.family(name, kind, help);
        for group in groups {
            family.sample(&[("rule_group", &format!("{};{}", group.file, group.name))], figure(group));
        }
    }
}
