//! What Thanos gets: the StoreAPI on a listener of its own, and blocks in a bucket.

mod objstore;
mod shipping;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use model::Labels;
use scraper::Shutdown;
use thanos::ship::{BucketOptions, Shipper};
use thanos::{Limits, Store};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tsdb::Db;

use crate::cli::{Cli, Milliseconds, Mode, duration_ms};
use crate::config::Loaded;
use crate::roles::Role;
use crate::web;

/// Connections of Thanos Queriers; each keeps one.
const CONNECTIONS_MAX: usize = 512;
/// A silent connection is asked whether it is still there, and a request must have come, within this time.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const TLS_FLAGS: &str = "--grpc-server-tls-cert, --grpc-server-tls-key, --grpc-server-tls-client-ca";

/// What Thanos is served.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Thanos")]
#[group(id = "thanos")]
pub(crate) struct Flags {
    /// Address of Thanos' StoreAPI (gRPC), as 127.0.0.1:10901; none if absent. Series get the external labels of the
    /// configuration.
    #[arg(long = "grpc-address", value_name = "HOST:PORT")]
    grpc_address: Option<String>,

    /// Certificate chain (PEM) of the StoreAPI's listener; without one it speaks plain text. Read again when it changes.
    #[arg(long = "grpc-server-tls-cert", value_name = "FILE", requires = "grpc_key")]
    grpc_certificate: Option<PathBuf>,

    /// Key (PEM) of that certificate.
    #[arg(long = "grpc-server-tls-key", value_name = "FILE", requires = "grpc_certificate")]
    grpc_key: Option<PathBuf>,

    /// Certificate authority (PEM) that must have signed clients' certificates.
    #[arg(long = "grpc-server-tls-client-ca", value_name = "FILE", requires = "grpc_certificate")]
    grpc_client_ca: Option<PathBuf>,

    /// StoreAPI: most series of one request; 0 for no limit.
    #[arg(long = "store.limits.request-series", value_name = "N", default_value_t = 0)]
    store_series_max: u64,

    /// StoreAPI: most samples of one request; 0 for no limit.
    #[arg(long = "store.limits.request-samples", value_name = "N", default_value_t = 0)]
    store_samples_max: u64,

    /// StoreAPI: requests for series at once; more wait.
    #[arg(long = "store.grpc.series-max-concurrency", value_name = "N", default_value_t = 20)]
    store_concurrency: usize,

    /// StoreAPI: a client that reads nothing of an answer for so long is left.
    #[arg(long = "store.response-timeout", value_name = "DURATION", default_value = "2m", value_parser = duration_ms)]
    store_patience: Milliseconds,

    /// Bucket to which blocks are sent, in the format of Thanos' objstore.config (FILESYSTEM, S3). Blocks then stay as
    /// they are cut, for Thanos' Compactor, and are kept until they are in the bucket.
    #[arg(long = "objstore.config-file", value_name = "FILE", group = "objstore")]
    objstore_file: Option<PathBuf>,

    /// The same as text.
    #[arg(long = "objstore.config", value_name = "YAML", group = "objstore", hide_env_values = true)]
    objstore_text: Option<Redacted>,

    /// How often there is a look for blocks that the bucket does not have.
    #[arg(long = "shipper.interval", value_name = "DURATION", default_value = "30s", value_parser = duration_ms)]
    shipper_interval: Milliseconds,
}

/// What runs for Thanos.
pub(crate) struct Thanos {
    store: Option<Arc<Store>>,
    shipper: Option<Arc<Shipper>>,
    /// What shipped blocks are labelled with.
    labels: watch::Sender<Labels>,
}

impl Thanos {
    /// Starts what the flags ask for, and gives the listener's task.
    pub(crate) async fn start(
        cli: &Cli,
        loaded: &Loaded,
        db: &Arc<Db>,
        (state, stop): (&api::State, &Shutdown),
    ) -> anyhow::Result<(Arc<Self>, Vec<JoinHandle<()>>)> {
        let flags = &cli.thanos;
        let external = loaded.external_labels.clone();
        let mut tasks = Vec::new();
        let mut store = None;
        if let Some(address) = &flags.grpc_address {
            warn_without_labels(&external);
            let serving = Store::new(Arc::clone(db), external.clone(), flags.limits());
            tasks.push(listen(flags, address, &serving, stop).await?);
            store = Some(serving);
        }
        let labels = watch::Sender::new(external);
        let mut shipper = None;
        if let Some(options) = flags.bucket()? {
            let every = Duration::from_millis(flags.shipper_interval.0.max(1).unsigned_abs());
            let (ships, task) = shipping::start(&options, db, labels.subscribe(), (every, stop))?;
            tasks.push(task);
            shipper = Some(ships);
        }
        let this = Arc::new(Self { store, shipper, labels });
        let figures = Arc::clone(&this);
        state.show_also(move || figures.figures());
        Ok((this, tasks))
    }

    /// A new configuration is about to come into force.
    ///
    /// # Errors
    /// It cannot be.
    pub(crate) fn reload(&self, loaded: &Loaded) -> anyhow::Result<()> {
        let external = &loaded.external_labels;
        anyhow::ensure!(self.shipper.is_none() || !external.is_empty(), shipping::WITHOUT_LABELS);
        if let Some(store) = &self.store {
            warn_without_labels(external);
            store.set_external_labels(external.clone());
        }
        self.labels.send_replace(external.clone());
        Ok(())
    }

    fn figures(&self) -> Vec<api::Figure> {
        let counter = |(name, help, value)| api::Figure { name, kind: "counter", help, value: count(value) };
        let mut figures: Vec<api::Figure> =
            self.shipper.iter().flat_map(|shipper| shipping::figures(&shipper.stats())).collect();
        let Some(stats) = self.store.as_ref().map(|store| store.stats()) else { return figures };
        let counters = [
            ("pyrometer_store_requests_total", "Requests for series of Thanos' StoreAPI.", stats.requests),
            ("pyrometer_store_failures_total", "Those that ended with an error.", stats.failures),
            ("pyrometer_store_series_total", "Series sent by the StoreAPI.", stats.series),
            ("pyrometer_store_chunks_total", "Chunks sent by the StoreAPI.", stats.chunks),
            ("pyrometer_store_samples_total", "Samples in the chunks sent by the StoreAPI.", stats.samples),
            ("pyrometer_store_bytes_total", "Bytes of series sent by the StoreAPI.", stats.bytes),
        ];
        figures.extend(counters.into_iter().map(counter));
        figures
    }
}

/// A text with secrets.
#[derive(Clone)]
struct Redacted(String);

impl std::str::FromStr for Redacted {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Redacted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redacted")
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
fn count(value: u64) -> f64 {
    value as f64
}

impl Flags {
    /// Whether blocks are sent to a bucket.
    pub(crate) fn ships(&self) -> bool {
        self.objstore_file.is_some() || self.objstore_text.is_some()
    }

    /// What makes no sense together.
    pub(crate) fn check(&self, cli: &Cli, loaded: &Loaded) -> anyhow::Result<()> {
        if self.grpc_address.is_none() && !self.ships() {
            return Ok(());
        }
        let keeps = cli.cluster.has(Role::All) || cli.cluster.has(Role::Shard);
        anyhow::ensure!(
            keeps,
            "--grpc-address, --objstore.config: this role keeps no samples; give Thanos the shards'"
        );
        if self.ships() {
            self.bucket()?;
            anyhow::ensure!(!loaded.external_labels.is_empty(), shipping::WITHOUT_LABELS);
            let plain = loaded.storage.float_chunks == tsdb::FloatChunks::Xor && !cli.stores_start_times();
            anyhow::ensure!(
                plain,
                "--objstore.config: Thanos cannot read chunks with start times (XOR2, st-storage)"
            );
            let full = cli.mode == Mode::Full;
            anyhow::ensure!(
                full,
                "--objstore.config: with --mode=metrics-api-only there is nothing worth keeping"
            );
        }
        Ok(())
    }

    /// The bucket for blocks.
    fn bucket(&self) -> anyhow::Result<Option<BucketOptions>> {
        let environment = || std::env::vars().filter(|(name, _)| name.starts_with("AWS_")).collect();
        match (&self.objstore_file, &self.objstore_text) {
            (Some(path), _) => objstore::load(path, environment()).map(Some),
            (None, Some(Redacted(text))) => {
                objstore::parse(text, environment()).context("--objstore.config").map(Some)
            }
            (None, None) => Ok(None),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            series_max: self.store_series_max,
            samples_max: self.store_samples_max,
            concurrency: self.store_concurrency,
            patience: Duration::from_millis(self.store_patience.0.max(1).unsigned_abs()),
        }
    }
}

fn warn_without_labels(labels: &Labels) {
    if labels.is_empty() {
        tracing::warn!(
            "global.external_labels is empty: Thanos cannot tell this store from others, and takes equal series of two \
             of them for one; give each store labels of its own"
        );
    }
}

async fn listen(
    flags: &Flags,
    address: &str,
    store: &Arc<Store>,
    stop: &Shutdown,
) -> anyhow::Result<JoinHandle<()>> {
    let resolved = resolve(address)?;
    let guard = match (&flags.grpc_certificate, &flags.grpc_key) {
        (Some(cert), Some(key)) => {
            Some(Arc::new(web::Guard::tls(TLS_FLAGS, cert, key, flags.grpc_client_ca.as_deref())?))
        }
        _ => None,
    };
    let listener = TcpListener::bind(resolved).await;
    let listener = listener.with_context(|| format!("--grpc-address: cannot listen on {resolved}"))?;
    let secure = if guard.is_some() { ", with TLS" } else { "" };
    tracing::info!("Thanos' StoreAPI is served on {}{secure}", listener.local_addr()?);
    let limits = web::Limits::new(CONNECTIONS_MAX, READ_TIMEOUT);
    Ok(tokio::spawn(web::serve(listener, store.routes(), guard, limits, stop.clone())))
}

fn resolve(text: &str) -> anyhow::Result<SocketAddr> {
    use std::net::ToSocketAddrs as _;
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    let resolved = full.to_socket_addrs().with_context(|| format!("--grpc-address={text}"))?.next();
    resolved.with_context(|| format!("--grpc-address={text}: no address"))
}
