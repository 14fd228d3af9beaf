//! The task that sends blocks to a bucket.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use model::{Labels, Timestamp};
use scraper::Shutdown;
use thanos::ship::{Bucket, BucketOptions, Place, ShipStats, Shipped, Shipper};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tsdb::Db;

use crate::wire::now;

/// Why blocks without labels are not sent.
pub(super) const WITHOUT_LABELS: &str = "--objstore.config needs global.external_labels, which no other writer to the \
    bucket has: by them Thanos knows whose blocks belong together";

/// Begins to send the blocks of `db`.
pub(super) fn start(
    options: &BucketOptions,
    db: &Arc<Db>,
    labels: watch::Receiver<Labels>,
    (every, stop): (Duration, &Shutdown),
) -> anyhow::Result<(Arc<Shipper>, JoinHandle<()>)> {
    // Only the first time; the others find it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bucket = Bucket::open(options).context("--objstore.config")?;
    let place = match &options.place {
        Place::Directory(path) => path.display().to_string(),
        Place::S3(s3) => format!("bucket {} at {}", s3.bucket, s3.endpoint),
    };
    tracing::info!(
        "blocks are sent to {place}; they stay as they are cut: whoever reads the bucket compacts them there"
    );
    // Until it is known what is in the bucket.
    db.keep_from(Timestamp::MIN);
    let shipper = Arc::new(Shipper::new(db.dir(), bucket));
    let task = tokio::spawn(run(Arc::clone(&shipper), Arc::clone(db), labels, every, stop.clone()));
    Ok((shipper, task))
}

async fn run(
    shipper: Arc<Shipper>,
    db: Arc<Db>,
    labels: watch::Receiver<Labels>,
    every: Duration,
    stop: Shutdown,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut compacted_told = 0;
    loop {
        let round = async {
            ticks.tick().await;
            let (blocks, external) = (db.blocks(), labels.borrow().clone());
            shipper.sync(&blocks, &external, now()).await
        };
        // What is half-done is no block yet, and is done again after the next start.
        let (outcome, kept_from) = tokio::select! {
            done = round => done,
            () = stop.cancelled() => return,
        };
        db.keep_from(kept_from);
        match outcome {
            Ok(Shipped { blocks, compacted }) => {
                if !blocks.is_empty() {
                    tracing::info!("sent to the bucket: {}", blocks.join(", "));
                }
                if compacted > compacted_told {
                    tracing::warn!("{compacted} blocks were compacted here and are not sent to the bucket");
                }
                compacted_told = compacted;
            }
            Err(error) => {
                let error = crate::describe(&error.into());
                tracing::error!("blocks wait to be sent to the bucket: {error}");
            }
        }
    }
}

/// Figures under the names of Thanos' shipper.
pub(super) fn figures(stats: &ShipStats) -> Vec<api::Figure> {
    let counters = [
        ("thanos_shipper_dir_syncs_total", "Total number of dir syncs.", stats.syncs),
        ("thanos_shipper_dir_sync_failures_total", "Total number of failed dir syncs.", stats.sync_failures),
        ("thanos_shipper_uploads_total", "Total number of uploaded blocks.", stats.uploads),
        (
            "thanos_shipper_upload_failures_total",
            "Total number of block upload failures.",
            stats.upload_failures,
        ),
    ];
    let counter =
        |(name, help, value)| api::Figure { name, kind: "counter", help, value: super::count(value) };
    counters.into_iter().map(counter).collect()
}
