//! The page as delimited `io.prometheus.client.MetricFamily` messages, which native histograms need. Field numbers are those of
//! `metrics.proto` of `prometheus/client_model`.

use model::{FloatHistogram, Labels, Span};

use super::{Found, Kind, Newest, cumulative, own_and_external};

/// The messages.
pub(super) fn page(found: &Found, external: &Labels) -> Vec<u8> {
    let (mut page, mut family, mut of) = (Vec::new(), Vec::new(), None);
    for ((name, labels), (ts, value)) in found {
        if of != Some((name, value.kind())) {
            deliver(&mut page, &mut family);
            push_bytes(&mut family, 1, name.as_bytes());
            let number = match value.kind() {
                Kind::Untyped => 3,
                Kind::Histogram => 4,
                Kind::GaugeHistogram => 5,
            };
            push_varint(&mut family, 3, number);
            of = Some((name, value.kind()));
        }
        let mut metric = Vec::new();
        for (label, value) in own_and_external(labels, external) {
            let mut pair = Vec::new();
            push_bytes(&mut pair, 1, label.as_bytes());
            push_bytes(&mut pair, 2, value.as_bytes());
            push_bytes(&mut metric, 1, &pair);
        }
        let mut body = Vec::new();
        match value {
            Newest::Float(value) => {
                push_double(&mut body, 1, *value);
                push_bytes(&mut metric, 5, &body);
            }
            Newest::Histogram(histogram) => {
                push_histogram(&mut body, histogram);
                push_bytes(&mut metric, 7, &body);
            }
        }
        push_varint(&mut metric, 6, ts.cast_unsigned());
        push_bytes(&mut family, 4, &metric);
    }
    deliver(&mut page, &mut family);
    page
}

/// Puts a message behind its length and begins the next.
fn deliver(page: &mut Vec<u8>, family: &mut Vec<u8>) {
    if !family.is_empty() {
        push_number(page, family.len() as u64);
        page.append(family);
    }
}

fn push_histogram(body: &mut Vec<u8>, histogram: &FloatHistogram) {
    push_double(body, 2, histogram.sum);
    if histogram.has_custom_buckets() {
        for (bound, count) in cumulative(histogram) {
            let mut bucket = Vec::new();
            push_double(&mut bucket, 2, bound);
            push_double(&mut bucket, 4, count);
            push_bytes(body, 3, &bucket);
        }
        push_double(body, 4, histogram.count);
        return;
    }
    push_double(body, 4, histogram.count);
    push_varint(body, 5, zigzag(histogram.schema));
    push_double(body, 6, histogram.zero_threshold);
    push_double(body, 8, histogram.zero_count);
    let sides = [
        (9, &histogram.negative_spans, &histogram.negative),
        (12, &histogram.positive_spans, &histogram.positive),
    ];
    for (field, spans, counts) in sides {
        for Span { offset, length } in spans {
            let mut span = Vec::new();
            push_varint(&mut span, 1, zigzag(*offset));
            push_varint(&mut span, 2, u64::from(*length));
            push_bytes(body, field, &span);
        }
        counts.iter().for_each(|count| push_double(body, field + 2, *count));
    }
}

fn zigzag(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)).cast_unsigned())
}

fn push_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn push_varint(out: &mut Vec<u8>, field: u64, value: u64) {
    push_number(out, field << 3);
    push_number(out, value);
}

fn push_double(out: &mut Vec<u8>, field: u64, value: f64) {
    push_number(out, field << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn push_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    push_number(out, field << 3 | 2);
    push_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{HistogramValue, ResetHint};
    use proptest::prelude::*;
    use scraper::exposition::{Event, Format, ParseOptions, Parser};

    use super::*;

    /// What a scraper reads: names and values in order.
    fn read(page: &[u8]) -> Vec<(String, i64, Newest)> {
        let options = ParseOptions { native_histograms: true, ..ParseOptions::default() };
        let mut parser = Parser::new(page, Format::Protobuf, options);
        let mut read = Vec::new();
        while let Some(event) = parser.next(&mut |_| None).unwrap() {
            let name = |series: &[u8], metric_type| {
                let mut pairs = Vec::new();
                scraper::exposition::series_labels(series, metric_type, &mut pairs).unwrap();
                pairs.iter().map(|pair| format!("{}={};", pair.0, pair.1)).collect::<String>()
            };
            match event {
                Event::Sample(sample) => {
                    read.push((
                        name(sample.series, sample.metric_type),
                        sample.ts.unwrap(),
                        Newest::Float(sample.value),
                    ));
                }
                Event::Histogram(sample) => {
                    let HistogramValue::Float(value) = sample.value else { panic!("it has float counts") };
                    read.push((
                        name(sample.series, sample.metric_type),
                        sample.ts.unwrap(),
                        Newest::Histogram(Arc::new(value)),
                    ));
                }
                _ => {}
            }
        }
        read
    }

    fn histogram() -> impl Strategy<Value = FloatHistogram> {
        let side = || {
            prop::collection::vec((-3i32..4, prop::collection::vec(0u32..1000, 1..4)), 1..4).prop_map(
                |spans| {
                    let counts =
                        spans.iter().flat_map(|(_, counts)| counts.iter().map(|count| f64::from(*count)));
                    let counts = counts.collect::<Vec<f64>>();
                    let spans = spans.iter().enumerate().map(|(at, (offset, counts))| Span {
                        offset: if at == 0 { *offset } else { offset.abs() },
                        length: u32::try_from(counts.len()).unwrap(),
                    });
                    (spans.collect::<Vec<_>>(), counts)
                },
            )
        };
        (side(), side(), -4i32..9, 0u32..9, any::<bool>()).prop_map(
            |(positive, negative, schema, zero, gauge)| {
                let count = positive.1.iter().chain(&negative.1).sum::<f64>() + f64::from(zero);
                FloatHistogram {
                    schema,
                    zero_threshold: 0.001,
                    zero_count: f64::from(zero),
                    count,
                    sum: 1.5,
                    positive_spans: positive.0,
                    negative_spans: negative.0,
                    positive: positive.1,
                    negative: negative.1,
                    custom_values: Vec::new(),
                    reset_hint: if gauge { ResetHint::Gauge } else { ResetHint::Unknown },
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_scraper_reads_what_was_written(
            series in prop::collection::btree_map("[a-z]{1,3}", (any::<f64>(), histogram(), any::<bool>(), 0i64..1 << 50), 0..6),
        ) {
            let found: Found = series
                .into_iter()
                .map(|(name, (float, histogram, is_float, ts))| {
                    let labels = Labels::from_pairs([("__name__", &*name), ("x", "y\"")]);
                    let value = if is_float { Newest::Float(float) } else { Newest::Histogram(Arc::new(histogram)) };
                    ((name, labels), (ts, value))
                })
                .collect();
            let external = Labels::from_pairs([("replica", "1"), ("x", "not taken")]);
            let read = read(&page(&found, &external));
            prop_assert_eq!(read.len(), found.len());
            for ((name, ts, value), ((wanted, _), (at, newest))) in read.iter().zip(&found) {
                prop_assert!(name.contains(&format!("__name__={wanted};")) && name.contains("x=y\";") && name.contains("replica=1;"), "{}", name);
                prop_assert_eq!(ts, at);
                match (value, newest) {
                    (Newest::Float(a), Newest::Float(b)) => prop_assert_eq!(a.to_bits(), b.to_bits()),
                    (Newest::Histogram(a), Newest::Histogram(b)) => prop_assert_eq!(a, b),
                    _ => prop_assert!(false, "{} is of another kind", name),
                }
            }
        }
    }
}
