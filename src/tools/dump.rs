//! `tsdb dump` and `tsdb dump-openmetrics`: samples as text.

use std::io::{BufWriter, Write as _};

use anyhow::Context as _;
use model::{Labels, Matcher, Querier as _, Quoted, Samples, Selection, TimeRange, Value, float};
use tsdb::{Db, Options};

use crate::cli::tools::Dumped;

/// The conditions of each selector.
pub(super) fn selectors(texts: &[String]) -> anyhow::Result<Vec<Vec<Matcher>>> {
    let parse = |text: &String| match promql::parse_selector(text) {
        Ok(selector) => Ok(selector.matchers),
        Err(error) => Err(anyhow::anyhow!("{text}: {error}")),
    };
    texts.iter().map(parse).collect()
}

/// Calls `visit` with each series and its samples.
fn each(
    dump: &Dumped,
    mut visit: impl FnMut(&Labels, &Samples) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let options = Options { retention_ms: None, ..Options::default() };
    let db = Db::open(&dump.path, options).with_context(|| dump.path.display().to_string())?;
    let snapshot = db.snapshot();
    let range = TimeRange::new(dump.min_time, dump.max_time);
    let mut samples = Samples::default();
    for matchers in selectors(&dump.matches)? {
        let set = snapshot.select(&Selection::new(&matchers, range))?;
        for index in 0..set.len() {
            set.samples(index, range, &mut samples)?;
            if !samples.is_empty() {
                visit(&set.labels(index), &samples)?;
            }
        }
    }
    Ok(())
}

/// `{__name__="up", job="a"}`
fn label_set(labels: &Labels, separator: &str) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={}", Quoted(value))).collect();
    format!("{{{}}}", pairs.join(separator))
}

/// `tsdb dump`
pub(super) fn samples(dump: &Dumped) -> anyhow::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    each(dump, |labels, samples| {
        let labels = label_set(labels, ", ");
        for sample in samples.iter() {
            match &sample.value {
                Value::Float(value) => {
                    writeln!(out, "{labels} {} {}", float::format_general(*value), sample.ts)?;
                }
                Value::Histogram(histogram) => writeln!(
                    out,
                    "{labels} {{count:{}, sum:{}}} {}",
                    float::format_general(histogram.count),
                    float::format_general(histogram.sum),
                    sample.ts
                )?,
            }
        }
        Ok(())
    })?;
    Ok(out.flush()?)
}

/// `tsdb dump --format=seriesjson`
pub(super) fn series(dump: &Dumped) -> anyhow::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    each(dump, |labels, _| {
        let labels: std::collections::BTreeMap<&str, &str> = labels.iter().collect();
        writeln!(out, "{}", serde_json::json!(labels))
    })?;
    Ok(out.flush()?)
}

/// `tsdb dump-openmetrics`
pub(super) fn open_metrics(dump: &Dumped) -> anyhow::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    each(dump, |labels, samples| {
        let name = labels.metric_name().unwrap_or_default();
        let rest = labels.without_name();
        let rest = label_set(&rest, ",");
        for (ts, value) in samples.ts.iter().zip(&samples.values) {
            if !model::is_stale_nan(*value) {
                writeln!(out, "{name}{rest} {} {}", float::format_general(*value), decimal_seconds(*ts))?;
            }
        }
        Ok(())
    })?;
    writeln!(out, "# EOF")?;
    Ok(out.flush()?)
}

/// Seconds with three decimals.
fn decimal_seconds(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000)
}
