//! Flags of Prometheus' server that mean nothing here. They are accepted, so that charts, operators and
//! unit files keep working, and each that is given is logged once.

use clap::{Arg, ArgAction, ArgMatches, Command};

/// A flag without an effect.
struct Accepted {
    name: &'static str,
    /// Its default; none for a switch.
    default: Option<&'static str>,
    /// Why it does nothing here.
    why: &'static str,
}

const fn value(name: &'static str, default: &'static str, why: &'static str) -> Accepted {
    Accepted { name, default: Some(default), why }
}

const fn switch(name: &'static str, why: &'static str) -> Accepted {
    Accepted { name, default: None, why }
}

const RUNTIME: &str = "memory and threads are not managed by a runtime";
const CONSOLES: &str = "there are no console templates";
const BLOCKS: &str = "block sizes follow the retention";
const LOG: &str = "the log's segments have one size";

const ACCEPTED: &[Accepted] = &[
    value("web.user-assets", "", CONSOLES),
    value("web.console.templates", "consoles", CONSOLES),
    value("web.console.libraries", "console_libraries", CONSOLES),
    value("web.page-title", "", "the page has one title"),
    switch("storage.tsdb.no-lockfile", "the lock is the kernel's and leaves nothing behind"),
    switch("storage.tsdb.allow-overlapping-blocks", "overlapping blocks are always allowed"),
    switch("storage.tsdb.allow-overlapping-compaction", "overlapping blocks are always merged"),
    value("storage.tsdb.delayed-compaction.max-percent", "10", "compaction is not delayed"),
    value("storage.tsdb.block-reload-interval", "1m", "blocks are read at the start"),
    value("storage.tsdb.head-chunks-write-queue-size", "0", "chunks are written without a queue"),
    value("storage.tsdb.min-block-duration", "2h", BLOCKS),
    value("storage.tsdb.max-block-duration", "", BLOCKS),
    value("storage.tsdb.max-block-chunk-segment-size", "512MB", BLOCKS),
    value("storage.tsdb.delay-compact-file.path", "", BLOCKS),
    value("storage.tsdb.samples-per-chunk", "120", "chunks end where they compress best"),
    value("storage.tsdb.wal-segment-size", "128MB", LOG),
    value("storage.agent.wal-segment-size", "128MB", LOG),
    switch(
        "storage.agent.checkpoint-from-in-memory-series",
        "checkpoints are made from the series in memory",
    ),
    value("storage.agent.checkpoint-batch-size", "1000", "checkpoints are written as they are made"),
    switch("storage.agent.no-lockfile", "the lock is the kernel's and leaves nothing behind"),
    value("scrape.discovery-reload-interval", "5s", "updates of targets are taken at once"),
    switch("scrape.adjust-timestamps", "timestamps are always put on the schedule"),
    value("scrape.timestamp-tolerance", "2ms", "timestamps are always put on the schedule"),
    value("scrape.name-escaping-scheme", "", "the configuration file says it"),
    switch("auto-gomaxprocs", RUNTIME),
    switch("auto-gomemlimit", RUNTIME),
    value("auto-gomemlimit.ratio", "0.9", RUNTIME),
    value("auto-gomemlimit.refresh-interval", "0s", RUNTIME),
];

/// Adds the flags to `command`, under a heading of their own.
pub(super) fn add_to(command: Command) -> Command {
    command.args(ACCEPTED.iter().map(|flag| {
        let arg = Arg::new(flag.name)
            .long(flag.name)
            .help(format!("No effect: {}", flag.why))
            .help_heading("Accepted from Prometheus, without effect")
            .action(ArgAction::Set);
        match flag.default {
            Some(default) => arg.value_name("VALUE").default_value(default),
            None => super::switch_of(arg),
        }
    }))
}

/// The given ones, each with the reason why it does nothing.
pub(super) fn given(matches: &ArgMatches) -> Vec<(&'static str, &'static str)> {
    let from_user = |name: &str| matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine);
    ACCEPTED.iter().filter(|flag| from_user(flag.name)).map(|flag| (flag.name, flag.why)).collect()
}
