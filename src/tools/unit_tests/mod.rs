//! `test rules`: unit tests of rule files, as promtool runs them.
//!
//! Each test has a store of its own in memory. Time goes in steps of the evaluation interval: the input
//! series are stored as far as that time, then all rules are evaluated, then whatever is expected of the
//! alerts between this step and the next is checked. Expressions are evaluated at the end.

mod compare;
mod file;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use model::duration::format_ms;
use model::{HistogramValue, Labels, Value};
use promql::series::{SeriesDescription, SeriesValue};
use promql::{Engine, EngineOptions, QueryOptions, QueryValue};
use regex::Regex;
use tsdb::Db;

use super::Features;
use file::Test;

/// How the tests are run.
pub(crate) struct Settings<'a> {
    /// Only tests whose names match one of these; all if there are none.
    pub(crate) run: &'a [String],
    /// Parts of the language that are not on by themselves.
    pub(crate) features: Features,
    /// A report in JUnit's format is written here.
    pub(crate) junit: Option<&'a Path>,
    /// How rule files are read, and what becomes of fields of test files that are not known.
    pub(crate) dialect: rules::Dialect,
    /// Whether it is told which test runs.
    pub(crate) debug: bool,
}

/// Runs all files; an error if a test failed.
pub(crate) fn run(files: &[PathBuf], settings: &Settings<'_>) -> anyhow::Result<()> {
    let names: Vec<Regex> = settings
        .run
        .iter()
        .map(|pattern| Regex::new(pattern).with_context(|| format!("--run={pattern}")))
        .collect::<Result<_, _>>()?;
    let mut report = String::new();
    let mut failed = 0;
    for path in files {
        say!("Unit Testing:  {}", path.display());
        let outcome = run_file(path, &names, settings);
        let cases = match outcome {
            Ok(cases) => cases,
            Err(error) => vec![(String::new(), vec![format!("{error:#}")])],
        };
        if cases.iter().all(|(_, faults)| faults.is_empty()) {
            say!("  SUCCESS");
        } else {
            failed += 1;
            eprintln!("  FAILED:");
            cases.iter().flat_map(|(_, faults)| faults).for_each(|fault| eprintln!("{fault}"));
        }
        say!();
        push_suite(&mut report, path, &cases);
    }
    if let Some(path) = settings.junit {
        let report = format!("<testsuites>\n{report}</testsuites>\n");
        std::fs::write(path, report).with_context(|| path.display().to_string())?;
    }
    anyhow::ensure!(failed == 0, "{failed} of {} files have tests that failed", files.len());
    Ok(())
}

/// A test's name, and what is wrong.
type Case = (String, Vec<String>);

fn push_suite(report: &mut String, path: &Path, cases: &[Case]) {
    let escape = |text: &str| {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
    };
    let failures = cases.iter().filter(|(_, faults)| !faults.is_empty()).count();
    let name = escape(&path.display().to_string());
    report.push_str(&format!(
        "<testsuite name=\"{name}\" tests=\"{}\" failures=\"{failures}\">\n",
        cases.len()
    ));
    for (name, faults) in cases {
        report.push_str(&format!("<testcase name=\"{}\">", escape(name)));
        for fault in faults {
            report.push_str(&format!("<failure>{}</failure>", escape(fault)));
        }
        report.push_str("</testcase>\n");
    }
    report.push_str("</testsuite>\n");
}

fn run_file(path: &Path, names: &[Regex], settings: &Settings<'_>) -> anyhow::Result<Vec<Case>> {
    let text = std::fs::read_to_string(path)?;
    let file = file::parse(&text, settings.dialect.unknown)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut groups = Vec::new();
    for pattern in &file.rule_files {
        let found = crate::config::matching(folder, pattern).map_err(anyhow::Error::msg)?;
        if found.is_empty() {
            say!("  WARNING: no file match pattern {}", folder.join(pattern).display());
        }
        for rules in found {
            groups.extend(crate::config::load_rules(&rules, settings.dialect)?);
        }
    }
    let order = |name: &str| file.group_eval_order.iter().position(|listed| listed == name).unwrap_or(0);
    if let Some(twice) = file.group_eval_order.iter().enumerate().find(|(at, name)| order(name) != *at) {
        anyhow::bail!("group name repeated in evaluation order: {}", twice.1);
    }
    groups.sort_by_key(|group: &rules::Group| order(&group.name));
    let interval_ms = file.evaluation_interval.map_or(0, |interval| interval.0);
    let bench = Bench {
        groups,
        interval_ms: if interval_ms == 0 { 60_000 } else { interval_ms },
        fuzzy: file.fuzzy_compare,
        features: settings.features,
    };
    let mut cases = Vec::new();
    for (at, test) in file.tests.iter().enumerate() {
        if names.is_empty() || names.iter().any(|name| name.is_match(&test.name)) {
            let name = if test.name.is_empty() { format!("unnamed#{at}") } else { test.name.clone() };
            if settings.debug {
                say!("DEBUG: Starting test {name}");
            }
            let faults = bench.run(test).unwrap_or_else(|error| vec![format!("    {error:#}")]);
            cases.push((name, faults));
        }
    }
    Ok(cases)
}

/// What the tests of a file share.
struct Bench {
    groups: Vec<rules::Group>,
    interval_ms: i64,
    fuzzy: bool,
    features: Features,
}

impl Bench {
    /// Runs one test; the list is what is not as expected.
    fn run(&self, test: &Test) -> anyhow::Result<Vec<String>> {
        let interval_ms = test.interval.map_or(0, |interval| interval.0);
        let interval_ms = if interval_ms == 0 { self.interval_ms } else { interval_ms };
        let start = test.start_timestamp.0;
        let memory = tsdb::disk::memory::Memory::new();
        let options = tsdb::Options { retention_ms: None, ..tsdb::Options::default() };
        let db = Arc::new(Db::open_on(Arc::new(memory), Path::new("/test"), options, &mut |_| {})?);
        let mut input = Input::new(test, interval_ms)?;
        let engine = Arc::new(Engine::new(EngineOptions {
            features: self.features.meaning,
            ..EngineOptions::default()
        }));
        let options = rules::Options {
            groups: self.groups.clone(),
            evaluation_interval_ms: interval_ms,
            external_labels: Labels::from_pairs(&test.external_labels),
            external_url: test.external_url.trim_end_matches('/').to_owned(),
            ..rules::Options::new(Arc::clone(&engine), Arc::clone(&db), Arc::new(move || start))
        };
        let mut trial = rules::Trial::new(&options)?;

        let mut alert_tests: Vec<_> = test.alert_rule_test.iter().collect();
        alert_tests.sort_by_key(|expected| expected.eval_time.0);
        let mut alert_tests = alert_tests.into_iter().peekable();
        let ends = test.alert_rule_test.iter().map(|expected| expected.eval_time.0);
        let end =
            ends.chain(test.promql_expr_test.iter().map(|expected| expected.eval_time.0)).max().unwrap_or(0);
        let mut faults = Vec::new();
        let mut at = 0;
        while at <= end {
            input.store(&db, start, at)?;
            for (rule, error) in trial.evaluate(start + at) {
                faults.push(format!("    rule: {rule}, time: {}, err: {error}", format_ms(at)));
            }
            if !faults.is_empty() {
                return Ok(faults);
            }
            while let Some(expected) =
                alert_tests.next_if(|expected| expected.eval_time.0 < at + self.interval_ms)
            {
                anyhow::ensure!(
                    !expected.alertname.is_empty(),
                    "an item under alert_rule_test misses required attribute alertname at eval_time: {}",
                    format_ms(expected.eval_time.0)
                );
                faults.extend(compare::alerts(&test.name, expected, &trial.alerts(&expected.alertname)));
            }
            at += self.interval_ms;
        }
        input.store(&db, start, end)?;
        for expected in &test.promql_expr_test {
            let got = self.query(&engine, &db, &expected.expr, start + expected.eval_time.0);
            faults.extend(compare::samples(expected, got, self.fuzzy));
        }
        Ok(faults)
    }

    fn query(&self, engine: &Engine, db: &Db, text: &str, at: i64) -> Result<Vec<(Labels, Value)>, String> {
        let expr = promql::parse(text, &self.features.grammar).map_err(|error| error.to_string())?;
        let outcome = engine.instant(&db.snapshot(), &expr, at, &QueryOptions::default());
        match outcome.map_err(|error| error.to_string())?.value {
            QueryValue::Vector(samples) => {
                Ok(samples.into_iter().map(|sample| (sample.labels, sample.value)).collect())
            }
            QueryValue::Scalar { value, .. } => Ok(vec![(Labels::empty(), Value::Float(value))]),
            _ => Err("rule result is not a vector or scalar".to_owned()),
        }
    }
}

/// The input series of a test, and how far each is stored.
struct Input {
    series: Vec<SeriesDescription>,
    interval_ms: i64,
    stored: usize,
}

impl Input {
    fn new(test: &Test, interval_ms: i64) -> anyhow::Result<Self> {
        let mut series = Vec::new();
        for input in &test.input_series {
            let text = format!("{} {}", input.series.value, input.values);
            let line = input.series.referenced.line();
            series
                .push(promql::series::parse(&text).map_err(|error| anyhow::anyhow!("line {line}: {error}"))?);
        }
        Ok(Self { series, interval_ms, stored: 0 })
    }

    /// Stores every value up to `until` milliseconds from the start.
    fn store(&mut self, db: &Db, start: i64, until: i64) -> anyhow::Result<()> {
        let most = self.series.iter().map(|series| series.values.len()).max().unwrap_or(0);
        loop {
            let offset = i64::try_from(self.stored)?.saturating_mul(self.interval_ms);
            if self.stored >= most || offset > until {
                return Ok(());
            }
            let mut appender = db.appender();
            for series in &self.series {
                let Some(value) = series.values.get(self.stored) else { continue };
                let append = |appender: &mut tsdb::Appender<'_>| -> Result<(), tsdb::AppendError> {
                    let reference = appender.series(&series.labels)?;
                    match value {
                        SeriesValue::Omitted => Ok(()),
                        SeriesValue::Stale => appender.append(reference, start + offset, model::stale_nan()),
                        SeriesValue::Float(value) => appender.append(reference, start + offset, *value),
                        SeriesValue::Histogram(histogram, _) => {
                            let histogram = HistogramValue::Float((**histogram).clone());
                            appender.append_histogram(reference, start + offset, &histogram)
                        }
                    }
                };
                append(&mut appender).with_context(|| series.labels.to_string())?;
            }
            appender.commit()?;
            self.stored += 1;
        }
    }
}
