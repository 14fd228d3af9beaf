//! `Series`: chunks as they are stored, one frame after the other.

use bytes::Bytes;
use model::{Labels, Selection, StorageError, TimeRange};
use tonic::{Code, Status};
use tsdb::{ChunkSeriesSet, RawChunk, Snapshot};

use crate::frame::{self, Batch, Series};
use crate::order::visit_sorted;
use crate::proto::SeriesRequest;
use crate::request::{self, Conditions, Naming, Shard};

/// Where frames go. It may take its time: nothing is read ahead meanwhile.
pub(crate) trait Sink {
    /// Takes a frame.
    ///
    /// # Errors
    /// Nobody wants frames any more.
    fn send(&mut self, frame: Bytes) -> Result<(), Status>;

    /// Whether nobody wants frames any more.
    fn is_gone(&self) -> bool;
}

/// What one request may have; 0: no limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) series_max: u64,
    pub(crate) samples_max: u64,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) series: u64,
    pub(crate) chunks: u64,
    pub(crate) samples: u64,
    pub(crate) bytes: u64,
}

/// A request that was checked.
pub(crate) struct Query {
    conditions: Conditions,
    range: Option<TimeRange>,
    naming: Naming,
    shard: Option<Shard>,
    skip_chunks: bool,
    limit: Option<usize>,
    batch: usize,
}

impl Query {
    /// Checks a request.
    ///
    /// # Errors
    /// It makes no sense; the message says why.
    pub(crate) fn new(request: &SeriesRequest, external: &Labels) -> Result<Self, Status> {
        let conditions = Conditions::new(&request.matchers, external)?;
        if conditions.possible && conditions.matchers.is_empty() {
            return Err(Status::invalid_argument("no matchers specified (excluding external labels)"));
        }
        Ok(Self {
            conditions,
            range: request::range(request.min_time, request.max_time),
            naming: Naming::new(external, &request.without_replica_labels),
            shard: Shard::new(request.shard_info.as_ref()),
            skip_chunks: request.skip_chunks,
            limit: request::limit(request.limit),
            batch: request::limit(request.response_batch_size).unwrap_or(1),
        })
    }

    /// Sends the answer, and gives what was sent also where it fails.
    pub(crate) fn run(
        &self,
        snapshot: &Snapshot,
        bounds: Bounds,
        sink: &mut dyn Sink,
    ) -> (Sent, Result<(), Status>) {
        let mut answer = Answer { query: self, bounds, sink, batch: Batch::default(), sent: Sent::default() };
        let done = answer.run(snapshot);
        (answer.sent, done)
    }
}

/// An answer under way.
struct Answer<'a> {
    query: &'a Query,
    bounds: Bounds,
    sink: &'a mut dyn Sink,
    batch: Batch,
    sent: Sent,
}

impl Answer<'_> {
    fn run(&mut self, snapshot: &Snapshot) -> Result<(), Status> {
        let query = self.query;
        let Some(range) = query.range.filter(|_| query.conditions.possible) else { return Ok(()) };
        let selection = Selection::new(&query.conditions.matchers, range);
        let set = snapshot.select_chunks(&selection).map_err(|error| failure(&error))?;
        let (mut series, mut last, mut scratch) = (Series::default(), None, Vec::new());
        let mut done = Ok(());
        let mut visit = |at: usize, labels: Labels| {
            if query.shard.as_ref().is_some_and(|shard| !shard.has(&labels, &mut scratch)) {
                return true;
            }
            // Those that differ only in labels of replicas follow each other and are one.
            let is_another = last.as_ref() != Some(&labels);
            if is_another && query.limit.is_some_and(|limit| self.sent.series >= limit as u64) {
                return false;
            }
            if is_another || !query.skip_chunks {
                series.begin(&labels);
                done = self.one(&set, (at, is_another), range, &mut series);
            }
            last = Some(labels);
            done.is_ok()
        };
        if query.naming.is_identity() {
            for at in 0..set.len() {
                if !visit(at, set.labels(at)) {
                    break;
                }
            }
        } else {
            let labels = |at: usize| Some(query.naming.apply(set.labels(at)));
            visit_sorted(set.len(), &labels, &mut visit);
        }
        done?;
        self.flush()
    }

    /// Sends a series.
    fn one(
        &mut self,
        set: &ChunkSeriesSet<'_>,
        (at, is_another): (usize, bool),
        range: TimeRange,
        series: &mut Series,
    ) -> Result<(), Status> {
        if self.sink.is_gone() {
            return Err(Status::cancelled("the client has gone"));
        }
        if self.query.skip_chunks {
            self.sent.series += 1;
            self.check()?;
            return self.put(series);
        }
        let mut any = false;
        let mut done = Ok(());
        let mut take = |chunk: RawChunk<'_>| {
            if done.is_err() {
                return;
            }
            if series.is_full_for(chunk.bytes.len()) {
                done = self.put(series);
                series.go_on();
            }
            series.push(&chunk);
            if !std::mem::replace(&mut any, true) {
                self.sent.series += u64::from(is_another);
            }
            self.sent.chunks += 1;
            self.sent.samples += samples(&chunk);
            if done.is_ok() {
                done = self.check();
            }
        };
        let read = set.chunks(at, range, &mut take);
        done?;
        read.map_err(|error| failure(&error))?;
        if series.is_empty() { Ok(()) } else { self.put(series) }
    }

    fn check(&self) -> Result<(), Status> {
        let limits = [
            (self.sent.series, self.bounds.series_max, "series"),
            (self.sent.samples, self.bounds.samples_max, "samples"),
        ];
        for (sent, max, what) in limits {
            if max > 0 && sent > max {
                let what =
                    format!("more than {max} {what}, the most that --store.limits.request-{what} allows");
                return Err(Status::resource_exhausted(what));
            }
        }
        Ok(())
    }

    fn put(&mut self, series: &Series) -> Result<(), Status> {
        if self.query.batch <= 1 {
            return self.send(frame::one(series));
        }
        if self.batch.is_full_for(series) {
            self.flush()?;
        }
        self.batch.push(series);
        if self.batch.count() >= self.query.batch { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Status> {
        match self.batch.take() {
            Some(frame) => self.send(frame),
            None => Ok(()),
        }
    }

    fn send(&mut self, frame: Bytes) -> Result<(), Status> {
        self.sent.bytes += frame.len() as u64;
        self.sink.send(frame)
    }
}

/// The number of samples, which every encoding begins with.
fn samples(chunk: &RawChunk<'_>) -> u64 {
    chunk.bytes.first_chunk().map_or(0, |count| u64::from(u16::from_be_bytes(*count)))
}

/// What a client is told of a failure to read.
pub(crate) fn failure(error: &StorageError) -> Status {
    let code = match error {
        StorageError::Corrupt { .. } => Code::DataLoss,
        StorageError::Io { .. } => Code::Internal,
        StorageError::Unavailable(_) => Code::Unavailable,
        StorageError::Cancelled => Code::Cancelled,
    };
    Status::new(code, error.to_string())
}
