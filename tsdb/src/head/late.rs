//! Samples that came out of order, within the window that allows it.
//!
//! They are few by nature, so they are kept plain: one sorted array a series of 48 bytes a sample, until the
//! next step of maintenance that cuts the head writes them into blocks of their own. A reader merges
//! them with what the series has in order.

use hashbrown::HashMap;
use model::{HistogramValue, TimeRange, Timestamp};
use parking_lot::RwLock;

use crate::chunk::{Sample, Value};
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

/// The late samples of all series.
#[derive(Debug, Default)]
pub(crate) struct Late(RwLock<HashMap<u32, Vec<LateSample>>>);

impl LateSample {
    fn sample(&self) -> Sample {
        Sample { ts: self.ts, start: self.start, value: self.value.value() }
    }

    fn is_seen_by(&self, snapshot: u64) -> bool {
        self.from_snapshot <= snapshot && (snapshot < self.until_snapshot || self.until_snapshot >= FLUSHING)
    }
}

impl Late {
    /// Adds a sample that snapshots from `from_snapshot` on see; false if the time is taken.
    pub(crate) fn add(&self, id: u32, sample: Sample, from_snapshot: u64) -> bool {
        let Sample { ts, start, value } = sample;
        let mut all = self.0.write();
        let samples = all.entry(id).or_default();
        let at = samples.partition_point(|sample| sample.ts <= ts);
        if at > 0 && samples[at - 1].ts == ts && samples[at - 1].until_snapshot >= FLUSHING {
            return false;
        }
        let value = value.into();
        samples.insert(at, LateSample { ts, start, value, from_snapshot, until_snapshot: LIVE });
        true
    }

    /// Takes in what came before all samples here, for snapshots from `from_snapshot` on. Of two samples of one time
    /// the older one stays.
    pub(crate) fn absorb(&self, older: Self, from_snapshot: u64) {
        for (id, samples) in older.0.into_inner() {
            for sample in samples {
                if let Some(young) = self.0.write().get_mut(&id) {
                    let taken = young
                        .iter_mut()
                        .filter(|young| young.ts == sample.ts && young.until_snapshot >= FLUSHING);
                    taken.for_each(|young| young.until_snapshot = from_snapshot);
                }
                self.add(id, sample.sample(), from_snapshot);
            }
        }
    }

    /// Whether the time is taken, and if so, whether by the same value.
    pub(crate) fn taken(&self, id: u32, ts: Timestamp, value: &Value) -> Option<bool> {
        let all = self.0.read();
        let samples = all.get(&id)?;
        let mut of_time = samples[samples.partition_point(|sample| sample.ts < ts)..].iter();
        let living = of_time.find(|sample| sample.ts > ts || sample.until_snapshot >= FLUSHING);
        living.filter(|sample| sample.ts == ts).map(|sample| sample.value.value().is_same(value))
    }

    /// Whether there is nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.read().is_empty()
    }

    /// All samples that are in no block.
    pub(crate) fn living(&self) -> Samples {
        let all = self.0.read();
        let living = all.iter().flat_map(|(&id, samples)| samples.iter().map(move |sample| (id, sample)));
        let living = living.filter(|(_, sample)| sample.until_snapshot >= FLUSHING);
        living.map(|(id, sample)| (id, sample.sample())).collect()
    }

    /// Whether a series has a sample here.
    pub(crate) fn has(&self, id: u32) -> bool {
        self.0.read().contains_key(&id)
    }

    /// Whether a series has a sample in `range` that `snapshot` sees.
    pub(crate) fn overlaps(&self, id: u32, range: TimeRange, snapshot: u64) -> bool {
        let all = self.0.read();
        let mut samples = all.get(&id).into_iter().flatten();
        samples.any(|sample| sample.is_seen_by(snapshot) && range.contains(sample.ts))
    }

    /// Calls `visit` with the samples of a series in `range` that `snapshot` sees, in order of time.
    pub(crate) fn for_each(&self, id: u32, range: TimeRange, snapshot: u64, visit: &mut dyn FnMut(Sample)) {
        let all = self.0.read();
        let samples = all.get(&id).into_iter().flatten();
        for sample in samples.filter(|sample| sample.is_seen_by(snapshot) && range.contains(sample.ts)) {
            visit(sample.sample());
        }
    }

    /// Appends the samples of a series in `range` that `snapshot` sees; true if there are any.
    pub(crate) fn samples(
        &self,
        id: u32,
        range: TimeRange,
        snapshot: u64,
        into: &mut model::Samples,
    ) -> bool {
        let all = self.0.read();
        let before = into.len();
        let samples = all.get(&id).into_iter().flatten();
        for sample in samples.filter(|sample| sample.is_seen_by(snapshot) && range.contains(sample.ts)) {
            match &sample.value {
                Kept::Float(value) => push_float(into, (sample.ts, sample.start), *value),
                Kept::Histogram(value) => {
                    let histogram = match &**value {
                        HistogramValue::Int(histogram) => histogram.to_float(),
                        HistogramValue::Float(histogram) => histogram.clone(),
                    };
                    push_histogram(into, (sample.ts, sample.start), histogram.into());
                }
            }
        }
        into.len() > before
    }

    /// Marks the samples that `take` wants as on their way out. Returns them, and the others that live.
    pub(crate) fn begin(&self, take: &dyn Fn(u32, Timestamp) -> bool) -> (Samples, Samples) {
        let (mut taken, mut left) = (Samples::new(), Samples::new());
        for (&id, samples) in self.0.write().iter_mut() {
            for sample in samples.iter_mut().filter(|sample| sample.until_snapshot >= FLUSHING) {
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
        for samples in self.0.write().values_mut() {
            for sample in samples.iter_mut().filter(|sample| sample.until_snapshot == FLUSHING) {
                sample.until_snapshot = snapshot;
            }
        }
    }

    /// Forgets the samples that no snapshot from `oldest` on sees.
    pub(crate) fn forget(&self, oldest: u64) {
        self.0.write().retain(|_, samples| {
            samples.retain(|sample| sample.until_snapshot >= FLUSHING || oldest < sample.until_snapshot);
            !samples.is_empty()
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
        assert!(late.add(1, Sample::float(20, 2.0), 5));
        assert!(late.add(1, Sample::float(10, 1.0), 6));
        assert!(!late.add(1, Sample::float(10, 9.0), 6));
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
}
