//! The bytes of chunks in memory, in blocks of a cache line.

use super::slab::Slab;

/// Bytes of eight words. An open chunk wastes half of it on average, and its neighbour's bytes never.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Block([u64; WORDS]);

const WORDS: usize = 8;
/// No block.
pub(super) const NONE: u32 = u32::MAX;

/// Chains of blocks, 68 bytes each. A block that is given back is the next to be taken, so that the
/// memory of full chunks becomes that of the following ones, without holes.
#[derive(Debug)]
pub(super) struct Blocks {
    blocks: Slab<Block>,
    next: Slab<u32>,
    free: u32,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { blocks: Slab::default(), next: Slab::default(), free: NONE }
    }
}

/// A chain with the number of words in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) words: u16,
}

impl Chain {
    pub(super) const EMPTY: Self = Self { first: NONE, last: NONE, words: 0 };
}

impl Blocks {
    /// Appends a word to a chain.
    #[inline]
    pub(super) fn push(&mut self, chain: &mut Chain, word: u64) {
        let at = usize::from(chain.words) % WORDS;
        if at == 0 {
            self.extend(chain);
        }
        self.blocks[chain.last as usize].0[at] = word;
        chain.words += 1;
    }

    #[cold]
    fn extend(&mut self, chain: &mut Chain) {
        let block = if self.free == NONE {
            let block = self.blocks.len();
            self.blocks.grow_to(block);
            *self.next.grow_to(block) = NONE;
            // 2^32 blocks would be 256 GiB.
            u32::try_from(block).unwrap_or(NONE)
        } else {
            let block = self.free;
            self.free = std::mem::replace(&mut self.next[block as usize], NONE);
            block
        };
        if chain.last == NONE {
            chain.first = block;
        } else {
            self.next[chain.last as usize] = block;
        }
        chain.last = block;
    }

    /// Appends the bytes of a chain to `out`.
    pub(super) fn read(&self, chain: Chain, out: &mut Vec<u8>) {
        let (mut block, mut left) = (chain.first, usize::from(chain.words));
        while left > 0 {
            let words = &self.blocks[block as usize].0[..left.min(WORDS)];
            words.iter().for_each(|word| out.extend_from_slice(&word.to_be_bytes()));
            left -= words.len();
            block = self.next[block as usize];
        }
    }

    /// Takes a chain back.
    pub(super) fn free(&mut self, chain: Chain) {
        if chain.last != NONE {
            self.next[chain.last as usize] = self.free;
            self.free = chain.first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_keep_their_words_and_share_the_space() {
        let mut blocks = Blocks::default();
        let mut chains = [Chain::EMPTY; 3];
        for round in 0..2u64 {
            for word in 0..20 {
                for (chain, number) in chains.iter_mut().zip(0..) {
                    blocks.push(chain, number << 8 | word);
                }
            }
            for (chain, number) in chains.iter_mut().zip(0u64..) {
                let mut out = Vec::new();
                blocks.read(*chain, &mut out);
                let expected: Vec<u8> = (0..20).flat_map(|word| (number << 8 | word).to_be_bytes()).collect();
                assert_eq!(out, expected, "round {round}");
                blocks.free(std::mem::replace(chain, Chain::EMPTY));
            }
            assert_eq!(blocks.blocks.len(), 9);
        }
    }
}
