//! `verify`: asks two servers the same questions, and shows every difference, the time and the bytes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;

use super::client::Connection;
use super::span::{parse_duration_ms, parse_time, seconds};
use crate::cli::tools::Verify;
use crate::terminal::ProgressBar;

/// A difference of an answer is told up to this many times.
const SHOWN_MAX: usize = 3;
/// The newest minutes may be scraped at different moments by the two servers.
const SETTLED_MS: i64 = 300_000;

/// What a server did over all questions.
#[derive(Default)]
struct Tally {
    took: Vec<Duration>,
    bytes: usize,
}

impl Tally {
    fn line(&mut self, url: &str) -> String {
        self.took.sort_unstable();
        let at = |share: usize| self.took.get(self.took.len() * share / 100).copied().unwrap_or_default();
        let total: Duration = self.took.iter().sum();
        format!(
            "{url}: {} questions in {:.3} s, median {:.1} ms, 99 % {:.1} ms, {} bytes",
            self.took.len(),
            total.as_secs_f64(),
            at(50).as_secs_f64() * 1e3,
            at(99).as_secs_f64() * 1e3,
            self.bytes
        )
    }
}

/// Runs all expressions; an error if an answer differs.
pub(super) fn run(options: &Verify) -> anyhow::Result<()> {
    let expressions = gather(&options.sources)?;
    anyhow::ensure!(!expressions.is_empty(), "there is no expression in what was given");
    let ours = Connection::new(&options.url, &options.client)?;
    let theirs = Connection::new(&options.against, &options.client)?;
    let end = options.end.as_deref().map_or_else(|| Ok(crate::wire::now() - SETTLED_MS), parse_time)?;
    let start = end - parse_duration_ms(&options.range)?;
    let step_ms = parse_duration_ms(&options.step)?.max(1);
    let (mut our_tally, mut their_tally) = (Tally::default(), Tally::default());
    let (mut differing, mut refused) = (0, 0);
    let mut bar = ProgressBar::new("expressions");
    for (at, expression) in expressions.iter().enumerate() {
        bar.show(at as u64, expressions.len() as u64);
        let instant = vec![("query", expression.clone()), ("time", seconds(end))];
        let mut range = vec![("query", expression.clone()), ("start", seconds(start))];
        range.extend([("end", seconds(end)), ("step", seconds(step_ms))]);
        for (path, form) in [("query", instant), ("query_range", range)] {
            let our_answer = timed(&ours, path, &form, &mut our_tally)?;
            let their_answer = timed(&theirs, path, &form, &mut their_tally)?;
            if their_answer["status"] != "success" && our_answer["status"] != "success" {
                refused += 1;
                continue;
            }
            let found = differences(&our_answer, &their_answer, options.tolerance);
            if !found.is_empty() {
                differing += 1;
                bar.clear();
                say!("{path}: {expression}");
                for difference in found.iter().take(SHOWN_MAX) {
                    say!("  {difference}");
                }
                if found.len() > SHOWN_MAX {
                    say!("  and {} more", found.len() - SHOWN_MAX);
                }
            }
        }
    }
    bar.clear();
    say!("{}", our_tally.line(&options.url));
    say!("{}", their_tally.line(&options.against));
    say!(
        "{} expressions, instant and range: {differing} answers differ, {refused} refused by both",
        expressions.len()
    );
    anyhow::ensure!(differing == 0, "{differing} answers differ");
    Ok(())
}

fn timed(
    server: &Connection,
    path: &str,
    form: &[(&str, String)],
    tally: &mut Tally,
) -> anyhow::Result<Value> {
    let began = Instant::now();
    let (answer, bytes) = server.ask(path, form)?;
    tally.took.push(began.elapsed());
    tally.bytes += bytes;
    Ok(answer)
}

/// In what two answers differ.
fn differences(ours: &Value, theirs: &Value, tolerance: f64) -> Vec<String> {
    let outcome = |answer: &Value| match answer["status"].as_str() {
        Some("success") => answer["data"]["resultType"].as_str().unwrap_or_default().to_owned(),
        _ => format!(
            "{}: {}",
            answer["errorType"].as_str().unwrap_or_default(),
            answer["error"].as_str().unwrap_or_default()
        ),
    };
    if outcome(ours) != outcome(theirs) {
        return vec![format!("here {}, there {}", outcome(ours), outcome(theirs))];
    }
    let (ours, theirs) = (&ours["data"]["result"], &theirs["data"]["result"]);
    if matches!(ours.get(0), Some(Value::Number(_))) {
        return same_points(ours, theirs, tolerance).err().into_iter().collect();
    }
    let rows = |result: &Value| {
        let rows = result.as_array().cloned().unwrap_or_default();
        rows.into_iter()
            .map(|row| (row["metric"].to_string(), row))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let (ours, theirs) = (rows(ours), rows(theirs));
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        match (ours.get(name), theirs.get(name)) {
            (Some(_), None) => found.push(format!("only here: {name}")),
            (None, Some(_)) => found.push(format!("only there: {name}")),
            (Some(ours), Some(theirs)) => {
                for key in ["value", "values", "histogram", "histograms"] {
                    if let Err(what) = same_points(&ours[key], &theirs[key], tolerance) {
                        found.push(format!("{name}: {what}"));
                        break;
                    }
                }
            }
            (None, None) => {}
        }
    }
    found
}

/// Numbers, also those in texts, may differ a little; everything else may not.
fn same_points(ours: &Value, theirs: &Value, tolerance: f64) -> Result<(), String> {
    let different = || Err(format!("here {ours}, there {theirs}"));
    match (ours, theirs) {
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).try_for_each(|(a, b)| same_points(a, b, tolerance))
        }
        (Value::Array(a), Value::Array(b)) => Err(format!("here {} points, there {}", a.len(), b.len())),
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() => a
            .iter()
            .try_for_each(|(key, value)| same_points(value, b.get(key).unwrap_or(&Value::Null), tolerance)),
        (Value::String(a), Value::String(b)) => match (model::float::parse(a), model::float::parse(b)) {
            (Some(x), Some(y)) if close(x, y, tolerance) => Ok(()),
            _ if a == b => Ok(()),
            _ => different(),
        },
        (a, b) if a == b => Ok(()),
        _ => different(),
    }
}

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= tolerance * a.abs().max(b.abs())
}

/// The expressions in files and directories, each once.
fn gather(sources: &[PathBuf]) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut waiting: Vec<PathBuf> = sources.to_vec();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            for entry in std::fs::read_dir(&path).with_context(|| path.display().to_string())? {
                waiting.push(entry?.path());
            }
            continue;
        }
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        push_expressions(&path, &text, &mut found)?;
    }
    Ok(found)
}

fn push_expressions(path: &Path, text: &str, found: &mut BTreeSet<String>) -> anyhow::Result<()> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("yml" | "yaml" | "rules") => {
            for group in crate::config::load_rules(path, super::DIALECT)? {
                found.extend(group.rules.iter().map(rules::Rule::query));
            }
        }
        Some("json") => {
            let dashboard: Value = serde_json::from_str(text).with_context(|| path.display().to_string())?;
            push_panels(&dashboard, found);
        }
        _ => {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            for line in lines {
                // A line of a query log is JSON.
                let logged: Option<Value> =
                    line.starts_with('{').then(|| serde_json::from_str(line).ok()).flatten();
                match logged.as_ref().and_then(|entry| entry["params"]["query"].as_str()) {
                    Some(query) => found.insert(query.to_owned()),
                    None => found.insert(line.to_owned()),
                };
            }
        }
    }
    Ok(())
}

/// Every `expr` of a dashboard, its variables replaced.
fn push_panels(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(expr) = map.get("expr").and_then(Value::as_str).filter(|expr| !expr.trim().is_empty())
            {
                found.insert(without_variables(expr));
            }
            map.values().for_each(|value| push_panels(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| push_panels(item, found)),
        _ => {}
    }
}

/// `$__rate_interval` and its like become five minutes, every other variable any text.
fn without_variables(expr: &str) -> String {
    let mut out = String::with_capacity(expr.len());
    let mut rest = expr;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, tail) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').unwrap_or((braced, "")),
            None => {
                after.split_at(after.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(after.len()))
            }
        };
        rest = tail;
        match name.split(':').next().unwrap_or_default() {
            "" => out.push('$'),
            "__range_s" | "__interval_ms" | "__range_ms" => out.push_str("300"),
            name if name.starts_with("__") || name.contains("interval") => out.push_str("5m"),
            _ => out.push_str(".*"),
        }
    }
    // A variable in place of a value means a pattern.
    (out + rest).replace("=\".*\"", "=~\".*\"")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_of_dashboards_are_replaced() {
        let expr = "rate(x{job=\"$job\",ns=~\"${ns:regex}\"}[$__rate_interval])";
        assert_eq!(without_variables(expr), "rate(x{job=~\".*\",ns=~\".*\"}[5m])");
        assert_eq!(
            without_variables("label_replace(x, \"a\", \"$\", \"b\", \"\")"),
            "label_replace(x, \"a\", \"$\", \"b\", \"\")"
        );
    }

    #[test]
    fn differences_are_found() {
        let answer = |value: &str, job: &str| {
            json!({"status": "success", "data": {"resultType": "vector", "result":
                [{"metric": {"job": job}, "value": [1, value]}]}})
        };
        assert!(differences(&answer("1", "a"), &answer("1.0000000001", "a"), 1e-9).is_empty());
        assert_eq!(differences(&answer("1", "a"), &answer("2", "a"), 1e-9).len(), 1);
        assert_eq!(differences(&answer("1", "a"), &answer("1", "b"), 1e-9).len(), 2);
        let refused = json!({"status": "error", "errorType": "bad_data", "error": "no"});
        assert_eq!(differences(&refused, &answer("1", "b"), 1e-9), ["here bad_data: no, there vector"]);
    }
}
