//! `pyrometer top`: who uses how much CPU and memory, live.

mod plain;
mod rows;
mod screen;
mod source;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::Milliseconds;
use crate::cli::tools::Client;
use crate::tools::client::Connection;
use plain::Output;
use rows::{Kind, Order};
use source::{Question, Source};

/// Show who uses how much CPU and memory, live or once, now or then.
#[derive(Clone, Debug, Args)]
pub(crate) struct Top {
    /// What to list.
    #[arg(value_enum)]
    kind: Kind,
    /// A Pyrometer.
    #[arg(long, value_name = "URL", default_value = "http://localhost:9090", conflicts_with = "kubeconfig")]
    url: String,
    #[command(flatten)]
    client: Client,
    /// Ask the API server of a cluster instead.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Only this namespace.
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Only what has these labels: app=web,tier!=cache.
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Only what has this text in its name.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// What to sort by.
    #[arg(long, value_enum, value_name = "COLUMN", default_value = "cpu")]
    sort_by: Order,
    /// Print once and end.
    #[arg(long)]
    once: bool,
    /// How to print; not on a live screen.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Output,
    /// At this time instead of now: 2006-01-02T15:04:05Z, or seconds since the epoch. Prints once.
    #[arg(long, value_name = "TIME", value_parser = time_ms)]
    at: Option<i64>,
    /// Time between two looks.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = crate::cli::duration_ms)]
    interval: Milliseconds,
}

#[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
fn time_ms(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok((seconds * 1000.0).round() as i64);
    }
    let time: jiff::Timestamp = text.parse().map_err(|error| format!("{error}"))?;
    Ok(time.as_millisecond())
}

/// Runs until a key or a signal ends it, or once.
pub(crate) fn run(top: &Top) -> anyhow::Result<()> {
    let source = match &top.kubeconfig {
        Some(path) => Source::cluster(path)?,
        None => Source::Server(Box::new(Connection::new(&top.url, &top.client)?)),
    };
    let question = Question {
        kind: top.kind,
        namespace: top.namespace.clone(),
        selector: top.selector.clone(),
        at_ms: top.at,
    };
    let every = Duration::from_millis(top.interval.0.max(100).unsigned_abs());
    let once = top.once || top.at.is_some() || top.output != Output::Table;
    let is_dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb") || !std::io::stdout().is_terminal();
    if !once && !is_dumb {
        return screen::run(&source, &question, (top.sort_by, &top.filter), every);
    }
    let mut looks = 0_u64;
    loop {
        let text = source.rows(&question).map(|found| {
            let mut rows = rows::filtered(found, &top.filter);
            rows::sort(&mut rows, top.sort_by, false);
            plain::text(&rows, top.kind, top.output)
        });
        let written = match text {
            Ok(text) => {
                let gap = if looks > 0 { "\n" } else { "" };
                looks += 1;
                write!(std::io::stdout(), "{gap}{text}").and_then(|()| std::io::stdout().flush())
            }
            // As on a screen: who has been seen once may come back.
            Err(error) if looks > 0 => writeln!(std::io::stderr(), "{error:#}"),
            Err(error) => return Err(error),
        };
        // Whoever reads no further has seen enough.
        if once || written.is_err() {
            return Ok(());
        }
        std::thread::sleep(every);
    }
}
