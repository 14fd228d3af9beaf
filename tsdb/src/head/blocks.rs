//! The bytes of chunks in memory, in blocks of a cache line.

use std::alloc::{Layout, handle_alloc_error};

use memmap2::MmapMut;

use super::slab::Slab;

const WORDS: usize = 8;
/// A cache line. An open chunk wastes half of its last one on average.
const BLOCK_BYTES: usize = 8 * WORDS;
/// Blocks that are mapped at once.
const REGION_BLOCKS: usize = 4096;
/// No block.
pub(super) const NONE: u32 = u32::MAX;

/// Chains of blocks, 68 bytes each. A block that is given back is the next to be taken, so that the
/// memory of full chunks becomes that of the following ones, without holes.
///
/// The blocks come from the kernel and not from the allocator, which would keep what is returned: where
/// all series are sampled in step, all chunks are full at the same time, and half of the head's memory
/// is free a moment later.
#[derive(Debug)]
pub(super) struct Blocks {
    regions: Vec<MmapMut>,
    next: Slab<u32>,
    free: u32,
    used: usize,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { regions: Vec::new(), next: Slab::default(), free: NONE, used: 0 }
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
        let start = chain.last as usize % REGION_BLOCKS * BLOCK_BYTES + at * 8;
        let region = &mut self.regions[chain.last as usize / REGION_BLOCKS];
        region[start..start + 8].copy_from_slice(&word.to_be_bytes());
        chain.words += 1;
    }

    fn block(&self, block: u32) -> &[u8] {
        let start = block as usize % REGION_BLOCKS * BLOCK_BYTES;
        &self.regions[block as usize / REGION_BLOCKS][start..start + BLOCK_BYTES]
    }

    #[cold]
    fn extend(&mut self, chain: &mut Chain) {
        self.used += 1;
        let block = if self.free == NONE {
            let block = self.next.len();
            if block.is_multiple_of(REGION_BLOCKS) {
                self.regions.push(map_region());
            }
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

    /// The bytes of a chain.
    pub(super) fn pieces(&self, chain: Chain) -> impl Iterator<Item = &[u8]> {
        let (mut block, mut left) = (chain.first, usize::from(chain.words));
        std::iter::from_fn(move || {
            let words = left.min(WORDS);
            let piece = (words > 0).then(|| &self.block(block)[..words * 8])?;
            left -= words;
            block = self.next[block as usize];
            Some(piece)
        })
    }

    /// Takes a chain back.
    pub(super) fn free(&mut self, chain: Chain) {
        if chain.last != NONE {
            self.next[chain.last as usize] = self.free;
            self.free = chain.first;
            self.used -= usize::from(chain.words).div_ceil(WORDS);
        }
    }

    /// Whether so little is in use that it is worth moving.
    pub(super) fn is_sparse(&self) -> bool {
        self.next.len() > REGION_BLOCKS && self.used < self.next.len() / 2
    }

    /// A copy of a chain in other blocks.
    pub(super) fn copy(&mut self, other: &Self, chain: Chain) -> Chain {
        let (mut copy, mut block) = (Chain::EMPTY, chain.first);
        let mut left = usize::from(chain.words);
        while left > 0 {
            let (words, _) = other.block(block).as_chunks::<8>();
            let words = &words[..left.min(WORDS)];
            words.iter().for_each(|word| self.push(&mut copy, u64::from_be_bytes(*word)));
            left -= words.len();
            block = other.next[block as usize];
        }
        copy
    }
}

fn map_region() -> MmapMut {
    let bytes = REGION_BLOCKS * BLOCK_BYTES;
    MmapMut::map_anon(bytes).unwrap_or_else(|_| {
        // As a vector that cannot grow does.
        handle_alloc_error(Layout::array::<u8>(bytes).unwrap_or(Layout::new::<u8>()))
    })
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
                let out: Vec<u8> = blocks.pieces(*chain).flatten().copied().collect();
                let expected: Vec<u8> = (0..20).flat_map(|word| (number << 8 | word).to_be_bytes()).collect();
                assert_eq!(out, expected, "round {round}");
                blocks.free(std::mem::replace(chain, Chain::EMPTY));
            }
            assert_eq!((blocks.next.len(), blocks.used), (9, 0));
        }
        let mut chain = Chain::EMPTY;
        (0..17).for_each(|word| blocks.push(&mut chain, word));
        let mut other = Blocks::default();
        let copy = other.copy(&blocks, chain);
        let bytes: Vec<u8> = blocks.pieces(chain).flatten().copied().collect();
        assert_eq!(bytes.len(), 136);
        assert!(other.pieces(copy).flatten().eq(&bytes));
    }
}
