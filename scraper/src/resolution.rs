//! Native histograms with fewer buckets.

use std::ops::AddAssign;

use model::histogram::CUSTOM_BUCKETS_SCHEMA;
use model::{Histogram, HistogramValue, Span};

use crate::config::HistogramOptions;

/// The coarsest exponential schema.
const SCHEMA_MIN: i32 = -4;
/// The finest schema that is stored; finer ones up to [`SCHEMA_READ_MAX`] are read and made coarser.
const SCHEMA_MAX: i32 = 8;
pub(crate) const SCHEMA_READ_MAX: i32 = 52;

/// The finest schema whose buckets grow by `factor` or more (`native_histogram_min_bucket_factor`).
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "clamped")]
pub fn schema_of_growth(factor: f64) -> i32 {
    if factor <= 1.0 || factor.is_nan() {
        return SCHEMA_MAX;
    }
    (-factor.log2().log2()).floor().clamp(f64::from(SCHEMA_MIN), f64::from(SCHEMA_MAX)) as i32
}

/// Makes `histogram` coarser until its schema can be stored and is not finer than is wanted, and it has not more
/// buckets than are wanted. Returns whether it was possible.
pub(crate) fn fit(histogram: &mut HistogramValue, options: HistogramOptions) -> bool {
    let limits = (options.native_buckets_max, options.schema_max.min(SCHEMA_MAX));
    match histogram {
        HistogramValue::Int(histogram) => fit_one(histogram, limits),
        HistogramValue::Float(histogram) => fit_one(histogram, limits),
    }
}

fn fit_one<N: Copy + AddAssign>(histogram: &mut Histogram<N>, (buckets_max, schema_max): (u64, i32)) -> bool {
    let fits =
        |it: &Histogram<N>| buckets_max == 0 || (it.positive.len() + it.negative.len()) as u64 <= buckets_max;
    if histogram.schema == CUSTOM_BUCKETS_SCHEMA {
        return fits(histogram);
    }
    if histogram.schema > schema_max {
        coarsen(histogram, schema_max);
    }
    while !fits(histogram) && histogram.schema > SCHEMA_MIN {
        coarsen(histogram, histogram.schema - 1);
    }
    fits(histogram)
}

/// Each step down doubles the buckets' width on a logarithmic scale.
fn coarsen<N: Copy + AddAssign>(histogram: &mut Histogram<N>, schema: i32) {
    let steps = (histogram.schema - schema).clamp(0, 62).unsigned_abs();
    merge(&mut histogram.positive_spans, &mut histogram.positive, steps);
    merge(&mut histogram.negative_spans, &mut histogram.negative, steps);
    histogram.schema = schema;
}

fn merge<N: Copy + AddAssign>(spans: &mut Vec<Span>, counts: &mut Vec<N>, steps: u32) {
    let (mut merged_spans, mut merged) = (Vec::<Span>::new(), Vec::<N>::new());
    let mut source = counts.iter();
    // Behind the last bucket read, and of the last bucket written.
    let (mut index, mut last): (i64, Option<i64>) = (0, None);
    for span in spans.iter() {
        index += i64::from(span.offset);
        for count in source.by_ref().take(span.length as usize) {
            // The bucket with index i has its upper bound at i steps.
            let target = ((index - 1) >> steps) + 1;
            index += 1;
            match (last, merged.last_mut(), merged_spans.last_mut()) {
                (Some(at), Some(sum), _) if at == target => {
                    *sum += *count;
                    continue;
                }
                (Some(at), _, Some(span)) if at + 1 == target => span.length += 1,
                _ => {
                    let offset = target - last.map_or(0, |at| at + 1);
                    let offset = i32::try_from(offset).unwrap_or(i32::MAX);
                    merged_spans.push(Span { offset, length: 1 });
                }
            }
            merged.push(*count);
            last = Some(target);
        }
    }
    (*spans, *counts) = (merged_spans, merged);
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::IntHistogram;

    fn histogram(schema: i32, spans: &[(i32, u32)], counts: &[u64]) -> IntHistogram {
        let spans: Vec<Span> = spans.iter().map(|&(offset, length)| Span { offset, length }).collect();
        IntHistogram {
            schema,
            positive_spans: spans.clone(),
            positive: counts.to_vec(),
            negative_spans: spans,
            negative: counts.to_vec(),
            ..IntHistogram::default()
        }
    }

    #[test]
    fn neighbours_are_merged_in_pairs() {
        // Buckets 1 and 2 become 1, 3 and 4 become 2, 0 and -1 become 0.
        let mut it = histogram(3, &[(-1, 6)], &[1, 2, 4, 8, 16, 32]);
        coarsen(&mut it, 2);
        assert_eq!(it, histogram(2, &[(0, 3)], &[3, 12, 48]));
        let mut it = histogram(0, &[(1, 1), (9, 2)], &[5, 6, 7]);
        coarsen(&mut it, -2);
        assert_eq!(it, histogram(-2, &[(1, 1), (1, 1)], &[5, 13]));
    }

    #[test]
    fn a_histogram_is_made_to_fit_or_refused() {
        let fine = HistogramValue::Int(histogram(4, &[(1, 8)], &[1; 8]));
        let fitted = |buckets_max| {
            let mut it = fine.clone();
            let HistogramValue::Int(int) =
                (if fit(&mut it, limited(buckets_max)) { it } else { return None })
            else {
                return None;
            };
            Some((int.schema, int.positive))
        };
        assert_eq!(fitted(0), Some((4, vec![1; 8])));
        assert_eq!(fitted(16), Some((4, vec![1; 8])));
        assert_eq!(fitted(15), Some((3, vec![2; 4])));
        assert_eq!(fitted(2), Some((1, vec![8])));
        assert_eq!(fitted(1), None);
        let mut finest = HistogramValue::Int(histogram(20, &[(1, 2)], &[1, 1]));
        assert!(fit(&mut finest, limited(0)));
        assert!(matches!(finest, HistogramValue::Int(it) if it.schema == 8 && it.positive == [2]));
    }

    fn limited(native_buckets_max: u64) -> HistogramOptions {
        HistogramOptions { native_buckets_max, ..HistogramOptions::default() }
    }

    #[test]
    fn a_growth_factor_is_a_schema() {
        for (factor, schema) in
            [(0.0, 8), (1.0, 8), (1.0027, 8), (1.1, 2), (2.0, 0), (4.0, -1), (65_536.0, -4), (1e9, -4)]
        {
            assert_eq!(schema_of_growth(factor), schema, "{factor}");
        }
        let mut it = HistogramValue::Int(histogram(4, &[(1, 8)], &[1; 8]));
        assert!(fit(&mut it, HistogramOptions { schema_max: 2, ..HistogramOptions::default() }));
        assert!(matches!(it, HistogramValue::Int(it) if it.schema == 2 && it.positive == [4, 4]));
    }

    #[test]
    fn extreme_offsets_do_not_overflow() {
        let mut it = histogram(8, &[(i32::MAX, 1), (i32::MAX, 1)], &[1, 1]);
        coarsen(&mut it, -4);
        assert_eq!(it.positive, [1, 1]);
    }
}
