//! Writes an index front to back.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::{ChunkMeta, MAGIC, SERIES_ALIGN, TOC_BYTES, VERSION};
use crate::codec::bytes::Put;

/// Bytes gathered before they are handed on.
const FLUSH_BYTES: usize = 1 << 20;

/// Why an index cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The format's 32-bit numbers do not reach.
    #[error("index section exceeds 4 GiB")]
    TooLarge,
}

/// The writer. Call [`Writer::new`] with all symbols, then [`Writer::series`] in ascending order of
/// labels, then [`Writer::finish`].
///
/// It keeps 4 bytes for each label of each series (the postings) and one entry a distinct label pair.
pub(crate) struct Writer<W> {
    out: W,
    pending: Vec<u8>,
    written: u64,
    symbols: HashMap<Box<str>, u32>,
    postings: BTreeMap<(u32, u32), Vec<u32>>,
    all: Vec<u32>,
    series_start: u64,
    entry: Vec<u8>,
}

impl<W: FnMut(&[u8]) -> std::io::Result<()>> Writer<W> {
    /// Writes header and symbols. `symbols` must be ascending and unique.
    pub(crate) fn new<'a>(out: W, symbols: impl Iterator<Item = &'a str>) -> Result<Self, WriteError> {
        let mut this = Self {
            out,
            pending: Vec::new(),
            written: 0,
            symbols: HashMap::new(),
            postings: BTreeMap::new(),
            all: Vec::new(),
            series_start: 0,
            entry: Vec::new(),
        };
        this.pending.put_u32(MAGIC);
        this.pending.push(VERSION);
        let mut table = vec![0; 8];
        for symbol in symbols {
            let number = u32::try_from(this.symbols.len()).map_err(|_| WriteError::TooLarge)?;
            table.put_text(symbol);
            this.symbols.insert(symbol.into(), number);
        }
        let count = u32::try_from(this.symbols.len()).map_err(|_| WriteError::TooLarge)?;
        table[4..8].copy_from_slice(&count.to_be_bytes());
        this.section(table)?;
        this.series_start = this.offset();
        Ok(this)
    }

    fn offset(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    fn flush(&mut self, least: usize) -> std::io::Result<()> {
        if self.pending.len() >= least {
            (self.out)(&self.pending)?;
            self.written += self.pending.len() as u64;
            self.pending.clear();
        }
        Ok(())
    }

    fn pad_to(&mut self, multiple: usize) {
        while !self.offset().is_multiple_of(multiple as u64) {
            self.pending.push(0);
        }
    }

    /// Writes a table whose first four bytes are room for its length, and its CRC.
    fn section(&mut self, mut table: Vec<u8>) -> Result<(), WriteError> {
        let length = u32::try_from(table.len() - 4).map_err(|_| WriteError::TooLarge)?;
        table[..4].copy_from_slice(&length.to_be_bytes());
        table.put_crc_since(4);
        self.pending.extend_from_slice(&table);
        self.flush(FLUSH_BYTES)?;
        Ok(())
    }

    /// Writes the next series.
    pub(crate) fn series<'a>(
        &mut self,
        labels: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
        chunks: &[ChunkMeta],
    ) -> Result<(), WriteError> {
        self.pad_to(SERIES_ALIGN);
        let id = u32::try_from(self.offset() / SERIES_ALIGN as u64).map_err(|_| WriteError::TooLarge)?;
        self.entry.clear();
        self.entry.put_uvarint(labels.len() as u64);
        for (name, value) in labels {
            let pair = (self.symbol(name), self.symbol(value));
            self.entry.put_uvarint(u64::from(pair.0));
            self.entry.put_uvarint(u64::from(pair.1));
            self.postings.entry(pair).or_default().push(id);
        }
        self.all.push(id);
        self.entry.put_uvarint(chunks.len() as u64);
        let mut last: Option<&ChunkMeta> = None;
        for chunk in chunks {
            match last {
                None => {
                    self.entry.put_varint(chunk.min);
                    self.entry.put_uvarint(chunk.max.wrapping_sub(chunk.min).cast_unsigned());
                    self.entry.put_uvarint(chunk.reference);
                }
                Some(last) => {
                    self.entry.put_uvarint(chunk.min.wrapping_sub(last.max).cast_unsigned());
                    self.entry.put_uvarint(chunk.max.wrapping_sub(chunk.min).cast_unsigned());
                    self.entry.put_varint(chunk.reference.wrapping_sub(last.reference).cast_signed());
                }
            }
            last = Some(chunk);
        }
        self.pending.put_uvarint(self.entry.len() as u64);
        let start = self.pending.len();
        self.pending.extend_from_slice(&self.entry);
        self.pending.put_crc_since(start);
        self.flush(FLUSH_BYTES)?;
        Ok(())
    }

    /// A symbol given to [`Writer::new`].
    fn symbol(&self, text: &str) -> u32 {
        let found = self.symbols.get(text).copied();
        debug_assert!(found.is_some(), "label text {text:?} is not among the symbols");
        found.unwrap_or(u32::MAX)
    }

    /// Writes postings, offset table and table of contents. Returns the length of the file.
    pub(crate) fn finish(mut self) -> Result<u64, WriteError> {
        let mut texts = vec![""; self.symbols.len()];
        let symbols = std::mem::take(&mut self.symbols);
        for (text, &number) in &symbols {
            texts[number as usize] = text;
        }
        // Nobody reads the label indices of old any more; an empty section stands for them.
        let label_indices = self.offset();
        self.pad_to(4);
        let postings_start = self.offset();
        let postings = std::mem::take(&mut self.postings);
        let count = u32::try_from(postings.len() + 1).map_err(|_| WriteError::TooLarge)?;
        let mut table = vec![0; 4];
        table.put_u32(count);
        let all = std::mem::take(&mut self.all);
        let everything = std::iter::once((("", ""), all));
        let by_text = postings
            .into_iter()
            .map(|((name, value), ids)| ((texts[name as usize], texts[value as usize]), ids));
        for ((name, value), ids) in everything.chain(by_text) {
            self.pad_to(4);
            table.put_uvarint(2);
            table.put_text(name);
            table.put_text(value);
            table.put_uvarint(self.offset());
            let mut list = vec![0; 4];
            list.put_u32(u32::try_from(ids.len()).map_err(|_| WriteError::TooLarge)?);
            for id in ids {
                list.put_u32(id);
            }
            self.section(list)?;
        }
        let label_table = self.offset();
        self.section(vec![0; 8])?;
        let postings_table = self.offset();
        self.section(table)?;
        let toc = [5, self.series_start, label_indices, label_table, postings_start, postings_table];
        let mut out = Vec::with_capacity(TOC_BYTES);
        for offset in toc {
            out.put_u64(offset);
        }
        out.put_crc_since(0);
        self.pending.extend_from_slice(&out);
        self.flush(0)?;
        Ok(self.written)
    }
}
