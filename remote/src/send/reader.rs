//! From the log to the shards.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use model::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tsdb::{Db, Logged, Position, Tail};

use super::batch::Batch;
use super::cursor::Cursor;
use super::post::{Open, Shard, Spaces};
use super::series::{Name, Names};
use super::{Counters, Destination, Stop};

/// New samples are looked for at least this often, and deadlines with them.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The number of shards is thought over this often.
const RESHARD_EVERY: Duration = Duration::from_secs(10);
/// Shards that are busy for more than this share of the time are doubled.
const BUSY: f64 = 0.7;
/// Shards that are busy for less than this share of the time are halved.
const IDLE: f64 = 0.2;

pub(super) struct Reader {
    destination: Arc<Destination>,
    counters: Arc<Counters>,
    cursor: Cursor,
    names: Names,
    open: Open,
    spaces: Spaces,
    next_number: u64,
    told: Told,
}

/// What is to be counted; told when a record is read, since an atomic addition costs as much as a sample.
#[derive(Default)]
struct Told {
    pending: u64,
    dropped: u64,
    newest: Timestamp,
}

/// The shards of one period, and the request that each is filled with.
struct Shards {
    queues: Vec<mpsc::Sender<(u64, Batch)>>,
    filling: Vec<Option<Batch>>,
    tasks: Vec<JoinHandle<()>>,
    since: Instant,
    busy_before: u64,
}

impl Reader {
    pub(super) fn new(destination: Arc<Destination>, counters: Arc<Counters>, cursor: Cursor) -> Self {
        let external = destination.external_labels.clone();
        let names = Names::new(destination.protocol, external, destination.relabel.clone());
        Self {
            destination,
            counters,
            cursor,
            names,
            open: Open::default(),
            spaces: Spaces::default(),
            next_number: 0,
            told: Told::default(),
        }
    }

    pub(super) fn run(mut self, db: &Db, mut tail: Tail, runtime: &Handle, stop: &Stop) {
        let mut shards = self.shards(self.destination.queue.shards_min, runtime);
        while !stop.is_asked() {
            if tail.wait(LOOK_AGAIN) {
                self.read(&mut tail, &mut shards, stop);
            }
            self.send_due(&mut shards, self.destination.queue.deadline);
            let done = self.done(&shards, tail.position());
            self.cursor.keep(done, false);
            *self.counters.done.lock() = done;
            if shards.since.elapsed() >= RESHARD_EVERY {
                shards = self.reshard(shards, runtime);
                self.forget(db, &mut tail);
            }
        }
        self.send_due(&mut shards, Duration::ZERO);
        self.end(shards, runtime, *stop.patience.lock());
        // What the deadline cut off is sent again after the next start.
        let done = self.open.lock().values().min().copied().unwrap_or(tail.position());
        self.cursor.keep(done, true);
    }

    /// Learns the series anew if many of those known have left the store, so that churn costs no memory.
    fn forget(&mut self, db: &Db, tail: &mut Tail) {
        let live = usize::try_from(db.stats().head_series).unwrap_or(usize::MAX);
        if self.names.len() <= live.saturating_mul(2).saturating_add(1024) {
            return;
        }
        match db.tail(Some(tail.position())) {
            Ok(fresh) => {
                // It names all series of the log before it goes on.
                self.names.clear();
                *tail = fresh;
            }
            Err(error) => tracing::error!(destination = %self.destination.name, "remote write: {error}"),
        }
    }

    /// The place before which everything is done.
    fn done(&self, shards: &Shards, read: Position) -> Position {
        let filling = shards.filling.iter().flatten().map(|batch| batch.from);
        let open = self.open.lock().values().min().copied();
        filling.chain(open).min().unwrap_or(read)
    }

    fn shards(&self, count: usize, runtime: &Handle) -> Shards {
        let queue = &self.destination.queue;
        let waiting = (queue.capacity / queue.samples_per_request.max(1)).max(1);
        let (mut queues, mut tasks) = (Vec::new(), Vec::new());
        for _ in 0..count.max(1) {
            let (send, receive) = mpsc::channel(waiting);
            let shard = Shard {
                destination: Arc::clone(&self.destination),
                counters: Arc::clone(&self.counters),
                open: Arc::clone(&self.open),
            };
            queues.push(send);
            tasks.push(runtime.spawn(shard.run(receive, Arc::clone(&self.spaces))));
        }
        self.counters.shards.store(queues.len() as u64, Ordering::Relaxed);
        let filling = queues.iter().map(|_| None).collect();
        let busy_before = self.counters.busy.load(Ordering::Relaxed);
        Shards { queues, filling, tasks, since: Instant::now(), busy_before }
    }

    /// Reads everything that is there, or until it is time to look at something else.
    fn read(&mut self, tail: &mut Tail, shards: &mut Shards, stop: &Stop) {
        let began = Instant::now();
        while began.elapsed() < LOOK_AGAIN && !stop.is_asked() {
            let from = tail.position();
            match tail.read() {
                Ok(Some(logged)) => {
                    self.take(logged, from, shards);
                    self.tell();
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(destination = %self.destination.name, "remote write: {error}");
                    std::thread::sleep(LOOK_AGAIN);
                    return;
                }
            }
        }
    }

    fn take(&mut self, logged: Logged, from: Position, shards: &mut Shards) {
        match logged {
            Logged::Series(all) => all.iter().for_each(|(number, labels)| self.names.learn(*number, labels)),
            Logged::Samples(all) => {
                for (number, times, value) in all {
                    self.push(number, Some(times.0), from, shards, |batch, name| {
                        batch.push_float(name, times, value);
                    });
                }
            }
            Logged::Histograms(all) if self.destination.histograms => {
                for (number, times, value) in all {
                    self.push(number, Some(times.0), from, shards, |batch, name| {
                        batch.push_histogram(name, times, &value);
                    });
                }
            }
            Logged::Exemplars(all) if self.destination.exemplars => {
                for (number, ts, value, own) in all {
                    self.push(number, None, from, shards, |batch, name| {
                        batch.push_exemplar(name, ts, value, &own);
                    });
                }
            }
            Logged::Metadata(all) => {
                all.iter().for_each(|(number, metadata)| self.names.describe(*number, metadata));
            }
            Logged::Skipped { from, to } => {
                tracing::error!(
                    destination = %self.destination.name,
                    "remote write: the log from segment {} to {} is gone; its samples were not sent",
                    from.segment, to.segment
                );
            }
            _ => {}
        }
    }

    fn tell(&mut self) {
        let Told { pending, dropped, newest } = std::mem::take(&mut self.told);
        self.counters.pending.fetch_add(pending, Ordering::Relaxed);
        self.counters.dropped.fetch_add(dropped, Ordering::Relaxed);
        self.counters.newest_read.fetch_max(newest, Ordering::Relaxed);
    }

    /// Puts one item into the request of its series' shard.
    fn push(
        &mut self,
        number: u64,
        ts: Option<Timestamp>,
        from: Position,
        shards: &mut Shards,
        put: impl FnOnce(&mut Batch, Name<'_>),
    ) {
        let too_old = ts.zip(self.destination.queue.age_max).is_some_and(|(ts, age)| {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            (self.destination.now)().saturating_sub(ts) > age
        });
        let Some(name) = self.names.get(number).filter(|_| !too_old) else {
            self.told.dropped += 1;
            return;
        };
        self.told.newest = self.told.newest.max(ts.unwrap_or(Timestamp::MIN));
        let at = usize::try_from(number % shards.queues.len() as u64).unwrap_or(0);
        let batch = shards.filling[at].get_or_insert_with(|| {
            Batch::new(self.destination.protocol, from, self.spaces.lock().pop().unwrap_or_default())
        });
        put(batch, name);
        self.told.pending += 1;
        if batch.len() >= self.destination.queue.samples_per_request as u64 {
            self.send(shards, at);
        }
    }

    /// Sends the requests that have been filled for longer than `age`.
    fn send_due(&mut self, shards: &mut Shards, age: Duration) {
        for at in 0..shards.queues.len() {
            if shards.filling[at].as_ref().is_some_and(|batch| batch.begun.elapsed() >= age) {
                self.send(shards, at);
            }
        }
    }

    /// Hands a request to its shard; waits while that has enough.
    fn send(&mut self, shards: &mut Shards, at: usize) {
        let Some(batch) = shards.filling[at].take() else { return };
        // Before anybody can take from it.
        self.tell();
        self.next_number += 1;
        self.open.lock().insert(self.next_number, batch.from);
        // A shard only ends when its queue does.
        let _ = shards.queues[at].blocking_send((self.next_number, batch));
    }

    /// More shards if they are busy, fewer if they are idle, as many if the receiver fails anyway.
    fn reshard(&mut self, mut shards: Shards, runtime: &Handle) -> Shards {
        let count = shards.queues.len();
        let busy = self.counters.busy.load(Ordering::Relaxed) - shards.busy_before;
        let busy =
            Duration::from_nanos(busy).as_secs_f64() / shards.since.elapsed().as_secs_f64() / count as f64;
        let queue = &self.destination.queue;
        let wanted = match busy {
            _ if self.counters.failing.load(Ordering::Relaxed) => count,
            busy if busy > BUSY => (count * 2).min(queue.shards_max.max(1)),
            busy if busy < IDLE => (count / 2).max(queue.shards_min.max(1)),
            _ => count,
        };
        if wanted == count {
            shards.since = Instant::now();
            shards.busy_before = self.counters.busy.load(Ordering::Relaxed);
            return shards;
        }
        // The old ones finish first, so that no series overtakes itself.
        self.send_due(&mut shards, Duration::ZERO);
        drop(shards.queues);
        for task in shards.tasks {
            let _ = runtime.block_on(task);
        }
        tracing::info!(destination = %self.destination.name, "remote write: {wanted} shards, before {count}");
        self.shards(wanted, runtime)
    }

    /// Waits for what is under way for so long.
    fn end(&self, shards: Shards, runtime: &Handle, patience: Duration) {
        drop(shards.queues);
        let deadline = Instant::now() + patience;
        for task in shards.tasks {
            let left = deadline.saturating_duration_since(Instant::now());
            let abort = task.abort_handle();
            let ended = runtime.block_on(async { tokio::time::timeout(left, task).await });
            if ended.is_err() {
                abort.abort();
            }
        }
    }
}
