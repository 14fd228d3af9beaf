//! Everything a querier shows, as plain data.

use std::collections::BTreeMap;

use model::{Matcher, Querier, Samples, Selection, TimeRange};

/// Series by their labels' text: time and bits of each float.
pub(crate) type Content = BTreeMap<String, Vec<(i64, u64)>>;

pub(crate) fn read(querier: &dyn Querier, matchers: &[Matcher], range: TimeRange) -> Content {
    let set = querier.select(&Selection { matchers, range }).unwrap();
    let mut content = Content::new();
    let mut samples = Samples::default();
    let mut last = None;
    for index in 0..set.len() {
        let labels = set.labels(index);
        assert!(last.as_ref().is_none_or(|last| *last < labels), "{labels} out of order");
        set.samples(index, range, &mut samples).unwrap();
        assert!(samples.ts.windows(2).all(|pair| pair[0] < pair[1]), "{labels}: times out of order");
        let floats: Vec<_> =
            samples.ts.iter().copied().zip(samples.values.iter().map(|value| value.to_bits())).collect();
        if !floats.is_empty() {
            content.insert(labels.to_string(), floats);
        }
        last = Some(labels);
    }
    content
}

pub(crate) fn all(querier: &dyn Querier) -> Content {
    read(querier, &[], TimeRange::ALL)
}
