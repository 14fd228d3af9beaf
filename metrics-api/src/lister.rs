//! The thread that reads for lists of all pods, one list after the other.
//!
//! An allocator keeps what a thread has freed for that thread. A list of 7,000 pods takes 2 MB for 5 ms, and the threads of
//! a runtime take turns: after a while each would hold that much, for nothing (measured: 30 MB after 80 lists).

use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::Unavailable;
use crate::errors::ApiError;

type Job = Box<dyn FnOnce() + Send>;

/// The thread, which begins with the first list and ends with this.
#[derive(Default)]
pub(crate) struct Lister(OnceLock<Sender<Job>>);

impl Lister {
    /// Has the thread read. What nobody waits for any more when its turn comes is not read.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (answer, answered) = oneshot::channel();
        let runtime = Handle::current();
        let job = Box::new(move || {
            if !answer.is_closed() {
                // A querier of several shards asks them on the runtime.
                let _entered = runtime.enter();
                let _ = answer.send(read());
            }
        });
        // If there is no thread, the job is gone, and the answer with it.
        let _ = self.0.get_or_init(start).send(job);
        answered.await.unwrap_or_else(|_| Err(Unavailable("reading the store failed".to_owned()).into()))
    }
}

fn start() -> Sender<Job> {
    let (sender, jobs) = channel::<Job>();
    let work = move || {
        for job in jobs {
            // It has told of itself; whoever waits finds the answer gone.
            let _ = std::panic::catch_unwind(AssertUnwindSafe(job));
        }
    };
    if let Err(error) = std::thread::Builder::new().name("list-pods".to_owned()).spawn(work) {
        tracing::error!("no thread for lists of pods: {error}");
    }
    sender
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_reads_on_one_thread_and_outlives_a_broken_read() {
        let lister = Lister::default();
        let thread = || Ok(std::thread::current().id());
        let first = lister.run(thread).await.ok().unwrap();
        let broken: Result<(), ApiError> = lister.run(|| std::panic::resume_unwind(Box::new("broken"))).await;
        assert!(broken.is_err());
        assert_eq!(lister.run(thread).await.ok(), Some(first));
        assert_ne!(first, std::thread::current().id());
        let on_runtime = lister.run(|| Ok(Handle::current().block_on(async { 7 }))).await;
        assert_eq!(on_runtime.ok(), Some(7));
    }
}
