//! The times at which a query is evaluated.

use model::Timestamp;

/// More steps than this are refused, whatever the caller allows.
pub(super) const STEPS_MAX: i64 = 10_000_000;

/// A grid would have more than [`STEPS_MAX`] steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManySteps;

/// `start`, `start + step`, ...: `count` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Grid {
    pub(crate) start: Timestamp,
    /// Milliseconds; 0 for an instant.
    pub(crate) step: i64,
    pub(crate) count: usize,
}

impl Grid {
    /// One time.
    pub(crate) fn instant(at: Timestamp) -> Self {
        Self { start: at, step: 0, count: 1 }
    }

    /// The times of a range query, if they are sensible.
    pub(crate) fn range(start: Timestamp, end: Timestamp, step: i64) -> Option<Self> {
        let span = end.checked_sub(start)?;
        if step <= 0 || span < 0 || span / step >= STEPS_MAX {
            return None;
        }
        Some(Self { start, step, count: usize::try_from(span / step).ok()? + 1 })
    }

    /// The absolute multiples of `step` above `after`, up to `last`; none if there is none.
    pub(crate) fn aligned(
        after: Timestamp,
        last: Timestamp,
        step: i64,
    ) -> Result<Option<Self>, TooManySteps> {
        let start = after.div_euclid(step).saturating_add(1).saturating_mul(step);
        if start > last {
            return Ok(None);
        }
        Self::range(start, last, step).map(Some).ok_or(TooManySteps)
    }

    /// The time of step `at`.
    #[expect(clippy::cast_possible_wrap, reason = "count was checked against STEPS_MAX")]
    pub(crate) fn time(self, at: usize) -> Timestamp {
        self.start + self.step * at as i64
    }

    /// The time of the last step.
    pub(crate) fn end(self) -> Timestamp {
        self.time(self.count - 1)
    }

    /// All times.
    pub(crate) fn times(self) -> impl Iterator<Item = Timestamp> {
        (0..self.count).map(move |at| self.time(at))
    }

    /// The first step alone.
    pub(crate) fn first(self) -> Self {
        Self { count: 1, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subquery_steps_are_absolute_multiples_above_the_open_edge() {
        let times = |after, last, step| {
            let grid = Grid::aligned(after, last, step)?;
            Ok(grid.map(|g| g.times().collect::<Vec<_>>()))
        };
        assert_eq!(times(0, 30, 10), Ok(Some(vec![10, 20, 30])));
        assert_eq!(times(-15, 5, 10), Ok(Some(vec![-10, 0])));
        assert_eq!(times(1, 9, 10), Ok(None));
        assert_eq!(times(0, 1 << 40, 1), Err(TooManySteps));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Grid::range(0, 10, 0), None);
        assert_eq!(Grid::range(10, 0, 1), None);
        assert_eq!(Grid::range(i64::MIN, i64::MAX, 1), None);
    }
}
