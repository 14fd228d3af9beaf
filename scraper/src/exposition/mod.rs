//! The exposition formats, parsed without copying.
//!
//! A parser hands out [`Event`]s that borrow from the page. The labels of a sample are not taken apart:
//! a sample carries the bytes in front of its value, which name its series as long as the page's type
//! lines stay the same, and [`series_labels`] takes them apart for whom they are new. A caller that
//! knows what bytes to expect may say so ([`Parser::next`]), and the parser then trusts that they are
//! well-formed, since they were when they were first seen.
//!
//! Protobuf pages take the same road, with names in a form of their own: their labels as they are in the messages.

use std::borrow::Cow;

use model::HistogramValue;

mod created;
mod lexis;
mod open_metrics;
mod protobuf;
mod text;
mod wire;

pub use lexis::{LabelPair, series_labels, unescape_help};

use created::StartTimes;
use open_metrics::OpenMetrics;
use protobuf::Protobuf;
use text::Text;

/// A format of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Classic text, names in the classic grammar.
    Text004,
    /// Classic text with quoted UTF-8 names.
    Text100,
    /// OpenMetrics 0.0.1.
    OpenMetrics001,
    /// OpenMetrics 1.0.0.
    OpenMetrics100,
    /// Length-delimited `io.prometheus.client.MetricFamily` messages.
    Protobuf,
}

impl Format {
    /// What is asked for where nothing is configured, the best first.
    pub const DEFAULT_ORDER: [Self; 4] =
        [Self::OpenMetrics100, Self::OpenMetrics001, Self::Text100, Self::Text004];

    /// What is asked for where nothing is configured but that native histograms are wanted.
    pub const NATIVE_ORDER: [Self; 5] =
        [Self::Protobuf, Self::OpenMetrics100, Self::OpenMetrics001, Self::Text100, Self::Text004];

    /// The media type that asks for the format, without a quality.
    #[must_use]
    pub fn accept(self) -> &'static str {
        match self {
            Self::Text004 => "text/plain;version=0.0.4",
            Self::Text100 => "text/plain;version=1.0.0;escaping=allow-utf-8",
            Self::OpenMetrics001 => "application/openmetrics-text;version=0.0.1",
            Self::OpenMetrics100 => "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
        }
    }

    /// The format that a `Content-Type` header names, if it names one.
    #[must_use]
    pub fn of_content_type(header: &str) -> Option<Self> {
        let mut parts = header.split(';').map(str::trim);
        let media = parts.next()?.to_ascii_lowercase();
        let parameter = |name: &str| {
            let mut pairs = parts.clone().filter_map(|part| part.split_once('='));
            pairs
                .find(|(key, _)| key.trim().eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim().trim_matches('"'))
        };
        match media.as_str() {
            "text/plain" => {
                Some(if parameter("version") == Some("1.0.0") { Self::Text100 } else { Self::Text004 })
            }
            "application/openmetrics-text" => Some(match parameter("version") {
                Some("1.0.0") => Self::OpenMetrics100,
                _ => Self::OpenMetrics001,
            }),
            "application/vnd.google.protobuf" => {
                let delimited = parameter("encoding") == Some("delimited");
                let family = parameter("proto") == Some("io.prometheus.client.MetricFamily");
                (delimited && family).then_some(Self::Protobuf)
            }
            _ => None,
        }
    }
}

/// The type of a metric family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MetricType {
    /// Not said.
    #[default]
    Unknown,
    /// Counter.
    Counter,
    /// Gauge.
    Gauge,
    /// Histogram.
    Histogram,
    /// Gauge histogram.
    GaugeHistogram,
    /// Summary.
    Summary,
    /// Info.
    Info,
    /// State set.
    StateSet,
}

impl MetricType {
    /// The type's word in the HTTP API and in OpenMetrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }
}

/// A page that does not follow its format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}, got {near:?}")]
pub struct ParseError {
    /// The line, from 1; for protobuf the number of the message.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
    /// What stands there, cut short.
    pub near: String,
}

impl ParseError {
    /// An error at byte `at` of `body`.
    fn at(body: &[u8], at: usize, what: &'static str) -> Self {
        const NEAR_BYTES_MAX: usize = 40;
        let at = at.min(body.len());
        let line = 1 + body[..at].iter().filter(|&&byte| byte == b'\n').count();
        let end =
            body[at..].iter().position(|&byte| byte == b'\n').map_or(body.len(), |length| at + length + 1);
        let near = &body[at..end.min(at + NEAR_BYTES_MAX)];
        Self { line, what, near: String::from_utf8_lossy(near).into_owned() }
    }
}

/// One entry of a page.
#[derive(Debug)]
pub enum Event<'a> {
    /// A float.
    Sample(Sample<'a>),
    /// A native histogram; it lies elsewhere, so that the floats of a page, which are nearly all of it, are moved in
    /// a few words.
    Histogram(Box<HistogramSample<'a>>),
    /// A type line.
    Type {
        /// The family.
        family: Cow<'a, str>,
        /// Its type.
        metric_type: MetricType,
    },
    /// A help line; see [`unescape_help`].
    Help {
        /// The family.
        family: Cow<'a, str>,
        /// The text as it stands on the page.
        help: &'a str,
    },
    /// A unit line.
    Unit {
        /// The family.
        family: Cow<'a, str>,
        /// The unit.
        unit: &'a str,
    },
    /// Any other line that begins with `#`.
    Comment(&'a [u8]),
}

/// A float of a series.
#[derive(Clone, Debug)]
pub struct Sample<'a> {
    /// The bytes that name the series; see [`series_labels`].
    pub series: &'a [u8],
    /// The type of the family that the page is at, on which `le` and `quantile` depend.
    pub metric_type: MetricType,
    /// The value.
    pub value: f64,
    /// Milliseconds since the epoch, if the page says.
    pub ts: Option<i64>,
    /// When the counter began, if the page says and it was asked for.
    pub start_ts: Option<i64>,
    /// An example, if the page gives one.
    pub exemplar: Option<Exemplar<'a>>,
}

/// A native histogram of a series.
#[derive(Debug)]
pub struct HistogramSample<'a> {
    /// The bytes that name the series; see [`series_labels`].
    pub series: &'a [u8],
    /// The type of the family.
    pub metric_type: MetricType,
    /// The histogram.
    pub value: HistogramValue,
    /// Milliseconds since the epoch, if the page says.
    pub ts: Option<i64>,
    /// When the counter began, if the page says and it was asked for.
    pub start_ts: Option<i64>,
    /// Examples, all of them with a time: without one repetitions could not be told apart.
    pub exemplars: Vec<Exemplar<'a>>,
}

/// An example of what was counted.
#[derive(Clone, Debug)]
pub struct Exemplar<'a> {
    /// `{name="value",...}`; [`series_labels`] takes it apart too.
    pub labels: &'a [u8],
    /// The value.
    pub value: f64,
    /// Milliseconds since the epoch, if the page says.
    pub ts: Option<i64>,
}

/// What a parser hands out beside what every page has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParseOptions {
    /// Take `_created` lines as the start of their counters instead of as series.
    pub start_times: bool,
    /// Return native histograms; without this they are read as their classic buckets.
    pub native_histograms: bool,
    /// Return the classic buckets of native histograms too.
    pub always_classic: bool,
}

/// A parser of one page.
pub struct Parser<'a>(Inner<'a>);

enum Inner<'a> {
    Text(Text<'a>),
    OpenMetrics(OpenMetrics<'a>),
    Created(StartTimes<'a>),
    Protobuf(Box<Protobuf<'a>>),
}

impl<'a> Parser<'a> {
    /// A parser at the beginning of `body`.
    #[must_use]
    pub fn new(body: &'a [u8], format: Format, options: ParseOptions) -> Self {
        Self(match format {
            Format::Text004 | Format::Text100 => Inner::Text(Text::new(body)),
            Format::OpenMetrics001 | Format::OpenMetrics100 if options.start_times => {
                Inner::Created(StartTimes::new(OpenMetrics::new(body)))
            }
            Format::OpenMetrics001 | Format::OpenMetrics100 => Inner::OpenMetrics(OpenMetrics::new(body)),
            Format::Protobuf => Inner::Protobuf(Box::new(Protobuf::new(body, options))),
        })
    }

    /// The next entry, `None` at the end. After an error the parser is of no more use.
    ///
    /// `predict` is shown what is left of the page where a series may begin; if the caller knows the
    /// series, it returns the number of bytes that name it.
    ///
    /// # Errors
    /// The page does not follow the format. Nothing of it should be used then.
    pub fn next(
        &mut self,
        predict: &mut impl FnMut(&[u8]) -> Option<usize>,
    ) -> Result<Option<Event<'_>>, ParseError> {
        match &mut self.0 {
            Inner::Text(parser) => parser.next(predict),
            Inner::OpenMetrics(parser) => parser.next(predict),
            Inner::Created(parser) => parser.next(),
            Inner::Protobuf(parser) => parser.next(),
        }
    }
}

#[cfg(test)]
mod tests;
