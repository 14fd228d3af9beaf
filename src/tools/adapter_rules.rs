//! `check adapter-rules` and `adapter-rules try`: rules in prometheus-adapter's format, before anybody depends on them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use metrics_api::adapter::{self, AdapterRules, Trial, TrialPath};
use model::{Matcher, Querier, Samples, Selection, SeriesSet, StorageError, TimeRange, Timestamp, float};
use serde_json::Value;

use super::client::{Connection, escape};
use super::span::{parse_time, seconds};
use crate::cli::tools::TryAdapterRules;

/// Series and paths of a rule that are printed unless all are asked for.
const SHOWN: usize = 10;

/// Reads a file of rules.
pub(crate) fn load(path: &Path) -> anyhow::Result<AdapterRules> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    adapter::parse(&text).map_err(|fault| anyhow::anyhow!("{}:{fault}", path.display()))
}

/// `check adapter-rules`: says of each file how many rules it has, or what is wrong with it.
pub(super) fn check(files: &[PathBuf]) -> anyhow::Result<()> {
    let mut failed = 0;
    for path in files {
        match load(path) {
            Ok(rules) => {
                let resource = if rules.resource.is_some() { ", and resource rules" } else { "" };
                say!(
                    "{} SUCCESS: {} rules, {} external rules{resource}",
                    path.display(),
                    rules.custom.len(),
                    rules.external.len()
                );
            }
            Err(error) => {
                eprintln!("FAILED: {error:#}");
                failed += 1;
            }
        }
    }
    ensure!(failed == 0, "{failed} of {} files cannot be used", files.len());
    Ok(())
}

/// `adapter-rules try`: what rules make of the series that a server or a data directory has.
pub(super) fn try_rules(options: &TryAdapterRules) -> anyhow::Result<()> {
    let rules = load(&options.file)?;
    let now = options.time.as_deref().map_or_else(|| Ok(crate::wire::now()), parse_time)?;
    let engine = promql::Engine::new(promql::EngineOptions::default());
    let trials = match &options.path {
        Some(path) => {
            let opened =
                tsdb::Db::open(path, tsdb::Options { retention_ms: None, ..tsdb::Options::default() });
            let db = opened.with_context(|| path.display().to_string())?;
            let snapshot = db.snapshot();
            rules.try_all(&engine, &snapshot, now)?
        }
        None => {
            let connection = Connection::new(&options.server.url, &options.server.client)?;
            rules.try_all(&engine, &Remote { connection }, now)?
        }
    };
    for trial in &trials {
        show(trial, &options.file, options.all)?;
    }
    Ok(())
}

fn show(trial: &Trial, file: &Path, all: bool) -> anyhow::Result<()> {
    let shown = if all { usize::MAX } else { SHOWN };
    say!("{} ({}:{})", trial.rule, file.display(), trial.line);
    say!("  seriesQuery: {}", trial.series_query);
    say!("  series: {}", trial.series.len());
    for (series, metric) in trial.series.iter().take(shown) {
        match metric {
            Some(metric) => say!("    {series} becomes {metric}"),
            None => say!("    {series} is left out"),
        }
    }
    rest(trial.series.len(), shown)?;
    say!("  paths: {}", trial.paths.len());
    for TrialPath { path, query, values } in trial.paths.iter().take(shown) {
        say!("    {path}");
        say!("      query: {query}");
        match values {
            Ok(values) => {
                for value in values {
                    say!("      value: {} {} at {}", value.of, value.value, value.timestamp);
                }
            }
            Err(reason) => say!("      no value: {reason}"),
        }
    }
    rest(trial.paths.len(), shown)?;
    for warning in &trial.warnings {
        say!("  WARNING: {warning}");
    }
    say!();
    Ok(())
}

fn rest(count: usize, shown: usize) -> anyhow::Result<()> {
    if count > shown {
        say!("    and {} more; --all shows them", count - shown);
    }
    Ok(())
}

/// A server's store over its HTTP API: enough of it for a few small selections.
struct Remote {
    connection: Connection,
}

fn selector(matchers: &[Matcher]) -> String {
    let all: Vec<String> = matchers.iter().map(ToString::to_string).collect();
    format!("{{{}}}", all.join(","))
}

fn unavailable(error: &anyhow::Error) -> StorageError {
    StorageError::Unavailable(format!("{error:#}"))
}

impl Remote {
    /// The texts that a path of the API lists.
    fn texts(
        &self,
        path: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        let mut query = format!("{path}?start={}&end={}", seconds(range.start), seconds(range.end));
        if !matchers.is_empty() {
            query.push_str(&format!("&match[]={}", escape(&selector(matchers))));
        }
        let (status, text) = self.connection.get(&query).map_err(|error| unavailable(&error))?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        if status != 200 {
            let what = answer["error"].as_str().unwrap_or(&text).to_owned();
            return Err(StorageError::Unavailable(format!("{status}: {what}")));
        }
        let texts = answer["data"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mut texts: Vec<String> = texts.map(str::to_owned).collect();
        texts.sort_unstable();
        texts.truncate(if limit == 0 { usize::MAX } else { limit });
        Ok(texts)
    }
}

impl Querier for Remote {
    fn select(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
        let TimeRange { start, end } = selection.range;
        let query = format!("{}[{}ms]", selector(selection.matchers), (end - start).max(1));
        let form = [("query", query), ("time", seconds(end))];
        let data = self.connection.data("query", &form).map_err(|error| unavailable(&error))?;
        let mut found = Fetched::default();
        for row in data["result"].as_array().into_iter().flatten() {
            let labels = row["metric"].as_object().into_iter().flatten();
            let labels = labels.map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default()));
            let mut samples = Samples::default();
            for point in row["values"].as_array().into_iter().flatten() {
                let value = point[1].as_str().and_then(float::parse);
                if let Some((ts, value)) = point[0].as_f64().zip(value) {
                    samples.push_float(milliseconds(ts), value);
                }
            }
            found.0.push((model::Labels::from_pairs(labels), samples));
        }
        found.0.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Box::new(found))
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        self.texts("/api/v1/labels", matchers, range, limit)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        self.texts(&format!("/api/v1/label/{}/values", escape(name)), matchers, range, limit)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, and times are far from its bounds")]
fn milliseconds(seconds: f64) -> Timestamp {
    (seconds * 1000.0).round() as Timestamp
}

/// Series that a server has sent.
#[derive(Default)]
struct Fetched(Vec<(model::Labels, Samples)>);

impl SeriesSet for Fetched {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn visit_labels(&self, index: usize, visit: &mut dyn FnMut(&str, &str)) {
        self.0[index].0.iter().for_each(|(name, value)| visit(name, value));
    }

    fn samples(&self, index: usize, range: TimeRange, into: &mut Samples) -> Result<(), StorageError> {
        into.clear();
        let Samples { ts, values, .. } = &self.0[index].1;
        for (ts, value) in ts.iter().zip(values).filter(|(ts, _)| range.contains(**ts)) {
            into.push_float(*ts, *value);
        }
        Ok(())
    }
}
