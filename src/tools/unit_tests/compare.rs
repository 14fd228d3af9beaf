//! What is expected against what is, and how the difference is told.

use std::collections::BTreeMap;

use model::duration::format_ms;
use model::{FloatHistogram, Labels, Quoted, ResetHint, Value, float};
use promql::series::SeriesValue;
use rules::{AlertState, AlertStatus};

use super::file::{AlertTest, ExprTest};

/// Labels and annotations of an alert.
type Alert = (BTreeMap<String, String>, BTreeMap<String, String>);

/// What is wrong with the alerts of one name at one time.
pub(super) fn alerts(test: &str, expected: &AlertTest, got: &[AlertStatus]) -> Option<String> {
    let name = &expected.alertname;
    let mut want: Vec<Alert> = expected
        .exp_alerts
        .iter()
        .map(|alert| {
            let mut labels = alert.exp_labels.clone();
            labels.insert("alertname".to_owned(), name.clone());
            (labels, alert.exp_annotations.clone())
        })
        .collect();
    let firing = got.iter().filter(|alert| alert.state == AlertState::Firing);
    let pairs = |labels: &Labels| labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let mut got: Vec<Alert> = firing.map(|alert| (pairs(&alert.labels), alert.annotations.clone())).collect();
    want.sort();
    got.sort();
    if want == got {
        return None;
    }
    let test = if test.is_empty() { String::new() } else { format!("    name: {test},\n") };
    let time = format_ms(expected.eval_time.0);
    Some(format!(
        "{test}    alertname: {name}, time: {time}, \n        exp:{}, \n        got:{}",
        list(&want),
        list(&got)
    ))
}

fn list(alerts: &[Alert]) -> String {
    if alerts.is_empty() {
        return "[]".to_owned();
    }
    let indent = " ".repeat(12);
    let shown: Vec<String> = alerts
        .iter()
        .enumerate()
        .map(|(at, (labels, annotations))| {
            format!(
                "{indent}{at}:\n{indent}  Labels:{}\n{indent}  Annotations:{}",
                pairs(labels),
                pairs(annotations)
            )
        })
        .collect();
    format!("[\n{}\n{indent}]", shown.join(",\n"))
}

/// `{a="1", b="2"}`
fn pairs(pairs: &BTreeMap<String, String>) -> String {
    let shown: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", Quoted(value))).collect();
    format!("{{{}}}", shown.join(", "))
}

/// What is wrong with the result of an expression.
pub(super) fn samples(
    expected: &ExprTest,
    got: Result<Vec<(Labels, Value)>, String>,
    fuzzy: bool,
) -> Option<String> {
    let time = format_ms(expected.eval_time.0);
    let failed =
        |error: &str| Some(format!("    expr: {}, time: {time}, err: {error}", Quoted(&expected.expr)));
    let mut got = match got {
        Ok(got) => got,
        Err(error) => return failed(&error),
    };
    let mut want = Vec::new();
    for sample in &expected.exp_samples {
        let parsed = if sample.labels.is_empty() {
            Ok((Labels::empty(), ""))
        } else {
            promql::series::parse_metric(&sample.labels)
        };
        let labels = match parsed {
            Ok((labels, rest)) if rest.trim().is_empty() => labels,
            Ok((_, rest)) => {
                return failed(&format!("labels {}: unexpected {rest:?}", Quoted(&sample.labels)));
            }
            Err(error) => return failed(&format!("labels {}: {error}", Quoted(&sample.labels))),
        };
        let value = match histogram(&sample.histogram) {
            Ok(histogram) => histogram.unwrap_or(Value::Float(sample.value.0)),
            Err(error) => return failed(&error),
        };
        want.push((labels, value));
    }
    want.sort_by(|a, b| a.0.cmp(&b.0));
    got.sort_by(|a, b| a.0.cmp(&b.0));
    let same = want.len() == got.len()
        && want.iter().zip(&got).all(|(want, got)| want.0 == got.0 && same_value(&want.1, &got.1, fuzzy));
    if same {
        return None;
    }
    let show = |samples: &[(Labels, Value)]| {
        let all: Vec<String> = samples.iter().map(show_sample).collect();
        if all.is_empty() { "nil".to_owned() } else { all.join(", ") }
    };
    let expr = Quoted(&expected.expr);
    Some(format!(
        "    expr: {expr}, time: {time},\n        exp: {}\n        got: {}",
        show(&want),
        show(&got)
    ))
}

fn histogram(text: &str) -> Result<Option<Value>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || format!("histogram {}: not one histogram", Quoted(text));
    let parsed = promql::series::parse(&format!("{{}} {text}")).map_err(|error| error.to_string())?;
    match parsed.values.into_iter().next() {
        Some(SeriesValue::Histogram(histogram, _)) => Ok(Some(Value::Histogram((*histogram).into()))),
        _ => Err(wrong()),
    }
}

fn show_sample((labels, value): &(Labels, Value)) -> String {
    let labels = labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    match value {
        Value::Float(value) => {
            format!("{} {}", pairs(&labels), float::format_scientific(*value).replace('e', "E"))
        }
        Value::Histogram(histogram) => format!("{} {}", pairs(&labels), show_histogram(histogram)),
    }
}

/// In the notation of series in tests; what has its default is left out.
fn show_histogram(histogram: &FloatHistogram) -> String {
    let mut parts = Vec::new();
    if histogram.schema != 0 {
        parts.push(format!("schema:{}", histogram.schema));
    }
    for (name, value) in [
        ("count", histogram.count),
        ("sum", histogram.sum),
        ("z_bucket", histogram.zero_count),
        ("z_bucket_w", histogram.zero_threshold),
    ] {
        if value != 0.0 {
            parts.push(format!("{name}:{}", float::format_general(value)));
        }
    }
    if !histogram.custom_values.is_empty() {
        parts.push(format!("custom_values:{}", numbers(&histogram.custom_values)));
    }
    match histogram.reset_hint {
        ResetHint::Unknown => {}
        ResetHint::Reset => parts.push("counter_reset_hint:reset".to_owned()),
        ResetHint::NotReset => parts.push("counter_reset_hint:not_reset".to_owned()),
        ResetHint::Gauge => parts.push("counter_reset_hint:gauge".to_owned()),
    }
    for (prefix, spans, counts) in [
        ("", &histogram.positive_spans, &histogram.positive),
        ("n_", &histogram.negative_spans, &histogram.negative),
    ] {
        let filled = buckets(spans, counts);
        let (Some(first), Some(last)) = (filled.keys().next(), filled.keys().last()) else { continue };
        if *first != 0 {
            parts.push(format!("{prefix}offset:{first}"));
        }
        let all: Vec<f64> = (*first..=*last).map(|at| filled.get(&at).copied().unwrap_or(0.0)).collect();
        parts.push(format!("{prefix}buckets:{}", numbers(&all)));
    }
    format!("{{{{{}}}}}", parts.join(" "))
}

fn numbers(values: &[f64]) -> String {
    let shown: Vec<String> = values.iter().map(|value| float::format_general(*value)).collect();
    format!("[{}]", shown.join(" "))
}

fn same_value(want: &Value, got: &Value, fuzzy: bool) -> bool {
    match (want, got) {
        (Value::Float(want), Value::Float(got)) => same_float(*want, *got, fuzzy),
        (Value::Histogram(want), Value::Histogram(got)) => same_histogram(want, got, fuzzy),
        _ => false,
    }
}

/// Equal, or, if `fuzzy`, neighbours.
fn same_float(want: f64, got: f64, fuzzy: bool) -> bool {
    want == got
        || want.is_nan() && got.is_nan()
        || fuzzy && (want.next_up() == got || want.next_down() == got)
}

fn same_histogram(want: &FloatHistogram, got: &FloatHistogram, fuzzy: bool) -> bool {
    let sides = |h: &FloatHistogram| {
        [buckets(&h.positive_spans, &h.positive), buckets(&h.negative_spans, &h.negative)]
    };
    let same = |want: f64, got: f64| same_float(want, got, fuzzy);
    let same_buckets = sides(want).iter().zip(&sides(got)).all(|(want, got)| {
        want.len() == got.len() && want.iter().zip(got).all(|(a, b)| a.0 == b.0 && same(*a.1, *b.1))
    });
    want.schema == got.schema
        && want.reset_hint == got.reset_hint
        && same(want.count, got.count)
        && same(want.sum, got.sum)
        && same(want.zero_count, got.zero_count)
        && same(want.zero_threshold, got.zero_threshold)
        && want.custom_values == got.custom_values
        && same_buckets
}

/// Buckets that are not empty, by index.
fn buckets(spans: &[model::Span], counts: &[f64]) -> BTreeMap<i32, f64> {
    let indexes = spans.iter().scan(0i32, |next, span| {
        let start = next.saturating_add(span.offset);
        *next = start.saturating_add_unsigned(span.length);
        Some(start..*next)
    });
    indexes.flatten().zip(counts.iter().copied()).filter(|(_, count)| *count != 0.0).collect()
}
