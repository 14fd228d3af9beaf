//! When a group is evaluated.

use model::{Labels, Timestamp};

/// Where in its interval a group is evaluated: spread by the hash of file and name, and the same after a
/// restart.
pub(crate) fn offset_ms(file: &str, name: &str, interval_ms: i64) -> i64 {
    let hash = Labels::from_pairs([("name", name), ("file", file)]).hash64();
    let interval_ns = interval_ms.max(1).unsigned_abs().saturating_mul(1_000_000);
    i64::try_from(hash % interval_ns / 1_000_000).unwrap_or(0)
}

/// The first moment after `now` that lies `offset_ms` into an interval.
pub(crate) fn next_slot(now: Timestamp, interval_ms: i64, offset_ms: i64) -> Timestamp {
    now + 1 + (offset_ms - now - 1).rem_euclid(interval_ms.max(1))
}

/// The moment after the one at `due`, if it is now `now`, and how many moments were missed. Missed ones
/// are never made up for; but one that is late by less than an interval still takes place.
pub(crate) fn advance(due: Timestamp, now: Timestamp, interval_ms: i64) -> (Timestamp, u64) {
    let interval = interval_ms.max(1);
    if now < due - interval {
        // A clock that was set back must not silence the group until it has caught up.
        return (due - (due - now) / interval * interval, 0);
    }
    let missed = ((now - due) / interval - 1).max(0);
    (due + (missed + 1) * interval, missed.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_repeat_at_their_offset() {
        assert_eq!(next_slot(100_000, 10_000, 3_000), 103_000);
        assert_eq!(next_slot(103_000, 10_000, 3_000), 113_000);
        let offset = offset_ms("a.yml", "node", 60_000);
        assert!((0..60_000).contains(&offset));
        assert_eq!(offset, offset_ms("a.yml", "node", 60_000));
        assert_ne!(offset, offset_ms("b.yml", "node", 60_000));
    }

    #[test]
    fn missed_slots_are_skipped_and_counted() {
        assert_eq!(advance(100, 103, 10), (110, 0));
        // Late by one: the next one takes place at once, with its own time.
        assert_eq!(advance(100, 119, 10), (110, 0));
        assert_eq!(advance(100, 120, 10), (120, 1));
        assert_eq!(advance(100, 145, 10), (140, 3));
        assert_eq!(advance(1_000, 500, 10), (500, 0));
    }
}
