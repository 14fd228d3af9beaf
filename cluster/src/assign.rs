//! Which shard answers for which slots: for each slot exactly one that has all its samples of the time asked
//! for; if none has, several for the times that each has; and what nobody has is said.

use std::collections::{BTreeMap, BTreeSet};

use model::TimeRange;
use remote::slots::{Holder, SlotMap, SlotSet};

/// What is known of the shards while a query runs.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Shards that did not answer, with the reason.
    pub(crate) failed: BTreeMap<usize, String>,
    /// Times of which samples wait in routers, by shard.
    pub(crate) backlogs: BTreeMap<usize, Vec<TimeRange>>,
}

/// One question to one shard.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Piece {
    pub(crate) shard: usize,
    pub(crate) slots: SlotSet,
    pub(crate) range: TimeRange,
}

/// Who answers.
#[derive(Debug, Default)]
pub(crate) struct Assignment {
    /// Slots by the one shard that has everything of them.
    pub(crate) whole: BTreeMap<usize, SlotSet>,
    /// Questions that together have everything, or as much as there is, of slots that no shard has whole.
    pub(crate) pieces: Vec<Piece>,
    /// The slots of `pieces`.
    pub(crate) pieced: Option<SlotSet>,
    /// Shards without which the answer is not complete.
    pub(crate) missing: BTreeSet<usize>,
}

impl Assignment {
    /// Chooses for `slots` over `range`.
    pub(crate) fn new(map: &SlotMap, slots: &SlotSet, range: TimeRange, known: &Known) -> Self {
        let mut out = Self::default();
        for (group, holders) in map.groups() {
            let group = group.intersection(slots);
            if !group.is_empty() {
                out.choose(&group, holders, range, known);
            }
        }
        out
    }

    fn choose(&mut self, slots: &SlotSet, holders: &[Holder], range: TimeRange, known: &Known) {
        let up = || holders.iter().filter(|holder| !known.failed.contains_key(&holder.shard));
        let having: Vec<(usize, TimeRange)> = up()
            .flat_map(|holder| complete(holder, known).into_iter().map(|has| (holder.shard, has)))
            .collect();
        let covers = |has: &TimeRange| has.start <= range.start && range.end <= has.end;
        if let Some((shard, _)) = having.iter().find(|(_, has)| covers(has)) {
            self.whole.entry(*shard).or_insert_with(SlotSet::empty).extend(slots);
            return;
        }
        let pieces = cover(&having, range).unwrap_or_else(|| {
            // As much as there is, and a word about what is not.
            let lacking = holders.iter().map(|holder| holder.shard);
            let lacking = lacking
                .filter(|shard| known.failed.contains_key(shard) || known.backlogs.contains_key(shard));
            self.missing.extend(lacking);
            if self.missing.is_empty() {
                self.missing.extend(holders.iter().map(|holder| holder.shard));
            }
            up().filter_map(|holder| Some((holder.shard, overlap(holder.range()?, range)?))).collect()
        });
        self.pieced.get_or_insert_with(SlotSet::empty).extend(slots);
        for (shard, range) in pieces {
            match self.pieces.iter_mut().find(|piece| piece.shard == shard && piece.range == range) {
                Some(piece) => piece.slots.extend(slots),
                None => self.pieces.push(Piece { shard, slots: slots.clone(), range }),
            }
        }
    }
}

fn overlap(a: TimeRange, b: TimeRange) -> Option<TimeRange> {
    a.overlaps(b).then(|| TimeRange::new(a.start.max(b.start), a.end.min(b.end)))
}

/// The times of which a holder has all samples: its own, without those that wait for it.
fn complete(holder: &Holder, known: &Known) -> Vec<TimeRange> {
    let mut has = Vec::from_iter(holder.range());
    for lacks in known.backlogs.get(&holder.shard).into_iter().flatten() {
        has = has
            .into_iter()
            .flat_map(|has| {
                let before = TimeRange::new(has.start, has.end.min(lacks.start.saturating_sub(1)));
                let after = TimeRange::new(has.start.max(lacks.end.saturating_add(1)), has.end);
                // Where both bounds are at the end of time, nothing is left.
                let before = Some(before).filter(|_| lacks.start > has.start);
                let after = Some(after).filter(|_| lacks.end < has.end);
                [before, after].into_iter().flatten().filter(|range| range.start <= range.end)
            })
            .collect();
    }
    has
}

/// Covers `range` with as few of `having` as possible; none if they leave a hole.
fn cover(having: &[(usize, TimeRange)], range: TimeRange) -> Option<Vec<(usize, TimeRange)>> {
    let mut out = Vec::new();
    let mut at = range.start;
    loop {
        let reaching = having.iter().filter(|(_, has)| has.start <= at && at <= has.end);
        let (shard, has) = reaching.max_by_key(|(_, has)| has.end)?;
        out.push((*shard, TimeRange::new(at, has.end.min(range.end))));
        if has.end >= range.end {
            return Some(out);
        }
        at = has.end + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;
    use remote::slots::{Place, SLOTS};

    fn map(shards: usize, replication: usize) -> SlotMap {
        let place = |at: usize| Place { name: format!("s{at}"), url: format!("http://h{at}") };
        SlotMap::first((0..shards).map(place).collect(), Vec::new(), replication).unwrap()
    }

    fn assigned(map: &SlotMap, range: (i64, i64), known: &Known) -> Assignment {
        Assignment::new(map, &SlotSet::full(), TimeRange::new(range.0, range.1), known)
    }

    /// How many shards answer for each slot.
    fn answers(assignment: &Assignment) -> Vec<usize> {
        (0..SLOTS)
            .map(|slot| assignment.whole.values().filter(|slots| slots.contains(slot)).count())
            .collect()
    }

    #[test]
    fn each_slot_has_one_owner_whoever_fails() {
        let map = map(4, 2);
        let mut known = Known::default();
        for failed in 0..4 {
            let assignment = assigned(&map, (0, 100), &known);
            assert_eq!(answers(&assignment), vec![1; usize::from(SLOTS)]);
            assert!(assignment.pieces.is_empty() && assignment.missing.is_empty());
            known.failed = [(failed, "gone".to_owned())].into();
        }
        known.failed.insert(0, "gone".to_owned());
        let assignment = assigned(&map, (0, 100), &known);
        assert_eq!(assignment.missing, [0, 3].into());
        assert!(answers(&assignment).contains(&0));
    }

    #[test]
    fn one_that_lacks_samples_is_asked_for_other_times_only() {
        let map = map(2, 2);
        let known = |lacks: [(i64, i64); 2]| Known {
            failed: BTreeMap::new(),
            backlogs: (0..2).map(|at| (at, vec![TimeRange::new(lacks[at].0, lacks[at].1)])).collect(),
        };
        let first = known([(10, 20), (50, 60)]);
        let assignment = assigned(&map, (0, 30), &first);
        assert_eq!(assignment.whole.keys().copied().collect::<Vec<_>>(), [1]);
        // Both together have everything.
        let assignment = assigned(&map, (0, 100), &first);
        assert!(assignment.whole.is_empty() && assignment.missing.is_empty());
        let pieces: Vec<_> =
            assignment.pieces.iter().map(|p| (p.shard, p.range.start, p.range.end)).collect();
        assert_eq!(pieces, [(1, 0, 49), (0, 50, 100)]);
        // Neither has what both lack.
        let assignment = assigned(&map, (0, 100), &known([(10, 20), (20, 30)]));
        assert_eq!(assignment.missing, [0, 1].into());
        assert_eq!(assignment.pieces.len(), 2);
        let all = TimeRange::new(Timestamp::MIN, Timestamp::MAX);
        let everything = Known { backlogs: [(0, vec![all])].into(), ..Known::default() };
        assert_eq!(assigned(&map, (0, 1), &everything).whole.keys().copied().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn while_slots_move_every_time_has_its_shard() {
        let place = Place { name: "new".to_owned(), url: "http://new".to_owned() };
        let moving = map(2, 1).with_shard(place, 1_000).unwrap();
        let known = Known::default();
        let during = assigned(&moving, (0, 5_000), &known);
        assert!(during.pieces.is_empty() && !during.whole.contains_key(&2));
        let moved = moving.finished(9_000, 0).unwrap();
        assert!(assigned(&moved, (1_000, 5_000), &known).whole.contains_key(&2));
        assert!(!assigned(&moved, (0, 999), &known).whole.contains_key(&2));
        let both = assigned(&moved, (0, 5_000), &known);
        assert!(both.missing.is_empty());
        assert!(
            both.pieces.iter().any(|piece| piece.shard == 2 && piece.range == TimeRange::new(1_000, 5_000))
        );
        assert!(both.pieces.iter().all(|piece| piece.shard == 2 || piece.range == TimeRange::new(0, 999)));
        // The new one for all it has, if the old one is gone.
        let failed = Known { failed: [(0, String::new()), (1, String::new())].into(), ..Known::default() };
        assert_eq!(assigned(&moved, (0, 5_000), &failed).missing, [0, 1].into());
    }
}
