//! Which series have which label.

use croaring::Bitmap;
use hashbrown::HashMap;

use super::slab::Slab;
use super::symbols::Symbol;
use crate::select::LabelIndex;

type BuildHasher = rapidhash::fast::RandomState;

/// Up to so many series are kept as a plain array.
const FEW_MAX: usize = 16;

/// The series of one label pair: one inline, a few as an array, many as a bitmap.
///
/// 16 bytes an entry, and 8 in the table that finds it, which is two thirds full. A pair with one series (a unique value)
/// therefore costs 30 bytes; a series adds 4 bytes to each of its few-member pairs and 2 bytes or less to its bitmaps.
#[derive(Debug)]
#[expect(clippy::box_collection, reason = "a thin pointer keeps the enum at 16 bytes")]
enum List {
    One(u32),
    Few(Box<Vec<u32>>),
    Many(Box<Bitmap>),
}

impl Default for List {
    fn default() -> Self {
        Self::One(0)
    }
}

impl List {
    fn add(&mut self, id: u32) {
        match self {
            Self::One(first) => {
                let mut few = vec![*first, id];
                few.sort_unstable();
                *self = Self::Few(Box::new(few));
            }
            Self::Few(few) if few.len() < FEW_MAX => {
                let at = few.partition_point(|&other| other < id);
                few.insert(at, id);
            }
            Self::Few(few) => {
                let mut many = Bitmap::of(few);
                many.add(id);
                *self = Self::Many(Box::new(many));
            }
            Self::Many(many) => many.add(id),
        }
    }

    /// Takes a series out; true if none is left.
    fn remove(&mut self, id: u32) -> bool {
        match self {
            Self::One(only) => *only == id,
            Self::Few(few) => {
                few.retain(|&other| other != id);
                few.is_empty()
            }
            Self::Many(many) => {
                many.remove(id);
                many.is_empty()
            }
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Few(few) => few.len() as u64,
            Self::Many(many) => many.cardinality(),
        }
    }

    fn add_to(&self, all: &mut Bitmap) {
        match self {
            Self::One(only) => all.add(*only),
            Self::Few(few) => all.add_many(few),
            Self::Many(many) => all.or_inplace(many),
        }
    }
}

/// All label pairs with their series.
#[derive(Debug, Default)]
pub(super) struct Postings {
    names: Vec<Name>,
    by_name: HashMap<Symbol, u32, BuildHasher>,
    free: Vec<u32>,
    lists: Slab<List>,
    free_lists: Vec<u32>,
    all: Bitmap,
}

/// The values of one label name.
#[derive(Debug, Default)]
struct Name {
    /// The number of the list of each value.
    values: HashMap<Symbol, u32, BuildHasher>,
    /// The value of the series added last and its list: the next series has it, too, as a rule.
    newest: Option<(Symbol, u32)>,
    /// Who holds its number.
    holders: u32,
}

impl Postings {
    /// The number of a name, which is held until it is given back by [`Postings::release`].
    pub(super) fn hold(&mut self, name: Symbol) -> u32 {
        let number = *self.by_name.entry(name).or_insert_with(|| {
            self.free.pop().unwrap_or_else(|| {
                self.names.push(Name::default());
                // There are fewer names than symbols, and those have 32 bits.
                u32::try_from(self.names.len() - 1).unwrap_or(u32::MAX)
            })
        });
        self.names[number as usize].holders += 1;
        number
    }

    /// Gives the number of a name back.
    pub(super) fn release(&mut self, name: Symbol, number: u32) {
        let entry = &mut self.names[number as usize];
        entry.holders -= 1;
        if entry.holders == 0 {
            for list in std::mem::take(entry).values.into_values() {
                self.lists[list as usize] = List::default();
                self.free_lists.push(list);
            }
            self.by_name.remove(&name);
            self.free.push(number);
        }
    }

    /// Adds a series with pairs of the number of a name and a value.
    pub(super) fn add(&mut self, id: u32, pairs: impl Iterator<Item = (u32, Symbol)>) {
        self.all.add(id);
        for (name, value) in pairs {
            let name = &mut self.names[name as usize];
            let known = name.newest.filter(|(newest, _)| *newest == value).map(|(_, list)| list);
            if let Some(list) = known.or_else(|| name.values.get(&value).copied()) {
                self.lists[list as usize].add(id);
                name.newest = Some((value, list));
                continue;
            }
            let next = u32::try_from(self.lists.len()).unwrap_or(u32::MAX);
            let list = self.free_lists.pop().unwrap_or(next);
            *self.lists.grow_to(list as usize) = List::One(id);
            name.values.insert(value, list);
            name.newest = Some((value, list));
        }
    }

    pub(super) fn remove(&mut self, id: u32, pairs: impl Iterator<Item = (u32, Symbol)>) {
        self.all.remove(id);
        for (name, value) in pairs {
            let name = &mut self.names[name as usize];
            let Some(&list) = name.values.get(&value) else { continue };
            if self.lists[list as usize].remove(id) {
                self.lists[list as usize] = List::default();
                self.free_lists.push(list);
                name.values.remove(&value);
                name.newest = name.newest.filter(|(newest, _)| *newest != value);
            }
        }
    }

    /// Gives back the slack of bitmaps and tables after many removals.
    pub(super) fn shrink(&mut self) {
        for list in self.lists.iter_mut() {
            if let List::Many(many) = list {
                many.run_optimize();
                many.shrink_to_fit();
            }
        }
        for Name { values, .. } in &mut self.names {
            if values.capacity() > 4 * values.len() {
                values.shrink_to_fit();
            }
        }
    }

    pub(super) fn all(&self) -> &Bitmap {
        &self.all
    }

    fn numbers(&self, name: Symbol) -> Option<&HashMap<Symbol, u32, BuildHasher>> {
        Some(&self.names[*self.by_name.get(&name)? as usize].values)
    }

    /// The values of a name with their series.
    fn lists(&self, name: Symbol) -> impl Iterator<Item = (Symbol, &List)> {
        let numbers = self.numbers(name).into_iter().flatten();
        numbers.map(|(&value, &list)| (value, &self.lists[list as usize]))
    }

    /// Every pair with the number of its series.
    pub(super) fn counts(&self) -> impl Iterator<Item = (Symbol, Symbol, u64)> {
        self.by_name.iter().flat_map(move |(&name, &number)| {
            let values = self.names[number as usize].values.iter();
            values.map(move |(&value, &list)| (name, value, self.lists[list as usize].len()))
        })
    }

    /// The values of a name.
    pub(super) fn values(&self, name: Symbol) -> impl Iterator<Item = Symbol> {
        self.numbers(name).into_iter().flatten().map(|(&value, _)| value)
    }

    /// How many values a name has.
    pub(super) fn value_count(&self, name: Symbol) -> u64 {
        self.numbers(name).map_or(0, HashMap::len) as u64
    }

    /// Whether a series of `ids` has the pair.
    pub(super) fn intersects(&self, name: Symbol, value: Symbol, ids: &Bitmap) -> bool {
        match self.list(name, value) {
            None => false,
            Some(List::One(only)) => ids.contains(*only),
            Some(List::Few(few)) => few.iter().any(|&id| ids.contains(id)),
            Some(List::Many(many)) => many.intersect(ids),
        }
    }

    fn list(&self, name: Symbol, value: Symbol) -> Option<&List> {
        Some(&self.lists[*self.numbers(name)?.get(&value)? as usize])
    }
}

/// Postings with the texts of their symbols: what matchers can be asked of.
pub(super) struct Searchable<'a> {
    pub(super) postings: &'a Postings,
    pub(super) symbols: &'a super::symbols::Symbols,
}

impl LabelIndex for Searchable<'_> {
    type Error = std::convert::Infallible;

    fn all(&self) -> Result<Bitmap, Self::Error> {
        Ok(self.postings.all.clone())
    }

    fn with_value(&self, name: &str, value: &str) -> Result<Bitmap, Self::Error> {
        let mut found = Bitmap::new();
        let pair = self.symbols.find(name).zip(self.symbols.find(value));
        if let Some(list) = pair.and_then(|(name, value)| self.postings.list(name, value)) {
            list.add_to(&mut found);
        }
        Ok(found)
    }

    fn with_values(
        &self,
        name: &str,
        prefix: &str,
        keep: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Bitmap, Self::Error> {
        let mut found = Bitmap::new();
        let name = self.symbols.find(name);
        for (value, list) in name.into_iter().flat_map(|name| self.postings.lists(name)) {
            let text = self.symbols.text(value);
            if text.starts_with(prefix) && keep(text) {
                list.add_to(&mut found);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_sets(operations in prop::collection::vec((any::<bool>(), 0u32..60, 0u32..3), 1..200)) {
            let mut postings = Postings::default();
            let name = postings.hold(0);
            let mut model: BTreeSet<(u32, u32)> = BTreeSet::new();
            for (add, id, value) in operations {
                if add && !model.iter().any(|&(other, _)| other == id) {
                    postings.add(id, [(name, value)].into_iter());
                    model.insert((id, value));
                } else if !add && model.remove(&(id, value)) {
                    postings.remove(id, [(name, value)].into_iter());
                }
            }
            for value in 0..3 {
                let mut found = Bitmap::new();
                if let Some(list) = postings.list(0, value) {
                    list.add_to(&mut found);
                }
                let expected: Vec<u32> =
                    model.iter().filter(|pair| pair.1 == value).map(|pair| pair.0).collect();
                prop_assert_eq!(found.to_vec(), expected);
            }
            prop_assert_eq!(postings.all().cardinality(), model.len() as u64);
            postings.release(0, name);
            prop_assert!(postings.list(0, 0).is_none() && postings.hold(7) == name);
        }
    }
}
