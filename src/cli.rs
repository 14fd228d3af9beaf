//! Command-line flags. Names and meanings are those of Prometheus' server where it has them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};

/// Scrapes, stores, answers PromQL and serves the Kubernetes metrics APIs.
///
/// Without flags: scrapes this machine (and the cluster it can reach), keeps the samples in ./data and
/// answers on http://127.0.0.1:9090/.
#[derive(Clone, Debug, Parser)]
#[command(name = "pyrometer", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Configuration file in Prometheus' format.
    #[arg(long = "config.file", value_name = "FILE")]
    pub(crate) config_file: Option<PathBuf>,

    /// Address to listen on; may be given several times.
    #[arg(long = "web.listen-address", value_name = "HOST:PORT", default_value = "127.0.0.1:9090")]
    pub(crate) listen: Vec<String>,

    /// Allow POST /-/reload and /-/quit.
    #[arg(long = "web.enable-lifecycle")]
    pub(crate) enable_lifecycle: bool,

    /// Take remote-write requests on /api/v1/write.
    #[arg(long = "web.enable-remote-write-receiver")]
    pub(crate) enable_remote_write_receiver: bool,

    /// Directory of the samples; a Prometheus data directory.
    #[arg(long = "storage.tsdb.path", value_name = "DIR", default_value = "data")]
    pub(crate) storage_path: PathBuf,

    /// How long samples are kept: 15d, 4w, 1y.
    #[arg(long = "storage.tsdb.retention.time", value_name = "DURATION", value_parser = duration_ms)]
    pub(crate) retention_time: Option<Milliseconds>,

    /// How much may be kept on disk, log included: 512MB, 100GB. Powers of 1024.
    #[arg(long = "storage.tsdb.retention.size", value_name = "BYTES", value_parser = bytes)]
    pub(crate) retention_size: Option<Bytes>,

    /// How often the write-ahead log is synced to the disk: what a power cut can cost at most.
    #[arg(long = "storage.wal-sync-interval", value_name = "DURATION", default_value = "1s", value_parser = duration_ms)]
    pub(crate) wal_sync_interval: Milliseconds,

    /// How far back a query looks for the newest sample of a series.
    #[arg(long = "query.lookback-delta", value_name = "DURATION", default_value = "5m", value_parser = duration_ms)]
    pub(crate) lookback: Milliseconds,

    /// How long a query may take.
    #[arg(long = "query.timeout", value_name = "DURATION", default_value = "2m", value_parser = duration_ms)]
    pub(crate) query_timeout: Milliseconds,

    /// How many queries may run at once; more wait.
    #[arg(long = "query.max-concurrency", value_name = "N", default_value_t = 20)]
    pub(crate) query_concurrency: usize,

    /// How many samples one query may hold.
    #[arg(long = "query.max-samples", value_name = "N", default_value_t = 50_000_000)]
    pub(crate) query_samples_max: u64,

    /// Features to switch on, separated by commas: promql-experimental-functions,
    /// promql-extended-range-selectors, promql-binop-fill-modifiers, promql-delayed-name-removal.
    #[arg(long = "enable-feature", value_name = "NAME", value_delimiter = ',')]
    pub(crate) features: Vec<String>,

    /// Which cluster to look for.
    #[arg(long, value_enum, value_name = "WHERE", default_value = "auto")]
    pub(crate) kubernetes: Kubernetes,

    /// Certificate authority (PEM) that signs kubelets' certificates, if it is not the cluster's own.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubelet_certificate_authority: Option<PathBuf>,

    /// Trust a kubelet's certificate that nobody has signed from its first use on, remember it in this file,
    /// and refuse another one.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubelet_pins: Option<PathBuf>,

    /// Take any certificate from kubelets. The last resort: whoever stands in between can say anything.
    #[arg(long)]
    pub(crate) kubelet_insecure_tls: bool,

    /// Least severe messages to print.
    #[arg(long = "log.level", value_name = "LEVEL", default_value = "info", value_parser = ["debug", "info", "warn", "error"])]
    pub(crate) log_level: String,

    /// How messages are printed.
    #[arg(long = "log.format", value_name = "FORMAT", default_value = "logfmt", value_parser = ["logfmt", "json"])]
    pub(crate) log_format: String,

    /// Kind of command, if it is not to serve.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Check files for errors; exit status 0 if there are none, 1 otherwise.
    #[command(subcommand)]
    Check(Check),
}

/// What to check.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Check {
    /// Check configuration files.
    Config {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Check rule files.
    Rules {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// Which cluster to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kubernetes {
    /// A service account, else a kubeconfig, else none.
    Auto,
    /// None.
    Off,
    /// The cluster this process runs in.
    InCluster,
    /// The current context of the kubeconfig file.
    Kubeconfig,
}

/// A duration given in Prometheus' form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Milliseconds(pub(crate) i64);

/// A size given with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

fn duration_ms(text: &str) -> Result<Milliseconds, String> {
    model::duration::parse_ms(text).map(Milliseconds).map_err(|error| error.to_string())
}

fn bytes(text: &str) -> Result<Bytes, String> {
    crate::config::parse_bytes(text).map(Bytes)
}

impl Cli {
    /// Reads the command line, or prints what is wrong with it (or help) and ends the process.
    pub(crate) fn read() -> (Self, BTreeMap<String, String>) {
        let matches = Self::command().get_matches();
        let cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let mut flags = BTreeMap::new();
        for argument in Self::command().get_arguments() {
            let Some(name) = argument.get_long() else { continue };
            let values = matches.get_raw(argument.get_id().as_str());
            let text = values.map(|values| values.map(|v| v.to_string_lossy()).collect::<Vec<_>>().join(","));
            if !matches!(name, "help" | "version") {
                flags.insert(name.to_owned(), text.unwrap_or_default());
            }
        }
        (cli, flags)
    }

    /// What `--enable-feature` switches on: parts of the grammar, and of its meaning.
    pub(crate) fn query_features(&self) -> (promql::ParseOptions, promql::Features) {
        let (mut grammar, mut meaning) = (promql::ParseOptions::default(), promql::Features::default());
        for name in &self.features {
            match name.as_str() {
                "promql-experimental-functions" => grammar.experimental_functions = true,
                "promql-extended-range-selectors" => grammar.extended_selectors = true,
                "promql-binop-fill-modifiers" => grammar.fill_modifiers = true,
                "promql-delayed-name-removal" => meaning.delayed_name_removal = true,
                // Always on.
                "native-histograms" | "promql-duration-expr" => {}
                // As in Prometheus, a name that is not known does not keep the server from starting.
                other => tracing::warn!("--enable-feature={other} is not known and does nothing"),
            }
        }
        (grammar, meaning)
    }

    /// The addresses to listen on.
    pub(crate) fn listen_addresses(&self) -> Result<Vec<SocketAddr>, String> {
        use std::net::ToSocketAddrs;
        let mut addresses = Vec::new();
        for text in &self.listen {
            // Prometheus takes ":9090" for all interfaces.
            let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.clone() };
            let resolved =
                full.to_socket_addrs().map_err(|error| format!("--web.listen-address={text}: {error}"))?;
            addresses.extend(resolved.take(1));
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_for_a_new_user() {
        let cli = Cli::try_parse_from(["pyrometer"]).unwrap();
        assert_eq!(cli.listen_addresses().unwrap(), ["127.0.0.1:9090".parse().unwrap()]);
        assert_eq!(cli.storage_path, PathBuf::from("data"));
        assert_eq!(cli.kubernetes, Kubernetes::Auto);
        Cli::command().debug_assert();
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        for arguments in [
            vec!["pyrometer", "--query.timeout=soon"],
            vec!["pyrometer", "--storage.tsdb.retention.size=10"],
            vec!["pyrometer", "--no-such-flag"],
            vec!["pyrometer", "check", "config"],
        ] {
            assert!(Cli::try_parse_from(&arguments).is_err(), "{arguments:?}");
        }
        let cli = Cli::try_parse_from(["pyrometer", "--web.listen-address=127.0.0.1:99999"]).unwrap();
        assert!(cli.listen_addresses().unwrap_err().contains("127.0.0.1:99999"));
    }
}
