//! Commands beside the server: those of promtool under their names, and a few of our own.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to do instead of serving.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Check files and servers; exit status 0 if all is well.
    Check(CheckCommand),
    /// Unit tests.
    Test(TestCommand),
    /// Ask a server.
    Query(QueryCommand),
    /// Look into data directories, and make blocks.
    #[command(subcommand)]
    Tsdb(Tsdb),
    /// Change expressions.
    #[command(subcommand)]
    Promql(Promql),
    /// Fetch what a server tells about itself.
    #[command(subcommand)]
    Debug(Debug),
    /// Send samples.
    Push(PushCommand),
    /// Rules in prometheus-adapter's format.
    #[command(subcommand)]
    AdapterRules(AdapterRules),
    /// Ask two servers the same questions and show every difference.
    Verify(Verify),
    /// Show who uses how much CPU and memory, live or once, now or then.
    Top(crate::top::Top),
    /// Say which shard holds which series.
    #[command(subcommand)]
    Slots(crate::roles::Slots),
    /// Have the API server verify the certificate of the metrics APIs.
    InstallCaBundle(crate::metrics_apis::installer::InstallCaBundle),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What to check, and by which measure.
#[derive(Clone, Debug, Args)]
pub(crate) struct CheckCommand {
    /// A scrape interval of this or more is found by the lint check too-long-scrape-interval.
    #[arg(long = "query.lookback-delta", value_name = "DURATION", default_value = "5m", global = true)]
    pub(crate) lookback_delta: String,
    #[command(subcommand)]
    pub(crate) what: Check,
}

/// What to check.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Check {
    /// Look for the targets of a job and print what relabelling makes of them.
    ServiceDiscovery {
        /// How long to look.
        #[arg(long, value_name = "DURATION", default_value = "30s")]
        timeout: String,
        /// The configuration file.
        file: PathBuf,
        /// The job's name.
        job: String,
    },
    /// Check configuration files, and the rule files that they name.
    Config {
        /// Look only at the files themselves, not at what they refer to.
        #[arg(long)]
        syntax_only: bool,
        /// Check for agent mode, where rules and alerting are not allowed.
        #[arg(long)]
        agent: bool,
        #[command(flatten)]
        lint: Lint,
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Check web configuration files: TLS, basic authentication, headers.
    WebConfig {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Check files of custom and external metrics' rules, in prometheus-adapter's format.
    AdapterRules {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Check rule files; without one, standard input.
    Rules {
        #[command(flatten)]
        lint: Lint,
        /// The files.
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Check a page of metrics on standard input for consistency and good names.
    Metrics {
        /// Also print how many series each metric has.
        #[arg(long)]
        extended: bool,
        /// Which checks: all or none.
        #[arg(long, value_name = "CHECKS", default_value = "all", value_parser = ["all", "none"])]
        lint: String,
    },
    /// Whether a server is healthy.
    Healthy(Server),
    /// Whether a server is ready.
    Ready(Server),
}

/// What is looked for besides errors.
#[derive(Clone, Debug, Args)]
pub(crate) struct Lint {
    /// Which checks: all, duplicate-rules, too-long-scrape-interval, none; separated by commas.
    #[arg(long = "lint", value_name = "CHECKS", default_value = "duplicate-rules", value_delimiter = ',')]
    pub(crate) checks: Vec<String>,
    /// What is found ends with exit status 3.
    #[arg(long = "lint-fatal")]
    pub(crate) fatal: bool,
    /// Ignore unknown fields of rule groups.
    #[arg(long)]
    pub(crate) ignore_unknown_fields: bool,
}

/// Which server to ask, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct Server {
    /// URL of the server.
    #[arg(long, value_name = "URL", default_value = "http://localhost:9090")]
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) client: Client,
}

/// How to ask a server.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Client {
    /// File with HTTP client options, in the format of a scrape configuration.
    #[arg(long = "http.config.file", value_name = "FILE", global = true)]
    pub(crate) config_file: Option<PathBuf>,
    /// Header to send, NAME=VALUE; may be given several times.
    #[arg(long = "header", value_name = "NAME=VALUE", global = true)]
    pub(crate) headers: Vec<String>,
}

/// What to test, and where to report.
#[derive(Clone, Debug, Args)]
pub(crate) struct TestCommand {
    /// Write a report in JUnit's format.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) junit: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) what: Test,
}

/// What to test.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Test {
    /// Run unit tests of rules.
    Rules {
        /// Only tests whose names match; may be given several times.
        #[arg(long, value_name = "REGEX")]
        run: Vec<String>,
        /// Print which test runs.
        #[arg(long)]
        debug: bool,
        /// Accepted for promtool's sake: what differs is always told sample by sample.
        #[arg(long)]
        diff: bool,
        /// Ignore unknown fields of test and rule files.
        #[arg(long)]
        ignore_unknown_fields: bool,
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// What to ask a server, and how to print it.
#[derive(Clone, Debug, Args)]
pub(crate) struct QueryCommand {
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) what: Query,
}

/// What to ask a server.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Query {
    /// The value of an expression at one time.
    Instant {
        /// When: RFC 3339 or seconds since the epoch; now if absent.
        #[arg(long, value_name = "TIME")]
        time: Option<String>,
        /// URL of the server.
        server: String,
        /// The expression.
        expr: String,
    },
    /// The values of an expression over time.
    Range {
        #[command(flatten)]
        span: Span,
        /// Time between two values; so that there are 250 if absent.
        #[arg(long, value_name = "DURATION")]
        step: Option<String>,
        /// URL of the server.
        server: String,
        /// The expression.
        expr: String,
    },
    /// Series.
    Series {
        #[command(flatten)]
        span: Span,
        /// Which series; may be given several times.
        #[arg(long = "match", value_name = "SELECTOR", required = true)]
        matches: Vec<String>,
        /// URL of the server.
        server: String,
    },
    /// Values of a label.
    Labels {
        #[command(flatten)]
        span: Span,
        /// Of which series; may be given several times.
        #[arg(long = "match", value_name = "SELECTOR")]
        matches: Vec<String>,
        /// URL of the server.
        server: String,
        /// The label.
        name: String,
    },
    /// How buckets of histograms are used.
    Analyze {
        /// URL of the server.
        #[arg(long, value_name = "URL")]
        server: String,
        /// Kind of metric: histogram.
        #[arg(long = "type", value_name = "TYPE", value_parser = ["histogram"])]
        kind: String,
        /// How far back to look.
        #[arg(long, value_name = "DURATION", default_value = "1h")]
        duration: String,
        /// From when; now if absent.
        #[arg(long, value_name = "TIME")]
        time: Option<String>,
        /// Which series; may be given several times.
        #[arg(long = "match", value_name = "SELECTOR", required = true)]
        matches: Vec<String>,
    },
}

/// How answers are printed.
#[derive(Clone, Debug, Args)]
pub(crate) struct Output {
    /// promql or json.
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "promql", value_parser = ["promql", "json"], global = true)]
    pub(crate) format: String,
    #[command(flatten)]
    pub(crate) client: Client,
}

/// From when to when.
#[derive(Clone, Debug, Args)]
pub(crate) struct Span {
    /// Start: RFC 3339 or seconds since the epoch.
    #[arg(long, value_name = "TIME")]
    pub(crate) start: Option<String>,
    /// End: RFC 3339 or seconds since the epoch.
    #[arg(long, value_name = "TIME")]
    pub(crate) end: Option<String>,
}

/// What to do with data directories.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Tsdb {
    /// Churn and cardinality of a block: the newest, or the one named.
    Analyze {
        /// Entries of each list.
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// Also print how full chunks are.
        #[arg(long)]
        extended: bool,
        /// Only these series.
        #[arg(long = "match", value_name = "SELECTOR")]
        matches: Option<String>,
        /// The data directory.
        #[arg(default_value = "data", value_name = "DIR")]
        path: PathBuf,
        /// The block.
        block: Option<String>,
    },
    /// The blocks of a directory.
    List {
        /// Times and sizes for people.
        #[arg(short = 'r', long)]
        human_readable: bool,
        /// The data directory.
        #[arg(default_value = "data", value_name = "DIR")]
        path: PathBuf,
    },
    /// All samples as text: series, value, milliseconds.
    Dump {
        /// What is printed: samples, or series as JSON.
        #[arg(long, value_name = "FORMAT", default_value = "prom", value_parser = ["prom", "seriesjson"])]
        format: String,
        #[command(flatten)]
        dump: Dumped,
    },
    /// All float samples in OpenMetrics text, for create-blocks-from.
    DumpOpenmetrics(Dumped),
    /// Make blocks of other data.
    CreateBlocksFrom(CreateBlocksCommand),
    /// Measure.
    #[command(subcommand)]
    Bench(Bench),
}

/// What to measure.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Bench {
    /// How fast samples are written.
    Write {
        /// Where to write; what is there is deleted.
        #[arg(long, value_name = "DIR", default_value = "benchout")]
        out: PathBuf,
        /// Series to write.
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        metrics: usize,
        /// Samples of each series, a multiple of 100.
        #[arg(long, value_name = "N", default_value_t = 3_000)]
        scrapes: u32,
        /// A file of series, a JSON object a line; made up if absent.
        file: Option<PathBuf>,
    },
}

/// What to dump.
#[derive(Clone, Debug, Args)]
pub(crate) struct Dumped {
    /// First time, milliseconds since the epoch.
    #[arg(long, value_name = "MS", default_value_t = i64::MIN, allow_hyphen_values = true)]
    pub(crate) min_time: i64,
    /// Last time, milliseconds since the epoch.
    #[arg(long, value_name = "MS", default_value_t = i64::MAX, allow_hyphen_values = true)]
    pub(crate) max_time: i64,
    /// Accepted for promtool's sake: nothing is written besides.
    #[arg(long, value_name = "DIR")]
    pub(crate) sandbox_dir_root: Option<PathBuf>,
    /// Which series; may be given several times.
    #[arg(long = "match", value_name = "SELECTOR", default_value = "{__name__=~'(?s:.*)'}")]
    pub(crate) matches: Vec<String>,
    /// The data directory.
    #[arg(default_value = "data", value_name = "DIR")]
    pub(crate) path: PathBuf,
}

/// What to make blocks of, and what to say of them.
#[derive(Clone, Debug, Args)]
pub(crate) struct CreateBlocksCommand {
    /// Times and sizes for people.
    #[arg(short = 'r', long, global = true)]
    pub(crate) human_readable: bool,
    /// Do not print the blocks.
    #[arg(short = 'q', long, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) what: CreateBlocks,
}

/// What to make blocks of.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum CreateBlocks {
    /// A file in OpenMetrics text with timestamps.
    Openmetrics {
        /// Label to add to every series, NAME=VALUE; may be given several times.
        #[arg(long = "label", value_name = "NAME=VALUE")]
        labels: Vec<String>,
        /// The file.
        input: PathBuf,
        /// Where to put the blocks.
        #[arg(default_value = "data", value_name = "DIR")]
        output: PathBuf,
    },
    /// Recording rules, evaluated by a server over the past.
    Rules {
        #[command(flatten)]
        server: Server,
        /// From when: RFC 3339 or seconds since the epoch.
        #[arg(long, value_name = "TIME")]
        start: String,
        /// Until when; three hours ago if absent.
        #[arg(long, value_name = "TIME")]
        end: Option<String>,
        /// Where to put the blocks.
        #[arg(long, default_value = "data", value_name = "DIR")]
        output_dir: PathBuf,
        /// Interval of groups that give none.
        #[arg(long, default_value = "60s", value_name = "DURATION")]
        eval_interval: String,
        /// The rule files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// What to do with expressions.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Promql {
    /// Print an expression in its pretty form.
    Format {
        /// The expression.
        query: String,
    },
    /// Change the conditions of all selectors of an expression.
    #[command(subcommand)]
    LabelMatchers(LabelMatchers),
}

/// How to change conditions.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum LabelMatchers {
    /// Set a condition.
    Set {
        /// Kind of the condition: =, !=, =~ or !~.
        #[arg(short = 't', long = "type", default_value = "=", value_parser = ["=", "!=", "=~", "!~"])]
        kind: String,
        /// The expression.
        query: String,
        /// The label.
        name: String,
        /// The value.
        value: String,
    },
    /// Remove the conditions on a label.
    Delete {
        /// The expression.
        query: String,
        /// The label.
        name: String,
    },
}

/// What to fetch of a server.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Debug {
    /// Its metrics.
    Metrics {
        /// URL of the server.
        server: String,
    },
    /// Its metrics, configuration, flags and status.
    All {
        /// URL of the server.
        server: String,
    },
}

/// What to send, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct PushCommand {
    #[command(flatten)]
    pub(crate) client: Client,
    #[command(subcommand)]
    pub(crate) what: Push,
}

/// What to send.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Push {
    /// Pages of metrics, by remote write; for tests.
    Metrics {
        /// Label to add, NAME=VALUE; may be given several times.
        #[arg(long = "label", value_name = "NAME=VALUE", default_value = "job=promtool")]
        labels: Vec<String>,
        /// How long the server may take.
        #[arg(long, value_name = "DURATION", default_value = "30s")]
        timeout: String,
        /// The message to send.
        #[arg(long = "protobuf_message", value_name = "NAME", default_value = "prometheus.WriteRequest",
            value_parser = ["prometheus.WriteRequest", "io.prometheus.write.v2.Request"])]
        message: String,
        /// The receiver's path, if the URL has none.
        #[arg(long = "remote-write.path", value_name = "PATH", default_value = "/api/v1/write")]
        path: String,
        /// URL of the remote-write receiver.
        url: String,
        /// The files; standard input if absent.
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// What to do with rules in prometheus-adapter's format.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum AdapterRules {
    /// Show what rules make of the series that there are: metrics, paths, queries and values.
    Try(TryAdapterRules),
}

/// Which rules to try, and on what.
#[derive(Clone, Debug, Args)]
pub(crate) struct TryAdapterRules {
    /// A data directory instead of a server; of a server that does not run.
    #[arg(long = "storage.tsdb.path", value_name = "DIR")]
    pub(crate) path: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: Server,
    /// As of when: RFC 3339 or seconds since the epoch; now if absent.
    #[arg(long, value_name = "TIME")]
    pub(crate) time: Option<String>,
    /// Show everything, not only the first few of each rule.
    #[arg(long)]
    pub(crate) all: bool,
    /// The file.
    pub(crate) file: PathBuf,
}

/// Which servers to compare, and by what.
#[derive(Clone, Debug, Args)]
pub(crate) struct Verify {
    /// URL of the server whose answers are right.
    #[arg(long, value_name = "URL")]
    pub(crate) against: String,
    /// URL of the server to verify.
    #[arg(long, value_name = "URL", default_value = "http://localhost:9090")]
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) client: Client,
    /// The newest time asked for; five minutes ago if absent.
    #[arg(long, value_name = "TIME")]
    pub(crate) end: Option<String>,
    /// How far back range queries go.
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    pub(crate) range: String,
    /// Step of range queries.
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    pub(crate) step: String,
    /// Relative difference of two values that counts as none.
    #[arg(long, value_name = "X", default_value_t = 1e-9)]
    pub(crate) tolerance: f64,
    /// Expressions: files with one a line, rule files, Grafana dashboards (JSON), query logs, or
    /// directories of these.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) sources: Vec<PathBuf>,
}
