//! What is known about the series of a target, in the order of its page.
//!
//! A page comes in the same order each time. So the i-th series of a page is first compared with the
//! i-th entry: same length, same 64-bit hash of the bytes that name it, and nothing of the line is looked
//! at beyond its value. When the order changes, a table from hash to entry is built for that one page and
//! thrown away after it; the entries are then brought into the new order.
//!
//! An entry takes 20 bytes: 8 of hash, 8 of series reference, and 4 for the length of the name and
//! two flags. Its alignment is 4, and the vector of entries is kept at its exact length, so a series
//! costs 20 bytes at rest. While a page with changes is being read, its target has in addition the table
//! (4 bytes an entry at a load of at most 7/8, and one control byte, rounded to a power of two: up to 12
//! bytes) and one bit a series that tells which were seen.

use std::collections::HashSet;

use hashbrown::HashTable;
use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};
use tsdb::SeriesRef;

/// Names longer than this are not cached: they are looked up in the store each time.
const NAME_BYTES_MAX: usize = (1 << LENGTH_BITS) - 2;
const LENGTH_BITS: u32 = 30;
const LENGTH_MASK: u32 = (1 << LENGTH_BITS) - 1;
/// A length that no name has: of an entry that only waits for its staleness marker.
const FORGOTTEN: u32 = LENGTH_MASK;
/// The last sample brought its own timestamp.
const TIMED: u32 = 1 << 30;

/// How many entries ahead of the expected one a series is looked for before the table is built: enough
/// for a few series that are gone.
const LOOK_AHEAD: usize = 4;

/// Hashes the bytes that name a series.
#[derive(Clone)]
pub struct NameHasher(RapidSecrets);

impl NameHasher {
    /// Differs from process to process, so that no page can be made to collide.
    #[must_use]
    pub fn new() -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        Self(RapidSecrets::seed(RandomState::new().hash_one(0)))
    }

    /// The hash of the bytes that name a series.
    #[must_use]
    pub fn hash(&self, name: &[u8]) -> u64 {
        rapidhash_v3_seeded(name, &self.0)
    }
}

impl Default for NameHasher {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: [u32; 2],
    series: [u32; 2],
    length_and_flags: u32,
}

/// Bytes of a series at rest.
pub const ENTRY_BYTES: usize = 20;

const _: () = assert!(size_of::<Entry>() == ENTRY_BYTES);

#[expect(clippy::cast_possible_truncation, reason = "the halves of a 64-bit number")]
fn split(number: u64) -> [u32; 2] {
    [number as u32, (number >> 32) as u32]
}

fn join([low, high]: [u32; 2]) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

impl Entry {
    fn new(hash: u64, length: usize, series: Option<SeriesRef>, timed: bool) -> Self {
        let length = u32::try_from(length).unwrap_or(FORGOTTEN).min(FORGOTTEN);
        let flags = if timed { TIMED } else { 0 };
        Self {
            hash: split(hash),
            series: split(series.map_or(0, |series| series.0)),
            length_and_flags: length | flags,
        }
    }

    fn length(&self) -> usize {
        (self.length_and_flags & LENGTH_MASK) as usize
    }

    fn series(&self) -> Option<SeriesRef> {
        Some(SeriesRef(join(self.series))).filter(|series| series.0 != 0)
    }

    fn is_timed(&self) -> bool {
        self.length_and_flags & TIMED != 0
    }
}

/// The series of one target.
#[derive(Debug, Default)]
pub struct Cache {
    entries: Vec<Entry>,
    /// Whether the last scrape failed and all series have been marked stale.
    is_stale: bool,
}

/// Where a series of the page being read stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// In the cache, at this place.
    Known(u32),
    /// New: the n-th one of this page.
    New(u32),
}

/// A new series of the page being read.
#[derive(Clone, Copy, Debug)]
struct Fresh {
    hash: u64,
    length: usize,
}

/// One page being read against the cache.
pub struct Reading<'a> {
    cache: &'a Cache,
    hasher: &'a NameHasher,
    /// The entry expected next.
    next: usize,
    predicted: Option<u32>,
    /// From hash to entry, or, counted on from the entries, to new series.
    table: Option<HashTable<u32>>,
    fresh: Vec<Fresh>,
    /// Whether entries were left out or came in another order.
    is_reordered: bool,
}

/// What a page made of the cache: which series are new and which are gone.
#[derive(Debug, Default)]
pub struct Changes {
    fresh: Vec<Fresh>,
    /// Whether the entries stay as they are.
    is_same: bool,
}

impl Cache {
    /// The number of series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Begins a page.
    #[must_use]
    pub fn read<'a>(&'a self, hasher: &'a NameHasher) -> Reading<'a> {
        Reading {
            cache: self,
            hasher,
            next: 0,
            predicted: None,
            table: None,
            fresh: Vec::new(),
            is_reordered: false,
        }
    }

    /// The series of a known place; `None` if it is dropped by relabelling.
    #[must_use]
    pub fn series(&self, at: u32) -> Option<SeriesRef> {
        self.entries.get(at as usize).and_then(Entry::series)
    }

    /// Forgets what names belong to which series, but not that the series are there: those that are not
    /// seen again get their staleness markers.
    pub fn forget_names(&mut self) {
        for entry in &mut self.entries {
            entry.length_and_flags = FORGOTTEN | (entry.length_and_flags & TIMED);
        }
    }

    /// Series that are live and have to be marked stale if the target fails or goes.
    pub fn live(&self) -> impl Iterator<Item = SeriesRef> {
        let live = if self.is_stale { &[][..] } else { &self.entries[..] };
        live.iter().filter(|entry| !entry.is_timed()).filter_map(Entry::series)
    }

    /// Forgets those of `ended` that are here and live, and returns them.
    pub fn forget(&mut self, ended: &HashSet<SeriesRef>) -> Vec<SeriesRef> {
        if self.is_stale {
            return Vec::new();
        }
        let is_ended = |entry: &Entry| entry.series().is_some_and(|series| ended.contains(&series));
        let found = self.entries.iter().filter(|entry| is_ended(entry)).filter_map(Entry::series).collect();
        self.entries.retain(|entry| !is_ended(entry));
        found
    }

    /// Notes that all series were marked stale.
    pub fn set_stale(&mut self) {
        self.is_stale = true;
        self.entries.retain(|entry| entry.length() != FORGOTTEN as usize);
    }

    /// Series that the page did not show and that have to be marked stale. `points` are the places of
    /// its samples; `is_used` says whether a series occurs on it under another name.
    pub fn gone(
        &self,
        changes: &Changes,
        points: impl Iterator<Item = Slot>,
        mut is_used: impl FnMut(SeriesRef) -> bool,
    ) -> Vec<SeriesRef> {
        if changes.is_same || self.is_stale {
            return Vec::new();
        }
        let mut seen = vec![0u64; self.entries.len().div_ceil(64)];
        for slot in points {
            if let Slot::Known(at) = slot {
                seen[at as usize / 64] |= 1 << (at % 64);
            }
        }
        let unseen = |(at, _): &(usize, &Entry)| seen[at / 64] & 1 << (at % 64) == 0;
        let gone = self.entries.iter().enumerate().filter(unseen).filter(|(_, entry)| !entry.is_timed());
        gone.filter_map(|(_, entry)| entry.series()).filter(|series| !is_used(*series)).collect()
    }

    /// Brings the cache to the state of a page that was stored. `points` are its samples in order, each
    /// with its place and whether it brought its timestamp; `resolve` gives the series of the n-th new
    /// one, or `Err` if it could not be stored and has to be tried again.
    pub fn advance(
        &mut self,
        changes: &Changes,
        points: impl Iterator<Item = (Slot, bool)>,
        resolve: impl Fn(u32) -> Result<Option<SeriesRef>, ()>,
    ) {
        self.is_stale = false;
        if changes.is_same {
            for (slot, timed) in points {
                if let Slot::Known(at) = slot
                    && let Some(entry) = self.entries.get_mut(at as usize)
                {
                    entry.length_and_flags &= !TIMED;
                    entry.length_and_flags |= if timed { TIMED } else { 0 };
                }
            }
            return;
        }
        let mut taken = vec![0u64; (self.entries.len() + changes.fresh.len()).div_ceil(64)];
        let mut entries = Vec::with_capacity(self.entries.len() + changes.fresh.len());
        for (slot, timed) in points {
            let (at, entry) = match slot {
                Slot::Known(at) => {
                    let entry = &self.entries[at as usize];
                    (at as usize, Entry::new(join(entry.hash), entry.length(), entry.series(), timed))
                }
                Slot::New(n) => {
                    let Ok(series) = resolve(n) else { continue };
                    let fresh = changes.fresh[n as usize];
                    (self.entries.len() + n as usize, Entry::new(fresh.hash, fresh.length, series, timed))
                }
            };
            let (word, bit) = (at / 64, 1u64 << (at % 64));
            if taken[word] & bit == 0 {
                taken[word] |= bit;
                entries.push(entry);
            }
        }
        entries.shrink_to_fit();
        self.entries = entries;
    }
}

impl Reading<'_> {
    /// The number of bytes that name the series at the beginning of `rest`, if it is one of those
    /// expected here.
    pub fn predict(&mut self, rest: &[u8]) -> Option<usize> {
        let entries = &self.cache.entries;
        let expected = entries.get(self.next..entries.len().min(self.next + LOOK_AHEAD))?;
        for (ahead, entry) in expected.iter().enumerate() {
            let length = entry.length();
            // Behind the name stand a blank and the value. A brace there would belong to the name.
            let separated = rest.get(length) == Some(&b' ')
                && rest.get(length + 1).is_some_and(|byte| !matches!(byte, b' ' | b'\t' | b'{'));
            if separated && self.hasher.hash(&rest[..length]) == join(entry.hash) {
                self.is_reordered |= ahead > 0;
                let at = self.next + ahead;
                self.predicted = u32::try_from(at).ok();
                self.next = at + 1;
                return Some(length);
            }
        }
        None
    }

    /// The place of the series named by `name`, which the parser has just returned.
    pub fn place(&mut self, name: &[u8]) -> Slot {
        if let Some(at) = self.predicted.take() {
            return Slot::Known(at);
        }
        let hash = self.hasher.hash(name);
        if let Some(slot) = self.expected(hash) {
            return slot;
        }
        let (cache, fresh) = (self.cache, &self.fresh);
        let hash_of = |at: u32| {
            let at = at as usize;
            cache
                .entries
                .get(at)
                .map_or_else(|| fresh[at - cache.entries.len()].hash, |entry| join(entry.hash))
        };
        let table = self.table.get_or_insert_with(|| {
            let mut table = HashTable::with_capacity(cache.entries.len());
            for (at, entry) in (0..).zip(&cache.entries) {
                if entry.length() != FORGOTTEN as usize {
                    table.insert_unique(join(entry.hash), at, |&at| hash_of(at));
                }
            }
            table
        });
        self.is_reordered = true;
        if let Some(&at) = table.find(hash, |&at| hash_of(at) == hash) {
            return if (at as usize) < cache.entries.len() {
                self.next = at as usize + 1;
                Slot::Known(at)
            } else {
                Slot::New(at - u32::try_from(cache.entries.len()).unwrap_or(u32::MAX))
            };
        }
        let n = u32::try_from(self.fresh.len()).unwrap_or(u32::MAX);
        let id = u32::try_from(cache.entries.len() + self.fresh.len()).unwrap_or(u32::MAX);
        self.fresh.push(Fresh { hash, length: name.len().min(NAME_BYTES_MAX + 1) });
        let (cache, fresh) = (self.cache, &self.fresh);
        let hash_of = |at: u32| {
            let at = at as usize;
            cache
                .entries
                .get(at)
                .map_or_else(|| fresh[at - cache.entries.len()].hash, |entry| join(entry.hash))
        };
        table.insert_unique(hash, id, |&at| hash_of(at));
        Slot::New(n)
    }

    /// The place of a series that is expected here but was not predicted, as those of protobuf.
    fn expected(&mut self, hash: u64) -> Option<Slot> {
        let entries = &self.cache.entries;
        let expected = entries.get(self.next..entries.len().min(self.next + LOOK_AHEAD))?;
        let is_it = |entry: &Entry| entry.length() != FORGOTTEN as usize && join(entry.hash) == hash;
        let ahead = expected.iter().position(is_it)?;
        self.is_reordered |= ahead > 0;
        let at = self.next + ahead;
        self.next = at + 1;
        u32::try_from(at).ok().map(Slot::Known)
    }

    /// Ends the page.
    #[must_use]
    pub fn finish(self) -> Changes {
        let is_same = !self.is_reordered && self.fresh.is_empty() && self.next == self.cache.entries.len();
        Changes { fresh: self.fresh, is_same }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a page of names; returns how many were predicted, new, and gone.
    fn scrape(cache: &mut Cache, hasher: &NameHasher, names: &[&str]) -> (usize, usize, Vec<u64>) {
        let mut reading = cache.read(hasher);
        let (mut predicted, mut slots) = (0, Vec::new());
        for name in names {
            let line = format!("{name} 1\n");
            let known = reading.predict(line.as_bytes());
            predicted += usize::from(known == Some(name.len()));
            slots.push(reading.place(name.as_bytes()));
        }
        let changes = reading.finish();
        // A series' reference is its number, here the one its name ends with.
        let number =
            |name: &str| SeriesRef(name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap());
        let mut fresh = Vec::new();
        for (slot, name) in slots.iter().zip(names) {
            match slot {
                Slot::Known(at) => assert_eq!(cache.series(*at), Some(number(name))),
                Slot::New(n) if *n as usize == fresh.len() => fresh.push(number(name)),
                Slot::New(n) => assert_eq!(fresh[*n as usize], number(name)),
            }
        }
        let gone = cache.gone(&changes, slots.iter().copied(), |series| fresh.contains(&series));
        cache.advance(&changes, slots.iter().map(|slot| (*slot, false)), |n| Ok(Some(fresh[n as usize])));
        (predicted, fresh.len(), gone.into_iter().map(|series| series.0).collect())
    }

    #[test]
    fn a_page_in_the_same_order_needs_no_table() {
        let (mut cache, hasher) = (Cache::default(), NameHasher::new());
        assert_eq!(scrape(&mut cache, &hasher, &["a1", "b2", "c3"]), (0, 3, vec![]));
        assert_eq!(scrape(&mut cache, &hasher, &["a1", "b2", "c3"]), (3, 0, vec![]));
        assert_eq!(cache.len(), 3);
    }

    #[test]
    fn series_come_go_and_change_places() {
        let (mut cache, hasher) = (Cache::default(), NameHasher::new());
        scrape(&mut cache, &hasher, &["a1", "b2", "c3", "d4"]);
        assert_eq!(scrape(&mut cache, &hasher, &["a1", "c3", "d4"]), (3, 0, vec![2]));
        assert_eq!(scrape(&mut cache, &hasher, &["a1", "e5", "c3", "d4"]), (3, 1, vec![]));
        assert_eq!(scrape(&mut cache, &hasher, &["d4", "c3", "e5", "a1"]).1, 0);
        assert_eq!(scrape(&mut cache, &hasher, &["d4", "c3", "e5", "a1"]), (4, 0, vec![]));
        assert_eq!(scrape(&mut cache, &hasher, &[]), (0, 0, vec![4, 3, 5, 1]));
        assert!(cache.is_empty());
    }

    #[test]
    fn a_name_may_occur_twice() {
        let (mut cache, hasher) = (Cache::default(), NameHasher::new());
        assert_eq!(scrape(&mut cache, &hasher, &["a1", "a1", "b2"]), (0, 2, vec![]));
        assert_eq!(scrape(&mut cache, &hasher, &["a1", "a1", "b2"]).1, 0);
        assert_eq!(cache.len(), 2);
    }

    #[test]
    fn one_series_under_another_name_is_not_gone() {
        let (mut cache, hasher) = (Cache::default(), NameHasher::new());
        scrape(&mut cache, &hasher, &["a1", "b2"]);
        assert_eq!(scrape(&mut cache, &hasher, &["x1", "b2"]), (1, 1, vec![]));
    }

    #[test]
    fn forgotten_names_are_new_and_their_series_may_be_gone() {
        let (mut cache, hasher) = (Cache::default(), NameHasher::new());
        scrape(&mut cache, &hasher, &["a1", "b2"]);
        cache.forget_names();
        assert_eq!(scrape(&mut cache, &hasher, &["a1"]), (0, 1, vec![2]));
    }

    #[test]
    fn after_a_failure_nothing_is_live_until_the_next_page() {
        let (mut cache, hasher) = (Cache::default(), NameHasher::new());
        scrape(&mut cache, &hasher, &["a1", "b2"]);
        assert_eq!(cache.live().count(), 2);
        cache.set_stale();
        assert_eq!(cache.live().count(), 0);
        assert_eq!(scrape(&mut cache, &hasher, &["a1"]), (1, 0, vec![]));
        assert_eq!(cache.live().count(), 1);
    }

    #[test]
    fn a_brace_behind_a_blank_belongs_to_the_name() {
        let (mut cache, hasher) = (Cache::default(), NameHasher::new());
        scrape(&mut cache, &hasher, &["a1"]);
        assert_eq!(cache.read(&hasher).predict(b"a1 {b=\"c\"} 2"), None);
        assert_eq!(cache.read(&hasher).predict(b"a1 2"), Some(2));
        assert_eq!(cache.read(&hasher).predict(b"a1"), None);
    }
}
