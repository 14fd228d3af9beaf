//! OTLP's metrics request, from protobuf or JSON.
//!
//! Source: `opentelemetry/proto/metrics/v1/metrics.proto` and the OTLP specification, field by field.
//! Unknown fields are skipped, as both encodings demand.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::wire::{Content, Fields, WireError, packed, packed_doubles};

/// `ExportMetricsServiceRequest`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Request {
    pub(super) resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ResourceMetrics {
    pub(super) resource: Resource,
    pub(super) scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Resource {
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ScopeMetrics {
    pub(super) scope: Scope,
    pub(super) metrics: Vec<Metric>,
    pub(super) schema_url: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Scope {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metric {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) gauge: Option<Numbers>,
    pub(super) sum: Option<Numbers>,
    pub(super) histogram: Option<Histograms>,
    pub(super) exponential_histogram: Option<Exponentials>,
    pub(super) summary: Option<Summaries>,
}

/// `Gauge`, and `Sum` with its two fields more.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Numbers {
    pub(super) data_points: Vec<NumberPoint>,
    pub(super) aggregation_temporality: Temporality,
    pub(super) is_monotonic: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Histograms {
    pub(super) data_points: Vec<HistogramPoint>,
    pub(super) aggregation_temporality: Temporality,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Exponentials {
    pub(super) data_points: Vec<ExponentialPoint>,
    pub(super) aggregation_temporality: Temporality,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Summaries {
    pub(super) data_points: Vec<SummaryPoint>,
}

/// How points of one series relate to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Temporality {
    #[default]
    Unspecified,
    Delta,
    Cumulative,
}

impl Temporality {
    fn of(number: u64) -> Self {
        match number {
            1 => Self::Delta,
            2 => Self::Cumulative,
            _ => Self::Unspecified,
        }
    }
}

/// What all kinds of points have.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Common {
    pub(super) attributes: Vec<KeyValue>,
    #[serde(deserialize_with = "unsigned")]
    pub(super) time_unix_nano: u64,
    pub(super) flags: u32,
    pub(super) exemplars: Vec<Exemplar>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NumberPoint {
    #[serde(flatten)]
    pub(super) common: Common,
    #[serde(deserialize_with = "float")]
    pub(super) as_double: Option<f64>,
    #[serde(deserialize_with = "maybe_signed")]
    pub(super) as_int: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HistogramPoint {
    #[serde(flatten)]
    pub(super) common: Common,
    #[serde(deserialize_with = "unsigned")]
    pub(super) count: u64,
    #[serde(deserialize_with = "float")]
    pub(super) sum: Option<f64>,
    #[serde(deserialize_with = "unsigned_list")]
    pub(super) bucket_counts: Vec<u64>,
    pub(super) explicit_bounds: Vec<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ExponentialPoint {
    #[serde(flatten)]
    pub(super) common: Common,
    #[serde(deserialize_with = "unsigned")]
    pub(super) count: u64,
    #[serde(deserialize_with = "float")]
    pub(super) sum: Option<f64>,
    pub(super) scale: i32,
    #[serde(deserialize_with = "unsigned")]
    pub(super) zero_count: u64,
    pub(super) positive: Buckets,
    pub(super) negative: Buckets,
    #[serde(deserialize_with = "float")]
    pub(super) zero_threshold: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Buckets {
    pub(super) offset: i32,
    #[serde(deserialize_with = "unsigned_list")]
    pub(super) bucket_counts: Vec<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SummaryPoint {
    #[serde(flatten)]
    pub(super) common: Common,
    #[serde(deserialize_with = "unsigned")]
    pub(super) count: u64,
    #[serde(deserialize_with = "float")]
    pub(super) sum: Option<f64>,
    pub(super) quantile_values: Vec<Quantile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Quantile {
    pub(super) quantile: f64,
    #[serde(deserialize_with = "float")]
    pub(super) value: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Exemplar {
    pub(super) filtered_attributes: Vec<KeyValue>,
    #[serde(deserialize_with = "unsigned")]
    pub(super) time_unix_nano: u64,
    #[serde(deserialize_with = "float")]
    pub(super) as_double: Option<f64>,
    #[serde(deserialize_with = "maybe_signed")]
    pub(super) as_int: Option<i64>,
    /// In hexadecimal.
    pub(super) span_id: String,
    /// In hexadecimal.
    pub(super) trace_id: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct KeyValue {
    pub(super) key: String,
    pub(super) value: AnyValue,
}

/// A value as the text of a label.
#[derive(Clone, Debug, Default)]
pub(super) struct AnyValue(pub(super) String);

/// `AnyValue` of JSON.
#[derive(Deserialize)]
enum JsonValue {
    #[serde(rename = "stringValue", alias = "bytesValue")]
    Text(String),
    #[serde(rename = "boolValue")]
    Bool(bool),
    #[serde(rename = "doubleValue")]
    Double(f64),
    #[serde(rename = "intValue", alias = "arrayValue", alias = "kvlistValue")]
    Other(serde_json::Value),
}

impl<'de> Deserialize<'de> for AnyValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match JsonValue::deserialize(deserializer)? {
            JsonValue::Text(text) => text,
            JsonValue::Bool(value) => value.to_string(),
            JsonValue::Double(value) => model::float::format_fixed(value),
            JsonValue::Other(value) => text_of(&value),
        }))
    }
}

impl<'de> Deserialize<'de> for Temporality {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) if text.ends_with("_DELTA") => Self::Delta,
            serde_json::Value::String(text) if text.ends_with("_CUMULATIVE") => Self::Cumulative,
            value => Self::of(value.as_u64().unwrap_or(0)),
        })
    }
}

/// 64-bit numbers are texts in JSON; plain numbers are taken too.
fn unsigned<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    number.ok_or_else(|| D::Error::custom(format!("{value} is not an unsigned number")))
}

fn unsigned_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    let values = Vec::<serde_json::Value>::deserialize(deserializer)?;
    let number = |value: &serde_json::Value| {
        value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()))
    };
    let all: Option<Vec<u64>> = values.iter().map(number).collect();
    all.ok_or_else(|| D::Error::custom("a list of unsigned numbers has something else in it"))
}

fn maybe_signed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let number = value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    number.map(Some).ok_or_else(|| D::Error::custom(format!("{value} is not a whole number")))
}

fn float<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let number = match value.as_str() {
        Some("NaN") => Some(f64::NAN),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        Some(text) => text.parse().ok(),
        None => value.as_f64(),
    };
    number.map(Some).ok_or_else(|| D::Error::custom(format!("{value} is not a number")))
}

/// Reads a message; `take` is shown each field.
fn read<'a, T: Default>(
    bytes: &'a [u8],
    mut take: impl FnMut(&mut T, u32, Content<'a>) -> Result<(), WireError>,
) -> Result<T, WireError> {
    let mut message = T::default();
    let mut fields = Fields::new(bytes);
    while let Some((number, content)) = fields.next()? {
        take(&mut message, number, content)?;
    }
    Ok(message)
}

impl Request {
    pub(super) fn of_protobuf(bytes: &[u8]) -> Result<Self, WireError> {
        read(bytes, |this: &mut Self, number, content| {
            if number == 1 {
                this.resource_metrics.push(resource_metrics(content.bytes()?)?);
            }
            Ok(())
        })
    }
}

fn resource_metrics(bytes: &[u8]) -> Result<ResourceMetrics, WireError> {
    read(bytes, |this: &mut ResourceMetrics, number, content| {
        match number {
            1 => {
                this.resource = read(content.bytes()?, |this: &mut Resource, number, content| {
                    if number == 1 {
                        this.attributes.push(key_value(content.bytes()?)?);
                    }
                    Ok(())
                })?;
            }
            2 => this.scope_metrics.push(scope_metrics(content.bytes()?)?),
            _ => {}
        }
        Ok(())
    })
}

fn scope_metrics(bytes: &[u8]) -> Result<ScopeMetrics, WireError> {
    read(bytes, |this: &mut ScopeMetrics, number, content| {
        match number {
            1 => {
                this.scope = read(content.bytes()?, |this: &mut Scope, number, content| {
                    match number {
                        1 => this.name = content.text()?.to_owned(),
                        2 => this.version = content.text()?.to_owned(),
                        3 => this.attributes.push(key_value(content.bytes()?)?),
                        _ => {}
                    }
                    Ok(())
                })?;
            }
            2 => this.metrics.push(metric(content.bytes()?)?),
            3 => this.schema_url = content.text()?.to_owned(),
            _ => {}
        }
        Ok(())
    })
}

fn metric(bytes: &[u8]) -> Result<Metric, WireError> {
    read(bytes, |this: &mut Metric, number, content| {
        match number {
            1 => this.name = content.text()?.to_owned(),
            3 => this.unit = content.text()?.to_owned(),
            5 => this.gauge = Some(numbers(content.bytes()?)?),
            7 => this.sum = Some(numbers(content.bytes()?)?),
            9 => {
                this.histogram = Some(read(content.bytes()?, |this: &mut Histograms, number, content| {
                    match number {
                        1 => this.data_points.push(histogram_point(content.bytes()?)?),
                        2 => this.aggregation_temporality = Temporality::of(content.uint64()?),
                        _ => {}
                    }
                    Ok(())
                })?);
            }
            10 => {
                this.exponential_histogram =
                    Some(read(content.bytes()?, |this: &mut Exponentials, number, content| {
                        match number {
                            1 => this.data_points.push(exponential_point(content.bytes()?)?),
                            2 => this.aggregation_temporality = Temporality::of(content.uint64()?),
                            _ => {}
                        }
                        Ok(())
                    })?);
            }
            11 => {
                this.summary = Some(read(content.bytes()?, |this: &mut Summaries, number, content| {
                    if number == 1 {
                        this.data_points.push(summary_point(content.bytes()?)?);
                    }
                    Ok(())
                })?);
            }
            _ => {}
        }
        Ok(())
    })
}

fn numbers(bytes: &[u8]) -> Result<Numbers, WireError> {
    read(bytes, |this: &mut Numbers, number, content| {
        match number {
            1 => this.data_points.push(number_point(content.bytes()?)?),
            2 => this.aggregation_temporality = Temporality::of(content.uint64()?),
            3 => this.is_monotonic = content.uint64()? != 0,
            _ => {}
        }
        Ok(())
    })
}

fn fixed64(content: Content<'_>) -> Result<u64, WireError> {
    Ok(content.double()?.to_bits())
}

fn number_point(bytes: &[u8]) -> Result<NumberPoint, WireError> {
    read(bytes, |this: &mut NumberPoint, number, content| {
        match number {
            3 => this.common.time_unix_nano = fixed64(content)?,
            4 => this.as_double = Some(content.double()?),
            5 => this.common.exemplars.push(exemplar(content.bytes()?)?),
            6 => this.as_int = Some(fixed64(content)?.cast_signed()),
            7 => this.common.attributes.push(key_value(content.bytes()?)?),
            8 => this.common.flags = content.uint32()?,
            _ => {}
        }
        Ok(())
    })
}

/// Packed or single 64-bit numbers of fixed width.
fn fixed_list(content: Content<'_>, out: &mut Vec<u64>) -> Result<(), WireError> {
    let mut doubles = Vec::new();
    packed_doubles(content, &mut doubles)?;
    out.extend(doubles.iter().map(|value| value.to_bits()));
    Ok(())
}

fn histogram_point(bytes: &[u8]) -> Result<HistogramPoint, WireError> {
    read(bytes, |this: &mut HistogramPoint, number, content| {
        match number {
            3 => this.common.time_unix_nano = fixed64(content)?,
            4 => this.count = fixed64(content)?,
            5 => this.sum = Some(content.double()?),
            6 => fixed_list(content, &mut this.bucket_counts)?,
            7 => packed_doubles(content, &mut this.explicit_bounds)?,
            8 => this.common.exemplars.push(exemplar(content.bytes()?)?),
            9 => this.common.attributes.push(key_value(content.bytes()?)?),
            10 => this.common.flags = content.uint32()?,
            _ => {}
        }
        Ok(())
    })
}

fn exponential_point(bytes: &[u8]) -> Result<ExponentialPoint, WireError> {
    read(bytes, |this: &mut ExponentialPoint, number, content| {
        match number {
            1 => this.common.attributes.push(key_value(content.bytes()?)?),
            3 => this.common.time_unix_nano = fixed64(content)?,
            4 => this.count = fixed64(content)?,
            5 => this.sum = Some(content.double()?),
            6 => this.scale = content.sint32()?,
            7 => this.zero_count = fixed64(content)?,
            8 => this.positive = buckets(content.bytes()?)?,
            9 => this.negative = buckets(content.bytes()?)?,
            10 => this.common.flags = content.uint32()?,
            11 => this.common.exemplars.push(exemplar(content.bytes()?)?),
            14 => this.zero_threshold = Some(content.double()?),
            _ => {}
        }
        Ok(())
    })
}

fn buckets(bytes: &[u8]) -> Result<Buckets, WireError> {
    read(bytes, |this: &mut Buckets, number, content| {
        match number {
            1 => this.offset = content.sint32()?,
            2 => packed(content, &mut this.bucket_counts, |count| count)?,
            _ => {}
        }
        Ok(())
    })
}

fn summary_point(bytes: &[u8]) -> Result<SummaryPoint, WireError> {
    read(bytes, |this: &mut SummaryPoint, number, content| {
        match number {
            3 => this.common.time_unix_nano = fixed64(content)?,
            4 => this.count = fixed64(content)?,
            5 => this.sum = Some(content.double()?),
            6 => this.quantile_values.push(quantile(content.bytes()?)?),
            7 => this.common.attributes.push(key_value(content.bytes()?)?),
            8 => this.common.flags = content.uint32()?,
            _ => {}
        }
        Ok(())
    })
}

fn quantile(bytes: &[u8]) -> Result<Quantile, WireError> {
    read(bytes, |this: &mut Quantile, number, content| {
        match number {
            1 => this.quantile = content.double()?,
            2 => this.value = Some(content.double()?),
            _ => {}
        }
        Ok(())
    })
}

fn exemplar(bytes: &[u8]) -> Result<Exemplar, WireError> {
    read(bytes, |this: &mut Exemplar, number, content| {
        match number {
            2 => this.time_unix_nano = fixed64(content)?,
            3 => this.as_double = Some(content.double()?),
            4 => this.span_id = hex(content.bytes()?),
            5 => this.trace_id = hex(content.bytes()?),
            6 => this.as_int = Some(fixed64(content)?.cast_signed()),
            7 => this.filtered_attributes.push(key_value(content.bytes()?)?),
            _ => {}
        }
        Ok(())
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key_value(bytes: &[u8]) -> Result<KeyValue, WireError> {
    read(bytes, |this: &mut KeyValue, number, content| {
        match number {
            1 => this.key = content.text()?.to_owned(),
            2 => this.value = AnyValue(text_of(&any_value(content.bytes()?, 0)?)),
            _ => {}
        }
        Ok(())
    })
}

/// Values may hold values; deeper than this they are refused.
const VALUE_DEPTH_MAX: usize = 16;

/// `AnyValue` as JSON, which is how lists and maps become the text of a label.
fn any_value(bytes: &[u8], depth: usize) -> Result<serde_json::Value, WireError> {
    use serde_json::Value;
    if depth > VALUE_DEPTH_MAX {
        return Err(WireError::new("an attribute is nested too deeply"));
    }
    let mut value = Value::Null;
    let mut fields = Fields::new(bytes);
    while let Some((number, content)) = fields.next()? {
        value = match number {
            1 => Value::String(content.text()?.to_owned()),
            2 => Value::Bool(content.uint64()? != 0),
            3 => Value::from(content.int64()?),
            4 => Value::String(model::float::format_fixed(content.double()?)),
            5 => {
                let mut list = Vec::new();
                let mut values = Fields::new(content.bytes()?);
                while let Some((1, item)) = values.next()? {
                    list.push(any_value(item.bytes()?, depth + 1)?);
                }
                Value::Array(list)
            }
            6 => {
                let mut map = serde_json::Map::new();
                let mut values = Fields::new(content.bytes()?);
                while let Some((1, item)) = values.next()? {
                    let (mut key, mut inner) = (String::new(), Value::Null);
                    let mut pair = Fields::new(item.bytes()?);
                    while let Some((number, content)) = pair.next()? {
                        match number {
                            1 => key = content.text()?.to_owned(),
                            2 => inner = any_value(content.bytes()?, depth + 1)?,
                            _ => {}
                        }
                    }
                    map.insert(key, inner);
                }
                Value::Object(map)
            }
            7 => Value::String(base64(content.bytes()?)),
            _ => value,
        };
    }
    Ok(value)
}

fn text_of(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
