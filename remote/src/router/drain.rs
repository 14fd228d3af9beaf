//! The task that gives a shard what waited for it, the oldest first, beside what comes fresh.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::spool::{Record, SpoolError};
use super::target::{Batch, Sent, Target};
use super::{Inner, PAUSE_MAX, PAUSE_MIN, SYNC_EVERY};

/// How one turn ended.
enum Turn {
    /// Something was taken; there may be more.
    Taken,
    /// Nothing waits.
    Empty,
    /// The shard, or the disk, is to be left alone for a while.
    Failed,
}

/// Runs until the router is gone.
pub(super) async fn run(router: Weak<Inner>, target: Arc<Target>) {
    let mut pause = PAUSE_MIN;
    let mut unsynced = tokio::time::Instant::now();
    loop {
        let Some(inner) = router.upgrade() else { return };
        let turn = turn(&inner, &target).await;
        if unsynced.elapsed() >= SYNC_EVERY {
            unsynced = tokio::time::Instant::now();
            let spool = Arc::clone(&target.spool);
            if let Ok(Err(error)) = tokio::task::spawn_blocking(move || spool.sync()).await {
                tracing::error!(shard = target.name, "the spool is not durable: {error}");
            }
        }
        // While this sleeps, nothing holds the router.
        drop(inner);
        match turn {
            Turn::Taken => pause = PAUSE_MIN,
            Turn::Empty => {
                pause = PAUSE_MIN;
                let _ = tokio::time::timeout(SYNC_EVERY, target.wake.notified()).await;
            }
            Turn::Failed => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

async fn turn(inner: &Arc<Inner>, target: &Arc<Target>) -> Turn {
    let spool = Arc::clone(&target.spool);
    let front = match tokio::task::spawn_blocking(move || spool.front()).await {
        Ok(front) => front,
        Err(_) => return Turn::Failed,
    };
    let record = match front {
        Ok(Some(record)) => record,
        Ok(None) => {
            // Nothing tells whether the shard is back but the next request.
            target.set_away(false, "");
            return Turn::Empty;
        }
        Err(SpoolError::Io { path, source }) if source.kind() == std::io::ErrorKind::InvalidData => {
            let lost = target.spool.abandon_front().map_or(0, |(_, samples)| samples);
            target.counters.lost.fetch_add(lost, Ordering::Relaxed);
            tracing::error!(shard = target.name, "{}: {source}: {lost} samples are lost", path.display());
            return Turn::Taken;
        }
        Err(error) => {
            tracing::error!(shard = target.name, "the spool cannot be read: {error}");
            return Turn::Failed;
        }
    };
    deliver(inner, target, record).await
}

async fn deliver(inner: &Arc<Inner>, target: &Arc<Target>, record: Record) -> Turn {
    let routing = Arc::clone(&inner.routing.read());
    if routing.targets.is_empty() {
        return Turn::Failed; // the router is just being built
    }
    let epoch = routing.map.epoch();
    drop(routing);
    if record.epoch != epoch && !inner.reroute(target, &record).await {
        return Turn::Failed;
    }
    if target.url.read().is_some() {
        // The shard owned these samples when they came, so it may have them, whatever the map says now.
        let batch = Batch { epoch, ..Batch::from(&record) };
        // A backlog is no reason to hurry, and large records take their time.
        let timeout = inner.options.timeout.max(Duration::from_secs(1)) * 4;
        match target.post(&batch, &inner.options.name, (&inner.options.client, timeout)).await {
            Sent::Taken(_) => target.set_away(false, ""),
            Sent::Partial(_, why) => {
                tracing::warn!(shard = target.name, "samples that waited are refused: {why}");
                target.set_away(false, "");
            }
            Sent::Stale => {
                let inner = Arc::clone(inner);
                let _ = tokio::task::spawn_blocking(move || inner.reload()).await;
                return Turn::Failed;
            }
            Sent::Failed(why) => {
                target.set_away(true, &why);
                return Turn::Failed;
            }
        }
    }
    target.counters.drained.fetch_add(record.samples, Ordering::Relaxed);
    let spool = Arc::clone(&target.spool);
    match tokio::task::spawn_blocking(move || spool.pop(&record)).await {
        Ok(Ok(())) => Turn::Taken,
        Ok(Err(error)) => {
            tracing::error!(shard = target.name, "a segment of the spool stays behind: {error}");
            Turn::Taken
        }
        Err(_) => Turn::Failed,
    }
}
