//! The place in the log before which everything is done, in a file.
//!
//! The file is two numbers in text, `segment offset`, replaced as a whole.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tsdb::{CommitError, Position};

/// The file is written no more often than this.
const WRITE_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Cursor {
    path: PathBuf,
    written: Option<Position>,
    written_at: Instant,
}

impl Cursor {
    /// Reads the file, if there is one.
    pub(super) fn open(path: &Path) -> Result<Self, CommitError> {
        let at = |source| CommitError { path: path.to_owned(), source };
        let written = match std::fs::read_to_string(path) {
            Ok(text) => Some(parse(&text).ok_or_else(|| at(std::io::ErrorKind::InvalidData.into()))?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(at(error)),
        };
        Ok(Self { path: path.to_owned(), written, written_at: Instant::now() })
    }

    /// Where an earlier run was done.
    pub(super) fn position(&self) -> Option<Position> {
        self.written
    }

    /// Keeps `done`, if it is time for that or `now` is demanded.
    pub(super) fn keep(&mut self, done: Position, now: bool) {
        if self.written == Some(done) || !now && self.written_at.elapsed() < WRITE_EVERY {
            return;
        }
        self.written_at = Instant::now();
        match self.write(done) {
            Ok(()) => self.written = Some(done),
            Err(error) => tracing::error!("remote write: {}: {error}", self.path.display()),
        }
    }

    fn write(&self, done: Position) -> std::io::Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let fresh = self.path.with_extension("tmp");
        std::fs::write(&fresh, format!("{} {}\n", done.segment, done.offset))?;
        std::fs::rename(&fresh, &self.path)
    }
}

fn parse(text: &str) -> Option<Position> {
    let (segment, offset) = text.trim().split_once(' ')?;
    Some(Position { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
}
