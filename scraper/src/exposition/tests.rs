//! The parsers against recorded cases and real pages.

use std::collections::BTreeMap;
use std::io::Read as _;

use base64::Engine as _;
use model::FloatHistogram;
use serde_json::{Map, Value, json};

use super::*;
use crate::corpus;

fn json_labels(series: &[u8], metric_type: MetricType) -> Value {
    let mut pairs = Vec::new();
    series_labels(series, metric_type, &mut pairs).unwrap();
    let map: BTreeMap<String, String> =
        pairs.into_iter().map(|(n, v)| (n.into_owned(), v.into_owned())).collect();
    json!(map)
}

fn go_float(value: f64) -> String {
    model::float::format_general(value)
}

fn entry(event: &Event<'_>, format: Format) -> Value {
    match event {
        Event::Sample(sample) => {
            let mut object = Map::new();
            object.insert("series".into(), json_labels(sample.series, sample.metric_type));
            object.insert("bits".into(), json!(format!("{:016x}", sample.value.to_bits())));
            if let Some(ts) = sample.ts {
                object.insert("ts_ms".into(), json!(ts));
            }
            if let Some(ts) = sample.start_ts {
                object.insert("start_ts_ms".into(), json!(ts));
            }
            if let Some(exemplar) = &sample.exemplar {
                let labels = json_labels(exemplar.labels, MetricType::Unknown);
                let mut shown = json!({ "labels": labels, "value": exemplar.value });
                if let Some(ts) = exemplar.ts {
                    shown["ts_ms"] = json!(ts);
                }
                object.insert("exemplars".into(), json!([shown]));
            }
            Value::Object(object)
        }
        Event::Histogram(histogram) => {
            let (is_int, float) = match &histogram.value {
                HistogramValue::Int(value) => (true, value.to_float()),
                HistogramValue::Float(value) => (false, value.clone()),
            };
            let series = json_labels(histogram.series, histogram.metric_type);
            json!({ "series": series, "int": is_int, "schema": float.schema, "histogram": show(&float) })
        }
        Event::Type { family, metric_type } => json!({ "type_of": family, "type": metric_type.as_str() }),
        Event::Help { family, help } => json!({ "help_of": family, "help": unescape_help(help, format) }),
        Event::Unit { family, unit } => json!({ "unit_of": family, "unit": unit }),
        Event::Comment(text) => json!({ "comment": String::from_utf8_lossy(text) }),
    }
}

/// A histogram as the recorded answers show it: bounds and counts of the buckets that are not empty.
fn show(histogram: &FloatHistogram) -> String {
    let bound = |index: i32| (f64::from(index) * (-f64::from(histogram.schema)).exp2()).exp2();
    let mut buckets = Vec::new();
    let side = |spans: &[model::Span], counts: &[f64]| {
        let (mut index, mut at, mut out) = (0, 0, Vec::new());
        for span in spans {
            index += span.offset;
            for _ in 0..span.length {
                out.push((index, counts[at]));
                index += 1;
                at += 1;
            }
        }
        out
    };
    for (index, count) in side(&histogram.negative_spans, &histogram.negative).into_iter().rev() {
        buckets.push((format!("[{},{})", -bound(index), -bound(index - 1)), count));
    }
    if histogram.zero_count != 0.0 {
        buckets.push((format!("[-{0},{0}]", go_float(histogram.zero_threshold)), histogram.zero_count));
    }
    for (index, count) in side(&histogram.positive_spans, &histogram.positive) {
        buckets.push((format!("({},{}]", bound(index - 1), bound(index)), count));
    }
    let shown: Vec<String> =
        buckets.iter().filter(|(_, n)| *n != 0.0).map(|(b, n)| format!("{b}:{}", go_float(*n))).collect();
    let head = format!("{{count:{}, sum:{}", go_float(histogram.count), go_float(histogram.sum));
    format!("{head}, {}}}", shown.join(", "))
}

/// A recorded entry in our form: the value of a series by its bits alone, that of an exemplar as a number.
fn normalised(entry: &Value) -> Value {
    let mut entry = entry.clone();
    if let Some(object) = entry.as_object_mut().filter(|object| object.contains_key("bits")) {
        object.remove("value");
        for exemplar in object.get_mut("exemplars").and_then(Value::as_array_mut).into_iter().flatten() {
            let value: f64 = exemplar["value"].as_str().unwrap().parse().unwrap();
            exemplar["value"] = json!(value);
        }
    }
    entry
}

/// Equal but for the last digits of the bounds of buckets, which are computed in another way.
fn same(ours: &Value, theirs: &Value) -> bool {
    let (Some(a), Some(b)) = (ours["histogram"].as_str(), theirs["histogram"].as_str()) else {
        return ours == theirs;
    };
    let numbers = |text: &str| -> Vec<f64> {
        let parts = text.split(|c: char| !(c.is_ascii_digit() || ".e+-".contains(c)));
        parts.filter_map(|part| part.parse().ok()).collect()
    };
    let (a, b) = (numbers(a), numbers(b));
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * a.abs().max(b.abs());
    let rest = |value: &Value| (value["series"].clone(), value["int"].clone(), value["schema"].clone());
    a.len() == b.len() && a.iter().zip(&b).all(close) && rest(ours) == rest(theirs)
}

fn parse(body: &[u8], format: Format) -> (Vec<Value>, Option<ParseError>) {
    let options = ParseOptions { start_times: true, native_histograms: true, always_classic: true };
    let mut parser = Parser::new(body, format, options);
    let mut entries = Vec::new();
    loop {
        match parser.next(&mut |_| None) {
            Ok(Some(event)) => entries.push(entry(&event, format)),
            Ok(None) => return (entries, None),
            Err(error) => return (entries, Some(error)),
        }
    }
}

/// The recorder's switch to keep `_created` lines holds until it first asks for a start time, which it
/// does after each series of a counter, histogram or summary. So such a page differs in its first line.
fn expected(case: &Value) -> Vec<Value> {
    let mut entries: Vec<Value> = case["entries"].as_array().unwrap().iter().map(normalised).collect();
    let is_created =
        |entry: &Value| entry["series"]["__name__"].as_str().is_some_and(|name| name == "thing_created");
    if case["created_series_skipped"] == false {
        entries.retain(|entry| !is_created(entry));
    }
    entries
}

#[test]
fn recorded_cases() {
    let Some(text) = corpus::read("parser-exposition/exposition.jsonl") else { return };
    let (mut passed, mut failed) = (0, Vec::new());
    for line in String::from_utf8(text).unwrap().lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let input = match case["input"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => base64::engine::general_purpose::STANDARD
                .decode(case["input_base64"].as_str().unwrap())
                .unwrap(),
        };
        let format = if case["format"] == "text" { Format::Text100 } else { Format::OpenMetrics100 };
        let (entries, error) = parse(&input, format);
        // Before an error any prefix will do: such a page is dropped.
        let good = case["ok"] == error.is_none() && (error.is_some() || entries == expected(&case));
        if good {
            passed += 1;
        } else {
            let shown: String = line.chars().take(600).collect();
            let diff =
                entries.iter().zip(&expected(&case)).find(|(a, b)| a != b).map(|(a, b)| format!("{a}\n{b}"));
            failed.push(format!("{shown}\n  error {error:?}, first difference {diff:?}"));
        }
    }
    eprintln!("exposition.jsonl: {passed} passed, {} failed", failed.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn real_pages() {
    let Some(packed) = corpus::read("data/exposition/parsed.jsonl.gz") else { return };
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut text).unwrap();
    let (mut pages, mut facts) = (0, 0);
    for line in text.lines() {
        let page: Value = serde_json::from_str(line).unwrap();
        let file = page["file"].as_str().unwrap();
        let Some(body) = corpus::read(&format!("data/exposition/{file}")) else { return };
        let format = match page["format"].as_str().unwrap() {
            "text" => Format::Text004,
            "openmetrics" => Format::OpenMetrics100,
            _ => Format::Protobuf,
        };
        let (entries, error) = parse(&body, format);
        assert_eq!(error, None, "{file}");
        let theirs: Vec<Value> = page["entries"].as_array().unwrap().iter().map(normalised).collect();
        for (at, (ours, theirs)) in entries.iter().zip(&theirs).enumerate() {
            assert!(same(ours, theirs), "{file}, entry {at}:\n{ours}\n{theirs}");
        }
        assert_eq!(entries.len(), theirs.len(), "{file}");
        pages += 1;
        facts += entries.len();
    }
    eprintln!("data/exposition: {pages} pages, {facts} entries alike");
}

#[test]
fn content_types_are_read_strictly() {
    for (header, format) in [
        ("text/plain; version=0.0.4; charset=utf-8", Some(Format::Text004)),
        ("text/plain", Some(Format::Text004)),
        ("text/plain;version=1.0.0;escaping=allow-utf-8", Some(Format::Text100)),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", Some(Format::OpenMetrics100)),
        ("application/openmetrics-text", Some(Format::OpenMetrics001)),
        (
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
            Some(Format::Protobuf),
        ),
        ("application/vnd.google.protobuf; encoding=text", None),
        ("text/html", None),
        ("application/json", None),
        ("", None),
    ] {
        assert_eq!(Format::of_content_type(header), format, "{header}");
    }
}

/// Encoders write labels in front of the value; others need not.
#[test]
fn labels_of_a_protobuf_series_may_stand_behind_its_value() {
    let label = [0x0a, 8, 0x0a, 1, b'a', 0x12, 3, b'"', b'\n', b'\\'];
    let value = [0x12, 9, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f];
    let mut seen = Vec::new();
    for metric in [[&label[..], &value].concat(), [&value[..], &label].concat()] {
        let length = u8::try_from(metric.len()).unwrap();
        let family = [&[0x0a, 1, b'm', 0x22, length], &metric[..]].concat();
        let body = [&[u8::try_from(family.len()).unwrap()], &family[..]].concat();
        let mut parser = Parser::new(&body, Format::Protobuf, ParseOptions::default());
        while let Some(event) = parser.next(&mut |_| None).unwrap() {
            if let Event::Sample(sample) = event {
                let mut pairs = Vec::new();
                series_labels(sample.series, sample.metric_type, &mut pairs).unwrap();
                let wanted = [(model::METRIC_NAME.into(), "m".into()), ("a".into(), "\"\n\\".into())];
                assert_eq!((&pairs[..], sample.value), (&wanted[..], 1.0));
                seen.push(sample.series.to_vec());
            }
        }
    }
    assert_eq!(seen[0], seen[1]);
    assert!(series_labels(&seen[0][..10], MetricType::Unknown, &mut Vec::new()).is_err());
}

#[test]
fn a_predicted_series_is_not_looked_into() {
    let mut parser = Parser::new(b"# c\nnot!checked 1 5\nb 2\n", Format::Text004, ParseOptions::default());
    let mut predict = |rest: &[u8]| rest.starts_with(b"not!checked").then_some(11);
    let mut seen = Vec::new();
    while let Some(event) = parser.next(&mut predict).unwrap() {
        if let Event::Sample(sample) = event {
            seen.push((String::from_utf8(sample.series.to_vec()).unwrap(), sample.value, sample.ts));
        }
    }
    assert_eq!(seen, [("not!checked".to_owned(), 1.0, Some(5)), ("b".to_owned(), 2.0, None)]);
}

proptest::proptest! {
    #[test]
    fn hostile_pages_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        for format in [Format::Text004, Format::OpenMetrics100, Format::Protobuf] {
            parse(&bytes, format);
        }
        let _ = series_labels(&bytes, MetricType::Histogram, &mut Vec::new());
        let _ = Format::of_content_type(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn nearly_valid_pages_never_panic(parts in proptest::collection::vec(0usize..PARTS.len(), 0..30)) {
        let page: String = parts.into_iter().map(|part| PARTS[part]).collect();
        for format in [Format::Text004, Format::OpenMetrics100] {
            parse(page.as_bytes(), format);
        }
    }
}

const PARTS: [&str; 24] = [
    "a", "{", "}", "\"", "\\", "=", ",", " ", "\t", "\n", "#", "# ", "HELP ", "TYPE ", "UNIT ", "EOF",
    "counter", "_created", "1", "-", "1e9", "é", "le=\"1\"", "# {",
];
