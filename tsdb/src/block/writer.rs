//! Writes a block so that it is either whole or not there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ulid::Ulid;

use super::meta::Meta;
use super::tombstones::Tombstones;
use super::{CHUNKS_DIR, INDEX_FILE, META_FILE, TMP_SUFFIX, TOMBSTONES_FILE, chunks};
use crate::chunk::{self, Chunk, Encoding};
use crate::disk::{AppendFile, Disk};
use crate::error::IoError;
use crate::index::ChunkMeta;
use crate::index::writer::{WriteError, Writer as IndexWriter};

type IndexSink = Box<dyn FnMut(&[u8]) -> std::io::Result<()>>;

/// A block under construction, in a directory whose name says that it is not finished.
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    parent: PathBuf,
    tmp: PathBuf,
    unfinished: Unfinished,
    meta: Meta,
    chunks: chunks::Writer,
    index: IndexWriter<IndexSink>,
    index_file: Arc<parking_lot::Mutex<Box<dyn AppendFile>>>,
    metas: Vec<ChunkMeta>,
}

impl Writer {
    /// Begins a block below `parent`. `symbols` are all label names and values it will have, ascending
    /// and unique.
    pub(crate) fn create<'a>(
        disk: &Arc<dyn Disk>,
        parent: &Path,
        meta: Meta,
        symbols: impl Iterator<Item = &'a str>,
    ) -> Result<Self, IoError> {
        let tmp = parent.join(format!("{}{TMP_SUFFIX}", meta.ulid));
        let unfinished = Unfinished { disk: Arc::clone(disk), dir: Some(tmp.clone()) };
        let chunks_dir = tmp.join(CHUNKS_DIR);
        disk.create_dir_all(&chunks_dir).map_err(IoError::at(&chunks_dir))?;
        let index_path = tmp.join(INDEX_FILE);
        let file = disk.create(&index_path).map_err(IoError::at(&index_path))?;
        let index_file = Arc::new(parking_lot::Mutex::new(file));
        let sink: IndexSink = {
            let file = Arc::clone(&index_file);
            Box::new(move |data| file.lock().append(data))
        };
        let index = IndexWriter::new(sink, symbols).map_err(|error| at(&index_path, error))?;
        let chunks = chunks::Writer::new(Arc::clone(disk), chunks_dir);
        let (disk, parent) = (Arc::clone(disk), parent.to_owned());
        Ok(Self { disk, parent, tmp, unfinished, meta, chunks, index, index_file, metas: Vec::new() })
    }

    /// Writes the next series, in ascending order of labels. Without chunks it is left out.
    pub(crate) fn series<'a>(
        &mut self,
        labels: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
        chunks: &[Chunk],
    ) -> Result<(), IoError> {
        if chunks.is_empty() {
            return Ok(());
        }
        self.metas.clear();
        for chunk in chunks {
            let reference = self.chunks.write(chunk).map_err(IoError::at(&self.tmp.join(CHUNKS_DIR)))?;
            self.metas.push(ChunkMeta { min: chunk.min, max: chunk.max, reference });
            let samples = u64::from(chunk::count(chunk.encoding, &chunk.data));
            self.meta.stats.num_samples += samples;
            match chunk.encoding {
                Encoding::Xor | Encoding::Xor2 => self.meta.stats.num_float_samples += samples,
                _ => self.meta.stats.num_histogram_samples += samples,
            }
        }
        self.meta.stats.num_series += 1;
        self.meta.stats.num_chunks += chunks.len() as u64;
        self.index.series(labels, &self.metas).map_err(|error| at(&self.tmp.join(INDEX_FILE), error))
    }

    /// Finishes the block and gives it its name; `None` (and nothing on disk) if it has no sample.
    pub(crate) fn finish(self) -> Result<Option<Ulid>, IoError> {
        let Self { disk, parent, tmp, mut unfinished, meta, chunks, index, index_file, .. } = self;
        if meta.stats.num_samples == 0 {
            return Ok(None);
        }
        let chunks_dir = tmp.join(CHUNKS_DIR);
        chunks.finish().map_err(IoError::at(&chunks_dir))?;
        disk.sync_dir(&chunks_dir).map_err(IoError::at(&chunks_dir))?;
        let index_path = tmp.join(INDEX_FILE);
        index.finish().map_err(|error| at(&index_path, error))?;
        let synced = index_file.lock().syncer().and_then(|file| file.sync());
        synced.map_err(IoError::at(&index_path))?;
        write(&*disk, &tmp.join(TOMBSTONES_FILE), &Tombstones::default().encode())?;
        write(&*disk, &tmp.join(META_FILE), &super::meta_json(&meta))?;
        disk.sync_dir(&tmp).map_err(IoError::at(&tmp))?;
        let name = parent.join(meta.ulid.to_string());
        disk.rename(&tmp, &name).map_err(IoError::at(&name))?;
        unfinished.dir = None;
        disk.sync_dir(&parent).map_err(IoError::at(&parent))?;
        Ok(Some(meta.ulid))
    }
}

/// Removes the directory of a block that is given up, so that a full disk does not get fuller with every
/// attempt.
struct Unfinished {
    disk: Arc<dyn Disk>,
    dir: Option<PathBuf>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            // The start removes it otherwise.
            let _ = self.disk.remove_dir_all(dir);
        }
    }
}

fn write(disk: &dyn Disk, path: &Path, data: &[u8]) -> Result<(), IoError> {
    let written = disk.create(path).and_then(|mut file| {
        file.append(data)?;
        file.syncer()?.sync()
    });
    written.map_err(IoError::at(path))
}

fn at(path: &Path, error: WriteError) -> IoError {
    let source = match error {
        WriteError::Io(error) => error,
        WriteError::TooLarge => std::io::Error::new(std::io::ErrorKind::FileTooLarge, error.to_string()),
    };
    IoError { path: path.to_owned(), source }
}
