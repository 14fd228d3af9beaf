//! `/stats/summary`: the kubelet's JSON.

use serde_json::{Map, Value, json};

use crate::cgroup::{Memory, Usage};
use crate::sample::{ContainerUse, PodUse, Sample};
use crate::{Agent, Look};

/// The document. `brief` leaves out all but CPU and memory.
pub(crate) fn build(agent: &Agent, look: &Look, brief: bool) -> Value {
    let at = rfc3339(look.latest.at_ms);
    let previous = look.previous.as_deref();
    let window_ms = previous.map_or(0, |previous| look.latest.at_ms - previous.at_ms);
    let node = &look.latest.node;
    let usage = Usage { cpu_ns: node.cpu_ns, memory: node.memory, ..Usage::default() };
    let rate = previous.and_then(|previous| nano_cores(node.cpu_ns, previous.node.cpu_ns, window_ms));
    let mut body = Map::new();
    body.insert("nodeName".into(), json!(agent.node_name()));
    body.insert("startTime".into(), json!(rfc3339(agent.machine().boot_time_ms)));
    body.insert("cpu".into(), cpu(&at, &usage, rate));
    body.insert("memory".into(), memory(&at, &usage.memory));
    if !brief {
        body.insert("swap".into(), json!({ "time": at, "swapUsageBytes": node.memory.swap }));
        body.insert("network".into(), network(&at, &look.latest));
        let pids = json!({ "time": at, "curproc": node.threads });
        body.insert("rlimit".into(), pids);
    }
    let pods: Vec<Value> =
        look.latest.pods.iter().map(|each| pod(&at, each, previous, window_ms, brief)).collect();
    json!({ "node": body, "pods": pods })
}

fn pod(at: &str, pod: &PodUse, previous: Option<&Sample>, window_ms: i64, brief: bool) -> Value {
    let before = previous.and_then(|previous| {
        previous.pods.iter().find(|other| other.namespace == pod.namespace && other.name == pod.name)
    });
    let containers: Vec<Value> = pod
        .containers
        .iter()
        .map(|each| {
            let before =
                before.and_then(|before| before.containers.iter().find(|other| other.name == each.name));
            container(at, each, before, window_ms, brief)
        })
        .collect();
    let usage = Usage { cpu_ns: pod.total(|usage| usage.cpu_ns), ..Usage::default() };
    let total = |of: fn(&Memory) -> u64| pod.total(|usage| of(&usage.memory));
    let sum = Memory {
        usage: total(|m| m.usage),
        working_set: total(|m| m.working_set),
        rss: total(|m| m.rss),
        page_faults: total(|m| m.page_faults),
        major_page_faults: total(|m| m.major_page_faults),
        ..Memory::default()
    };
    let rate =
        before.and_then(|before| nano_cores(usage.cpu_ns, before.total(|usage| usage.cpu_ns), window_ms));
    let mut body = Map::new();
    let reference = json!({ "name": pod.name, "namespace": pod.namespace, "uid": pod.uid });
    body.insert("podRef".into(), reference);
    body.insert("startTime".into(), json!(rfc3339(pod.start_ms())));
    body.insert("containers".into(), json!(containers));
    body.insert("cpu".into(), cpu(at, &usage, rate));
    body.insert("memory".into(), memory(at, &sum));
    if !brief {
        let processes: u64 = pod.containers.iter().map(|container| container.processes).sum();
        body.insert("process_stats".into(), json!({ "process_count": processes }));
        body.insert("swap".into(), json!({ "time": at, "swapUsageBytes": total(|m| m.swap) }));
    }
    Value::Object(body)
}

fn container(
    at: &str,
    container: &ContainerUse,
    before: Option<&ContainerUse>,
    window_ms: i64,
    brief: bool,
) -> Value {
    let usage = &container.usage;
    let rate = before.and_then(|before| nano_cores(usage.cpu_ns, before.usage.cpu_ns, window_ms));
    let mut body = json!({
        "name": container.name,
        "startTime": rfc3339(container.start_ms),
        "cpu": cpu(at, usage, rate),
        "memory": memory(at, &usage.memory),
    });
    if !brief {
        body["swap"] = json!({ "time": at, "swapUsageBytes": usage.memory.swap });
    }
    body
}

fn cpu(at: &str, usage: &Usage, nano_cores: Option<u64>) -> Value {
    let mut body = json!({ "time": at, "usageCoreNanoSeconds": usage.cpu_ns });
    if let Some(rate) = nano_cores {
        body["usageNanoCores"] = json!(rate);
    }
    body
}

fn memory(at: &str, memory: &Memory) -> Value {
    let mut body = json!({
        "time": at,
        "usageBytes": memory.usage,
        "workingSetBytes": memory.working_set,
        "rssBytes": memory.rss,
        "pageFaults": memory.page_faults,
        "majorPageFaults": memory.major_page_faults,
    });
    if let Some(limit) = memory.limit {
        body["availableBytes"] = json!(limit.saturating_sub(memory.working_set));
    }
    body
}

fn network(at: &str, sample: &Sample) -> Value {
    let interfaces: Vec<Value> = sample
        .node
        .interfaces
        .iter()
        .map(|each| {
            json!({
                "name": each.name,
                "rxBytes": each.received[0],
                "rxErrors": each.received[2],
                "txBytes": each.transmitted[0],
                "txErrors": each.transmitted[2],
            })
        })
        .collect();
    let mut body = interfaces.first().cloned().unwrap_or_else(|| json!({}));
    body["time"] = json!(at);
    body["interfaces"] = json!(interfaces);
    body
}

/// Nanoseconds of CPU a second, over the time since the sample before; `None` if the counter was reset.
fn nano_cores(now_ns: u64, before_ns: u64, window_ms: i64) -> Option<u64> {
    let window_ms = u128::try_from(window_ms).ok().filter(|window| *window > 0)?;
    u64::try_from(u128::from(now_ns.checked_sub(before_ns)?) * 1_000 / window_ms).ok()
}

/// Seconds resolution, UTC, as Kubernetes writes times.
fn rfc3339(ms: i64) -> String {
    let seconds = ms.div_euclid(1_000);
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to the civil calendar: years begin in March, eras have 400 years.
    let shifted = day + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696_000, "2000-02-29T12:34:56Z"),
            (1_795_236_559_839, "2026-11-21T04:49:19Z"),
            (-1_000, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn a_reset_counter_has_no_rate() {
        assert_eq!(nano_cores(3_000, 1_000, 2_000), Some(1_000));
        assert_eq!(nano_cores(1, 2, 1_000), None);
        assert_eq!(nano_cores(2, 1, 0), None);
    }
}
