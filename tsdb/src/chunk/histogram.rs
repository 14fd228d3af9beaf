//! Chunks of native histograms (encodings 2 and 3; with start times 5 and 6). Drawn in `docs/format.md`,
//! section "Histogram chunks".
//!
//! All histograms of a chunk have one layout, and counters in it never go down; where either would
//! change, a new chunk begins.

use model::{FloatHistogram, Histogram, HistogramValue, IntHistogram, ResetHint, Timestamp};

use super::Encoding;
use super::layout::{Counts, Layout};
use super::start::{StartReader, StartWriter};
use super::varbit::{read_signed, read_unsigned, write_signed, write_unsigned};
use super::xor::{XorValue, set_count};
use crate::codec::Malformed;
use crate::codec::bits::{BitReader, BitWriter};

/// Where the flags are: after the count. With start times these have the place, and the flags are the two high
/// bits of the count.
const FLAGS_AT: usize = 2;
const HEADER_BYTES: usize = 3;
const FLAG_RESET: u8 = 0b1000_0000;
const FLAG_NOT_RESET: u8 = 0b0100_0000;
const FLAG_GAUGE: u8 = 0b1100_0000;

/// The state needed to append to an open histogram chunk whose bytes lie elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct HistogramAppender {
    ts: Timestamp,
    ts_delta: i64,
    last: HistogramValue,
    layout: Layout,
    sum: XorValue,
    counts: State,
    /// `None`: the chunk has no start times.
    starts: Option<StartWriter>,
    writer: BitWriter,
    number: u16,
}

#[derive(Clone, Debug)]
enum State {
    /// Steps of the count, of the zero bucket, and of each bucket's difference to its neighbour.
    Int {
        count: i64,
        zero_count: i64,
        buckets: Vec<i64>,
    },
    Float {
        count: XorValue,
        zero_count: XorValue,
        buckets: Vec<XorValue>,
    },
}

/// Whether a histogram can go into an open chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    Fits,
    /// A counter went down.
    Reset,
    /// Another kind or layout.
    Differs,
}

/// The bucket counts as the codec sees them: each as its difference to the one before, positive ones
/// first.
fn neighbour_deltas(histogram: &IntHistogram) -> impl Iterator<Item = i64> + '_ {
    [&histogram.positive, &histogram.negative].into_iter().flat_map(|counts| {
        let before = std::iter::once(0).chain(counts.iter().copied());
        counts.iter().zip(before).map(|(&count, before)| count.wrapping_sub(before).cast_signed())
    })
}

fn buckets<N: Copy>(histogram: &Histogram<N>) -> impl Iterator<Item = N> + '_ {
    histogram.positive.iter().chain(&histogram.negative).copied()
}

fn hint(value: &HistogramValue) -> ResetHint {
    match value {
        HistogramValue::Int(histogram) => histogram.reset_hint,
        HistogramValue::Float(histogram) => histogram.reset_hint,
    }
}

fn sum(value: &HistogramValue) -> f64 {
    match value {
        HistogramValue::Int(histogram) => histogram.sum,
        HistogramValue::Float(histogram) => histogram.sum,
    }
}

/// A staleness marker carries nothing but its mark.
fn without_content(value: &HistogramValue) -> Option<HistogramValue> {
    let sum = sum(value);
    model::is_stale_nan(sum).then(|| match value {
        HistogramValue::Int(_) => HistogramValue::Int(IntHistogram { sum, ..IntHistogram::default() }),
        HistogramValue::Float(_) => {
            HistogramValue::Float(FloatHistogram { sum, ..FloatHistogram::default() })
        }
    })
}

/// Whether any counter of `next` is below that of `last`; both have one layout.
fn goes_down<N: PartialOrd + Copy>(last: &Histogram<N>, next: &Histogram<N>) -> bool {
    next.count < last.count
        || next.zero_count < last.zero_count
        || buckets(next).zip(buckets(last)).any(|(next, last)| next < last)
}

impl HistogramAppender {
    /// Begins a chunk in `out`, which must be empty; with start times if `start` is known (not 0). `value` must
    /// be consistent. `reset` is what is known about a counter reset in front of the chunk.
    pub(crate) fn start(
        out: &mut Vec<u8>,
        (ts, start): (Timestamp, Timestamp),
        value: &HistogramValue,
        reset: ResetHint,
    ) -> Self {
        debug_assert!(out.is_empty());
        let value = without_content(value).unwrap_or_else(|| value.clone());
        let flags = match (hint(&value), reset) {
            (ResetHint::Gauge, _) => FLAG_GAUGE,
            (ResetHint::Reset, _) | (_, ResetHint::Reset) => FLAG_RESET,
            (_, ResetHint::NotReset) => FLAG_NOT_RESET,
            _ => 0,
        };
        out.extend_from_slice(&if start == 0 { [0, 1, flags] } else { [flags, 1, 0] });
        let mut writer = BitWriter::default();
        let layout = match &value {
            HistogramValue::Int(histogram) => Layout::of(histogram),
            HistogramValue::Float(histogram) => Layout::of(histogram),
        };
        layout.write(&mut writer, out);
        write_signed(&mut writer, out, ts);
        let counts = match &value {
            HistogramValue::Int(histogram) => {
                write_unsigned(&mut writer, out, histogram.count);
                write_unsigned(&mut writer, out, histogram.zero_count);
                writer.bits(out, histogram.sum.to_bits(), 64);
                for delta in neighbour_deltas(histogram) {
                    write_signed(&mut writer, out, delta);
                }
                let buckets = vec![0; histogram.positive.len() + histogram.negative.len()];
                State::Int { count: 0, zero_count: 0, buckets }
            }
            HistogramValue::Float(histogram) => {
                let mut raw = |value: f64| {
                    writer.bits(out, value.to_bits(), 64);
                    XorValue::first(value)
                };
                let (count, zero_count) = (raw(histogram.count), raw(histogram.zero_count));
                raw(histogram.sum);
                let buckets = buckets(histogram).map(raw).collect();
                State::Float { count, zero_count, buckets }
            }
        };
        let sum = XorValue::first(sum(&value));
        let starts = (start != 0).then(|| StartWriter::first(&mut writer, (out, FLAGS_AT), ts, start));
        Self { ts, ts_delta: 0, last: value, layout, sum, counts, starts, writer, number: 1 }
    }

    /// Whether a sample with this start time can be in the chunk.
    pub(crate) fn takes_start(&self, start: Timestamp) -> bool {
        start == 0 || self.starts.is_some()
    }

    /// The number of samples.
    pub(crate) fn count(&self) -> u16 {
        self.number
    }

    /// Whether `value`, which must be consistent, can follow.
    pub(crate) fn fit(&self, value: &HistogramValue) -> Fit {
        let same_kind = matches!(
            (&self.last, value),
            (HistogramValue::Int(_), HistogramValue::Int(_))
                | (HistogramValue::Float(_), HistogramValue::Float(_))
        );
        let was_stale = model::is_stale_nan(sum(&self.last));
        if same_kind && model::is_stale_nan(sum(value)) {
            return Fit::Fits;
        }
        let gauge = hint(value) == ResetHint::Gauge;
        if !same_kind || was_stale || gauge != (hint(&self.last) == ResetHint::Gauge) {
            return Fit::Differs;
        }
        let (fits, down) = match (&self.last, value) {
            (HistogramValue::Int(last), HistogramValue::Int(next)) => {
                let fits = self.layout.fits(next);
                (fits, fits && goes_down(last, next))
            }
            (HistogramValue::Float(last), HistogramValue::Float(next)) => {
                let fits = self.layout.fits(next);
                (fits, fits && goes_down(last, next))
            }
            _ => return Fit::Differs,
        };
        match (fits, gauge) {
            (false, _) => Fit::Differs,
            (true, true) => Fit::Fits,
            (true, false) if down || hint(value) == ResetHint::Reset => Fit::Reset,
            (true, false) => Fit::Fits,
        }
    }

    /// Appends a histogram that fits.
    pub(crate) fn append(
        &mut self,
        out: &mut Vec<u8>,
        (ts, start): (Timestamp, Timestamp),
        value: &HistogramValue,
    ) {
        let value = without_content(value).unwrap_or_else(|| value.clone());
        let (before, ts_delta) = (self.ts, ts.wrapping_sub(self.ts));
        write_signed(&mut self.writer, out, ts_delta.wrapping_sub(self.ts_delta));
        (self.ts, self.ts_delta) = (ts, ts_delta);
        match (&mut self.counts, &self.last, &value) {
            (
                State::Int { count, zero_count, buckets },
                HistogramValue::Int(last),
                HistogramValue::Int(next),
            ) => {
                let stale = next.is_stale();
                for (step, last, next) in
                    [(count, last.count, next.count), (zero_count, last.zero_count, next.zero_count)]
                {
                    // A marker's counts mean nothing, so the steps stay as they are.
                    let new = if stale { *step } else { next.wrapping_sub(last).cast_signed() };
                    write_signed(&mut self.writer, out, new.wrapping_sub(*step));
                    *step = new;
                }
                self.sum.write(&mut self.writer, out, next.sum);
                let pairs = neighbour_deltas(next).zip(neighbour_deltas(last));
                for ((next, last), step) in pairs.zip(buckets) {
                    let new = next.wrapping_sub(last);
                    write_signed(&mut self.writer, out, new.wrapping_sub(*step));
                    *step = new;
                }
            }
            (State::Float { count, zero_count, buckets: states }, _, HistogramValue::Float(next)) => {
                count.write(&mut self.writer, out, next.count);
                zero_count.write(&mut self.writer, out, next.zero_count);
                self.sum.write(&mut self.writer, out, next.sum);
                for (state, bucket) in states.iter_mut().zip(buckets(next)) {
                    state.write(&mut self.writer, out, bucket);
                }
            }
            _ => debug_assert!(false, "a histogram of the other kind does not fit"),
        }
        self.last = value;
        let index = usize::from(self.number);
        self.number += 1;
        let mut flags = 0;
        if let Some(starts) = &mut self.starts {
            starts.next(&mut self.writer, (out, FLAGS_AT), index, (before, start));
            flags = u16::from(out[0] & FLAG_GAUGE) << 8;
        }
        set_count(out, flags | self.number);
    }

    /// The time of the last sample.
    pub(crate) fn last_ts(&self) -> Timestamp {
        self.ts
    }

    /// The last sample.
    pub(crate) fn last(&self) -> &HistogramValue {
        &self.last
    }

    pub(crate) fn encoding(&self) -> Encoding {
        match (&self.last, &self.starts) {
            (HistogramValue::Int(_), None) => Encoding::Histogram,
            (HistogramValue::Float(_), None) => Encoding::FloatHistogram,
            (HistogramValue::Int(_), Some(_)) => Encoding::StartedHistogram,
            (HistogramValue::Float(_), Some(_)) => Encoding::StartedFloatHistogram,
        }
    }
}

/// What is done with time, start time (0 where it is unknown) and value of each sample.
type Visit<'a> = dyn FnMut(Timestamp, Timestamp, HistogramValue) + 'a;

/// Calls `visit` with the first `limit` samples of the chunk.
pub(super) fn for_each(
    encoding: Encoding,
    chunk: &[u8],
    limit: usize,
    visit: &mut Visit<'_>,
) -> Result<(), Malformed> {
    let Some((&[first, _, third], data)) = chunk.split_first_chunk::<HEADER_BYTES>() else {
        return Err(Malformed("histogram chunk without a header"));
    };
    let samples = usize::from(super::count(encoding, chunk)).min(limit);
    if samples == 0 {
        return Ok(());
    }
    let mut reader = BitReader::new(data);
    let layout = Layout::read(&mut reader, chunk.len() as u64 * 8)?;
    let (flags, starts) = if encoding.has_flagged_count() { (first, third) } else { (third, 0) };
    let times = Times { ts: 0, delta: 0, starts: StartReader::new(starts) };
    let chunk = Chunk { layout, flags: flags & FLAG_GAUGE, samples };
    match encoding {
        Encoding::FloatHistogram | Encoding::StartedFloatHistogram => chunk.floats(&mut reader, times, visit),
        _ => chunk.ints(&mut reader, times, visit),
    }
}

struct Chunk {
    layout: Layout,
    flags: u8,
    samples: usize,
}

/// Reads the times of a chunk one by one.
struct Times {
    ts: Timestamp,
    delta: i64,
    starts: StartReader,
}

impl Times {
    fn next(&mut self, reader: &mut BitReader<'_>, index: usize) -> Result<Timestamp, Malformed> {
        if index == 0 {
            self.ts = read_signed(reader)?;
        } else {
            self.delta = self.delta.wrapping_add(read_signed(reader)?);
            self.ts = self.ts.wrapping_add(self.delta);
        }
        Ok(self.ts)
    }

    /// The start time, which is behind the sample.
    fn start(&mut self, reader: &mut BitReader<'_>, index: usize) -> Result<Timestamp, Malformed> {
        if index == 0 {
            return self.starts.first(reader, self.ts);
        }
        self.starts.next(reader, index, self.ts.wrapping_sub(self.delta))
    }
}

impl Chunk {
    /// What readers are told of the `index`th histogram. Of the first nothing can be said, as nobody
    /// knows whether the chunk that it continues is still there.
    fn hint(&self, index: usize) -> ResetHint {
        match (self.flags, index) {
            (FLAG_GAUGE, _) => ResetHint::Gauge,
            (_, 0) => ResetHint::Unknown,
            _ => ResetHint::NotReset,
        }
    }

    fn ints(
        &self,
        reader: &mut BitReader<'_>,
        mut times: Times,
        visit: &mut Visit<'_>,
    ) -> Result<(), Malformed> {
        let positive = self.layout.positive_buckets();
        let (mut count, mut zero_count, mut sum) = ((0u64, 0i64), (0u64, 0i64), XorValue::first(0.0));
        let mut buckets = vec![(0i64, 0i64); positive + self.layout.negative_buckets()];
        for index in 0..self.samples {
            let ts = times.next(reader, index)?;
            for (total, step) in [&mut count, &mut zero_count] {
                if index == 0 {
                    *total = read_unsigned(reader)?;
                } else {
                    *step = step.wrapping_add(read_signed(reader)?);
                    *total = total.wrapping_add_signed(*step);
                }
            }
            if index == 0 {
                sum = XorValue::first(f64::from_bits(reader.bits(64)?));
            } else {
                sum.read(reader)?;
            }
            let sum = sum.value();
            if index > 0 && model::is_stale_nan(sum) {
                let start = times.start(reader, index)?;
                visit(ts, start, HistogramValue::Int(IntHistogram { sum, ..IntHistogram::default() }));
                continue;
            }
            for (value, step) in &mut buckets {
                if index == 0 {
                    *value = read_signed(reader)?;
                } else {
                    *step = step.wrapping_add(read_signed(reader)?);
                    *value = value.wrapping_add(*step);
                }
            }
            let absolute = |deltas: &[(i64, i64)]| -> Vec<u64> {
                let running = deltas.iter().scan(0i64, |total, &(delta, _)| {
                    *total = total.wrapping_add(delta);
                    Some(total.cast_unsigned())
                });
                running.collect()
            };
            let (positive, negative) = buckets.split_at(positive);
            let counts = Counts {
                zero_count: zero_count.0,
                count: count.0,
                sum,
                positive: absolute(positive),
                negative: absolute(negative),
                reset_hint: self.hint(index),
            };
            let start = times.start(reader, index)?;
            visit(ts, start, HistogramValue::Int(self.layout.histogram(counts)));
        }
        Ok(())
    }

    fn floats(
        &self,
        reader: &mut BitReader<'_>,
        mut times: Times,
        visit: &mut Visit<'_>,
    ) -> Result<(), Malformed> {
        let positive = self.layout.positive_buckets();
        let mut head = [XorValue::first(0.0); 3];
        let mut buckets = vec![XorValue::first(0.0); positive + self.layout.negative_buckets()];
        for index in 0..self.samples {
            let ts = times.next(reader, index)?;
            let mut next = |state: &mut XorValue| -> Result<(), Malformed> {
                if index == 0 {
                    *state = XorValue::first(f64::from_bits(reader.bits(64)?));
                } else {
                    state.read(reader)?;
                }
                Ok(())
            };
            head.iter_mut().try_for_each(&mut next)?;
            let [count, zero_count, sum] = head.map(XorValue::value);
            if index > 0 && model::is_stale_nan(sum) {
                let start = times.start(reader, index)?;
                visit(ts, start, HistogramValue::Float(FloatHistogram { sum, ..FloatHistogram::default() }));
                continue;
            }
            buckets.iter_mut().try_for_each(&mut next)?;
            let values = |states: &[XorValue]| states.iter().map(|state| state.value()).collect();
            let (positive, negative) = buckets.split_at(positive);
            let (positive, negative) = (values(positive), values(negative));
            let counts = Counts { zero_count, count, sum, positive, negative, reset_hint: self.hint(index) };
            let start = times.start(reader, index)?;
            visit(ts, start, HistogramValue::Float(self.layout.histogram(counts)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Span;
    use proptest::prelude::*;

    fn histogram(counts: &[u64], sum: f64) -> IntHistogram {
        let count = counts.iter().sum();
        let length = u32::try_from(counts.len()).unwrap();
        IntHistogram {
            schema: 1,
            zero_threshold: 2f64.powi(-128),
            count,
            sum,
            positive_spans: vec![Span { offset: -2, length }],
            positive: counts.to_vec(),
            ..IntHistogram::default()
        }
    }

    fn read(encoding: Encoding, chunk: &[u8]) -> Result<Vec<(i64, i64, HistogramValue)>, Malformed> {
        let mut out = Vec::new();
        for_each(encoding, chunk, usize::MAX, &mut |ts, start, value| out.push((ts, start, value)))?;
        Ok(out)
    }

    #[test]
    fn a_stale_marker_ends_a_chunk_and_may_be_repeated() {
        let mut out = Vec::new();
        let first = HistogramValue::Int(histogram(&[1, 2], 3.0));
        let stale = HistogramValue::Int(histogram(&[1, 2], model::stale_nan()));
        let mut appender = HistogramAppender::start(&mut out, (10, 0), &first, ResetHint::Unknown);
        for ts in [20, 35, 40] {
            assert_eq!(appender.fit(&stale), Fit::Fits);
            appender.append(&mut out, (ts, 0), &stale);
        }
        assert_eq!(appender.fit(&first), Fit::Differs);
        let back = read(Encoding::Histogram, &out).unwrap();
        assert_eq!(back.iter().map(|sample| sample.0).collect::<Vec<_>>(), [10, 20, 35, 40]);
        assert!(back[1..].iter().all(|(.., value)| model::is_stale_nan(sum(value))));
    }

    #[test]
    fn the_first_step_is_a_signed_number_as_all_others() {
        // 3000 takes 12 bits without a sign, but its place is among those of 18.
        let stale = HistogramValue::Int(IntHistogram { sum: model::stale_nan(), ..IntHistogram::default() });
        let mut out = Vec::new();
        let mut appender = HistogramAppender::start(&mut out, (0, 0), &stale, ResetHint::Unknown);
        appender.append(&mut out, (3000, 0), &stale);
        // Zero threshold, schema, two counts of spans, time, two counts: 8 + 6 zero bits, and 64 bits of sum.
        let mut reader = BitReader::new(&out[HEADER_BYTES..]);
        assert_eq!((reader.bits(14), reader.bits(64)), (Ok(0), Ok(model::STALE_NAN)));
        assert_eq!(reader.bits(6 + 18), Ok(0b11_1110 << 18 | 3000));
    }

    #[test]
    fn resets_and_other_layouts_do_not_fit() {
        let mut out = Vec::new();
        let first = HistogramValue::Int(histogram(&[1, 2], 3.0));
        let appender = HistogramAppender::start(&mut out, (10, 0), &first, ResetHint::Unknown);
        let fit = |h: IntHistogram| appender.fit(&HistogramValue::Int(h));
        assert_eq!(fit(histogram(&[1, 2], 3.0)), Fit::Fits);
        assert_eq!(fit(histogram(&[0, 4], 3.0)), Fit::Reset);
        assert_eq!(fit(histogram(&[1, 2, 3], 3.0)), Fit::Differs);
        assert_eq!(
            fit(IntHistogram { reset_hint: ResetHint::Gauge, ..histogram(&[1, 2], 3.0) }),
            Fit::Differs
        );
        assert_eq!(appender.fit(&HistogramValue::Float(histogram(&[1, 2], 3.0).to_float())), Fit::Differs);
    }

    proptest! {
        #[test]
        fn counters_round_trip(
            start: i64,
            steps in prop::collection::vec(
                (1i64..1_000_000, any::<u64>(), prop::collection::vec(0u64..1000, 4), prop::option::of(any::<i64>())),
                1..150,
            ),
        ) {
            let (mut ts, mut counts) = (start, vec![0u64; 4]);
            for (float, started) in [(false, false), (true, false), (false, true), (true, true)] {
                let mut start = i64::from(started);
                let (mut out, mut appender, mut expected) = (Vec::new(), None, Vec::new());
                for (step, sum, growth, new) in &steps {
                    start = new.filter(|_| started && !expected.is_empty()).unwrap_or(start);
                    ts = ts.wrapping_add(*step);
                    counts.iter_mut().zip(growth).for_each(|(count, growth)| *count += growth);
                    let sum = f64::from_bits(*sum);
                    prop_assume!(!model::is_stale_nan(sum));
                    let mut int = histogram(&counts, sum);
                    let value = |h: &IntHistogram| if float {
                        HistogramValue::Float(h.to_float())
                    } else {
                        HistogramValue::Int(h.clone())
                    };
                    match &mut appender {
                        None => appender = Some(
                            HistogramAppender::start(&mut out, (ts, start), &value(&int), ResetHint::Unknown),
                        ),
                        Some(appender) => {
                            prop_assert_eq!(appender.fit(&value(&int)), Fit::Fits);
                            appender.append(&mut out, (ts, start), &value(&int));
                            int.reset_hint = ResetHint::NotReset;
                        }
                    }
                    expected.push((ts, start, format!("{:?}", value(&int))));
                }
                let encoding = appender.unwrap().encoding();
                prop_assert_eq!(encoding.has_flagged_count(), started);
                prop_assert_eq!(usize::from(crate::chunk::count(encoding, &out)), steps.len());
                let back = read(encoding, &out).unwrap();
                let back: Vec<_> =
                    back.iter().map(|(ts, start, value)| (*ts, *start, format!("{value:?}"))).collect();
                prop_assert_eq!(back, expected);
            }
        }

        #[test]
        fn garbage_never_panics(chunk: Vec<u8>) {
            let _ = read(Encoding::Histogram, &chunk);
            let _ = read(Encoding::FloatHistogram, &chunk);
            let _ = read(Encoding::StartedHistogram, &chunk);
            let _ = read(Encoding::StartedFloatHistogram, &chunk);
        }
    }
}
