//! What has changed since a subscriber last looked: each key once, however often it changed.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// What happened to a key last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It is new or different.
    Put,
    /// It is gone.
    Gone,
}

/// Keys that changed. A slow subscriber costs one entry a key, not one an event.
#[derive(Debug)]
pub struct Mailbox<K> {
    changed: Mutex<HashMap<K, Changed>>,
    notify: Notify,
    /// Set once everything there is has been put.
    is_complete: AtomicBool,
}

impl<K> Default for Mailbox<K> {
    fn default() -> Self {
        Self { changed: Mutex::default(), notify: Notify::new(), is_complete: AtomicBool::new(false) }
    }
}

impl<K: Hash + Eq> Mailbox<K> {
    /// An empty one.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Notes a change. To be called from one place at a time, in the order of events.
    pub fn put(&self, key: K, changed: Changed) {
        self.changed.lock().insert(key, changed);
        self.notify.notify_one();
    }

    /// Notes that everything there is has been put.
    pub fn complete(&self) {
        self.is_complete.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    /// Whether everything there was at the beginning has been put.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Acquire)
    }

    /// Waits until something has changed or the first time is complete, and takes all changes.
    pub async fn take(&self) -> HashMap<K, Changed> {
        self.notify.notified().await;
        std::mem::take(&mut *self.changed.lock())
    }
}
