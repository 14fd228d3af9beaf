//! Scrape pools: one task for each target.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{Labels, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Clock, Config, ScrapeJob};
use crate::fetch::{Fetcher, Means, Page};
use crate::ingest::{Ingest, Outcome, Scrape, ScrapeError, Store};
use crate::schedule::{Schedule, align};
use crate::status::{DroppedTarget, FamilyMetadata, Health, TargetMetadata, TargetStatus, Targets};
use crate::target::{Client, Resolved, Target};
use crate::tls::Dialer;

/// Page buffers kept for the next scrape. Few scrapes are under way at one moment, so few are needed, and
/// an idle target holds none.
const BUFFERS_MAX: usize = 8;
/// A larger buffer is given back to the allocator.
const BUFFER_BYTES_MAX: usize = 16 << 20;

/// What all tasks share.
pub(crate) struct Shared {
    pub(crate) store: Arc<Store>,
    clock: Clock,
    buffers: Mutex<Vec<Vec<u8>>>,
    /// Pages being parsed and stored; they keep a processor each.
    ingesting: Arc<Semaphore>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Shared {
    pub(crate) fn new(store: Arc<Store>, clock: Clock, shutdown: CancellationToken) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            store,
            clock,
            buffers: Mutex::default(),
            ingesting: Arc::new(Semaphore::new(processors)),
            shutdown,
            tasks: TaskTracker::new(),
        }
    }

    /// Ends all tasks and waits for them.
    pub(crate) async fn stop(&self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    fn take_buffer(&self) -> Vec<u8> {
        self.buffers.lock().pop().unwrap_or_default()
    }

    fn give_buffer(&self, buffer: Vec<u8>) {
        let mut buffers = self.buffers.lock();
        if buffers.len() < BUFFERS_MAX && (1..=BUFFER_BYTES_MAX).contains(&buffer.capacity()) {
            buffers.push(buffer);
        }
    }
}

/// What a task is to do.
#[derive(Clone)]
struct Order {
    job: Arc<ScrapeJob>,
    client: Arc<Client>,
    dialer: Arc<Dialer>,
    target: Arc<Target>,
    offset_ms: i64,
    first_within_ms: i64,
    /// Why the target must not be scraped at all.
    refusal: Option<String>,
}

/// What a task tells.
#[derive(Default)]
struct Live {
    health: Health,
    last_error: Option<String>,
    last_scrape: Option<Timestamp>,
    last_duration_s: f64,
    samples: u64,
    body_bytes: u64,
    series: u64,
    families: Option<Arc<[FamilyMetadata]>>,
}

/// A running task.
struct Task {
    orders: watch::Sender<Arc<Order>>,
    live: Arc<Mutex<Live>>,
    removed: CancellationToken,
}

/// The targets of one job.
struct Pool {
    name: String,
    order: Vec<(Labels, String)>,
    tasks: HashMap<(Labels, String), Task>,
    dropped: Vec<Labels>,
    dropped_count: u64,
}

/// All jobs.
#[derive(Default)]
pub(crate) struct Pools(Vec<Pool>);

impl Pools {
    /// Starts, changes and ends tasks until they are what the configuration wants. Targets that stay keep
    /// their connection, their cache and their moments.
    pub(crate) fn apply(&mut self, config: &Config, shared: &Arc<Shared>) {
        let client = Arc::new(Client::of(config));
        let mut old: HashMap<String, Pool> =
            std::mem::take(&mut self.0).into_iter().map(|pool| (pool.name.clone(), pool)).collect();
        for job in &config.jobs {
            let known = old.remove(&job.name).map(|pool| pool.tasks).unwrap_or_default();
            self.0.push(Pool::build(job, config, &client, shared, known));
        }
        for task in old.into_values().flat_map(|pool| pool.tasks.into_values()) {
            task.removed.cancel();
        }
    }

    pub(crate) fn targets(&self) -> Targets {
        let mut targets = Targets::default();
        for pool in &self.0 {
            targets.active.extend(pool.in_order().map(|task| task.status(&pool.name)));
            let dropped = pool
                .dropped
                .iter()
                .map(|labels| DroppedTarget { pool: pool.name.clone(), discovered_labels: labels.clone() });
            targets.dropped.extend(dropped);
            targets.dropped_counts.push((pool.name.clone(), pool.dropped_count));
        }
        targets
    }

    pub(crate) fn metadata(&self) -> Vec<TargetMetadata> {
        let of = |pool: &Pool, task: &Task| TargetMetadata {
            pool: pool.name.clone(),
            labels: task.orders.borrow().target.labels.clone(),
            families: task.live.lock().families.as_deref().unwrap_or_default().to_vec(),
        };
        self.0.iter().flat_map(|pool| pool.in_order().map(move |task| of(pool, task))).collect()
    }

    /// Jobs, targets, and series in their caches.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let targets: usize = self.0.iter().map(|pool| pool.tasks.len()).sum();
        let series =
            self.0.iter().flat_map(|pool| pool.tasks.values()).map(|task| task.live.lock().series).sum();
        (self.0.len() as u64, targets as u64, series)
    }
}

impl Pool {
    fn build(
        job: &ScrapeJob,
        config: &Config,
        client: &Arc<Client>,
        shared: &Arc<Shared>,
        mut known: HashMap<(Labels, String), Task>,
    ) -> Self {
        let Resolved { active, mut dropped } = Resolved::of(job);
        let dropped_count = dropped.len() as u64;
        let kept_max = job.limits.dropped_targets_kept_max;
        if kept_max > 0 {
            dropped.truncate(usize::try_from(kept_max).unwrap_or(usize::MAX));
        }
        let limit = job.limits.targets_max;
        let refusal = (limit > 0 && active.len() as u64 > limit)
            .then(|| format!("target_limit exceeded (number of targets: {}, limit: {limit})", active.len()));
        // Tasks need no targets but their own.
        let dialer = Arc::new(Dialer::new(job.http.tls.clone(), Arc::clone(client)));
        let job = Arc::new(ScrapeJob { targets: Vec::new(), ..job.clone() });
        let (mut order, mut tasks) = (Vec::new(), HashMap::new());
        for target in active {
            let identity = target.identity();
            let wanted = Order {
                job: Arc::clone(&job),
                client: Arc::clone(client),
                dialer: Arc::clone(&dialer),
                offset_ms: target.offset_ms(&config.seed),
                target: Arc::new(target),
                first_within_ms: config.first_scrape_within_ms,
                refusal: refusal.clone(),
            };
            let task = match known.remove(&identity) {
                Some(task) => {
                    task.change(wanted);
                    task
                }
                None => Task::spawn(wanted, shared),
            };
            order.push(identity.clone());
            tasks.insert(identity, task);
        }
        for task in known.into_values() {
            task.removed.cancel();
        }
        Self { name: job.name.clone(), order, tasks, dropped, dropped_count }
    }

    fn in_order(&self) -> impl Iterator<Item = &Task> {
        self.order.iter().filter_map(|identity| self.tasks.get(identity))
    }
}

impl Task {
    fn spawn(order: Order, shared: &Arc<Shared>) -> Self {
        let ingest = Ingest::new(Arc::clone(&shared.store), order.target.labels.clone());
        let (orders, receiver) = watch::channel(Arc::new(order));
        let (live, removed) = (Arc::new(Mutex::new(Live::default())), CancellationToken::new());
        let scraping = Scraping {
            orders: receiver,
            live: Arc::clone(&live),
            removed: removed.clone(),
            shared: Arc::clone(shared),
            fetcher: Fetcher::default(),
            ingest: Some(Box::new(ingest)),
        };
        shared.tasks.spawn(scraping.run());
        Self { orders, live, removed }
    }

    fn change(&self, wanted: Order) {
        self.orders.send_if_modified(|order| {
            let same = order.job == wanted.job
                && order.client == wanted.client
                && order.target == wanted.target
                && order.refusal == wanted.refusal
                && order.offset_ms == wanted.offset_ms;
            if !same {
                *order = Arc::new(wanted);
            }
            !same
        });
    }

    fn status(&self, pool: &str) -> TargetStatus {
        let order = Arc::clone(&self.orders.borrow());
        let live = self.live.lock();
        TargetStatus {
            pool: pool.to_owned(),
            discovered_labels: order.target.discovered.clone(),
            labels: order.target.labels.clone(),
            url: order.target.url(),
            last_error: live.last_error.clone(),
            last_scrape: live.last_scrape,
            last_duration_s: live.last_duration_s,
            health: live.health,
            interval_ms: order.target.interval_ms,
            timeout_ms: order.target.timeout_ms,
            last_samples: live.samples,
            last_body_bytes: live.body_bytes,
            series: live.series,
        }
    }
}

/// One target's task.
struct Scraping {
    orders: watch::Receiver<Arc<Order>>,
    live: Arc<Mutex<Live>>,
    removed: CancellationToken,
    shared: Arc<Shared>,
    fetcher: Fetcher,
    /// Away while a page is being stored on a thread that may block.
    ingest: Option<Box<Ingest>>,
}

impl Scraping {
    async fn run(mut self) {
        let shutdown = self.shared.shutdown.clone();
        let removed = self.removed.clone();
        let mut order = Arc::clone(&self.orders.borrow_and_update());
        let mut schedule = schedule_of(&order, self.shared.now(), order.first_within_ms);
        let mut last = None;
        loop {
            let wait = milliseconds(schedule.due - self.shared.now());
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = removed.cancelled() => break,
                changed = self.orders.changed() => {
                    // The other end is gone only if the whole scraper is; the tokens say what to do.
                    if changed.is_err() {
                        break;
                    }
                    let new = Arc::clone(&self.orders.borrow_and_update());
                    self.adopt(&order, &new);
                    if (new.target.interval_ms, new.offset_ms) != (schedule.interval_ms, schedule.offset_ms) {
                        schedule = schedule_of(&new, self.shared.now(), 0);
                    }
                    order = new;
                    continue;
                }
                () = tokio::time::sleep(wait) => {}
            }
            let at = align(schedule.due, self.shared.now(), schedule.interval_ms);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                page = self.fetch(&order) => {
                    let scraped = self.store(&order, at, page).await;
                    if !scraped {
                        return;
                    }
                }
            }
            last = Some(at);
            let missed = schedule.advance(self.shared.now());
            self.shared.store.counters.scrapes_missed.add(missed);
        }
        if let Some(last) = last {
            self.end(last, order.target.interval_ms).await;
        }
    }

    /// Takes over a changed order.
    fn adopt(&mut self, old: &Order, new: &Order) {
        if old.job.http != new.job.http
            || old.client != new.client
            || old.target.address != new.target.address
        {
            self.fetcher = Fetcher::default();
        }
        let (a, b) = (&old.job, &new.job);
        if let Some(ingest) = self.ingest.as_mut()
            && (&a.metric_relabel, a.honor_labels, a.names, a.limits)
                != (&b.metric_relabel, b.honor_labels, b.names, b.limits)
        {
            ingest.forget_names();
        }
    }

    async fn fetch(&mut self, order: &Order) -> (Instant, Result<Page, ScrapeError>) {
        let started = Instant::now();
        if let Some(refusal) = &order.refusal {
            return (started, Err(ScrapeError::TargetLimit(refusal.clone())));
        }
        let buffer = self.shared.take_buffer();
        let (target, job) = (&*order.target, &*order.job);
        let means = Means { target, job, client: &order.client, dialer: &order.dialer };
        let fetched = self.fetcher.fetch(means, buffer).await;
        (started, fetched.map_err(ScrapeError::Fetch))
    }

    /// Stores what was fetched; false if that was interrupted by the end of the runtime.
    async fn store(
        &mut self,
        order: &Order,
        at: Timestamp,
        (started, page): (Instant, Result<Page, ScrapeError>),
    ) -> bool {
        let Some(mut ingest) = self.ingest.take() else { return false };
        let Ok(permit) = Arc::clone(&self.shared.ingesting).acquire_owned().await else { return false };
        let is_gzip = page.as_ref().is_ok_and(|page| page.is_gzip);
        let scrape = Scrape {
            job: Arc::clone(&order.job),
            at,
            now: self.shared.now(),
            started,
            timeout_ms: order.target.timeout_ms,
            histograms: order.target.histograms,
            page,
            buffer: if is_gzip { self.shared.take_buffer() } else { Vec::new() },
        };
        let stored = tokio::task::spawn_blocking(move || {
            let outcome = ingest.store(scrape);
            drop(permit);
            (ingest, outcome)
        });
        match stored.await {
            Ok((ingest, outcome)) => {
                self.note(at, outcome, &ingest, order);
                self.ingest = Some(ingest);
            }
            Err(error) if error.is_panic() => {
                // What was remembered is lost with the thread. The target begins anew.
                tracing::error!(url = order.target.url(), "storing a page failed: {error}");
                let ingest = Ingest::new(Arc::clone(&self.shared.store), order.target.labels.clone());
                self.ingest = Some(Box::new(ingest));
                let mut live = self.live.lock();
                live.health = Health::Down;
                live.last_error = Some("storing the page failed".to_owned());
            }
            Err(_) => return false,
        }
        self.shared.store.counters.scrapes.add(1);
        true
    }

    fn note(&self, at: Timestamp, outcome: Outcome, ingest: &Ingest, order: &Order) {
        let Outcome { error, duration_s, figures, buffers } = outcome;
        for buffer in buffers {
            self.shared.give_buffer(buffer);
        }
        let mut live = self.live.lock();
        if error.is_some() && live.health != Health::Down {
            let error = error.as_deref().unwrap_or_default();
            tracing::debug!(url = order.target.url(), error, "a scrape failed");
        }
        live.health = if error.is_some() { Health::Down } else { Health::Up };
        live.last_error = error;
        live.last_scrape = Some(at);
        live.last_duration_s = duration_s;
        live.samples = figures.scraped as u64;
        live.body_bytes = figures.body_bytes as u64;
        live.series = ingest.series() as u64;
        live.families = Some(Arc::clone(&ingest.families));
    }

    /// Marks all series stale, after a while: a target that comes back by then goes on without a gap.
    async fn end(mut self, last: Timestamp, interval_ms: i64) {
        drop(std::mem::take(&mut self.fetcher));
        let due = last + 2 * interval_ms + interval_ms / 10;
        let wait = milliseconds(due - self.shared.now());
        tokio::select! {
            () = self.shared.shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let Some(mut ingest) = self.ingest.take() else { return };
        let ended = tokio::task::spawn_blocking(move || ingest.end(last + interval_ms)).await;
        if let Ok(Err(error)) = ended {
            self.shared.store.counters.commits_failed.add(1);
            tracing::error!(%error, "the end of a target could not be recorded");
        }
    }
}

fn schedule_of(order: &Order, now: Timestamp, first_within_ms: i64) -> Schedule {
    Schedule::start(now, order.target.interval_ms, order.offset_ms, first_within_ms)
}

fn milliseconds(ms: i64) -> Duration {
    Duration::from_millis(ms.max(0).unsigned_abs())
}
