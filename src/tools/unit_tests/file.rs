//! A file of rule unit tests, in promtool's format.

use std::collections::BTreeMap;

use rules::Unknown;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;
use serde_saphyr::Spanned;

/// Reads the text of a file.
pub(super) fn parse(text: &str, unknown: Unknown) -> anyhow::Result<File> {
    let strictly = |text: &str| {
        serde_saphyr::from_str::<File>(text).map_err(|error| {
            let line = error.location().map_or(0, |location| location.line());
            anyhow::anyhow!("line {line}: {}", error.without_snippet())
        })
    };
    match strictly(text) {
        Err(error) if unknown == Unknown::Ignored && error.to_string().contains("unknown field") => {
            let all: Value = serde_saphyr::from_str(text).map_err(|error| anyhow::anyhow!("{error}"))?;
            strictly(&known(all, "file").to_string())
        }
        parsed => parsed,
    }
}

/// The fields of a section that are known; those that hold sections in turn with the kind of these.
const FIELDS: &[(&str, &[(&str, &str)])] = &[
    (
        "file",
        &[
            ("rule_files", ""),
            ("evaluation_interval", ""),
            ("group_eval_order", ""),
            ("fuzzy_compare", ""),
            ("tests", "test"),
        ],
    ),
    (
        "test",
        &[
            ("name", ""),
            ("interval", ""),
            ("start_timestamp", ""),
            ("input_series", "series"),
            ("alert_rule_test", "alert"),
            ("promql_expr_test", "expression"),
            ("external_labels", ""),
            ("external_url", ""),
        ],
    ),
    ("series", &[("series", ""), ("values", "")]),
    ("alert", &[("eval_time", ""), ("alertname", ""), ("exp_alerts", "expected")]),
    ("expected", &[("exp_labels", ""), ("exp_annotations", "")]),
    ("expression", &[("expr", ""), ("eval_time", ""), ("exp_samples", "sample")]),
    ("sample", &[("labels", ""), ("value", ""), ("histogram", "")]),
];

/// A section with the fields alone that are known.
fn known(section: Value, kind: &str) -> Value {
    let Some((_, fields)) = FIELDS.iter().find(|(name, _)| *name == kind) else { return section };
    match section {
        Value::Array(items) => items.into_iter().map(|item| known(item, kind)).collect(),
        Value::Object(map) => {
            let field = |(key, value): (String, Value)| {
                let (_, kind) = fields.iter().find(|(name, _)| *name == key)?;
                Some((key, known(value, kind)))
            };
            Value::Object(map.into_iter().filter_map(field).collect())
        }
        other => other,
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) rule_files: Vec<String>,
    #[serde(default)]
    pub(super) evaluation_interval: Option<Duration>,
    #[serde(default)]
    pub(super) group_eval_order: Vec<String>,
    #[serde(default)]
    pub(super) fuzzy_compare: bool,
    #[serde(default)]
    pub(super) tests: Vec<Test>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Test {
    pub(super) name: String,
    pub(super) interval: Option<Duration>,
    pub(super) start_timestamp: Time,
    pub(super) input_series: Vec<InputSeries>,
    pub(super) alert_rule_test: Vec<AlertTest>,
    pub(super) promql_expr_test: Vec<ExprTest>,
    pub(super) external_labels: BTreeMap<String, String>,
    pub(super) external_url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputSeries {
    pub(super) series: Spanned<String>,
    #[serde(default)]
    pub(super) values: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AlertTest {
    pub(super) eval_time: Duration,
    pub(super) alertname: String,
    pub(super) exp_alerts: Vec<ExpectedAlert>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ExpectedAlert {
    pub(super) exp_labels: BTreeMap<String, String>,
    pub(super) exp_annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ExprTest {
    pub(super) expr: String,
    pub(super) eval_time: Duration,
    pub(super) exp_samples: Vec<ExpectedSample>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ExpectedSample {
    pub(super) labels: String,
    pub(super) value: Number,
    pub(super) histogram: String,
}

/// A duration such as `1m30s`, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Duration(pub(super) i64);

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        model::duration::parse_ms(&text).map(Self).map_err(D::Error::custom)
    }
}

/// A time as seconds or in RFC 3339, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Time(pub(super) i64);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        crate::tools::parse_time(&text).map(Self).map_err(D::Error::custom)
    }
}

/// A float in any of Go's forms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Number(pub(super) f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let plain = text.trim_start_matches('.');
        let value = match plain.to_ascii_lowercase().as_str() {
            "inf" | "+inf" => Some(f64::INFINITY),
            "-inf" | "-.inf" => Some(f64::NEG_INFINITY),
            "nan" => Some(f64::NAN),
            _ => model::float::parse(&text),
        };
        value.map(Self).ok_or_else(|| D::Error::custom(format!("{text:?} is not a number")))
    }
}
