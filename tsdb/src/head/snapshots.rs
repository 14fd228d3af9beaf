//! Which snapshots are alive, so that the head keeps what they may still want to see.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// The living snapshots by number, 1 being the first ever.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    alive: Mutex<Alive>,
    newest: AtomicU64,
    /// Snapshots before this may not read the head any more.
    expired: AtomicU64,
}

#[derive(Debug, Default)]
struct Alive {
    numbers: BTreeSet<u64>,
    last: u64,
}

impl Snapshots {
    /// Registers a snapshot. The caller holds the commit lock, so that its edge is between commits.
    pub(crate) fn register(&self) -> u64 {
        let mut alive = self.alive.lock();
        alive.last += 1;
        let number = alive.last;
        alive.numbers.insert(number);
        self.publish(&alive);
        number
    }

    pub(crate) fn release(&self, number: u64) {
        let mut alive = self.alive.lock();
        alive.numbers.remove(&number);
        self.publish(&alive);
    }

    /// Gives up all snapshots before `number`. The caller has yet to change what they read.
    pub(crate) fn expire(&self, number: u64) {
        let mut alive = self.alive.lock();
        alive.numbers = alive.numbers.split_off(&number);
        self.expired.fetch_max(number, Ordering::AcqRel);
        self.publish(&alive);
    }

    /// Whether a snapshot was given up.
    pub(crate) fn has_expired(&self, number: u64) -> bool {
        number < self.expired.load(Ordering::Acquire)
    }

    fn publish(&self, alive: &Alive) {
        self.newest.store(alive.numbers.last().copied().unwrap_or(0), Ordering::Release);
    }

    /// The newest living snapshot; 0 if there is none.
    pub(crate) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// The oldest living snapshot; `u64::MAX` if there is none.
    pub(crate) fn oldest(&self) -> u64 {
        let alive = self.alive.lock();
        alive.numbers.first().copied().unwrap_or(u64::MAX)
    }

    /// No snapshot that is alive or still to be taken is older than this.
    pub(crate) fn floor(&self) -> u64 {
        let alive = self.alive.lock();
        alive.numbers.first().copied().unwrap_or(alive.last + 1)
    }

    /// The number that the next snapshot will get.
    pub(crate) fn next(&self) -> u64 {
        self.alive.lock().last + 1
    }
}
