//! A disk in memory that fails on purpose.
//!
//! Model of a crash: every file is cut back to a length between what was synced and what was
//! appended, or filled with zeros from there on, and every name change that no
//! `sync_dir` made durable may or may not have happened.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{AppendFile, Disk, Entry, Mapping, SyncFile};

/// What shall go wrong, and when.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct Faults {
    /// After so many more bytes, appends fail with "no space left".
    pub space_bytes: Option<u64>,
    /// After so many more operations that change the disk, every one fails: the moment of the crash.
    pub operations: Option<u64>,
    /// The next sync fails.
    pub fail_sync: bool,
    /// A planted bug: syncs do nothing and say they did.
    pub ignore_sync: bool,
    /// A planted bug: names are never made durable.
    pub ignore_sync_dir: bool,
    /// A planted bug: files are not cut back after a failed write.
    pub ignore_truncate: bool,
    /// A planted bug: a checkpoint is said to stand for one segment more than it does.
    pub cut_too_far: bool,
}

#[derive(Debug, Default)]
struct Node {
    data: Vec<u8>,
    synced: usize,
}

type NodeRef = Arc<Mutex<Node>>;

#[derive(Debug, Default)]
struct State {
    /// Names as the process sees them.
    files: BTreeMap<PathBuf, NodeRef>,
    dirs: BTreeSet<PathBuf>,
    /// Names as they are on the platter.
    durable: BTreeMap<PathBuf, NodeRef>,
    locked: BTreeSet<PathBuf>,
    faults: Faults,
    /// How many random numbers were drawn.
    drawn: u64,
}

/// The disk. Clones share one content.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<State>>);

fn no_space() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "no space left on device (simulated)")
}

fn crashed() -> io::Error {
    io::Error::other("the machine has stopped (simulated)")
}

impl State {
    fn operation(&mut self) -> io::Result<()> {
        match &mut self.faults.operations {
            Some(0) => Err(crashed()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Memory {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what shall go wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// Whether the countdown to the crash has run out.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.lock().faults.operations == Some(0)
    }

    /// The disk as the next boot finds it after the power failed now. `random` yields the dice.
    ///
    /// # Panics
    /// Never; the arithmetic stays within the lengths of the files.
    #[must_use]
    pub fn after_power_cut(&self, random: &mut dyn FnMut() -> u64) -> Self {
        let state = self.0.lock();
        let mut next = State { dirs: state.dirs.clone(), drawn: state.drawn, ..State::default() };
        let names: BTreeSet<&PathBuf> = state.files.keys().chain(state.durable.keys()).collect();
        for path in names {
            let (seen, durable) = (state.files.get(path), state.durable.get(path));
            let same = matches!((seen, durable), (Some(a), Some(b)) if Arc::ptr_eq(a, b));
            let kept = if same || random().is_multiple_of(2) { durable } else { seen };
            let Some(node) = kept else { continue };
            let node = node.lock();
            let loose = node.data.len() - node.synced;
            let extra = usize::try_from(random() % (loose as u64 + 1)).unwrap_or(0);
            let mut data = node.data[..node.synced + extra].to_vec();
            if random().is_multiple_of(4) {
                // The length reached the disk, the data did not.
                data.resize(node.data.len(), 0);
            }
            let copy = Arc::new(Mutex::new(Node { synced: data.len(), data }));
            next.files.insert(path.clone(), Arc::clone(&copy));
            next.durable.insert(path.clone(), copy);
        }
        Self(Arc::new(Mutex::new(next)))
    }

    /// The disk as the next start finds it after the process alone was killed: nothing is lost.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let state = self.0.lock();
        let mut next = State { dirs: state.dirs.clone(), drawn: state.drawn, ..State::default() };
        for (path, node) in &state.files {
            let node = node.lock();
            let copy = Arc::new(Mutex::new(Node { data: node.data.clone(), synced: node.synced }));
            next.files.insert(path.clone(), Arc::clone(&copy));
        }
        for path in state.durable.keys() {
            if let Some(node) = next.files.get(path) {
                next.durable.insert(path.clone(), Arc::clone(node));
            }
        }
        Self(Arc::new(Mutex::new(next)))
    }

    /// Inverts one bit of a file.
    pub fn flip_bit(&self, path: &Path, bit: u64) {
        if let Some(node) = self.0.lock().files.get(path) {
            let mut node = node.lock();
            if !node.data.is_empty() {
                let at = usize::try_from(bit / 8 % node.data.len() as u64).unwrap_or(0);
                node.data[at] ^= 1 << (bit % 8);
            }
        }
    }

    /// All files with their lengths.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.0.lock();
        state.files.iter().map(|(path, node)| (path.clone(), node.lock().data.len() as u64)).collect()
    }

    fn node(&self, path: &Path) -> io::Result<NodeRef> {
        self.0.lock().files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for Memory {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operation()?;
        for dir in path.ancestors() {
            state.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let state = self.0.lock();
        if !state.dirs.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let name = |child: &Path| {
            (child.parent() == Some(path)).then(|| child.file_name()?.to_str().map(str::to_owned)).flatten()
        };
        let files = state.files.iter().filter_map(|(child, node)| {
            let bytes = node.lock().data.len() as u64;
            Some(Entry { name: name(child)?, is_dir: false, bytes })
        });
        let dirs =
            state.dirs.iter().filter_map(|child| Some(Entry { name: name(child)?, is_dir: true, bytes: 0 }));
        let mut entries: Vec<Entry> = files.chain(dirs).collect();
        entries.sort_unstable();
        Ok(entries)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let mut state = self.0.lock();
        state.operation()?;
        if path.parent().is_none_or(|parent| !state.dirs.contains(parent)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let node = NodeRef::default();
        state.files.insert(path.to_owned(), Arc::clone(&node));
        Ok(Box::new(MemoryFile { disk: self.clone(), node }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.node(path)?.lock().data.clone())
    }

    fn map(&self, path: &Path) -> io::Result<Mapping> {
        Ok(Mapping::from(self.read(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operation()?;
        let moved: Vec<PathBuf> = state.files.keys().filter(|path| path.starts_with(from)).cloned().collect();
        let moved_dirs: Vec<PathBuf> =
            state.dirs.iter().filter(|path| path.starts_with(from)).cloned().collect();
        if moved.is_empty() && moved_dirs.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let target = |path: &Path| match path.strip_prefix(from) {
            Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
            Ok(rest) => to.join(rest),
            Err(_) => path.to_owned(),
        };
        let is_dir = !moved_dirs.is_empty();
        let name = to.file_name().unwrap_or_default().to_string_lossy();
        if state.faults.cut_too_far
            && let Some(number) = name.strip_prefix("checkpoint.").and_then(|n| n.parse::<u64>().ok())
        {
            let next = to.with_file_name(format!("{:08}", number + 1));
            if let Some(node) = state.files.get(&next) {
                let mut node = node.lock();
                node.data.clear();
                node.synced = 0;
            }
        }
        for path in moved {
            if let Some(node) = state.files.remove(&path) {
                state.files.insert(target(&path), node);
            }
        }
        for path in moved_dirs {
            state.dirs.remove(&path);
            state.dirs.insert(target(&path));
        }
        if is_dir {
            // A renamed directory keeps its durable content; only its own name is in doubt. The model
            // settles that at once, as file systems journal directory renames in order.
            let durable: Vec<PathBuf> =
                state.durable.keys().filter(|path| path.starts_with(from)).cloned().collect();
            for path in durable {
                if let Some(node) = state.durable.remove(&path) {
                    state.durable.insert(target(&path), node);
                }
            }
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operation()?;
        state.files.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operation()?;
        if !state.dirs.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.files.retain(|file, _| !file.starts_with(path));
        state.dirs.retain(|dir| !dir.starts_with(path));
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operation()?;
        let node = state.files.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), node);
        Ok(())
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let node = self.node(path)?;
        MemorySync { disk: self.clone(), node }.sync()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operation()?;
        if state.faults.ignore_sync_dir {
            return Ok(());
        }
        let State { files, durable, dirs, .. } = &mut *state;
        durable.retain(|file, _| file.parent() != Some(path) || files.contains_key(file));
        // Removing a directory removes what was below it.
        durable.retain(|file, _| {
            !file.starts_with(path) || file.parent().is_some_and(|parent| dirs.contains(parent))
        });
        for (file, node) in files {
            if file.parent() == Some(path) {
                durable.insert(file.clone(), Arc::clone(node));
            }
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.0.lock();
        if !state.locked.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemoryLock(self.clone(), path.to_owned())))
    }

    fn random(&self) -> u64 {
        let mut state = self.0.lock();
        state.drawn += 1;
        // The finalizer of SplitMix64.
        let mut z = state.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

struct MemoryLock(Memory, PathBuf);

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.0.0.lock().locked.remove(&self.1);
    }
}

struct MemoryFile {
    disk: Memory,
    node: NodeRef,
}

impl AppendFile for MemoryFile {
    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.operation()?;
        let mut node = self.node.lock();
        if let Some(space) = &mut state.faults.space_bytes {
            let fits = data.len().min(usize::try_from(*space).unwrap_or(usize::MAX));
            *space -= fits as u64;
            node.data.extend_from_slice(&data[..fits]);
            return if fits < data.len() { Err(no_space()) } else { Ok(()) };
        }
        node.data.extend_from_slice(data);
        Ok(())
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.operation()?;
        if state.faults.ignore_truncate {
            return Ok(());
        }
        let mut node = self.node.lock();
        node.data.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        node.synced = node.synced.min(node.data.len());
        Ok(())
    }

    fn syncer(&self) -> io::Result<Arc<dyn SyncFile>> {
        Ok(Arc::new(MemorySync { disk: self.disk.clone(), node: Arc::clone(&self.node) }))
    }
}

struct MemorySync {
    disk: Memory,
    node: NodeRef,
}

impl SyncFile for MemorySync {
    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.operation()?;
        if std::mem::take(&mut state.faults.fail_sync) {
            return Err(io::Error::other("input/output error (simulated)"));
        }
        if !state.faults.ignore_sync {
            let mut node = self.node.lock();
            node.synced = node.data.len();
        }
        Ok(())
    }
}
