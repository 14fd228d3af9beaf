//! What metrics mean, told to receivers of 1.0 from time to time, in requests of their own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tsdb::Metadata;

use super::batch::{compressed, number_of};
use super::post::{Outcome, Shard};
use crate::wire::Writer;

/// What is said about the metrics of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyMetadata {
    /// Its name.
    pub family: String,
    /// What is said.
    pub metadata: Metadata,
}

/// Gives what all targets say, repetitions included. It may take its time.
pub type MetadataSource = Arc<dyn Fn() -> Vec<FamilyMetadata> + Send + Sync>;

/// `metadata_config`
#[derive(Clone)]
pub struct MetadataOptions {
    /// Where it comes from.
    pub source: MetadataSource,
    /// It is sent this often.
    pub every: Duration,
    /// Most families of a request.
    pub per_request: usize,
}

/// Sends until it is aborted.
pub(super) async fn run(shard: Shard, options: MetadataOptions) {
    loop {
        tokio::time::sleep(options.every).await;
        let source = Arc::clone(&options.source);
        let Ok(all) = tokio::task::spawn_blocking(move || distinct((source)())).await else { return };
        for part in all.chunks(options.per_request.max(1)) {
            let count = part.len() as u64;
            let body = Bytes::from(request(part));
            let counters = &shard.counters;
            match shard.deliver(body, (&counters.metadata_retried, count)).await {
                Outcome::Taken(_) => counters.metadata.fetch_add(count, Ordering::Relaxed),
                Outcome::Refused(why, _) => {
                    tracing::error!(
                        destination = %shard.destination.name,
                        "remote write: metadata of {count} families was refused: {why}"
                    );
                    counters.metadata_failed.fetch_add(count, Ordering::Relaxed)
                }
            };
        }
    }
}

/// The same, each once, by name.
fn distinct(mut all: Vec<FamilyMetadata>) -> Vec<FamilyMetadata> {
    fn key(one: &FamilyMetadata) -> (&str, u64, &str, &str) {
        (&one.family, number_of(one.metadata.kind), &one.metadata.help, &one.metadata.unit)
    }
    all.sort_by(|one, other| key(one).cmp(&key(other)));
    all.dedup();
    all
}

/// `WriteRequest.metadata` = 3: a `MetricMetadata{type = 1, metric_family_name = 2, help = 4, unit = 5}` each.
pub(super) fn request(all: &[FamilyMetadata]) -> Vec<u8> {
    let mut message = Writer::default();
    for FamilyMetadata { family, metadata } in all {
        message.message(3, |one| {
            one.uint64(1, number_of(metadata.kind));
            one.bytes(2, family.as_bytes());
            one.bytes(4, metadata.help.as_bytes());
            one.bytes(5, metadata.unit.as_bytes());
        });
    }
    compressed(&message.0)
}
