//! The rules of kube-prometheus: taken as a rule file by both servers and both tools, evaluated without an error, and each
//! expression with the values that Prometheus gives over real samples.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::answers::difference;
use crate::process::{Server, escape, get, installed, run};
use crate::prometheus::{Prometheus, now_s};

/// Times that the block of real samples covers, in seconds; the last is at its end.
const TIMES: [i64; 4] = [1_795_236_605, 1_795_236_725, 1_795_236_850, 1_795_236_968];

fn shared(path: &str) -> Option<PathBuf> {
    let shared = std::env::var_os("PYROMETER_SHARED").map(PathBuf::from);
    let path = shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared")).join(path);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is absent", path.display());
    eprintln!("SKIPPED: {} is absent", path.display());
    None
}

/// The expressions, each once.
fn expressions(file: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let rules = lines.filter(|line| line["source"] == "kube-prometheus rules");
    rules.map(|line| line["expr"].as_str().unwrap().to_owned()).collect()
}

/// The result of an expression in an order of its own; of an error its kind.
fn result(url: &str, expression: &str, time: i64) -> Value {
    // No sample lies on the edge of a window: releases of Prometheus do not agree on those.
    let (_, body) = get(&format!("{url}/api/v1/query?query={}&time={time}.007", escape(expression)), &[]);
    let mut answer: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
    let rows = answer["data"]["result"].as_array_mut();
    if let Some(rows) = rows.filter(|rows| rows.first().is_some_and(Value::is_object)) {
        rows.sort_by_key(|row| row["metric"].to_string());
    }
    if answer["status"] == "success" { answer["data"].take() } else { answer["errorType"].take() }
}

/// A series: its name and its labels.
type Series = (String, BTreeMap<String, String>);

/// What a matcher is content with.
fn content(kind: &str, value: &str) -> Vec<String> {
    match kind {
        "=" => vec![value.to_owned()],
        "=~" => {
            let one = |part: &str| {
                let plain: String = part.chars().filter(|c| !"^$()\\\\".contains(*c)).collect();
                let plain = plain.replace(".+", "x").replace(".*", "x").replace(['.', '?'], "0");
                if plain.is_empty() { "x".to_owned() } else { plain }
            };
            value.split('|').map(one).collect()
        }
        _ => vec!["other".to_owned()],
    }
}

/// Series that the selectors of a syntax tree select, a few for each.
fn selected(tree: &Value, out: &mut BTreeSet<Series>) {
    match tree {
        Value::Array(items) => items.iter().for_each(|item| selected(item, out)),
        Value::Object(map) => {
            if let (Some(matchers), Some(name)) = (map.get("matchers"), map.get("name")) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let matchers: Vec<(String, Vec<String>)> = matchers
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|one| (text(&one["name"]), content(&text(&one["type"]), &text(&one["value"]))))
                    .filter(|(name, _)| name != "__name__")
                    .collect();
                let most = matchers.iter().map(|(_, values)| values.len()).max().unwrap_or(1).min(4);
                for variant in 0..most {
                    let labels = matchers
                        .iter()
                        .map(|(name, values)| (name.clone(), values[variant % values.len()].clone()));
                    out.insert((text(name), labels.collect()));
                }
            }
            map.values().for_each(|value| selected(value, out));
        }
        _ => {}
    }
}

/// An hour up to `end` of all these series, each in two places of a cluster, as OpenMetrics text.
fn made_up(series: &BTreeSet<Series>, end: i64) -> String {
    const COMMON: [&str; 9] =
        ["cluster", "namespace", "pod", "node", "instance", "container", "job", "service", "workload"];
    let mut all: BTreeSet<(String, String)> = BTreeSet::new();
    for (name, labels) in series {
        for place in ["1", "2"] {
            let mut labels = labels.clone();
            for common in COMMON {
                labels.entry(common.to_owned()).or_insert_with(|| format!("{common}-{place}"));
            }
            let buckets: &[&str] = if name.ends_with("_bucket") { &["0.1", "1.0", "+Inf"] } else { &[""] };
            for le in buckets.iter().filter(|le| le.is_empty() || !labels.contains_key("le")) {
                let mut labels = labels.clone();
                if !le.is_empty() {
                    labels.insert("le".to_owned(), (*le).to_owned());
                }
                let pairs: Vec<String> =
                    labels.iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| format!("{n}={v:?}")).collect();
                all.insert((name.clone(), pairs.join(",")));
            }
        }
    }
    let mut out = String::new();
    for (at, (name, labels)) in all.iter().enumerate() {
        let counts = ["_total", "_bucket", "_count", "_sum"].iter().any(|end| name.ends_with(end));
        for step in 0..=120 {
            let value = if counts { step * (at + 1) } else { (step / 10 + at) % 7 };
            writeln!(out, "{name}{{{labels}}} {value} {}", end - 3600 + i64::try_from(step).unwrap() * 30)
                .unwrap();
        }
    }
    out + "# EOF\n"
}

/// An expression whose tree our server gives.
fn tree(url: &str, expression: &str) -> Value {
    let (status, body) = get(&format!("{url}/api/v1/parse_query?query={}", escape(expression)), &[]);
    assert_eq!(status, 200, "{expression}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// Gives both servers the real samples, and an hour of made-up ones up to `end`.
fn fill(dir: &Path, blocks: &Path, expressions: &BTreeSet<String>, end: i64) {
    let page = dir.join("page.om");
    {
        let empty = Server::start(&dir.join("empty"), &["--kubernetes=off"]);
        let mut series = BTreeSet::new();
        expressions.iter().for_each(|expression| selected(&tree(&empty.url, expression), &mut series));
        std::fs::write(&page, made_up(&series, end)).unwrap();
    }
    for copy in ["ours/data", "theirs"] {
        let copy = dir.join(copy);
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        assert!(Command::new("cp").arg("-r").arg(blocks).arg(&copy).status().unwrap().success());
        assert!(Command::new("chmod").args(["-R", "u+w"]).arg(&copy).status().unwrap().success());
        let (page, copy) = (page.display().to_string(), copy.display().to_string());
        run("promtool", &["tsdb", "create-blocks-from", "openmetrics", &page, &copy]);
    }
}

#[test]
fn the_rules_of_kube_prometheus_have_the_values_that_prometheus_gives() {
    let (Some(corpus), Some(blocks)) =
        (shared("promql-corpus/expressions.jsonl"), shared("data/tsdb-blocks"))
    else {
        return;
    };
    if !(installed("prometheus") && installed("promtool")) {
        return;
    }
    let expressions = expressions(&corpus);
    assert!(expressions.len() > 100);
    let dir = tempfile::tempdir().unwrap();
    let end = now_s() - 30;
    fill(dir.path(), &blocks, &expressions, end);
    // JSON is YAML.
    let rule =
        |(at, expression): (usize, &String)| json!({"record": format!("corpus:{at}"), "expr": expression});
    let rules: Vec<Value> = expressions.iter().enumerate().map(rule).collect();
    let file = dir.path().join("corpus.yml");
    let groups = json!({"groups": [{"name": "corpus", "interval": "1s", "rules": rules}]});
    std::fs::write(&file, groups.to_string()).unwrap();
    for program in [Path::new("promtool"), &crate::tools::ours(dir.path())] {
        let checked = crate::tools::call(program, &["check", "rules", file.to_str().unwrap()], "");
        assert!(checked.status.success(), "{}", crate::tools::text(&checked));
    }

    let config = dir.path().join("ours.yml");
    std::fs::write(&config, "rule_files: [corpus.yml]\n").unwrap();
    let flag = format!("--config.file={}", config.display());
    let ours = Server::start(
        &dir.path().join("ours"),
        &["--kubernetes=off", "--storage.tsdb.retention.time=100y", &flag],
    );
    ours.wait_for_history();
    let theirs =
        Prometheus::start(&dir.path().join("theirs"), &format!("rule_files: ['{}']\n", file.display()));
    // What becomes of each rule now, on both.
    let health = |url: &str| {
        ours.wait_for("an evaluation of all rules", |_| {
            let (_, body) = get(&format!("{url}/api/v1/rules"), &[]);
            let answer: Value = serde_json::from_str(&body).unwrap();
            let rules = answer["data"]["groups"][0]["rules"].as_array().unwrap().clone();
            let one = |rule: &Value| (rule["name"].to_string(), rule["health"].to_string());
            let all: BTreeMap<String, String> = rules.iter().map(one).collect();
            all.values().all(|health| health != "\"unknown\"").then_some(all)
        })
    };
    let (mine, its) = (health(&ours.url), health(&theirs.url));
    assert_eq!(mine, its);
    assert!(mine.values().filter(|health| *health == "\"ok\"").count() > 100, "{mine:?}");

    let (mut differences, mut values) = (Vec::new(), 0);
    for expression in &expressions {
        for time in TIMES.into_iter().chain([end - 3000, end - 1200, end, end + 120]) {
            let (mine, its) = (result(&ours.url, expression, time), result(&theirs.url, expression, time));
            values += usize::from(its["result"].as_array().is_some_and(|rows| !rows.is_empty()));
            if let Some(difference) = difference(&mine, &its, 1e-12) {
                differences.push(format!("{expression}\n  at {time}: {difference}"));
            }
        }
    }
    println!("{} rules at {} times: {values} answers with values", expressions.len(), TIMES.len() + 4);
    assert!(values > 200, "{values} answers with values");
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
    theirs.stop();
}
