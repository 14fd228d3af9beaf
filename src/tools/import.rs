//! `tsdb create-blocks-from`: blocks of samples that come from elsewhere.
//!
//! Samples may come in any order across series, but a head only takes what is near its newest one. So
//! the source is read once for each two hours of time that it covers, and each pass makes one block in
//! a store of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use model::Labels;
use scraper::exposition::{
    Event, Format, MetricType, ParseOptions, Parser, Sample, series_labels, unescape_help,
};
use tsdb::{Db, Options};

use super::client::Connection;
use super::span::{parse_duration_ms, parse_time, seconds};
use crate::cli::tools::Server;
use crate::terminal::ProgressBar;

/// The time that one block covers.
const BLOCK_MS: i64 = 2 * 3_600_000;

/// What a page says.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) samples: Vec<PageSample>,
    pub(super) families: BTreeMap<String, Family>,
}

/// A sample of it.
#[derive(Debug)]
pub(super) struct PageSample {
    pub(super) series: Labels,
    /// The family that it stands below; empty if none.
    pub(super) family: String,
    /// If the page says.
    pub(super) ts: Option<i64>,
    pub(super) value: f64,
}

/// What a page says of a family.
#[derive(Debug, Default)]
pub(super) struct Family {
    pub(super) kind: MetricType,
    pub(super) help: String,
    pub(super) unit: String,
}

/// Reads a page, as OpenMetrics if it ends like that.
pub(super) fn page(body: &[u8]) -> anyhow::Result<Page> {
    /// What the name of a family's series may have behind that of the family.
    const SUFFIXES: [&str; 8] = ["", "_total", "_sum", "_count", "_bucket", "_created", "_info", "_gsum"];
    let format =
        if body.trim_ascii_end().ends_with(b"# EOF") { Format::OpenMetrics100 } else { Format::Text100 };
    let (mut page, mut current) = (Page::default(), String::new());
    let mut parser = Parser::new(body, format, ParseOptions::default());
    while let Some(event) = parser.next(&mut |_| None)? {
        match event {
            Event::Sample(sample) => {
                let series = labels_of(&sample)?;
                let rest = series.get("__name__").and_then(|name| name.strip_prefix(current.as_str()));
                let is_below = rest.is_some_and(|rest| SUFFIXES.contains(&rest));
                let family = if is_below { current.clone() } else { String::new() };
                page.samples.push(PageSample { series, family, ts: sample.ts, value: sample.value });
            }
            Event::Type { family, metric_type } => {
                current = family.into_owned();
                page.families.entry(current.clone()).or_default().kind = metric_type;
            }
            Event::Help { family, help } => {
                current = family.into_owned();
                page.families.entry(current.clone()).or_default().help =
                    unescape_help(help, format).into_owned();
            }
            Event::Unit { family, unit } => {
                current = family.into_owned();
                page.families.entry(current.clone()).or_default().unit = unit.to_owned();
            }
            _ => {}
        }
    }
    Ok(page)
}

fn labels_of(sample: &Sample<'_>) -> anyhow::Result<Labels> {
    let mut pairs = Vec::new();
    series_labels(sample.series, sample.metric_type, &mut pairs)?;
    Ok(Labels::from_pairs(pairs))
}

fn each(
    body: &[u8],
    format: Format,
    mut visit: impl FnMut(Labels, Option<i64>, f64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut parser = Parser::new(body, format, ParseOptions::default());
    while let Some(event) = parser.next(&mut |_| None)? {
        let Event::Sample(sample) = event else { continue };
        visit(labels_of(&sample)?, sample.ts, sample.value)?;
    }
    Ok(())
}

/// `create-blocks-from openmetrics`
pub(super) fn open_metrics(input: &Path, output: &Path, extra: &[(String, String)]) -> anyhow::Result<()> {
    let file = std::fs::read(input).with_context(|| input.display().to_string())?;
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    each(&file, Format::OpenMetrics100, |labels, ts, _| {
        let ts = ts.with_context(|| format!("expected timestamp for series {labels}, got none"))?;
        (first, last) = (first.min(ts), last.max(ts));
        Ok(())
    })
    .with_context(|| input.display().to_string())?;
    ensure!(first <= last, "{}: no samples", input.display());
    let mut bar = ProgressBar::new("blocks");
    let windows = last.div_euclid(BLOCK_MS) - first.div_euclid(BLOCK_MS) + 1;
    for at in 0..windows {
        bar.show(at.unsigned_abs(), windows.unsigned_abs());
        let start = (first.div_euclid(BLOCK_MS) + at) * BLOCK_MS;
        let mut block = BlockMaker::new(output)?;
        each(&file, Format::OpenMetrics100, |labels, ts, value| {
            let ts = ts.unwrap_or(0);
            if !(start..start + BLOCK_MS).contains(&ts) {
                return Ok(());
            }
            let mut builder = labels.to_builder();
            extra.iter().for_each(|(name, value)| {
                builder.set(name, value);
            });
            block.push(&builder.build(), ts, value)
        })
        .with_context(|| input.display().to_string())?;
        block.finish()?;
    }
    Ok(())
}

/// A store for the samples of one block.
struct BlockMaker {
    work: PathBuf,
    output: PathBuf,
    db: Db,
    samples: BTreeMap<i64, Vec<(Labels, f64)>>,
}

impl BlockMaker {
    /// The store is beside where the block will be: blocks are linked, not copied.
    fn new(output: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(output).with_context(|| output.display().to_string())?;
        let work = output.join(format!("import-{}.tmp-for-creation", std::process::id()));
        let _ = std::fs::remove_dir_all(&work);
        let options =
            Options { wal_sync_interval: std::time::Duration::MAX, retention_ms: None, ..Options::default() };
        let db = Db::open(&work, options)?;
        Ok(Self { work, output: output.to_owned(), db, samples: BTreeMap::new() })
    }

    fn push(&mut self, labels: &Labels, ts: i64, value: f64) -> anyhow::Result<()> {
        ensure!(labels.metric_name().is_some(), "series {labels} has no metric name");
        self.samples.entry(ts).or_default().push((labels.clone(), value));
        Ok(())
    }

    fn finish(self) -> anyhow::Result<()> {
        let Self { work, output, db, samples } = self;
        let stored = !samples.is_empty();
        for (ts, batch) in samples {
            let mut appender = db.appender();
            for (labels, value) in batch {
                let series = appender.series(&labels).with_context(|| labels.to_string())?;
                appender.append(series, ts, value).with_context(|| format!("{labels} at {ts}"))?;
            }
            appender.commit()?;
        }
        if stored {
            db.copy_to(&output, true)?;
        }
        drop(db);
        std::fs::remove_dir_all(&work).with_context(|| work.display().to_string())
    }
}

/// When rules are evaluated over the past.
#[derive(Clone, Copy)]
pub(super) struct RuleSpan {
    start: i64,
    end: i64,
    interval_ms: i64,
}

impl RuleSpan {
    pub(super) fn new(start: &str, end: Option<&str>, interval: &str) -> anyhow::Result<Self> {
        let start = parse_time(start)?;
        // The newest hours may still be in a head that is yet to be cut.
        let end = end.map_or_else(|| Ok(crate::wire::now() - 3 * 3_600_000), parse_time)?;
        ensure!(start < end, "start time is not before end time");
        Ok(Self { start, end, interval_ms: parse_duration_ms(interval)? })
    }
}

/// `create-blocks-from rules`
pub(super) fn rules(server: &Server, files: &[PathBuf], output: &Path, span: RuleSpan) -> anyhow::Result<()> {
    let connection = Connection::new(&server.url, &server.client)?;
    let mut groups = Vec::new();
    for path in files {
        groups.extend(crate::config::load_rules(path, super::DIALECT)?);
    }
    let windows = span.end.div_euclid(BLOCK_MS) - span.start.div_euclid(BLOCK_MS) + 1;
    let mut bar = ProgressBar::new("blocks");
    for at in 0..windows {
        bar.show(at.unsigned_abs(), windows.unsigned_abs());
        let window = (span.start.div_euclid(BLOCK_MS) + at) * BLOCK_MS;
        let mut block = BlockMaker::new(output)?;
        for group in &groups {
            let interval_ms = group.interval_ms.unwrap_or(span.interval_ms).max(1);
            let (from, until) = (window.max(span.start), (window + BLOCK_MS - 1).min(span.end));
            // The same moments in every window, whatever the interval.
            let from = from + (span.start - from).rem_euclid(interval_ms);
            if from > until {
                continue;
            }
            for rule in group.rules.iter().filter(|rule| rule.kind == rules::RuleKind::Recording) {
                evaluate(&connection, rule, (from, until, interval_ms), &mut block)
                    .with_context(|| format!("group {:?}, rule {:?}", group.name, rule.name))?;
            }
        }
        block.finish()?;
    }
    Ok(())
}

fn evaluate(
    connection: &Connection,
    rule: &rules::Rule,
    (from, until, interval_ms): (i64, i64, i64),
    block: &mut BlockMaker,
) -> anyhow::Result<()> {
    let form = [
        ("query", rule.query()),
        ("start", seconds(from)),
        ("end", seconds(until)),
        ("step", seconds(interval_ms)),
    ];
    let data = connection.data("query_range", &form)?;
    for row in data["result"].as_array().into_iter().flatten() {
        let metric = row["metric"].as_object().into_iter().flatten();
        let mut labels =
            Labels::from_pairs(metric.map(|(name, value)| (name, value.as_str().unwrap_or_default())))
                .to_builder();
        labels.set(model::METRIC_NAME, &rule.name);
        for (name, value) in &rule.labels {
            labels.set(name, value);
        }
        let labels = labels.build();
        for point in row["values"].as_array().into_iter().flatten() {
            let value = point[1].as_str().and_then(model::float::parse);
            let ts = point[0].to_string();
            block.push(&labels, parse_time(&ts)?, value.context("a value that is not a number")?)?;
        }
    }
    Ok(())
}
