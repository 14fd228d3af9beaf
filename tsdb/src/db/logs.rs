//! Where commits are written, and where they wait while the disk is full.
//!
//! A full disk must not blind whoever watches the machine that has it. So a commit that finds no space is taken
//! all the same: it is visible, and its records wait in memory, in order, up to [`Options::backlog_bytes_max`].
//! They are written before anything else is, by the first commit, sync or step of maintenance that finds
//! space. Until then a crash loses them, with everything after them, and [`Stats`] says how many samples those are.
//!
//! [`Options::backlog_bytes_max`]: crate::Options::backlog_bytes_max
//! [`Stats`]: crate::Stats

use std::collections::VecDeque;
use std::io;

use crate::error::CommitError;
use crate::wal::Wal;

/// What a commit that waits takes besides its records.
const COMMIT_BYTES: usize = 128;

/// Where commits are written.
pub(crate) struct Logs {
    pub(crate) wal: Wal,
    /// The log of late samples, where they are allowed.
    pub(crate) late: Option<Wal>,
    backlog: Backlog,
}

/// Commits that found the disk full, oldest first.
struct Backlog {
    commits: VecDeque<Commit>,
    bytes: usize,
    bytes_max: usize,
    samples: u64,
}

/// The records of one commit.
struct Commit {
    records: Vec<Box<[u8]>>,
    late: Vec<Box<[u8]>>,
    samples: u64,
    bytes: usize,
}

/// Where a commit is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// In the log: it survives `kill -9`.
    Logged,
    /// In memory, as the disk is full.
    Waits,
}

/// Why a commit was not taken on a full disk.
#[derive(Debug, thiserror::Error)]
#[error("no space left on device, and {bytes} bytes of commits wait for some already")]
struct TooManyWait {
    bytes: usize,
}

impl Logs {
    pub(crate) fn new(wal: Wal, late: Option<Wal>, backlog_bytes_max: usize) -> Self {
        let backlog =
            Backlog { commits: VecDeque::new(), bytes: 0, bytes_max: backlog_bytes_max, samples: 0 };
        Self { wal, late, backlog }
    }

    pub(crate) fn all(&mut self) -> impl Iterator<Item = &mut Wal> {
        std::iter::once(&mut self.wal).chain(&mut self.late)
    }

    /// Samples that are in memory only.
    pub(crate) fn waiting_samples(&self) -> u64 {
        self.backlog.samples
    }

    /// Writes the records of a commit of so many samples; `late` go to the log of late samples.
    pub(crate) fn commit(
        &mut self,
        records: &[&[u8]],
        late: &[&[u8]],
        samples: u64,
    ) -> Result<Written, CommitError> {
        let written = self.catch_up().and_then(|()| self.write(records, late));
        match written {
            Err(error) if error.is_full() => self.backlog.keep(&self.wal, (records, late, samples), error),
            written => written.map(|()| Written::Logged),
        }
    }

    fn write<T: AsRef<[u8]>>(&mut self, records: &[T], late: &[T]) -> Result<(), CommitError> {
        let Self { wal, late: late_log, .. } = self;
        let end = wal.end();
        let records = records.iter().map(AsRef::as_ref);
        wal.append(records).map_err(|source| CommitError { path: wal.path(), source })?;
        if let Some(log) = late_log {
            log.append(late.iter().map(AsRef::as_ref)).map_err(|source| {
                wal.undo(end);
                CommitError { path: log.path(), source }
            })?;
        }
        Ok(())
    }

    /// Writes what waits. Nothing else may be written to the logs before.
    pub(crate) fn catch_up(&mut self) -> Result<(), CommitError> {
        while let Some(commit) = self.backlog.commits.pop_front() {
            if let Err(error) = self.write(&commit.records, &commit.late) {
                self.backlog.commits.push_front(commit);
                return Err(error);
            }
            self.backlog.bytes -= commit.bytes;
            self.backlog.samples -= commit.samples;
            if self.backlog.commits.is_empty() {
                self.backlog.commits = VecDeque::new();
                tracing::info!("there is space on the disk again, and what waited for it is in the log");
            }
        }
        Ok(())
    }

    /// Makes all commits durable.
    pub(crate) fn sync(&mut self) -> Result<(), CommitError> {
        self.all().try_for_each(|log| log.sync().map_err(|source| CommitError { path: log.path(), source }))
    }
}

impl Backlog {
    /// Keeps a commit that could not be written because of `error`.
    fn keep(
        &mut self,
        wal: &Wal,
        (records, late, samples): (&[&[u8]], &[&[u8]], u64),
        error: CommitError,
    ) -> Result<Written, CommitError> {
        // Where a torn write could not be taken back, nothing can be written before a restart.
        wal.check().map_err(|source| CommitError { path: wal.path(), source })?;
        let bytes = records.iter().chain(late).fold(COMMIT_BYTES, |bytes, record| bytes + record.len() + 16);
        if self.bytes + bytes > self.bytes_max {
            let too_many = TooManyWait { bytes: self.bytes };
            let source = if self.bytes_max == 0 { error.source } else { full(too_many) };
            return Err(CommitError { source, ..error });
        }
        if self.commits.is_empty() {
            tracing::warn!(%error, "the disk is full; samples are kept in memory until there is space");
        }
        let owned = |records: &[&[u8]]| records.iter().map(|&record| record.into()).collect();
        self.commits.push_back(Commit { records: owned(records), late: owned(late), samples, bytes });
        self.bytes += bytes;
        self.samples += samples;
        Ok(Written::Waits)
    }
}

fn full(error: TooManyWait) -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, error)
}
