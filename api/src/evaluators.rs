//! The threads that evaluate queries: of those that wait, the one that has just been at work goes first.
//!
//! A runtime's pool for blocking work takes them in turn, and a result of 100 series with 11,000 points (17.6 MB) that is
//! made on one thread and dropped on another stays with the heap of the first until that thread allocates again. So
//! with four threads in turn such a query cost four times its result, and its peak was 75 MiB; with the same thread
//! again it is 28. Threads that have had nothing to do for a while end, and with them what their heaps keep.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// A thread that has waited so long ends.
const PATIENCE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// A pool of threads, as many as there are queries under way.
#[derive(Clone, Default)]
pub(crate) struct Evaluators {
    /// Where waiting threads listen, by name; the last one has been at work last.
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    threads: Vec<(u64, Sender<Job>)>,
}

impl Evaluators {
    /// Runs `work` on a thread that may block; what is awaited is its result, or nothing if it panicked or no thread
    /// could be started. The work is done even if nobody awaits it any longer. To be called on a runtime.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> {
        let (done, result) = oneshot::channel();
        // Shards are asked on the runtime.
        let runtime = Handle::current();
        let mut job: Job = Box::new(move || {
            let _entered = runtime.enter();
            // Whoever waited may have gone.
            let _ = done.send(work());
        });
        loop {
            let thread = self.lock().threads.pop();
            let Some((_, thread)) = thread else {
                self.start(job);
                break;
            };
            // One that has just given up waiting gives the job back.
            match thread.send(job) {
                Ok(()) => break,
                Err(refused) => job = refused.0,
            }
        }
        async move { result.await.ok() }
    }

    fn start(&self, first: Job) {
        let pool = self.clone();
        let thread = std::thread::Builder::new().name("query".to_owned());
        // Without a thread the job is dropped, and with it the sender of its result.
        let _ = thread.spawn(move || pool.work(first));
    }

    fn work(&self, first: Job) {
        let mut job = first;
        loop {
            // A panic has been reported where it happened; this thread goes on.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            let (sender, jobs) = mpsc::channel();
            let name = {
                let mut waiting = self.lock();
                waiting.next += 1;
                let name = waiting.next;
                waiting.threads.push((name, sender));
                name
            };
            job = match jobs.recv_timeout(PATIENCE) {
                Ok(next) => next,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    self.lock().threads.retain(|(other, _)| *other != name);
                    // One that was taken off the list in this moment has a job.
                    match jobs.try_recv() {
                        Ok(next) => next,
                        Err(_) => return,
                    }
                }
            };
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread::ThreadId;

    use super::*;

    fn id() -> ThreadId {
        std::thread::current().id()
    }

    /// Waits until so many threads wait.
    fn settle(pool: &Evaluators, count: usize) {
        while pool.lock().threads.len() != count {
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn the_thread_that_has_just_been_at_work_goes_first() {
        let pool = Evaluators::default();
        let first = pool.run(id).await.unwrap();
        settle(&pool, 1);
        for _ in 0..20 {
            assert_eq!(pool.run(id).await, Some(first));
            settle(&pool, 1);
        }
        // Two at once are two threads.
        let (release, held) = mpsc::channel::<()>();
        let blocked = pool.run(move || {
            let _ = held.recv();
            id()
        });
        let second = pool.run(id).await.unwrap();
        assert_ne!(first, second);
        // The second one waits before the first one does.
        settle(&pool, 1);
        release.send(()).unwrap();
        assert_eq!(blocked.await, Some(first));
        settle(&pool, 2);
        assert_eq!(pool.run(id).await, Some(first));
    }

    #[tokio::test]
    async fn a_panic_costs_its_query_only() {
        let pool = Evaluators::default();
        let failed = pool.run(|| -> u32 { panic!("on purpose") });
        assert_eq!(failed.await, None);
        assert_eq!(pool.run(|| 7).await, Some(7));
    }
}
