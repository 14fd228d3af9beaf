//! Start timestamps: when a counter began to count.
//!
//! A sample whose counter started after the sample before it follows a reset, whatever its value. A
//! counter that started within a window stood at zero then, so nothing need be extrapolated to the left.

use crate::eval::range::Remarks;

/// Times of samples with their start times, 0 where unknown; or no start times at all.
#[derive(Clone, Copy)]
pub(super) struct Starts<'a> {
    pub(super) ts: &'a [i64],
    pub(super) starts: &'a [i64],
}

impl Starts<'_> {
    fn of(&self, at: usize) -> i64 {
        self.starts.get(at).copied().unwrap_or(0)
    }

    /// Whether sample `at` starts anew after sample `at - 1`.
    pub(super) fn is_reset(&self, at: usize) -> bool {
        let (start, before) = (self.of(at), self.of(at - 1));
        let (ts, ts_before) = (self.ts[at], self.ts[at - 1]);
        if start == 0 || start >= ts {
            return false;
        }
        // Exactly at the sample before: so do deltas, but also counters of which only the first sample is
        // known; those give no usable start for it.
        start > ts_before || start == ts_before && before != 0 && before < ts_before
    }

    /// When the counter of the first sample started, if that was within the window.
    pub(super) fn within(&self, window_start: i64) -> Option<i64> {
        let start = self.of(0);
        (start != 0 && start > window_start && self.ts.first().is_some_and(|ts| start < *ts)).then_some(start)
    }

    /// Warns of a start that lies before the sample before, and is another than that one's.
    pub(super) fn check(&self, remarks: &Remarks<'_>) {
        let overlaps = (1..self.ts.len()).any(|at| {
            let start = self.of(at);
            start != 0 && start < self.ts[at - 1] && start != self.of(at - 1)
        });
        if overlaps {
            let name = remarks.name();
            let text = format!(
                "sample has start time that overlaps with previous sample timestamp for metric {}",
                crate::text::Quote(&name)
            );
            remarks.evaluator.annotations.warn(remarks.at, &text);
        }
    }
}
