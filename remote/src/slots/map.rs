//! The map from slots to shards, and its file.
//!
//! ```json
//! {
//!   "epoch": 7,
//!   "replication": 2,
//!   "shards": [{"name": "s0", "url": "http://10.0.0.1:9090"}, {"name": "s1", "url": "http://10.0.0.2:9090"}],
//!   "routers": [{"name": "r0", "url": "http://10.0.0.9:9090"}],
//!   "slots": [{"first": 0, "last": 16383, "holders": [{"shard": "s0"}, {"shard": "s1"}]}]
//! }
//! ```
//!
//! A *holder* of a slot has all its samples of the times from `from` to before `until` (milliseconds since
//! the epoch; absent: without bound). Writes go to every holder without `until`. One that is `leaving` is
//! still written to and read, and another has come in its place; see [`super::moves`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use model::{TimeRange, Timestamp};
use serde::{Deserialize, Serialize};

use super::{SLOTS, SlotSet};

/// More shards than this make no sense in one cell.
const SHARDS_MAX: usize = 1_000;

/// A process with its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Letters, digits, `.`, `_` and `-`; unique among its kind.
    pub name: String,
    /// Where it answers, without a slash at the end.
    pub url: String,
}

/// Who has the samples of a slot, and of which time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The shard's place in [`SlotMap::shards`].
    pub shard: usize,
    /// It has all samples from here on.
    pub from: Timestamp,
    /// It has all samples before; [`Timestamp::MAX`] if it is still written to.
    pub until: Timestamp,
    /// Another shard has come in its place.
    pub leaving: bool,
}

impl Holder {
    /// A shard that has the slot, and always had.
    #[must_use]
    pub fn always(shard: usize) -> Self {
        Self { shard, from: Timestamp::MIN, until: Timestamp::MAX, leaving: false }
    }

    /// Whether samples are written to it.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.until == Timestamp::MAX
    }

    /// The times of which it has all samples; none if there are none.
    #[must_use]
    pub fn range(&self) -> Option<TimeRange> {
        let end = if self.is_written() { Timestamp::MAX } else { self.until.saturating_sub(1) };
        (self.from <= end).then_some(TimeRange::new(self.from, end))
    }
}

/// What is wrong with a map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct MapError {
    /// The field, or the place in the text.
    pub field: String,
    /// What is wrong with it.
    pub what: String,
}

fn wrong<T>(field: impl Into<String>, what: impl Into<String>) -> Result<T, MapError> {
    Err(MapError { field: field.into(), what: what.into() })
}

/// Which shards hold which slots. Never changed in place: each change is a new map of the next epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotMap {
    pub(super) epoch: u64,
    pub(super) replication: usize,
    pub(super) shards: Vec<Place>,
    pub(super) routers: Vec<Place>,
    /// The holders of each run of slots.
    pub(super) runs: Vec<Vec<Holder>>,
    /// The shards of each run that are written to.
    writers: Vec<Vec<usize>>,
    /// The run of each slot.
    pub(super) run_of: Vec<u16>,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    epoch: u64,
    replication: usize,
    shards: Vec<Place>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routers: Vec<Place>,
    slots: Vec<FileRun>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRun {
    first: u16,
    last: u16,
    holders: Vec<FileHolder>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileHolder {
    shard: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    leaving: bool,
}

impl SlotMap {
    /// Reads and checks a map.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn parse(text: &str) -> Result<Self, MapError> {
        let file: File = serde_json::from_str(text)
            .map_err(|error| MapError { field: "slot map".to_owned(), what: error.to_string() })?;
        check_places("shards", &file.shards)?;
        check_places("routers", &file.routers)?;
        if file.shards.is_empty() || file.shards.len() > SHARDS_MAX {
            return wrong("shards", format!("there are {}, not 1 to {SHARDS_MAX}", file.shards.len()));
        }
        let by_name: BTreeMap<&str, usize> =
            file.shards.iter().enumerate().map(|(at, shard)| (shard.name.as_str(), at)).collect();
        let mut slots = Vec::with_capacity(usize::from(SLOTS));
        for (at, run) in file.slots.iter().enumerate() {
            if usize::from(run.first) != slots.len() || run.last < run.first || run.last >= SLOTS {
                let next = slots.len();
                return wrong(
                    format!("slots[{at}]"),
                    format!("it does not go from {next} to at most {}", SLOTS - 1),
                );
            }
            let holders = run.read(at, &by_name)?;
            slots.extend((run.first..=run.last).map(|_| holders.clone()));
        }
        if slots.len() != usize::from(SLOTS) {
            return wrong("slots", format!("slot {} and those behind it are missing", slots.len()));
        }
        Self::of(file.epoch, file.replication, (file.shards, file.routers), slots)
    }

    /// A map of the holders of each slot.
    pub(super) fn of(
        epoch: u64,
        replication: usize,
        (shards, routers): (Vec<Place>, Vec<Place>),
        slots: Vec<Vec<Holder>>,
    ) -> Result<Self, MapError> {
        if !(1..=3).contains(&replication) || replication > shards.len() {
            let what = format!("{replication} is not 1 to 3, and at most the {} shards", shards.len());
            return wrong("replication", what);
        }
        let (mut runs, mut run_of): (Vec<Vec<Holder>>, Vec<u16>) = (Vec::new(), Vec::new());
        for (slot, holders) in slots.into_iter().enumerate() {
            if runs.last() != Some(&holders) {
                check_holders(slot, &holders, replication)?;
                runs.push(holders);
            }
            run_of.push(u16::try_from(runs.len() - 1).unwrap_or(u16::MAX));
        }
        let writers = runs
            .iter()
            .map(|run| run.iter().filter(|holder| holder.is_written()).map(|holder| holder.shard).collect())
            .collect();
        Ok(Self { epoch, replication, shards, routers, runs, writers, run_of })
    }

    /// Reads a map from a file.
    ///
    /// # Errors
    /// Names the file, and the field that is wrong.
    pub fn read(path: &Path) -> Result<Self, MapError> {
        let named =
            |error: MapError| MapError { field: format!("{}: {}", path.display(), error.field), ..error };
        let text = std::fs::read_to_string(path)
            .map_err(|error| MapError { field: path.display().to_string(), what: error.to_string() })?;
        Self::parse(&text).map_err(named)
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut slots: Vec<FileRun> = Vec::new();
        for (slot, run) in (0..SLOTS).zip(&self.run_of) {
            match slots.last_mut() {
                Some(last) if slot > 0 && self.run_of[usize::from(slot) - 1] == *run => last.last = slot,
                _ => {
                    let holders = self.runs[usize::from(*run)].iter().map(|holder| self.written(holder));
                    slots.push(FileRun { first: slot, last: slot, holders: holders.collect() });
                }
            }
        }
        let (epoch, replication) = (self.epoch, self.replication);
        let file =
            File { epoch, replication, shards: self.shards.clone(), routers: self.routers.clone(), slots };
        // A map of strings and numbers always serializes.
        serde_json::to_string_pretty(&file).unwrap_or_default()
    }

    fn written(&self, holder: &Holder) -> FileHolder {
        FileHolder {
            shard: self.shards[holder.shard].name.clone(),
            from: Some(holder.from).filter(|from| *from != Timestamp::MIN),
            until: Some(holder.until).filter(|until| *until != Timestamp::MAX),
            leaving: holder.leaving,
        }
    }

    /// The number of the map; a later one is larger.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many shards own each slot, those that leave not counted.
    #[must_use]
    pub fn replication(&self) -> usize {
        self.replication
    }

    /// All shards.
    #[must_use]
    pub fn shards(&self) -> &[Place] {
        &self.shards
    }

    /// All routers.
    #[must_use]
    pub fn routers(&self) -> &[Place] {
        &self.routers
    }

    /// Who has samples of a slot below [`SLOTS`].
    #[must_use]
    pub fn holders(&self, slot: u16) -> &[Holder] {
        self.run_of.get(usize::from(slot)).map_or(&[], |run| &self.runs[usize::from(*run)])
    }

    /// The slots that have the same holders, with these: a few for each shard.
    #[must_use]
    pub fn groups(&self) -> Vec<(SlotSet, &[Holder])> {
        let mut numbers: BTreeMap<Vec<(usize, Timestamp, Timestamp)>, usize> = BTreeMap::new();
        let mut groups: Vec<(SlotSet, &[Holder])> = Vec::new();
        let group_of: Vec<usize> = self
            .runs
            .iter()
            .map(|run| {
                let key = run.iter().map(|holder| (holder.shard, holder.from, holder.until)).collect();
                *numbers.entry(key).or_insert_with(|| {
                    groups.push((SlotSet::empty(), run));
                    groups.len() - 1
                })
            })
            .collect();
        for (slot, run) in (0..SLOTS).zip(&self.run_of) {
            groups[group_of[usize::from(*run)]].0.insert(slot);
        }
        groups
    }

    /// The shards that samples of a slot are written to.
    #[must_use]
    pub fn writers(&self, slot: u16) -> &[usize] {
        self.run_of.get(usize::from(slot)).map_or(&[], |run| &self.writers[usize::from(*run)])
    }

    /// Whether a shard is coming or leaving.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        self.runs.iter().flatten().any(|holder| holder.leaving)
    }
}

impl FileRun {
    fn read(&self, at: usize, by_name: &BTreeMap<&str, usize>) -> Result<Vec<Holder>, MapError> {
        let read = |(index, holder): (usize, &FileHolder)| {
            let Some(shard) = by_name.get(holder.shard.as_str()) else {
                return wrong(
                    format!("slots[{at}].holders[{index}].shard"),
                    format!("{:?} is not among the shards", holder.shard),
                );
            };
            let from = holder.from.unwrap_or(Timestamp::MIN);
            Ok(Holder {
                shard: *shard,
                from,
                until: holder.until.unwrap_or(Timestamp::MAX),
                leaving: holder.leaving,
            })
        };
        self.holders.iter().enumerate().map(read).collect()
    }
}

fn check_places(field: &str, places: &[Place]) -> Result<(), MapError> {
    let mut seen = BTreeSet::new();
    for (at, place) in places.iter().enumerate() {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        // The name is that of a directory too.
        if place.name.is_empty()
            || place.name.len() > 100
            || place.name.starts_with('.')
            || !place.name.chars().all(plain)
        {
            let what = format!("{:?} is not made of letters, digits, '.', '_' and '-'", place.name);
            return wrong(format!("{field}[{at}].name"), what);
        }
        if !seen.insert(&place.name) {
            return wrong(format!("{field}[{at}].name"), format!("{:?} is there twice", place.name));
        }
        let rest = place.url.strip_prefix("http://").or_else(|| place.url.strip_prefix("https://"));
        if rest.is_none_or(str::is_empty) || place.url.ends_with('/') {
            let what = format!("{:?} is not http(s)://HOST:PORT without a slash at its end", place.url);
            return wrong(format!("{field}[{at}].url"), what);
        }
    }
    Ok(())
}

fn check_holders(slot: usize, holders: &[Holder], replication: usize) -> Result<(), MapError> {
    let field = || format!("holders of slot {slot}");
    let shards: BTreeSet<_> = holders.iter().map(|holder| holder.shard).collect();
    if shards.len() != holders.len() {
        return wrong(field(), "a shard is there twice");
    }
    let owners = holders.iter().filter(|holder| holder.is_written() && !holder.leaving).count();
    if owners != replication {
        return wrong(field(), format!("{owners} are written to and stay, not {replication}"));
    }
    match holders.iter().find(|holder| holder.from >= holder.until || holder.leaving && !holder.is_written())
    {
        Some(_) => wrong(field(), "from is not before until, or one that is no longer written to is leaving"),
        None => Ok(()),
    }
}
