//! Which series there are: labels to number, number to labels, matchers to numbers.

use std::cmp::Ordering;
use std::hash::{Hash as _, Hasher as _};
use std::hint::black_box;

use croaring::Bitmap;
use hashbrown::{HashMap, HashTable};
use model::{Labels, Matcher, QueryCancelled, Timestamp};
use smallvec::SmallVec;

use super::postings::{Postings, Searchable};
use super::ranks::{self, Ranks};
use super::slab::Slab;
use super::symbols::{Symbol, Symbols};
use crate::select;

/// The label sets of the head.
///
/// A series of 12 labels costs 24 bytes of row, 48 of value symbols, 10-20 in the lookup table, and
/// its share of postings and strings. Names cost nothing: series with the same names in the same order
/// share a *shape*. A series that is new resembles the one that was new before, so its names and values are
/// compared with those first, which are in the cache; of 24 strings one or two are looked up in a table.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    symbols: Symbols,
    shapes: Vec<Shape>,
    shape_numbers: HashMap<Box<[Symbol]>, u32>,
    free_shapes: Vec<u32>,
    /// The series added last.
    newest: Option<u32>,
    /// How many have been added ever.
    added: u64,
    rows: Slab<Row>,
    free: Vec<u32>,
    by_hash: HashTable<Listed>,
    postings: Postings,
    pub(super) ranks: Ranks,
    /// Nobody will select series: there are no postings.
    unselectable: bool,
}

/// A list of label names.
#[derive(Debug, Default)]
struct Shape {
    names: Box<[Symbol]>,
    /// The numbers of the names in the postings.
    numbers: Box<[u32]>,
    rows: u32,
}

#[derive(Debug, Default)]
struct Row {
    shape: u32,
    /// Distinguishes the successive users of one number. 0: the row is free.
    generation: u32,
    values: Box<[Symbol]>,
}

/// An entry of the lookup table: 8 bytes. Half of the hash is kept, so that growing the table does not
/// need to hash label sets again.
#[derive(Clone, Copy, Debug)]
struct Listed {
    id: u32,
    hash: u32,
}

/// Spreads the kept half of a hash over 64 bits for the table.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn half(hash: u64) -> u32 {
    (hash >> 32) as u32
}

impl Catalog {
    /// An empty one. If it is not `selectable`, nothing is found but by all labels.
    pub(crate) fn new(selectable: bool) -> Self {
        Self { unselectable: !selectable, ..Self::default() }
    }

    /// What tells label sets apart here.
    pub(crate) fn hash(labels: &Labels) -> u64 {
        let mut hasher = rapidhash::fast::RapidHasher::default();
        labels.hash(&mut hasher);
        hasher.finish()
    }

    /// The number of the series with these labels. `hash` is that of [`Catalog::hash`].
    pub(crate) fn find(&self, labels: &Labels, hash: u64) -> Option<u32> {
        let hash = half(hash);
        self.by_hash
            .find(spread(hash), |listed| listed.hash == hash && self.pairs(listed.id).eq(labels.iter()))
            .map(|listed| listed.id)
    }

    /// How many series have been added ever: whoever looked for one before need not look again if it is the same.
    pub(crate) fn added(&self) -> u64 {
        self.added
    }

    /// Adds a series that is not there yet; returns its number.
    pub(crate) fn add(&mut self, labels: &Labels, hash: u64) -> u32 {
        let pairs: SmallVec<[(&str, &str); 24]> = labels.iter().collect();
        let shape = self.shape(&pairs);
        let like = self.newest.map(|id| &self.rows[id as usize]).filter(|row| row.shape == shape);
        let like: SmallVec<[Symbol; 24]> = like.map(|row| row.values.as_ref().into()).unwrap_or_default();
        let values = pairs.iter().enumerate().map(|(at, (_, value))| match like.get(at) {
            Some(&same) if self.symbols.text(same) == *value => self.symbols.acquire_again(same),
            _ => self.symbols.acquire(value),
        });
        let values = values.collect();
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                let next = self.rows.len();
                self.rows.grow_to(next);
                u32::try_from(next).unwrap_or(u32::MAX)
            }
        };
        let row = &mut self.rows[id as usize];
        (row.shape, row.values) = (shape, values);
        row.generation = row.generation.wrapping_add(1).max(1);
        let listed = Listed { id, hash: half(hash) };
        self.by_hash.insert_unique(spread(listed.hash), listed, |other| spread(other.hash));
        let shape = &mut self.shapes[shape as usize];
        shape.rows += 1;
        if !self.unselectable {
            self.postings.add(id, shape.numbers.iter().copied().zip(row.values.iter().copied()));
            self.ranks.add(id);
        }
        (self.newest, self.added) = (Some(id), self.added + 1);
        id
    }

    /// The number of the list of names of `pairs`.
    fn shape(&mut self, pairs: &[(&str, &str)]) -> u32 {
        if let Some(newest) = self.newest {
            let number = self.rows[newest as usize].shape;
            let names = &self.shapes[number as usize].names;
            let texts = names.iter().map(|&name| self.symbols.text(name));
            if texts.eq(pairs.iter().map(|pair| pair.0)) {
                return number;
            }
        }
        let names: Box<[Symbol]> = pairs.iter().map(|(name, _)| self.symbols.acquire(name)).collect();
        if let Some(&number) = self.shape_numbers.get(&names) {
            // It holds its names already.
            names.iter().for_each(|&name| self.symbols.release(name));
            return number;
        }
        let number = self.free_shapes.pop().unwrap_or_else(|| {
            self.shapes.push(Shape::default());
            u32::try_from(self.shapes.len() - 1).unwrap_or(u32::MAX)
        });
        let numbers = names.iter().map(|&name| self.postings.hold(name)).collect();
        self.shapes[number as usize] = Shape { names: names.clone(), numbers, rows: 0 };
        self.shape_numbers.insert(names, number);
        number
    }

    /// Takes series out of lookup and postings. Their labels stay readable until [`Catalog::forget`].
    pub(crate) fn unlist(&mut self, ids: &[u32]) {
        for &id in ids {
            let hash = half(Self::hash(&self.labels(id)));
            if let Ok(entry) = self.by_hash.find_entry(spread(hash), |listed| listed.id == id) {
                entry.remove();
            }
            if self.unselectable {
                continue;
            }
            let row = &self.rows[id as usize];
            let numbers = self.shapes[row.shape as usize].numbers.iter().copied();
            self.postings.remove(id, numbers.zip(row.values.iter().copied()));
        }
        if ids.len() > 1000 {
            self.postings.shrink();
            if self.by_hash.capacity() > 4 * self.by_hash.len() {
                self.by_hash.shrink_to_fit(|listed| spread(listed.hash));
            }
        }
    }

    /// Frees the labels and numbers of unlisted series.
    pub(crate) fn forget(&mut self, ids: &[u32]) {
        for &id in ids {
            let row = &mut self.rows[id as usize];
            let number = row.shape;
            for value in std::mem::take(&mut row.values) {
                self.symbols.release(value);
            }
            self.free.push(id);
            let shape = &mut self.shapes[number as usize];
            shape.rows -= 1;
            if shape.rows == 0 {
                let Shape { names, numbers, .. } = std::mem::take(shape);
                for (&name, number) in names.iter().zip(numbers) {
                    self.postings.release(name, number);
                    self.symbols.release(name);
                }
                self.shape_numbers.remove(&names);
                self.free_shapes.push(number);
            }
        }
        // It may be gone.
        self.newest = None;
    }

    pub(crate) fn generation(&self, id: u32) -> u32 {
        self.rows[id as usize].generation
    }

    /// The labels of a series, ascending by name.
    pub(crate) fn pairs(&self, id: u32) -> impl ExactSizeIterator<Item = (&str, &str)> {
        let row = &self.rows[id as usize];
        let names = &self.shapes[row.shape as usize].names;
        names
            .iter()
            .zip(&row.values)
            .map(|(&name, &value)| (self.symbols.text(name), self.symbols.text(value)))
    }

    /// Calls `visit` with those labels of a series that are among `names`, both ascending. Values of other
    /// labels, which lie scattered in memory, are not touched.
    pub(crate) fn visit_some(&self, id: u32, names: &[String], visit: &mut dyn FnMut(&str, &str)) {
        let row = &self.rows[id as usize];
        let mut missing = names.len();
        for (&name, &value) in self.shapes[row.shape as usize].names.iter().zip(&row.values) {
            if missing == 0 {
                return;
            }
            // Names mostly differ in length, which is compared first.
            let name = self.symbols.text(name);
            if names.iter().any(|wanted| wanted == name) {
                missing -= 1;
                visit(name, self.symbols.text(value));
            }
        }
    }

    /// Whether a series has, or had, a label `name`, or a value of that text.
    pub(crate) fn may_have_name(&self, name: &str) -> bool {
        self.symbols.find(name).is_some()
    }

    pub(crate) fn labels(&self, id: u32) -> Labels {
        Labels::from_sorted(self.pairs(id))
    }

    /// The number of series.
    pub(crate) fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// All series in use.
    pub(crate) fn all(&self) -> &Bitmap {
        self.postings.all()
    }

    /// The series that fulfil all matchers, in no useful order.
    pub(crate) fn select(&self, matchers: &[Matcher], cancelled: Option<&QueryCancelled>) -> Bitmap {
        let searchable = Searchable { postings: &self.postings, symbols: &self.symbols };
        match select::series(&searchable, matchers, cancelled) {
            Ok(found) => found,
            Err(never) => match never {},
        }
    }

    /// Sorts series by their labels.
    pub(crate) fn sort(&self, ids: &mut [u32]) {
        ids.sort_unstable_by(|&a, &b| self.compare(a, b));
    }

    /// The order of the labels of two series.
    pub(crate) fn compare(&self, a: u32, b: u32) -> Ordering {
        let (row_a, row_b) = (&self.rows[a as usize], &self.rows[b as usize]);
        if row_a.shape != row_b.shape {
            return self.pairs(a).cmp(self.pairs(b));
        }
        // Same names: the first differing value decides.
        let differing = row_a.values.iter().zip(&row_b.values).find(|(a, b)| a != b);
        differing.map_or(Ordering::Equal, |(&a, &b)| self.symbols.text(a).cmp(self.symbols.text(b)))
    }

    /// Label names over `ids`.
    pub(crate) fn names_of<'a>(&'a self, ids: &[u32]) -> impl Iterator<Item = &'a str> {
        let mut used = vec![false; self.shapes.len()];
        for &id in ids {
            used[self.rows[id as usize].shape as usize] = true;
        }
        let shapes = self.shapes.iter().zip(used).filter(|(_, used)| *used);
        shapes.flat_map(|(shape, _)| shape.names.iter().map(|&name| self.symbols.text(name)))
    }

    /// Calls `visit` with the values of label `name` over `ids`, which are ascending: in order and each once, until it
    /// returns false.
    pub(crate) fn visit_values(&self, name: &str, ids: &[u32], visit: &mut dyn FnMut(&str) -> bool) {
        let Some(symbol) = self.symbols.find(name) else { return };
        let Some((column, unknown)) = self.ranks.column(name, ids) else {
            self.values_of((symbol, name), ids).into_iter().all(visit);
            return;
        };
        let others =
            if unknown.is_empty() { Vec::new() } else { self.values_of((symbol, name), &unknown.to_vec()) };
        column.visit((ids, &unknown), &others, visit);
    }

    /// Values of a label over `ids`, ascending and each once. Looks through the values of the name or through the series,
    /// whichever is cheaper. A look at a series is some 40 ns, and its text some 100 where it lies anywhere. Of a value,
    /// its series are probed until one is wanted, at 10 ns each: all that it has at worst, and if one in n is wanted, n of
    /// them on average.
    fn values_of(&self, (name, text): (Symbol, &str), ids: &[u32]) -> Vec<&str> {
        let (all, wanted) = (self.by_hash.len() as u64, ids.len() as u64);
        let values = self.postings.value_count(name);
        let probes = all.min(values.saturating_mul(all) / wanted.max(1));
        let (found, looks): (Vec<Symbol>, _) = if wanted < all && wanted.saturating_mul(4) < probes {
            (self.values_in_rows(name, ids), wanted)
        } else {
            let ids = Bitmap::of(ids);
            let has = |value: &Symbol| wanted == all || self.postings.intersects(name, *value, &ids);
            // Probes are cheaper than looks at series; but what they find must be sorted, too.
            (self.postings.values(name).filter(has).collect(), values.max(probes / 4).min(all))
        };
        self.ranks.owe(text, looks, values);
        let mut texts: Vec<&str> = found.into_iter().map(|value| self.symbols.text(value)).collect();
        texts.sort_unstable();
        texts
    }

    fn values_in_rows(&self, name: Symbol, ids: &[u32]) -> Vec<Symbol> {
        let places = self.places(name);
        let mut values = Vec::with_capacity(ids.len());
        for ids in ids.chunks(64) {
            // Two cache misses each: the first ones of all are under way at once, then the second ones.
            black_box(ids.iter().fold(0, |sum, &id| sum ^ self.rows[id as usize].shape));
            values.extend(ids.iter().filter_map(|&id| self.value_at(&places, id)));
        }
        values.sort_unstable();
        values.dedup();
        values
    }

    /// Where each shape has a name.
    fn places(&self, name: Symbol) -> Vec<Option<usize>> {
        self.shapes.iter().map(|shape| shape.names.iter().position(|other| *other == name)).collect()
    }

    fn value_at(&self, places: &[Option<usize>], id: u32) -> Option<Symbol> {
        let row = &self.rows[id as usize];
        row.values.get((*places.get(row.shape as usize)?)?).copied()
    }

    /// Appends the value, or [`ranks::NONE`], of the next `count` series by number; false if there are no more.
    pub(super) fn push_values(&self, name: &str, count: usize, values: &mut Vec<Symbol>) -> bool {
        let places = self.symbols.find(name).map(|name| self.places(name)).unwrap_or_default();
        let next = values.len()..self.rows.len().min(values.len() + count);
        let value = |at| u32::try_from(at).ok().and_then(|id| self.value_at(&places, id));
        values.extend(next.clone().map(|at| value(at).unwrap_or(ranks::NONE)));
        !next.is_empty()
    }

    pub(super) fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// Whether values of `name` should be asked of a column that is not there yet.
    pub(crate) fn wants_ranks(&self, name: &str) -> bool {
        self.ranks.is_due(name, self.by_hash.len() as u64)
    }

    /// Drops what is kept for labels that nobody has asked for in a while.
    pub(crate) fn cool(&self, now: Timestamp) {
        self.ranks.cool(now);
    }

    /// Every pair of label name and value with the number of its series.
    pub(crate) fn pair_counts(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        let counts = self.postings.counts();
        counts.map(|(name, value, series)| (self.symbols.text(name), self.symbols.text(value), series))
    }
}
