//! The shard's side: requests of routers with an old map are refused, repeated ones are answered at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::receive::Written;

/// Names the router.
pub const ROUTER_HEADER: &str = "x-pyrometer-router";
/// The epoch of the map by which a request was made.
pub const EPOCH_HEADER: &str = "x-pyrometer-epoch";
/// The number of a request among those of its router.
pub const SEQ_HEADER: &str = "x-pyrometer-seq";

/// So many requests of a router are remembered: all that may be under way, several times over.
const REMEMBERED: usize = 1024;

/// So many routers are remembered.
const ROUTERS_MAX: usize = 256;

/// What a router says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Who it is.
    pub router: &'a str,
    /// Its map.
    pub epoch: u64,
    /// The request's number.
    pub seq: u64,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Store it.
    New,
    /// It has been stored; this was the answer.
    Repeated(Written),
    /// It was made by an older map than this epoch's: 409.
    Stale(u64),
}

#[derive(Default)]
struct Remembered {
    answers: BTreeMap<u64, Written>,
    order: VecDeque<u64>,
}

/// What a shard knows of maps and routers. Known requests cost 50 bytes each, 50 KiB a router.
#[derive(Default)]
pub struct Fence {
    epoch: AtomicU64,
    remembered: Mutex<HashMap<String, Remembered>>,
}

impl Fence {
    /// The newest epoch heard of.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Hears of an epoch; false if it is older than one heard of before.
    pub fn hear(&self, epoch: u64) -> bool {
        self.epoch.fetch_max(epoch, Ordering::AcqRel) <= epoch
    }

    /// Judges a request.
    pub fn admit(&self, origin: Origin<'_>) -> Admission {
        if !self.hear(origin.epoch) {
            return Admission::Stale(self.epoch());
        }
        let remembered = self.remembered.lock();
        let known = remembered.get(origin.router).and_then(|router| router.answers.get(&origin.seq));
        known.map_or(Admission::New, |written| Admission::Repeated(*written))
    }

    /// Remembers that a request has been stored.
    pub fn stored(&self, origin: Origin<'_>, written: Written) {
        let mut remembered = self.remembered.lock();
        if remembered.len() >= ROUTERS_MAX && !remembered.contains_key(origin.router) {
            remembered.clear(); // routers have come and gone under many names
        }
        let router = remembered.entry(origin.router.to_owned()).or_default();
        if router.answers.insert(origin.seq, written).is_none() {
            router.order.push_back(origin.seq);
        }
        if router.order.len() > REMEMBERED
            && let Some(oldest) = router.order.pop_front()
        {
            router.answers.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_maps_are_refused_and_repeated_requests_known() {
        let fence = Fence::default();
        let origin = |epoch, seq| Origin { router: "r", epoch, seq };
        let written = Written { samples: 3, ..Written::default() };
        assert_eq!(fence.admit(origin(2, 1)), Admission::New);
        fence.stored(origin(2, 1), written);
        assert_eq!(fence.admit(origin(2, 1)), Admission::Repeated(written));
        assert_eq!(fence.admit(Origin { router: "s", epoch: 2, seq: 1 }), Admission::New);
        assert_eq!(fence.admit(origin(1, 2)), Admission::Stale(2));
        assert_eq!(fence.admit(origin(3, 1)), Admission::Repeated(written));
        assert_eq!(fence.admit(origin(2, 9)), Admission::Stale(3));
        for seq in 10..10 + 1024 {
            fence.stored(origin(3, seq), written);
        }
        assert_eq!(fence.admit(origin(3, 1)), Admission::New);
    }
}
