//! Reads an index in place.

use croaring::Bitmap;

use super::{ChunkMeta, MAGIC, SERIES_ALIGN, TOC_BYTES, VERSION};
use crate::codec::bytes::{Bytes, Put};
use crate::codec::{Malformed, crc};
use crate::disk::Mapping;
use crate::select::LabelIndex;

/// Every so many entries of the postings offset table are remembered.
const SAMPLING: usize = 32;

/// An index, mapped.
///
/// On the heap it keeps 4 bytes a symbol and 4 bytes for every 32nd label pair; all else stays in the
/// page cache.
pub(crate) struct Reader {
    data: Mapping,
    /// Where the postings offset table is: the same, but of version 1, which does not sort it, a sorted copy.
    table: Mapping,
    /// Of version 1 symbols and series are named by their offset in the file, else by number and by 1/16 of it.
    by_offset: bool,
    /// Where each symbol begins.
    symbols: Vec<u32>,
    names: Vec<Name>,
    series_end: usize,
}

/// The entries of one label name in the postings offset table.
struct Name {
    name: Box<str>,
    /// Where every 32nd entry begins.
    sampled: Vec<u32>,
    /// Where the last entry ends.
    end: u32,
    count: usize,
}

/// An entry of the postings offset table.
struct Entry<'a> {
    name: &'a str,
    value: &'a str,
    offset: u64,
}

/// A series entry taken apart.
pub(crate) struct Series<'a> {
    labels: Bytes<'a>,
    label_count: usize,
}

fn position(offset: u64, data: &[u8]) -> Result<usize, Malformed> {
    let at = usize::try_from(offset).ok().filter(|&at| at <= data.len());
    at.ok_or(Malformed("offset lies outside the index"))
}

/// The body of a section at `at`: length, body, CRC.
fn section(data: &[u8], at: usize) -> Result<(&[u8], usize), Malformed> {
    let mut bytes = Bytes::new(data.get(at..).ok_or(Malformed("offset lies outside the index"))?);
    let length = bytes.u32()? as usize;
    let body = bytes.take(length)?;
    if crc(body) != bytes.u32()? {
        return Err(Malformed("checksum mismatch in the index"));
    }
    Ok((body, at + 4))
}

fn entry<'a>(bytes: &mut Bytes<'a>) -> Result<Entry<'a>, Malformed> {
    if bytes.uvarint()? != 2 {
        return Err(Malformed("postings offset entry does not have two keys"));
    }
    Ok(Entry { name: bytes.text()?, value: bytes.text()?, offset: bytes.uvarint()? })
}

fn to_u32(offset: usize) -> Result<u32, Malformed> {
    u32::try_from(offset).map_err(|_| Malformed("index beyond 4 GiB is not supported"))
}

impl Reader {
    /// Checks the frame of the index and reads its tables.
    pub(crate) fn open(data: Mapping) -> Result<Self, Malformed> {
        let mut header = Bytes::new(&data);
        if header.u32()? != MAGIC {
            return Err(Malformed("not an index (magic number)"));
        }
        let by_offset = match header.u8()? {
            1 => true,
            VERSION => false,
            _ => return Err(Malformed("index version is not supported")),
        };
        let toc_at = data.len().checked_sub(TOC_BYTES).ok_or(Malformed("index is too short"))?;
        let toc = &data[toc_at..];
        if crc(&toc[..48]).to_be_bytes() != toc[48..] {
            return Err(Malformed("checksum mismatch in the table of contents"));
        }
        let mut toc = Bytes::new(toc);
        let [symbols, _series, label_indices, _label_table, postings, postings_table] =
            [toc.u64()?, toc.u64()?, toc.u64()?, toc.u64()?, toc.u64()?, toc.u64()?];
        let series_end = position(if label_indices == 0 { postings } else { label_indices }, &data)?;
        let symbols = read_symbols(&data, position(symbols, &data)?)?;
        let at = position(postings_table, &data)?;
        let (table, at) = if by_offset { (sorted_table(&data, at)?, 0) } else { (data.clone(), at) };
        let names = read_names(&table, at)?;
        Ok(Self { symbols, names, series_end, data, table, by_offset })
    }

    pub(crate) fn symbol(&self, number: u64) -> Result<&str, Malformed> {
        if self.by_offset {
            return Bytes::new(&self.data[position(number, &self.data)?..]).text();
        }
        let at = usize::try_from(number).ok().and_then(|number| self.symbols.get(number));
        Bytes::new(&self.data[*at.ok_or(Malformed("symbol number out of range"))? as usize..]).text()
    }

    /// All symbols, ascending.
    pub(crate) fn symbols(&self) -> impl Iterator<Item = Result<&str, Malformed>> {
        self.symbols.iter().map(|&at| Bytes::new(&self.data[at as usize..]).text())
    }

    /// The names of all labels, ascending.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &*name.name).filter(|name| !name.is_empty())
    }

    fn name(&self, name: &str) -> Option<&Name> {
        let at = self.names.binary_search_by(|other| (*other.name).cmp(name)).ok()?;
        Some(&self.names[at])
    }

    /// How many values `name` has.
    pub(crate) fn value_count(&self, name: &str) -> u64 {
        self.name(name).map_or(0, |name| name.count as u64)
    }

    /// Calls `visit` with each value of `name` and the place of its postings, until it returns false.
    pub(crate) fn visit_values<'a>(
        &'a self,
        name: &str,
        from: &str,
        mut visit: impl FnMut(&'a str, u64) -> Result<bool, Malformed>,
    ) -> Result<(), Malformed> {
        let Some(name) = self.name(name) else { return Ok(()) };
        let mut failed = None;
        let block = name.sampled.partition_point(|&at| {
            let first = entry(&mut Bytes::new(&self.table[at as usize..name.end as usize]));
            first.map_or_else(
                |error| {
                    failed = Some(error);
                    false
                },
                |first| first.value <= from,
            )
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let Some(&start) = name.sampled.get(block.saturating_sub(1)) else { return Ok(()) };
        let mut bytes = Bytes::new(&self.table[start as usize..name.end as usize]);
        while !bytes.is_empty() {
            let entry = entry(&mut bytes)?;
            if entry.value >= from && !visit(entry.value, entry.offset)? {
                break;
            }
        }
        Ok(())
    }

    /// The postings list at `offset`, added to `into`.
    pub(crate) fn postings_at(&self, offset: u64, into: &mut Bitmap) -> Result<(), Malformed> {
        let (body, _) = section(&self.data, position(offset, &self.data)?)?;
        let mut bytes = Bytes::new(body);
        let count = bytes.u32()? as usize;
        let list = bytes.take(count.checked_mul(4).ok_or(Malformed("postings list too long"))?)?;
        let (ids, _) = list.as_chunks::<4>();
        let ids: Vec<u32> = ids.iter().map(|id| u32::from_be_bytes(*id)).collect();
        into.add_many(&ids);
        Ok(())
    }

    fn series_entry(&self, id: u32) -> Result<Bytes<'_>, Malformed> {
        let at = id as usize * if self.by_offset { 1 } else { SERIES_ALIGN };
        let mut bytes = Bytes::new(
            self.data.get(at..self.series_end).ok_or(Malformed("series reference outside the index"))?,
        );
        let length = bytes.count()?;
        let body = bytes.take(length)?;
        if crc(body) != bytes.u32()? {
            return Err(Malformed("checksum mismatch in a series entry"));
        }
        Ok(Bytes::new(body))
    }

    /// The labels of series `id`.
    pub(crate) fn series(&self, id: u32) -> Result<Series<'_>, Malformed> {
        let mut labels = self.series_entry(id)?;
        let label_count = labels.count()?;
        Ok(Series { labels, label_count })
    }

    /// Calls `visit` with each label of series `id`.
    pub(crate) fn visit_labels<'a>(
        &'a self,
        id: u32,
        mut visit: impl FnMut(&'a str, &'a str),
    ) -> Result<(), Malformed> {
        let mut series = self.series(id)?;
        for _ in 0..series.label_count {
            visit(self.symbol(series.labels.uvarint()?)?, self.symbol(series.labels.uvarint()?)?);
        }
        Ok(())
    }

    /// Appends the values of label `name` over `ids` (`None`: over all series), ascending and each once.
    ///
    /// Symbols are sorted, so a value's number tells its place: where there are fewer series than values, some 60 ns a
    /// series, most of it the checksum of the entry and the page it lies on, and no texts are compared.
    pub(crate) fn push_values_of<'a>(
        &'a self,
        name: &str,
        ids: Option<&[u32]>,
        values: &mut Vec<&'a str>,
    ) -> Result<(), Malformed> {
        let before = values.len();
        match ids {
            Some(ids) if (ids.len() as u64) < self.value_count(name) => {
                let mut numbers = self.value_numbers(name, ids)?;
                numbers.sort_unstable();
                numbers.dedup();
                for number in numbers {
                    values.push(self.symbol(number)?);
                }
            }
            _ => {
                let ids = ids.map(Bitmap::of);
                self.visit_values(name, "", |value, postings| {
                    let mut having = Bitmap::new();
                    if ids.is_some() {
                        self.postings_at(postings, &mut having)?;
                    }
                    if ids.as_ref().is_none_or(|ids| having.intersect(ids)) {
                        values.push(value);
                    }
                    Ok(true)
                })?;
            }
        }
        let found = &mut values[before..];
        if !found.is_sorted() {
            // A table that is not sorted, as it has to be, misleads nobody.
            found.sort_unstable();
        }
        Ok(())
    }

    /// The symbols of the values of `name` that series have, in no order.
    fn value_numbers(&self, name: &str, ids: &[u32]) -> Result<Vec<u64>, Malformed> {
        let mut numbers = Vec::with_capacity(ids.len());
        let mut name_number = None;
        for &id in ids {
            let Series { mut labels, label_count } = self.series(id)?;
            for _ in 0..label_count {
                let (other, value) = (labels.uvarint()?, labels.uvarint()?);
                if name_number == Some(other) || name_number.is_none() && self.symbol(other)? == name {
                    name_number = Some(other);
                    numbers.push(value);
                    break;
                }
            }
        }
        Ok(numbers)
    }

    /// The chunks of series `id`, into `into`.
    pub(crate) fn chunks(&self, id: u32, into: &mut Vec<ChunkMeta>) -> Result<(), Malformed> {
        into.clear();
        let Series { labels: mut bytes, label_count } = self.series(id)?;
        for _ in 0..2 * label_count {
            bytes.uvarint()?;
        }
        let mut last: Option<ChunkMeta> = None;
        for _ in 0..bytes.count()? {
            let min = match last {
                None => bytes.varint()?,
                Some(last) => last.max.wrapping_add(bytes.uvarint()?.cast_signed()),
            };
            let max = min.wrapping_add(bytes.uvarint()?.cast_signed());
            let reference = match last {
                None => bytes.uvarint()?,
                Some(last) => last.reference.wrapping_add_signed(bytes.varint()?),
            };
            let chunk = ChunkMeta { min, max, reference };
            into.push(chunk);
            last = Some(chunk);
        }
        Ok(())
    }
}

fn read_symbols(data: &[u8], at: usize) -> Result<Vec<u32>, Malformed> {
    let (body, start) = section(data, at)?;
    let mut bytes = Bytes::new(body);
    let count = bytes.u32()? as usize;
    if count > body.len() {
        return Err(Malformed("symbol count exceeds the table"));
    }
    let mut offsets = Vec::with_capacity(count);
    for _ in 0..count {
        offsets.push(to_u32(start + body.len() - bytes.rest().len())?);
        bytes.text()?;
    }
    Ok(offsets)
}

/// The postings offset table at `at` as version 2 has it.
fn sorted_table(data: &[u8], at: usize) -> Result<Mapping, Malformed> {
    let (body, _) = section(data, at)?;
    let mut bytes = Bytes::new(body);
    let count = bytes.u32()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(entry(&mut bytes)?);
    }
    entries.sort_unstable_by_key(|entry| (entry.name, entry.value));
    let mut table = vec![0; 4];
    table.put_u32(count);
    for entry in entries {
        table.put_uvarint(2);
        table.put_text(entry.name);
        table.put_text(entry.value);
        table.put_uvarint(entry.offset);
    }
    let bytes = to_u32(table.len() - 4)?;
    table[..4].copy_from_slice(&bytes.to_be_bytes());
    table.put_crc_since(4);
    Ok(Mapping::from(table))
}

fn read_names(data: &[u8], at: usize) -> Result<Vec<Name>, Malformed> {
    let (body, start) = section(data, at)?;
    let mut bytes = Bytes::new(body);
    let count = bytes.u32()?;
    let mut names: Vec<Name> = Vec::new();
    for _ in 0..count {
        let begin = to_u32(start + body.len() - bytes.rest().len())?;
        let entry = entry(&mut bytes)?;
        let end = to_u32(start + body.len() - bytes.rest().len())?;
        match names.last_mut() {
            Some(last) if *last.name == *entry.name => {
                if last.count.is_multiple_of(SAMPLING) {
                    last.sampled.push(begin);
                }
                (last.end, last.count) = (end, last.count + 1);
            }
            Some(last) if *last.name > *entry.name => return Err(Malformed("label names out of order")),
            _ => names.push(Name { name: entry.name.into(), sampled: vec![begin], end, count: 1 }),
        }
    }
    Ok(names)
}

impl LabelIndex for Reader {
    type Error = Malformed;

    fn all(&self) -> Result<Bitmap, Malformed> {
        self.with_value("", "")
    }

    fn with_value(&self, name: &str, value: &str) -> Result<Bitmap, Malformed> {
        let mut found = Bitmap::new();
        self.visit_values(name, value, |other, offset| {
            if other == value {
                self.postings_at(offset, &mut found)?;
            }
            Ok(false)
        })?;
        Ok(found)
    }

    fn with_values(
        &self,
        name: &str,
        prefix: &str,
        keep: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Bitmap, Malformed> {
        let mut found = Bitmap::new();
        if name.is_empty() {
            return Ok(found);
        }
        self.visit_values(name, prefix, |value, offset| {
            if !value.starts_with(prefix) {
                return Ok(false);
            }
            if keep(value) {
                self.postings_at(offset, &mut found)?;
            }
            Ok(true)
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::writer::Writer;
    use super::*;
    use crate::disk::memory::Memory;
    use crate::disk::{Disk as _, write_atomically};
    use std::path::Path;

    fn mapped(data: &[u8]) -> Mapping {
        let disk = Memory::new();
        disk.create_dir_all(Path::new("/")).unwrap();
        write_atomically(&disk, Path::new("/index"), data).unwrap();
        disk.map(Path::new("/index")).unwrap()
    }

    fn sample(series: u32) -> Vec<u8> {
        let names: Vec<String> = (0..series).map(|n| format!("metric_{n:05}")).collect();
        let symbols = ["__name__", "job"].into_iter().chain(names.iter().map(String::as_str)).chain(["node"]);
        let mut symbols: Vec<&str> = symbols.collect();
        symbols.sort_unstable();
        let mut out = Vec::new();
        let mut writer = Writer::new(
            |data: &[u8]| {
                out.extend_from_slice(data);
                Ok(())
            },
            symbols.into_iter(),
        )
        .unwrap();
        for name in &names {
            let chunks = [
                ChunkMeta { min: -5, max: 10, reference: 8 },
                ChunkMeta { min: 11, max: 20, reference: 1 << 32 | 8 },
            ];
            writer.series([("__name__", name.as_str()), ("job", "node")].into_iter(), &chunks).unwrap();
        }
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes, out.len() as u64);
        out
    }

    #[test]
    fn reads_version_1_which_names_by_offset_and_does_not_sort() {
        let mut out = Vec::new();
        out.put_u32(MAGIC);
        out.push(1);
        let section = |out: &mut Vec<u8>, body: Vec<u8>| {
            let at = out.len();
            out.put_u32(u32::try_from(body.len()).unwrap());
            out.extend_from_slice(&body);
            out.put_crc_since(at + 4);
            at
        };
        let mut symbols = Vec::new();
        symbols.put_u32(3);
        ["a", "b", "x"].iter().for_each(|text| symbols.put_text(text));
        let symbols = section(&mut out, symbols);
        let text_at = |n: usize| (symbols + 8 + 2 * n) as u64;
        let mut series = Vec::new();
        for pair in [("a", 0, 2), ("b", 1, 2)] {
            let mut body = Vec::new();
            body.put_uvarint(1);
            body.put_uvarint(text_at(pair.1));
            body.put_uvarint(text_at(pair.2));
            body.put_uvarint(1);
            body.put_varint(5);
            body.put_uvarint(10);
            body.put_uvarint(8);
            series.push(u32::try_from(out.len()).unwrap());
            out.put_uvarint(body.len() as u64);
            let at = out.len();
            out.extend_from_slice(&body);
            out.put_crc_since(at);
        }
        let label_indices = out.len();
        let mut lists = Vec::new();
        for ids in [vec![series[0]], vec![series[1]], series.clone()] {
            let mut body = Vec::new();
            body.put_u32(u32::try_from(ids.len()).unwrap());
            ids.iter().for_each(|&id| body.put_u32(id));
            lists.push(section(&mut out, body));
        }
        let mut table = Vec::new();
        table.put_u32(3);
        for (name, value, list) in [("b", "x", lists[1]), ("", "", lists[2]), ("a", "x", lists[0])] {
            table.put_uvarint(2);
            table.put_text(name);
            table.put_text(value);
            table.put_uvarint(list as u64);
        }
        let table = section(&mut out, table);
        let toc = out.len();
        for offset in [symbols, series[0] as usize, label_indices, label_indices, lists[0], table] {
            out.put_u64(offset as u64);
        }
        out.put_crc_since(toc);

        let reader = Reader::open(mapped(&out)).unwrap();
        assert_eq!(reader.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(reader.all().unwrap().to_vec(), series);
        assert_eq!(reader.with_value("b", "x").unwrap().to_vec(), [series[1]]);
        let mut chunks = Vec::new();
        reader.chunks(series[0], &mut chunks).unwrap();
        assert_eq!(chunks, [ChunkMeta { min: 5, max: 15, reference: 8 }]);
        reader.visit_labels(series[1], |name, value| assert_eq!((name, value), ("b", "x"))).unwrap();
        assert_eq!(reader.symbols().map(Result::unwrap).collect::<Vec<_>>(), ["a", "b", "x"]);
    }

    #[test]
    fn reads_what_was_written() {
        let reader = Reader::open(mapped(&sample(200))).unwrap();
        assert_eq!(reader.names().collect::<Vec<_>>(), ["__name__", "job"]);
        assert_eq!(reader.all().unwrap().cardinality(), 200);
        assert_eq!(reader.with_value("job", "node").unwrap().cardinality(), 200);
        for n in [0, 31, 32, 33, 199] {
            let name = format!("metric_{n:05}");
            let found = reader.with_value("__name__", &name).unwrap().to_vec();
            assert_eq!(found.len(), 1, "{name}");
            let mut labels = Vec::new();
            reader.visit_labels(found[0], |name, value| labels.push((name, value))).unwrap();
            assert_eq!(labels, [("__name__", name.as_str()), ("job", "node")]);
            let mut chunks = Vec::new();
            reader.chunks(found[0], &mut chunks).unwrap();
            assert_eq!(chunks[0], ChunkMeta { min: -5, max: 10, reference: 8 });
            assert_eq!(chunks[1], ChunkMeta { min: 11, max: 20, reference: 1 << 32 | 8 });
        }
        assert!(reader.with_value("__name__", "metric").unwrap().is_empty());
        assert_eq!(reader.with_values("__name__", "metric_0001", &mut |_| true).unwrap().cardinality(), 10);
    }

    #[test]
    fn any_flipped_byte_is_noticed_or_harmless() {
        let good = sample(3);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x55;
            let Ok(reader) = Reader::open(mapped(&bad)) else { continue };
            let Ok(all) = reader.all() else { continue };
            for id in all.iter() {
                let _ = reader.visit_labels(id, |_, _| ());
                let _ = reader.chunks(id, &mut Vec::new());
            }
        }
    }
}
