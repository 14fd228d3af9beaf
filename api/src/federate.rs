//! `/federate`: the newest sample of each chosen series, for another server to scrape.

mod protobuf;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::{
    FloatHistogram, Labels, METRIC_NAME, Matcher, Querier, ResetHint, Samples, Selection, StorageError,
    TimeRange, Timestamp, float,
};

use crate::State;
use crate::params::{Params, selector};
use crate::reading::Reading;

/// What the page is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Protobuf,
}

impl Format {
    fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; \
                 escaping=allow-utf-8"
            }
        }
    }

    /// What the client likes best of what there is; text if it does not say.
    fn negotiate(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut liked: Vec<(f64, Self)> =
            accepted.flat_map(|value| value.split(',')).filter_map(Self::of_range).collect();
        // Of those it likes alike, the one it names first.
        liked.sort_by(|a, b| b.0.total_cmp(&a.0));
        liked.first().map_or(Self::Text, |(_, format)| *format)
    }

    /// The format of one part of an `Accept` header, and how much it is liked.
    fn of_range(range: &str) -> Option<(f64, Self)> {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next()?;
        let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let find = |name: &str| {
            let found = parameters.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.trim_matches('"'))
        };
        let quality = find("q").map_or(Some(1.0), |q| q.parse().ok())?;
        let format = match kind {
            "application/vnd.google.protobuf"
                if find("proto") == Some("io.prometheus.client.MetricFamily")
                    && find("encoding") == Some("delimited") =>
            {
                Self::Protobuf
            }
            "text/plain" if matches!(find("version"), None | Some("0.0.4" | "1.0.0")) => Self::Text,
            _ => return None,
        };
        (quality > 0.0).then_some((quality, format))
    }
}

pub(crate) async fn federate(Shared(state): Shared<State>, headers: HeaderMap, params: Params) -> Response {
    let Ok(running) = state.running() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable").into_response();
    };
    let mut selectors = Vec::new();
    for text in params.all("match[]") {
        match selector(text) {
            Ok(matchers) => selectors.push(matchers),
            Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
        }
    }
    let (reading, end) = (Reading::strict(running), state.now());
    let range = TimeRange::new(end.saturating_sub(state.options().engine.options().lookback_ms), end);
    let external = state.options().external_labels.clone();
    let format = Format::negotiate(&headers);
    let page = tokio::task::spawn_blocking(move || {
        let found = reading.on(|querier| newest(querier, &selectors, range))?;
        Ok::<_, StorageError>(match format {
            Format::Text => text(&found, &external).into_bytes(),
            Format::Protobuf => protobuf::page(&found, &external),
        })
    });
    match page.await {
        Ok(Ok(page)) => ([(header::CONTENT_TYPE, format.content_type())], page).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// The newest sample of a series.
#[derive(Clone, Debug)]
enum Newest {
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

impl Newest {
    /// What a family must have in common; the same name may have several.
    fn kind(&self) -> Kind {
        match self {
            Self::Float(_) => Kind::Untyped,
            Self::Histogram(histogram) if histogram.reset_hint == ResetHint::Gauge => Kind::GaugeHistogram,
            Self::Histogram(_) => Kind::Histogram,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Untyped,
    Histogram,
    GaugeHistogram,
}

/// The samples that the page shows: by name and labels, each series once.
type Found = BTreeMap<(String, Labels), (Timestamp, Newest)>;

fn newest(
    querier: &dyn Querier,
    selectors: &[Vec<Matcher>],
    range: TimeRange,
) -> Result<Found, StorageError> {
    let mut found = Found::new();
    let mut samples = Samples::default();
    for matchers in selectors {
        let set = querier.select(&Selection::new(matchers, range))?;
        for index in 0..set.len() {
            set.samples(index, range, &mut samples)?;
            let float = samples.ts.last().zip(samples.values.last());
            let float = float.map(|(ts, value)| (*ts, Newest::Float(*value)));
            let histogram = samples.histogram_ts.last().zip(samples.histograms.last());
            let histogram = histogram.map(|(ts, value)| (*ts, Newest::Histogram(Arc::clone(value))));
            let newest = float.into_iter().chain(histogram).max_by_key(|(ts, _)| *ts);
            let is_stale = |value: &Newest| match value {
                Newest::Float(value) => model::is_stale_nan(*value),
                Newest::Histogram(histogram) => histogram.is_stale(),
            };
            let labels = set.labels(index);
            let name = labels.metric_name().unwrap_or_default().to_owned();
            if let Some(newest) = newest.filter(|(_, value)| !is_stale(value) && !name.is_empty()) {
                found.insert((name, labels), newest);
            }
        }
    }
    Ok(found)
}

/// The labels of a series beside its name, with those that are added to what others get.
fn own_and_external<'a>(
    labels: &'a Labels,
    external: &'a Labels,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let own = labels.iter().filter(|(label, _)| *label != METRIC_NAME);
    let absent = |label: &str| labels.get(label).is_none();
    let added = external.iter().filter(move |(label, _)| absent(label));
    let instance = (absent("instance") && external.get("instance").is_none()).then_some(("instance", ""));
    own.chain(added).chain(instance)
}

/// Upper bounds of the custom buckets of a histogram with how many observations are not above them, without +Inf.
fn cumulative(histogram: &FloatHistogram) -> Vec<(f64, f64)> {
    let mut counts = vec![0.0; histogram.custom_values.len()];
    let (mut at, mut values) = (0i64, histogram.positive.iter());
    for span in &histogram.positive_spans {
        at += i64::from(span.offset);
        for value in values.by_ref().take(span.length as usize) {
            if let Some(count) = usize::try_from(at).ok().and_then(|at| counts.get_mut(at)) {
                *count = *value;
            }
            at += 1;
        }
    }
    let sums = counts.iter().scan(0.0, |sum, count| {
        *sum += count;
        Some(*sum)
    });
    histogram.custom_values.iter().copied().zip(sums).collect()
}

/// The page in text, where native histograms have no place but as classic ones, if their buckets have bounds of their own.
fn text(found: &Found, external: &Labels) -> String {
    let (mut page, mut family) = (String::new(), None);
    for ((name, labels), (ts, value)) in found {
        let classic = match value {
            Newest::Histogram(histogram) if !histogram.has_custom_buckets() => continue,
            Newest::Histogram(histogram) => Some(histogram),
            Newest::Float(_) => None,
        };
        if family != Some((name, classic.is_some())) {
            page.push_str("# TYPE ");
            push_name(&mut page, name);
            page.push_str(if classic.is_some() { " histogram\n" } else { " untyped\n" });
        }
        let mut line = |suffix: &str, le: Option<f64>, value: f64| {
            let le = le.map(float::format_general);
            let all = own_and_external(labels, external).chain(le.as_deref().map(|le| ("le", le)));
            push_series(&mut page, &format!("{name}{suffix}"), all);
            page.push_str(&format!(" {} {ts}\n", float::format_general(value)));
        };
        match (value, classic) {
            (Newest::Float(value), _) => line("", None, *value),
            (_, Some(histogram)) => {
                let buckets = cumulative(histogram).into_iter();
                for (bound, count) in buckets.chain([(f64::INFINITY, histogram.count)]) {
                    line("_bucket", Some(bound), count);
                }
                line("_sum", None, histogram.sum);
                line("_count", None, histogram.count);
            }
            (Newest::Histogram(_), None) => {}
        }
        family = Some((name, classic.is_some()));
    }
    page
}

/// A metric name; one that needs quotes gets them.
fn push_name(page: &mut String, name: &str) {
    if model::is_legacy_metric_name(name) {
        page.push_str(name);
    } else {
        push_quoted(page, name);
    }
}

fn push_series<'a>(page: &mut String, name: &str, labels: impl Iterator<Item = (&'a str, &'a str)>) {
    let legacy = model::is_legacy_metric_name(name);
    if legacy {
        page.push_str(name);
    }
    page.push('{');
    let mut first = legacy;
    if !legacy {
        push_quoted(page, name);
    }
    for (label, value) in labels {
        if !first {
            page.push(',');
        }
        first = false;
        if model::is_legacy_label_name(label) {
            page.push_str(label);
        } else {
            push_quoted(page, label);
        }
        page.push('=');
        push_quoted(page, value);
    }
    page.push('}');
}

fn push_quoted(page: &mut String, text: &str) {
    page.push('"');
    for c in text.chars() {
        match c {
            '\\' => page.push_str("\\\\"),
            '"' => page.push_str("\\\""),
            '\n' => page.push_str("\\n"),
            c => page.push(c),
        }
    }
    page.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Span;

    #[test]
    fn the_client_chooses() {
        let of = |accept: &str| {
            Format::negotiate(&HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]))
        };
        let protobuf =
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        assert_eq!(Format::negotiate(&HeaderMap::new()), Format::Text);
        assert_eq!(
            of(&format!("{protobuf};q=0.6,text/plain;version=0.0.4;q=0.2,*/*;q=0.1")),
            Format::Protobuf
        );
        assert_eq!(of(&format!("text/plain;version=1.0.0;q=0.6, {protobuf};q=0.5")), Format::Text);
        assert_eq!(of(&format!("{protobuf};q=0")), Format::Text);
        assert_eq!(
            of("application/vnd.google.protobuf;encoding=text;proto=io.prometheus.client.MetricFamily"),
            Format::Text
        );
        assert_eq!(of("application/openmetrics-text;version=1.0.0,*/*;q=0.1"), Format::Text);
    }

    #[test]
    fn custom_buckets_are_classic_ones_in_text_and_exponential_ones_are_not_there() {
        let custom = FloatHistogram {
            schema: model::histogram::CUSTOM_BUCKETS_SCHEMA,
            count: 9.0,
            sum: 4.5,
            positive_spans: vec![Span { offset: 0, length: 1 }, Span { offset: 1, length: 2 }],
            positive: vec![2.0, 3.0, 4.0],
            custom_values: vec![0.5, 1.0, 2.5],
            ..FloatHistogram::default()
        };
        let entry = |name: &str, value: Newest| {
            ((name.to_owned(), Labels::from_pairs([("__name__", name), ("a", "b")])), (7, value))
        };
        let found = Found::from_iter([
            entry("custom", Newest::Histogram(Arc::new(custom))),
            entry("exponential", Newest::Histogram(Arc::new(FloatHistogram::default()))),
            entry("plain", Newest::Float(1.5)),
        ]);
        let page = "# TYPE custom histogram\ncustom_bucket{a=\"b\",instance=\"\",le=\"0.5\"} 2 7\n\
                    custom_bucket{a=\"b\",instance=\"\",le=\"1\"} 2 7\n\
                    custom_bucket{a=\"b\",instance=\"\",le=\"2.5\"} 5 7\n\
                    custom_bucket{a=\"b\",instance=\"\",le=\"+Inf\"} 9 7\n\
                    custom_sum{a=\"b\",instance=\"\"} 4.5 7\ncustom_count{a=\"b\",instance=\"\"} 9 7\n\
                    # TYPE plain untyped\nplain{a=\"b\",instance=\"\"} 1.5 7\n";
        assert_eq!(text(&found, &Labels::default()), page);
    }
}
