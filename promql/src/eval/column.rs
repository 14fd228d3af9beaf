//! The values of one series over the steps of a query.

use std::sync::Arc;

use model::{FloatHistogram, STALE_NAN, Value, stale_nan};
use smallvec::{SmallVec, smallvec};

/// One value or none for each step.
///
/// The staleness marker cannot be a value of an evaluated series: selectors filter it, and
/// arithmetic only ever makes quiet NaNs. So its bits stand for "no float here", and a column of floats
/// is one plain array. Histograms, which are rare and large, lie beside it in order of steps. An instant query makes
/// as many columns as there are series, of one cell each: those are 56 bytes, and no memory of their own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Column {
    floats: SmallVec<[f64; 2]>,
    histograms: Vec<(usize, Arc<FloatHistogram>)>,
}

/// A value, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Point<'a> {
    Float(f64),
    Histogram(&'a Arc<FloatHistogram>),
}

impl Point<'_> {
    pub(crate) fn to_value(self) -> Value {
        match self {
            Point::Float(value) => Value::Float(value),
            Point::Histogram(histogram) => Value::Histogram(Arc::clone(histogram)),
        }
    }
}

/// Whether a cell of a float column is empty.
#[inline]
pub(crate) fn is_absent(cell: f64) -> bool {
    cell.to_bits() == STALE_NAN
}

impl Column {
    /// An empty column of `steps` cells.
    pub(crate) fn new(steps: usize) -> Self {
        Self { floats: smallvec![stale_nan(); steps], histograms: Vec::new() }
    }

    /// Empties the column and gives it `steps` cells.
    pub(crate) fn reset(&mut self, steps: usize) {
        self.floats.clear();
        self.floats.reserve_exact(steps);
        self.floats.resize(steps, stale_nan());
        self.histograms.clear();
    }

    /// Takes over the cells of `other`, in memory that is there already.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.floats.clear();
        self.floats.extend_from_slice(&other.floats);
        self.histograms.clone_from(&other.histograms);
    }

    pub(crate) fn steps(&self) -> usize {
        self.floats.len()
    }

    /// The float cells; [`is_absent`] tells the empty ones.
    pub(crate) fn floats(&self) -> &[f64] {
        &self.floats
    }

    /// The float cells.
    pub(crate) fn into_floats(self) -> Vec<f64> {
        self.floats.into_vec()
    }

    /// The histograms with their steps, ascending.
    pub(crate) fn histograms(&self) -> &[(usize, Arc<FloatHistogram>)] {
        &self.histograms
    }

    pub(crate) fn get(&self, step: usize) -> Option<Point<'_>> {
        let float = self.floats[step];
        if !is_absent(float) {
            return Some(Point::Float(float));
        }
        if self.histograms.is_empty() {
            return None;
        }
        let at = self.histograms.binary_search_by_key(&step, |(step, _)| *step).ok()?;
        Some(Point::Histogram(&self.histograms[at].1))
    }

    pub(crate) fn set_float(&mut self, step: usize, value: f64) {
        self.floats[step] = value;
    }

    /// Sets an empty cell.
    pub(crate) fn set(&mut self, step: usize, value: Value) {
        match value {
            Value::Float(value) => self.floats[step] = value,
            Value::Histogram(histogram) => {
                let at = self.histograms.partition_point(|(before, _)| *before < step);
                self.histograms.insert(at, (step, histogram));
            }
        }
    }

    /// Whether no cell has a value.
    pub(crate) fn is_empty(&self) -> bool {
        self.histograms.is_empty() && self.floats.iter().all(|cell| is_absent(*cell))
    }

    /// The number of cells with a value; a histogram counts as many times as it outweighs a float.
    pub(crate) fn samples(&self) -> usize {
        self.floats.iter().filter(|cell| !is_absent(**cell)).count()
            + self.histograms.iter().map(|(_, h)| histogram_samples(h)).sum::<usize>()
    }

    /// Replaces each float by `f(step, float)` and forgets the histograms.
    pub(crate) fn map_floats(&mut self, mut f: impl FnMut(usize, f64) -> Option<f64>) {
        self.histograms.clear();
        for (step, cell) in self.floats.iter_mut().enumerate() {
            if !is_absent(*cell) {
                *cell = f(step, *cell).unwrap_or_else(stale_nan);
            }
        }
    }

    /// Replaces each value by `f(step, value)`.
    pub(crate) fn map(&mut self, mut f: impl FnMut(usize, Point<'_>) -> Option<Value>) {
        let histograms = std::mem::take(&mut self.histograms);
        let mut histograms = histograms.into_iter().peekable();
        for step in 0..self.floats.len() {
            let float = self.floats[step];
            let mapped = if is_absent(float) {
                histograms.next_if(|(at, _)| *at == step).and_then(|(_, h)| f(step, Point::Histogram(&h)))
            } else {
                f(step, Point::Float(float))
            };
            self.floats[step] = stale_nan();
            match mapped {
                Some(Value::Float(value)) => self.floats[step] = value,
                Some(Value::Histogram(histogram)) => self.histograms.push((step, histogram)),
                None => {}
            }
        }
    }

    /// A column of `steps` cells, each with the value of this one's only cell.
    pub(crate) fn broadcast(&self, steps: usize) -> Self {
        let float = self.floats.first().copied().unwrap_or_else(stale_nan);
        let histograms = match self.histograms.first() {
            Some((_, histogram)) => (0..steps).map(|step| (step, Arc::clone(histogram))).collect(),
            None => Vec::new(),
        };
        Self { floats: smallvec![float; steps], histograms }
    }

    /// Takes over the values of `other`, unless both have one at the same step: then `false`.
    pub(crate) fn merge(&mut self, other: &Self) -> bool {
        for step in 0..other.floats.len() {
            let Some(point) = other.get(step) else { continue };
            if self.get(step).is_some() {
                return false;
            }
            self.set(step, point.to_value());
        }
        true
    }

    /// Bytes of heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        let floats = if self.floats.spilled() { 8 * self.floats.capacity() } else { 0 };
        floats + self.histograms.iter().map(|(_, h)| 16 + h.heap_bytes()).sum::<usize>()
    }
}

/// What a histogram counts for where samples are limited: its bytes in samples of 16 bytes.
pub(crate) fn histogram_samples(histogram: &FloatHistogram) -> usize {
    histogram.heap_bytes().div_ceil(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_nan_is_a_value() {
        let mut column = Column::new(2);
        column.set_float(1, f64::NAN);
        assert!(column.get(0).is_none());
        assert!(matches!(column.get(1), Some(Point::Float(v)) if v.is_nan()));
        assert!(!column.is_empty());
    }

    #[test]
    fn merging_refuses_two_values_at_one_step() {
        let (mut a, mut b) = (Column::new(3), Column::new(3));
        a.set_float(0, 1.0);
        b.set(2, Value::Histogram(Arc::default()));
        assert!(a.merge(&b));
        assert!(matches!(a.get(2), Some(Point::Histogram(_))));
        assert!(!a.merge(&b));
    }
}
