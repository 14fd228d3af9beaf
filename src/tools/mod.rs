//! Commands beside the server. Names, output and exit codes are promtool's where promtool has them.

/// Prints a line. Whoever reads may have seen enough: that is an error that ends the command well.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        writeln!(std::io::stdout(), $($text)*)?
    }};
}

pub(crate) mod adapter_rules;
mod bench;
mod blocks;
mod check;
pub(crate) mod client;
mod dump;
mod expressions;
mod import;
mod lint;
mod push;
mod query;
mod service_discovery;
mod span;
mod unit_tests;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use crate::cli::tools::{
    AdapterRules, Bench, Check, CheckCommand, Command, CreateBlocks, CreateBlocksCommand, Debug, Push,
    PushCommand, QueryCommand, Test, TestCommand, Tsdb,
};
use rules::{Dialect, Unknown};

pub(crate) use client::escape;
pub(crate) use span::parse_time;

/// Parts of the language that flags switch on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Features {
    pub(crate) grammar: promql::ParseOptions,
    pub(crate) meaning: promql::Features,
}

/// Lint found something, and it is to be fatal.
const LINT_FAILED: u8 = 3;

/// How a command ended.
enum Ending {
    Well,
    /// With something that lint found, which has been printed.
    Lint,
}

/// Runs a command to its end.
pub(crate) fn run(command: Command, features: &[String]) -> ExitCode {
    match dispatch(command, features) {
        Ok(Ending::Well) => ExitCode::SUCCESS,
        Ok(Ending::Lint) => ExitCode::from(LINT_FAILED),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", crate::describe(&error));
            ExitCode::FAILURE
        }
    }
}

/// Whether whoever read the output has gone.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn dispatch(command: Command, features: &[String]) -> anyhow::Result<Ending> {
    match command {
        Command::Check(check) => return checked(check, features),
        Command::Test(TestCommand { junit, what }) => {
            let Test::Rules { run, debug, diff: _, ignore_unknown_fields, files } = what;
            let settings = unit_tests::Settings {
                run: &run,
                features: crate::cli::query_features(features),
                junit: junit.as_deref(),
                dialect: dialect(ignore_unknown_fields, features),
                debug,
            };
            unit_tests::run(&files, &settings)?;
        }
        Command::Query(QueryCommand { output, what }) => query::run(what, &output)?,
        Command::Slots(command) => crate::roles::run_slots(command)?,
        Command::Tsdb(tsdb) => directory(tsdb)?,
        Command::Promql(promql) => expressions::run(&promql)?,
        Command::Debug(Debug::Metrics { server }) => client::print_paths(&server, &["/metrics"])?,
        Command::Debug(Debug::All { server }) => {
            let paths = [
                "/metrics",
                "/api/v1/status/config",
                "/api/v1/status/flags",
                "/api/v1/status/runtimeinfo",
                "/api/v1/status/tsdb",
            ];
            client::print_paths(&server, &paths)?;
        }
        Command::Push(PushCommand { client, what }) => {
            let Push::Metrics { labels, timeout, message, path, url, files } = what;
            push::push(&push::Pushed {
                client: &client,
                url: &url,
                path: &path,
                files: &files,
                labels: &client::pairs(&labels)?,
                timeout_ms: span::parse_duration_ms(&timeout)?,
                protocol: remote::receive::Protocol::of_message(&message)
                    .unwrap_or(remote::receive::Protocol::V1),
            })?;
        }
        Command::AdapterRules(AdapterRules::Try(options)) => adapter_rules::try_rules(&options)?,
        Command::Verify(options) => verify::run(&options)?,
        Command::Top(options) => crate::top::run(&options)?,
        Command::InstallCaBundle(options) => crate::metrics_apis::installer::run(&options)?,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut crate::cli::command(), "pyrometer", &mut std::io::stdout());
        }
    }
    Ok(Ending::Well)
}

fn directory(command: Tsdb) -> anyhow::Result<()> {
    match command {
        Tsdb::List { human_readable, path } => blocks::list(&path, human_readable)?,
        Tsdb::Analyze { limit, extended, matches, path, block } => {
            let block = blocks::Analyzed::new(&path, block.as_deref(), matches.as_deref())?;
            block.print(limit)?;
            if extended {
                block.print_chunks()?;
            }
        }
        Tsdb::Dump { format, dump } if format == "seriesjson" => dump::series(&dump)?,
        Tsdb::Dump { format: _, dump } => dump::samples(&dump)?,
        Tsdb::DumpOpenmetrics(dump) => dump::open_metrics(&dump)?,
        Tsdb::CreateBlocksFrom(CreateBlocksCommand { human_readable, quiet, what }) => {
            let made = match what {
                CreateBlocks::Openmetrics { labels, input, output } => {
                    import::open_metrics(&input, &output, &client::pairs(&labels)?)?;
                    output
                }
                CreateBlocks::Rules { server, start, end, output_dir, eval_interval, files } => {
                    let span = import::RuleSpan::new(&start, end.as_deref(), &eval_interval)?;
                    import::rules(&server, &files, &output_dir, span)?;
                    output_dir
                }
            };
            if !quiet {
                blocks::list(&made, human_readable)?;
            }
        }
        Tsdb::Bench(Bench::Write { out, metrics, scrapes, file }) => {
            bench::write(&out, file.as_deref(), metrics, scrapes)?;
        }
    }
    Ok(())
}

/// How rule files are read that are to be run elsewhere.
const DIALECT: Dialect = Dialect { unknown: Unknown::Refused, grammar: promql::ParseOptions::experimental() };

/// How rule files are read that are judged.
fn dialect(ignore_unknown_fields: bool, features: &[String]) -> Dialect {
    let grammar = crate::cli::grammar(features);
    Dialect { unknown: Unknown::new(ignore_unknown_fields), grammar }
}

fn checked(
    CheckCommand { lookback_delta, what }: CheckCommand,
    features: &[String],
) -> anyhow::Result<Ending> {
    match what {
        Check::ServiceDiscovery { timeout, file, job } => {
            let patience = Duration::from_millis(span::parse_duration_ms(&timeout)?.unsigned_abs());
            service_discovery::check(&file, &job, patience).map(|()| Ending::Well)
        }
        Check::Config { syntax_only, agent, lint, files } => {
            let lookback_ms = span::parse_duration_ms(&lookback_delta)?;
            let dialect = dialect(lint.ignore_unknown_fields, features);
            check::config(&files, (syntax_only, agent), (&lint, dialect), lookback_ms)
        }
        Check::Rules { lint, files } => {
            check::rules(&files, &lint, dialect(lint.ignore_unknown_fields, features))
        }
        Check::AdapterRules { files } => adapter_rules::check(&files).map(|()| Ending::Well),
        Check::WebConfig { files } => crate::web::check(&files).map(|()| Ending::Well),
        Check::Metrics { extended, lint } => lint::metrics(extended, lint != "none"),
        Check::Healthy(server) => client::probe(&server, "healthy").map(|()| Ending::Well),
        Check::Ready(server) => client::probe(&server, "ready").map(|()| Ending::Well),
    }
}
