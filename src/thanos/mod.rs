//! What Thanos is served: the StoreAPI on a listener of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use model::Labels;
use scraper::Shutdown;
use thanos::{Limits, Store};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tsdb::Db;

use crate::cli::{Cli, Milliseconds, duration_ms};
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
}

/// What runs for Thanos.
pub(crate) struct Thanos {
    store: Option<Arc<Store>>,
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
        let mut servers = Vec::new();
        let mut store = None;
        if let Some(address) = &flags.grpc_address {
            let keeps = cli.cluster.has(Role::All) || cli.cluster.has(Role::Shard);
            anyhow::ensure!(keeps, "--grpc-address: this role keeps no samples; point Thanos at the shards");
            warn_without_labels(&loaded.external_labels);
            let serving = Store::new(Arc::clone(db), loaded.external_labels.clone(), flags.limits());
            servers.push(listen(flags, address, &serving, stop).await?);
            store = Some(serving);
        }
        let this = Arc::new(Self { store });
        let figures = Arc::clone(&this);
        state.show_also(move || figures.figures());
        Ok((this, servers))
    }

    /// A new configuration has come into force.
    pub(crate) fn reload(&self, loaded: &Loaded) {
        if let Some(store) = &self.store {
            warn_without_labels(&loaded.external_labels);
            store.set_external_labels(loaded.external_labels.clone());
        }
    }

    fn figures(&self) -> Vec<api::Figure> {
        let Some(stats) = self.store.as_ref().map(|store| store.stats()) else { return Vec::new() };
        let counters = [
            ("pyrometer_store_requests_total", "Requests for series of Thanos' StoreAPI.", stats.requests),
            ("pyrometer_store_failures_total", "Those that ended with an error.", stats.failures),
            ("pyrometer_store_series_total", "Series sent by the StoreAPI.", stats.series),
            ("pyrometer_store_chunks_total", "Chunks sent by the StoreAPI.", stats.chunks),
            ("pyrometer_store_samples_total", "Samples in the chunks sent by the StoreAPI.", stats.samples),
            ("pyrometer_store_bytes_total", "Bytes of series sent by the StoreAPI.", stats.bytes),
        ];
        let figure = |(name, help, value)| api::Figure { name, kind: "counter", help, value: count(value) };
        counters.into_iter().map(figure).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
fn count(value: u64) -> f64 {
    value as f64
}

impl Flags {
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
