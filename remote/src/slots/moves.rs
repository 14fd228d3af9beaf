//! Shards that come and go: each step is a new map.
//!
//! 1. *add* or *remove*: every slot that moves gets its new holder from a time soon to come on, when all
//!    routers will know the map; from now on samples are written to the old and the new one. Queries of
//!    times before are answered by the old one, and any query can be.
//! 2. *finish*, once whatever is still written is newer than that time: the old one is no longer written
//!    to, and is read for the time before only.
//! 3. *forget*, once nobody asks for that time any more, or it has left the shards: the old one goes.
//!
//! No more slots move than must.

use model::Timestamp;

use super::map::{Holder, MapError, Place, SlotMap};
use super::{SLOTS, map};

/// Why a map cannot be changed so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// The move before is not finished.
    #[error("slots are moving; finish that first")]
    Moving,
    /// Samples may still arrive that only the leaving shard would get.
    #[error("slots can be taken from the leaving shard from {0} on (milliseconds since the epoch)")]
    TooEarly(Timestamp),
    /// There is no such shard.
    #[error("there is no shard {0:?}")]
    NoShard(String),
    /// The new map would not be valid.
    #[error(transparent)]
    Map(#[from] MapError),
}

impl SlotMap {
    /// The first map: every shard owns as many slots as any other, and those of a shard that fails are
    /// spread over all others.
    ///
    /// # Errors
    /// Names and addresses are not valid, or there are fewer shards than replicas.
    pub fn first(shards: Vec<Place>, routers: Vec<Place>, replication: usize) -> Result<Self, MapError> {
        let count = shards.len().max(1);
        let per_shard = usize::from(SLOTS).div_ceil(count);
        let holders = |slot: usize| {
            let owner = slot / per_shard;
            // Within the slots of an owner, the others follow in turn, in runs.
            let others = count.saturating_sub(1).max(1);
            let turn = slot % per_shard * others / per_shard;
            let other = |copy: usize| (owner + 1 + (turn + copy - 1) % others) % count;
            (0..replication).map(|copy| Holder::always(if copy == 0 { owner } else { other(copy) })).collect()
        };
        let slots = (0..usize::from(SLOTS)).map(holders).collect();
        let map = Self::of(1, replication, (shards, routers), slots)?;
        // The same checks as for a file.
        Self::parse(&map.to_json())
    }

    /// All holders, slot by slot.
    fn all_holders(&self) -> Vec<Vec<Holder>> {
        (0..SLOTS).map(|slot| self.holders(slot).to_vec()).collect()
    }

    fn next(&self, shards: Vec<Place>, slots: Vec<Vec<Holder>>) -> Result<Self, MoveError> {
        let map = Self::of(self.epoch + 1, self.replication, (shards, self.routers.clone()), slots)?;
        Ok(Self::parse(&map.to_json())?)
    }

    /// How many slots each shard owns.
    fn loads(slots: &[Vec<Holder>], shards: usize) -> Vec<usize> {
        let mut loads = vec![0; shards];
        for holder in slots.iter().flatten().filter(|holder| holder.is_written() && !holder.leaving) {
            loads[holder.shard] += 1;
        }
        loads
    }

    /// Gives `shard` its part of the slots, taken from those with most. All routers know the new map by
    /// `from`.
    ///
    /// # Errors
    /// Slots are moving, or the shard's name or address will not do.
    pub fn with_shard(&self, shard: Place, from: Timestamp) -> Result<Self, MoveError> {
        if self.is_moving() {
            return Err(MoveError::Moving);
        }
        let mut slots = self.all_holders();
        let mut shards = self.shards.clone();
        let fresh = shards.len();
        shards.push(shard);
        let mut loads = Self::loads(&slots, shards.len());
        // How many each shard gives: always the one that has most.
        let mut gives = vec![0usize; fresh];
        for _ in 0..usize::from(SLOTS) * self.replication / shards.len() {
            let Some(giver) = (0..fresh).max_by_key(|shard| (loads[*shard], fresh - shard)) else { break };
            loads[giver] -= 1;
            gives[giver] += 1;
        }
        // From the last slots on, so that runs stay long.
        for holders in slots.iter_mut().rev() {
            let giver = holders.iter().map(|holder| holder.shard).max_by_key(|shard| gives[*shard]);
            if let Some(giver) = giver.filter(|giver| gives[*giver] > 0)
                && give(holders, giver, fresh, from)
            {
                gives[giver] -= 1;
            }
        }
        self.next(shards, slots)
    }

    /// Gives the slots of a shard to those with fewest. All routers know the new map by `from`.
    ///
    /// # Errors
    /// Slots are moving, there is no such shard, or too few would be left.
    pub fn without_shard(&self, name: &str, from: Timestamp) -> Result<Self, MoveError> {
        if self.is_moving() {
            return Err(MoveError::Moving);
        }
        let gone = self.shards.iter().position(|shard| shard.name == name);
        let gone = gone.ok_or_else(|| MoveError::NoShard(name.to_owned()))?;
        let mut slots = self.all_holders();
        let mut loads = Self::loads(&slots, self.shards.len());
        // One that has been removed before is not to come back.
        let retired: Vec<bool> = loads.iter().map(|load| *load == 0).collect();
        let mut last = None;
        for holders in &mut slots {
            if !holders.iter().any(|holder| holder.shard == gone && holder.is_written()) {
                continue;
            }
            let free = |shard: &usize| {
                *shard != gone && !retired[*shard] && !holders.iter().any(|holder| holder.shard == *shard)
            };
            let lightest = (0..loads.len()).filter(free).min_by_key(|shard| loads[*shard]);
            // The one before goes on until it is clearly heavier, so that runs stay long.
            let heir = match (last.filter(free), lightest) {
                (Some(last), Some(lightest)) if loads[last] < loads[lightest] + 32 => Some(last),
                (_, lightest) => lightest,
            };
            let Some(heir) = heir else {
                return Err(map::MapError {
                    field: "shards".to_owned(),
                    what: format!("without {name:?} too few are left for {} copies", self.replication),
                }
                .into());
            };
            give(holders, gone, heir, from);
            loads[heir] += 1;
            last = Some(heir);
        }
        self.next(self.shards.clone(), slots)
    }

    /// The same map with a number above `epoch`, so that whoever knows that one takes it.
    #[must_use]
    pub fn above(mut self, epoch: u64) -> Self {
        self.epoch = self.epoch.max(epoch.saturating_add(1));
        self
    }

    /// The same slots with these routers, and the shards at these addresses; a shard that is not listed stays where it
    /// is. Nothing if that is how it is already.
    ///
    /// # Errors
    /// A name or an address will not do.
    pub fn with_places(&self, shards: &[Place], routers: Vec<Place>) -> Result<Option<Self>, MoveError> {
        let moved =
            |known: &Place| shards.iter().find(|shard| shard.name == known.name).unwrap_or(known).clone();
        let shards: Vec<Place> = self.shards.iter().map(moved).collect();
        if shards == self.shards && routers == self.routers {
            return Ok(None);
        }
        let map = Self::of(self.epoch + 1, self.replication, (shards, routers), self.all_holders())?;
        Ok(Some(Self::parse(&map.to_json())?))
    }

    /// The same map, where shards that come have everything from `since` on at the earliest: when the last
    /// router knew of the move. Whoever announced an earlier time could not know that.
    #[must_use]
    pub fn begun(&self, since: Timestamp) -> Self {
        let mut slots = self.all_holders();
        for holders in &mut slots {
            if let Some(at) = joining(holders) {
                holders[at].from = holders[at].from.max(since);
            }
        }
        let places = (self.shards.clone(), self.routers.clone());
        Self::of(self.epoch, self.replication, places, slots).unwrap_or_else(|_| self.clone())
    }

    /// Ends the move under way: shards that leave are no longer written to, and answer for the time before
    /// their successors began. `window_ms` is how late samples may come.
    ///
    /// # Errors
    /// Samples that are that late could still be from before.
    pub fn finished(&self, now: Timestamp, window_ms: i64) -> Result<Self, MoveError> {
        let mut slots = self.all_holders();
        let mut ready = Timestamp::MIN;
        for holders in slots.iter_mut().filter(|holders| holders.iter().any(|holder| holder.leaving)) {
            let began = holders.iter().filter(|holder| !holder.leaving && holder.is_written());
            let began = began.map(|holder| holder.from).max().unwrap_or(Timestamp::MIN);
            ready = ready.max(began.saturating_add(window_ms));
            for holder in holders.iter_mut().filter(|holder| holder.leaving) {
                (holder.until, holder.leaving) = (began, false);
            }
            // One that has nothing of its own time is of no use.
            holders.retain(|holder| holder.from < holder.until);
        }
        if now < ready {
            return Err(MoveError::TooEarly(ready));
        }
        self.next(self.shards.clone(), slots)
    }

    /// Forgets who had samples from before `horizon`, and shards that have no others.
    ///
    /// # Errors
    /// Slots are moving.
    pub fn forgotten(&self, horizon: Timestamp) -> Result<Self, MoveError> {
        if self.is_moving() {
            return Err(MoveError::Moving);
        }
        let mut slots = self.all_holders();
        for holders in &mut slots {
            holders.retain(|holder| holder.is_written() || holder.until > horizon);
            // Nobody knows more of the time before than whoever has come since.
            if holders.iter().all(Holder::is_written) {
                holders
                    .iter_mut()
                    .filter(|holder| holder.from <= horizon)
                    .for_each(|h| h.from = Timestamp::MIN);
            }
        }
        let mut numbers = vec![None; self.shards.len()];
        slots.iter().flatten().for_each(|holder| numbers[holder.shard] = Some(0));
        let mut shards = Vec::new();
        for (shard, number) in self.shards.iter().zip(&mut numbers).filter(|(_, number)| number.is_some()) {
            *number = Some(shards.len());
            shards.push(shard.clone());
        }
        for holder in slots.iter_mut().flatten() {
            holder.shard = numbers[holder.shard].unwrap_or(holder.shard);
        }
        self.next(shards, slots)
    }
}

/// Which holder is coming in the place of another: the one whose time begins last.
#[must_use]
pub fn joining(holders: &[Holder]) -> Option<usize> {
    if !holders.iter().any(|holder| holder.leaving) {
        return None;
    }
    let coming = holders.iter().enumerate().filter(|(_, holder)| !holder.leaving && holder.is_written());
    coming.max_by_key(|(_, holder)| holder.from).map(|(at, _)| at)
}

/// Lets `heir` come in the place of `giver`, if `giver` owns the slot and `heir` does not.
fn give(holders: &mut Vec<Holder>, giver: usize, heir: usize, from: Timestamp) -> bool {
    let has = |shard: usize| holders.iter().any(|holder| holder.shard == shard);
    if has(heir) || holders.iter().any(|holder| holder.leaving) {
        return false;
    }
    let Some(at) = holders.iter().position(|h| h.shard == giver && h.is_written()) else { return false };
    holders[at].leaving = true;
    holders.insert(at + 1, Holder { from, ..Holder::always(heir) });
    true
}
