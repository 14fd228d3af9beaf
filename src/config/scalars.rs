//! Values with a grammar of their own. Each checks itself while it is read, so that a mistake is
//! reported with its line.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, de::Error as _};

/// A duration such as `1m30s`, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Duration(pub(crate) i64);

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        model::duration::parse_ms(&text).map(Self).map_err(D::Error::custom)
    }
}

/// A size such as `15MB`; units are powers of 1024. 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_bytes(&text).map(Self).map_err(D::Error::custom)
    }
}

/// Reads a size: digits, perhaps a fraction, and a unit from `B` to `EB` or `EiB`. `0` needs none.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];
    if text == "0" || text.is_empty() {
        return Ok(0);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let letter = unit.strip_suffix("iB").or_else(|| unit.strip_suffix('B'));
    let power = letter.and_then(|letter| UNITS.iter().position(|unit| *unit == letter));
    let power = power.ok_or_else(|| format!("units: unknown unit {unit} in {text}"))?;
    let number = f64::from_str(number).map_err(|_| format!("{text:?} is not a size"))?;
    let bytes = number * 1024f64.powi(i32::try_from(power).unwrap_or(0));
    if bytes >= 9.2e18 {
        return Err(format!("{text:?} is too large"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and bounded")]
    Ok(bytes as u64)
}

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scheme(pub(crate) scraper::config::Scheme);

impl<'de> Deserialize<'de> for Scheme {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "http" => Ok(Self(scraper::config::Scheme::Http)),
            "https" => Ok(Self(scraper::config::Scheme::Https)),
            other => Err(D::Error::custom(format!("scheme must be 'http' or 'https', not {other:?}"))),
        }
    }
}

/// `legacy` or `utf8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameScheme(pub(crate) scraper::config::NameScheme);

impl<'de> Deserialize<'de> for NameScheme {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "legacy" => Ok(Self(scraper::config::NameScheme::Legacy)),
            "utf8" | "" => Ok(Self(scraper::config::NameScheme::Utf8)),
            other => Err(D::Error::custom(format!("unrecognized ValidationScheme: {other:?}"))),
        }
    }
}

/// The name of an exposition format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocol(pub(crate) scraper::exposition::Format);

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use scraper::exposition::Format;
        let format = match String::deserialize(deserializer)?.as_str() {
            "PrometheusText0.0.4" => Format::Text004,
            "PrometheusText1.0.0" => Format::Text100,
            "OpenMetricsText0.0.1" => Format::OpenMetrics001,
            "OpenMetricsText1.0.0" => Format::OpenMetrics100,
            "PrometheusProto" => Format::Protobuf,
            other => {
                return Err(D::Error::custom(format!(
                    "unknown scrape protocol {other}, supported: [OpenMetricsText0.0.1 OpenMetricsText1.0.0 \
                     PrometheusProto PrometheusText0.0.4 PrometheusText1.0.0]"
                )));
            }
        };
        Ok(Self(format))
    }
}
