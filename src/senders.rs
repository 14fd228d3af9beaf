//! The destinations of remote write that are being sent to.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use model::Labels;
use remote::send::{FamilyMetadata, MetadataSource, Sender, SenderStats};
use scraper::exposition::MetricType;
use tsdb::{Db, Metadata, MetricKind, Position};

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
    /// What targets say; set when there are some.
    scraper: Arc<OnceLock<Arc<scraper::Handle>>>,
}

impl Senders {
    /// None yet. Places in the log are kept below `dir`.
    pub(crate) fn new(db: Arc<Db>, dir: PathBuf, flush_deadline: Duration) -> Self {
        Self { db, dir, flush_deadline, running: Mutex::default(), scraper: Arc::default() }
    }

    /// Receivers are told what the targets of `scraper` say of their metrics. To be called once.
    pub(crate) fn quote(&self, scraper: &Arc<scraper::Handle>) {
        // A second one would say the same.
        let _ = self.scraper.set(Arc::clone(scraper));
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
        let scraper = Arc::clone(&self.scraper);
        let metadata: MetadataSource =
            Arc::new(move || scraper.get().map_or_else(Vec::new, |scraper| families(scraper)));
        let mut fresh = Vec::new();
        for options in wanted.iter().filter(|options| !running.iter().any(|(known, _)| known == *options)) {
            let destination = outgoing::destination(&options.0, &options.1, &self.dir, &metadata)?;
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

    /// The place in the log before which all destinations have everything; none if there are no destinations.
    pub(crate) fn done(&self) -> Option<Position> {
        self.stats().iter().map(|stats| stats.done).min()
    }

    /// Sends what is under way, as far as it is taken in time, and ends. Blocks.
    pub(crate) fn stop(&self) {
        let ended = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        ended.into_iter().for_each(|(_, sender)| sender.stop(self.flush_deadline));
    }
}

/// What all targets say of their metrics.
fn families(scraper: &scraper::Handle) -> Vec<FamilyMetadata> {
    let targets = scraper.metadata().into_iter().flat_map(|target| target.families);
    let family = |one: scraper::status::FamilyMetadata| FamilyMetadata {
        family: one.family,
        metadata: Metadata { kind: kind(one.metric_type), unit: one.unit, help: one.help },
    };
    targets.map(family).collect()
}

fn kind(of: MetricType) -> MetricKind {
    match of {
        MetricType::Unknown => MetricKind::Unknown,
        MetricType::Counter => MetricKind::Counter,
        MetricType::Gauge => MetricKind::Gauge,
        MetricType::Histogram => MetricKind::Histogram,
        MetricType::GaugeHistogram => MetricKind::GaugeHistogram,
        MetricType::Summary => MetricKind::Summary,
        MetricType::Info => MetricKind::Info,
        MetricType::StateSet => MetricKind::StateSet,
    }
}
