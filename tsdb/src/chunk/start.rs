//! Start times of samples, as XOR2 chunks and histogram chunks with start times have them. Drawn in
//! `docs/format.md`, section "Start times".

use model::Timestamp;

use super::varbit::{read_signed, write_signed};
use crate::codec::Malformed;
use crate::codec::bits::{BitReader, BitWriter};
use crate::codec::bytes::Put;

/// The first sample has a start time.
const FIRST_KNOWN: u8 = 0x80;
/// The byte has room for sample numbers up to this: from this sample on, start times are written in any case.
const CHANGES_FROM_MAX: usize = 0x7f;

/// Where a writer of start times is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StartWriter {
    start: Timestamp,
    /// The last time before a sample minus its start time, as far as it was written.
    back: i64,
    /// The first sample whose start time is not that of the first one; 0: there is none.
    changes_from: usize,
}

impl StartWriter {
    /// Writes the start time of the first sample, 0 if unknown, behind the sample. `head_at` is the place of the
    /// byte that says which samples have one.
    pub(super) fn first(
        writer: &mut BitWriter,
        (out, head_at): (&mut Vec<u8>, usize),
        ts: Timestamp,
        start: Timestamp,
    ) -> Self {
        if start != 0 {
            out[head_at] = FIRST_KNOWN;
            let mut bytes = Vec::with_capacity(10);
            bytes.put_varint(ts.wrapping_sub(start));
            bytes.iter().for_each(|&byte| writer.bits(out, u64::from(byte), 8));
        }
        Self { start, back: 0, changes_from: 0 }
    }

    /// Writes the start time of sample `index`, which follows one at `before`.
    pub(super) fn next(
        &mut self,
        writer: &mut BitWriter,
        (out, head_at): (&mut Vec<u8>, usize),
        index: usize,
        (before, start): (Timestamp, Timestamp),
    ) {
        let back = before.wrapping_sub(start);
        if self.changes_from > 0 {
            write_signed(writer, out, back.wrapping_sub(self.back));
            self.back = back;
        } else if start != self.start || index == CHANGES_FROM_MAX {
            self.changes_from = index;
            out[head_at] |= index.to_le_bytes()[0];
            write_signed(writer, out, back);
            self.back = back;
        }
        self.start = start;
    }
}

/// Where a reader of start times is.
pub(super) struct StartReader {
    first_known: bool,
    changes_from: usize,
    start: Timestamp,
    back: i64,
}

impl StartReader {
    pub(super) fn new(head: u8) -> Self {
        let changes_from = usize::from(head & !FIRST_KNOWN);
        Self { first_known: head & FIRST_KNOWN != 0, changes_from, start: 0, back: 0 }
    }

    /// Whether there is anything to be read for the first sample.
    pub(super) fn has_first(&self) -> bool {
        self.first_known
    }

    /// The start time of the first sample, 0 if unknown.
    pub(super) fn first(
        &mut self,
        reader: &mut BitReader<'_>,
        ts: Timestamp,
    ) -> Result<Timestamp, Malformed> {
        if self.first_known {
            self.start = ts.wrapping_sub(varint(reader)?);
        }
        Ok(self.start)
    }

    /// The start time of sample `index`, which follows one at `before`.
    #[inline]
    pub(super) fn next(
        &mut self,
        reader: &mut BitReader<'_>,
        index: usize,
        before: Timestamp,
    ) -> Result<Timestamp, Malformed> {
        if self.changes_from > 0 && index >= self.changes_from {
            self.back = self.back.wrapping_add(read_signed(reader)?);
            self.start = before.wrapping_sub(self.back);
        }
        Ok(self.start)
    }
}

/// A varint at any bit.
fn varint(reader: &mut BitReader<'_>) -> Result<i64, Malformed> {
    let mut bytes = Vec::with_capacity(10);
    while bytes.len() < 10 && bytes.last().is_none_or(|last| last & 0x80 != 0) {
        bytes.push(reader.byte()?);
    }
    crate::codec::bytes::Bytes::new(&bytes).varint()
}
