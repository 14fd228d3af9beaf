//! The seam through which every byte reaches the disk and comes back.
//!
//! [`Real`](real::Real) is the operating system. [`Memory`](memory::Memory) is its twin for tests: it
//! forgets what was not synced, tears writes, runs out of space and flips bits, all by seed.

pub mod memory;
pub mod real;

use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name within the directory.
    pub name: String,
    /// Whether it is a directory itself.
    pub is_dir: bool,
    /// Length in bytes; 0 for a directory.
    pub bytes: u64,
}

/// Everything the store asks of a file system.
pub trait Disk: Send + Sync {
    /// Creates a directory and its parents.
    ///
    /// # Errors
    /// As the operating system reports them; so for every method here.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The entries of a directory, ascending by name.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// Creates (or empties) a file for appending.
    fn create(&self, path: &Path) -> io::Result<Box<dyn AppendFile>>;
    /// The whole content, copied.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Up to `bytes` of the content from `offset` on, copied.
    fn read_at(&self, path: &Path, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let all = self.read(path)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(all.len());
        Ok(all[start..].iter().take(bytes).copied().collect())
    }
    /// The whole content, mapped. The file must not shrink while the mapping lives.
    fn map(&self, path: &Path) -> io::Result<Mapping>;
    /// Renames a file or a directory, replacing a file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with all it contains.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Gives a file a second name.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the content of a file durable, whoever wrote it.
    fn sync_file(&self, path: &Path) -> io::Result<()>;
    /// Makes names created, renamed and removed in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Locks a file, creating it, until the guard is dropped; `WouldBlock` if it is locked.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// A number for a name that nothing else has. A simulated disk yields the same ones in every run.
    fn random(&self) -> u64 {
        use std::hash::{BuildHasher as _, RandomState};
        RandomState::new().hash_one(0)
    }
}

/// A file that grows at its end.
pub trait AppendFile: Send + Sync {
    /// Appends all of `data` by one write.
    ///
    /// # Errors
    /// As the operating system reports them; a part may have been written.
    fn append(&mut self, data: &[u8]) -> io::Result<()>;
    /// Cuts the file to `bytes`.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
    /// A second handle that can sync while the first appends.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn syncer(&self) -> io::Result<Arc<dyn SyncFile>>;
}

/// Makes what was appended durable.
pub trait SyncFile: Send + Sync {
    /// Everything appended before the call is durable after it.
    ///
    /// # Errors
    /// As the operating system reports them. What was not durable before may be lost for good.
    fn sync(&self) -> io::Result<()>;
}

/// The bytes of a file, mapped or copied.
#[derive(Clone)]
pub struct Mapping(Bytes);

#[derive(Clone)]
enum Bytes {
    Mapped(Arc<memmap2::Mmap>),
    Copied(Arc<[u8]>),
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Mapped(map) => map,
            Bytes::Copied(data) => data,
        }
    }
}

impl From<Vec<u8>> for Mapping {
    fn from(data: Vec<u8>) -> Self {
        Self(Bytes::Copied(data.into()))
    }
}

/// Writes a small file so that it is either the old or the new one after a crash.
pub(crate) fn write_atomically(disk: &dyn Disk, path: &Path, data: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let tmp = path.with_file_name(name);
    let written = disk.create(&tmp).and_then(|mut file| {
        file.append(data)?;
        file.syncer()?.sync()
    });
    if let Err(error) = written.and_then(|()| disk.rename(&tmp, path)) {
        // A full disk must not get fuller.
        let _ = disk.remove_file(&tmp);
        return Err(error);
    }
    disk.sync_dir(path.parent().unwrap_or(Path::new("/")))
}
