//! What is written is what the receiver reads; a place survives in its file.

use model::{Histogram, HistogramValue, ResetHint, Span};
use proptest::prelude::*;
use tsdb::Position;

use super::cursor::Cursor;
use crate::message::{push_histogram, push_int_histogram};
use crate::receive::histogram;
use crate::wire::{Fields, Writer};

fn round_trip(value: &HistogramValue) -> ((i64, i64), HistogramValue) {
    let mut writer = Writer::default();
    match value {
        HistogramValue::Int(histogram) => push_int_histogram(&mut writer, 4, (17, 5), histogram),
        HistogramValue::Float(histogram) => push_histogram(&mut writer, 4, (17, 5), histogram),
    }
    let (_, content) = Fields::new(&writer.0).next().unwrap().unwrap();
    histogram::read(content.bytes().unwrap()).unwrap()
}

proptest! {
    #[test]
    fn histograms_arrive_as_they_were(
        positive in proptest::collection::vec(0u64..1 << 40, 0..9),
        negative in proptest::collection::vec(0u64..1 << 40, 0..9),
        (count, zero_count, sum, schema, offset) in (any::<u64>(), any::<u64>(), -1e9f64..1e9, -4i32..9, any::<i16>()),
    ) {
        let span = |counts: &[u64]| match u32::try_from(counts.len()).unwrap() {
            0 => Vec::new(),
            length => vec![Span { offset: offset.into(), length }],
        };
        let whole = Histogram {
            schema, sum, count, zero_count,
            zero_threshold: 1e-5,
            positive_spans: span(&positive),
            negative_spans: span(&negative),
            positive, negative,
            custom_values: Vec::new(),
            reset_hint: ResetHint::Gauge,
        };
        let value = HistogramValue::Int(whole.clone());
        prop_assert_eq!(round_trip(&value), ((17, 5), value));
        let value = HistogramValue::Float(whole.to_float());
        prop_assert_eq!(round_trip(&value), ((17, 5), value));
    }
}

#[test]
fn a_place_is_kept_and_a_damaged_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("remote_write/one.cursor");
    let place = Position { segment: 7, offset: 4711 };
    let mut cursor = Cursor::open(&path).unwrap();
    assert_eq!(cursor.position(), None);
    cursor.keep(place, true);
    assert_eq!(Cursor::open(&path).unwrap().position(), Some(place));
    std::fs::write(&path, "7").unwrap();
    let error = Cursor::open(&path).err().unwrap();
    assert!(error.to_string().contains("one.cursor"), "{error}");
}

/// However the log is ordered, and whatever is named again, each number gives its own name.
#[test]
fn names_are_found_in_any_order() {
    use super::series::Names;
    use crate::receive::Protocol;
    let labels = |number: u64| model::Labels::from_pairs([("__name__", format!("m{number}"))]);
    let keep: super::Relabel = std::sync::Arc::new(|labels| {
        let dropped = labels.get("__name__").is_some_and(|name| name.ends_with('7'));
        (!dropped).then(|| labels.clone())
    });
    for protocol in [Protocol::V1, Protocol::V2] {
        let mut names = Names::new(protocol, model::Labels::empty(), Some(keep.clone()));
        let mut known: std::collections::BTreeSet<u64> = (0..50).collect();
        known.iter().for_each(|number| names.learn(*number, &labels(*number)));
        let mut random = 9u64;
        for round in 0..400u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // In order, backwards, and anyhow.
            let number =
                [round % 50, 49 - round % 50, random >> 33][usize::try_from(round / 134).unwrap()] % 52;
            if round % 90 == 0 {
                names.learn(number, &labels(number));
                known.insert(number);
            }
            let found = names.get(number).map(|name| match protocol {
                Protocol::V1 => String::from_utf8_lossy(&name.encoded[14..]).into_owned(),
                Protocol::V2 => name.texts.text(name.numbers[1]).to_owned(),
            });
            let wanted = (known.contains(&number) && number % 10 != 7).then(|| format!("m{number}"));
            assert_eq!(found, wanted, "{round}");
        }
        names.clear();
        assert!(names.get(1).is_none() && names.len() == 0);
        names.learn(1, &labels(7));
        assert!(names.get(1).is_none(), "it is still relabelled");
    }
}
