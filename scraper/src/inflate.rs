//! Compressed pages, unpacked in one piece.
//!
//! A decoder that is read from in pieces keeps a window of 32 KiB and copies what it has made into it after each piece.
//! Where all output lies in one buffer that is its own window, so the buffer is made as large as the page says that it
//! will be (the last four bytes of gzip, RFC 1952), and inflating is one call. What it says is only believed as far as
//! deflate could make so much of so little.
//!
//! Nearly every page is one member that says the truth. libdeflate unpacks such a page in half the time that a decoder
//! takes which can stop anywhere, but does not say where a member ended. So it is asked only where no second member can
//! be, and whatever it does not take goes to the other one, which knows what is wrong.

use std::cell::RefCell;

use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::Decompressor;
use memchr::memmem;

/// Deflate makes at most that many bytes out of one.
const RATIO_MAX: usize = 1_032;
/// Bits of the window: as large as deflate allows.
const WINDOW_BITS: u8 = 15;
/// How a member begins: two bytes of magic and the method, deflate.
const MEMBER_BEGINS: [u8; 3] = [0x1f, 0x8b, 8];
/// Bytes by which a buffer that was too small grows at least.
const GROW_BYTES_MIN: usize = 64 << 10;

/// Why a page cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InflateError {
    #[error("body size limit exceeded")]
    TooLarge,
    #[error("gzip: {0}")]
    Malformed(String),
}

/// Unpacks the members of a gzip file, one after the other, into `out`, which is cleared first. It holds at most
/// `limit` bytes.
pub(crate) fn gunzip(packed: &[u8], out: &mut Vec<u8>, limit: u64) -> Result<(), InflateError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let said = packed.last_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
    // One more, so that the end is noticed without another round.
    let believed = said.min(packed.len().saturating_mul(RATIO_MAX)).min(limit).saturating_add(1);
    if said < believed && unpack_whole(packed, out, said) {
        return Ok(());
    }
    out.clear();
    out.reserve_exact(believed);
    let mut rest = packed;
    while !rest.is_empty() {
        rest = &rest[member(rest, out, limit)?..];
    }
    Ok(())
}

/// Unpacks a page of one member that holds `length` bytes; says whether it was one. What `out` held is overwritten.
fn unpack_whole(packed: &[u8], out: &mut Vec<u8>, length: usize) -> bool {
    thread_local! {
        /// Its tables take 11 KiB, which are cleared when one is made.
        static DECOMPRESSOR: RefCell<Decompressor> = RefCell::new(Decompressor::new());
    }
    let behind = packed.get(MEMBER_BEGINS.len()..).unwrap_or_default();
    if memmem::find(behind, &MEMBER_BEGINS).is_some() {
        return false;
    }
    // The buffer is used again and again: what it holds of earlier pages need not be cleared.
    if out.capacity() < length {
        out.clear();
        out.reserve_exact(length);
    }
    out.resize(length, 0);
    DECOMPRESSOR.with_borrow_mut(|decompressor| decompressor.gzip_decompress(packed, out)) == Ok(length)
}

/// Appends one member to `out`; returns its length as it came.
fn member(packed: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<usize, InflateError> {
    let malformed = |what: &str| InflateError::Malformed(what.to_owned());
    let mut inflater = Decompress::new_gzip(WINDOW_BITS);
    let mut taken = 0;
    loop {
        let before = (taken, out.len());
        let status = inflater.decompress_vec(&packed[taken..], out, FlushDecompress::Finish);
        let status = status.map_err(|error| malformed(&error.to_string()))?;
        taken = usize::try_from(inflater.total_in()).map_err(|_| malformed("too long"))?;
        if out.len() > limit {
            return Err(InflateError::TooLarge);
        }
        if status == Status::StreamEnd {
            return Ok(taken);
        }
        if out.len() < out.capacity() && before == (taken, out.len()) {
            return Err(malformed("unexpected EOF"));
        }
        if out.len() == out.capacity() {
            let more = out.len().max(GROW_BYTES_MIN).min(limit.saturating_add(1) - out.len());
            out.reserve_exact(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn pack(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn limits_hold_whatever_a_page_says_of_itself() {
        let plain = vec![b'#'; 300_000];
        let mut packed = pack(&plain);
        let mut out = Vec::new();
        gunzip(&packed, &mut out, 300_000).unwrap();
        assert_eq!(out, plain);
        assert!(matches!(gunzip(&packed, &mut out, 299_999), Err(InflateError::TooLarge)));
        // The checksum of the length is wrong, whether it promises too much or too little.
        for said in [0, u32::MAX] {
            let end = packed.len() - 4;
            packed[end..].copy_from_slice(&said.to_le_bytes());
            let mut out = Vec::new();
            assert!(matches!(gunzip(&packed, &mut out, 1 << 30), Err(InflateError::Malformed(_))));
            assert!(out.capacity() < 1 << 20);
            assert!(matches!(gunzip(&packed, &mut Vec::new(), 1_000), Err(InflateError::TooLarge)));
        }
        for broken in [&packed[..20], &packed[..5], b"no gzip at all"] {
            assert!(matches!(gunzip(broken, &mut out, 1 << 20), Err(InflateError::Malformed(_))));
        }
    }

    #[test]
    fn a_page_that_came_twice_in_one_file_is_there_twice() {
        let packed = pack(b"up 1\n");
        let mut out = vec![7; 1_000];
        gunzip(&packed, &mut out, 1 << 20).unwrap();
        assert_eq!(out, b"up 1\n");
        // Both members end alike, so the last says of itself what is true of the first.
        gunzip(&[packed.clone(), packed.clone()].concat(), &mut out, 1 << 20).unwrap();
        assert_eq!(out, b"up 1\nup 1\n");
        let behind = [packed, b"more".to_vec()].concat();
        assert!(matches!(gunzip(&behind, &mut out, 1 << 20), Err(InflateError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn several_members_come_back_whole(parts in prop::collection::vec(prop::collection::vec(0u8..4, 0..5_000), 1..4)) {
            let packed: Vec<u8> = parts.iter().flat_map(|part| pack(part)).collect();
            let mut out = vec![7; 10];
            gunzip(&packed, &mut out, 1 << 20).unwrap();
            prop_assert_eq!(out, parts.concat());
        }

        #[test]
        fn any_bytes_are_refused_or_unpacked(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
            packed.extend(bytes);
            let _ = gunzip(&packed, &mut Vec::new(), 1 << 16);
        }
    }
}
