//! How what the directory has in its log comes back while the head is in use.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use model::Timestamp;
use parking_lot::Mutex;

use super::maintain::Pending;
use super::replay::{self, Replayed, Source};
use super::{Db, Inner, Progress};
use crate::error::OpenError;
use crate::head::mapped::Found;

/// How far the history of a database is back.
///
/// Blocks are there from the first moment. The samples that were not in blocks yet are read from the log,
/// behind a head that takes and shows new ones already. Until all of them are there, snapshots show none
/// of them, also afterwards; later snapshots show all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum History {
    /// The log is being read; how far, as far as that is known.
    Attaching(Option<Progress>),
    /// Everything is there.
    Attached,
    /// The log cannot be read, for this reason. New samples are taken and shown; nothing is cut, compacted
    /// or deleted, so that the next start may read it.
    Failed(String),
}

impl Default for History {
    fn default() -> Self {
        Self::Attaching(None)
    }
}

/// What the parts of the database know about it.
#[derive(Debug, Default)]
pub(crate) struct State {
    state: Mutex<History>,
    abandoned: AtomicBool,
}

impl State {
    fn set(&self, history: History) {
        *self.state.lock() = history;
    }
}

/// What is known when history has joined the present.
struct Joined {
    /// Names that the log uses for series with newer ones.
    names: Vec<u64>,
    /// The segments of a log that is all there is, with their newest samples.
    segments: BTreeMap<u64, Timestamp>,
    /// Late samples that came too early to be known for late are in their log now.
    placed: bool,
}

impl Db {
    /// Brings history back, as [`Db::open_at_once`] leaves it out. To be called once, on a thread that has time;
    /// appends and queries go on meanwhile, and maintenance waits.
    ///
    /// # Errors
    /// The log cannot be read, or [`Db::abandon_history`] was called. See [`History::Failed`].
    pub fn attach_history(&self, progress: &mut dyn FnMut(Progress)) -> Result<(), OpenError> {
        let mut pending = self.inner.maintenance.lock();
        if self.history() == History::Attached {
            return Ok(());
        }
        self.inner.attach(self.first, &mut pending, progress)
    }

    /// Whether the samples that were in no block at the start are back.
    #[must_use]
    pub fn history(&self) -> History {
        self.inner.history.state.lock().clone()
    }

    /// Ends [`Db::attach_history`] soon, since the store is about to be closed.
    pub fn abandon_history(&self) {
        self.inner.history.abandoned.store(true, Ordering::Relaxed);
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
            Ok(Joined { names, segments, placed }) => {
                if placed {
                    self.head.names.end_unattached();
                }
                self.head.names.begin_segment(self.log.lock().wal.segment());
                *pending = Pending::new(names, (first, self.head.max_ts()), segments);
                self.history.set(History::Attached);
                Ok(())
            }
            Err(error) => {
                if !self.history.abandoned.load(Ordering::Relaxed) {
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
        let abandoned = &self.history.abandoned;
        // Without a window what is not where it belongs is left out.
        let early = self.head.names.unattached().filter(|_| self.options.late_window_ms() > 0);
        let source = Source {
            disk: &*self.disk,
            dir,
            until,
            early_from: early.unwrap_or(u64::MAX),
            abandoned,
            log_only: self.head.is_log_only(),
        };
        let found = if source.log_only { Found::new() } else { self.head.load_mapped()? };
        replay::replay(&source, &self.head, (found, self.options.exemplars_max), progress)
    }

    /// Makes history visible to later snapshots.
    fn join(&self, replayed: Replayed) -> Result<Joined, OpenError> {
        let Replayed { names, exemplars, late, metadata, deleted, segments } = replayed;
        let mut logs = self.log.lock();
        let snapshot = self.head.snapshots.next();
        let misplaced = self
            .head
            .attach(deleted)
            .map_err(|error| OpenError::corrupt(&self.dir.join(crate::head::mapped::DIR), error.0))?;
        self.head.late.absorb(late, snapshot);
        self.head.metadata.absorb(metadata);
        self.exemplars.put_before(exemplars);
        // What an earlier run has taken for new may be in the log of late samples already, or was counted then.
        let (_, before_placed) = self.take_misplaced(&mut logs, misplaced.before, snapshot)?;
        let (refused, placed) = self.take_misplaced(&mut logs, misplaced.now, snapshot)?;
        self.counters.out_of_order.fetch_add(refused, Ordering::Relaxed);
        if refused > 0 {
            tracing::warn!(
                samples = refused,
                "samples that came before history are older than it, and left out"
            );
        }
        Ok(Joined { names, segments, placed: before_placed && placed })
    }
}
