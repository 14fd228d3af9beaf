//! Label names and values, each kept once.

use hashbrown::HashTable;

use super::slab::Slab;

/// A string of the table.
pub(super) type Symbol = u32;

/// The table. It counts references and forgets strings that no series uses any more.
///
/// A string costs 24 bytes of entry, its text, and about 8 bytes in the lookup table. Where 12 labels
/// bring one or two new strings a series, as in a cluster, that is 30-60 bytes a series with the text.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    entries: Slab<Entry>,
    by_text: HashTable<Symbol>,
    free: Vec<Symbol>,
}

#[derive(Debug, Default)]
struct Entry {
    text: Box<str>,
    references: u32,
}

fn hash(text: &str) -> u64 {
    rapidhash::v3::rapidhash_v3(text.as_bytes())
}

impl Symbols {
    pub(super) fn find(&self, text: &str) -> Option<Symbol> {
        self.find_hashed(text, hash(text))
    }

    fn find_hashed(&self, text: &str, hash: u64) -> Option<Symbol> {
        self.by_text.find(hash, |&symbol| &*self.entries[symbol as usize].text == text).copied()
    }

    /// One reference more to a symbol.
    pub(super) fn acquire_again(&mut self, symbol: Symbol) -> Symbol {
        self.entries[symbol as usize].references += 1;
        symbol
    }

    /// The symbol of `text`, with one reference more.
    pub(super) fn acquire(&mut self, text: &str) -> Symbol {
        let hashed = hash(text);
        if let Some(symbol) = self.find_hashed(text, hashed) {
            return self.acquire_again(symbol);
        }
        let entry = Entry { text: text.into(), references: 1 };
        let symbol = match self.free.pop() {
            Some(symbol) => {
                self.entries[symbol as usize] = entry;
                symbol
            }
            None => {
                let next = self.entries.len();
                *self.entries.grow_to(next) = entry;
                // 2^32 strings would need more memory than the head is ever given.
                Symbol::try_from(next).unwrap_or(Symbol::MAX)
            }
        };
        let entries = &self.entries;
        self.by_text.insert_unique(hashed, symbol, |&other| hash(&entries[other as usize].text));
        symbol
    }

    /// Gives back one reference; the text goes with the last.
    pub(super) fn release(&mut self, symbol: Symbol) {
        let entry = &mut self.entries[symbol as usize];
        entry.references -= 1;
        if entry.references > 0 {
            return;
        }
        let text = std::mem::take(&mut entry.text);
        if let Ok(found) = self.by_text.find_entry(hash(&text), |&other| other == symbol) {
            found.remove();
        }
        self.free.push(symbol);
    }

    pub(super) fn text(&self, symbol: Symbol) -> &str {
        &self.entries[symbol as usize].text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_live_as_long_as_their_references() {
        let mut symbols = Symbols::default();
        let a = symbols.acquire("a");
        assert_eq!(symbols.acquire("a"), a);
        let b = symbols.acquire("b");
        symbols.release(a);
        assert_eq!(symbols.find("a"), Some(a));
        symbols.release(a);
        assert_eq!(symbols.find("a"), None);
        assert_eq!(symbols.acquire("c"), a);
        assert_eq!((symbols.text(a), symbols.text(b)), ("c", "b"));
    }
}
