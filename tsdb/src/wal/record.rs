//! What the records of the log mean. Drawn in `docs/format.md`, section "WAL records".

use model::histogram::CUSTOM_BUCKETS_SCHEMA;
use model::{FloatHistogram, Histogram, HistogramValue, IntHistogram, Labels, ResetHint, Span, Timestamp};

use crate::chunk::{Sample, Value};
use crate::codec::Malformed;
use crate::codec::bytes::{Bytes, Put};
use crate::head::metadata::{Metadata, MetricKind};

const SERIES: u8 = 1;
const SAMPLES: u8 = 2;
const TOMBSTONES: u8 = 3;
const EXEMPLARS: u8 = 4;
const MAPPED_MARKERS: u8 = 5;
const METADATA: u8 = 6;
const HISTOGRAMS: u8 = 7;
const FLOAT_HISTOGRAMS: u8 = 8;
const CUSTOM_HISTOGRAMS: u8 = 9;
const CUSTOM_FLOAT_HISTOGRAMS: u8 = 10;
/// Says that the next record is a copy of late samples; their own log has them, too. To others it is a list of no markers.
pub(crate) const COPY_MARK: &[u8] = &[MAPPED_MARKERS];

pub(super) const SAMPLES_WITH_START: u8 = 11;
pub(super) const HISTOGRAMS_WITH_START: u8 = 12;
pub(super) const FLOAT_HISTOGRAMS_WITH_START: u8 = 13;

/// The entry's start time is unknown.
pub(super) const NO_START: u8 = 0;
/// It is that of the entry before.
pub(super) const SAME_START: u8 = 1;
/// It follows, as its difference to that of the first entry.
pub(super) const OTHER_START: u8 = 2;

/// A series as the log names it.
pub(crate) type WalRef = u64;

/// A decoded record.
#[derive(Debug)]
pub(crate) enum Record {
    Series(Vec<(WalRef, Labels)>),
    Samples(Vec<(WalRef, Timestamp, f64)>),
    Tombstones(Vec<(WalRef, Timestamp, Timestamp)>),
    Exemplars(Vec<(WalRef, Timestamp, f64, Labels)>),
    MappedMarkers,
    /// The next record is of late samples, and a copy, see [`COPY_MARK`].
    CopyMark,
    Metadata(Vec<(WalRef, Metadata)>),
    Histograms(Vec<(WalRef, Timestamp, HistogramValue)>),
    /// Samples with start times, all floats or all histograms.
    Started(Vec<(WalRef, Sample)>),
    /// A type of a later version; skipped, as Prometheus does.
    Unknown,
}

impl Record {
    /// Whether it is of samples.
    pub(crate) fn has_samples(&self) -> bool {
        matches!(self, Self::Samples(_) | Self::Histograms(_) | Self::Started(_))
    }
}

/// Reads a record.
pub(crate) fn decode(data: &[u8]) -> Result<Record, Malformed> {
    let mut bytes = Bytes::new(data);
    Ok(match bytes.u8()? {
        SERIES => Record::Series(all(&mut bytes, |b| Ok((b.u64()?, labels(b)?)))?),
        SAMPLES => return floats_of(data, |_, _| true).map(Record::Samples),
        TOMBSTONES => Record::Tombstones(all(&mut bytes, |b| Ok((b.u64()?, b.varint()?, b.varint()?)))?),
        EXEMPLARS => {
            let entries = deltas(&mut bytes, |_, b| Ok((b.f64()?, labels(b)?)))?;
            Record::Exemplars(
                entries.into_iter().map(|(r, t, (value, labels))| (r, t, value, labels)).collect(),
            )
        }
        MAPPED_MARKERS if bytes.is_empty() => Record::CopyMark,
        MAPPED_MARKERS => Record::MappedMarkers,
        METADATA => Record::Metadata(all(&mut bytes, metadata)?),
        HISTOGRAMS | CUSTOM_HISTOGRAMS => {
            Record::Histograms(deltas(&mut bytes, |_, b| int_histogram(b).map(HistogramValue::Int))?)
        }
        FLOAT_HISTOGRAMS | CUSTOM_FLOAT_HISTOGRAMS => {
            Record::Histograms(deltas(&mut bytes, |_, b| float_histogram(b).map(HistogramValue::Float))?)
        }
        SAMPLES_WITH_START => Record::Started(with_start(&mut bytes, |b| b.f64().map(Value::Float))?),
        HISTOGRAMS_WITH_START => Record::Started(with_start(&mut bytes, |b| {
            int_histogram(b).map(|histogram| Value::Histogram(HistogramValue::Int(histogram)))
        })?),
        FLOAT_HISTOGRAMS_WITH_START => Record::Started(with_start(&mut bytes, |b| {
            float_histogram(b).map(|histogram| Value::Histogram(HistogramValue::Float(histogram)))
        })?),
        _ => Record::Unknown,
    })
}

/// Reads a record, of floats only those that `keep` wants.
pub(crate) fn decode_some(
    data: &[u8],
    keep: impl FnMut(WalRef, Timestamp) -> bool,
) -> Result<Record, Malformed> {
    match data.first() {
        Some(&SAMPLES) => floats_of(data, keep).map(Record::Samples),
        _ => decode(data),
    }
}

/// The floats of a record that `keep` wants: nearly all that a log has is these.
fn floats_of(
    data: &[u8],
    mut keep: impl FnMut(WalRef, Timestamp) -> bool,
) -> Result<Vec<(WalRef, Timestamp, f64)>, Malformed> {
    let mut bytes = Bytes::new(data);
    bytes.u8()?;
    let mut entries = Vec::new();
    if bytes.is_empty() {
        return Ok(entries);
    }
    let (base_ref, base_ts) = (bytes.u64()?, bytes.i64()?);
    while !bytes.is_empty() {
        let series = base_ref.wrapping_add_signed(bytes.varint()?);
        let ts = base_ts.wrapping_add(bytes.varint()?);
        let value = bytes.f64()?;
        if keep(series, ts) {
            if entries.is_empty() {
                entries.reserve(1 + bytes.rest().len() / 10);
            }
            entries.push((series, ts, value));
        }
    }
    Ok(entries)
}

fn all<'a, T>(
    bytes: &mut Bytes<'a>,
    mut entry: impl FnMut(&mut Bytes<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        entries.push(entry(bytes)?);
    }
    Ok(entries)
}

/// Entries whose reference and time are differences to those of the record's head.
fn deltas<'a, T>(
    bytes: &mut Bytes<'a>,
    mut value: impl FnMut(WalRef, &mut Bytes<'a>) -> Result<T, Malformed>,
) -> Result<Vec<(WalRef, Timestamp, T)>, Malformed> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let (base_ref, base_ts) = (bytes.u64()?, bytes.i64()?);
    all(bytes, |b| {
        let series = base_ref.wrapping_add_signed(b.varint()?);
        let ts = base_ts.wrapping_add(b.varint()?);
        Ok((series, ts, value(series, b)?))
    })
}

/// Entries with start times: the first in full, the others with the difference of their reference to the one before,
/// and of their time to the first.
fn with_start(
    bytes: &mut Bytes<'_>,
    mut value: impl FnMut(&mut Bytes<'_>) -> Result<Value, Malformed>,
) -> Result<Vec<(WalRef, Sample)>, Malformed> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let (mut series, first_ts, first_start) =
        (bytes.varint()?.cast_unsigned(), bytes.varint()?, bytes.varint()?);
    let mut start = first_start;
    let mut entries = vec![(series, Sample { ts: first_ts, start, value: value(bytes)? })];
    while !bytes.is_empty() {
        series = series.wrapping_add_signed(bytes.varint()?);
        let ts = first_ts.wrapping_add(bytes.varint()?);
        start = match bytes.u8()? {
            NO_START => 0,
            SAME_START => start,
            _ => first_start.wrapping_add(bytes.varint()?),
        };
        entries.push((series, Sample { ts, start, value: value(bytes)? }));
    }
    Ok(entries)
}

fn labels(bytes: &mut Bytes<'_>) -> Result<Labels, Malformed> {
    let count = bytes.count()?;
    let mut pairs = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        pairs.push((bytes.text()?, bytes.text()?));
    }
    let sorted = pairs.windows(2).all(|pair| pair[0].0 < pair[1].0);
    Ok(if sorted { Labels::from_sorted(pairs) } else { Labels::from_pairs(pairs) })
}

fn metadata(bytes: &mut Bytes<'_>) -> Result<(WalRef, Metadata), Malformed> {
    let (series, kind, fields) = (bytes.uvarint()?, bytes.u8()?, bytes.count()?);
    let mut entry = Metadata { kind: MetricKind::from_byte(kind), ..Metadata::default() };
    for _ in 0..fields {
        match (bytes.text()?, bytes.text()?) {
            ("UNIT", unit) => unit.clone_into(&mut entry.unit),
            ("HELP", help) => help.clone_into(&mut entry.help),
            _ => {}
        }
    }
    Ok((series, entry))
}

fn reset_hint(byte: u8) -> ResetHint {
    match byte {
        1 => ResetHint::Reset,
        2 => ResetHint::NotReset,
        3 => ResetHint::Gauge,
        _ => ResetHint::Unknown,
    }
}

fn reset_hint_byte(hint: ResetHint) -> u8 {
    match hint {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 1,
        ResetHint::NotReset => 2,
        ResetHint::Gauge => 3,
    }
}

fn spans(bytes: &mut Bytes<'_>) -> Result<Vec<Span>, Malformed> {
    let count = bytes.count()?;
    (0..count)
        .map(|_| {
            let offset =
                i32::try_from(bytes.varint()?).map_err(|_| Malformed("span offset exceeds 32 bits"))?;
            Ok(Span { offset, length: bytes.uvarint_u32()? })
        })
        .collect()
}

fn schema(bytes: &mut Bytes<'_>) -> Result<i32, Malformed> {
    i32::try_from(bytes.varint()?).map_err(|_| Malformed("histogram schema exceeds 32 bits"))
}

fn floats(bytes: &mut Bytes<'_>) -> Result<Vec<f64>, Malformed> {
    let count = bytes.count()?;
    (0..count).map(|_| bytes.f64()).collect()
}

fn int_histogram(bytes: &mut Bytes<'_>) -> Result<IntHistogram, Malformed> {
    let reset_hint = reset_hint(bytes.u8()?);
    let schema = schema(bytes)?;
    let (zero_threshold, zero_count) = (bytes.f64()?, bytes.uvarint()?);
    let (count, sum) = (bytes.uvarint()?, bytes.f64()?);
    let (positive_spans, negative_spans) = (spans(bytes)?, spans(bytes)?);
    let mut absolute = || {
        let (length, mut last) = (bytes.count()?, 0i64);
        (0..length)
            .map(|_| {
                last = last.wrapping_add(bytes.varint()?);
                Ok(last.cast_unsigned())
            })
            .collect::<Result<Vec<u64>, Malformed>>()
    };
    let (positive, negative) = (absolute()?, absolute()?);
    let custom_values = if schema == CUSTOM_BUCKETS_SCHEMA { floats(bytes)? } else { Vec::new() };
    Ok(Histogram {
        schema,
        zero_threshold,
        zero_count,
        count,
        sum,
        positive_spans,
        negative_spans,
        positive,
        negative,
        custom_values,
        reset_hint,
    })
}

fn float_histogram(bytes: &mut Bytes<'_>) -> Result<FloatHistogram, Malformed> {
    let reset_hint = reset_hint(bytes.u8()?);
    let schema = schema(bytes)?;
    let (zero_threshold, zero_count) = (bytes.f64()?, bytes.f64()?);
    let (count, sum) = (bytes.f64()?, bytes.f64()?);
    let (positive_spans, negative_spans) = (spans(bytes)?, spans(bytes)?);
    let (positive, negative) = (floats(bytes)?, floats(bytes)?);
    let custom_values = if schema == CUSTOM_BUCKETS_SCHEMA { floats(bytes)? } else { Vec::new() };
    Ok(Histogram {
        schema,
        zero_threshold,
        zero_count,
        count,
        sum,
        positive_spans,
        negative_spans,
        positive,
        negative,
        custom_values,
        reset_hint,
    })
}

/// A series record under construction.
#[derive(Debug)]
pub(crate) struct SeriesRecord(Vec<u8>);

impl SeriesRecord {
    pub(crate) fn new() -> Self {
        Self(vec![SERIES])
    }

    pub(crate) fn push<'a>(
        &mut self,
        series: WalRef,
        labels: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
    ) {
        self.0.put_u64(series);
        self.0.put_uvarint(labels.len() as u64);
        for (name, value) in labels {
            self.0.put_text(name);
            self.0.put_text(value);
        }
    }

    /// The finished bytes; `None` if nothing was pushed.
    pub(crate) fn finish(&self) -> Option<&[u8]> {
        (self.0.len() > 1).then_some(&self.0)
    }
}

/// A record whose entries are differences to the first one.
#[derive(Debug)]
struct DeltaRecord {
    data: Vec<u8>,
    base: Option<(WalRef, Timestamp)>,
}

impl DeltaRecord {
    fn new(kind: u8) -> Self {
        Self { data: vec![kind], base: None }
    }

    fn begin(&mut self, series: WalRef, ts: Timestamp) -> &mut Vec<u8> {
        let (base_ref, base_ts) = *self.base.get_or_insert_with(|| {
            self.data.put_u64(series);
            self.data.put_i64(ts);
            (series, ts)
        });
        self.data.put_varint(series.wrapping_sub(base_ref).cast_signed());
        self.data.put_varint(ts.wrapping_sub(base_ts));
        &mut self.data
    }

    fn finish(&self) -> Option<&[u8]> {
        self.base.is_some().then_some(&self.data)
    }
}

/// A record of float samples under construction.
#[derive(Debug)]
pub(crate) struct SamplesRecord(DeltaRecord);

impl Default for SamplesRecord {
    fn default() -> Self {
        Self(DeltaRecord::new(SAMPLES))
    }
}

impl SamplesRecord {
    pub(crate) fn push(&mut self, series: WalRef, ts: Timestamp, value: f64) {
        self.0.begin(series, ts).put_f64(value);
    }

    /// The finished bytes; `None` if nothing was pushed.
    pub(crate) fn finish(&self) -> Option<&[u8]> {
        self.0.finish()
    }

    /// Begins anew and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.0.data.truncate(1);
        self.0.base = None;
    }
}

/// Records of histogram samples under construction: one for each of the four kinds on disk.
#[derive(Debug)]
pub(crate) struct HistogramRecords([DeltaRecord; 4]);

impl HistogramRecords {
    pub(crate) fn new() -> Self {
        Self([HISTOGRAMS, FLOAT_HISTOGRAMS, CUSTOM_HISTOGRAMS, CUSTOM_FLOAT_HISTOGRAMS].map(DeltaRecord::new))
    }

    pub(crate) fn push(&mut self, series: WalRef, ts: Timestamp, value: &HistogramValue) {
        let [int, float, custom_int, custom_float] = &mut self.0;
        let record = match value {
            HistogramValue::Int(histogram) if histogram.has_custom_buckets() => custom_int,
            HistogramValue::Int(_) => int,
            HistogramValue::Float(histogram) if histogram.has_custom_buckets() => custom_float,
            HistogramValue::Float(_) => float,
        };
        put_histogram(record.begin(series, ts), value);
    }

    /// The finished records that are not empty.
    pub(crate) fn finish(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter_map(DeltaRecord::finish)
    }
}

pub(super) fn put_histogram(out: &mut Vec<u8>, value: &HistogramValue) {
    match value {
        HistogramValue::Int(histogram) => {
            put_head(out, histogram);
            out.put_uvarint(histogram.zero_count);
            out.put_uvarint(histogram.count);
            put_spans(out, histogram);
            put_deltas(out, &histogram.positive);
            put_deltas(out, &histogram.negative);
            put_custom_values(out, histogram);
        }
        HistogramValue::Float(histogram) => {
            put_head(out, histogram);
            out.put_f64(histogram.zero_count);
            out.put_f64(histogram.count);
            put_spans(out, histogram);
            put_floats(out, &histogram.positive);
            put_floats(out, &histogram.negative);
            put_custom_values(out, histogram);
        }
    }
}

fn put_head<N>(out: &mut Vec<u8>, histogram: &Histogram<N>) {
    out.push(reset_hint_byte(histogram.reset_hint));
    out.put_varint(i64::from(histogram.schema));
    out.put_f64(histogram.zero_threshold);
}

/// The sum, which follows the counts, then both lists of spans.
fn put_spans<N>(out: &mut Vec<u8>, histogram: &Histogram<N>) {
    out.put_f64(histogram.sum);
    for spans in [&histogram.positive_spans, &histogram.negative_spans] {
        out.put_uvarint(spans.len() as u64);
        for span in spans {
            out.put_varint(i64::from(span.offset));
            out.put_uvarint(u64::from(span.length));
        }
    }
}

fn put_deltas(out: &mut Vec<u8>, counts: &[u64]) {
    out.put_uvarint(counts.len() as u64);
    let mut last = 0u64;
    for &count in counts {
        out.put_varint(count.wrapping_sub(last).cast_signed());
        last = count;
    }
}

fn put_floats(out: &mut Vec<u8>, values: &[f64]) {
    out.put_uvarint(values.len() as u64);
    for &value in values {
        out.put_f64(value);
    }
}

fn put_custom_values<N>(out: &mut Vec<u8>, histogram: &Histogram<N>) {
    if histogram.has_custom_buckets() {
        put_floats(out, &histogram.custom_values);
    }
}

/// A record of deletions.
pub(crate) fn tombstones(entries: &[(WalRef, Timestamp, Timestamp)]) -> Vec<u8> {
    let mut out = vec![TOMBSTONES];
    for &(series, min, max) in entries {
        out.put_u64(series);
        out.put_varint(min);
        out.put_varint(max);
    }
    out
}

/// A record of exemplars.
pub(crate) fn exemplars<'a>(
    entries: impl Iterator<Item = (WalRef, Timestamp, f64, &'a Labels)>,
) -> Option<Vec<u8>> {
    let mut record = DeltaRecord::new(EXEMPLARS);
    for (series, ts, value, labels) in entries {
        let out = record.begin(series, ts);
        out.put_f64(value);
        out.put_uvarint(labels.len() as u64);
        for (name, value) in labels {
            out.put_text(name);
            out.put_text(value);
        }
    }
    record.finish().map(<[u8]>::to_vec)
}

/// A record of metadata.
pub(crate) fn metadata_record<'a>(entries: impl Iterator<Item = (WalRef, &'a Metadata)>) -> Option<Vec<u8>> {
    let mut out = vec![METADATA];
    for (series, entry) in entries {
        out.put_uvarint(series);
        out.push(entry.kind as u8);
        out.put_uvarint(2);
        out.put_text("UNIT");
        out.put_text(&entry.unit);
        out.put_text("HELP");
        out.put_text(&entry.help);
    }
    (out.len() > 1).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn series_and_samples_round_trip() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "node")]);
        let mut series = SeriesRecord::new();
        assert!(series.finish().is_none());
        let pairs: Vec<_> = labels.iter().collect();
        series.push(7, pairs.into_iter());
        let Record::Series(back) = decode(series.finish().unwrap()).unwrap() else { unreachable!() };
        assert_eq!(back, [(7, labels)]);

        let mut samples = SamplesRecord::default();
        samples.push(7, 1000, 1.5);
        samples.push(3, -2000, f64::from_bits(model::STALE_NAN));
        let Record::Samples(back) = decode(samples.finish().unwrap()).unwrap() else { unreachable!() };
        assert_eq!((back[0].0, back[0].1, back[0].2.to_bits()), (7, 1000, 1.5f64.to_bits()));
        assert_eq!((back[1].0, back[1].1, back[1].2.to_bits()), (3, -2000, model::STALE_NAN));
    }

    #[test]
    fn metadata_round_trips() {
        let entry =
            Metadata { kind: MetricKind::StateSet, unit: String::new(), help: "what é is".to_owned() };
        let record = metadata_record([(7, &entry)].into_iter()).unwrap();
        let Record::Metadata(back) = decode(&record).unwrap() else { unreachable!() };
        assert_eq!(back, [(7, entry)]);
        assert_eq!(metadata_record(std::iter::empty()), None);
    }

    #[test]
    fn histograms_of_all_four_kinds_round_trip() {
        let int = IntHistogram {
            schema: 3,
            zero_threshold: 0.001,
            zero_count: 2,
            count: 12,
            sum: 18.4,
            positive_spans: vec![Span { offset: -4, length: 2 }, Span { offset: 1, length: 1 }],
            negative_spans: vec![],
            positive: vec![4, 1, 5],
            negative: vec![],
            custom_values: vec![],
            reset_hint: ResetHint::NotReset,
        };
        let custom =
            IntHistogram { schema: CUSTOM_BUCKETS_SCHEMA, custom_values: vec![0.5, 1.0, 2.5], ..int.clone() };
        let all = [
            HistogramValue::Float(int.to_float()),
            HistogramValue::Float(custom.to_float()),
            HistogramValue::Int(int),
            HistogramValue::Int(custom),
        ];
        let mut records = HistogramRecords::new();
        for (at, value) in (0..).zip(&all) {
            records.push(at, 1000, value);
        }
        let mut back = Vec::new();
        for record in records.finish() {
            let Record::Histograms(entries) = decode(record).unwrap() else { unreachable!() };
            back.extend(entries);
        }
        back.sort_by_key(|entry| entry.0);
        assert_eq!(back.into_iter().map(|entry| entry.2).collect::<Vec<_>>(), all);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(kind in 0u8..14, mut data: Vec<u8>) {
            data.insert(0, kind);
            let _ = decode(&data);
        }
    }
}
