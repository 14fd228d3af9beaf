//! Everything a querier shows, as plain data.

use std::collections::BTreeMap;

use model::{FloatHistogram, Matcher, Querier, Samples, Selection, StorageError, TimeRange, Value};

/// Series by their labels' text: time and bits of each float, time and fingerprint of each histogram.
pub(crate) type Content = BTreeMap<String, Vec<(i64, u64)>>;

pub(crate) fn read(querier: &dyn Querier, matchers: &[Matcher], range: TimeRange) -> Content {
    try_read(querier, matchers, range).unwrap()
}

pub(crate) fn try_read(
    querier: &dyn Querier,
    matchers: &[Matcher],
    range: TimeRange,
) -> Result<Content, StorageError> {
    let set = querier.select(&Selection::new(matchers, range))?;
    let mut content = Content::new();
    let mut samples = Samples::default();
    let mut last = None;
    for index in 0..set.len() {
        let labels = set.labels(index);
        assert!(last.as_ref().is_none_or(|last| *last < labels), "{labels} out of order");
        set.samples(index, range, &mut samples)?;
        assert!(samples.ts.windows(2).all(|pair| pair[0] < pair[1]), "{labels}: times out of order");
        let entries: Vec<_> = samples
            .iter()
            .map(|sample| match sample.value {
                Value::Float(value) => (sample.ts, value.to_bits()),
                Value::Histogram(histogram) => (sample.ts, fingerprint(&histogram)),
            })
            .collect();
        if !entries.is_empty() {
            content.insert(labels.to_string(), entries);
        }
        last = Some(labels);
    }
    Ok(content)
}

/// Distinguishes histograms well enough to notice a wrong one.
pub(crate) fn fingerprint(histogram: &FloatHistogram) -> u64 {
    let parts = [histogram.count, histogram.sum, histogram.zero_count];
    let all = parts.iter().chain(&histogram.positive).chain(&histogram.negative);
    all.fold(histogram.positive_spans.len() as u64, |seed, part| {
        (seed ^ part.to_bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
    })
}

pub(crate) fn all(querier: &dyn Querier) -> Content {
    read(querier, &[], TimeRange::ALL)
}
