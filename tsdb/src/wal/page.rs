//! Records cut into fragments within 32 KiB pages. Drawn in `docs/format.md`, section "WAL pages".

use std::borrow::Cow;

use crate::codec::crc;

/// Bytes of a page. A fragment never crosses its end.
pub(crate) const PAGE_BYTES: usize = 32 * 1024;
/// Bytes in front of a fragment: type, length, CRC.
const HEADER_BYTES: usize = 7;
/// No record unpacks to more than this. It guards memory against a damaged length.
const RECORD_BYTES_MAX: usize = 1 << 30;

const TYPE_MASK: u8 = 0b111;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;
const SNAPPY: u8 = 1 << 3;
const ZSTD: u8 = 1 << 4;

/// How records are packed before they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Snappy's block format.
    #[default]
    Snappy,
    /// Zstandard.
    Zstd,
}

/// Bytes that `record_bytes` take at most if they are written at `offset` of a segment.
pub(super) fn framed_bytes(offset: u64, record_bytes: usize) -> u64 {
    let in_page = PAGE_BYTES - page_offset(offset);
    let payload = (PAGE_BYTES - HEADER_BYTES) as u64;
    let first = in_page.saturating_sub(HEADER_BYTES) as u64;
    let rest = (record_bytes as u64).saturating_sub(first);
    in_page as u64 + rest.div_ceil(payload) * PAGE_BYTES as u64
}

fn page_offset(offset: u64) -> usize {
    // The remainder is below 32 Ki.
    usize::try_from(offset % PAGE_BYTES as u64).unwrap_or(0)
}

/// Cuts records into fragments, packed where that makes them smaller. It keeps what packing needs, which is more
/// than a small record.
pub(super) struct Framer {
    compression: Compression,
    snappy: snap::raw::Encoder,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    packed: Vec<u8>,
}

impl Framer {
    pub(super) fn new(compression: Compression) -> Self {
        Self { compression, snappy: snap::raw::Encoder::new(), zstd: None, packed: Vec::new() }
    }

    /// Appends `record` to `out`, whose end is at `offset` of the segment.
    pub(super) fn frame(&mut self, out: &mut Vec<u8>, offset: u64, record: &[u8]) {
        match self.pack(record) {
            Some((flag, bytes)) if bytes < record.len() => split(out, offset, flag, &self.packed[..bytes]),
            _ => split(out, offset, 0, record),
        }
        // A batch with one enormous scrape shall not pin its memory.
        self.packed.truncate(1 << 20);
        self.packed.shrink_to(1 << 20);
    }

    /// Packs into `packed`; the flag and the number of bytes.
    fn pack(&mut self, record: &[u8]) -> Option<(u8, usize)> {
        let most = match self.compression {
            Compression::None => return None,
            Compression::Snappy => snap::raw::max_compress_len(record.len()),
            Compression::Zstd => zstd::zstd_safe::compress_bound(record.len()),
        };
        if self.packed.len() < most {
            self.packed.resize(most, 0);
        }
        if self.compression == Compression::Snappy {
            return Some((SNAPPY, self.snappy.compress(record, &mut self.packed).ok()?));
        }
        if self.zstd.is_none() {
            self.zstd = zstd::bulk::Compressor::new(1).ok();
        }
        Some((ZSTD, self.zstd.as_mut()?.compress_to_buffer(record, &mut self.packed).ok()?))
    }
}

/// Appends fragments of `record`, which is packed as `flag` says, to `out`.
fn split(out: &mut Vec<u8>, offset: u64, flag: u8, record: &[u8]) {
    let mut rest = record;
    let start = out.len();
    let mut first = true;
    while first || !rest.is_empty() {
        let left = PAGE_BYTES - page_offset(offset + (out.len() - start) as u64);
        if left <= HEADER_BYTES {
            out.resize(out.len() + left, 0);
            continue;
        }
        let (fragment, after) = rest.split_at(rest.len().min(left - HEADER_BYTES));
        let kind = match (first, after.is_empty()) {
            (true, true) => FULL,
            (true, false) => FIRST,
            (false, false) => MIDDLE,
            (false, true) => LAST,
        };
        out.push(kind | flag);
        // A fragment is shorter than a page, which is 2^15.
        out.extend_from_slice(&u16::try_from(fragment.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(&crc(fragment).to_be_bytes());
        out.extend_from_slice(fragment);
        (first, rest) = (false, after);
    }
}

/// A record as it is stored.
pub(crate) struct Stored<'a> {
    /// Where it begins in its segment.
    pub(crate) start: usize,
    flags: u8,
    data: Cow<'a, [u8]>,
}

impl Stored<'_> {
    /// About how many bytes the record has, as far as that can be seen from outside.
    pub(crate) fn unpacked_bytes(&self) -> usize {
        let told = if self.flags & SNAPPY != 0 {
            snap::raw::decompress_len(&self.data).ok()
        } else if self.flags & ZSTD != 0 {
            let told = zstd::zstd_safe::get_frame_content_size(&self.data).ok().flatten();
            // A stream does not tell, and packs to a tenth as a rule.
            told.map_or(Some(self.data.len() * 10), |told| usize::try_from(told).ok())
        } else {
            None
        };
        told.unwrap_or(self.data.len()).min(RECORD_BYTES_MAX)
    }

    /// The record; `space` holds its bytes if it was packed.
    pub(crate) fn unpack<'s>(&'s self, space: &'s mut Vec<u8>) -> Result<&'s [u8], Damage> {
        let damage = |what| Damage { offset: self.start, torn: false, what };
        if self.flags & SNAPPY != 0 {
            let what = "record does not unpack (snappy)";
            let bytes = snap::raw::decompress_len(&self.data).ok().filter(|&bytes| bytes <= RECORD_BYTES_MAX);
            let bytes = bytes.ok_or(damage(what))?;
            if space.len() < bytes {
                space.resize(bytes, 0);
            }
            let plain = snap::raw::Decoder::new().decompress(&self.data, space).map_err(|_| damage(what))?;
            return Ok(&space[..plain]);
        }
        if self.flags & ZSTD != 0 {
            let plain = read_zstd(&self.data).ok().filter(|plain| plain.len() <= RECORD_BYTES_MAX);
            *space = plain.ok_or(damage("record does not unpack (zstd)"))?;
            return Ok(space);
        }
        Ok(&self.data)
    }
}

fn read_zstd(data: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut plain = Vec::new();
    zstd::stream::read::Decoder::with_buffer(data)?
        .take(RECORD_BYTES_MAX as u64 + 1)
        .read_to_end(&mut plain)?;
    Ok(plain)
}

/// Where reading a segment had to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The first byte of the record that cannot be read.
    pub(crate) offset: usize,
    /// Whether the segment simply ends too early, as after a crash, with nothing wrong before.
    pub(crate) torn: bool,
    /// What is wrong.
    pub(crate) what: &'static str,
}

/// Reads the records of one segment in order.
pub(crate) struct Records<'a> {
    segment: &'a [u8],
    offset: usize,
}

impl<'a> Records<'a> {
    pub(crate) fn new(segment: &'a [u8]) -> Self {
        Self { segment, offset: 0 }
    }

    /// From `offset` on, where a record begins.
    pub(crate) fn at(segment: &'a [u8], offset: usize) -> Self {
        Self { segment, offset }
    }

    /// Where the next record begins, or padding before it.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// The next record; `None` at the clean end of the segment.
    pub(crate) fn next(&mut self) -> Option<Result<Stored<'a>, Damage>> {
        let mut start = None;
        let (mut joined, mut flags) = (Cow::Borrowed(&[][..]), 0);
        loop {
            let at = self.offset;
            let begin = start.unwrap_or(at);
            let damage = |torn, what| Some(Err(Damage { offset: begin, torn, what }));
            let fragment = match self.fragment() {
                Ok(Some(fragment)) => fragment,
                Ok(None) if start.is_none() => return None,
                Ok(None) => return damage(true, "the last record is incomplete"),
                Err((torn, what)) => return damage(torn, what),
            };
            match (fragment.kind & TYPE_MASK, start) {
                (FULL | FIRST, None) => {
                    flags = fragment.kind;
                    start = Some(fragment.start);
                    joined = Cow::Borrowed(fragment.data);
                }
                (MIDDLE | LAST, Some(_)) => joined.to_mut().extend_from_slice(fragment.data),
                (FULL | FIRST | MIDDLE | LAST, _) => return damage(false, "fragments out of sequence"),
                _ => return damage(false, "unknown fragment type"),
            }
            if matches!(fragment.kind & TYPE_MASK, FULL | LAST) && joined.is_empty() {
                // A record has a type at least. This is a header of which the first byte has been written: the
                // checksum of nothing is zero.
                let nothing_after = self.segment[self.offset..].iter().all(|&byte| byte == 0);
                return damage(nothing_after, "a record is empty");
            }
            if matches!(fragment.kind & TYPE_MASK, FULL | LAST) {
                return Some(Ok(Stored { start: start.unwrap_or(at), flags, data: joined }));
            }
        }
    }

    /// The next fragment; the error says whether the segment merely ends too early.
    fn fragment(&mut self) -> Result<Option<Fragment<'a>>, (bool, &'static str)> {
        loop {
            let left_in_page = PAGE_BYTES - self.offset % PAGE_BYTES;
            let rest = &self.segment[self.offset.min(self.segment.len())..];
            let page = &rest[..rest.len().min(left_in_page)];
            let last_page = page.len() == rest.len();
            if page.is_empty() {
                return Ok(None);
            }
            if page[0] & TYPE_MASK == 0 || left_in_page < HEADER_BYTES {
                if page.iter().any(|&byte| byte != 0) {
                    return Err((false, "padding is not zero"));
                }
                self.offset += page.len();
                continue;
            }
            let Some((header, body)) = page.split_first_chunk::<HEADER_BYTES>() else {
                return Err((last_page, "fragment header is incomplete"));
            };
            let length = usize::from(u16::from_be_bytes([header[1], header[2]]));
            let sum = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
            let Some(data) = body.get(..length) else {
                let fits_page = HEADER_BYTES + length <= left_in_page;
                return Err((last_page && fits_page, "fragment is longer than what is left"));
            };
            if crc(data) != sum {
                // Nothing after it: a write that did not reach the disk as a whole.
                let nothing_after = rest[HEADER_BYTES + length..].iter().all(|&byte| byte == 0);
                return Err((nothing_after, "checksum mismatch"));
            }
            let start = self.offset;
            self.offset += HEADER_BYTES + length;
            return Ok(Some(Fragment { start, kind: header[0], data }));
        }
    }
}

struct Fragment<'a> {
    start: usize,
    kind: u8,
    data: &'a [u8],
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(segment: &[u8]) -> (Vec<Vec<u8>>, Option<Damage>) {
        let (mut records, mut out) = (Records::new(segment), Vec::new());
        while let Some(next) = records.next() {
            match next.and_then(|record| record.unpack(&mut Vec::new()).map(<[u8]>::to_vec)) {
                Ok(record) => out.push(record),
                Err(damage) => return (out, Some(damage)),
            }
        }
        (out, None)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn records_of_any_size_round_trip(
            sizes in prop::collection::vec(prop_oneof![1usize..40, 32_740usize..32_800, 60_000usize..100_000], 1..12),
            pick in 0u8..3,
            cut in any::<prop::sample::Index>(),
        ) {
            let compression = [Compression::None, Compression::Snappy, Compression::Zstd][usize::from(pick)];
            let records: Vec<Vec<u8>> = sizes
                .iter()
                .enumerate()
                .map(|(n, &size)| (0..size).map(|i| ((i * 7 + n * i / 3) % 256).try_into().unwrap()).collect())
                .collect();
            let (mut segment, mut ends, mut framer) = (Vec::new(), vec![], Framer::new(compression));
            for record in &records {
                let offset = segment.len() as u64;
                let most = framed_bytes(offset, record.len());
                framer.frame(&mut segment, offset, record);
                prop_assert!(segment.len() as u64 - offset <= most);
                ends.push(segment.len());
            }
            prop_assert_eq!(read_all(&segment), (records.clone(), None));

            let cut = cut.index(segment.len());
            let (kept, damage) = read_all(&segment[..cut]);
            let whole = ends.iter().filter(|&&end| end <= cut).count();
            prop_assert!(kept.len() == whole);
            prop_assert!(damage.is_none_or(|damage| damage.torn));
        }

        #[test]
        fn garbage_never_panics(mut segment: Vec<u8>) {
            read_all(&segment);
            segment.resize(40_000, 0);
            read_all(&segment);
        }
    }
}
