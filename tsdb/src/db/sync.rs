//! The thread that makes commits durable a moment later.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::Inner;

/// Runs until dropped.
pub(super) struct Syncer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts the thread where the options ask for one.
    pub(super) fn start(inner: &Arc<Inner>) -> std::io::Result<Option<Self>> {
        let interval = inner.options.wal_sync_interval;
        if interval.is_zero() || interval == Duration::MAX {
            return Ok(None);
        }
        let (stop, stopped) = channel();
        let weak: Weak<Inner> = Arc::downgrade(inner);
        let thread = Builder::new().name("tsdb-wal-sync".to_owned()).spawn(move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let Some(inner) = weak.upgrade() else { return };
                // A full disk has been told of, and is tried again.
                if let Err(error) = inner.sync()
                    && !error.is_full()
                {
                    tracing::error!(%error, "syncing the log failed; nothing more can be committed");
                }
            }
        })?;
        Ok(Some(Self { stop: Some(stop), thread: Some(thread) }))
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already; there is nothing left to do about it.
            let _ = thread.join();
        }
    }
}
