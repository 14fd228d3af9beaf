//! Records of samples of all kinds under construction. Drawn in `docs/format.md`, section "WAL records".

use model::{HistogramValue, Timestamp};

use super::record::{
    FLOAT_HISTOGRAMS_WITH_START, HISTOGRAMS_WITH_START, HistogramRecords, NO_START, OTHER_START, SAME_START,
    SAMPLES_WITH_START, SamplesRecord, WalRef, put_histogram,
};
use crate::chunk::{Sample, Value};
use crate::codec::bytes::Put;
use smallvec::{SmallVec, smallvec};

/// Samples of a batch. Start times make other records, which Prometheus reads from 3.14 on: so either all samples are
/// in those or none, and a series' samples stay in their order.
#[derive(Debug)]
pub(crate) enum SampleRecords {
    /// No sample has a start time.
    Plain(SamplesRecord, HistogramRecords),
    /// Floats, histograms of integer counts, those of float counts.
    Started([StartedRecord; 3]),
}

impl SampleRecords {
    pub(crate) fn new(started: bool) -> Self {
        if !started {
            return Self::Plain(SamplesRecord::default(), HistogramRecords::new());
        }
        let kinds = [SAMPLES_WITH_START, HISTOGRAMS_WITH_START, FLOAT_HISTOGRAMS_WITH_START];
        Self::Started(kinds.map(StartedRecord::new))
    }

    pub(crate) fn push(&mut self, series: WalRef, sample: &Sample) {
        let Sample { ts, start, value } = sample;
        match (self, value) {
            (Self::Plain(floats, _), Value::Float(value)) => floats.push(series, *ts, *value),
            (Self::Plain(_, histograms), Value::Histogram(value)) => histograms.push(series, *ts, value),
            (Self::Started([floats, ..]), Value::Float(value)) => {
                floats.begin(series, *ts, *start).put_f64(*value);
            }
            (Self::Started([_, ints, floats]), Value::Histogram(value)) => {
                let record = if matches!(value, HistogramValue::Int(_)) { ints } else { floats };
                put_histogram(record.begin(series, *ts, *start), value);
            }
        }
    }

    /// The finished records that are not empty.
    pub(crate) fn finish(&self) -> Vec<&[u8]> {
        match self {
            Self::Plain(floats, histograms) => {
                floats.finish().into_iter().chain(histograms.finish()).collect()
            }
            Self::Started(records) => records.iter().filter_map(StartedRecord::finish).collect(),
        }
    }
}

/// Samples of a batch in the order in which they came. Records are of one kind, so where a series has one kind after
/// another, those of the second kind begin anew: whoever reads the log finds the samples of each series in their order.
#[derive(Debug)]
pub(crate) struct OrderedRecords {
    started: bool,
    groups: SmallVec<[SampleRecords; 1]>,
}

impl OrderedRecords {
    pub(crate) fn new(started: bool) -> Self {
        Self { started, groups: smallvec![SampleRecords::new(started)] }
    }

    /// What follows comes after everything there is.
    pub(crate) fn begin(&mut self) {
        self.groups.push(SampleRecords::new(self.started));
    }

    pub(crate) fn push(&mut self, series: WalRef, sample: &Sample) {
        self.groups.last_mut().into_iter().for_each(|group| group.push(series, sample));
    }

    /// The finished records that are not empty.
    pub(crate) fn finish(&self) -> impl Iterator<Item = &[u8]> {
        self.groups.iter().flat_map(SampleRecords::finish)
    }
}

/// Samples of one kind are in one record.
pub(crate) fn kind(value: &Value) -> u8 {
    match value {
        Value::Float(_) => 0,
        Value::Histogram(HistogramValue::Int(histogram)) => 1 + u8::from(histogram.has_custom_buckets()),
        Value::Histogram(HistogramValue::Float(histogram)) => 3 + u8::from(histogram.has_custom_buckets()),
    }
}

/// A record of samples with start times.
#[derive(Debug)]
pub(crate) struct StartedRecord {
    data: Vec<u8>,
    /// Time and start time of the first entry.
    first: Option<(Timestamp, Timestamp)>,
    /// Series and start time of the entry before.
    before: (WalRef, Timestamp),
}

impl StartedRecord {
    fn new(kind: u8) -> Self {
        Self { data: vec![kind], first: None, before: (0, 0) }
    }

    fn begin(&mut self, series: WalRef, ts: Timestamp, start: Timestamp) -> &mut Vec<u8> {
        let before = std::mem::replace(&mut self.before, (series, start));
        let out = &mut self.data;
        let Some((first_ts, first_start)) = self.first else {
            self.first = Some((ts, start));
            for number in [series.cast_signed(), ts, start] {
                out.put_varint(number);
            }
            return out;
        };
        out.put_varint(series.wrapping_sub(before.0).cast_signed());
        out.put_varint(ts.wrapping_sub(first_ts));
        match start {
            0 => out.push(NO_START),
            _ if start == before.1 => out.push(SAME_START),
            _ => {
                out.push(OTHER_START);
                out.put_varint(start.wrapping_sub(first_start));
            }
        }
        out
    }

    fn finish(&self) -> Option<&[u8]> {
        self.first.is_some().then_some(&self.data)
    }
}

#[cfg(test)]
mod tests {
    use model::IntHistogram;
    use proptest::prelude::*;

    use super::*;
    use crate::wal::record::{Record, decode};

    #[test]
    fn a_known_record() {
        let mut records = SampleRecords::new(true);
        for (series, ts, start) in [(7, 1000, 500), (9, 1000, 500), (5, 1015, 0), (95, 995, 800)] {
            records.push(series, &Sample { ts, start, value: Value::Float(2.0) });
        }
        let two = 2f64.to_bits().to_be_bytes();
        // Zig-zag varints: 7, 1000, 500; +2, 0, same; -4, 15, none; +90, -5, 800 - 500.
        let heads: [&[u8]; 4] =
            [&[11, 14, 0xd0, 0x0f, 0xe8, 0x07], &[4, 0, 1], &[7, 30, 0], &[0xb4, 0x01, 9, 2, 0xd8, 0x04]];
        let expected: Vec<u8> = heads.iter().flat_map(|head| head.iter().chain(&two)).copied().collect();
        assert_eq!(records.finish(), [expected]);
    }

    proptest! {
        #[test]
        fn samples_of_all_kinds_round_trip(
            started: bool,
            entries in prop::collection::vec((any::<u64>(), any::<i64>(), prop::option::of(any::<i64>()), 0u8..3), 0..50),
        ) {
            let mut records = SampleRecords::new(started);
            let (mut expected, mut start) = ([Vec::new(), Vec::new(), Vec::new()], 0);
            for (series, ts, new, kind) in entries {
                start = if started { new.unwrap_or(start) } else { 0 };
                let histogram = IntHistogram { sum: 2.0, count: 1, zero_count: 1, ..IntHistogram::default() };
                let value = match kind {
                    0 => Value::Float(ts as f64),
                    1 => Value::Histogram(HistogramValue::Int(histogram)),
                    _ => Value::Histogram(HistogramValue::Float(histogram.to_float())),
                };
                let sample = Sample { ts, start, value };
                records.push(series, &sample);
                expected[usize::from(kind)].push((series, sample));
            }
            let mut found = [Vec::new(), Vec::new(), Vec::new()];
            for record in records.finish() {
                let entries: Vec<_> = match decode(record).unwrap() {
                    Record::Started(entries) => entries,
                    Record::Samples(entries) => {
                        entries.into_iter().map(|(series, ts, value)| (series, Sample::float(ts, value))).collect()
                    }
                    Record::Histograms(entries) => entries
                        .into_iter()
                        .map(|(series, ts, value)| (series, Sample::new(ts, Value::Histogram(value))))
                        .collect(),
                    other => unreachable!("{other:?}"),
                };
                for entry in entries {
                    let kind = match &entry.1.value {
                        Value::Float(_) => 0,
                        Value::Histogram(HistogramValue::Int(_)) => 1,
                        Value::Histogram(HistogramValue::Float(_)) => 2,
                    };
                    found[kind].push(entry);
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
