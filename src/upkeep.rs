//! The thread that looks after the store, and the signals that the process answers to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use api::State;
use remote::receive::Receiver;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tsdb::Db;

use crate::senders::Senders;
use crate::wire::now;

/// How often the store is looked after.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// The thread that cuts the head, compacts, and drops what is too old.
pub(crate) struct Maintenance {
    stop: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

/// Tells whether a thread that has begun goes on. It says nothing of how fast: a slow disk is no reason to start anew.
#[derive(Clone, Default)]
pub(crate) struct Pulse(Arc<OnceLock<Weak<()>>>);

impl Pulse {
    /// Whether it has begun and ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.get().is_some_and(|thread| thread.strong_count() == 0)
    }

    /// What the thread holds until its end.
    fn begin(&self) -> Arc<()> {
        let held = Arc::new(());
        // A second thread would not be watched; there is one.
        let _ = self.0.set(Arc::downgrade(&held));
        held
    }
}

impl Maintenance {
    pub(crate) fn start(
        db: Arc<Db>,
        receiver: Option<Arc<Receiver>>,
        senders: Arc<Senders>,
        (pulse, state): (&Pulse, &State),
    ) -> Self {
        let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let shown = Arc::clone(&counts);
        state.show_also(move || {
            let names = ["prometheus_tsdb_compactions_total", "prometheus_tsdb_compactions_failed_total"];
            let help = ["Blocks written.", "Times that blocks could not be written, merged or deleted."];
            let values = shown.iter().map(|count| count.load(Ordering::Relaxed) as f64);
            let all = names.into_iter().zip(help).zip(values);
            all.map(|((name, help), value)| api::Figure { name, kind: "counter", help, value }).collect()
        });
        let (stop, stopped) = std::sync::mpsc::channel();
        let held = pulse.begin();
        let thread = std::thread::spawn(move || {
            let _held = held;
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(MAINTENANCE_INTERVAL) {
                db.keep_log_from(senders.done());
                match db.maintain(now()) {
                    Ok(done) if done == tsdb::Maintained::default() => {}
                    Ok(done) => {
                        counts[0].fetch_add(done.blocks_written as u64, Ordering::Relaxed);
                        tracing::info!("maintained the store: {done:?}");
                        // Series may have left the head.
                        receiver.iter().for_each(|receiver| receiver.trim());
                    }
                    Err(error) => {
                        counts[1].fetch_add(1, Ordering::Relaxed);
                        tracing::error!("maintaining the store: {error}");
                    }
                }
            }
        });
        Self { stop, thread }
    }

    pub(crate) fn stop(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

/// The signals we answer to.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Stop,
    Reload,
}

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    /// Waits for a signal that ends the process.
    pub(crate) async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}

#[cfg(test)]
mod tests {
    use super::Pulse;

    #[test]
    fn a_thread_that_breaks_is_known_to_have_ended_and_one_that_has_not_begun_is_not() {
        let pulse = Pulse::default();
        assert!(!pulse.has_ended());
        let held = pulse.begin();
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let _held = held;
            wait.recv().unwrap();
        });
        assert!(!pulse.has_ended());
        drop(go_on);
        assert!(thread.join().is_err(), "it broke");
        assert!(pulse.has_ended());
    }
}
