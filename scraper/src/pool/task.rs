//! One task for each target: it waits, fetches, and has what it fetched stored.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{Labels, Timestamp};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Clock, ScrapeJob};
use crate::fetch::{Access, Coding, Fetcher, Means, Page};
use crate::ingest::{Ingest, Outcome, Scrape, ScrapeError, Store};
use crate::schedule::{Schedule, align};
use crate::status::{FamilyMetadata, Health, TargetStatus};
use crate::target::Target;

/// Page buffers kept for the next scrape. Few scrapes are under way at one moment, so few are needed, and
/// an idle target holds none.
const BUFFERS_MAX: usize = 4;
/// A larger buffer is given back to the allocator.
const BUFFER_BYTES_MAX: usize = 16 << 20;

/// What all tasks share.
pub(crate) struct Shared {
    pub(crate) store: Arc<Store>,
    clock: Clock,
    buffers: Mutex<Vec<Vec<u8>>>,
    threads: Vec<Handle>,
    /// Ends the threads, together with the last task.
    idle: CancellationToken,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.idle.cancel();
    }
}

/// Scrapes run on threads of their own, each target always on the same one. Its page is fetched, parsed and stored
/// there without being handed to another thread, which would cost two wake-ups a scrape; and a slow disk
/// holds up scrapes, which have to wait for it anyway, but nothing else of the process.
const THREADS_MAX: usize = 4;
/// A larger page is stored elsewhere, so that it does not hold up other targets.
const INLINE_BYTES_MAX: usize = 4 << 20;

/// Starts the threads; without any, scrapes run where the caller does.
fn start_threads(threads_max: usize, idle: &CancellationToken) -> Vec<Handle> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let start = |number: usize| -> std::io::Result<Handle> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (handle, idle) = (runtime.handle().clone(), idle.clone());
        let thread = std::thread::Builder::new().name(format!("scrape-{number}"));
        thread.spawn(move || runtime.block_on(idle.cancelled()))?;
        Ok(handle)
    };
    (0..processors.min(threads_max)).filter_map(|number| start(number).ok()).collect()
}

impl Shared {
    pub(crate) fn new(store: Arc<Store>, clock: Clock, shutdown: CancellationToken) -> Self {
        let idle = CancellationToken::new();
        // A sink takes one page after the other, whichever thread has it.
        let threads_max = if store.sink.is_some() { 1 } else { THREADS_MAX };
        Self {
            threads: start_threads(threads_max, &idle),
            store,
            clock,
            buffers: Mutex::default(),
            idle,
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

    /// Ends with everything else.
    pub(crate) fn child_token(&self) -> CancellationToken {
        self.shutdown.child_token()
    }

    pub(super) fn now(&self) -> Timestamp {
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
pub(super) struct Order {
    pub(super) job: Arc<ScrapeJob>,
    pub(super) access: Arc<Access>,
    pub(super) target: Arc<Target>,
    pub(super) offset_ms: i64,
    pub(super) first_within_ms: i64,
    /// Why the target must not be scraped at all.
    pub(super) refusal: Option<String>,
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
    /// Series to be ended before the next scrape.
    ended: Vec<Labels>,
}

/// Where a task is told of series that end.
pub(super) struct Inbox {
    orders: watch::Sender<Arc<Order>>,
    live: Arc<Mutex<Live>>,
}

impl Inbox {
    pub(super) fn end(&self, series: Vec<Labels>) {
        self.live.lock().ended.extend(series);
        // The same order once more makes the task look.
        self.orders.send_modify(|_| {});
    }
}

/// A running task.
pub(super) struct Task {
    orders: watch::Sender<Arc<Order>>,
    live: Arc<Mutex<Live>>,
    /// The target is no longer wanted.
    removed: CancellationToken,
    /// Nor does it exist any more.
    gone: CancellationToken,
}

impl Task {
    pub(super) fn spawn(order: Order, shared: &Arc<Shared>) -> Self {
        let ingest = Ingest::new(Arc::clone(&shared.store), order.target.labels.clone());
        let offset_ms = order.offset_ms;
        let (orders, receiver) = watch::channel(Arc::new(order));
        let live = Arc::new(Mutex::new(Live::default()));
        let (removed, gone) = (CancellationToken::new(), CancellationToken::new());
        let scraping = Scraping {
            orders: receiver,
            live: Arc::clone(&live),
            removed: removed.clone(),
            gone: gone.clone(),
            shared: Arc::clone(shared),
            fetcher: Fetcher::default(),
            ingest: Some(Box::new(ingest)),
        };
        let offset = usize::try_from(offset_ms.unsigned_abs()).unwrap_or(0);
        match shared.threads.get(offset % shared.threads.len().max(1)) {
            Some(thread) => shared.tasks.spawn_on(scraping.run(), thread),
            None => shared.tasks.spawn(scraping.run()),
        };
        Self { orders, live, removed, gone }
    }

    /// Ends the task; its series are marked stale once nobody goes on with them.
    pub(super) fn remove(self) {
        self.removed.cancel();
    }

    /// Ends the task and its series now: what it scraped is no more.
    pub(super) fn end(self) {
        self.gone.cancel();
        self.removed.cancel();
    }

    pub(super) fn inbox(&self) -> Inbox {
        Inbox { orders: self.orders.clone(), live: Arc::clone(&self.live) }
    }

    pub(super) fn order(&self) -> Order {
        Order::clone(&self.orders.borrow())
    }

    pub(super) fn target(&self) -> Arc<Target> {
        Arc::clone(&self.orders.borrow().target)
    }

    pub(super) fn families(&self) -> Vec<FamilyMetadata> {
        self.live.lock().families.as_deref().unwrap_or_default().to_vec()
    }

    pub(super) fn series(&self) -> u64 {
        self.live.lock().series
    }

    pub(super) fn change(&self, wanted: Order) {
        self.orders.send_if_modified(|order| {
            let same = order.job == wanted.job
                && Arc::ptr_eq(&order.access, &wanted.access)
                && order.target == wanted.target
                && order.refusal == wanted.refusal
                && order.offset_ms == wanted.offset_ms;
            if !same {
                *order = Arc::new(wanted);
            }
            !same
        });
    }

    pub(super) fn status(&self, pool: &str) -> TargetStatus {
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
    gone: CancellationToken,
    shared: Arc<Shared>,
    fetcher: Fetcher,
    /// Away while a page is being stored on a thread that may block.
    ingest: Option<Box<Ingest>>,
}

impl Scraping {
    async fn run(mut self) {
        let shutdown = self.shared.shutdown.clone();
        let (removed, gone) = (self.removed.clone(), self.gone.clone());
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
                    self.end_series(last).await;
                    continue;
                }
                () = tokio::time::sleep(wait) => {}
            }
            let at = align(schedule.due, self.shared.now(), schedule.interval_ms);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = gone.cancelled() => break,
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

    /// Ends the series that are to be ended.
    async fn end_series(&mut self, last: Option<Timestamp>) {
        let ended = std::mem::take(&mut self.live.lock().ended);
        let Some(mut ingest) = self.ingest.take_if(|_| !ended.is_empty()) else { return };
        let at = last.map_or(self.shared.now(), |last| self.shared.now().max(last + 1));
        let ending = tokio::task::spawn_blocking(move || {
            let outcome = ingest.end_series(&ended, at);
            (ingest, outcome)
        });
        match ending.await {
            Ok((ingest, outcome)) => {
                self.ingest = Some(ingest);
                if let Err(error) = outcome {
                    self.shared.store.counters.commits_failed.add(1);
                    tracing::error!(%error, "the end of a pod's series could not be recorded");
                }
            }
            Err(error) => {
                tracing::error!(%error, "ending a pod's series panicked");
                let labels = self.orders.borrow().target.labels.clone();
                self.ingest = Some(Box::new(Ingest::new(Arc::clone(&self.shared.store), labels)));
            }
        }
    }

    /// Takes over a changed order.
    fn adopt(&mut self, old: &Order, new: &Order) {
        if !Arc::ptr_eq(&old.access, &new.access) || old.target.address != new.target.address {
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
        let means = Means { target, job, access: &order.access };
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
        let is_own = !self.shared.threads.is_empty();
        let is_packed = page.as_ref().is_ok_and(|page| page.coding != Coding::Plain);
        let scrape = Scrape {
            job: Arc::clone(&order.job),
            at,
            now: self.shared.now(),
            started,
            timeout_ms: order.target.timeout_ms,
            histograms: order.target.histograms,
            page,
            buffer: if is_packed { self.shared.take_buffer() } else { Vec::new() },
        };
        let failures =
            order.job.failure_log.clone().map(|path| (path, order.job.name.clone(), order.target.url()));
        // How large a compressed page is shows once it is unpacked: the one before has to tell.
        let before = usize::try_from(self.live.lock().body_bytes).unwrap_or(usize::MAX);
        let is_small = scrape.page.as_ref().is_ok_and(|page| match page.coding {
            Coding::Plain => page.body.len() <= INLINE_BYTES_MAX,
            Coding::Gzip | Coding::Zstd => (1..=INLINE_BYTES_MAX).contains(&before),
        });
        let storing = move || {
            let outcome = ingest.store(scrape);
            if let (Some(error), Some((path, job, url))) = (&outcome.error, failures)
                && let Err(error) = crate::failure_log::append(&path, at, (&job, &url, error))
            {
                tracing::error!("scrape_failure_log_file: {}: {error}", path.display());
            }
            (ingest, outcome)
        };
        let stored = if is_small && is_own {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(storing)).map_err(|_| true)
        } else {
            tokio::task::spawn_blocking(storing).await.map_err(|error| error.is_panic())
        };
        match stored {
            Ok((ingest, outcome)) => {
                self.note(at, outcome, &ingest, order);
                self.ingest = Some(ingest);
            }
            Err(true) => {
                // What was remembered is lost with the panic. The target begins anew.
                tracing::error!(url = order.target.url(), "storing a page panicked");
                let ingest = Ingest::new(Arc::clone(&self.shared.store), order.target.labels.clone());
                self.ingest = Some(Box::new(ingest));
                let mut live = self.live.lock();
                live.health = Health::Down;
                live.last_error = Some("storing the page failed".to_owned());
            }
            Err(false) => return false,
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
        let at = tokio::select! {
            biased;
            () = self.shared.shutdown.cancelled() => return,
            // Nothing will go on with its series.
            () = self.gone.cancelled() => self.shared.now().max(last + 1),
            () = tokio::time::sleep(wait) => last + interval_ms,
        };
        let Some(mut ingest) = self.ingest.take() else { return };
        let ended = tokio::task::spawn_blocking(move || ingest.end(at)).await;
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
