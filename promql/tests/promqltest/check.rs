//! Answers against expectations.

use std::collections::BTreeMap;

use model::{FloatHistogram, Labels, Sample, Value};
use promql::series::{self, SeriesValue};
use promql::{Outcome, QueryError, QueryValue};

use super::script::{Annotations, Eval, Text};

/// What is wrong.
pub type Fault = String;

/// Whether two floats are equal as far as scripts can tell.
fn close(a: f64, b: f64) -> bool {
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan();
    }
    a == b || (a - b).abs() / (a.abs() + b.abs()).min(f64::MAX) < 1e-6
}

pub fn buckets(spans: &[model::Span], counts: &[f64]) -> BTreeMap<i32, f64> {
    let mut out = BTreeMap::new();
    let (mut index, mut counts) = (0, counts.iter());
    for span in spans {
        index += span.offset;
        for _ in 0..span.length {
            let count = *counts.next().unwrap();
            if count != 0.0 {
                out.insert(index, count);
            }
            index += 1;
        }
    }
    out
}

fn same_histogram(got: &FloatHistogram, want: &FloatHistogram, hinted: bool) -> bool {
    let sides = |h: &FloatHistogram| {
        [buckets(&h.positive_spans, &h.positive), buckets(&h.negative_spans, &h.negative)]
    };
    let same_buckets = sides(got).iter().zip(sides(want)).all(|(got, want)| {
        got.len() == want.len() && got.iter().zip(&want).all(|(a, b)| a.0 == b.0 && close(*a.1, *b.1))
    });
    got.schema == want.schema
        && close(got.count, want.count)
        && close(got.sum, want.sum)
        && close(got.zero_count, want.zero_count)
        && close(got.zero_threshold, want.zero_threshold)
        && got.custom_values == want.custom_values
        && same_buckets
        && (!hinted || got.reset_hint == want.reset_hint)
}

fn same_value(got: &Value, want: &SeriesValue) -> bool {
    match (got, want) {
        (Value::Float(got), SeriesValue::Float(want)) => close(*got, *want),
        (Value::Histogram(got), SeriesValue::Histogram(want, hinted)) => same_histogram(got, want, *hinted),
        _ => false,
    }
}

/// Expected series with their values by step.
type Expected = Vec<(Labels, Vec<SeriesValue>)>;

fn expected(eval: &Eval) -> Result<Expected, Fault> {
    eval.expected
        .iter()
        .map(|line| {
            let series = series::parse(line).map_err(|error| format!("{line}: {error}"))?;
            Ok((series.labels, series.values))
        })
        .collect()
}

/// Checks an answer to the question as it was asked.
pub fn check(eval: &Eval, answer: &Result<Outcome, QueryError>) -> Result<(), Fault> {
    let outcome = match (answer, &eval.fail) {
        (Err(error), Some(text)) => {
            let message = error.to_string();
            return if text.fits(&message) {
                Ok(())
            } else {
                Err(format!("failed with {message:?}, want {text:?}"))
            };
        }
        (Err(error), None) => return Err(format!("failed with {error}")),
        (Ok(outcome), Some(_)) => return Err(format!("succeeded: {:?}", outcome.value)),
        (Ok(outcome), None) => outcome,
    };
    annotations("warnings", &eval.warnings, &outcome.warnings)?;
    annotations("infos", &eval.infos, &outcome.infos)?;
    if let Some(wanted) = &eval.string {
        let literal = promql::parse(wanted, &promql::ParseOptions::default()).map(|expr| expr.kind.clone());
        return match (&outcome.value, literal) {
            (QueryValue::String { text, .. }, Ok(promql::ExprKind::String(wanted))) if *text == wanted => {
                Ok(())
            }
            (other, _) => Err(format!("{other:?}, want string {wanted:?}")),
        };
    }
    match &outcome.value {
        QueryValue::Scalar { value, .. } => scalar(eval, *value),
        QueryValue::String { text, .. } => Err(format!("string {text:?}")),
        QueryValue::Vector(samples) => {
            let samples: Vec<_> = samples.iter().map(|s| (s.labels.clone(), s.value.clone())).collect();
            vector(eval, &samples, eval.ordered)
        }
        QueryValue::Matrix(series) => {
            let series: Vec<_> =
                series.iter().map(|s| (s.labels.clone(), s.samples.iter().collect())).collect();
            matrix(eval, &series)
        }
    }
}

fn annotations(class: &str, wanted: &Annotations, got: &[String]) -> Result<(), Fault> {
    if wanted.none && !got.is_empty() {
        return Err(format!("unexpected {class} {got:?}"));
    }
    if wanted.some && got.is_empty() {
        return Err(format!("no {class}"));
    }
    for text in &wanted.texts {
        if !got.iter().any(|got| text.fits(got)) {
            return Err(format!("{class} {got:?}, want {text:?}"));
        }
    }
    let stray = got.iter().find(|got| !wanted.texts.iter().any(|text: &Text| text.fits(got)));
    match stray {
        Some(stray) if !wanted.texts.is_empty() => Err(format!("unexpected one of {class}: {stray:?}")),
        _ => Ok(()),
    }
}

pub fn scalar(eval: &Eval, value: f64) -> Result<(), Fault> {
    let wanted = eval.expected.first().map_or("", String::as_str);
    match promql::parse(wanted, &promql::ParseOptions::default()).map(|e| e.kind.clone()) {
        Ok(promql::ExprKind::Number(number)) if close(number.value, value) => Ok(()),
        _ => Err(format!("scalar {value}, want {wanted}")),
    }
}

/// Checks one value a series.
pub fn vector(eval: &Eval, got: &[(Labels, Value)], ordered: bool) -> Result<(), Fault> {
    let wanted = expected(eval)?;
    let shown = || format!("got {got:?}\n      want {:?}", eval.expected);
    if got.len() != wanted.len() {
        return Err(format!("{} series, want {}: {}", got.len(), wanted.len(), shown()));
    }
    for (at, (labels, values)) in wanted.iter().enumerate() {
        let found = if ordered {
            got.get(at).filter(|g| g.0 == *labels)
        } else {
            got.iter().find(|g| g.0 == *labels)
        };
        let Some((_, value)) = found else { return Err(format!("no {labels}: {}", shown())) };
        if !same_value(value, &values[0]) {
            return Err(format!("{labels} differs: {}", shown()));
        }
    }
    Ok(())
}

fn matrix(eval: &Eval, got: &[(Labels, Vec<Sample>)]) -> Result<(), Fault> {
    if let ([(labels, samples)], Some(line)) = (got, eval.expected.first()) {
        // A scalar at every step is written as a list of numbers.
        if labels.is_empty()
            && !line.starts_with('{')
            && line.starts_with(|c: char| c.is_ascii_digit() || "-+.".contains(c))
        {
            return samples.iter().try_for_each(|s| match s.value {
                Value::Float(value) => scalar(eval, value),
                Value::Histogram(_) => Err("histogram".to_owned()),
            });
        }
    }
    if !got.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(format!("not sorted: {got:?}"));
    }
    let wanted = expected(eval)?;
    let shown = || format!("got {got:?}\n      want {:?}", eval.expected);
    if got.len() != wanted.len() {
        return Err(format!("{} series, want {}: {}", got.len(), wanted.len(), shown()));
    }
    let (start, _, step) = eval.range_vector.unwrap_or((eval.start_ms, eval.end_ms, eval.step_ms));
    for (labels, values) in &wanted {
        let Some((_, samples)) = got.iter().find(|g| g.0 == *labels) else {
            return Err(format!("no {labels}: {}", shown()));
        };
        let present = values.iter().enumerate().filter(|(_, value)| **value != SeriesValue::Omitted);
        let present: Vec<_> = present.map(|(at, value)| (start + at as i64 * step, value)).collect();
        if present.len() != samples.len() {
            return Err(format!(
                "{labels} has {} samples, want {}: {}",
                samples.len(),
                present.len(),
                shown()
            ));
        }
        for ((ts, want), got) in present.iter().zip(samples) {
            if *ts != got.ts || !same_value(&got.value, want) {
                return Err(format!("{labels} at {ts}: {}", shown()));
            }
        }
    }
    Ok(())
}
