//! When a target is scraped.

use model::Timestamp;

/// Timestamps this close to the schedule are moved onto it, so that their differences compress.
const TOLERANCE_MS: i64 = 2;

/// The first moment at or after `now` that lies `offset_ms` into an interval.
pub(crate) fn next_slot(now: Timestamp, interval_ms: i64, offset_ms: i64) -> Timestamp {
    let interval = interval_ms.max(1);
    now + (offset_ms - now).rem_euclid(interval)
}

/// The timestamp of a scrape that was due at `due` and begins at `now`.
pub(crate) fn align(due: Timestamp, now: Timestamp, interval_ms: i64) -> Timestamp {
    let tolerance = TOLERANCE_MS.min(interval_ms / 100);
    if (now - due).abs() <= tolerance { due } else { now }
}

/// The moments of one target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) interval_ms: i64,
    pub(crate) offset_ms: i64,
    /// When the next scrape is due.
    pub(crate) due: Timestamp,
}

impl Schedule {
    /// The first scrape comes within `first_within_ms` or, if that is 0, in the first slot.
    pub(crate) fn start(now: Timestamp, interval_ms: i64, offset_ms: i64, first_within_ms: i64) -> Self {
        let within = first_within_ms.min(interval_ms);
        let due = if within > 0 { now + offset_ms % within } else { next_slot(now, interval_ms, offset_ms) };
        Self { interval_ms, offset_ms, due }
    }

    /// Moves on after a scrape that ended at `now`; returns how many slots were missed.
    pub(crate) fn advance(&mut self, now: Timestamp) -> u64 {
        // Out of step after the first scrape: a slot that is too near is not worth one.
        let in_step = (self.due - self.offset_ms).rem_euclid(self.interval_ms.max(1)) == 0;
        let earliest = if in_step { self.due + 1 } else { self.due + self.interval_ms / 4 };
        let expected = next_slot(earliest, self.interval_ms, self.offset_ms);
        // Late by less than the tolerance is not late.
        let next = next_slot(now - TOLERANCE_MS, self.interval_ms, self.offset_ms).max(expected);
        // A clock that was set back must not silence the target until it has caught up.
        self.due = if next - now > 2 * self.interval_ms {
            next_slot(now + 1, self.interval_ms, self.offset_ms)
        } else {
            next
        };
        ((next - expected) / self.interval_ms.max(1)).max(0).unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_repeat_at_their_offset() {
        assert_eq!(next_slot(100_000, 10_000, 3_000), 103_000);
        assert_eq!(next_slot(103_000, 10_000, 3_000), 103_000);
        assert_eq!(next_slot(103_001, 10_000, 3_000), 113_000);
        assert_eq!(next_slot(-5, 10, 3), 3);
    }

    #[test]
    fn timestamps_near_the_schedule_are_moved_onto_it() {
        assert_eq!(align(1_000, 1_002, 15_000), 1_000);
        assert_eq!(align(1_000, 999, 15_000), 1_000);
        assert_eq!(align(1_000, 1_003, 15_000), 1_003);
        assert_eq!(align(1_000, 1_002, 100), 1_002);
    }

    #[test]
    fn the_first_scrape_comes_soon_and_the_second_on_schedule() {
        let mut schedule = Schedule::start(100_000, 10_000, 4_500, 1_000);
        assert_eq!(schedule.due, 100_500);
        assert_eq!(schedule.advance(100_600), 0);
        assert_eq!(schedule.due, 104_500);
        assert_eq!(schedule.advance(104_501), 0);
        assert_eq!(schedule.due, 114_500);
        assert_eq!(Schedule::start(100_000, 10_000, 4_500, 0).due, 104_500);
    }

    #[test]
    fn slots_that_passed_are_missed() {
        let mut schedule = Schedule { interval_ms: 10_000, offset_ms: 0, due: 100_000 };
        assert_eq!(schedule.advance(125_000), 2);
        assert_eq!(schedule.due, 130_000);
        // Ending with the interval is not too late for the next.
        assert_eq!(schedule.advance(140_001), 0);
        assert_eq!(schedule.due, 140_000);
    }

    #[test]
    fn a_clock_set_back_does_not_silence_a_target() {
        let mut schedule = Schedule { interval_ms: 10_000, offset_ms: 0, due: 1_000_000 };
        schedule.advance(500_000);
        assert_eq!(schedule.due, 510_000);
    }
}
