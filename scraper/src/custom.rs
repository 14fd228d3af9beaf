//! Classic histograms put together into native ones with custom buckets (`convert_classic_histograms_to_nhcb`).
//!
//! The lines of one classic histogram stand together on a page: its buckets, its sum and its count, which share all
//! labels but `le`. They are collected until a line of something else comes.

use model::histogram::CUSTOM_BUCKETS_SCHEMA;
use model::{Histogram, HistogramValue, Span, Timestamp};

use crate::exposition::{Exemplar, MetricType, Sample, series_labels};

/// What a line is part of.
#[derive(Clone, Copy)]
enum Part {
    Bucket(f64),
    Sum,
    Count,
}

/// A histogram under construction.
#[derive(Debug, Default)]
pub(crate) struct Converter {
    /// The type lines' current family, if it is a histogram.
    family: String,
    /// The series that the native histogram has, in the text form.
    series: Vec<u8>,
    ts: Option<Timestamp>,
    /// Upper bounds with cumulative counts.
    buckets: Vec<(f64, f64)>,
    sum: f64,
    count: Option<f64>,
    /// Those of its buckets, as far as they have a time.
    exemplars: Vec<tsdb::Exemplar>,
    scratch: Vec<u8>,
    /// The last native histogram: its classic lines are not converted once more.
    native: Vec<u8>,
}

/// A finished histogram.
pub(crate) struct Converted {
    pub(crate) series: Vec<u8>,
    pub(crate) ts: Option<Timestamp>,
    pub(crate) value: HistogramValue,
    pub(crate) exemplars: Vec<tsdb::Exemplar>,
}

/// An exemplar with its labels taken apart. Without a time of its own it has that of its sample, if that has one.
pub(crate) fn exemplar_of(exemplar: &Exemplar<'_>, ts: Option<Timestamp>) -> Option<tsdb::Exemplar> {
    let mut pairs = Vec::new();
    series_labels(exemplar.labels, MetricType::Unknown, &mut pairs).ok()?;
    let ts = exemplar.ts.or(ts).unwrap_or(crate::page::UNTIMED);
    Some(tsdb::Exemplar { labels: model::Labels::from_pairs(pairs), ts, value: exemplar.value })
}

impl Converter {
    /// Notes a type line.
    pub(crate) fn begin_family(&mut self, family: &str, metric_type: MetricType) -> Option<Converted> {
        let finished = self.finish();
        self.family.clear();
        if metric_type == MetricType::Histogram {
            self.family.push_str(family);
        }
        finished
    }

    /// Notes a native histogram that the page has anyway.
    pub(crate) fn note_native(&mut self, series: &[u8]) {
        self.native.clear();
        if let Some((name, labels, _)) = taken_apart(series) {
            render(&mut self.native, &name, &labels);
        }
    }

    /// Takes a line if it is part of a classic histogram; with it the histogram before it may be finished.
    pub(crate) fn take(&mut self, sample: &Sample<'_>) -> (bool, Option<Converted>) {
        let Some(part) = self.part_of(sample) else { return (false, self.finish()) };
        if self.scratch == self.native {
            return (false, self.finish());
        }
        let mut finished = None;
        if self.series != self.scratch || self.ts != sample.ts {
            finished = self.finish();
            std::mem::swap(&mut self.series, &mut self.scratch);
            self.ts = sample.ts;
        }
        match part {
            Part::Bucket(bound) => self.buckets.push((bound, sample.value)),
            Part::Sum => self.sum = sample.value,
            Part::Count => self.count = Some(sample.value),
        }
        let timed = sample.exemplar.as_ref().filter(|exemplar| exemplar.ts.is_some());
        self.exemplars.extend(timed.and_then(|exemplar| exemplar_of(exemplar, None)));
        (true, finished)
    }

    /// What a line is part of; its histogram's series is left in `scratch`.
    fn part_of(&mut self, sample: &Sample<'_>) -> Option<Part> {
        if self.family.is_empty() || sample.metric_type != MetricType::Histogram {
            return None;
        }
        let (name, labels, bound) = taken_apart(sample.series)?;
        let part = match (name.strip_prefix(self.family.as_str())?, bound) {
            ("_bucket", Some(bound)) => Part::Bucket(bound),
            ("_sum", None) => Part::Sum,
            ("_count", None) => Part::Count,
            _ => return None,
        };
        self.scratch.clear();
        render(&mut self.scratch, &self.family, &labels);
        Some(part)
    }

    /// The histogram that has been collected, if it is one.
    pub(crate) fn finish(&mut self) -> Option<Converted> {
        let mut buckets = std::mem::take(&mut self.buckets);
        let (count, sum) = (self.count.take(), std::mem::take(&mut self.sum));
        let (series, ts) = (std::mem::take(&mut self.series), self.ts.take());
        let exemplars = std::mem::take(&mut self.exemplars);
        if buckets.is_empty() {
            return None;
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets.dedup_by(|a, b| a.0 == b.0);
        let value = histogram(&buckets, count, sum)?;
        Some(Converted { series, ts, value, exemplars })
    }
}

/// The histogram of cumulative buckets that ascend; `None` if their counts do not.
fn histogram(buckets: &[(f64, f64)], count: Option<f64>, sum: f64) -> Option<HistogramValue> {
    let (_, last) = *buckets.last()?;
    let count = count.unwrap_or(last);
    let bounds: Vec<f64> =
        buckets.iter().map(|(bound, _)| *bound).filter(|bound| *bound != f64::INFINITY).collect();
    let mut cumulative: Vec<f64> =
        buckets.iter().filter(|(bound, _)| *bound != f64::INFINITY).map(|(_, count)| *count).collect();
    cumulative.push(count);
    let mut counts = Vec::with_capacity(cumulative.len());
    let mut before = 0.0;
    for count in cumulative {
        // Also refuses what is no number.
        if !(count >= before && count.is_finite()) {
            return None;
        }
        counts.push(count - before);
        before = count;
    }
    let (spans, filled) = packed(&counts);
    let is_whole = counts.iter().all(|count| count.fract() == 0.0 && *count < 9.0e15);
    let float = Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count,
        sum,
        positive_spans: spans,
        positive: filled,
        custom_values: bounds,
        ..Histogram::<f64>::default()
    };
    Some(if is_whole { HistogramValue::Int(whole(float)) } else { HistogramValue::Float(float) })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole, not negative, and below 2^53"
)]
fn whole(float: Histogram<f64>) -> Histogram<u64> {
    Histogram {
        schema: float.schema,
        count: float.count as u64,
        sum: float.sum,
        positive_spans: float.positive_spans,
        positive: float.positive.iter().map(|count| *count as u64).collect(),
        custom_values: float.custom_values,
        ..Histogram::<u64>::default()
    }
}

/// Runs of buckets that are not empty.
fn packed(counts: &[f64]) -> (Vec<Span>, Vec<f64>) {
    let (mut spans, mut filled): (Vec<Span>, Vec<f64>) = (Vec::new(), Vec::new());
    let (mut gap, mut is_open) = (0, false);
    for count in counts {
        if *count == 0.0 {
            gap += 1;
            is_open = false;
            continue;
        }
        match spans.last_mut().filter(|_| is_open) {
            Some(span) => span.length += 1,
            None => spans.push(Span { offset: gap, length: 1 }),
        }
        (gap, is_open) = (0, true);
        filled.push(*count);
    }
    (spans, filled)
}

type Pair = (String, String);

/// The name of a series, its labels without `le`, and that as a number.
fn taken_apart(series: &[u8]) -> Option<(String, Vec<Pair>, Option<f64>)> {
    let mut pairs = Vec::new();
    series_labels(series, MetricType::Histogram, &mut pairs).ok()?;
    let (mut name, mut bound, mut labels) = (String::new(), None, Vec::with_capacity(pairs.len()));
    for (label, value) in pairs {
        match label.as_ref() {
            model::METRIC_NAME => name = value.into_owned(),
            "le" => bound = Some(value.parse::<f64>().ok().filter(|bound| !bound.is_nan())?),
            _ => labels.push((label.into_owned(), value.into_owned())),
        }
    }
    labels.sort();
    Some((name, labels, bound))
}

/// A series in the text form, with everything quoted, since names may be any UTF-8.
fn render(out: &mut Vec<u8>, name: &str, labels: &[Pair]) {
    let quote = |out: &mut Vec<u8>, text: &str| {
        out.push(b'"');
        for byte in text.bytes() {
            match byte {
                b'"' | b'\\' => out.extend([b'\\', byte]),
                b'\n' => out.extend(b"\\n"),
                byte => out.push(byte),
            }
        }
        out.push(b'"');
    };
    out.push(b'{');
    quote(out, name);
    for (label, value) in labels {
        out.push(b',');
        quote(out, label);
        out.push(b'=');
        quote(out, value);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Cache, NameHasher};
    use crate::config::HistogramOptions;
    use crate::exposition::Format;
    use crate::page;

    /// The series of a page: floats by name, and histograms with their counts.
    fn read(body: &str, always_classic: bool) -> (Vec<String>, Vec<(String, HistogramValue)>) {
        let options =
            HistogramOptions { convert_classic: true, always_classic, ..HistogramOptions::default() };
        let hasher = NameHasher::new();
        let parsed =
            page::read(body.as_bytes(), Format::Text004, options, false, &Cache::default(), &hasher).unwrap();
        let names: Vec<String> =
            parsed.new_series().map(|(name, _)| String::from_utf8(name.to_vec()).unwrap()).collect();
        let (mut floats, mut histograms) = (Vec::new(), Vec::new());
        for point in &parsed.points {
            let crate::cache::Slot::New(at) = point.slot() else { unreachable!() };
            match parsed.histogram(point) {
                Some(histogram) => histograms.push((names[at as usize].clone(), histogram.clone())),
                None => floats.push(names[at as usize].clone()),
            }
        }
        (floats, histograms)
    }

    const PAGE: &str = "# TYPE h histogram\n\
        h_bucket{a=\"x\",le=\"0.5\"} 1\nh_bucket{a=\"x\",le=\"1\"} 1\nh_bucket{a=\"x\",le=\"+Inf\"} 4\nh_sum{a=\"x\"} 9.5\nh_count{a=\"x\"} 4\n\
        h_bucket{a=\"y\",le=\"0.5\"} 0\nh_bucket{a=\"y\",le=\"+Inf\"} 2\nh_sum{a=\"y\"} 3\nh_count{a=\"y\"} 2\n\
        # TYPE g gauge\ng 7\n";

    #[test]
    fn classic_histograms_become_native_ones() {
        let (floats, histograms) = read(PAGE, false);
        assert_eq!(floats, ["g"]);
        let [(x, HistogramValue::Int(first)), (y, HistogramValue::Int(second))] = &histograms[..] else {
            panic!("{histograms:?}")
        };
        assert_eq!((x.as_str(), y.as_str()), (r#"{"h","a"="x"}"#, r#"{"h","a"="y"}"#));
        assert_eq!(first.custom_values, [0.5, 1.0]);
        assert_eq!((first.count, first.sum, first.positive.as_slice()), (4, 9.5, &[1, 3][..]));
        assert_eq!(first.positive_spans, [Span { offset: 0, length: 1 }, Span { offset: 1, length: 1 }]);
        assert_eq!((second.positive.as_slice(), second.positive_spans[0].offset), (&[2][..], 1));
        let (floats, histograms) = read(PAGE, true);
        assert_eq!((floats.len(), histograms.len()), (10, 2));
    }

    #[test]
    fn what_is_no_histogram_is_left_out() {
        let falling = "# TYPE h histogram\nh_bucket{le=\"1\"} 5\nh_bucket{le=\"+Inf\"} 4\nh_count 4\n";
        assert!(read(falling, false).1.is_empty());
        let fractions = "# TYPE h histogram\nh_bucket{le=\"1\"} 0.5\nh_bucket{le=\"+Inf\"} 1\n";
        assert!(
            matches!(&read(fractions, false).1[..], [(_, HistogramValue::Float(it))] if it.positive == [0.5, 0.5])
        );
        let (floats, histograms) = read("h_bucket{le=\"1\"} 5\n", false);
        assert_eq!((floats.len(), histograms.len()), (1, 0));
    }
}
