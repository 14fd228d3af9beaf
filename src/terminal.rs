//! What a person at a terminal sees: the progress of start-up, and five lines once it is done.

use std::io::{IsTerminal, Write};

use tsdb::Progress;

/// One line on a terminal that is overwritten as opening goes on; silent elsewhere.
pub(crate) struct ProgressLine {
    shown: bool,
    is_terminal: bool,
}

impl ProgressLine {
    pub(crate) fn new() -> Self {
        Self { shown: false, is_terminal: std::io::stderr().is_terminal() }
    }

    pub(crate) fn show(&mut self, progress: Progress) {
        if self.is_terminal {
            self.shown = true;
            eprint!("\r\x1b[K{}", text(progress));
            let _ = std::io::stderr().flush();
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

fn text(progress: Progress) -> String {
    match progress {
        Progress::Blocks { done, total } => format!("opening blocks: {done} of {total}"),
        Progress::Wal { segment, first, last } => {
            format!(
                "replaying the log: segment {segment}, {} of {}",
                segment + 1 - first.min(segment),
                last + 1 - first
            )
        }
        #[allow(unreachable_patterns, reason = "the store may learn new stages")]
        _ => "opening the store".to_owned(),
    }
}

/// The lines printed once the server answers.
pub(crate) struct Greeting<'a> {
    pub(crate) version: &'a str,
    pub(crate) scrapes: String,
    pub(crate) url: String,
    pub(crate) data_dir: String,
}

impl Greeting<'_> {
    pub(crate) fn print(&self) {
        let Self { version, scrapes, url, data_dir } = self;
        println!("Pyrometer {version}");
        println!("Scraping  {scrapes}");
        println!("Open      {url}/");
        println!("Try       kubectl --server {url} top pods -A");
        println!("Stop      with Ctrl-C; samples are kept in {data_dir}");
    }
}
