//! The readers of every format, for fuzz targets: whatever the bytes, they return.

use model::{Samples, TimeRange};

use crate::block::meta::Meta;
use crate::block::tombstones::Tombstones;
use crate::chunk::{self, Encoding};
use crate::disk::Mapping;
use crate::index::reader::Reader;
use crate::select::LabelIndex as _;
use crate::wal::page::Records;
use crate::wal::record;

/// A chunk: its encoding, then its data.
pub fn chunk(data: &[u8]) {
    let Some((&encoding, data)) = data.split_first() else { return };
    if let Ok(encoding) = Encoding::from_byte(encoding) {
        let mut samples = Samples::default();
        let _ = chunk::decode(encoding, data, usize::MAX, TimeRange::ALL, &mut samples);
    }
}

/// A segment of the log.
pub fn wal_segment(data: &[u8]) {
    let (mut records, mut space) = (Records::new(data), Vec::new());
    while let Some(Ok(next)) = records.next() {
        let _ = next.unpack(&mut space).map(record::decode);
    }
}

/// A record of the log.
pub fn wal_record(data: &[u8]) {
    let _ = record::decode(data);
}

/// An index.
pub fn index(data: &[u8]) {
    let Ok(reader) = Reader::open(Mapping::from(data.to_vec())) else { return };
    for name in reader.names() {
        let _ = reader.visit_values(name, "", |_, _| Ok(true));
    }
    let Ok(all) = reader.all() else { return };
    for id in all.iter() {
        let _ = reader.visit_labels(id, |_, _| ());
        let _ = reader.chunks(id, &mut Vec::new());
    }
}

/// A chunk segment of a block, read at every offset.
pub fn chunk_segment(data: &[u8]) {
    for offset in 0..data.len().min(4096) {
        let _ = crate::block::chunks::read(&data[offset..]);
    }
}

/// A head chunk file.
pub fn head_chunks(data: &[u8]) {
    let _ = crate::head::mapped::scan(data, 1, &mut |_, _| ());
}

/// A tombstones file.
pub fn tombstones(data: &[u8]) {
    let _ = Tombstones::decode(data);
}

/// A `meta.json`.
pub fn meta(data: &[u8]) {
    let _ = serde_json::from_slice::<Meta>(data);
}
