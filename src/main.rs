//! The `pyrometer` binary: reads flags, configuration, environment and clock, and wires the rooms.
//!
//! Read [`wire::run`] for what happens from start to stop, in order.

mod alertmanagers;
mod cli;
mod config;
mod in_cluster;
mod jobs;
mod local;
mod metrics_apis;
mod outgoing;
mod place;
mod roles;
mod samples;
mod senders;
mod sigv4;
mod terminal;
#[cfg(feature = "thanos")]
mod thanos;
#[cfg(not(feature = "thanos"))]
#[path = "thanos/absent.rs"]
mod thanos;
mod tools;
mod top;
mod upkeep;
mod web;
mod wire;

use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use cli::{Cli, CommandLine};

/// Returns freed pages soon and never builds huge pages: half the resident memory of the default.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some((command, features)) = cli::promtool() {
        return tools::run(command, &features);
    }
    let mut line = CommandLine::read();
    if let Some(command) = line.cli.command.take() {
        return tools::run(command, &line.cli.features);
    }
    log_to_stderr(&line.cli);
    match wire::run(line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pyrometer: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, on one line. A cause that an error has quoted already is not repeated.
fn describe(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

fn log_to_stderr(cli: &Cli) {
    // The crates underneath are only heard when something is wrong.
    let filter =
        EnvFilter::new(format!("{},hyper=warn,h2=warn,rustls=warn,kube=warn,tower=warn", cli.log_level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if cli.log_format == "json" {
        builder.json().init();
    } else {
        builder.with_target(false).with_ansi(false).init();
    }
}
