//! The destinations of remote write that are being sent to.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use model::Labels;
use remote::send::{Sender, SenderStats};
use tsdb::Db;

use crate::config::{Loaded, RemoteWriteOptions};
use crate::outgoing;

/// A changed destination may take this long to be told what is under way; the rest is sent by its
/// successor, which begins where it was done.
const HANDOVER: Duration = Duration::from_secs(2);

/// What is sent to, and with which labels.
type Options = (RemoteWriteOptions, Labels);

/// All senders.
pub(crate) struct Senders {
    db: Arc<Db>,
    dir: PathBuf,
    flush_deadline: Duration,
    running: Mutex<Vec<(Options, Sender)>>,
}

impl Senders {
    /// None yet. Places in the log are kept below `dir`.
    pub(crate) fn new(db: Arc<Db>, dir: PathBuf, flush_deadline: Duration) -> Self {
        Self { db, dir, flush_deadline, running: Mutex::default() }
    }

    /// Sends to the destinations of `loaded`, and to no others. Those that are as before are not
    /// disturbed. Blocks, on a thread of the runtime.
    pub(crate) fn apply(&self, loaded: &Loaded) -> anyhow::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted: Vec<Options> = loaded
            .remote_write
            .iter()
            .map(|options| (options.clone(), loaded.external_labels.clone()))
            .collect();
        // All are judged before any is ended.
        let mut fresh = Vec::new();
        for options in wanted.iter().filter(|options| !running.iter().any(|(known, _)| known == *options)) {
            let destination = outgoing::destination(&options.0, &options.1, &self.dir)?;
            fresh.push((options.clone(), destination));
        }
        let (kept, ended) =
            std::mem::take(&mut *running).into_iter().partition(|(known, _)| wanted.contains(known));
        *running = kept;
        let ended: Vec<_> = ended;
        ended.into_iter().for_each(|(_, sender)| sender.stop(HANDOVER));
        for (options, destination) in fresh {
            let name = options.0.name.clone();
            let sender =
                Sender::start(&self.db, destination).with_context(|| format!("remote_write {name:?}"))?;
            running.push((options, sender));
        }
        Ok(())
    }

    /// How sending goes.
    pub(crate) fn stats(&self) -> Vec<SenderStats> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.iter().map(|(_, sender)| sender.stats()).collect()
    }

    /// Sends what is under way, as far as it is taken in time, and ends. Blocks.
    pub(crate) fn stop(&self) {
        let ended = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        ended.into_iter().for_each(|(_, sender)| sender.stop(self.flush_deadline));
    }
}
