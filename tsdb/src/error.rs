//! What can go wrong, by the operation that reports it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the directory.
    #[error("{}: locked by another process", .0.display())]
    Locked(PathBuf),
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Bytes are not what they must be, and going on would lose more than the user may want to lose.
    #[error("{}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what is lost with it.
        what: String,
    },
}

impl OpenError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn corrupt(path: &Path, what: &str) -> Self {
        Self::Corrupt { path: path.to_owned(), what: what.to_owned() }
    }
}

/// Why one sample was refused; the rest of the batch is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Older than what the head takes.
    #[error("out of bounds")]
    OutOfBounds,
    /// Older than the newest sample of its series.
    #[error("out of order sample")]
    OutOfOrder,
    /// The newest sample of the series has the same time and another value.
    #[error("duplicate sample for timestamp")]
    Duplicate,
    /// Older than the out-of-order window reaches.
    #[error("too old sample")]
    TooOld,
    /// The series has left the head, or never was in it.
    #[error("unknown series reference")]
    UnknownSeries,
    /// The head has as many series as it may have.
    #[error("series limit reached")]
    SeriesLimit,
    /// The exemplar's labels are too long.
    #[error("invalid exemplar")]
    InvalidExemplar,
    /// The histogram contradicts itself.
    #[error("invalid histogram")]
    InvalidHistogram,
}

/// Why a batch could not be made durable. None of it is visible then.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct CommitError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// The same shape for every operation that writes files.
pub(crate) type IoError = CommitError;

impl CommitError {
    /// Whether the disk, or the user's share of it, is full: it is worth trying again.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// For `map_err`: the error with the path it concerns.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self { path, source }
    }
}

impl From<CommitError> for OpenError {
    fn from(CommitError { path, source }: CommitError) -> Self {
        Self::Io { path, source }
    }
}
