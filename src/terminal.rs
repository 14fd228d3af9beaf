//! What a person at a terminal sees: the progress of start-up, and five lines once it is done.

use std::io::{IsTerminal, Write};

use tsdb::Progress;

/// One line on a terminal that is overwritten as work goes on; silent elsewhere.
pub(crate) struct ProgressLine {
    shown: bool,
    is_terminal: bool,
}

impl ProgressLine {
    pub(crate) fn new() -> Self {
        Self { shown: false, is_terminal: std::io::stderr().is_terminal() }
    }

    pub(crate) fn show(&mut self, progress: Progress) {
        self.print(&text(progress));
    }

    fn print(&mut self, text: &str) {
        if self.is_terminal {
            self.shown = true;
            eprint!("\r\x1b[K{text}");
            let _ = std::io::stderr().flush();
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            eprint!("\r\x1b[K");
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A bar on a terminal; silent elsewhere.
pub(crate) struct ProgressBar {
    line: ProgressLine,
    what: &'static str,
}

impl ProgressBar {
    /// `what` is done, one after the other.
    pub(crate) fn new(what: &'static str) -> Self {
        Self { line: ProgressLine::new(), what }
    }

    pub(crate) fn show(&mut self, done: u64, total: u64) {
        const CELLS: u64 = 30;
        let filled = (done * CELLS).checked_div(total).unwrap_or(0);
        let bar: String = (0..CELLS).map(|cell| if cell < filled { '#' } else { '.' }).collect();
        self.line.print(&format!("[{bar}] {done} of {total} {}", self.what));
    }

    /// Makes room for other output.
    pub(crate) fn clear(&mut self) {
        self.line.clear();
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
    /// What becomes of the samples.
    pub(crate) kept: String,
}

impl Greeting<'_> {
    pub(crate) fn print(&self) {
        let Self { version, scrapes, url, kept } = self;
        println!("Pyrometer {version}");
        println!("Scraping  {scrapes}");
        println!("Open      {url}/");
        println!("Try       kubectl --server {url} top pods -A");
        println!("Stop      with Ctrl-C; {kept}");
    }
}
