//! The values of labels that are often asked for, in order.
//!
//! A dashboard's variable asks for the pods of a namespace: 32,000 of a million series. Through the series that is two
//! cache misses each for the value, two for its text, and fifteen comparisons of texts that lie anywhere: some 350 ns
//! a series. A *column* has the place of each series' value among all values of the label, and their texts in that
//! order. With it, the values are a bitmap over places, 2-5 ns a series, and come out in order from texts that lie in a row,
//! which are touched 64 at a time, so that their cache misses overlap: some 20 ns a value.
//!
//! A column costs 4 bytes a series, 4 a value and its text: 23 MB for a million pods with names of 15 characters, 5 % of
//! what the series take. So it is there only while it is worth that: there are two at most; one comes only when series without
//! it have been looked at a quarter as often as there are series, which is what it costs, and goes when nobody has
//! asked for a quarter of an hour. It is built aside, the catalog being locked for a turn at a time. Series that are
//! new since are told apart by a bitmap, and looked at as if there were no column; when that has become work again, the
//! next column comes.

use std::hint::black_box;
use std::sync::Arc;

use croaring::Bitmap;
use model::Timestamp;
use parking_lot::{Mutex, RwLock};

use super::SERIES_A_TURN;
use super::catalog::Catalog;
use super::symbols::Symbol;

/// So many labels are counted.
const HOT_MAX: usize = 8;
/// So many have a column.
const COLUMNS_MAX: usize = 2;
/// A label with fewer values is no work.
const VALUES_MIN: u64 = 4096;
/// A column that was not asked for so long is dropped.
const KEPT_MS: i64 = 15 * 60_000;
/// A label whose values are longer altogether gets none.
const TEXTS_BYTES_MAX: usize = 256 << 20;
/// So many texts are fetched from memory at once.
const TEXTS_AT_ONCE: usize = 64;
/// A series without the label.
pub(super) const NONE: u32 = u32::MAX;

/// The columns there are, and what it has cost that there were no others. Asked for longest ago comes first.
#[derive(Debug, Default)]
pub(super) struct Ranks(Mutex<Vec<Hot>>);

#[derive(Debug)]
struct Hot {
    name: Box<str>,
    /// Series looked at one by one since there was a column.
    owed: u64,
    state: State,
    /// Series added since the column was begun.
    added: Bitmap,
    /// The step of maintenance that found it asked for last; `None`: asked for since.
    asked: Option<Timestamp>,
}

#[derive(Debug)]
enum State {
    Counted,
    Building,
    Ready(Arc<Column>),
}

/// The values of one label.
#[derive(Debug)]
pub(super) struct Column {
    /// The place of the value of each series, by number of the series.
    ranks: Vec<u32>,
    /// The values, ascending. One whose last series went while they were put in order may be another, and in the wrong
    /// place: then no series that was there before has it.
    texts: String,
    /// Where each value ends.
    ends: Vec<u32>,
}

impl Ranks {
    /// There is a new series.
    pub(super) fn add(&mut self, id: u32) {
        for hot in self.0.get_mut().iter_mut().filter(|hot| !matches!(hot.state, State::Counted)) {
            hot.added.add(id);
        }
    }

    /// The column of a label, and which of `ids` it does not know.
    pub(super) fn column(&self, name: &str, ids: &[u32]) -> Option<(Arc<Column>, Bitmap)> {
        let mut all = self.0.lock();
        let hot = all.iter_mut().find(|hot| &*hot.name == name)?;
        let State::Ready(column) = &hot.state else { return None };
        hot.asked = None;
        let mut unknown = Bitmap::new();
        if !hot.added.is_empty() {
            unknown = Bitmap::of(ids);
            unknown.and_inplace(&hot.added);
        }
        Some((Arc::clone(column), unknown))
    }

    /// So many series had to be looked at one by one, as the label has so many values.
    pub(super) fn owe(&self, name: &str, looks: u64, values: u64) {
        if values < VALUES_MIN {
            return;
        }
        let mut all = self.0.lock();
        let hot = Self::newest(&mut all, name);
        (hot.owed, hot.asked) = (hot.owed.saturating_add(looks), None);
    }

    /// The entry of a label, which is the last from now on.
    fn newest<'a>(all: &'a mut Vec<Hot>, name: &str) -> &'a mut Hot {
        let known = all.iter().position(|hot| &*hot.name == name);
        if known.is_none() && all.len() >= HOT_MAX {
            let least = all.iter().position(|hot| matches!(hot.state, State::Counted));
            least.into_iter().for_each(|at| drop(all.remove(at)));
        }
        let hot = known.map(|at| all.remove(at));
        let (name, added) = (name.into(), Bitmap::new());
        all.push(hot.unwrap_or(Hot { name, owed: 0, state: State::Counted, added, asked: None }));
        let last = all.len() - 1;
        &mut all[last]
    }

    /// Whether a column would have paid by now, there being so many series.
    pub(super) fn is_due(&self, name: &str, series: u64) -> bool {
        let all = self.0.lock();
        let hot = all.iter().find(|hot| &*hot.name == name);
        hot.is_some_and(|hot| !matches!(hot.state, State::Building) && hot.owed >= VALUES_MIN.max(series / 4))
    }

    /// From now on new series are noted for a column of this label; false if they are already.
    fn begin(&self, name: &str) -> bool {
        let mut all = self.0.lock();
        let hot = Self::newest(&mut all, name);
        if matches!(hot.state, State::Building) {
            return false;
        }
        (hot.state, hot.owed) = (State::Building, 0);
        hot.added.clear();
        true
    }

    /// The column is there, or would be too large.
    fn finish(&self, name: &str, column: Option<Column>) {
        let mut all = self.0.lock();
        if let Some(hot) = all.iter_mut().find(|hot| &*hot.name == name) {
            hot.state = column.map_or(State::Counted, |column| State::Ready(Arc::new(column)));
            // Those who asked while it was built had to go without; it owes nothing to those who come now.
            hot.owed = 0;
        }
        let is_ready = |hot: &&mut Hot| matches!(hot.state, State::Ready(_));
        let surplus = all.iter().filter(|hot| matches!(hot.state, State::Ready(_))).count();
        let surplus = surplus.saturating_sub(COLUMNS_MAX);
        let others = all.iter_mut().filter(|hot| &*hot.name != name);
        others.filter(is_ready).take(surplus).for_each(Hot::drop_column);
    }

    /// Drops columns that nobody has asked for in a while; to be called now and then.
    pub(super) fn cool(&self, now: Timestamp) {
        self.0.lock().retain_mut(|hot| {
            let asked = *hot.asked.get_or_insert(now);
            matches!(hot.state, State::Building) || now.saturating_sub(asked) < KEPT_MS
        });
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.lock().iter().filter(|hot| matches!(hot.state, State::Ready(_))).count()
    }
}

impl Hot {
    fn drop_column(&mut self) {
        (self.state, self.owed) = (State::Counted, 0);
        self.added.clear();
    }
}

impl Column {
    /// Calls `visit` with each value of `ids` but `unknown`, and with each of `others`, which are ascending: all in order and
    /// each once, until it returns false.
    pub(super) fn visit(
        &self,
        (ids, unknown): (&[u32], &Bitmap),
        others: &[&str],
        visit: &mut dyn FnMut(&str) -> bool,
    ) {
        let mut wanted = vec![0u64; self.ends.len().div_ceil(64)];
        let is_known = |id: &&u32| unknown.is_empty() || !unknown.contains(**id);
        for &id in ids.iter().filter(is_known) {
            let rank = self.ranks.get(id as usize).map_or(NONE, |&rank| rank) as usize;
            if let Some(word) = wanted.get_mut(rank / 64) {
                *word |= 1 << (rank % 64);
            }
        }
        let mut others = others.iter().copied().peekable();
        let mut texts: Vec<&str> = Vec::with_capacity(2 * TEXTS_AT_ONCE);
        let mut words = (0..).step_by(64).zip(wanted).peekable();
        while let Some((first, mut word)) = words.next() {
            while word != 0 {
                texts.push(self.text(first + word.trailing_zeros() as usize));
                word &= word - 1;
            }
            if texts.len() < TEXTS_AT_ONCE && words.peek().is_some() {
                continue;
            }
            black_box(
                texts.iter().fold(0, |sum, text| sum ^ text.as_bytes().first().map_or(0, |&byte| byte)),
            );
            for text in texts.drain(..) {
                while let Some(other) = others.next_if(|other| *other <= text) {
                    if other != text && !visit(other) {
                        return;
                    }
                }
                if !visit(text) {
                    return;
                }
            }
        }
        others.all(visit);
    }

    fn text(&self, rank: usize) -> &str {
        let start = rank.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.texts[start as usize..self.ends[rank] as usize]
    }
}

/// Builds the column of a label that is due, unless somebody else does. Whoever creates series meanwhile waits for one turn
/// at most.
pub(super) fn build(catalog: &RwLock<Catalog>, name: &str) {
    if !catalog.read().ranks.begin(name) {
        return;
    }
    let mut ranks = Vec::new();
    while catalog.read().push_values(name, SERIES_A_TURN, &mut ranks) {}
    let mut is_used =
        vec![false; ranks.iter().filter(|rank| **rank != NONE).max().map_or(0, |&max| max as usize + 1)];
    ranks.iter().filter(|rank| **rank != NONE).for_each(|&symbol| is_used[symbol as usize] = true);
    let used = (0..).zip(&is_used).filter(|(_, is_used)| **is_used);
    let order = in_order(catalog, used.map(|(symbol, _)| (0, symbol)).collect());
    let mut places = vec![NONE; is_used.len()];
    for (rank, &symbol) in (0..).zip(&order) {
        places[symbol as usize] = rank;
    }
    for rank in ranks.iter_mut().filter(|rank| **rank != NONE) {
        *rank = places[*rank as usize];
    }
    let (mut texts, mut ends) = (String::new(), Vec::with_capacity(order.len()));
    for turn in order.chunks(SERIES_A_TURN) {
        let catalog = catalog.read();
        for &symbol in turn {
            texts.push_str(catalog.symbols().text(symbol));
            ends.push(u32::try_from(texts.len()).unwrap_or(u32::MAX));
        }
    }
    texts.shrink_to_fit();
    let column = (texts.len() <= TEXTS_BYTES_MAX).then_some(Column { ranks, texts, ends });
    catalog.read().ranks.finish(name, column);
}

/// Sorts symbols by their texts. Pieces of texts are copied and compared as numbers: to sort a million takes some 100 ns
/// each, most of it the two cache misses of reading the text.
fn in_order(catalog: &RwLock<Catalog>, mut keyed: Vec<(u128, Symbol)>) -> Vec<Symbol> {
    let mut alike = vec![(0..keyed.len(), 0)];
    while let Some((run, depth)) = alike.pop() {
        let start = run.start;
        let keyed = &mut keyed[run];
        for turn in keyed.chunks_mut(SERIES_A_TURN) {
            let catalog = catalog.read();
            turn.iter_mut().for_each(|(key, symbol)| *key = piece(catalog.symbols().text(*symbol), depth));
        }
        keyed.sort_unstable();
        let mut at = start;
        for run in keyed.chunk_by(|a, b| a.0 == b.0) {
            if run.len() > 1 && goes_on(run[0].0) {
                alike.push((at..at + run.len(), depth + PIECE));
            }
            at += run.len();
        }
    }
    keyed.into_iter().map(|(_, symbol)| symbol).collect()
}

/// So many bytes of a text are compared at once.
const PIECE: usize = 15;

/// The bytes of a text from `depth` on, and how many there are: a number that is ordered as the texts are.
fn piece(text: &str, depth: usize) -> u128 {
    let rest = text.as_bytes().get(depth..).unwrap_or_default();
    let mut bytes = [0; PIECE + 1];
    let count = rest.len().min(PIECE);
    bytes[..count].copy_from_slice(&rest[..count]);
    bytes[PIECE] = u8::try_from(rest.len()).unwrap_or(u8::MAX).min(PIECE_GOES_ON);
    u128::from_be_bytes(bytes)
}

const PIECE_GOES_ON: u8 = 16;

fn goes_on(piece: u128) -> bool {
    piece.to_be_bytes()[PIECE] == PIECE_GOES_ON
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use model::Labels;
    use proptest::prelude::*;

    use super::*;

    fn add(catalog: &RwLock<Catalog>, value: &str) -> u32 {
        let labels = Labels::from_pairs([("other", "1"), ("pod", value)]);
        let labels = if value.is_empty() { Labels::from_pairs([("none", "x")]) } else { labels };
        let hash = Catalog::hash(&labels);
        let mut catalog = catalog.write();
        catalog.find(&labels, hash).unwrap_or_else(|| catalog.add(&labels, hash))
    }

    fn values(catalog: &RwLock<Catalog>, ids: &[u32], most: usize) -> Vec<String> {
        let mut values = Vec::new();
        catalog.read().visit_values("pod", ids, &mut |value| {
            values.push(value.to_owned());
            values.len() < most
        });
        values
    }

    #[test]
    fn those_who_ask_while_a_column_is_built_do_not_ask_for_the_next() {
        let ranks = Ranks::default();
        let ask = || ranks.owe("pod", 1_000_000, 1_000_000);
        ask();
        assert!(ranks.is_due("pod", 1_000_000) && ranks.begin("pod"));
        ask();
        assert!(!ranks.is_due("pod", 1_000_000), "it is being built");
        ranks.finish("pod", Some(Column { ranks: Vec::new(), texts: String::new(), ends: Vec::new() }));
        assert!(!ranks.is_due("pod", 1_000_000), "it is there");
        ask();
        assert!(ranks.is_due("pod", 1_000_000), "so many series are newer than it");
    }

    proptest! {
        /// Series come and go, columns are built and dropped; what is found is what the series say.
        #[test]
        fn values_are_those_of_the_series(
            operations in prop::collection::vec((0u8..8, "[a\u{0}é]{0,40}", any::<u64>()), 1..60),
        ) {
            let catalog = RwLock::new(Catalog::new(true));
            let mut ids = BTreeSet::new();
            for (what, value, mask) in operations {
                match what {
                    0..=3 => drop(ids.insert(add(&catalog, &value))),
                    4 => {
                        let gone: Vec<u32> =
                            ids.iter().copied().filter(|id| mask >> (id % 64) & 1 == 1).collect();
                        catalog.write().unlist(&gone);
                        catalog.write().forget(&gone);
                        ids.retain(|id| !gone.contains(id));
                    }
                    5 => build(&catalog, "pod"),
                    6 => catalog.read().cool(i64::try_from(mask >> 40).unwrap()),
                    _ => {}
                }
                let some: Vec<u32> = ids.iter().copied().filter(|id| mask >> (id / 2 % 64) & 1 == 1).collect();
                for wanted in [Vec::from_iter(ids.iter().copied()), some] {
                    let texts: BTreeSet<String> = wanted
                        .iter()
                        .filter_map(|&id| catalog.read().labels(id).get("pod").map(str::to_owned))
                        .collect();
                    let texts = Vec::from_iter(texts);
                    prop_assert_eq!(&values(&catalog, &wanted, usize::MAX), &texts);
                    let most = usize::try_from(mask % 5).unwrap() + 1;
                    prop_assert_eq!(values(&catalog, &wanted, most), &texts[..most.min(texts.len())]);
                }
            }
        }

        #[test]
        fn pieces_are_ordered_as_texts_are(a in "[a\u{0}]{0,40}", b in "[a\u{0}]{0,40}") {
            let mut depth = 0;
            while piece(&a, depth) == piece(&b, depth) && goes_on(piece(&a, depth)) {
                depth += PIECE;
            }
            prop_assert_eq!(piece(&a, depth).cmp(&piece(&b, depth)), a.cmp(&b));
        }
    }

    #[test]
    fn a_column_comes_when_it_pays_and_goes_when_nobody_asks() {
        let catalog = RwLock::new(Catalog::new(true));
        let ids: Vec<u32> = (0..20_000).map(|n| add(&catalog, &format!("pod-{n}"))).collect();
        let count = || catalog.read().ranks.count();
        let mut asked = 0;
        while !catalog.read().wants_ranks("pod") {
            assert!(asked < 10, "it is never due");
            assert_eq!(values(&catalog, &ids[..1000], usize::MAX).len(), 1000);
            asked += 1;
        }
        assert_eq!(asked, 5, "a quarter of 20,000 in thousands");
        build(&catalog, "pod");
        assert!(count() == 1 && !catalog.read().wants_ranks("pod"));
        for now in [0, KEPT_MS - 1] {
            catalog.read().cool(now);
            assert_eq!(count(), 1);
        }
        assert_eq!(values(&catalog, &ids[..3], usize::MAX), ["pod-0", "pod-1", "pod-2"]);
        catalog.read().cool(KEPT_MS + 1);
        assert_eq!(count(), 1, "it was asked for");
        catalog.read().cool(3 * KEPT_MS);
        assert_eq!(count(), 0);
        for name in ["pod", "other", "none"] {
            build(&catalog, name);
        }
        assert_eq!(count(), COLUMNS_MAX);
        assert_eq!(values(&catalog, &ids[..2], usize::MAX), ["pod-0", "pod-1"]);
    }
}
