//! Operations on columns of samples that several readers share.

use std::sync::Arc;

use model::{FloatHistogram, Samples, Timestamp};

/// Appends a float, with its start time if that is known (not 0).
#[inline]
pub(crate) fn push_float(samples: &mut Samples, (ts, start): (Timestamp, Timestamp), value: f64) {
    push_start(&mut samples.start_ts, samples.ts.len(), start);
    samples.push_float(ts, value);
}

/// Appends a histogram, with its start time if that is known (not 0).
pub(crate) fn push_histogram(
    samples: &mut Samples,
    (ts, start): (Timestamp, Timestamp),
    histogram: Arc<FloatHistogram>,
) {
    push_start(&mut samples.histogram_start_ts, samples.histogram_ts.len(), start);
    samples.push_histogram(ts, histogram);
}

/// Notes the start time of the sample number `at`. Columns of start times come into being with the first that is
/// known, and may be shorter than the others until they are completed.
#[inline]
fn push_start(starts: &mut Vec<Timestamp>, at: usize, start: Timestamp) {
    if start != 0 {
        starts.resize(at, 0);
        starts.push(start);
    }
}

/// Makes columns of start times as long as the others, if there are any.
pub(crate) fn complete_starts(samples: &mut Samples) {
    let Samples { ts, start_ts, histogram_ts, histogram_start_ts, .. } = samples;
    for (times, starts) in [(ts, start_ts), (histogram_ts, histogram_start_ts)] {
        if !starts.is_empty() {
            starts.resize(times.len(), 0);
        }
    }
}

/// Keeps, of the samples from the positions `from` (floats, histograms) on, those whose time passes.
pub(crate) fn retain_from(
    samples: &mut Samples,
    from: (usize, usize),
    mut keep: impl FnMut(Timestamp) -> bool,
) {
    complete_starts(samples);
    let mut end = from.0;
    for at in from.0..samples.ts.len() {
        if keep(samples.ts[at]) {
            (samples.ts[end], samples.values[end]) = (samples.ts[at], samples.values[at]);
            if !samples.start_ts.is_empty() {
                samples.start_ts[end] = samples.start_ts[at];
            }
            end += 1;
        }
    }
    samples.ts.truncate(end);
    samples.values.truncate(end);
    samples.start_ts.truncate(end);
    let mut end = from.1;
    for at in from.1..samples.histogram_ts.len() {
        if keep(samples.histogram_ts[at]) {
            samples.histogram_ts.swap(end, at);
            samples.histograms.swap(end, at);
            if !samples.histogram_start_ts.is_empty() {
                samples.histogram_start_ts.swap(end, at);
            }
            end += 1;
        }
    }
    samples.histogram_ts.truncate(end);
    samples.histograms.truncate(end);
    samples.histogram_start_ts.truncate(end);
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
    complete_starts(samples);
    let start = |starts: &[Timestamp], at: usize| starts.get(at).copied().unwrap_or(0);
    let columns = samples.ts.iter().zip(&samples.values).enumerate();
    let mut floats: Vec<(Timestamp, Timestamp, f64)> =
        columns.map(|(at, (&ts, &value))| (ts, start(&samples.start_ts, at), value)).collect();
    floats.sort_by_key(|&(ts, ..)| ts);
    floats.dedup_by_key(|&mut (ts, ..)| ts);
    let columns = samples.histogram_ts.iter().zip(samples.histograms.drain(..)).enumerate();
    let mut histograms: Vec<(Timestamp, Timestamp, Arc<FloatHistogram>)> =
        columns.map(|(at, (&ts, value))| (ts, start(&samples.histogram_start_ts, at), value)).collect();
    histograms.sort_by_key(|&(ts, ..)| ts);
    histograms.dedup_by_key(|&mut (ts, ..)| ts);
    samples.clear();
    for (ts, start, value) in floats {
        push_float(samples, (ts, start), value);
    }
    for (ts, start, histogram) in histograms {
        if samples.ts.binary_search(&ts).is_err() {
            push_histogram(samples, (ts, start), histogram);
        }
    }
    complete_starts(samples);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_sources_are_merged_by_time() {
        let mut samples = Samples::default();
        for (ts, start, value) in [(3, 0, 3.0), (5, 2, 5.0), (1, 0, 1.0), (3, 1, 9.0)] {
            push_float(&mut samples, (ts, start), value);
        }
        samples.push_histogram(5, Arc::default());
        samples.push_histogram(4, Arc::default());
        order(&mut samples);
        assert_eq!(samples.ts, [1, 3, 5]);
        assert_eq!(samples.values, [1.0, 3.0, 5.0]);
        assert_eq!(samples.start_ts, [0, 0, 2]);
        assert_eq!(samples.histogram_ts, [4]);
        retain_from(&mut samples, (1, 0), |ts| ts != 3 && ts != 4);
        assert_eq!((samples.ts, samples.start_ts), (vec![1, 5], vec![0, 2]));
        assert!(samples.histograms.is_empty());
    }
}
