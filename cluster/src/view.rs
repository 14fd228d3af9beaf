//! All shards as one store, for the time of one query.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::{
    Exemplar, Labels, MatchOp, Matcher, Querier, Selection, SeriesSet, StorageError, TimeRange, Timestamp,
};
use parking_lot::Mutex;
use remote::slots::{SLOTS, SlotMap, SlotSet, Slotter};

use crate::assign::{Assignment, Known, Piece};
use crate::cell::Cell;
use crate::series::Merge;
use crate::transport::AskError;
use crate::wire::{Answer, Ask, Request, Table};

/// What one selection may bring into memory.
const SELECTION_BYTES_MAX: usize = 1 << 30;

/// So often a query begins anew because shards know a newer map.
const REFRESHES_MAX: usize = 3;

/// All shards as one store, as they are at its beginning: whatever was acknowledged to a writer before is in the
/// answers, or a warning says that it may not be.
pub struct View {
    cell: Arc<Cell>,
    strict: bool,
    timeout: Duration,
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) map: Arc<SlotMap>,
    pub(crate) known: Known,
    warnings: BTreeSet<String>,
}

/// Why a question was not answered.
pub(crate) enum Unanswered {
    /// By an older map; everything is to be asked again.
    Stale,
    Store(StorageError),
    /// The query has no answer.
    Query(String),
}

impl From<StorageError> for Unanswered {
    fn from(error: StorageError) -> Self {
        Self::Store(error)
    }
}

impl View {
    /// Asks the routers what they hold.
    pub(crate) fn new(cell: &Arc<Cell>, strict: bool, timeout: Duration) -> Result<Self, StorageError> {
        let state = State { map: cell.map(), known: Known::default(), warnings: BTreeSet::new() };
        let view = Self { cell: Arc::clone(cell), strict, timeout, state: Mutex::new(state) };
        view.learn()?;
        Ok(view)
    }

    /// Learns the map in force, and what waits in routers.
    fn learn(&self) -> Result<(), StorageError> {
        let mut map = self.cell.map();
        let mut backlogs = self.cell.transport().backlogs(map.routers());
        let newest = backlogs.iter().flatten().map(|told| told.epoch).max().unwrap_or(0);
        if newest > map.epoch() && self.cell.reload() {
            map = self.cell.map();
            backlogs = self.cell.transport().backlogs(map.routers());
        }
        let mut known = Known::default();
        for (router, told) in map.routers().iter().zip(backlogs) {
            match told {
                Ok(told) => {
                    for waits in told.shards {
                        if let Some(shard) = map.shards().iter().position(|shard| shard.name == waits.shard) {
                            let range = TimeRange::new(waits.oldest, waits.newest);
                            known.backlogs.entry(shard).or_default().push(range);
                        }
                    }
                }
                Err(why) => self.warn(format!(
                    "router {} does not answer, samples that it holds for shards may be missing: {why}",
                    router.name
                ))?,
            }
        }
        let mut state = self.state.lock();
        (state.map, state.known) = (map, known);
        Ok(())
    }

    /// What the answers lack, in words.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.state.lock().warnings.iter().cloned().collect()
    }

    fn warn(&self, text: String) -> Result<(), StorageError> {
        if self.strict {
            return Err(StorageError::Unavailable(text));
        }
        self.state.lock().warnings.insert(text);
        Ok(())
    }

    /// Chooses who answers; says what nobody can.
    pub(crate) fn assign(&self, slots: &SlotSet, range: TimeRange) -> Result<Assignment, StorageError> {
        let state = self.state.lock();
        let assignment = Assignment::new(&state.map, slots, range, &state.known);
        let missing: Vec<String> = assignment
            .missing
            .iter()
            .map(|shard| {
                let name = &state.map.shards()[*shard].name;
                match state.known.failed.get(shard) {
                    Some(why) => format!("shard {name} does not answer: {why}"),
                    None => format!("shard {name} has not yet got all samples"),
                }
            })
            .collect();
        drop(state);
        if !missing.is_empty() {
            self.warn(format!("the answer is not complete: {}", missing.join("; ")))?;
        }
        Ok(assignment)
    }

    /// Asks several shards; the answers in order, none from those that failed, which is noted.
    pub(crate) fn ask(&self, asks: Vec<(usize, Ask)>) -> Result<Vec<Option<Answer>>, Unanswered> {
        let map = Arc::clone(&self.state.lock().map);
        let shards: Vec<usize> = asks.iter().map(|(shard, _)| *shard).collect();
        let epoch = map.epoch();
        let asks = asks
            .into_iter()
            .map(|(shard, ask)| (map.shards()[shard].clone(), Request { epoch, ask }.encode()))
            .collect();
        let answers = self.cell.transport().ask(asks, self.timeout);
        let mut out = Vec::with_capacity(shards.len());
        for (shard, answer) in shards.into_iter().zip(answers) {
            let failed = match answer {
                Ok(bytes) => {
                    self.cell.count_bytes(bytes.len());
                    match Answer::decode(&bytes) {
                        Ok(Answer::QueryError(why)) => return Err(Unanswered::Query(why)),
                        Ok(Answer::StoreError(why)) => why,
                        Ok(answer) => {
                            out.push(Some(answer));
                            continue;
                        }
                        Err(error) => error.to_string(),
                    }
                }
                Err(AskError::Stale) => return Err(Unanswered::Stale),
                Err(AskError::Failed(why)) => why,
            };
            self.state.lock().known.failed.insert(shard, failed);
            out.push(None);
        }
        Ok(out)
    }

    /// Runs `attempt`, and again by the newest map if shards know a newer one.
    pub(crate) fn with_newest_map<T>(
        &self,
        attempt: impl Fn() -> Result<T, Unanswered>,
    ) -> Result<T, Unanswered> {
        for _ in 0..REFRESHES_MAX {
            match attempt() {
                Err(Unanswered::Stale) => {
                    if !self.cell.reload() && self.cell.map().epoch() <= self.state.lock().map.epoch() {
                        break;
                    }
                    self.learn()?;
                }
                outcome => return outcome,
            }
        }
        let what = "a shard knows a newer slot map than this querier can read".to_owned();
        Err(StorageError::Unavailable(what).into())
    }

    /// The series of some slots, from wherever they are.
    fn gather(&self, slots: &SlotSet, selection: &Selection<'_>) -> Result<Merge, Unanswered> {
        let (mut merge, mut bytes) = (Merge::default(), 0);
        let mut pending = slots.clone();
        while !pending.is_empty() {
            let assignment = self.assign(&pending, selection.range)?;
            let range = selection.range;
            let whole = assignment.whole.into_iter().map(|(shard, slots)| Piece { shard, slots, range });
            let pieces: Vec<Piece> = whole.chain(assignment.pieces).collect();
            pending = SlotSet::empty();
            let asks = pieces.iter().map(|piece| {
                let (slots, matchers) = (piece.slots.clone(), selection.matchers.to_vec());
                (piece.shard, Ask::Select { slots, range: piece.range, matchers })
            });
            for (answer, piece) in self.ask(asks.collect())?.into_iter().zip(&pieces) {
                match answer {
                    Some(Answer::Table(table)) => bytes += take(&mut merge, table),
                    _ => pending.extend(&piece.slots),
                }
                if bytes > SELECTION_BYTES_MAX {
                    let what =
                        format!("a selection takes more than {SELECTION_BYTES_MAX} bytes from the shards");
                    return Err(Unanswered::Query(what));
                }
            }
        }
        Ok(merge)
    }

    pub(crate) fn select_in(
        &self,
        slots: &SlotSet,
        selection: &Selection<'_>,
    ) -> Result<Box<dyn SeriesSet>, StorageError> {
        let slots = slots.intersection(&possible(selection.matchers));
        let gathered = self.with_newest_map(|| self.gather(&slots, selection));
        let merge = gathered.map_err(Unanswered::into_storage)?;
        Ok(Box::new(merge.finish()))
    }

    /// What every shard that can be reached answers; each may have a part that no other has.
    fn ask_all(&self, range: TimeRange, ask: &dyn Fn() -> Ask) -> Result<Vec<Answer>, StorageError> {
        let attempt = || {
            let shards = self.state.lock().map.shards().len();
            let failed = |shard: &usize| self.state.lock().known.failed.contains_key(shard);
            let asks = (0..shards).filter(|shard| !failed(shard)).map(|shard| (shard, ask())).collect();
            let all = self.ask(asks)?.into_iter().flatten().collect();
            // Who did not answer may not have been needed.
            self.assign(&SlotSet::full(), range)?;
            Ok(all)
        };
        self.with_newest_map(attempt).map_err(Unanswered::into_storage)
    }

    /// Texts of all shards.
    fn texts(
        &self,
        range: TimeRange,
        ask: &dyn Fn() -> Ask,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        let mut all = BTreeSet::new();
        for answer in self.ask_all(range, ask)? {
            if let Answer::Texts(texts) = answer {
                all.extend(texts);
            }
        }
        let limit = if limit == 0 { usize::MAX } else { limit };
        Ok(all.into_iter().take(limit).collect())
    }

    /// The exemplars in `range` of the series that fulfil all matchers of one of `selectors`, by series and time.
    ///
    /// A shard keeps the newest ones only, and none that comes late, so copies differ: what any of them has is given,
    /// once.
    ///
    /// # Errors
    /// It is to be strict, and something is missing.
    pub fn exemplars(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, StorageError> {
        let mut all: BTreeMap<Labels, BTreeSet<(Timestamp, u64, Labels)>> = BTreeMap::new();
        for answer in self.ask_all(range, &|| Ask::Exemplars { range, selectors: selectors.to_vec() })? {
            let Answer::Exemplars(series) = answer else { continue };
            for (labels, exemplars) in series {
                let keys = exemplars.into_iter().map(|one| (one.ts, one.value.to_bits(), one.labels));
                all.entry(labels).or_default().extend(keys);
            }
        }
        let exemplar = |(ts, bits, labels)| Exemplar { labels, ts, value: f64::from_bits(bits) };
        Ok(all.into_iter().map(|(series, own)| (series, own.into_iter().map(exemplar).collect())).collect())
    }
}

impl Unanswered {
    fn into_storage(self) -> StorageError {
        match self {
            Self::Store(error) => error,
            Self::Query(why) => StorageError::Unavailable(why),
            Self::Stale => StorageError::Unavailable("the slot map is stale".to_owned()),
        }
    }
}

/// Merges a table; gives its bytes, about.
fn take(merge: &mut Merge, table: Table) -> usize {
    let mut bytes = 0;
    for row in table.rows {
        bytes += row.labels.packed_bytes() + row.samples.heap_bytes() + 128;
        merge.add(row.labels, row.samples);
    }
    bytes
}

/// The slots in which series can be that fulfil `matchers`: one, if they name a namespace and a pod.
fn possible(matchers: &[Matcher]) -> SlotSet {
    let value = |name: &str| {
        let equal = matchers.iter().find(|matcher| &*matcher.name == name && matcher.op == MatchOp::Equal);
        equal.map(|matcher| &*matcher.value).filter(|value| !value.is_empty())
    };
    match (value("namespace"), value("pod")) {
        (Some(namespace), Some(pod)) => {
            let key = [("namespace", namespace), ("pod", pod)].map(|(n, v)| (n.as_bytes(), v.as_bytes()));
            [Slotter::default().slot_of(key)].into_iter().filter(|slot| *slot < SLOTS).collect()
        }
        _ => SlotSet::full(),
    }
}

impl Querier for View {
    fn select(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
        self.select_in(&SlotSet::full(), selection).map(|set| set as Box<dyn SeriesSet + '_>)
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        self.texts(range, &|| Ask::Names { range, limit, matchers: matchers.to_vec() }, limit)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        let ask = || Ask::Values { name: name.to_owned(), range, limit, matchers: matchers.to_vec() };
        self.texts(range, &ask, limit)
    }
}
