//! A file of rule unit tests, in promtool's format.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_saphyr::Spanned;

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
