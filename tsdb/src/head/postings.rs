//! Which series have which label.

use croaring::Bitmap;
use hashbrown::HashMap;

use super::symbols::Symbol;
use crate::select::LabelIndex;

type BuildHasher = rapidhash::fast::RandomState;

/// Up to so many series are kept as a plain array.
const FEW_MAX: usize = 16;

/// The series of one label pair: one inline, a few as an array, many as a bitmap.
///
/// 16 bytes an entry. A pair with one series (a unique value) therefore costs 16 + 4 bytes of key; a
/// series adds 4 bytes to each of its few-member pairs and 2 bytes or less to its bitmaps.
#[derive(Debug)]
#[expect(clippy::box_collection, reason = "a thin pointer keeps the enum at 16 bytes")]
enum List {
    One(u32),
    Few(Box<Vec<u32>>),
    Many(Box<Bitmap>),
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
    by_name: HashMap<Symbol, HashMap<Symbol, List, BuildHasher>, BuildHasher>,
    all: Bitmap,
}

impl Postings {
    pub(super) fn add(&mut self, id: u32, pairs: impl Iterator<Item = (Symbol, Symbol)>) {
        self.all.add(id);
        for (name, value) in pairs {
            self.by_name
                .entry(name)
                .or_default()
                .entry(value)
                .and_modify(|list| list.add(id))
                .or_insert(List::One(id));
        }
    }

    pub(super) fn remove(&mut self, id: u32, pairs: impl Iterator<Item = (Symbol, Symbol)>) {
        self.all.remove(id);
        for (name, value) in pairs {
            let Some(values) = self.by_name.get_mut(&name) else { continue };
            if values.get_mut(&value).is_some_and(|list| list.remove(id)) {
                values.remove(&value);
            }
            if values.is_empty() {
                self.by_name.remove(&name);
            }
        }
    }

    /// Gives back the slack of bitmaps and tables after many removals.
    pub(super) fn shrink(&mut self) {
        for values in self.by_name.values_mut() {
            for list in values.values_mut() {
                if let List::Many(many) = list {
                    many.run_optimize();
                    many.shrink_to_fit();
                }
            }
            if values.capacity() > 4 * values.len() {
                values.shrink_to_fit();
            }
        }
    }

    pub(super) fn all(&self) -> &Bitmap {
        &self.all
    }

    /// Every pair with the number of its series.
    pub(super) fn counts(&self) -> impl Iterator<Item = (Symbol, Symbol, u64)> {
        let names = self.by_name.iter();
        names.flat_map(|(&name, values)| values.iter().map(move |(&value, list)| (name, value, list.len())))
    }

    /// The values of a name.
    pub(super) fn values(&self, name: Symbol) -> impl Iterator<Item = Symbol> {
        self.by_name.get(&name).into_iter().flatten().map(|(&value, _)| value)
    }

    /// Whether a series of `ids` has the pair.
    pub(super) fn intersects(&self, name: Symbol, value: Symbol, ids: &Bitmap) -> bool {
        match self.by_name.get(&name).and_then(|values| values.get(&value)) {
            None => false,
            Some(List::One(only)) => ids.contains(*only),
            Some(List::Few(few)) => few.iter().any(|&id| ids.contains(id)),
            Some(List::Many(many)) => many.intersect(ids),
        }
    }

    fn list(&self, name: Symbol, value: Symbol) -> Option<&List> {
        self.by_name.get(&name)?.get(&value)
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
        let values = self.symbols.find(name).and_then(|name| self.postings.by_name.get(&name));
        for (&value, list) in values.into_iter().flatten() {
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
            let mut model: BTreeSet<(u32, u32)> = BTreeSet::new();
            for (add, id, value) in operations {
                if add && !model.iter().any(|&(other, _)| other == id) {
                    postings.add(id, [(0, value)].into_iter());
                    model.insert((id, value));
                } else if !add && model.remove(&(id, value)) {
                    postings.remove(id, [(0, value)].into_iter());
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
        }
    }
}
