//! What Grafana, KEDA and the vertical pod autoscaler ask, request by request, of Pyrometer and of Prometheus over the same
//! blocks. The requests are data in `tests/data/replays`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::answers::difference;
use crate::process::{Server, escape, installed, request, run};
use crate::prometheus::{Prometheus, now_s, page};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replayed {
    does: String,
    method: String,
    path: String,
    #[serde(default)]
    parameters: BTreeMap<String, String>,
    /// Only the names of fields are compared.
    #[serde(default)]
    shape: bool,
    #[serde(default)]
    since: u32,
}

/// An hour that ends here.
struct Hour(i64);

impl Hour {
    /// A parameter with its times.
    fn fill(&self, text: &str) -> String {
        let end = self.0;
        if let Some(before) = text.strip_prefix("END-") {
            return (end - before.parse::<i64>().unwrap()).to_string();
        }
        match text.split_once('.').map_or((text, String::new()), |(name, rest)| (name, format!(".{rest}"))) {
            ("START", fraction) => format!("{}{fraction}", end - 3600),
            ("END", fraction) => format!("{end}{fraction}"),
            ("RFC3339", _) => jiff::Timestamp::from_second(end).unwrap().to_string(),
            _ => text.to_owned(),
        }
    }
}

impl Replayed {
    fn ask(&self, url: &str, hour: &Hour) -> (u16, Value) {
        let pairs = self.parameters.iter();
        let form: Vec<String> =
            pairs.map(|(name, value)| format!("{}={}", escape(name), escape(&hour.fill(value)))).collect();
        let (url, form) = (format!("{url}/api/v1/{}", self.path), form.join("&"));
        let (status, body) = if self.method == "POST" {
            let kind =
                [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json")];
            request("POST", &url, &kind, &form)
        } else {
            request("GET", &format!("{url}?{form}"), &[], "")
        };
        let answer = serde_json::from_str(&body);
        (status, answer.unwrap_or_else(|error| panic!("{}: {error}: {body:.200}", self.does)))
    }

    /// What of an answer must be equal.
    fn comparable(&self, mut answer: Value) -> Value {
        // Who is right about it is the matter of other tests.
        answer.as_object_mut().unwrap().retain(|key, _| !matches!(key.as_str(), "warnings" | "infos"));
        if self.shape {
            let fields = answer["data"].as_object().unwrap().keys().cloned();
            return json!(fields.collect::<Vec<_>>());
        }
        let rows = answer.pointer_mut("/data/result").and_then(Value::as_array_mut);
        // A scalar has no rows.
        if let Some(rows) = rows.filter(|rows| rows.first().is_some_and(Value::is_object))
            && !self.parameters["query"].starts_with("topk")
        {
            rows.sort_by_key(|row| row["metric"].to_string());
        }
        answer
    }
}

/// What a cluster's containers say, and the page of all tests.
fn samples(end: i64) -> String {
    let common = page(end);
    let mut out = common.trim_end_matches("# EOF\n").to_owned();
    let times: Vec<i64> = (0..60).map(|step| end - 3600 + step * 60).collect();
    for (metric, kind, factor) in [
        ("container_cpu_usage_seconds", "counter", 0.37),
        ("container_memory_working_set_bytes", "gauge", 1e6),
    ] {
        writeln!(out, "# TYPE {metric} {kind}").unwrap();
        let metric = if kind == "counter" { format!("{metric}_total") } else { metric.to_owned() };
        for (pod, name) in [("a", "app"), ("a", "POD"), ("b", "app"), ("b", "")] {
            for (step, ts) in (0u32..).zip(&times) {
                let value = f64::from(step) * factor;
                writeln!(
                    out,
                    "{metric}{{job=\"kubernetes-cadvisor\",pod=\"{pod}\",name=\"{name}\",namespace=\"n\"}} {value} {ts}"
                )
                .unwrap();
            }
        }
    }
    out.push_str("# TYPE up gauge\n");
    for pod in ["a", "b"] {
        for ts in &times {
            writeln!(out, "up{{job=\"kubernetes-pods\",pod=\"{pod}\",app=\"shop\"}} 1 {ts}").unwrap();
        }
    }
    out + "# EOF\n"
}

#[test]
fn requests_of_grafana_keda_and_the_vertical_autoscaler_are_answered_as_by_prometheus() {
    if !(installed("prometheus") && installed("promtool")) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // No sample lies on the edge of a window: releases of Prometheus do not agree on those.
    let end = now_s() / 60 * 60 - 113;
    let text = dir.path().join("page.om");
    std::fs::write(&text, samples(end)).unwrap();
    for data in ["ours/data", "theirs"] {
        let data = dir.path().join(data).display().to_string();
        run("promtool", &["tsdb", "create-blocks-from", "openmetrics", &text.display().to_string(), &data]);
    }
    let rules = "groups:\n- name: g\n  interval: 1h\n  rules: [{record: r, expr: sum(level)}, {alert: A, expr: level > 5, for: 5m}]\n";
    std::fs::write(dir.path().join("g.rules"), rules).unwrap();
    let config = format!(
        "global: {{evaluation_interval: 1m}}\nrule_files: ['{}']\nscrape_configs: []\n",
        dir.path().join("g.rules").display()
    );
    std::fs::write(dir.path().join("ours.yml"), &config).unwrap();
    let flag = format!("--config.file={}", dir.path().join("ours.yml").display());
    let ours = Server::start(&dir.path().join("ours"), &["--kubernetes=off", &flag]);
    ours.wait_for_history();
    let theirs = Prometheus::start(&dir.path().join("theirs"), &config);
    let version = theirs.json("/api/v1/status/buildinfo")["data"]["version"].clone();
    let major: u32 = version.as_str().unwrap().split('.').next().unwrap().parse().unwrap();

    let (mut differences, mut compared) = (Vec::new(), 0);
    for file in ["grafana", "keda", "vpa"] {
        let path = format!("{}/tests/data/replays/{file}.yml", env!("CARGO_MANIFEST_DIR"));
        let requests: Vec<Replayed> =
            serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for replayed in &requests {
            let hour = Hour(end + 7);
            let (status, mine) = replayed.ask(&ours.url, &hour);
            if major < replayed.since {
                assert!(matches!(status, 200 | 400), "{}: {mine}", replayed.does);
                continue;
            }
            let (their_status, its) = replayed.ask(&theirs.url, &hour);
            compared += 1;
            let what = &replayed.does;
            if status != their_status {
                differences.push(format!("{file}: {what}: {status} for {their_status}: {mine:.200}"));
            } else if let Some(difference) =
                difference(&replayed.comparable(mine), &replayed.comparable(its), 1e-12)
            {
                differences.push(format!("{file}: {what}: {difference}"));
            }
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {compared} differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
    assert!(compared > 45);
    theirs.stop();
}
