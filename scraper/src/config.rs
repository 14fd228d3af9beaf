//! What to scrape and how, as plain validated data. Whoever reads configuration files builds this.

use std::path::PathBuf;
use std::sync::Arc;

use model::{Labels, Timestamp};

pub use crate::discovery::{
    Attach, ConsulDiscovery, Discovery, DnsDiscovery, DnsRecord, FileDiscovery, HttpDiscovery,
    KubernetesDiscovery, KubernetesRole, KubernetesSelector,
};
use crate::exposition::Format;
pub use crate::http::Pins;
use crate::relabel::Rule;
pub use crate::resolution::schema_of_growth;
use crate::sink::Sink;

/// Where timestamps come from: milliseconds since the epoch, now. Durations are measured on the
/// runtime's monotonic clock instead.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Everything the scraper needs to know. Global defaults are already resolved into each job.
#[derive(Clone)]
pub struct Config {
    /// The jobs, names unique.
    pub jobs: Vec<ScrapeJob>,
    /// Spreads several scrapers over the interval; each scrapes a target at its own moment.
    pub seed: Seed,
    /// Where timestamps come from.
    pub clock: Clock,
    /// Sent with each scrape.
    pub user_agent: String,
    /// A target's first scrape lies within this time after it is known, hash-spread; the second is on its
    /// schedule. 0 waits for the schedule at once.
    pub first_scrape_within_ms: i64,
    /// CA certificates in PEM form for targets whose [`TlsOptions::ca`] is not set.
    pub system_roots_pem: Vec<u8>,
    /// Certificates of kubelets that no authority vouches for, if they are to be trusted from their first
    /// use on.
    pub kubelet_pins: Option<Arc<Pins>>,
    /// Whether type, help and unit are stored with each new series. What holds at the start counts.
    pub stores_metadata: bool,
    /// Whether the time from which on a counter counts is stored with its samples, instead of as a series
    /// `_created`. The store keeps it only if its chunks can.
    pub stores_start_times: bool,
    /// What takes the samples instead of the database. What holds at the start counts.
    pub sink: Option<Arc<dyn Sink>>,
}

impl Config {
    /// A configuration without jobs.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            jobs: Vec::new(),
            seed: Seed::default(),
            clock,
            user_agent: concat!("Pyrometer/", env!("CARGO_PKG_VERSION")).to_owned(),
            first_scrape_within_ms: 1_000,
            system_roots_pem: Vec::new(),
            kubelet_pins: None,
            stores_metadata: false,
            stores_start_times: false,
            sink: None,
        }
    }

    /// Checks what the types do not say: unique job names, positive intervals, `timeout <= interval`.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut names = std::collections::HashSet::new();
        for job in &self.jobs {
            if job.name.is_empty() {
                return Err(ConfigError::EmptyJobName);
            }
            if !names.insert(job.name.as_str()) {
                return Err(ConfigError::DuplicateJob(job.name.clone()));
            }
            if job.interval_ms <= 0 || job.timeout_ms <= 0 || job.timeout_ms > job.interval_ms {
                return Err(ConfigError::Interval {
                    job: job.name.clone(),
                    interval_ms: job.interval_ms,
                    timeout_ms: job.timeout_ms,
                });
            }
            if job.formats.is_empty() {
                return Err(ConfigError::NoFormat(job.name.clone()));
            }
        }
        Ok(())
    }
}

/// A configuration that cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A job without a name.
    #[error("job_name is empty")]
    EmptyJobName,
    /// Two jobs of one name.
    #[error("found multiple scrape configs with job name {0:?}")]
    DuplicateJob(String),
    /// `0 < timeout <= interval` does not hold.
    #[error("job {job:?}: scrape timeout {timeout_ms} ms does not fit the interval {interval_ms} ms")]
    Interval {
        /// The job's name.
        job: String,
        /// Its interval.
        interval_ms: i64,
        /// Its timeout.
        timeout_ms: i64,
    },
    /// No format is offered.
    #[error("job {0:?}: scrape_protocols is empty")]
    NoFormat(String),
    /// A certificate, key or address that cannot be used.
    #[error("job {job:?}: {what}")]
    Http {
        /// The job's name.
        job: String,
        /// What is wrong.
        what: String,
    },
}

/// What makes this scraper's moments differ from those of its twins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seed {
    /// The host's name.
    pub host_name: String,
    /// The configured external labels.
    pub external_labels: Labels,
}

/// One entry of `scrape_configs`.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrapeJob {
    /// `job_name`
    pub name: String,
    /// `scrape_interval`
    pub interval_ms: i64,
    /// `scrape_timeout`
    pub timeout_ms: i64,
    /// `scheme`
    pub scheme: Scheme,
    /// `metrics_path`
    pub metrics_path: String,
    /// `params`: URL parameters in order.
    pub params: Vec<(String, Vec<String>)>,
    /// `honor_labels`
    pub honor_labels: bool,
    /// `honor_timestamps`
    pub honor_timestamps: bool,
    /// `track_timestamps_staleness`
    pub track_timestamps_staleness: bool,
    /// `scrape_protocols`, the best first.
    pub formats: Vec<Format>,
    /// `fallback_scrape_protocol`
    pub fallback_format: Option<Format>,
    /// `enable_compression`
    pub compression: bool,
    /// `extra_scrape_metrics`: whether the `scrape_*` series that are off by default are written.
    pub extra_metrics: bool,
    /// How native and classic histograms are taken.
    pub histograms: HistogramOptions,
    /// `metric_name_validation_scheme`
    pub names: NameScheme,
    /// `metric_name_escaping_scheme`
    pub escaping: Escaping,
    /// The job's limits.
    pub limits: Limits,
    /// `relabel_configs`
    pub relabel: Vec<Rule>,
    /// `metric_relabel_configs`
    pub metric_relabel: Vec<Rule>,
    /// `static_configs`
    pub targets: Vec<TargetGroup>,
    /// `*_sd_configs`
    pub discoveries: Vec<Discovery>,
    /// How targets are reached.
    pub http: HttpOptions,
    /// `scrape_failure_log_file`: where each failed scrape is noted.
    pub failure_log: Option<PathBuf>,
}

impl ScrapeJob {
    /// A job with the defaults of the Prometheus configuration file: every minute, 10 s, `/metrics`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            interval_ms: 60_000,
            timeout_ms: 10_000,
            scheme: Scheme::Http,
            metrics_path: "/metrics".to_owned(),
            params: Vec::new(),
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            formats: Format::DEFAULT_ORDER.to_vec(),
            fallback_format: None,
            compression: true,
            extra_metrics: false,
            histograms: HistogramOptions::default(),
            names: NameScheme::Utf8,
            escaping: Escaping::AllowUtf8,
            limits: Limits::default(),
            relabel: Vec::new(),
            metric_relabel: Vec::new(),
            targets: Vec::new(),
            discoveries: Vec::new(),
            http: HttpOptions::default(),
            failure_log: None,
        }
    }
}

/// `http` or `https`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain TCP.
    #[default]
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// The scheme as it stands in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Which metric and label names a scraped page may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NameScheme {
    /// Any UTF-8.
    #[default]
    Utf8,
    /// `[a-zA-Z_:][a-zA-Z0-9_:]*`; a page with any other name fails.
    Legacy,
}

/// How targets are asked to write names that are not of the legacy form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Escaping {
    /// As they are.
    #[default]
    AllowUtf8,
    /// With underscores in place of what is not allowed.
    Underscores,
    /// With dots told apart from underscores.
    Dots,
    /// With the code points of what is not allowed.
    Values,
}

impl Escaping {
    /// Its word in the configuration file and in the `Accept` header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }
}

/// How histograms are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HistogramOptions {
    /// `scrape_native_histograms`: off, native histograms are read as their classic buckets.
    pub native: bool,
    /// `always_scrape_classic_histograms`: classic buckets are kept beside native ones.
    pub always_classic: bool,
    /// `convert_classic_histograms_to_nhcb`: classic histograms become native ones with custom buckets.
    pub convert_classic: bool,
    /// `native_histogram_bucket_limit`; 0 is none.
    pub native_buckets_max: u64,
    /// The finest schema that is taken; finer ones are made coarser. See [`schema_of_growth`].
    pub schema_max: i32,
}

impl Default for HistogramOptions {
    fn default() -> Self {
        let schema_max = schema_of_growth(0.0);
        Self {
            native: false,
            always_classic: false,
            convert_classic: false,
            native_buckets_max: 0,
            schema_max,
        }
    }
}

/// The job's limits; 0 is no limit. A page beyond one of them fails as a whole, if nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `body_size_limit`: bytes of the uncompressed page.
    pub body_bytes_max: u64,
    /// `sample_limit`: samples left after metric relabelling.
    pub samples_max: u64,
    /// `sample_limit_keeps_known`: beyond the limit only new series are refused, and the page is taken.
    pub keeps_known: bool,
    /// `label_limit`: labels of one series.
    pub labels_max: u64,
    /// `label_name_length_limit`
    pub label_name_bytes_max: u64,
    /// `label_value_length_limit`
    pub label_value_bytes_max: u64,
    /// `target_limit`: targets of the job after relabelling; with more of them all of them fail.
    pub targets_max: u64,
    /// `keep_dropped_targets`: how many targets dropped by relabelling are remembered for display.
    pub dropped_targets_kept_max: u64,
}

/// Targets that are found together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetGroup {
    /// What they were found in; another group from there replaces this one.
    pub source: String,
    /// Labels of each; `__address__` is where it is.
    pub targets: Vec<Labels>,
    /// Labels of all of them, hidden by a target's own.
    pub labels: Labels,
}

impl TargetGroup {
    /// Targets at these addresses (`host:port`), as in `static_configs`.
    pub fn of_addresses<A: AsRef<str>>(addresses: impl IntoIterator<Item = A>, labels: Labels) -> Self {
        let target = |address: A| Labels::from_pairs([("__address__", address.as_ref())]);
        Self { source: String::new(), targets: addresses.into_iter().map(target).collect(), labels }
    }
}

/// How servers are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// `basic_auth`, `authorization`, `oauth2`
    pub auth: Auth,
    /// `http_headers`, sent with each request.
    pub headers: Vec<(String, Secret)>,
    /// `tls_config`
    pub tls: TlsOptions,
    /// `follow_redirects`
    pub follow_redirects: bool,
    /// `enable_http2`: HTTP/2 is offered where TLS can negotiate it.
    pub http2: bool,
    /// `proxy_url` and the like.
    pub proxy: Proxy,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            auth: Auth::None,
            headers: Vec::new(),
            tls: TlsOptions::default(),
            follow_redirects: true,
            http2: true,
            proxy: Proxy::default(),
        }
    }
}

/// Which proxies stand before which servers. Proxies are reached by `http`, `https` or `socks5`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxy {
    /// The proxy before `http` URLs.
    pub http: Option<String>,
    /// The proxy before `https` URLs.
    pub https: Option<String>,
    /// Servers that are reached directly, separated by commas.
    pub no_proxy: String,
    /// `proxy_connect_header`
    pub connect_headers: Vec<(String, Secret)>,
    /// Whether this comes from the environment, which never speaks of this machine itself.
    pub is_from_environment: bool,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("no_proxy", &self.no_proxy).finish_non_exhaustive()
    }
}

/// `oauth2`: how a token is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuth2 {
    /// `client_id`
    pub client_id: String,
    /// `grant_type`
    pub grant: Grant,
    /// `token_url`
    pub token_url: String,
    /// `scopes`
    pub scopes: Vec<String>,
    /// `endpoint_params`
    pub endpoint_params: Vec<(String, String)>,
    /// How the token server is reached.
    pub http: HttpOptions,
}

/// What a token server is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// `client_credentials`: the client's secret (RFC 6749 4.4). Without one the file is read, but nothing is asked.
    Credentials(Option<Secret>),
    /// `urn:ietf:params:oauth:grant-type:jwt-bearer`: a statement that the client signs (RFC 7523).
    Assertion(Box<Assertion>),
}

/// A statement about the client, made and signed anew for each token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// `client_certificate_key`: PEM of an RSA key.
    pub key: Option<Secret>,
    /// `client_certificate_key_id`; empty if the server needs no hint.
    pub key_id: String,
    /// `signature_algorithm`
    pub algorithm: SignatureAlgorithm,
    /// `iss`; empty for the client's id.
    pub issuer: String,
    /// `audience`; empty for the token server's URL.
    pub audience: String,
    /// `claims`: added to the others, and put in their place.
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// When it is made.
    pub clock: WallClock,
}

/// How an assertion is signed: PKCS #1 v1.5 with a hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// SHA-256
    #[default]
    Rs256,
    /// SHA-384
    Rs384,
    /// SHA-512
    Rs512,
}

/// A [`Clock`] as a part of options, which are the same with any clock.
#[derive(Clone)]
pub struct WallClock(pub Clock);

impl PartialEq for WallClock {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for WallClock {}

impl std::fmt::Debug for WallClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WallClock")
    }
}

/// The `Authorization` header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// None is sent.
    #[default]
    None,
    /// `basic_auth`
    Basic {
        /// The user's name.
        username: Secret,
        /// The password.
        password: Secret,
    },
    /// `authorization`; the type is `Bearer` by default.
    Authorization {
        /// The first word of the header.
        kind: String,
        /// The rest of it.
        credentials: Secret,
    },
    /// `oauth2`
    OAuth2(Box<OAuth2>),
}

/// A text that is not for display, given or to be read from a file at each use.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The text itself.
    Inline(String),
    /// A file that holds it; white space around it does not count. It is read again at each scrape.
    File(PathBuf),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("<secret>"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// `tls_config`. Files are read when a connection is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// PEM of the authorities to trust; [`Config::system_roots_pem`] if not set.
    pub ca: Option<Secret>,
    /// PEM of the client certificate, leaf first.
    pub cert: Option<Secret>,
    /// PEM of the client certificate's key.
    pub key: Option<Secret>,
    /// The name to verify instead of the address's host.
    pub server_name: Option<String>,
    /// Takes any certificate.
    pub insecure_skip_verify: bool,
    /// Whose certificate is expected.
    pub identity: Identity,
    /// Whether TLS 1.3 alone is spoken, and whether TLS 1.2 alone.
    pub versions: (bool, bool),
}

/// Whose certificate a server must show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// That of the host in its address.
    #[default]
    Server,
    /// That of the node whose kubelet it is, as its `__meta_kubernetes_node_name` says: kubelets are dialled by address,
    /// and their certificates name the node.
    Node,
}
