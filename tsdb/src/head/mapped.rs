//! Closed chunks of the head on disk, mapped: the `chunks_head` directory. Drawn in `docs/format.md`,
//! section "Head chunk files".
//!
//! The files save memory and the work of replay; the log has every sample too, so they need not be
//! durable, also when they are found at opening, only without gaps: a chunk that is found hides what the log has before it. So a file is
//! durable before the next one is begun, and the directory before the first byte of a file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use model::Timestamp;
use parking_lot::{Mutex, RwLock};

use crate::chunk::Encoding;
use crate::codec::bytes::{Bytes, Put};
use crate::codec::{Malformed, crc};
use crate::disk::{AppendFile, Disk, Mapping};
use crate::error::IoError;

pub(crate) const DIR: &str = "chunks_head";
const MAGIC: u32 = 0x0130_BC91;
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 8;
/// A file is not grown beyond this.
const FILE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Series reference, minimum, maximum, encoding.
const CHUNK_HEADER_BYTES: usize = 8 + 8 + 8 + 1;
/// The encoding's top bit marks a chunk of late samples.
const OUT_OF_ORDER: u8 = 0x80;

/// Where a mapped chunk is and which time it covers, in 16 bytes: 43 bits of time in milliseconds
/// since the epoch (to the year 2248), 32 bits of span (49 days), 24 bits of file number, 27 bits of
/// offset. A chunk that does not fit stays in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MappedRef([u64; 2]);

impl MappedRef {
    fn pack(min: Timestamp, max: Timestamp, file: u32, offset: usize) -> Option<Self> {
        let time = u128::try_from(min).ok().filter(|&min| min < 1 << 43)?;
        let span = u32::try_from(max.checked_sub(min)?).ok()?;
        let offset = u32::try_from(offset).ok().filter(|&offset| offset < 1 << 27)?;
        if file >= 1 << 24 {
            return None;
        }
        let packed = time << 83 | u128::from(span) << 51 | u128::from(file) << 27 | u128::from(offset);
        let [high, low] = [packed >> 64, packed & u128::from(u64::MAX)].map(u64::try_from);
        Some(Self([high.ok()?, low.ok()?]))
    }

    /// Whether a chunk of this span can be mapped at all.
    pub(crate) fn can_hold(min: Timestamp, max: Timestamp) -> bool {
        Self::pack(min, max, 0, 0).is_some()
    }

    fn bits(self, shift: u32, width: u32) -> u64 {
        let packed = u128::from(self.0[0]) << 64 | u128::from(self.0[1]);
        u64::try_from(packed >> shift & ((1 << width) - 1)).unwrap_or(0)
    }

    pub(crate) fn min(self) -> Timestamp {
        self.bits(83, 43).cast_signed()
    }

    pub(crate) fn max(self) -> Timestamp {
        self.min() + self.bits(51, 32).cast_signed()
    }

    fn file(self) -> u32 {
        u32::try_from(self.bits(27, 24)).unwrap_or(0)
    }

    fn offset(self) -> usize {
        usize::try_from(self.bits(0, 27)).unwrap_or(0)
    }
}

/// The bytes of a mapped chunk.
#[derive(Clone)]
pub(crate) struct MappedChunk {
    file: Mapping,
    data: Range<usize>,
    pub(crate) encoding: Encoding,
}

impl MappedChunk {
    pub(crate) fn data(&self) -> &[u8] {
        &self.file[self.data.clone()]
    }
}

/// A chunk to be written.
pub(crate) struct Unmapped {
    pub(crate) wal_ref: u64,
    pub(crate) min: Timestamp,
    pub(crate) max: Timestamp,
    pub(crate) encoding: Encoding,
    pub(crate) data: Box<[u8]>,
}

/// Chunks found at opening, by the log's name of their series, oldest first.
pub(crate) type Found = HashMap<u64, Vec<MappedRef>>;

struct File {
    map: Mapping,
    newest: Timestamp,
}

struct Current {
    number: u32,
    file: Box<dyn AppendFile>,
    bytes: usize,
}

/// The files.
pub(crate) struct MappedChunks {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    files: RwLock<BTreeMap<u32, File>>,
    current: Mutex<Option<Current>>,
}

impl MappedChunks {
    /// The files in `dir`, which is created.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, IoError> {
        disk.create_dir_all(dir).map_err(IoError::at(dir))?;
        Ok(Self::none(disk, dir))
    }

    /// No directory, for a head that has no chunks.
    pub(crate) fn none(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self { disk, dir: dir.to_owned(), files: RwLock::default(), current: Mutex::new(None) }
    }

    /// Whether there is any file.
    pub(crate) fn any(&self) -> Result<bool, IoError> {
        Ok(!self.numbers()?.is_empty())
    }

    fn numbers(&self) -> Result<Vec<u32>, IoError> {
        let entries = self.disk.list(&self.dir).map_err(IoError::at(&self.dir))?;
        let mut numbers: Vec<u32> = entries.iter().filter_map(|entry| entry.name.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Reads the directory. A file that cannot be read to its end is deleted with all later ones: the log has
    /// what they have.
    pub(crate) fn load(&self) -> Result<Found, IoError> {
        let mut found = Found::new();
        // Series with a chunk that cannot be adopted: the log has it, but only as long as no later one hides it.
        let mut unfit = HashSet::new();
        let mut damaged: Option<Malformed> = None;
        for number in self.numbers()? {
            let path = path_of(&self.dir, number);
            let last = self.files.read().last_key_value().map(|(&last, _)| last);
            if damaged.is_none() && last.is_some_and(|last| last + 1 != number) {
                damaged = Some(Malformed("the file before this one is missing"));
            }
            if damaged.is_none() {
                let map = self.disk.map(&path).map_err(IoError::at(&path))?;
                let mut newest = i64::MIN;
                let read = scan(&map, number, &mut |series, reference| match reference {
                    Some(reference) if !unfit.contains(&series) => {
                        newest = newest.max(reference.max());
                        found.entry(series).or_default().push(reference);
                    }
                    Some(_) => {}
                    None => drop(unfit.insert(series)),
                });
                if let Err(Malformed(what)) = read {
                    // What was read of it is not used either, so that a series keeps all or none.
                    for chunks in found.values_mut() {
                        chunks.retain(|chunk| chunk.file() != number);
                    }
                    damaged = Some(Malformed(what));
                } else {
                    self.files.write().insert(number, File { map, newest });
                }
            }
            if let Some(Malformed(what)) = damaged {
                tracing::warn!(path = %path.display(), what, "head chunks deleted; the log has their samples");
                self.disk.remove_file(&path).map_err(IoError::at(&path))?;
            }
        }
        Ok(found)
    }

    /// Writes chunks and maps them. A chunk that does not fit the packed form is `None` and stays where
    /// it is.
    pub(crate) fn write(&self, chunks: &[Unmapped]) -> Result<Vec<Option<MappedRef>>, IoError> {
        let mut current = self.current.lock();
        let mut references = Vec::with_capacity(chunks.len());
        let (mut pending, mut newest) = (Vec::new(), i64::MIN);
        for chunk in chunks {
            let bytes = CHUNK_HEADER_BYTES + 10 + chunk.data.len() + 4;
            let full =
                current.as_ref().is_none_or(|file| file.bytes + pending.len() + bytes > FILE_BYTES_MAX);
            if full {
                self.flush(&mut current, &mut pending, newest)?;
                let next = self.next_file()?;
                *current = Some(next);
                newest = i64::MIN;
            }
            let Some(file) = current.as_ref() else { break };
            let offset = file.bytes + pending.len();
            let reference = MappedRef::pack(chunk.min, chunk.max, file.number, offset);
            if reference.is_some() {
                encode(&mut pending, chunk);
                newest = newest.max(chunk.max);
            }
            references.push(reference);
        }
        self.flush(&mut current, &mut pending, newest)?;
        Ok(references)
    }

    fn next_file(&self) -> Result<Current, IoError> {
        let last = self.files.read().last_key_value().map(|(&last, _)| last);
        if let Some(last) = last {
            // It may be of a process that was killed.
            let path = path_of(&self.dir, last);
            self.disk.sync_file(&path).map_err(IoError::at(&path))?;
        }
        let number = last.map_or(1, |last| last + 1);
        let path = path_of(&self.dir, number);
        let mut file = self.disk.create(&path).map_err(IoError::at(&path))?;
        self.disk.sync_dir(&self.dir).map_err(IoError::at(&self.dir))?;
        let mut header = Vec::new();
        header.put_u32(MAGIC);
        header.extend_from_slice(&[VERSION, 0, 0, 0]);
        file.append(&header).map_err(IoError::at(&path))?;
        let map = self.disk.map(&path).map_err(IoError::at(&path))?;
        self.files.write().insert(number, File { map, newest: i64::MIN });
        Ok(Current { number, file, bytes: HEADER_BYTES })
    }

    fn flush(
        &self,
        current: &mut Option<Current>,
        pending: &mut Vec<u8>,
        newest: Timestamp,
    ) -> Result<(), IoError> {
        let Some(file) = current.as_mut().filter(|_| !pending.is_empty()) else { return Ok(()) };
        let path = path_of(&self.dir, file.number);
        if let Err(source) = file.file.append(pending) {
            // The next chunk goes to a new file; this one ends where it was good.
            let cut = file.file.truncate(file.bytes as u64);
            file.bytes = FILE_BYTES_MAX;
            return cut.and(Err(source)).map_err(IoError::at(&path));
        }
        file.bytes += pending.len();
        pending.clear();
        let map = self.disk.map(&path).map_err(IoError::at(&path))?;
        if let Some(known) = self.files.write().get_mut(&file.number) {
            known.map = map;
            known.newest = known.newest.max(newest);
        }
        Ok(())
    }

    /// The chunk at `reference`, its checksum verified.
    pub(crate) fn chunk(&self, reference: MappedRef) -> Result<MappedChunk, Malformed> {
        let files = self.files.read();
        let file = files.get(&reference.file()).ok_or(Malformed("head chunk file is missing"))?;
        let map = file.map.clone();
        drop(files);
        let rest = map.get(reference.offset()..).ok_or(Malformed("head chunk lies outside its file"))?;
        let (chunk, _) = decode(rest)?;
        let start = reference.offset() + chunk.data_at;
        let (data, encoding) = (start..start + chunk.data_bytes, Encoding::from_byte(chunk.encoding)?);
        Ok(MappedChunk { file: map, data, encoding })
    }

    /// Deletes files that have no sample at or after `min`.
    pub(crate) fn truncate(&self, min: Timestamp) -> Result<(), IoError> {
        let current = self.current.lock();
        let writing = current.as_ref().map(|file| file.number);
        let mut files = self.files.write();
        // From the front only: a gap would look like damage.
        while let Some(first) = files.first_entry() {
            if first.get().newest >= min || Some(*first.key()) == writing {
                break;
            }
            let path = path_of(&self.dir, *first.key());
            self.disk.remove_file(&path).map_err(IoError::at(&path))?;
            first.remove();
        }
        Ok(())
    }
}

fn path_of(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:06}"))
}

fn encode(out: &mut Vec<u8>, chunk: &Unmapped) {
    let start = out.len();
    out.put_u64(chunk.wal_ref);
    out.put_i64(chunk.min);
    out.put_i64(chunk.max);
    out.push(chunk.encoding as u8);
    out.put_uvarint(chunk.data.len() as u64);
    out.extend_from_slice(&chunk.data);
    out.put_crc_since(start);
}

struct Decoded {
    series: u64,
    min: Timestamp,
    max: Timestamp,
    encoding: u8,
    data_at: usize,
    data_bytes: usize,
}

/// Reads one chunk and its length on disk.
fn decode(data: &[u8]) -> Result<(Decoded, usize), Malformed> {
    let mut bytes = Bytes::new(data);
    let (series, min, max, encoding) = (bytes.u64()?, bytes.i64()?, bytes.i64()?, bytes.u8()?);
    let data_bytes = bytes.count()?;
    let data_at = data.len() - bytes.rest().len();
    bytes.take(data_bytes)?;
    let end = data_at + data_bytes;
    if crc(&data[..end]) != bytes.u32()? {
        return Err(Malformed("head chunk checksum mismatch"));
    }
    Ok((Decoded { series, min, max, encoding, data_at, data_bytes }, end + 4))
}

/// Calls `visit` with the series and place of every chunk of a file that came in order; without a place where its
/// time or encoding is not one that can be adopted. Zeros up to the end are where nothing was written.
pub(crate) fn scan(
    file: &[u8],
    number: u32,
    visit: &mut dyn FnMut(u64, Option<MappedRef>),
) -> Result<(), Malformed> {
    if file.iter().all(|&byte| byte == 0) {
        return Ok(());
    }
    let mut header = Bytes::new(file);
    if header.u32()? != MAGIC || header.u8()? != VERSION || file.len() < HEADER_BYTES {
        return Err(Malformed("not a head chunk file of version 1"));
    }
    let mut at = HEADER_BYTES;
    while at < file.len() {
        let rest = &file[at..];
        if rest.iter().take(CHUNK_HEADER_BYTES).all(|&byte| byte == 0) {
            let clean = rest.iter().all(|&byte| byte == 0);
            return if clean { Ok(()) } else { Err(Malformed("data after zeros in a head chunk file")) };
        }
        let (chunk, bytes) = decode(rest)?;
        if chunk.encoding & OUT_OF_ORDER == 0 {
            let packed = MappedRef::pack(chunk.min, chunk.max, number, at);
            visit(chunk.series, packed.filter(|_| Encoding::from_byte(chunk.encoding).is_ok()));
        }
        at += bytes;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::memory::Memory;

    fn chunk(series: u64, min: i64) -> Unmapped {
        let data = vec![7; 50].into();
        Unmapped { wal_ref: series, min, max: min + 99, encoding: Encoding::Xor, data }
    }

    #[test]
    fn references_hold_their_parts() {
        let reference = MappedRef::pack(1_795_236_505_000, 1_795_236_505_000 + 7_200_000, 4711, 99_999_999);
        let reference = reference.unwrap();
        assert_eq!(reference.min(), 1_795_236_505_000);
        assert_eq!(reference.max(), 1_795_243_705_000);
        assert_eq!((reference.file(), reference.offset()), (4711, 99_999_999));
        assert_eq!(MappedRef::pack(-1, 0, 1, 8), None);
        assert_eq!(MappedRef::pack(0, 1 << 32, 1, 8), None);
    }

    #[test]
    fn a_chunk_that_cannot_be_adopted_hides_no_log() {
        let mut file = Vec::new();
        file.put_u32(MAGIC);
        file.extend_from_slice(&[VERSION, 0, 0, 0]);
        for (series, min) in [(1, 0), (2, 0), (1, -1000), (1, 100), (2, 100)] {
            encode(&mut file, &chunk(series, min));
        }
        let disk = Memory::new();
        disk.create_dir_all(Path::new("/c")).unwrap();
        crate::disk::write_atomically(&disk, Path::new("/c/000001"), &file).unwrap();
        let found = MappedChunks::open(Arc::new(disk), Path::new("/c")).unwrap().load().unwrap();
        assert_eq!((found[&1].len(), found[&2].len()), (1, 2));
    }

    #[test]
    fn chunks_are_found_again_and_a_torn_file_is_left_out() {
        let (disk, dir) = (Memory::new(), Path::new("/chunks_head"));
        let open = || {
            let files = MappedChunks::open(Arc::new(disk.clone()), dir).unwrap();
            let found = files.load().unwrap();
            (files, found)
        };
        let (files, found) = open();
        assert!(found.is_empty());
        let written = files.write(&[chunk(1, 0), chunk(2, 0), chunk(1, 100)]).unwrap();
        let read = files.chunk(written[2].unwrap()).unwrap();
        assert_eq!((read.encoding, read.data()), (Encoding::Xor, &[7; 50][..]));
        let (files, found) = open();
        assert_eq!(found[&1], [written[0].unwrap(), written[2].unwrap()]);
        let second = files.write(&[chunk(1, 200)]).unwrap();
        disk.flip_bit(&path_of(dir, 2), 300);
        let (_, found) = open();
        assert_eq!(found[&1].len(), 2);
        assert!(!found[&1].contains(&second[0].unwrap()));
        let (files, _) = open();
        files.truncate(150).unwrap();
        assert_eq!(files.files.read().len(), 1);
        files.truncate(200).unwrap();
        assert!(disk.files().is_empty());
    }
}
