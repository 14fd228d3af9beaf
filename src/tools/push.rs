//! `push metrics`: pages of metrics by remote write, for tests of receivers.
//!
//! Source of the messages: Prometheus' published `prompb/types.proto` and `io/prometheus/write/v2/types.proto`.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::{HeaderName, Method, header};
use model::Labels;
use prost::Message;
use remote::receive::Protocol;
use scraper::exposition::MetricType;

use super::client::{Connection, text};
use super::import::{Family, Page};
use crate::cli::tools::Client;

/// What to send where, and how.
pub(crate) struct Pushed<'a> {
    pub(crate) client: &'a Client,
    pub(crate) url: &'a str,
    /// Below the URL.
    pub(crate) path: &'a str,
    pub(crate) files: &'a [PathBuf],
    pub(crate) labels: &'a [(String, String)],
    pub(crate) timeout_ms: i64,
    pub(crate) protocol: Protocol,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Series {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    family: String,
    #[prost(string, tag = "4")]
    help: String,
    #[prost(string, tag = "5")]
    unit: String,
}

/// `prometheus.WriteRequest`
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    series: Vec<Series>,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct About {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint32, tag = "3")]
    help: u32,
    #[prost(uint32, tag = "4")]
    unit: u32,
}

#[derive(Clone, PartialEq, Message)]
struct NumberedSeries {
    #[prost(uint32, repeated, tag = "1")]
    labels: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, optional, tag = "5")]
    about: Option<About>,
}

/// `io.prometheus.write.v2.Request`
#[derive(Clone, PartialEq, Message)]
struct NumberedRequest {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    series: Vec<NumberedSeries>,
}

/// Numbers of texts; that of the empty one is 0.
#[derive(Default)]
struct Symbols {
    numbers: HashMap<String, u32>,
    texts: Vec<String>,
}

impl Symbols {
    fn number(&mut self, text: &str) -> u32 {
        if self.texts.is_empty() {
            self.texts.push(String::new());
            self.numbers.insert(String::new(), 0);
        }
        *self.numbers.entry(text.to_owned()).or_insert_with(|| {
            self.texts.push(text.to_owned());
            u32::try_from(self.texts.len() - 1).unwrap_or_default()
        })
    }
}

/// The number of a type, the same in both messages.
fn number_of(kind: MetricType) -> i32 {
    match kind {
        MetricType::Unknown => 0,
        MetricType::Counter => 1,
        MetricType::Gauge => 2,
        MetricType::Histogram => 3,
        MetricType::GaugeHistogram => 4,
        MetricType::Summary => 5,
        MetricType::Info => 6,
        MetricType::StateSet => 7,
    }
}

/// A series with labels that it gets unless it has them. A job of its own is kept as that of another server.
fn with(series: &Labels, labels: &[(String, String)]) -> Labels {
    let mut builder = series.to_builder();
    if let Some(job) = series.get("job") {
        builder.remove("job").set("exported_job", job);
    }
    // As the shortest text of the number, where a scrape would write 1.0.
    for name in ["le", "quantile"] {
        if let Some(bound) =
            series.get(name).and_then(|text| text.parse::<f64>().ok()).filter(|bound| bound.is_finite())
        {
            builder.set(name, &bound.to_string());
        }
    }
    for (name, value) in labels.iter().filter(|(name, _)| name == "job" || series.get(name).is_none()) {
        builder.set(name, value);
    }
    builder.build()
}

/// The message that says what a page says; samples without a time are of `now`.
fn message(page: Page, labels: &[(String, String)], now: i64, protocol: Protocol) -> Vec<u8> {
    let whole = |series: &Labels| with(series, labels);
    let sample = |ts: Option<i64>, value| vec![Sample { value, timestamp: ts.unwrap_or(now) }];
    match protocol {
        Protocol::V1 => {
            let own = |(name, value): (&str, &str)| Label { name: name.to_owned(), value: value.to_owned() };
            let series = page.samples.iter().map(|one| Series {
                labels: whole(&one.series).iter().map(own).collect(),
                samples: sample(one.ts, one.value),
            });
            let about = |(family, about): (String, Family)| Metadata {
                kind: number_of(about.kind),
                family,
                help: about.help,
                unit: about.unit,
            };
            let series = series.collect();
            Request { series, metadata: page.families.into_iter().map(about).collect() }.encode_to_vec()
        }
        Protocol::V2 => {
            let mut symbols = Symbols::default();
            let mut series = Vec::with_capacity(page.samples.len());
            for one in &page.samples {
                let labels = whole(&one.series);
                let labels = labels.iter().flat_map(|(name, value)| [name, value]);
                series.push(NumberedSeries {
                    labels: labels.map(|text| symbols.number(text)).collect(),
                    samples: sample(one.ts, one.value),
                    about: page.families.get(&one.family).map(|about| About {
                        kind: number_of(about.kind),
                        help: symbols.number(&about.help),
                        unit: symbols.number(&about.unit),
                    }),
                });
            }
            NumberedRequest { symbols: symbols.texts, series }.encode_to_vec()
        }
    }
}

/// What is to be read, with its name.
fn pages(files: &[PathBuf]) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    if files.is_empty() {
        let mut page = Vec::new();
        std::io::stdin().read_to_end(&mut page)?;
        return Ok(vec![("standard input".to_owned(), page)]);
    }
    let read = |path: &PathBuf| {
        let name = path.display().to_string();
        Ok((name.clone(), std::fs::read(path).context(name)?))
    };
    files.iter().map(read).collect()
}

/// Sends pages of metrics by remote write, all samples with the time of now unless they have one.
pub(crate) fn push(pushed: &Pushed<'_>) -> anyhow::Result<()> {
    let connection = Connection::new(pushed.url, pushed.client)?;
    // A URL with a path is that of the receiver.
    let path = if connection.has_path() { "" } else { pushed.path };
    let (content_type, version) = match pushed.protocol {
        Protocol::V1 => ("application/x-protobuf", "0.1.0"),
        Protocol::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
    };
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_ENCODING, "snappy"),
        (HeaderName::from_static("x-prometheus-remote-write-version"), version),
    ];
    for (name, page) in pages(pushed.files)? {
        let page = super::import::page(&page).with_context(|| name.clone())?;
        let message = message(page, pushed.labels, crate::wire::now(), pushed.protocol);
        let body = snap::raw::Encoder::new().compress_vec(&message)?;
        let patience = Duration::from_millis(pushed.timeout_ms.unsigned_abs());
        let answer = connection.send((Method::POST, path), &headers, &body, patience)?;
        let status = answer.status();
        ensure!(status.is_success(), "{name}: {status}: {}", text(answer).trim_end());
        say!("  SUCCESS: metric file {name} pushed to remote write.");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_messages_say_what_a_family_is() {
        let text = b"# HELP a_seconds Some \\\\ text.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total 1\nb 2\n# EOF\n";
        let read = || super::super::import::page(text).unwrap();
        let labels = [("job".to_owned(), "j".to_owned())];
        let one = Request::decode(&message(read(), &labels, 5, Protocol::V1)[..]).unwrap();
        let about = &one.metadata[0];
        assert_eq!(
            (about.kind, about.family.as_str(), about.help.as_str(), about.unit.as_str()),
            (1, "a_seconds", "Some \\ text.", "seconds")
        );
        assert_eq!(one.series[1].labels[0], Label { name: "__name__".to_owned(), value: "b".to_owned() });
        assert_eq!(one.series[1].samples, [Sample { value: 2.0, timestamp: 5 }]);

        let two = NumberedRequest::decode(&message(read(), &labels, 5, Protocol::V2)[..]).unwrap();
        let word = |number: u32| two.symbols[number as usize].as_str();
        let words = |series: &NumberedSeries| -> Vec<String> {
            series.labels.iter().map(|number| word(*number).to_owned()).collect()
        };
        assert_eq!(two.symbols[0], "");
        assert_eq!(words(&two.series[0]), ["__name__", "a_seconds_total", "job", "j"]);
        assert_eq!(words(&two.series[1]), ["__name__", "b", "job", "j"]);
        let about = two.series[0].about.as_ref().unwrap();
        assert_eq!((about.kind, word(about.help), word(about.unit)), (1, "Some \\ text.", "seconds"));
        assert_eq!(two.series[1].about, None);
    }
}
