//! Samples that came out of order, within the window that allows it.
//!
//! They wait here until the next step of maintenance that cuts the head writes them into blocks of their own. The newest
//! arrivals of a series are plain, in one array sorted by time, 48 bytes a sample. As soon as 32 of them can be seen by
//! every snapshot there is, these are packed as chunks: 2 bytes a sample as a rule, and 64 for each chunk. So a million late
//! samples, spread over series that each have many, take some 4 MB in place of 48. A reader merges them with what the
//! series has in order.

use hashbrown::HashMap;
use model::{HistogramValue, TimeRange, Timestamp};
use parking_lot::RwLock;

use crate::chunk::{self, Chunk, Encoder, Sample, Value};
use crate::samples::{push_float, push_histogram};

/// A late sample that is in no block.
const LIVE: u64 = u64::MAX;
/// A late sample that is being written into a block.
const FLUSHING: u64 = u64::MAX - 1;

/// A late sample.
#[derive(Clone, Debug)]
struct LateSample {
    ts: Timestamp,
    start: Timestamp,
    value: Kept,
    /// The first snapshot that sees it.
    from_snapshot: u64,
    /// The first snapshot that sees it no more, since it is deleted or in a block; or [`LIVE`] or
    /// [`FLUSHING`].
    until_snapshot: u64,
}

/// A value; histograms, which are large, elsewhere.
#[derive(Clone, Debug)]
enum Kept {
    Float(f64),
    Histogram(Box<HistogramValue>),
}

impl From<Value> for Kept {
    fn from(value: Value) -> Self {
        match value {
            Value::Float(value) => Self::Float(value),
            Value::Histogram(value) => Self::Histogram(Box::new(value)),
        }
    }
}

impl Kept {
    fn value(&self) -> Value {
        match self {
            Self::Float(value) => Value::Float(*value),
            Self::Histogram(value) => Value::Histogram((**value).clone()),
        }
    }
}

/// Late samples of some series, by number.
pub(crate) type Samples = Vec<(u32, Sample)>;

/// So many samples that everybody sees are packed.
const PACKED: usize = 32;

/// The late samples of a series. No two that live are of one time.
#[derive(Debug, Default)]
struct Waiting {
    /// Ascending by time.
    plain: Vec<LateSample>,
    /// Seen by every snapshot, and not on their way out. Their spans may overlap.
    packed: Vec<Chunk>,
}

impl Waiting {
    /// The living sample at a time.
    fn at(&self, ts: Timestamp) -> Option<Value> {
        let mut of_time = self.plain[self.plain.partition_point(|sample| sample.ts < ts)..].iter();
        let living = of_time.find(|sample| sample.ts > ts || sample.until_snapshot >= FLUSHING);
        if let Some(sample) = living.filter(|sample| sample.ts == ts) {
            return Some(sample.value.value());
        }
        let mut found = None;
        self.visit_packed(TimeRange::new(ts, ts), &mut |sample| found = Some(sample.value));
        found
    }

    fn visit_packed(&self, range: TimeRange, visit: &mut dyn FnMut(Sample)) {
        for chunk in self.packed.iter().filter(|chunk| range.overlaps(TimeRange::new(chunk.min, chunk.max))) {
            let mut take = |sample: Sample| {
                if range.contains(sample.ts) {
                    visit(sample);
                }
            };
            // It was encoded here.
            let _ = chunk::for_each(chunk.encoding, &chunk.data, usize::MAX, &mut take);
        }
    }

    /// Packs what all snapshots from `oldest` on see, if that is worth it.
    fn pack(&mut self, oldest: u64) {
        let settled = |sample: &LateSample| sample.from_snapshot <= oldest && sample.until_snapshot == LIVE;
        if self.plain.len() < PACKED || self.plain.iter().filter(|sample| settled(sample)).count() < PACKED {
            return;
        }
        let mut encoder = Encoder::default();
        self.plain.iter().filter(|sample| settled(sample)).for_each(|late| encoder.push(&late.sample()));
        self.plain.retain(|sample| !settled(sample));
        self.plain.shrink_to(PACKED);
        self.packed.extend(encoder.finish());
    }

    /// Makes all samples plain again.
    fn unpack(&mut self) {
        let mut all = Vec::new();
        self.visit_packed(TimeRange::ALL, &mut |Sample { ts, start, value }| {
            let value = value.into();
            all.push(LateSample { ts, start, value, from_snapshot: 0, until_snapshot: LIVE });
        });
        self.packed = Vec::new();
        self.plain.append(&mut all);
        self.plain.sort_by_key(|sample| sample.ts);
    }
}

/// The late samples of all series.
#[derive(Debug, Default)]
pub(crate) struct Late(RwLock<HashMap<u32, Waiting>>);

impl LateSample {
    fn sample(&self) -> Sample {
        Sample { ts: self.ts, start: self.start, value: self.value.value() }
    }

    fn is_seen_by(&self, snapshot: u64) -> bool {
        self.from_snapshot <= snapshot && (snapshot < self.until_snapshot || self.until_snapshot >= FLUSHING)
    }
}

impl Late {
    /// Adds a sample that snapshots from `from_snapshot` on see; false if the time is taken. No snapshot is older than
    /// `oldest`.
    pub(crate) fn add(&self, id: u32, sample: Sample, (from_snapshot, oldest): (u64, u64)) -> bool {
        let Sample { ts, start, value } = sample;
        let mut all = self.0.write();
        let waiting = all.entry(id).or_default();
        if waiting.at(ts).is_some() {
            return false;
        }
        waiting.pack(oldest);
        let at = waiting.plain.partition_point(|sample| sample.ts <= ts);
        let value = value.into();
        waiting.plain.insert(at, LateSample { ts, start, value, from_snapshot, until_snapshot: LIVE });
        true
    }

    /// Takes in what came before all samples here, for snapshots from `from_snapshot` on. Of two samples of one time
    /// the older one stays.
    pub(crate) fn absorb(&self, older: Self, from_snapshot: u64) {
        for (id, mut waiting) in older.0.into_inner() {
            waiting.unpack();
            for sample in waiting.plain {
                if let Some(young) = self.0.write().get_mut(&id) {
                    if young.at(sample.ts).is_some() {
                        young.unpack();
                    }
                    let taken = young.plain.iter_mut().filter(|young| young.ts == sample.ts);
                    taken
                        .filter(|young| young.until_snapshot >= FLUSHING)
                        .for_each(|young| young.until_snapshot = from_snapshot);
                }
                self.add(id, sample.sample(), (from_snapshot, 0));
            }
        }
    }

    /// Whether the time is taken, and if so, whether by the same value.
    pub(crate) fn taken(&self, id: u32, ts: Timestamp, value: &Value) -> Option<bool> {
        self.0.read().get(&id)?.at(ts).map(|known| known.is_same(value))
    }

    /// Whether there is nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.read().is_empty()
    }

    /// All samples that are in no block.
    pub(crate) fn living(&self) -> Samples {
        let mut living = Samples::new();
        for (&id, waiting) in self.0.read().iter() {
            let plain = waiting.plain.iter().filter(|sample| sample.until_snapshot >= FLUSHING);
            living.extend(plain.map(|sample| (id, sample.sample())));
            waiting.visit_packed(TimeRange::ALL, &mut |sample| living.push((id, sample)));
        }
        living
    }

    /// Whether a series has a sample here.
    pub(crate) fn has(&self, id: u32) -> bool {
        self.0.read().contains_key(&id)
    }

    /// Whether a series has a sample in `range` that `snapshot` sees.
    pub(crate) fn overlaps(&self, id: u32, range: TimeRange, snapshot: u64) -> bool {
        let all = self.0.read();
        let Some(waiting) = all.get(&id) else { return false };
        let mut plain = waiting.plain.iter();
        if plain.any(|sample| sample.is_seen_by(snapshot) && range.contains(sample.ts)) {
            return true;
        }
        let mut found = false;
        waiting.visit_packed(range, &mut |_| found = true);
        found
    }

    /// Calls `visit` with the samples of a series in `range` that `snapshot` sees, in order of time.
    pub(crate) fn for_each(&self, id: u32, range: TimeRange, snapshot: u64, visit: &mut dyn FnMut(&Sample)) {
        let mut samples = Vec::new();
        if let Some(waiting) = self.0.read().get(&id) {
            let plain = waiting.plain.iter();
            let seen = plain.filter(|sample| sample.is_seen_by(snapshot) && range.contains(sample.ts));
            samples.extend(seen.map(LateSample::sample));
            waiting.visit_packed(range, &mut |sample| samples.push(sample));
        }
        samples.sort_by_key(|sample| sample.ts);
        samples.iter().for_each(visit);
    }

    /// Appends the samples of a series in `range` that `snapshot` sees; true if there are any.
    pub(crate) fn samples(
        &self,
        id: u32,
        range: TimeRange,
        snapshot: u64,
        into: &mut model::Samples,
    ) -> bool {
        let before = into.len();
        self.for_each(id, range, snapshot, &mut |Sample { ts, start, value }| match value {
            Value::Float(value) => push_float(into, (*ts, *start), *value),
            Value::Histogram(value) => {
                let histogram = match value {
                    HistogramValue::Int(histogram) => histogram.to_float(),
                    HistogramValue::Float(histogram) => histogram.clone(),
                };
                push_histogram(into, (*ts, *start), histogram.into());
            }
        });
        into.len() > before
    }

    /// Marks the samples that `take` wants as on their way out. Returns them, and the others that live.
    pub(crate) fn begin(&self, take: &dyn Fn(u32, Timestamp) -> bool) -> (Samples, Samples) {
        let (mut taken, mut left) = (Samples::new(), Samples::new());
        for (&id, waiting) in self.0.write().iter_mut() {
            // A chunk is in or out as a whole, so what leaves must be plain.
            waiting.unpack();
            for sample in waiting.plain.iter_mut().filter(|sample| sample.until_snapshot >= FLUSHING) {
                let entry = (id, sample.sample());
                if take(id, sample.ts) {
                    sample.until_snapshot = FLUSHING;
                    taken.push(entry);
                } else {
                    sample.until_snapshot = LIVE;
                    left.push(entry);
                }
            }
        }
        // The log has them in an order that does not depend on chance.
        left.sort_by_key(|(id, sample)| (*id, sample.ts));
        (taken, left)
    }

    /// The marked samples are out: snapshots from `snapshot` on do not see them here.
    pub(crate) fn end(&self, snapshot: u64) {
        for waiting in self.0.write().values_mut() {
            for sample in waiting.plain.iter_mut().filter(|sample| sample.until_snapshot == FLUSHING) {
                sample.until_snapshot = snapshot;
            }
        }
    }

    /// Forgets the samples that no snapshot from `oldest` on sees, and packs the others.
    pub(crate) fn forget(&self, oldest: u64) {
        self.0.write().retain(|_, waiting| {
            let gone =
                |sample: &LateSample| sample.until_snapshot < FLUSHING && sample.until_snapshot <= oldest;
            waiting.plain.retain(|sample| !gone(sample));
            waiting.pack(oldest);
            !waiting.plain.is_empty() || !waiting.packed.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_takes_the_memory_its_documentation_says() {
        assert_eq!(size_of::<LateSample>(), 48);
    }

    #[test]
    fn samples_are_sorted_and_seen_by_later_snapshots_only() {
        let late = Late::default();
        assert!(late.add(1, Sample::float(20, 2.0), (5, 0)));
        assert!(late.add(1, Sample::float(10, 1.0), (6, 0)));
        assert!(!late.add(1, Sample::float(10, 9.0), (6, 0)));
        assert_eq!(late.taken(1, 10, &Value::Float(1.0)), Some(true));
        assert_eq!(late.taken(1, 10, &Value::Float(3.0)), Some(false));
        let seen = |snapshot| {
            let mut samples = model::Samples::default();
            late.samples(1, TimeRange::ALL, snapshot, &mut samples);
            samples.ts
        };
        assert_eq!((seen(4), seen(5), seen(6)), (vec![], vec![20], vec![10, 20]));
        let (taken, left) = late.begin(&|_, ts| ts < 15);
        assert_eq!((taken.len(), left.len()), (1, 1));
        assert_eq!(seen(6), [10, 20]);
        late.end(7);
        assert_eq!((seen(6), seen(7)), (vec![10, 20], vec![20]));
        assert_eq!(late.taken(1, 10, &Value::Float(1.0)), None);
        late.forget(6);
        assert_eq!(seen(6), [10, 20]);
        late.forget(7);
        assert_eq!(seen(6), [20]);
    }

    #[test]
    fn many_are_packed_as_soon_as_everybody_sees_them() {
        let late = Late::default();
        let times: Vec<i64> = (0..1_000).map(|n| n * 37 % 1_000 * 10).collect();
        for (at, &ts) in (0u64..).zip(&times) {
            // The oldest snapshot follows ten samples behind.
            assert!(late.add(1, Sample::float(ts, ts as f64), (at, at.saturating_sub(10))));
        }
        assert!(!late.add(1, Sample::float(500, 7.0), (1_000, 990)), "taken, in a chunk");
        assert_eq!(late.taken(1, 500, &Value::Float(500.0)), Some(true));
        let count = |plain: bool| {
            let all = late.0.read();
            if plain { all[&1].plain.len() } else { all[&1].packed.len() }
        };
        assert!(count(true) < 64 && count(false) > 20, "{} plain, {} chunks", count(true), count(false));
        let seen = |snapshot| {
            let mut samples = model::Samples::default();
            late.samples(1, TimeRange::new(0, 4_990), snapshot, &mut samples);
            samples.ts
        };
        assert_eq!(seen(1_000), (0..500).map(|n| n * 10).collect::<Vec<_>>());
        assert_eq!(seen(990).len(), times[..991].iter().filter(|ts| **ts < 5_000).count());
        assert!(
            late.overlaps(1, TimeRange::new(5, 10), 1_000) && !late.overlaps(1, TimeRange::new(5, 9), 1_000)
        );
        let (taken, left) = late.begin(&|_, ts| ts < 5_000);
        assert_eq!((taken.len(), left.len(), late.living().len()), (500, 500, 1_000));
        late.end(2_000);
        late.forget(2_000);
        assert_eq!((late.living().len(), count(true)), (500, 0));
    }
}
