//! The operating system's files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use super::{AppendFile, Bytes, Disk, Entry, Mapping, SyncFile};

/// The real disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Real;

impl Disk for Real {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            // A file may vanish between the listing and the look at it.
            let Ok(meta) = entry.metadata() else { continue };
            let Ok(name) = entry.file_name().into_string() else { continue };
            let bytes = if meta.is_dir() { 0 } else { meta.len() };
            entries.push(Entry { name, is_dir: meta.is_dir(), bytes });
        }
        entries.sort_unstable();
        Ok(entries)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let _ = fs::remove_file(path);
        let file = OpenOptions::new().append(true).create_new(true).open(path)?;
        Ok(Box::new(RealFile(Arc::new(file))))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn read_at(&self, path: &Path, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(io::SeekFrom::Start(offset))?;
        let mut data = Vec::new();
        file.take(bytes as u64).read_to_end(&mut data)?;
        Ok(data)
    }

    #[expect(unsafe_code, reason = "memory-mapping is the one way to read blocks without copying them")]
    fn map(&self, path: &Path) -> io::Result<Mapping> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Mapping::from(Vec::new())); // an empty mapping is refused by the kernel
        }
        // SAFETY: the mapping is private to this process' use and read-only. It stays valid as long as
        // nobody shortens the file: the store never shortens a file that it has mapped (it replaces by
        // rename and unlinks), and the directory's lock file keeps other stores out. Bytes that change
        // under us cannot break memory safety here, as they are only ever read as plain bytes and every
        // reader checks bounds against the length taken at mapping time.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Mapping(Bytes::Mapped(Arc::new(map))))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_data()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

struct RealFile(Arc<File>);

impl AppendFile for RealFile {
    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        (&*self.0).write_all(data)
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn syncer(&self) -> io::Result<Arc<dyn SyncFile>> {
        Ok(Arc::new(RealSync(Arc::clone(&self.0))))
    }
}

struct RealSync(Arc<File>);

impl SyncFile for RealSync {
    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
