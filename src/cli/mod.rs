//! The command line: flags of the server, and commands beside it.

mod accepted;
mod flags;
pub(crate) mod tools;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches, Parser, ValueEnum};

use flags::{AgentStorage, Kubelet, Query, Storage, Web};
pub(crate) use flags::{Compression, KubernetesApi, Rules};

use crate::tools::Features;

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

    /// How often files of configuration are looked at, with --enable-feature=auto-reload-config.
    #[arg(long = "config.auto-reload-interval", value_name = "DURATION", default_value = "30s", value_parser = duration_ms)]
    pub(crate) auto_reload_interval: Milliseconds,

    /// Where and how HTTP is served.
    #[command(flatten)]
    pub(crate) web: Web,

    /// Where and how samples are kept.
    #[command(flatten)]
    pub(crate) storage: Storage,

    /// How an agent keeps what it sends on.
    #[command(flatten)]
    pub(crate) agent_storage: AgentStorage,

    /// Rules and alerts.
    #[command(flatten)]
    pub(crate) rules: Rules,

    /// Limits of queries.
    #[command(flatten)]
    pub(crate) query: Query,

    /// Features to switch on, separated by commas: promql-experimental-functions,
    /// promql-extended-range-selectors, promql-binop-fill-modifiers, promql-delayed-name-removal.
    #[arg(long = "enable-feature", value_name = "NAME", value_delimiter = ',', global = true)]
    pub(crate) features: Vec<String>,

    /// What this process is for.
    #[arg(long, value_enum, value_name = "MODE", default_value = "full")]
    pub(crate) mode: Mode,

    /// Which cluster to look for.
    #[arg(long, value_enum, value_name = "WHERE", default_value = "auto")]
    pub(crate) kubernetes: Kubernetes,

    /// Whether to scrape, besides what a configuration file says, this process and this machine (or the cluster
    /// it runs in).
    #[arg(long = "scrape.built-in", value_enum, value_name = "WHEN", default_value = "auto")]
    pub(crate) built_in: BuiltIn,

    /// Roles, and what they need.
    #[command(flatten)]
    pub(crate) cluster: crate::roles::Flags,

    /// What Thanos is served.
    #[command(flatten)]
    pub(crate) thanos: crate::thanos::Flags,

    /// The Kubernetes metrics APIs.
    #[command(flatten)]
    pub(crate) kubernetes_api: KubernetesApi,

    /// How kubelets are trusted.
    #[command(flatten)]
    pub(crate) kubelet: Kubelet,

    /// Least severe messages to print.
    #[arg(long = "log.level", value_name = "LEVEL", default_value = "info", value_parser = ["debug", "info", "warn", "error"])]
    pub(crate) log_level: String,

    /// How messages are printed.
    #[arg(long = "log.format", value_name = "FORMAT", default_value = "logfmt", value_parser = ["logfmt", "json"])]
    pub(crate) log_format: String,

    /// Kind of command, if it is not to serve.
    #[command(subcommand)]
    pub(crate) command: Option<tools::Command>,
}

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Everything.
    Full,
    /// CPU and memory of nodes and pods, as metrics-server has them: of kubelets only these are scraped, and only the
    /// newest points kept, in memory. With a configuration file or rules for custom metrics everything is kept for minutes.
    MetricsApiOnly,
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

pub(crate) fn duration_ms(text: &str) -> Result<Milliseconds, String> {
    model::duration::parse_ms(text).map(Milliseconds).map_err(|error| error.to_string())
}

pub(crate) fn bytes(text: &str) -> Result<Bytes, String> {
    crate::config::parse_bytes(text).map(Bytes)
}

/// A flag that is on, off with `--no-` or `=false`, or absent.
fn switch_of(arg: Arg) -> Arg {
    arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_parser(["true", "false"])
}

/// Whether there are jobs that no file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BuiltIn {
    /// Without a configuration file.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// The feature that has changed files of configuration come into force.
const AUTO_RELOAD: &str = "auto-reload-config";

/// The feature that type, help and unit are stored with each scraped series.
const METADATA: &str = "metadata-wal-records";

/// The feature that rules of a group which do not depend on each other are evaluated at once.
const CONCURRENT_RULES: &str = "concurrent-rule-eval";

/// The feature that start times of samples are stored.
const START_TIMES: &str = "st-storage";

/// The feature that names and values can be searched for.
const SEARCH: &str = "search-api";

/// What `--enable-feature` switches on: parts of the query language, and of its meaning.
pub(crate) fn query_features(names: &[String]) -> Features {
    let (features, unknown) = known_features(names);
    for other in unknown {
        // As in Prometheus, a name that is not known does not keep the server from starting.
        tracing::warn!("--enable-feature={other} is not known and does nothing");
    }
    features
}

/// The parts of the query language that `--enable-feature` switches on; says nothing of names that are not known.
pub(crate) fn grammar(names: &[String]) -> promql::ParseOptions {
    known_features(names).0.grammar
}

/// What the names switch on that are known, and the others.
fn known_features(names: &[String]) -> (Features, Vec<&str>) {
    let (mut features, mut unknown) = (Features::default(), Vec::new());
    for name in names {
        match name.as_str() {
            "promql-experimental-functions" => features.grammar.experimental_functions = true,
            "promql-extended-range-selectors" => features.grammar.extended_selectors = true,
            "promql-binop-fill-modifiers" => features.grammar.fill_modifiers = true,
            "use-start-timestamps" => features.meaning.start_timestamps = true,
            "promql-delayed-name-removal" => features.meaning.delayed_name_removal = true,
            // Always on.
            "native-histograms"
            | "ooo-native-histograms"
            | "promql-duration-expr"
            | "exemplar-storage"
            | "promql-per-step-stats"
            | "fast-startup" => {}
            // Of the server, not of the language: see [`Cli::auto_reload`] and its neighbours.
            AUTO_RELOAD | METADATA | CONCURRENT_RULES | SEARCH | START_TIMES => {}
            other => unknown.push(other),
        }
    }
    (features, unknown)
}

/// The command line of promtool: our commands, with the flags that promtool has beside them.
#[derive(Debug, Parser)]
#[command(name = "promtool", version, max_term_width = 100)]
struct Promtool {
    /// Features to switch on, separated by commas.
    #[arg(long = "enable-feature", value_name = "NAME", value_delimiter = ',', global = true)]
    enabled: Vec<String>,

    /// Allow experimental commands, as all are here.
    #[arg(long, global = true)]
    experimental: bool,

    #[command(subcommand)]
    command: tools::Command,
}

/// The command to run with its features, if this process was called as promtool.
pub(crate) fn promtool() -> Option<(tools::Command, Vec<String>)> {
    let name = PathBuf::from(std::env::args_os().next()?);
    (name.file_name()? == "promtool").then(|| {
        let Promtool { enabled, command, .. } = Promtool::parse();
        (command, enabled)
    })
}

/// What was read from the command line.
pub(crate) struct CommandLine {
    /// The flags.
    pub(crate) cli: Cli,
    /// All flags with their values, for the API.
    pub(crate) flags: BTreeMap<String, String>,
    /// Flags given that have no effect, with the reason.
    pub(crate) without_effect: Vec<(&'static str, &'static str)>,
}

/// The whole command with the flags that are only accepted.
pub(crate) fn command() -> clap::Command {
    accepted::add_to(Cli::command())
}

/// `--no-web.enable-lifecycle` is `--web.enable-lifecycle=false`, for every flag that takes no value.
fn without_negations(arguments: impl Iterator<Item = OsString>, command: &clap::Command) -> Vec<OsString> {
    let switches: Vec<&str> = command
        .get_arguments()
        .filter(|arg| arg.get_num_args().is_some_and(|count| count.min_values() == 0))
        .filter_map(Arg::get_long)
        .collect();
    let negated = |argument: OsString| {
        let name = argument.to_str().and_then(|text| text.strip_prefix("--no-"));
        match name.and_then(|name| switches.iter().find(|switch| **switch == name)) {
            Some(name) => OsString::from(format!("--{name}=false")),
            None => argument,
        }
    };
    arguments.map(negated).collect()
}

impl CommandLine {
    /// Reads the command line, or prints what is wrong with it (or help) and ends the process.
    pub(crate) fn read() -> Self {
        Self::try_from_arguments(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    fn try_from_arguments(arguments: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        let command = command();
        let arguments = without_negations(arguments, &command);
        let matches = command.clone().try_get_matches_from(arguments)?;
        let mut cli = Cli::from_arg_matches(&matches)?;
        check_mode(&cli, &command, &matches)?;
        if cli.cluster.has(crate::roles::Role::Agent) {
            let agent = &cli.agent_storage;
            cli.storage = Storage {
                path: agent.agent_path.clone(),
                wal_compression: agent.agent_wal_compression,
                wal_compression_type: agent.agent_wal_compression_type,
                ..cli.storage
            };
        }
        let flags = values(&command, &matches);
        Ok(Self { cli, flags, without_effect: accepted::given(&matches) })
    }
}

/// Refuses flags of the store and what reads it in an agent, which has only a log, and the agent's elsewhere: an agent
/// that was given the directory of a server would shorten its log.
fn check_mode(cli: &Cli, command: &clap::Command, matches: &ArgMatches) -> Result<(), clap::Error> {
    const OF_SERVERS: [&str; 5] =
        ["storage.tsdb.", "storage.remote.read-", "rules.", "query.", "alertmanager."];
    let is_agent = cli.cluster.has(crate::roles::Role::Agent);
    let misplaced = |name: &&str| match is_agent {
        true => OF_SERVERS.iter().any(|prefix| name.starts_with(prefix)),
        false => name.starts_with("storage.agent."),
    };
    let given = command.get_arguments().filter(|arg| {
        matches.value_source(arg.get_id().as_str()) == Some(clap::parser::ValueSource::CommandLine)
    });
    let names: Vec<String> =
        given.filter_map(Arg::get_long).filter(misplaced).map(|name| format!("--{name}")).collect();
    if names.is_empty() {
        return Ok(());
    }
    let how = if is_agent { "not be used in agent mode" } else { "only be used in agent mode" };
    let what = format!("these flags can {how}: {}", names.join(", "));
    Err(command.clone().error(clap::error::ErrorKind::ArgumentConflict, what))
}

/// Every flag with its value.
fn values(command: &clap::Command, matches: &ArgMatches) -> BTreeMap<String, String> {
    let mut flags = BTreeMap::new();
    for argument in command.get_arguments() {
        let Some(name) = argument.get_long().filter(|name| !matches!(*name, "help" | "version")) else {
            continue;
        };
        let values = matches.get_raw(argument.get_id().as_str());
        let text = values.map(|values| values.map(|v| v.to_string_lossy()).collect::<Vec<_>>().join(","));
        // There are keys in it.
        let text = if name == "objstore.config" { text.map(|_| "<secret>".to_owned()) } else { text };
        flags.insert(name.to_owned(), text.unwrap_or_default());
    }
    flags
}

impl Cli {
    /// How often files of configuration are looked at, if changes are to come into force by themselves.
    pub(crate) fn auto_reload(&self) -> Option<Duration> {
        let every = Duration::from_millis(self.auto_reload_interval.0.max(1).unsigned_abs());
        self.features.iter().any(|name| name == AUTO_RELOAD).then_some(every)
    }

    /// Whether type, help and unit are stored with each scraped series.
    pub(crate) fn stores_metadata(&self) -> bool {
        self.features.iter().any(|name| name == METADATA)
    }

    /// Whether there are jobs that no file names.
    pub(crate) fn has_built_in_jobs(&self) -> bool {
        match self.built_in {
            BuiltIn::Auto => self.config_file.is_none() && self.cluster.scrapes_itself(),
            BuiltIn::On => true,
            BuiltIn::Off => false,
        }
    }

    /// Whether nobody could ask for more than the newest points of kubelets.
    pub(crate) fn keeps_newest_alone(&self) -> bool {
        self.mode == Mode::MetricsApiOnly
            && self.config_file.is_none()
            && self.kubernetes_api.adapter_rules.is_none()
            && !self.web.enable_remote_write_receiver
            && !self.web.enable_otlp_receiver
            && self.cluster.has(crate::roles::Role::All)
    }

    /// How many rules may be evaluated beside those whose turn it is.
    pub(crate) fn concurrent_rules(&self) -> usize {
        if self.features.iter().any(|name| name == CONCURRENT_RULES) {
            self.rules.concurrent_evals
        } else {
            0
        }
    }

    /// Most results of a search, if searching is on.
    pub(crate) fn search_limit_max(&self) -> Option<usize> {
        self.features.iter().any(|name| name == SEARCH).then_some(self.web.search_limit_max)
    }

    /// Whether start times of samples are stored.
    pub(crate) fn stores_start_times(&self) -> bool {
        self.features.iter().any(|name| name == START_TIMES)
    }

    /// The addresses to listen on.
    pub(crate) fn listen_addresses(&self) -> Result<Vec<SocketAddr>, String> {
        use std::net::ToSocketAddrs;
        let mut addresses = Vec::new();
        for text in &self.web.listen {
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

    fn read(arguments: &[&str]) -> Result<CommandLine, clap::Error> {
        let all = std::iter::once("pyrometer").chain(arguments.iter().copied()).map(OsString::from);
        CommandLine::try_from_arguments(all)
    }

    #[test]
    fn agents_have_a_log_of_their_own() {
        let agent =
            read(&["--agent", "--storage.agent.path=/agent", "--storage.agent.wal-compression-type=zstd"]);
        let cli = agent.unwrap().cli;
        assert_eq!(
            (cli.storage.path, cli.storage.wal_compression_type),
            ("/agent".into(), Compression::Zstd)
        );
        assert_eq!(read(&["--role=agent,router"]).unwrap().cli.storage.path, PathBuf::from("data-agent"));
        let refused = |arguments: &[&str]| read(arguments).err().unwrap().to_string();
        let told = refused(&["--agent", "--storage.tsdb.path=/prometheus", "--query.timeout=1m"]);
        assert!(told.contains("agent mode: --storage.tsdb.path, --query.timeout"), "{told}");
        let told = refused(&["--storage.agent.retention.max-time=1h"]);
        assert!(told.contains("only be used in agent mode: --storage.agent.retention.max-time"), "{told}");
    }

    #[test]
    fn defaults_are_for_a_new_user() {
        let cli = read(&[]).unwrap().cli;
        assert_eq!(cli.listen_addresses().unwrap(), ["127.0.0.1:9090".parse().unwrap()]);
        assert_eq!(cli.storage.path, PathBuf::from("data"));
        assert_eq!(cli.kubernetes, Kubernetes::Auto);
        command().debug_assert();
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        for arguments in [
            &["--query.timeout=soon"][..],
            &["--storage.tsdb.retention.size=10"],
            &["--no-such-flag"],
            &["--no-query.timeout"],
            &["--auto-gomemlimit=maybe"],
            &["check", "config"],
        ] {
            assert!(read(arguments).is_err(), "{arguments:?}");
        }
        let cli = read(&["--web.listen-address=127.0.0.1:99999"]).unwrap().cli;
        assert!(cli.listen_addresses().unwrap_err().contains("127.0.0.1:99999"));
    }

    #[test]
    fn takes_the_flags_of_charts_and_operators() {
        let line = read(&[
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            "--storage.tsdb.retention.time=10d",
            "--web.console.templates=/etc/prometheus/consoles",
            "--web.console.libraries=/etc/prometheus/console_libraries",
            "--web.enable-lifecycle",
            "--no-web.enable-admin-api",
            "--no-storage.tsdb.wal-compression",
            "--web.external-url=http://prometheus.example/p",
            "--web.route-prefix=/",
            "--storage.tsdb.no-lockfile",
            "--no-auto-gomaxprocs",
        ])
        .unwrap();
        assert!(line.cli.web.enable_lifecycle && !line.cli.web.enable_admin_api);
        assert!(!line.cli.storage.wal_compression);
        assert_eq!(line.flags["web.enable-admin-api"], "false");
        assert_eq!(line.flags["auto-gomaxprocs"], "false");
        assert_eq!(line.flags["auto-gomemlimit"], "");
        let names: Vec<_> = line.without_effect.iter().map(|(name, _)| *name).collect();
        let expected =
            ["web.console.templates", "web.console.libraries", "storage.tsdb.no-lockfile", "auto-gomaxprocs"];
        assert_eq!(names, expected);
    }
}
