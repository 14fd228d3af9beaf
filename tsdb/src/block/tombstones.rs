//! Deleted spans of time. Drawn in `docs/format.md`, section "Tombstones".

use std::collections::BTreeMap;

use model::{TimeRange, Timestamp};

use crate::codec::bytes::{Bytes, Put};
use crate::codec::{Malformed, crc};

const MAGIC: u32 = 0x0130_BA30;
const VERSION: u8 = 1;
/// Magic number and version, which the CRC does not cover.
const HEADER_BYTES: usize = 5;

/// Spans of time, ascending, with gaps between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Intervals(Vec<TimeRange>);

impl Intervals {
    /// Adds a span, joining it with those it touches.
    pub(crate) fn add(&mut self, mut range: TimeRange) {
        let touches = |other: &TimeRange| {
            other.start <= range.end.saturating_add(1) && range.start <= other.end.saturating_add(1)
        };
        let (joined, mut rest): (Vec<_>, Vec<_>) = self.0.iter().copied().partition(touches);
        for other in joined {
            range = TimeRange::new(range.start.min(other.start), range.end.max(other.end));
        }
        let at = rest.partition_point(|other| other.start < range.start);
        rest.insert(at, range);
        self.0 = rest;
    }

    pub(crate) fn contains(&self, ts: Timestamp) -> bool {
        let at = self.0.partition_point(|range| range.end < ts);
        self.0.get(at).is_some_and(|range| range.start <= ts)
    }

    /// Whether one span covers all of `range`.
    pub(crate) fn covers(&self, range: TimeRange) -> bool {
        self.0.iter().any(|other| other.start <= range.start && range.end <= other.end)
    }

    /// Whether anything of `range` is in a span.
    pub(crate) fn overlaps(&self, range: TimeRange) -> bool {
        let at = self.0.partition_point(|other| other.end < range.start);
        self.0.get(at).is_some_and(|other| other.start <= range.end)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = TimeRange> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The deletions of a block by series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tombstones(pub(crate) BTreeMap<u32, Intervals>);

impl Tombstones {
    pub(crate) fn decode(data: &[u8]) -> Result<Self, Malformed> {
        let mut bytes = Bytes::new(data);
        if bytes.u32()? != MAGIC || bytes.u8()? != VERSION {
            return Err(Malformed("not a tombstones file of version 1"));
        }
        let (body, sum) =
            bytes.rest().split_last_chunk::<4>().ok_or(Malformed("tombstones file is too short"))?;
        if crc(body) != u32::from_be_bytes(*sum) {
            return Err(Malformed("checksum mismatch"));
        }
        let (mut bytes, mut this) = (Bytes::new(body), Self::default());
        while !bytes.is_empty() {
            let series = bytes.uvarint_u32()?;
            let range = TimeRange::new(bytes.varint()?, bytes.varint()?);
            this.0.entry(series).or_default().add(range);
        }
        Ok(this)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u32(MAGIC);
        out.push(VERSION);
        for (&series, intervals) in &self.0 {
            for range in intervals.iter() {
                out.put_uvarint(u64::from(series));
                out.put_varint(range.start);
                out.put_varint(range.end);
            }
        }
        out.put_crc_since(HEADER_BYTES);
        out
    }

    /// The number of spans.
    pub(crate) fn len(&self) -> u64 {
        self.0.values().map(|intervals| intervals.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_file_is_what_prometheus_writes() {
        assert_eq!(Tombstones::default().encode(), [0x01, 0x30, 0xba, 0x30, 1, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn intervals_behave_like_a_set(spans in prop::collection::vec((0i64..100, 0i64..20), 0..20)) {
            let mut intervals = Intervals::default();
            for &(start, length) in &spans {
                intervals.add(TimeRange::new(start, start + length));
            }
            for ts in -1..125 {
                let expected = spans.iter().any(|&(start, length)| start <= ts && ts <= start + length);
                prop_assert_eq!(intervals.contains(ts), expected);
                let span = TimeRange::new(ts, ts + 7);
                let expected = (ts..=ts + 7).any(|ts| intervals.contains(ts));
                prop_assert_eq!(intervals.overlaps(span), expected);
            }
            let mut tombstones = Tombstones::default();
            tombstones.0.insert(3, intervals.clone());
            if intervals.len() > 0 {
                prop_assert_eq!(Tombstones::decode(&tombstones.encode()).unwrap(), tombstones);
            }
        }

        #[test]
        fn garbage_never_panics(mut data: Vec<u8>) {
            let _ = Tombstones::decode(&data);
            data.splice(0..0, [0x01, 0x30, 0xba, 0x30, 1]);
            data.put_crc_since(5);
            let _ = Tombstones::decode(&data);
        }
    }
}
