//! How what the directory has in its log comes back while the head is in use.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{Builder, JoinHandle};

use parking_lot::{Condvar, Mutex};

use super::maintain::Pending;
use super::replay::{self, Replayed, Source};
use super::{Inner, Progress};
use crate::chunk::Value;
use crate::error::OpenError;
use crate::wal::record::{HistogramRecords, SamplesRecord};

/// How far the history of a database is back.
///
/// Blocks are there from the first moment. The samples that were not in blocks yet are read from the log,
/// behind a head that takes and shows new ones already. Until all of them are there, snapshots show none
/// of them, also afterwards; later snapshots show all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum History {
    /// The log is being read; how far, as far as that is known.
    Attaching(Option<Progress>),
    /// Everything is there.
    #[default]
    Attached,
    /// The log cannot be read, for this reason. New samples are taken and shown; nothing is cut, compacted
    /// or deleted, so that the next start may read it.
    Failed(String),
}

/// What the parts of the database know about it.
#[derive(Debug)]
pub(crate) struct State {
    state: Mutex<History>,
    changed: Condvar,
    pub(super) cancelled: AtomicBool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            state: Mutex::new(History::Attaching(None)),
            changed: Condvar::new(),
            cancelled: AtomicBool::new(false),
        }
    }
}

impl State {
    pub(super) fn get(&self) -> History {
        self.state.lock().clone()
    }

    fn set(&self, history: History) {
        *self.state.lock() = history;
        self.changed.notify_all();
    }

    pub(super) fn wait(&self) -> History {
        let mut state = self.state.lock();
        while matches!(*state, History::Attaching(_)) {
            self.changed.wait(&mut state);
        }
        state.clone()
    }
}

/// The thread that reads the log. Dropping it stops it.
pub(super) struct Attacher {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl Attacher {
    pub(super) fn start(inner: &Arc<Inner>, first: (u64, u64)) -> std::io::Result<Self> {
        let (ready, is_ready) = sync_channel(1);
        let own = Arc::clone(inner);
        let thread = Builder::new().name("tsdb-history".to_owned()).spawn(move || {
            // Taken before anybody else can.
            let mut pending = own.maintenance.lock();
            let _ = ready.send(());
            // The error is kept for whoever asks.
            let _ = own.attach(first, &mut pending, &mut |_| {});
        })?;
        let _ = is_ready.recv();
        Ok(Self { inner: Arc::clone(inner), thread: Some(thread) })
    }
}

impl Drop for Attacher {
    fn drop(&mut self) {
        self.inner.history.cancelled.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already; there is nothing left to do about it.
            let _ = thread.join();
        }
    }
}

impl Inner {
    /// Reads the log up to the segments `first` of this run, and joins what it has with the head.
    pub(super) fn attach(
        &self,
        first: (u64, u64),
        pending: &mut Pending,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), OpenError> {
        let mut tell = |now| {
            self.history.set(History::Attaching(Some(now)));
            progress(now);
        };
        let attached = self.read_history(first, &mut tell).and_then(|replayed| self.join(replayed));
        match attached {
            Ok(names) => {
                self.head.names.begin_segment(self.log.lock().wal.segment());
                *pending = Pending::new(names, first.0);
                self.history.set(History::Attached);
                Ok(())
            }
            Err(error) => {
                if !self.history.cancelled.load(Ordering::Relaxed) {
                    tracing::error!(%error, "the history of the head cannot be read");
                }
                self.history.set(History::Failed(error.to_string()));
                Err(error)
            }
        }
    }

    fn read_history(
        &self,
        until: (u64, u64),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Replayed, OpenError> {
        let dir: &Path = &self.dir;
        let source = Source { disk: &*self.disk, dir, until, cancelled: &self.history.cancelled };
        let found = self.head.load_mapped()?;
        replay::replay(&source, &self.head, (found, self.options.exemplars_max), progress)
    }

    /// Makes history visible to later snapshots. Returns the names that the log uses for series with newer
    /// ones.
    fn join(&self, replayed: Replayed) -> Result<Vec<u64>, OpenError> {
        let Replayed { names, exemplars, late, deleted } = replayed;
        let mut logs = self.log.lock();
        let snapshot = self.head.snapshots.next();
        let misplaced = self
            .head
            .attach(deleted)
            .map_err(|error| OpenError::corrupt(&self.dir.join(crate::head::mapped::DIR), error.0))?;
        self.head.late.absorb(late, snapshot);
        self.exemplars.put_before(exemplars);
        let Some(log) = logs.late.as_mut() else {
            self.counters.out_of_order.fetch_add(misplaced.len() as u64, Ordering::Relaxed);
            return Ok(names);
        };
        let (mut floats, mut histograms) = (SamplesRecord::default(), HistogramRecords::new());
        for (id, ts, value) in misplaced {
            let Some(wal_ref) = self.head.name_of(id) else { continue };
            if self.head.late.add(id, ts, value.clone(), snapshot) {
                match value {
                    Value::Float(value) => floats.push(wal_ref, ts, value),
                    Value::Histogram(value) => histograms.push(wal_ref, ts, &value),
                }
            }
        }
        let written = log.append(floats.finish().into_iter().chain(histograms.finish()));
        written.map_err(|source| OpenError::io(&log.path(), source))?;
        Ok(names)
    }
}
