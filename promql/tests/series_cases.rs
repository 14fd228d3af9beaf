//! The shared cases of the notation of series.

#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub, reason = "a test may")]

mod support;

use std::collections::BTreeMap;

use model::Labels;
use promql::series::{self, SeriesValue};
use serde_json::Value;

/// A value as the cases write it, except for histograms.
fn shown(value: &SeriesValue) -> Value {
    match value {
        SeriesValue::Omitted => Value::Null,
        SeriesValue::Stale => "stale".into(),
        SeriesValue::Float(value) => model::float::format_general(*value).into(),
        SeriesValue::Histogram(h, _) => h.schema.into(),
    }
}

#[test]
fn agree_with_prometheus() {
    let Some(path) = support::shared("PYROMETER_PARSER_DIR", "parser") else { return };
    for line in std::fs::read_to_string(path.join("series.jsonl")).unwrap().lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let text = case["series"].as_str().unwrap();
        let got = series::parse(text);
        assert_eq!(got.is_ok(), case["ok"].as_bool().unwrap(), "{text}: {got:?}");
        let Ok(got) = got else { continue };
        let labels: BTreeMap<String, String> = serde_json::from_value(case["labels"].clone()).unwrap();
        assert_eq!(got.labels, Labels::from_pairs(&labels), "{text}");
        let wanted = case["values"].as_array().unwrap().iter().map(|value| match value {
            Value::Object(histogram) => histogram["schema"].clone(),
            other => other.clone(),
        });
        assert_eq!(got.values.iter().map(shown).collect::<Vec<_>>(), wanted.collect::<Vec<_>>(), "{text}");
    }
}
