//! Buckets: from spans to lists and back, indexes to bounds, and resolution.

use model::{FloatHistogram, Span};

use super::bounds::upper_bound;
use super::combine::Amount;
use crate::functions::kahan::Sum;

/// Buckets by their indexes, ascending.
pub(super) type Entries<N> = Vec<(i32, N)>;

/// A bucket by its index, and its count.
pub(super) type Entry = (i32, f64);

/// The buckets of the positive side that are not empty.
pub(super) fn positive(h: &FloatHistogram) -> Vec<Entry> {
    entries(&h.positive_spans, &h.positive)
}

/// The buckets of the negative side that are not empty.
pub(super) fn negative(h: &FloatHistogram) -> Vec<Entry> {
    entries(&h.negative_spans, &h.negative)
}

fn entries(spans: &[Span], counts: &[f64]) -> Vec<Entry> {
    let mut out = Vec::with_capacity(counts.len());
    let mut counts = counts.iter();
    let mut index = 0i32;
    for span in spans {
        index = index.saturating_add(span.offset);
        for _ in 0..span.length {
            let Some(count) = counts.next() else { return out };
            if *count != 0.0 {
                out.push((index, *count));
            }
            index = index.saturating_add(1);
        }
    }
    out
}

/// Spans and counts of a list.
pub(super) fn spans(entries: &[Entry]) -> (Vec<Span>, Vec<f64>) {
    let mut spans: Vec<Span> = Vec::new();
    let mut counts = Vec::with_capacity(entries.len());
    let mut next = 0;
    for (index, count) in entries.iter().filter(|(_, count)| *count != 0.0) {
        match spans.last_mut() {
            Some(span) if *index == next => span.length += 1,
            _ => spans.push(Span { offset: index.saturating_sub(next), length: 1 }),
        }
        counts.push(*count);
        next = index.saturating_add(1);
    }
    (spans, counts)
}

/// Replaces the buckets of `h`.
pub(super) fn set(h: &mut FloatHistogram, positive: &[Entry], negative: &[Entry]) {
    (h.positive_spans, h.positive) = spans(positive);
    (h.negative_spans, h.negative) = spans(negative);
}

/// Combines two sorted lists; what is missing on one side counts 0.
pub(super) fn merge(a: &[Entry], b: &[Entry], f: impl Fn(f64, f64) -> f64) -> Vec<Entry> {
    let mut out = Vec::with_capacity(a.len().max(b.len()));
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    loop {
        let next = match (a.peek(), b.peek()) {
            (Some(x), Some(y)) => x.0.min(y.0),
            (Some(x), None) => x.0,
            (None, Some(y)) => y.0,
            (None, None) => return out,
        };
        let left = a.next_if(|x| x.0 == next).map_or(0.0, |x| x.1);
        let right = b.next_if(|y| y.0 == next).map_or(0.0, |y| y.1);
        out.push((next, f(left, right)));
    }
}

/// Adds sorted buckets to others.
pub(super) fn add_into(into: &mut Entries<Sum>, from: &[Entry]) {
    let mut at = 0;
    for (index, count) in from {
        while into.get(at).is_some_and(|(other, _)| other < index) {
            at += 1;
        }
        match into.get_mut(at) {
            Some((other, sum)) if other == index => sum.add(*count),
            _ => into.insert(at, (*index, Sum::of(*count))),
        }
    }
}

/// Buckets of schema `from` as buckets of the coarser schema `to`.
pub(super) fn coarser<N: Amount>(entries: &[(i32, N)], from: i32, to: i32) -> Entries<N> {
    let shift = from.saturating_sub(to).clamp(0, 31);
    if shift == 0 {
        return entries.to_vec();
    }
    let mut out: Entries<N> = Vec::new();
    for (index, count) in entries {
        let index = (index.saturating_sub(1) >> shift) + 1;
        match out.last_mut() {
            Some(last) if last.0 == index => last.1.take(*count),
            _ => out.push((index, *count)),
        }
    }
    out
}

/// Lower and upper bound of bucket `index` of the positive side.
pub(super) fn bounds(h: &FloatHistogram, index: i32) -> (f64, f64) {
    if !h.has_custom_buckets() {
        return (upper_bound(h.schema, index - 1), upper_bound(h.schema, index));
    }
    let at = |index: i32| usize::try_from(index).ok().and_then(|at| h.custom_values.get(at)).copied();
    let lower = at(index - 1).unwrap_or(f64::NEG_INFINITY);
    (lower, at(index).unwrap_or(f64::INFINITY))
}

/// A bucket with its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// The lower bound.
    pub lower: f64,
    /// The upper bound.
    pub upper: f64,
    /// Observations between them.
    pub count: f64,
}

/// All buckets that are not empty, from the lowest to the highest.
#[must_use]
pub fn all(h: &FloatHistogram) -> Vec<Bucket> {
    let mut out: Vec<Bucket> = negative(h)
        .iter()
        .rev()
        .map(|(index, count)| {
            let (lower, upper) = bounds(h, *index);
            Bucket { lower: -upper, upper: -lower, count: *count }
        })
        .collect();
    if h.zero_count != 0.0 && !h.has_custom_buckets() {
        out.push(Bucket { lower: -h.zero_threshold, upper: h.zero_threshold, count: h.zero_count });
    }
    out.extend(positive(h).iter().map(|(index, count)| {
        let (lower, upper) = bounds(h, *index);
        Bucket { lower, upper, count: *count }
    }));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_back() {
        let list = vec![(-3, 1.0), (-2, 2.0), (5, 3.0)];
        let (spans, counts) = spans(&list);
        assert_eq!(spans, [Span { offset: -3, length: 2 }, Span { offset: 6, length: 1 }]);
        assert_eq!(entries(&spans, &counts), list);
    }

    #[test]
    fn two_buckets_become_one() {
        assert_eq!(coarser(&[(1, 1.0), (2, 2.0), (3, 4.0)], 1, 0), [(1, 3.0), (2, 4.0)]);
        assert_eq!(coarser(&[(0, 1.0), (-1, 2.0)], 1, 0), [(0, 3.0)]);
    }
}
