//! A database that is a log only: for whoever sends samples on and answers no queries.
//!
//! There is no head that would have the samples of a segment, so nothing but time and those who read the log decide
//! when it can go. A segment is ended every two hours at the latest; five minutes later, all that is older and read goes,
//! with the series that have had no sample since: so the log has two hours at most, or four where nobody reads it. What
//! is left of it is a checkpoint with the series, as a reader has to know the names that later samples use.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use model::Timestamp;

use super::maintain::Pending;
use super::tail::Position;
use super::{Db, Inner, WAL_DIR};
use crate::error::{CommitError, IoError};
use crate::head::series::{Refusal, Series};
use crate::options::LogOnly;
use crate::wal::segments;

/// What maintenance remembers of such a log.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Segments that are complete, with the time at which that was seen first. Of those of an earlier run, the newest
    /// time that they have.
    ended: BTreeMap<u64, Timestamp>,
    /// When the current segment is to be ended.
    end_at: Option<Timestamp>,
    /// The segments up to this one are to go, and when to try that.
    due: Option<(u64, Timestamp)>,
}

impl State {
    pub(super) fn new(ended: BTreeMap<u64, Timestamp>) -> Self {
        Self { ended, ..Self::default() }
    }

    /// The last segment that can go, before which all can; `wanted_from` is the first that somebody reads.
    fn last_to_go(&self, rules: LogOnly, wanted_from: u64, now: Timestamp) -> Option<u64> {
        let can_go = |&(&segment, &ended): &(&u64, &Timestamp)| {
            let age = now.saturating_sub(ended);
            age >= rules.min_ms && segment < wanted_from || age >= rules.max_ms
        };
        let due = self.due.map_or(0, |due| due.0);
        self.ended.range(..=due).take_while(can_go).last().map(|(&segment, _)| segment)
    }
}

impl Db {
    /// Where the database is a log only ([`crate::Options::log_only`]): the log before `position` is needed by nobody any
    /// more, as all who follow it have done what it says; `None`: nobody follows it. A follower that can be interrupted
    /// names the place where it would go on, not [`crate::Tail::position`]. To be told again now and then, as it moves,
    /// best before [`Db::maintain`]; before it is told for the first time, the log goes by its age only.
    pub fn keep_log_from(&self, position: Option<Position>) {
        let segment = position.map_or(u64::MAX, |position| position.segment);
        self.inner.log_wanted_from.store(segment, Ordering::Relaxed);
    }
}

impl Inner {
    /// One step of maintenance.
    pub(super) fn maintain_log(
        &self,
        rules: LogOnly,
        pending: &mut Pending,
        now: Timestamp,
    ) -> Result<(), CommitError> {
        // A disk that is still full shall not keep it from getting emptier.
        self.log.lock().catch_up().or_else(|error| if error.is_full() { Ok(()) } else { Err(error) })?;
        // Clocks may be set back.
        let in_time = |at: Timestamp, from_now: i64| now >= at || at > now.saturating_add(from_now);
        let end_at = pending.log_only.end_at;
        let is_due = end_at.is_some_and(|at| in_time(at, rules.truncate_every_ms));
        let current = self.end_segment(is_due)?;
        if is_due || end_at.is_none() {
            pending.log_only.end_at = Some(now.saturating_add(rules.truncate_every_ms));
            let last = current.checked_sub(1);
            // Not at once: series that are in use shall have had a sample since, also right after a start.
            let due = last.map(|last| (last, now.saturating_add(rules.min_ms)));
            pending.log_only.due = due.or(pending.log_only.due);
        }
        let dir = self.dir.join(WAL_DIR);
        let all = segments(&*self.disk, &dir).map_err(CommitError::at(&dir))?;
        let known = std::mem::take(&mut pending.log_only.ended);
        let complete = all.into_iter().map(|(segment, _)| segment).filter(|&segment| segment < current);
        // A sample with a wrong clock must not keep a segment forever.
        let ended =
            complete.map(|segment| (segment, known.get(&segment).map_or(now, |&ended| ended.min(now))));
        pending.log_only.ended = ended.collect();
        match pending.log_only.due {
            Some((_, at)) if in_time(at, rules.min_ms) => self.shorten_log(rules, pending, now),
            _ => Ok(()),
        }
    }

    /// Ends the current segment if it `is_due`; returns the current one.
    fn end_segment(&self, is_due: bool) -> Result<u64, IoError> {
        let mut log = self.log.lock();
        let wal = &mut log.wal;
        if is_due && !wal.is_fresh() {
            wal.next_segment().map_err(|source| CommitError { path: wal.path(), source })?;
        }
        Ok(wal.segment())
    }

    /// Lets the segments go that can.
    fn shorten_log(&self, rules: LogOnly, pending: &mut Pending, now: Timestamp) -> Result<(), IoError> {
        let state = &mut pending.log_only;
        let wanted_from = self.log_wanted_from.load(Ordering::Relaxed);
        // Not at every step, since each time all series are written anew.
        state.due = state.due.map(|(last, _)| (last, now.saturating_add(rules.min_ms)));
        let Some(last) = state.last_to_go(rules, wanted_from, now) else { return Ok(()) };
        let since = state.ended.get(&last).copied().unwrap_or(Timestamp::MIN);
        if last >= wanted_from {
            tracing::error!(
                "the log from segment {wanted_from} to {last} goes for its age, though not everybody who follows it has \
                 read it: its samples are not sent"
            );
        }
        let dropped = self.head.drop_silent(since);
        self.note_dropped(dropped, pending);
        self.checkpoint(last, Timestamp::MAX, pending)?;
        let state = &mut pending.log_only;
        state.ended.retain(|&segment, _| segment > last);
        state.due = state.due.filter(|&(due, _)| last < due);
        Ok(())
    }

    /// What [`Series`] says of a sample, where the log is all there is: that one needs no order, and takes what comes late
    /// within the window.
    pub(super) fn in_log_order(
        &self,
        check: Result<(), Refusal>,
        series: &Series<'_>,
        ts: Timestamp,
    ) -> Result<(), Refusal> {
        if check == Err(Refusal::OutOfOrder) && self.head.is_log_only() {
            let window = self.options.out_of_order_window_ms;
            let takes = |newest: Timestamp| window > 0 && ts >= newest.saturating_sub(window);
            return if series.max_ts().is_some_and(takes) { Ok(()) } else { check };
        }
        check
    }
}
