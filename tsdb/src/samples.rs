//! Operations on columns of samples that several readers share.

use std::sync::Arc;

use model::{Samples, Timestamp};

/// Keeps, of the samples from the positions `from` (floats, histograms) on, those whose time passes.
pub(crate) fn retain_from(
    samples: &mut Samples,
    from: (usize, usize),
    mut keep: impl FnMut(Timestamp) -> bool,
) {
    let mut end = from.0;
    for at in from.0..samples.ts.len() {
        if keep(samples.ts[at]) {
            (samples.ts[end], samples.values[end]) = (samples.ts[at], samples.values[at]);
            end += 1;
        }
    }
    samples.ts.truncate(end);
    samples.values.truncate(end);
    let mut end = from.1;
    for at in from.1..samples.histogram_ts.len() {
        if keep(samples.histogram_ts[at]) {
            samples.histogram_ts.swap(end, at);
            samples.histograms.swap(end, at);
            end += 1;
        }
    }
    samples.histogram_ts.truncate(end);
    samples.histograms.truncate(end);
}

/// Whether the columns ascend strictly and share no time.
pub(crate) fn is_ordered(samples: &Samples) -> bool {
    let ascending = |times: &[Timestamp]| times.windows(2).all(|pair| pair[0] < pair[1]);
    ascending(&samples.ts)
        && ascending(&samples.histogram_ts)
        && (samples.histogram_ts.is_empty()
            || samples.histogram_ts.iter().all(|ts| samples.ts.binary_search(ts).is_err()))
}

/// Brings columns that were filled from several sources into order. Of samples of one time the one
/// appended first wins, and a float before a histogram.
pub(crate) fn order(samples: &mut Samples) {
    if is_ordered(samples) {
        return;
    }
    let mut floats: Vec<(Timestamp, f64)> =
        samples.ts.iter().copied().zip(samples.values.iter().copied()).collect();
    floats.sort_by_key(|&(ts, _)| ts);
    floats.dedup_by_key(|&mut (ts, _)| ts);
    let mut histograms: Vec<(Timestamp, Arc<model::FloatHistogram>)> =
        samples.histogram_ts.iter().copied().zip(samples.histograms.drain(..)).collect();
    histograms.sort_by_key(|&(ts, _)| ts);
    histograms.dedup_by_key(|&mut (ts, _)| ts);
    samples.clear();
    for (ts, value) in floats {
        samples.push_float(ts, value);
    }
    for (ts, histogram) in histograms {
        if samples.ts.binary_search(&ts).is_err() {
            samples.push_histogram(ts, histogram);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_sources_are_merged_by_time() {
        let mut samples = Samples::default();
        for (ts, value) in [(3, 3.0), (5, 5.0), (1, 1.0), (3, 9.0)] {
            samples.push_float(ts, value);
        }
        samples.push_histogram(5, Arc::default());
        samples.push_histogram(4, Arc::default());
        order(&mut samples);
        assert_eq!(samples.ts, [1, 3, 5]);
        assert_eq!(samples.values, [1.0, 3.0, 5.0]);
        assert_eq!(samples.histogram_ts, [4]);
        retain_from(&mut samples, (1, 0), |ts| ts != 3 && ts != 4);
        assert_eq!(samples.ts, [1, 5]);
        assert!(samples.histograms.is_empty());
    }
}
