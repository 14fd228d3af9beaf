//! Requests in both encodings, and the samples that they become.

use model::{Matcher, Querier as _, Samples, Selection, TimeRange};
use tsdb::Options as StoreOptions;

use super::*;

/// Every kind of metric, as an SDK sends it in JSON.
const REQUEST: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[
 {"key":"service.name","value":{"stringValue":"shop"}},
 {"key":"service.namespace","value":{"stringValue":"eu"}},
 {"key":"service.instance.id","value":{"stringValue":"i-1"}},
 {"key":"host.name","value":{"stringValue":"h"}},
 {"key":"cpus","value":{"intValue":"4"}}]},
"scopeMetrics":[{"scope":{"name":"lib","version":"1"},"metrics":[
 {"name":"queue.length","unit":"1","gauge":{"dataPoints":[{"asInt":"7","timeUnixNano":"1000000000000"}]}},
 {"name":"requests","unit":"{request}","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[
   {"asDouble":3.5,"timeUnixNano":"1000000000000","attributes":[{"key":"http.code","value":{"intValue":200}}],
    "exemplars":[{"timeUnixNano":"1000000000000","asDouble":1,"traceId":"0af7","spanId":"b7ad"}]}]}},
 {"name":"deltas","sum":{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[{"asInt":1,"timeUnixNano":"1000000000000"}]}},
 {"name":"latency","unit":"s","histogram":{"aggregationTemporality":"AGGREGATION_TEMPORALITY_CUMULATIVE","dataPoints":[
   {"timeUnixNano":"1000000000000","count":"6","sum":9.5,"bucketCounts":["1","2","3"],"explicitBounds":[0.5,1]}]}},
 {"name":"size","unit":"By","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[
   {"timeUnixNano":"1000000000000","count":"4","sum":10,"scale":9,"zeroCount":"1","positive":{"offset":2,"bucketCounts":["1","1","1"]}}]}},
 {"name":"quantiles","summary":{"dataPoints":[{"timeUnixNano":"1000000000000","count":"2","sum":3,
   "quantileValues":[{"quantile":0.5,"value":1.5}]}]}}]}]}]}"#;

fn stored(options: Options, format: Format, body: &[u8]) -> (Result<(), OtlpError>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let db = Arc::new(Db::open(dir.path(), StoreOptions::default()).unwrap());
    let outcome = Receiver::new(Arc::clone(&db), options).receive(format, body);
    let snapshot = db.snapshot();
    let matchers = [Matcher::new("__name__", model::MatchOp::Regex, ".+").unwrap()];
    let set = snapshot.select(&Selection::new(&matchers, TimeRange::ALL)).unwrap();
    let mut lines = Vec::new();
    let mut samples = Samples::default();
    for index in 0..set.len() {
        set.samples(index, TimeRange::ALL, &mut samples).unwrap();
        for sample in samples.iter() {
            let value = match &sample.value {
                model::Value::Float(value) => model::float::format_fixed(*value),
                model::Value::Histogram(h) => format!(
                    "schema {} count {} sum {} zero {} {:?} {:?} {:?}",
                    h.schema, h.count, h.sum, h.zero_count, h.positive_spans, h.positive, h.custom_values
                ),
            };
            lines.push(format!("{} {value} @{}", set.labels(index), sample.ts));
        }
    }
    lines.sort();
    (outcome, lines)
}

#[test]
fn every_kind_of_metric() {
    let (outcome, lines) = stored(Options::default(), Format::Json, REQUEST.as_bytes());
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("1 refused") && error.contains("\"deltas\""), "{error}");
    let id = "instance=\"i-1\", job=\"eu/shop\"";
    let mut expected = vec![
        format!("latency_seconds_bucket{{{id}, le=\"+Inf\"}} 6 @1000000"),
        format!("latency_seconds_bucket{{{id}, le=\"0.5\"}} 1 @1000000"),
        format!("latency_seconds_bucket{{{id}, le=\"1\"}} 3 @1000000"),
        format!("latency_seconds_count{{{id}}} 6 @1000000"),
        format!("latency_seconds_sum{{{id}}} 9.5 @1000000"),
        format!("quantiles_count{{{id}}} 2 @1000000"),
        format!("quantiles_sum{{{id}}} 3 @1000000"),
        format!("quantiles{{{id}, quantile=\"0.5\"}} 1.5 @1000000"),
        format!("queue_length_ratio{{{id}}} 7 @1000000"),
        format!("requests_total{{http_code=\"200\", {id}}} 3.5 @1000000"),
        format!(
            "size_bytes{{{id}}} schema 8 count 4 sum 10 zero 1 [Span {{ offset: 2, length: 2 }}] [2.0, 1.0] [] @1000000"
        ),
        format!("target_info{{cpus=\"4\", host_name=\"h\", {id}}} 1 @1000000"),
    ];
    expected.sort();
    assert_eq!(lines, expected);
}

#[test]
fn options_change_labels_and_histograms() {
    let options = Options {
        promote: Promote::AllBut(vec!["cpus".to_owned()]),
        histograms_to_custom: true,
        promote_scope: true,
        keep_identifying: true,
        translation: Translation::None,
    };
    let (_, lines) = stored(options, Format::Json, REQUEST.as_bytes());
    let gauge = lines.iter().find(|line| line.contains("queue.length")).unwrap();
    for part in
        ["\"host.name\"=\"h\"", "\"service.name\"=\"shop\"", "otel_scope_name=\"lib\"", "job=\"eu/shop\""]
    {
        assert!(gauge.contains(part), "{gauge}");
    }
    assert!(!gauge.contains("cpus"), "{gauge}");
    let histogram = lines.iter().find(|line| line.starts_with("latency{")).unwrap();
    assert!(
        histogram.contains("schema -53 count 6 sum 9.5") && histogram.contains("[0.5, 1.0]"),
        "{histogram}"
    );
    assert!(lines.iter().any(|line| line.contains("\"target_info\"")
        || line.starts_with("target_info") && line.contains("service.name")));
}

#[test]
fn protobuf_reads_as_json_does() {
    use crate::wire::Writer;
    let mut request = Writer::default();
    let attribute = |message: &mut Writer, number: u32, key: &str, value: &str| {
        message.message(number, |pair| {
            pair.bytes(1, key.as_bytes());
            pair.message(2, |any| any.bytes(1, value.as_bytes()));
        });
    };
    request.message(1, |resource| {
        resource.message(1, |inner| attribute(inner, 1, "service.name", "shop"));
        resource.message(2, |scope| {
            scope.message(2, |metric| {
                metric.bytes(1, b"requests");
                metric.message(7, |sum| {
                    sum.message(1, |point| {
                        attribute(point, 7, "code", "200");
                        point.member_double(3, f64::from_bits(1_000_000_000_000));
                        point.member_double(6, f64::from_bits(42));
                    });
                    sum.uint64(2, 2);
                    sum.uint64(3, 1);
                });
            });
        });
    });
    let (outcome, lines) = stored(Options::default(), Format::Protobuf, &request.0);
    outcome.unwrap();
    assert_eq!(lines, ["requests_total{code=\"200\", job=\"shop\"} 42 @1000000"]);
    let (outcome, _) = stored(Options::default(), Format::Protobuf, &request.0[..request.0.len() - 1]);
    assert!(matches!(outcome, Err(OtlpError::Malformed(_))));
    assert!(matches!(stored(Options::default(), Format::Json, b"{").0, Err(OtlpError::Malformed(_))));
}
