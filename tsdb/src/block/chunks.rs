//! The chunk segments of a block. Drawn in `docs/format.md`, section "Chunk segments".

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::chunk::{Chunk, Encoding};
use crate::codec::bytes::{Bytes, Put};
use crate::codec::{Malformed, crc};
use crate::disk::{AppendFile, Disk, Mapping};

const MAGIC: u32 = 0x85BD_40DD;
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 8;
/// A segment is not grown beyond this.
const SEGMENT_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Bytes gathered before they are written.
const FLUSH_BYTES: usize = 1 << 20;

/// The path of segment `number`, counted from 0, in the `chunks` directory `dir`.
pub(crate) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{:06}", number + 1))
}

/// The mapped segments of a block.
pub(crate) struct Reader {
    dir: PathBuf,
    segments: Vec<Mapping>,
}

impl Reader {
    /// Maps all segments in `dir`.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let list = disk.list(dir).map_err(|error| (dir.to_owned(), error))?;
        let mut segments = Vec::new();
        for entry in list.iter().filter(|entry| entry.name.bytes().all(|byte| byte.is_ascii_digit())) {
            let path = dir.join(&entry.name);
            let wrong = |what| (path.clone(), io::Error::new(io::ErrorKind::InvalidData, what));
            if path != segment_path(dir, segments.len() as u64) {
                return Err(wrong("a chunk segment before this one is missing"));
            }
            let map = disk.map(&path).map_err(|error| (path.clone(), error))?;
            let mut header = Bytes::new(&map);
            if header.u32() != Ok(MAGIC) || header.u8() != Ok(VERSION) || map.len() < HEADER_BYTES {
                return Err(wrong("not a chunk segment of version 1"));
            }
            segments.push(map);
        }
        Ok(Self { dir: dir.to_owned(), segments })
    }

    /// The path of the segment that `reference` points into.
    pub(crate) fn path_of(&self, reference: u64) -> PathBuf {
        segment_path(&self.dir, reference >> 32)
    }

    /// The chunk at `reference`, its checksum verified.
    pub(crate) fn chunk(&self, reference: u64) -> Result<(Encoding, &[u8]), Malformed> {
        let missing = Malformed("chunk reference points outside the segments");
        let segment = usize::try_from(reference >> 32).ok().and_then(|number| self.segments.get(number));
        let at = usize::try_from(reference & u64::from(u32::MAX)).map_err(|_| missing)?;
        read(segment.and_then(|segment| segment.get(at..)).ok_or(missing)?)
    }
}

/// Reads `length encoding data CRC`.
pub(crate) fn read(data: &[u8]) -> Result<(Encoding, &[u8]), Malformed> {
    let mut bytes = Bytes::new(data);
    let length = bytes.count()?;
    let body = bytes.take(length + 1)?;
    if crc(body) != bytes.u32()? {
        return Err(Malformed("chunk checksum mismatch"));
    }
    Ok((Encoding::from_byte(body[0])?, &body[1..]))
}

/// Writes segments one after the other.
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file: Option<Box<dyn AppendFile>>,
    /// Segments begun.
    segments: u64,
    /// Bytes of the current segment, pending ones included.
    offset: u64,
    pending: Vec<u8>,
    total_bytes: u64,
}

impl Writer {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { disk, dir, file: None, segments: 0, offset: 0, pending: Vec::new(), total_bytes: 0 }
    }

    /// Writes a chunk and returns its reference.
    pub(crate) fn write(&mut self, chunk: &Chunk) -> io::Result<u64> {
        // Length, encoding, CRC: at most 10 + 1 + 4 bytes around the data.
        let bytes = chunk.data.len() as u64 + 15;
        if self.segments == 0 || self.offset + bytes > SEGMENT_BYTES_MAX {
            self.end_segment()?;
            self.file = Some(self.disk.create(&segment_path(&self.dir, self.segments))?);
            self.segments += 1;
            self.pending.put_u32(MAGIC);
            self.pending.extend_from_slice(&[VERSION, 0, 0, 0]);
            self.offset = HEADER_BYTES as u64;
        }
        let reference = (self.segments - 1) << 32 | self.offset;
        let before = self.pending.len();
        self.pending.put_uvarint(chunk.data.len() as u64);
        let start = self.pending.len();
        self.pending.push(chunk.encoding as u8);
        self.pending.extend_from_slice(&chunk.data);
        self.pending.put_crc_since(start);
        self.offset += (self.pending.len() - before) as u64;
        if self.pending.len() >= FLUSH_BYTES {
            self.flush()?;
        }
        Ok(reference)
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.append(&self.pending)?;
            self.total_bytes += self.pending.len() as u64;
        }
        self.pending.clear();
        Ok(())
    }

    fn end_segment(&mut self) -> io::Result<()> {
        self.flush()?;
        match self.file.take() {
            Some(file) => file.syncer()?.sync(),
            None => Ok(()),
        }
    }

    /// Makes all segments durable; returns their length.
    pub(crate) fn finish(mut self) -> io::Result<u64> {
        self.end_segment()?;
        Ok(self.total_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::memory::Memory;

    #[test]
    fn chunks_come_back_and_damage_is_noticed() {
        let disk = Memory::new();
        let dir = Path::new("/chunks");
        disk.create_dir_all(dir).unwrap();
        let mut writer = Writer::new(Arc::new(disk.clone()), dir.to_owned());
        let chunk =
            |n: u8| Chunk { min: 0, max: 1, encoding: Encoding::Xor, data: vec![n; usize::from(n)].into() };
        let references: Vec<u64> = (0..200).map(|n| writer.write(&chunk(n)).unwrap()).collect();
        assert_eq!(references[0], 8);
        writer.finish().unwrap();
        let reader = Reader::open(&disk, dir).unwrap();
        for (n, reference) in (0..200u8).zip(&references) {
            assert_eq!(reader.chunk(*reference).unwrap(), (Encoding::Xor, &*chunk(n).data));
        }
        assert!(reader.chunk(1 << 32).is_err());
        assert!(reader.chunk(9).is_err());
        disk.flip_bit(&segment_path(dir, 0), 8 * (references[100] + 5));
        let reader = Reader::open(&disk, dir).unwrap();
        assert_eq!(reader.chunk(references[100]), Err(Malformed("chunk checksum mismatch")));
    }
}
