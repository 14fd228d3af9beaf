//! Flags of the server. Names, defaults and meanings are those of Prometheus' server where it has them.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use super::{Bytes, Milliseconds, bytes, duration_ms};

/// Where and how HTTP is served.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct Web {
    /// Address to listen on; may be given several times.
    #[arg(long = "web.listen-address", value_name = "HOST:PORT", default_value = "127.0.0.1:9090")]
    pub(crate) listen: Vec<String>,

    /// File with TLS, basic authentication and HTTP settings, in Prometheus' web configuration format.
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub(crate) web_config_file: Option<PathBuf>,

    /// A client must have sent its request within this time, and an idle connection is closed after it.
    #[arg(long = "web.read-timeout", value_name = "DURATION", default_value = "5m", value_parser = duration_ms)]
    pub(crate) read_timeout: Milliseconds,

    /// Connections at once; more wait to be accepted.
    #[arg(long = "web.max-connections", value_name = "N", default_value_t = 512)]
    pub(crate) connections_max: usize,

    /// Address under which users reach this server, for links in alerts; its path is where routes begin
    /// unless --web.route-prefix says otherwise.
    #[arg(long = "web.external-url", value_name = "URL", default_value = "")]
    pub(crate) external_url: String,

    /// Path below which all routes are.
    #[arg(long = "web.route-prefix", value_name = "PATH")]
    pub(crate) route_prefix: Option<String>,

    /// Regular expression for the origins of pages that may read the API; fully anchored.
    #[arg(long = "web.cors.origin", value_name = "REGEX", default_value = ".*")]
    pub(crate) cors_origin: String,

    /// Allow POST /-/reload and /-/quit.
    #[arg(long = "web.enable-lifecycle", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", action = ArgAction::Set)]
    pub(crate) enable_lifecycle: bool,

    /// Allow /api/v1/admin: deleting series, cleaning tombstones, snapshots.
    #[arg(long = "web.enable-admin-api", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", action = ArgAction::Set)]
    pub(crate) enable_admin_api: bool,

    /// Take remote-write requests on /api/v1/write.
    #[arg(long = "web.enable-remote-write-receiver", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    pub(crate) enable_remote_write_receiver: bool,

    /// Messages that the remote-write receiver takes: prometheus.WriteRequest, io.prometheus.write.v2.Request.
    #[arg(long = "web.remote-write-receiver.accepted-protobuf-messages", value_name = "NAME",
          default_values = ["prometheus.WriteRequest", "io.prometheus.write.v2.Request"],
          value_parser = ["prometheus.WriteRequest", "io.prometheus.write.v2.Request"])]
    pub(crate) accepted_messages: Vec<String>,

    /// Take OTLP metrics on /api/v1/otlp/v1/metrics.
    #[arg(long = "web.enable-otlp-receiver", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    pub(crate) enable_otlp_receiver: bool,

    /// Clients that may follow notifications at once.
    #[arg(long = "web.max-notifications-subscribers", value_name = "N", default_value_t = 16)]
    pub(crate) notification_subscribers_max: usize,

    /// Most results that a search may ask for.
    #[arg(long = "web.search.max-limit", value_name = "N", default_value_t = 10_000)]
    pub(crate) search_limit_max: usize,
}

/// How kubelets are trusted, in a cluster without a configuration file.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Kubelets")]
pub(crate) struct Kubelet {
    /// Certificate authority (PEM) that signs kubelets' certificates, if it is not the cluster's own.
    #[arg(long = "kubelet-certificate-authority", value_name = "FILE")]
    pub(crate) authority: Option<PathBuf>,

    /// Trust a kubelet's certificate that nobody has signed from its first use on, remember it in this file,
    /// and refuse another one.
    #[arg(long = "kubelet-pins", value_name = "FILE")]
    pub(crate) pins: Option<PathBuf>,

    /// Take any certificate from kubelets. The last resort: whoever stands in between can say anything.
    #[arg(long = "kubelet-insecure-tls", conflicts_with_all = ["authority", "pins"])]
    pub(crate) insecure: bool,
}

/// The Kubernetes metrics APIs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Kubernetes metrics APIs")]
pub(crate) struct KubernetesApi {
    /// Rules of custom and external metrics, in prometheus-adapter's format.
    #[arg(long = "kubernetes-api.adapter-rules", value_name = "FILE")]
    pub(crate) adapter_rules: Option<PathBuf>,

    /// Address of the secure listener, whose clients the cluster's API server vouches for; empty for none. In a
    /// cluster 0.0.0.0:8443 unless given; elsewhere none, and one that is given needs --kubernetes.
    #[arg(long = "kubernetes-api.listen-address", value_name = "ADDRESS")]
    pub(crate) secure_listen: Option<String>,

    /// Certificate chain (PEM) of the secure listener; one signed by itself is made if absent. Read again when it changes.
    #[arg(long = "kubernetes-api.tls-cert-file", value_name = "FILE")]
    pub(crate) tls_certificate: Option<PathBuf>,

    /// Key (PEM) of that certificate.
    #[arg(long = "kubernetes-api.tls-private-key-file", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
}

/// Where and how samples are kept.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Storage")]
pub(crate) struct Storage {
    /// Directory of the samples; a Prometheus data directory.
    #[arg(long = "storage.tsdb.path", value_name = "DIR", default_value = "data")]
    pub(crate) path: PathBuf,

    /// How long samples are kept: 15d, 4w, 1y. Without this and without a size: 15d.
    #[arg(long = "storage.tsdb.retention.time", value_name = "DURATION", value_parser = duration_ms)]
    pub(crate) retention_time: Option<Milliseconds>,

    /// How much may be kept on disk, log included: 512MB, 100GB. Powers of 1024.
    #[arg(long = "storage.tsdb.retention.size", value_name = "BYTES", value_parser = bytes)]
    pub(crate) retention_size: Option<Bytes>,

    /// Compress the write-ahead log.
    #[arg(long = "storage.tsdb.wal-compression", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value = "true", action = ArgAction::Set)]
    pub(crate) wal_compression: bool,

    /// How the write-ahead log is compressed. Prometheus reads zstd from 2.44 on.
    #[arg(
        long = "storage.tsdb.wal-compression-type",
        value_enum,
        value_name = "TYPE",
        default_value = "snappy"
    )]
    pub(crate) wal_compression_type: Compression,

    /// How often the write-ahead log is synced to the disk: what a power cut can cost at most.
    #[arg(long = "storage.wal-sync-interval", value_name = "DURATION", default_value = "1s", value_parser = duration_ms)]
    pub(crate) wal_sync_interval: Milliseconds,

    /// Most series in memory; beyond it new ones are refused and known ones go on. No limit if absent.
    #[arg(long = "storage.head-series-max", value_name = "N")]
    pub(crate) series_max: Option<u64>,

    /// Remote read: most samples of one answer; 0 for no limit.
    #[arg(long = "storage.remote.read-sample-limit", value_name = "N", default_value_t = 50_000_000)]
    pub(crate) read_samples_max: u64,

    /// Remote read: requests at once; 0 for no limit.
    #[arg(long = "storage.remote.read-concurrent-limit", value_name = "N", default_value_t = 10)]
    pub(crate) read_concurrency: usize,

    /// Remote read: most bytes of one frame of a streamed answer.
    #[arg(long = "storage.remote.read-max-bytes-in-frame", value_name = "BYTES", default_value_t = 1 << 20)]
    pub(crate) read_frame_bytes_max: usize,

    /// How long remote write may take to send what is left when stopping.
    #[arg(long = "storage.remote.flush-deadline", value_name = "DURATION", default_value = "1m", value_parser = duration_ms)]
    pub(crate) flush_deadline: Milliseconds,
}

/// How an agent keeps what it sends on.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Storage of an agent")]
pub(crate) struct AgentStorage {
    /// Directory of the log; that of an agent of Prometheus.
    #[arg(long = "storage.agent.path", value_name = "DIR", default_value = "data-agent")]
    pub(crate) agent_path: PathBuf,

    /// Compress the log.
    #[arg(long = "storage.agent.wal-compression", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value = "true", action = ArgAction::Set)]
    pub(crate) agent_wal_compression: bool,

    /// How the log is compressed.
    #[arg(
        long = "storage.agent.wal-compression-type",
        value_enum,
        value_name = "TYPE",
        default_value = "snappy"
    )]
    pub(crate) agent_wal_compression_type: Compression,

    /// A segment of the log is ended at the latest after this time; then, all that is older and sent goes.
    #[arg(long = "storage.agent.wal-truncate-frequency", value_name = "DURATION", default_value = "2h", value_parser = duration_ms)]
    pub(crate) truncate_every: Milliseconds,

    /// Samples stay in the log at least this long.
    #[arg(long = "storage.agent.retention.min-time", value_name = "DURATION", default_value = "5m", value_parser = duration_ms)]
    pub(crate) min_time: Milliseconds,

    /// Samples go after this time, also if they were not sent.
    #[arg(long = "storage.agent.retention.max-time", value_name = "DURATION", default_value = "4h", value_parser = duration_ms)]
    pub(crate) max_time: Milliseconds,
}

/// How the write-ahead log is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// Cheap, and readable by every Prometheus since 2.11.
    Snappy,
    /// About half of snappy's bytes for a little more CPU.
    Zstd,
}

/// Rules and alerts.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Rules and alerts")]
pub(crate) struct Rules {
    /// After an outage longer than this, pending alerts begin anew.
    #[arg(long = "rules.alert.for-outage-tolerance", value_name = "DURATION", default_value = "1h", value_parser = duration_ms)]
    pub(crate) outage_tolerance: Milliseconds,

    /// Only alerts that wait at least this long are restored, and none of them fires sooner after a restart.
    #[arg(long = "rules.alert.for-grace-period", value_name = "DURATION", default_value = "10m", value_parser = duration_ms)]
    pub(crate) grace_period: Milliseconds,

    /// A firing alert is sent again after this time.
    #[arg(long = "rules.alert.resend-delay", value_name = "DURATION", default_value = "1m", value_parser = duration_ms)]
    pub(crate) resend_delay: Milliseconds,

    /// Rules of all groups that may be evaluated at once beside the groups' own order, with
    /// --enable-feature=concurrent-rule-eval.
    #[arg(long = "rules.max-concurrent-evals", value_name = "N", default_value_t = 4)]
    pub(crate) concurrent_evals: usize,

    /// Alerts that may wait for an Alertmanager; the oldest are dropped.
    #[arg(long = "alertmanager.notification-queue-capacity", value_name = "N", default_value_t = 10_000)]
    pub(crate) queue_capacity: usize,

    /// Most alerts of one request to an Alertmanager.
    #[arg(long = "alertmanager.notification-batch-size", value_name = "N", default_value_t = 256)]
    pub(crate) batch_size: usize,

    /// Send what waits for Alertmanagers before stopping.
    #[arg(long = "alertmanager.drain-notification-queue-on-shutdown", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value = "true", action = ArgAction::Set)]
    pub(crate) drain_on_shutdown: bool,
}

/// Limits of queries.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Queries")]
pub(crate) struct Query {
    /// How far back a query looks for the newest sample of a series.
    #[arg(long = "query.lookback-delta", value_name = "DURATION", default_value = "5m", value_parser = duration_ms)]
    pub(crate) lookback: Milliseconds,

    /// How long a query may take.
    #[arg(long = "query.timeout", value_name = "DURATION", default_value = "2m", value_parser = duration_ms)]
    pub(crate) timeout: Milliseconds,

    /// How many queries may run at once; more wait.
    #[arg(long = "query.max-concurrency", value_name = "N", default_value_t = 20)]
    pub(crate) concurrency: usize,

    /// How many samples one query may hold.
    #[arg(long = "query.max-samples", value_name = "N", default_value_t = 50_000_000)]
    pub(crate) samples_max: u64,

    /// How much memory one query may hold.
    #[arg(long = "query.max-bytes", value_name = "BYTES", default_value = "1GB", value_parser = bytes)]
    pub(crate) bytes_max: Bytes,

    /// How much memory all queries together may hold.
    #[arg(long = "query.max-total-bytes", value_name = "BYTES", default_value = "2GB", value_parser = bytes)]
    pub(crate) bytes_total_max: Bytes,
}
