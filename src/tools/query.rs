//! `query ...`: questions to a server, and its answers as text or JSON.

use std::collections::BTreeMap;

use model::Quoted;
use serde_json::Value;

use super::client::Connection;
use super::span::{parse_duration_ms, parse_time, seconds};
use crate::cli::tools::{Output, Query, Span};

pub(super) fn run(query: Query, output: &Output) -> anyhow::Result<()> {
    match query {
        Query::Instant { time, server, expr } => {
            let time = time.as_deref().map_or_else(|| Ok(crate::wire::now()), parse_time)?;
            let form = [("query", expr), ("time", seconds(time))];
            show(&Connection::new(&server, &output.client)?.data("query", &form)?, output)
        }
        Query::Range { span, step, server, expr } => {
            let end = span.end.as_deref().map_or_else(|| Ok(crate::wire::now()), parse_time)?;
            let start = span.start.as_deref().map_or(Ok(end - 3_600_000), parse_time)?;
            anyhow::ensure!(start <= end, "start time is not before end time");
            let step_ms = match step {
                Some(step) => parse_duration_ms(&step)?,
                None => ((end - start) / 250 / 1000).max(1) * 1000,
            };
            let form = [
                ("query", expr),
                ("start", seconds(start)),
                ("end", seconds(end)),
                ("step", seconds(step_ms)),
            ];
            show(&Connection::new(&server, &output.client)?.data("query_range", &form)?, output)
        }
        Query::Series { span, matches, server } => {
            let data =
                Connection::new(&server, &output.client)?.data("series", &matching(&matches, &span)?)?;
            if output.format == "json" {
                say!("{data}");
                return Ok(());
            }
            for series in data.as_array().into_iter().flatten() {
                say!("{}", label_set(series));
            }
            Ok(())
        }
        Query::Labels { span, matches, server, name } => {
            labels(&server, &name, output, &matching(&matches, &span)?)
        }
        Query::Analyze { server, kind: _, duration, time, matches } => {
            let end = time.as_deref().map_or_else(|| Ok(crate::wire::now()), parse_time)?;
            let connection = Connection::new(&server, &output.client)?;
            let range = model::duration::format_ms(parse_duration_ms(&duration)?);
            matches.iter().try_for_each(|selector| analyze(&connection, selector, &range, end))
        }
    }
}

fn matching(matches: &[String], span: &Span) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut form: Vec<_> = matches.iter().map(|selector| ("match[]", selector.clone())).collect();
    if let Some(start) = &span.start {
        form.push(("start", seconds(parse_time(start)?)));
    }
    if let Some(end) = &span.end {
        form.push(("end", seconds(parse_time(end)?)));
    }
    Ok(form)
}

fn labels(server: &str, name: &str, output: &Output, form: &[(&str, String)]) -> anyhow::Result<()> {
    let pairs: Vec<String> =
        form.iter().map(|(name, value)| format!("{name}={}", super::client::escape(value))).collect();
    let path = format!("/api/v1/label/{}/values?{}", super::client::escape(name), pairs.join("&"));
    let (status, text) = Connection::new(server, &output.client)?.get(&path)?;
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    anyhow::ensure!(status == 200, "{status}: {}", answer["error"].as_str().unwrap_or(&text));
    if output.format == "json" {
        say!("{}", answer["data"]);
        return Ok(());
    }
    for value in answer["data"].as_array().into_iter().flatten() {
        say!("{}", value.as_str().unwrap_or_default());
    }
    Ok(())
}

/// Prints a result as promtool does.
fn show(data: &Value, output: &Output) -> anyhow::Result<()> {
    let result = &data["result"];
    if output.format == "json" {
        say!("{result}");
        return Ok(());
    }
    match data["resultType"].as_str() {
        Some("scalar") => say!("scalar: {}", point(result)),
        Some("string") => say!("{}", result[1].as_str().unwrap_or_default()),
        _ => {
            for row in result.as_array().into_iter().flatten() {
                let name = metric(&row["metric"]);
                let single = [&row["value"], &row["histogram"]].into_iter().find(|value| !value.is_null());
                if let Some(single) = single {
                    say!("{name} => {}", point(single));
                    continue;
                }
                say!("{name} =>");
                let points = ["values", "histograms"].into_iter().filter_map(|key| row[key].as_array());
                for value in points.flatten() {
                    say!("{}", point(value));
                }
            }
        }
    }
    Ok(())
}

/// `1 @[1700000000.123]`
fn point(pair: &Value) -> String {
    let value = pair[1].as_str().map_or_else(|| pair[1].to_string(), str::to_owned);
    format!("{value} @[{}]", pair[0])
}

/// `{a="1", b="2"}`
fn label_set(labels: &Value) -> String {
    let pairs: BTreeMap<&str, &str> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default()))
        .collect();
    let shown: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", Quoted(value))).collect();
    format!("{{{}}}", shown.join(", "))
}

/// `name{a="1"}`
fn metric(labels: &Value) -> String {
    let mut rest = labels.clone();
    let name = rest.as_object_mut().and_then(|labels| labels.remove("__name__"));
    let name = name.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
    match rest.as_object().is_none_or(serde_json::Map::is_empty) {
        true if name.is_empty() => "{}".to_owned(),
        true => name,
        false => name + &label_set(&rest),
    }
}

/// How many buckets of each histogram were ever filled in the time looked at.
fn analyze(connection: &Connection, selector: &str, range: &str, end: i64) -> anyhow::Result<()> {
    let name = selector.split('{').next().unwrap_or_default().trim().trim_end_matches("_bucket");
    let conditions = selector.split_once('{').map(|(_, rest)| format!("{{{rest}")).unwrap_or_default();
    let ask = |expr: String| connection.data("query", &[("query", expr), ("time", seconds(end))]);
    let classic = ask(format!("increase({name}_bucket{conditions}[{range}])"))?;
    let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for row in classic["result"].as_array().into_iter().flatten() {
        let mut labels = row["metric"].clone();
        let le = labels.as_object_mut().and_then(|labels| labels.remove("le"));
        let bound = le.as_ref().and_then(Value::as_str).and_then(model::float::parse);
        let count = row["value"][1].as_str().and_then(model::float::parse);
        if let Some((bound, count)) = bound.zip(count) {
            series.entry(label_set(&labels)).or_default().push((bound, count));
        }
    }
    say!("{name}: {} classic series", series.len());
    for (labels, mut buckets) in series {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let below = std::iter::once(0.0).chain(buckets.iter().map(|(_, count)| *count));
        let filled = buckets.iter().zip(below).filter(|((_, count), below)| *count > *below).count();
        say!("- {labels}: {filled} of {} buckets filled", buckets.len());
    }
    let native = ask(format!("histogram_count(increase({name}{conditions}[{range}]))"))?;
    let rows = native["result"].as_array().map_or(0, Vec::len);
    say!("{name}: {rows} native series");
    Ok(())
}
