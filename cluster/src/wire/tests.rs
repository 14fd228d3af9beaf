use std::sync::Arc;

use model::{Exemplar, FloatHistogram, Labels, MatchOp, Matcher, ResetHint, Samples, Span, TimeRange};
use proptest::prelude::*;
use remote::slots::SlotSet;

use super::*;

fn matchers() -> impl Strategy<Value = Vec<Matcher>> {
    let op = prop_oneof![
        Just(MatchOp::Equal),
        Just(MatchOp::NotEqual),
        Just(MatchOp::Regex),
        Just(MatchOp::NotRegex)
    ];
    let matcher = ("\\PC{0,8}", op, "[a-z.|]{0,8}")
        .prop_filter_map("a valid pattern", |(name, op, value)| Matcher::new(&name, op, &value).ok());
    prop::collection::vec(matcher, 0..4)
}

fn slots() -> impl Strategy<Value = SlotSet> {
    prop::collection::vec(0u16..16_384, 0..20).prop_map(|slots| slots.into_iter().collect())
}

fn asks() -> impl Strategy<Value = Ask> {
    let range = any::<(i64, i64)>().prop_map(|(start, end)| TimeRange::new(start, end));
    let r = range.boxed();
    prop_oneof![
        (slots(), r.clone(), matchers()).prop_map(|(slots, range, matchers)| Ask::Select {
            slots,
            range,
            matchers
        }),
        (r.clone(), any::<usize>(), matchers()).prop_map(|(range, limit, matchers)| Ask::Names {
            range,
            limit,
            matchers
        }),
        ("\\PC{0,9}", r.clone(), any::<usize>(), matchers())
            .prop_map(|(name, range, limit, matchers)| Ask::Values { name, range, limit, matchers }),
        (r.clone(), prop::collection::vec(matchers(), 0..3))
            .prop_map(|(range, selectors)| Ask::Exemplars { range, selectors }),
        (slots(), any::<bool>(), r, any::<(i64, i64, u64)>(), "\\PC{0,30}").prop_map(
            |(slots, sums, range, (step_ms, lookback_ms, timeout_ms), text)| Ask::Evaluate {
                slots,
                sums,
                range,
                step_ms,
                lookback_ms,
                timeout_ms,
                text
            }
        ),
    ]
}

fn times() -> impl Strategy<Value = Vec<i64>> {
    prop::collection::btree_set(any::<i64>(), 0..12).prop_map(|times| times.into_iter().collect())
}

fn histogram() -> impl Strategy<Value = FloatHistogram> {
    (any::<[f64; 4]>(), any::<(i32, i32)>(), prop::collection::vec(any::<f64>(), 0..6)).prop_map(
        |(numbers, (schema, offset), positive)| FloatHistogram {
            schema,
            zero_threshold: numbers[0],
            zero_count: numbers[1],
            count: numbers[2],
            sum: numbers[3],
            positive_spans: vec![Span { offset, length: u32::try_from(positive.len()).unwrap() }],
            negative_spans: Vec::new(),
            custom_values: positive.clone(),
            positive,
            negative: Vec::new(),
            reset_hint: ResetHint::Gauge,
        },
    )
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let part = prop_oneof![Just(Part::Values), Just(Part::Compensation), Just(Part::Counts)];
    let row = (part, labels(), times(), any::<[u64; 12]>(), any::<bool>(), times(), histogram());
    prop::collection::vec(
        row.prop_map(|(part, labels, ts, bits, starts, histogram_ts, histogram)| {
            let values = bits[..ts.len()].iter().map(|bits| f64::from_bits(*bits)).collect();
            let samples = Samples {
                start_ts: if starts { ts.clone() } else { Vec::new() },
                ts,
                values,
                histograms: histogram_ts.iter().map(|_| Arc::new(histogram.clone())).collect(),
                histogram_start_ts: Vec::new(),
                histogram_ts,
            };
            Row { part, labels, samples }
        }),
        0..5,
    )
}

fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map("\\PC{1,5}", "\\PC{1,5}", 0..4).prop_map(|pairs| Labels::from_pairs(&pairs))
}

fn exemplars() -> impl Strategy<Value = Vec<(Labels, Vec<Exemplar>)>> {
    let exemplar = (labels(), any::<(i64, u64)>()).prop_map(|(labels, (ts, bits))| Exemplar {
        labels,
        ts,
        value: f64::from_bits(bits),
    });
    prop::collection::vec((labels(), prop::collection::vec(exemplar, 0..4)), 0..4)
}

/// NaN equals itself here.
fn shown(answer: &Answer) -> String {
    format!("{answer:?}")
}

proptest! {
    #[test]
    fn requests_read_back(epoch: u64, ask in asks()) {
        let request = Request { epoch, ask };
        prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
    }

    #[test]
    fn answers_read_back(rows in rows(), texts in prop::collection::vec("\\PC{0,9}", 0..4)) {
        let table = Table { rows, warnings: texts.clone(), infos: texts.clone() };
        let bits = |table: &Table| -> Vec<u64> {
            table.rows.iter().flat_map(|row| row.samples.values.iter().map(|value| value.to_bits())).collect()
        };
        let text = texts.concat();
        for answer in [Answer::Texts(texts), Answer::QueryError(text.clone()), Answer::StoreError(text), Answer::Table(table.clone())] {
            let back = Answer::decode(&answer.encode()).unwrap();
            prop_assert_eq!(shown(&back), shown(&answer));
            if let Answer::Table(back) = back {
                prop_assert_eq!(bits(&back), bits(&table));
            }
        }
    }

    #[test]
    fn exemplars_read_back(all in exemplars()) {
        let bits = |all: &[(Labels, Vec<Exemplar>)]| -> Vec<u64> {
            all.iter().flat_map(|(_, own)| own.iter().map(|exemplar| exemplar.value.to_bits())).collect()
        };
        let (known, answer) = (bits(&all), Answer::Exemplars(all));
        let back = Answer::decode(&answer.encode()).unwrap();
        prop_assert_eq!(shown(&back), shown(&answer));
        let Answer::Exemplars(back) = back else { unreachable!() };
        prop_assert_eq!(bits(&back), known);
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes: Vec<u8>, kind in 0u8..6) {
        let content: Vec<u8> = [kind].into_iter().chain(bytes.iter().copied()).collect();
        for message in [bytes, seal(&content)] {
            let _ = Request::decode(&message);
            let _ = Answer::decode(&message);
        }
    }
}

#[test]
fn another_version_is_refused() {
    let mut message = Answer::Texts(Vec::new()).encode();
    message[0] = 2;
    assert_eq!(
        Answer::decode(&message).unwrap_err().to_string(),
        "malformed message: it is of another version"
    );
}
