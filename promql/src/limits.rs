//! What a query may use, and the book that is kept about it.

#[cfg(test)]
mod looks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::QueryCancelled;
use parking_lot::{Condvar, Mutex};

use crate::ast::Expr;
use crate::engine::{QueryError, Stats};

/// What queries may use. A limit of 0 means none, except for `concurrency`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Samples that a query may hold at once.
    pub samples_max: u64,
    /// Bytes that a query may hold at once.
    pub bytes_per_query_max: u64,
    /// Bytes that all queries together may hold at once.
    pub bytes_total_max: u64,
    /// How long a query may take, its wait included.
    pub timeout: Duration,
    /// How many queries run at once; others wait.
    pub concurrency: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            samples_max: 50_000_000,
            bytes_per_query_max: 1 << 30,
            bytes_total_max: 2 << 30,
            timeout: Duration::from_secs(120),
            concurrency: 20,
        }
    }
}

/// Lets a limited number of queries in.
#[derive(Debug)]
pub(crate) struct Gate {
    free: Mutex<usize>,
    left: Condvar,
    bytes: Arc<AtomicU64>,
}

/// A place inside; leaving, or dropping it, lets the next query in.
pub(crate) struct Place<'a> {
    gate: &'a Gate,
    left: AtomicBool,
}

impl Gate {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { free: Mutex::new(limits.concurrency.max(1)), left: Condvar::new(), bytes: Arc::default() }
    }

    /// Places that are free now.
    pub(crate) fn free(&self) -> usize {
        *self.free.lock()
    }

    /// The bytes that all queries hold.
    pub(crate) fn bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes)
    }

    /// Waits for a place.
    pub(crate) fn enter(
        &self,
        deadline: Instant,
        cancelled: Option<&QueryCancelled>,
    ) -> Result<Place<'_>, QueryError> {
        /// How long a waiting query may overlook that it was cancelled.
        const NAP: Duration = Duration::from_millis(5);
        let mut free = self.free.lock();
        while *free == 0 {
            if cancelled.is_some_and(QueryCancelled::is_set) {
                return Err(QueryError::Cancelled);
            }
            if Instant::now() >= deadline {
                return Err(QueryError::Timeout("query queue"));
            }
            self.left.wait_for(&mut free, NAP);
        }
        *free -= 1;
        Ok(Place { gate: self, left: AtomicBool::new(false) })
    }
}

impl Place<'_> {
    fn leave(&self) {
        if !self.left.swap(true, Ordering::Relaxed) {
            *self.gate.free.lock() += 1;
            self.gate.left.notify_one();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What one query uses. Shared by its workers.
pub(crate) struct Account<'a> {
    limits: &'a Limits,
    deadline: Instant,
    cancelled: Option<&'a QueryCancelled>,
    place: Option<&'a Place<'a>>,
    bytes_of_all: Arc<AtomicU64>,
    bytes: AtomicU64,
    bytes_peak: AtomicU64,
    samples: AtomicU64,
    samples_peak: AtomicU64,
    samples_read: AtomicU64,
    series_read: AtomicU64,
}

impl<'a> Account<'a> {
    pub(crate) fn new(
        limits: &'a Limits,
        bytes_of_all: Arc<AtomicU64>,
        deadline: Instant,
        cancelled: Option<&'a QueryCancelled>,
    ) -> Self {
        Self {
            limits,
            deadline,
            cancelled,
            place: None,
            bytes_of_all,
            bytes: AtomicU64::new(0),
            bytes_peak: AtomicU64::new(0),
            samples: AtomicU64::new(0),
            samples_peak: AtomicU64::new(0),
            samples_read: AtomicU64::new(0),
            series_read: AtomicU64::new(0),
        }
    }

    /// The same for a query that has a place at the gate, which it leaves at the end, or as soon as it is found cancelled:
    /// freeing a result of 250 MB takes 30 ms, for which no other query need wait. Its bytes count until they are free.
    pub(crate) fn at(mut self, place: &'a Place<'a>) -> Self {
        self.place = Some(place);
        self
    }

    /// The flag that ends the query.
    pub(crate) fn cancelled(&self) -> Option<&'a QueryCancelled> {
        self.cancelled
    }

    /// Whether to go on with series `at`: not cancelled, and, looked at every so often since the clock costs
    /// as much as a small series, not too late.
    pub(crate) fn check_at(&self, at: usize) -> Result<(), QueryError> {
        if at.is_multiple_of(16) {
            return self.check();
        }
        if self.is_cancelled() { Err(QueryError::Cancelled) } else { Ok(()) }
    }

    /// The items of `items`, with a look at whether to go on before each: about 1 ns. Whatever is done for each series,
    /// or each group of them, goes through here.
    pub(crate) fn watched<T>(
        &self,
        items: impl IntoIterator<Item = T>,
    ) -> impl Iterator<Item = Result<T, QueryError>> {
        items.into_iter().enumerate().map(|(at, item)| self.check_at(at).map(|()| item))
    }

    /// Whether the answer is not wanted any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        #[cfg(test)]
        looks::count(self.cancelled);
        let cancelled = self.cancelled.is_some_and(QueryCancelled::is_set);
        if cancelled {
            self.place.inspect(|place| place.leave());
        }
        cancelled
    }

    /// Whether to go on: not cancelled, not too late.
    pub(crate) fn check(&self) -> Result<(), QueryError> {
        if self.is_cancelled() {
            return Err(QueryError::Cancelled);
        }
        if Instant::now() >= self.deadline {
            return Err(QueryError::Timeout("expression evaluation"));
        }
        Ok(())
    }

    /// Takes `samples` and `bytes` on behalf of `expr`; the result of [`Account::hold`] gives them back.
    pub(crate) fn hold(&self, samples: usize, bytes: usize, expr: &Expr) -> Result<(), QueryError> {
        let (samples, bytes) = (samples as u64, bytes as u64);
        let held = self.samples.fetch_add(samples, Ordering::Relaxed) + samples;
        self.samples_peak.fetch_max(held, Ordering::Relaxed);
        let held_bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.bytes_peak.fetch_max(held_bytes, Ordering::Relaxed);
        let total = self.bytes_of_all.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let limits = self.limits;
        let checks = [
            (held, limits.samples_max, "load too many samples into memory", "samples_max"),
            (held_bytes, limits.bytes_per_query_max, "use too much memory", "bytes_per_query_max"),
            (total, limits.bytes_total_max, "use too much memory of all queries", "bytes_total_max"),
        ];
        for (held, allowed, what, limit) in checks {
            if allowed > 0 && held > allowed {
                return Err(QueryError::Limit { what, limit, allowed, expr: expr.to_string() });
            }
        }
        Ok(())
    }

    /// Takes `bytes` until the query ends, unless more than half of a limit would be taken: what is kept for
    /// speed leaves room for what is needed.
    pub(crate) fn keep(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let limits = self.limits;
        let fits = |book: &AtomicU64, max| max == 0 || book.load(Ordering::Relaxed) + bytes <= max / 2;
        if !fits(&self.bytes, limits.bytes_per_query_max) || !fits(&self.bytes_of_all, limits.bytes_total_max)
        {
            return false;
        }
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.bytes_peak.fetch_max(held, Ordering::Relaxed);
        self.bytes_of_all.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// How many series and samples were read.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.series_read.load(Ordering::Relaxed), self.samples_read.load(Ordering::Relaxed))
    }

    /// Counts series and samples that were read before and are used again.
    pub(crate) fn read_again(&self, (series, samples): (u64, u64)) {
        self.series_read.fetch_add(series, Ordering::Relaxed);
        self.samples_read.fetch_add(samples, Ordering::Relaxed);
    }

    /// Gives back what [`Account::hold`] took.
    pub(crate) fn release(&self, samples: usize, bytes: usize) {
        take_back(&self.samples, samples as u64);
        let bytes = take_back(&self.bytes, bytes as u64);
        self.bytes_of_all.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            series: self.series_read.load(Ordering::Relaxed),
            samples: self.samples_read.load(Ordering::Relaxed),
            samples_peak: self.samples_peak.load(Ordering::Relaxed),
            bytes_peak: self.bytes_peak.load(Ordering::Relaxed),
            ..Stats::default()
        }
    }
}

/// One worker's part of an [`Account`], which would cost ten atomic operations a series if all workers wrote into it:
/// what is read is added at the end, and what is held for a series stays booked for the next one.
pub(crate) struct Desk<'a> {
    account: &'a Account<'a>,
    series_read: u64,
    samples_read: u64,
    samples: usize,
    bytes: usize,
}

impl<'a> Desk<'a> {
    pub(crate) fn new(account: &'a Account<'a>) -> Self {
        Self { account, series_read: 0, samples_read: 0, samples: 0, bytes: 0 }
    }

    /// Counts a series that was read.
    pub(crate) fn read(&mut self, samples: usize) {
        self.series_read += 1;
        self.samples_read += samples as u64;
    }

    /// How many samples this worker has read.
    pub(crate) fn samples_read(&self) -> u64 {
        self.samples_read
    }

    /// How many samples this worker holds.
    pub(crate) fn samples_held(&self) -> usize {
        self.samples
    }

    /// Holds `samples` and `bytes` in place of what was held before, and at least as much as then.
    pub(crate) fn hold(&mut self, samples: usize, bytes: usize, expr: &Expr) -> Result<(), QueryError> {
        if samples <= self.samples && bytes <= self.bytes {
            return Ok(());
        }
        let more = (samples.saturating_sub(self.samples), bytes.saturating_sub(self.bytes));
        self.samples += more.0;
        self.bytes += more.1;
        self.account.hold(more.0, more.1, expr)
    }
}

impl Drop for Desk<'_> {
    fn drop(&mut self) {
        self.account.series_read.fetch_add(self.series_read, Ordering::Relaxed);
        self.account.samples_read.fetch_add(self.samples_read, Ordering::Relaxed);
        self.account.release(self.samples, self.bytes);
    }
}

/// Subtracts as much of `amount` as there is; how much that was. What a column weighs may have changed a
/// little since it was booked.
fn take_back(book: &AtomicU64, amount: u64) -> u64 {
    let before =
        book.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| Some(held.saturating_sub(amount)));
    before.unwrap_or(0).min(amount)
}

impl Drop for Account<'_> {
    /// Whatever the query still held ends with it.
    fn drop(&mut self) {
        self.bytes_of_all.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}
