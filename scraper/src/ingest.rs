//! From a fetched page to the store, and what is remembered of a target in between.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Instant;

use model::{Labels, Timestamp, is_stale_nan, stale_nan};
use parking_lot::Mutex;
use tsdb::{AppendError, CommitError, Db, SeriesRef};

use crate::cache::{Cache, NameHasher, Slot};
use crate::config::{Config, HistogramOptions, ScrapeJob};
use crate::counters::Counters;
use crate::exposition::MetricType;
use crate::fetch::{FetchError, Page};
use crate::page::{self, PageError, ParsedPage, Point};
use crate::series::{SeriesError, labels_of};
use crate::sink::{Sink, Writer};
use crate::status::FamilyMetadata;

/// Samples further ahead of the clock than this are dropped.
const AHEAD_MS_MAX: i64 = 10 * 60_000;

/// Why a scrape failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScrapeError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Page(#[from] PageError),
    #[error(transparent)]
    Series(#[from] SeriesError),
    #[error("sample limit exceeded")]
    SampleLimit,
    #[error("{0}")]
    TargetLimit(String),
    #[error("the store refused the samples: {0}")]
    Store(#[from] CommitError),
    #[error("the store forgot a series twice")]
    Forgotten,
}

/// What all targets share.
pub(crate) struct Store {
    pub(crate) db: Arc<Db>,
    /// Where samples go instead of the database.
    pub(crate) sink: Option<Arc<dyn Sink>>,
    pub(crate) counters: Counters,
    pub(crate) hasher: NameHasher,
    /// Whether what pages say of their families is stored with each new series.
    stores_metadata: bool,
    stores_start_times: bool,
    families: Mutex<HashMap<u64, Weak<[FamilyMetadata]>>>,
}

impl Store {
    /// For the jobs of `config`, as it is at the start.
    pub(crate) fn new(db: Arc<Db>, config: &Config) -> Self {
        Self {
            db,
            sink: config.sink.clone(),
            counters: Counters::default(),
            hasher: NameHasher::new(),
            stores_metadata: config.stores_metadata,
            stores_start_times: config.stores_start_times,
            families: Mutex::default(),
        }
    }

    fn writer(&self) -> Writer<'_> {
        match &self.sink {
            None => Writer::Db(self.db.appender()),
            Some(sink) => Writer::Sink(sink.page(), 0),
        }
    }

    fn seal(&self, ended: &[SeriesRef]) {
        if self.sink.is_none() {
            self.db.seal(ended);
        }
    }

    /// The families of a page. Targets of one kind say the same about them, so it is kept once.
    fn families(&self, hash: u64, read: impl FnOnce() -> Vec<FamilyMetadata>) -> Arc<[FamilyMetadata]> {
        if let Some(known) = self.families.lock().get(&hash).and_then(Weak::upgrade) {
            return known;
        }
        let families: Arc<[FamilyMetadata]> = read().into();
        let mut known = self.families.lock();
        known.retain(|_, families| families.strong_count() > 0);
        known.insert(hash, Arc::downgrade(&families));
        families
    }
}

/// One scrape to be stored.
pub(crate) struct Scrape {
    pub(crate) job: Arc<ScrapeJob>,
    /// The timestamp of its samples.
    pub(crate) at: Timestamp,
    /// What the clock says.
    pub(crate) now: Timestamp,
    pub(crate) started: Instant,
    pub(crate) timeout_ms: i64,
    pub(crate) histograms: HistogramOptions,
    pub(crate) page: Result<Page, ScrapeError>,
    /// Where a compressed page is unpacked.
    pub(crate) buffer: Vec<u8>,
}

/// What became of a scrape.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) error: Option<String>,
    pub(crate) duration_s: f64,
    /// Figures of the page, as far as it was read.
    pub(crate) figures: Figures,
    /// Memory to be used again.
    pub(crate) buffers: Vec<Vec<u8>>,
}

/// Figures of one page.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Samples on the page.
    pub(crate) scraped: usize,
    /// Samples left after relabelling.
    pub(crate) kept: usize,
    /// Series that were new.
    pub(crate) added: usize,
    /// Bytes without compression.
    pub(crate) body_bytes: usize,
}

/// Series about the scrape itself: the five that are always written, then those that can be switched on.
const REPORTS: [&str; 8] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "scrape_timeout_seconds",
    "scrape_sample_limit",
    "scrape_body_size_bytes",
];
const REPORTS_ALWAYS: usize = 5;

/// What is remembered of a target.
pub(crate) struct Ingest {
    store: Arc<Store>,
    labels: Labels,
    cache: Cache,
    reports: [Option<SeriesRef>; REPORTS.len()],
    metadata_hash: Option<u64>,
    pub(crate) families: Arc<[FamilyMetadata]>,
}

/// What to do about a page that could not be stored.
enum Refusal {
    /// The store no longer knows a series that the cache knows.
    UnknownSeries,
    Failed(ScrapeError),
}

impl From<ScrapeError> for Refusal {
    fn from(error: ScrapeError) -> Self {
        Self::Failed(error)
    }
}

impl Ingest {
    pub(crate) fn new(store: Arc<Store>, labels: Labels) -> Self {
        Self {
            store,
            labels,
            cache: Cache::default(),
            reports: [None; REPORTS.len()],
            metadata_hash: None,
            families: Arc::new([]),
        }
    }

    /// The number of series remembered.
    pub(crate) fn series(&self) -> usize {
        self.cache.len()
    }

    /// To be called when relabelling has changed: names stand for other series then.
    pub(crate) fn forget_names(&mut self) {
        self.cache.forget_names();
    }

    /// Stores a scrape, or the fact that it failed. Blocks.
    pub(crate) fn store(&mut self, mut scrape: Scrape) -> Outcome {
        let mut outcome = Outcome::default();
        let page = std::mem::replace(&mut scrape.page, Err(ScrapeError::Forgotten));
        let stored = page.and_then(|page| self.store_page(&mut scrape, page, &mut outcome));
        if let Err(error) = stored {
            self.count(&error);
            outcome.error = Some(error.to_string());
            outcome.duration_s = scrape.started.elapsed().as_secs_f64();
            if let Err(error) = self.store_failure(&scrape, &outcome) {
                self.store.counters.commits_failed.add(1);
                tracing::error!(%error, "a failed scrape could not be recorded");
            }
        }
        self.store.counters.body_bytes.add(outcome.figures.body_bytes as u64);
        outcome
    }

    fn count(&self, error: &ScrapeError) {
        let counters = &self.store.counters;
        counters.scrapes_failed.add(1);
        match error {
            ScrapeError::Fetch(FetchError::BodyTooLarge) => counters.exceeded_body_size.add(1),
            ScrapeError::Page(PageError::Buckets) => counters.exceeded_bucket_limit.add(1),
            ScrapeError::SampleLimit => counters.exceeded_sample_limit.add(1),
            ScrapeError::Series(error) if error.is_limit() => counters.exceeded_label_limit.add(1),
            ScrapeError::TargetLimit(_) => counters.exceeded_target_limit.add(1),
            ScrapeError::Store(_) => counters.commits_failed.add(1),
            _ => {}
        }
    }

    fn store_page(
        &mut self,
        scrape: &mut Scrape,
        page: Page,
        outcome: &mut Outcome,
    ) -> Result<(), ScrapeError> {
        let format = page.format;
        let buffer = std::mem::take(&mut scrape.buffer);
        let (body, spare) = page.into_plain(&scrape.job, buffer)?;
        outcome.figures.body_bytes = body.len();
        let mut result = Err(ScrapeError::Forgotten);
        for _ in 0..2 {
            let parsed = page::read(
                &body,
                format,
                scrape.histograms,
                self.store.stores_start_times,
                &self.cache,
                &self.store.hasher,
            );
            let stored = match &parsed {
                Ok(parsed) => {
                    self.describe(parsed, &body, format);
                    self.append_page(scrape, parsed, outcome)
                }
                Err(error) => Err(Refusal::Failed(error.clone().into())),
            };
            result = match (stored, parsed) {
                (Err(Refusal::UnknownSeries), _) => {
                    // Names lead to their series anew. Those that are live are all on this page or stale.
                    self.cache.forget_names();
                    continue;
                }
                (Err(Refusal::Failed(error)), _) => Err(error),
                (Ok(()), Ok(_)) => Ok(()),
                (Ok(()), Err(error)) => Err(error.into()),
            };
            break;
        }
        outcome.buffers.extend([body, spare]);
        result
    }

    fn describe(&mut self, parsed: &ParsedPage, body: &[u8], format: crate::exposition::Format) {
        if self.metadata_hash != Some(parsed.metadata_hash) {
            self.metadata_hash = Some(parsed.metadata_hash);
            self.families = self.store.families(parsed.metadata_hash, || page::metadata(body, format));
        }
    }

    fn append_page(
        &mut self,
        scrape: &Scrape,
        parsed: &ParsedPage,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        let (job, figures) = (&*scrape.job, &mut outcome.figures);
        figures.scraped = parsed.points.len();
        let mut new = Vec::new();
        for (name, metric_type) in parsed.new_series() {
            new.push(labels_of(name, metric_type, &self.labels, job).map_err(ScrapeError::Series)?);
        }
        let is_kept = |point: &&Point| match point.slot() {
            Slot::Known(at) => self.cache.series(at).is_some(),
            Slot::New(n) => new.get(n as usize).is_some_and(Option::is_some),
        };
        figures.kept = parsed.points.iter().filter(is_kept).count();
        let mut refused_from = new.len();
        let counted = || {
            let kept = parsed.points.iter().filter(is_kept);
            kept.filter(|point| !is_stale_nan(point.value)).count() as u64
        };
        if job.limits.samples_max > 0 && counted() > job.limits.samples_max {
            if !job.limits.keeps_known {
                return Err(ScrapeError::SampleLimit.into());
            }
            self.store.counters.exceeded_sample_limit.add(1);
            refused_from = self.room_for_new(parsed, &new, job.limits.samples_max);
        }
        let store = Arc::clone(&self.store);
        let mut appender = store.writer();
        let known_new = new.iter().take(refused_from);
        let mut new_refs: Vec<NewSeries> =
            known_new.map(|labels| self.new_series(&mut appender, labels.as_ref())).collect();
        new_refs.resize(new.len(), NewSeries::Refused);
        if store.stores_metadata {
            self.append_metadata(&mut appender, &new, &new_refs);
        }
        let new = new_refs;
        let is_stored = |series: &&NewSeries| matches!(series, NewSeries::Stored(_));
        figures.added = new.iter().filter(is_stored).count();
        self.append_points(&mut appender, scrape, parsed, &new)?;
        let fresh: HashSet<SeriesRef> = new.iter().filter_map(NewSeries::series).collect();
        let slots = parsed.points.iter().map(Point::slot);
        for series in self.cache.gone(&parsed.changes, slots, |series| fresh.contains(&series)) {
            // A series that is gone from the head needs no marker either.
            let _ = appender.append(series, scrape.at, stale_nan());
        }
        outcome.duration_s = scrape.started.elapsed().as_secs_f64();
        self.report(&mut appender, scrape, outcome, 1.0);
        let samples = appender.commit().map_err(ScrapeError::Store)?;
        store.counters.samples.add(samples as u64);
        let is_timed =
            |point: &Point| point.ts().is_some() && job.honor_timestamps && !job.track_timestamps_staleness;
        let points = parsed.points.iter().map(|point| (point.slot(), is_timed(point)));
        self.cache.advance(&parsed.changes, points, |n| match new.get(n as usize) {
            Some(NewSeries::Dropped) => Ok(None),
            Some(NewSeries::Stored(series)) => Ok(Some(*series)),
            Some(NewSeries::Refused) | None => Err(()),
        });
        Ok(())
    }

    /// How many of the new series fit beside those that are known.
    fn room_for_new(&self, parsed: &ParsedPage, new: &[Option<Labels>], samples_max: u64) -> usize {
        let is_known =
            |point: &&Point| matches!(point.slot(), Slot::Known(at) if self.cache.series(at).is_some());
        let known = parsed.points.iter().filter(is_known).count() as u64;
        let mut room = samples_max.saturating_sub(known);
        let takes_room = |labels: &Option<Labels>| {
            let fits = labels.is_none() || room > 0;
            room = room.saturating_sub(u64::from(labels.is_some()));
            fits
        };
        new.iter().map(takes_room).take_while(|fits| *fits).count()
    }

    /// Stores what the page says of the families of new series.
    fn append_metadata(&self, appender: &mut Writer<'_>, labels: &[Option<Labels>], new: &[NewSeries]) {
        for (labels, series) in labels.iter().zip(new) {
            let (Some(labels), NewSeries::Stored(series)) = (labels, series) else { continue };
            let family = labels.metric_name().and_then(|name| family_of(&self.families, name));
            if let Some(family) = family {
                let metadata = tsdb::Metadata {
                    kind: kind_of(family.metric_type),
                    unit: family.unit.clone(),
                    help: family.help.clone(),
                };
                // A series that was made just now is known.
                let _ = appender.metadata(*series, &metadata);
            }
        }
    }

    fn new_series(&self, appender: &mut Writer<'_>, labels: Option<&Labels>) -> NewSeries {
        let Some(labels) = labels else { return NewSeries::Dropped };
        match appender.series(labels) {
            Ok(series) => NewSeries::Stored(series),
            Err(error) => {
                self.store.counters.refuse(error);
                NewSeries::Refused
            }
        }
    }

    fn append_points(
        &self,
        appender: &mut Writer<'_>,
        scrape: &Scrape,
        parsed: &ParsedPage,
        new: &[NewSeries],
    ) -> Result<(), Refusal> {
        let honor = scrape.job.honor_timestamps;
        let mut exemplars = parsed.exemplars();
        let mut starts = parsed.starts().iter().peekable();
        for (at, point) in parsed.points.iter().enumerate() {
            let series = match point.slot() {
                Slot::Known(at) => self.cache.series(at),
                Slot::New(n) => new.get(n as usize).and_then(NewSeries::series),
            };
            let own = exemplars.iter().take_while(|(point, _)| *point == at).count();
            let (examples, others) = exemplars.split_at(own);
            exemplars = others;
            let start = starts.next_if(|(point, _)| *point == at).map_or(0, |(_, start)| *start);
            let Some(series) = series else { continue };
            let ts = point.ts().filter(|_| honor).unwrap_or(scrape.at);
            let appended = if ts > scrape.now.saturating_add(AHEAD_MS_MAX) {
                Err(AppendError::OutOfBounds)
            } else {
                match parsed.histogram(point) {
                    Some(histogram) => appender.append_histogram_started(series, (ts, start), histogram),
                    None => appender.append_started(series, (ts, start), point.value),
                }
            };
            match appended {
                Ok(()) => {
                    for (_, exemplar) in examples {
                        append_exemplar(appender, series, exemplar, ts);
                    }
                }
                Err(AppendError::UnknownSeries) => return Err(Refusal::UnknownSeries),
                Err(error) => self.store.counters.refuse(error),
            }
        }
        Ok(())
    }

    /// Records that a scrape failed: no series of the target is live any more.
    fn store_failure(&mut self, scrape: &Scrape, outcome: &Outcome) -> Result<(), CommitError> {
        let store = Arc::clone(&self.store);
        let mut appender = store.writer();
        self.append_stale(&mut appender, scrape.at);
        self.report(&mut appender, scrape, outcome, 0.0);
        appender.commit()?;
        self.cache.set_stale();
        Ok(())
    }

    /// Records that the target is no more. Blocks.
    pub(crate) fn end(&mut self, at: Timestamp) -> Result<(), CommitError> {
        let store = Arc::clone(&self.store);
        let mut appender = store.writer();
        // A successor of the target may have written later samples. Such a series goes on.
        let series = self.cache.live().chain(self.reports.iter().flatten().copied());
        let ended: Vec<SeriesRef> =
            series.filter(|series| appender.append(*series, at, stale_nan()).is_ok()).collect();
        appender.commit()?;
        store.seal(&ended);
        self.cache.set_stale();
        Ok(())
    }

    /// Ends some of the series, as far as they are live here, because what they are about is no more: those that bring
    /// their own timestamps too. If a later page shows one nevertheless, it goes on. Blocks.
    pub(crate) fn end_series(&mut self, ended: &[Labels], at: Timestamp) -> Result<(), CommitError> {
        let store = Arc::clone(&self.store);
        let mut appender = store.writer();
        let ended = ended.iter().filter_map(|labels| appender.series(labels).ok()).collect();
        let found = self.cache.forget(&ended);
        for series in &found {
            let _ = appender.append(*series, at, stale_nan());
        }
        appender.commit()?;
        store.seal(&found);
        Ok(())
    }

    fn append_stale(&self, appender: &mut Writer<'_>, at: Timestamp) {
        for series in self.cache.live() {
            let _ = appender.append(series, at, stale_nan());
        }
    }

    /// Writes the series about the scrape itself.
    #[expect(clippy::cast_precision_loss, reason = "samples are floats")]
    fn report(&mut self, appender: &mut Writer<'_>, scrape: &Scrape, outcome: &Outcome, up: f64) {
        let figures = &outcome.figures;
        let values = [
            up,
            outcome.duration_s,
            figures.scraped as f64,
            figures.kept as f64,
            figures.added as f64,
            scrape.timeout_ms as f64 / 1_000.0,
            scrape.job.limits.samples_max as f64,
            figures.body_bytes as f64,
        ];
        let written = if scrape.job.extra_metrics { REPORTS.len() } else { REPORTS_ALWAYS };
        for (at, value) in values.into_iter().enumerate().take(written) {
            let known = self.reports[at].map(|series| appender.append(series, scrape.at, value));
            let appended = match known {
                Some(Err(AppendError::UnknownSeries)) | None => {
                    self.report_series(appender, at).and_then(|series| {
                        self.reports[at] = Some(series);
                        appender.append(series, scrape.at, value)
                    })
                }
                Some(appended) => appended,
            };
            if let Err(error) = appended {
                self.store.counters.refuse(error);
            }
        }
    }

    fn report_series(&self, appender: &mut Writer<'_>, at: usize) -> Result<SeriesRef, AppendError> {
        let mut labels = self.labels.to_builder();
        labels.set(model::METRIC_NAME, REPORTS[at]);
        appender.series(&labels.build())
    }
}

/// The family of a series: that of its name, or of its name without the ending that its type gives it.
fn family_of<'a>(families: &'a [FamilyMetadata], name: &str) -> Option<&'a FamilyMetadata> {
    const ENDINGS: [&str; 7] = ["_total", "_bucket", "_count", "_sum", "_created", "_gcount", "_gsum"];
    let find = |name: &str| {
        let at = families.binary_search_by(|family| family.family.as_str().cmp(name)).ok()?;
        families.get(at)
    };
    find(name).or_else(|| ENDINGS.iter().find_map(|ending| find(name.strip_suffix(ending)?)))
}

fn kind_of(metric_type: MetricType) -> tsdb::MetricKind {
    match metric_type {
        MetricType::Unknown => tsdb::MetricKind::Unknown,
        MetricType::Counter => tsdb::MetricKind::Counter,
        MetricType::Gauge => tsdb::MetricKind::Gauge,
        MetricType::Histogram => tsdb::MetricKind::Histogram,
        MetricType::GaugeHistogram => tsdb::MetricKind::GaugeHistogram,
        MetricType::Summary => tsdb::MetricKind::Summary,
        MetricType::Info => tsdb::MetricKind::Info,
        MetricType::StateSet => tsdb::MetricKind::StateSet,
    }
}

/// An example is worth no failure: one that is late, repeated or too long is left out.
fn append_exemplar(appender: &mut Writer<'_>, series: SeriesRef, exemplar: &tsdb::Exemplar, ts: Timestamp) {
    let _ = if exemplar.ts == Timestamp::MIN {
        appender.append_exemplar(series, &tsdb::Exemplar { ts, ..exemplar.clone() })
    } else {
        appender.append_exemplar(series, exemplar)
    };
}

/// What became of a new series.
#[derive(Clone, Copy, Debug)]
enum NewSeries {
    /// Relabelling drops it.
    Dropped,
    Stored(SeriesRef),
    /// The store takes no more series.
    Refused,
}

impl NewSeries {
    fn series(&self) -> Option<SeriesRef> {
        if let Self::Stored(series) = self { Some(*series) } else { None }
    }
}
