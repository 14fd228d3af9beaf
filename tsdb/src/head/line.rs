//! The part of a series that every append touches.

use std::cmp::Ordering;

use model::Timestamp;

use super::blocks::{Blocks, Chain, NONE};
use super::series::Refusal;
use crate::chunk::xor::{XorState, XorValue};
use crate::chunk::{SAMPLES_PER_CHUNK, XOR_BYTES_MAX};
use crate::codec::bits::Pending;

/// What every append to a series touches: one cache line.
///
/// ```text
/// 8  name in the log            4  first and last block   2  words in blocks
/// 8  start of the open chunk    4    of the open chunk    2  samples in the open chunk
/// 8  bits of the newest value   4  newest - start         1  leading zeros
/// 8  bits not in a block yet    4  last step              1  trailing zeros
///                               4  end - start            1  how many bits not in a block
///                               4  generation             1  flags
/// ```
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Line {
    pub(super) wal_ref: u64,
    /// The time of the open chunk's first sample. Without one, that of the newest sample.
    pub(super) start: Timestamp,
    pub(super) bits: u64,
    pub(super) pending: u64,
    pub(super) chain: (u32, u32),
    pub(super) newest: u32,
    pub(super) delta: u32,
    /// The chunk is closed by a sample at or after this, counted from `start`.
    pub(super) end: u32,
    /// 0: nobody uses this line.
    pub(super) generation: u32,
    pub(super) words: u16,
    /// 0: there is no open chunk.
    pub(super) count: u16,
    pub(super) leading: u8,
    pub(super) trailing: u8,
    pub(super) held: u8,
    pub(super) flags: u8,
}

/// The log has the series record.
pub(super) const LOGGED: u8 = 1;
/// An appender holds a sample for the series that is not committed.
pub(super) const PENDING: u8 = 2;
/// The batch that is being committed has a sample for the series.
pub(super) const SEEN: u8 = 64;
/// The series may leave the head although it never had a sample: its maker has had time to append.
pub(super) const SPARED: u8 = 4;
/// There is a newest sample.
pub(super) const BEGUN: u8 = 8;
/// `bits` are those of the newest sample, which is a float.
pub(super) const VALUED: u8 = 16;
/// The open chunk lies elsewhere: it is one of histograms, or of floats with start times.
pub(super) const BOXED: u8 = 32;

impl Default for Line {
    fn default() -> Self {
        Self {
            wal_ref: 0,
            start: 0,
            bits: 0,
            pending: 0,
            chain: (NONE, NONE),
            newest: 0,
            delta: 0,
            end: 0,
            generation: 0,
            words: 0,
            count: 0,
            leading: 0,
            trailing: 0,
            held: 0,
            flags: 0,
        }
    }
}

impl Line {
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) fn newest(&self) -> Timestamp {
        self.start.saturating_add(i64::from(self.newest))
    }

    /// Whether a float may follow.
    #[inline]
    pub(super) fn check(&self, ts: Timestamp, value: f64) -> Result<(), Refusal> {
        if self.flags & BEGUN == 0 {
            return Ok(());
        }
        match ts.cmp(&self.newest()) {
            Ordering::Greater => Ok(()),
            Ordering::Less => Err(Refusal::OutOfOrder),
            Ordering::Equal if self.flags & VALUED != 0 && self.bits == value.to_bits() => {
                Err(Refusal::Repeated)
            }
            Ordering::Equal => Err(Refusal::Duplicate),
        }
    }

    /// Appends to an open chunk of floats, if there is one and it is not to end before `ts`, which is
    /// later than the newest sample. `range_ms` is the length of a block.
    #[inline]
    pub(super) fn append(&mut self, blocks: &mut Blocks, ts: Timestamp, value: f64, range_ms: i64) -> bool {
        let since = ts.wrapping_sub(self.start);
        let full = self.count >= 2 * SAMPLES_PER_CHUNK || usize::from(self.words) * 8 > XOR_BYTES_MAX - 8;
        if self.count == 0 || since >= i64::from(self.end) || full || self.flags & BOXED != 0 {
            return false;
        }
        let since = u32::try_from(since).unwrap_or(u32::MAX);
        let step = since - self.newest;
        let value_state = XorValue { bits: self.bits, leading: self.leading, trailing: self.trailing };
        let pending = Pending { bits: self.pending, held: u32::from(self.held) };
        let mut state = XorState { delta: u64::from(self.delta), value: value_state, pending };
        let mut chain = Chain { first: self.chain.0, last: self.chain.1, words: self.words };
        let second = self.count == 1;
        state.append(second, u64::from(step), value, &mut |word| blocks.push(&mut chain, word));
        self.count += 1;
        (self.newest, self.delta) = (since, step);
        self.set(&state, chain);
        self.foresee_end(range_ms);
        true
    }

    /// After a quarter of a chunk, foresees where it is to end.
    #[inline]
    pub(super) fn foresee_end(&mut self, range_ms: i64) {
        if self.count == SAMPLES_PER_CHUNK / 4 {
            self.end = foreseen_end((self.newest, self.end), range_ms, share_of(self.wal_ref));
        }
    }

    /// Begins a chunk that lies elsewhere. `end` is where it has to be closed.
    pub(super) fn begin_open(&mut self, ts: Timestamp, end: Timestamp) {
        self.count = 1;
        self.flags = self.flags & !VALUED | BOXED;
        self.begin_at(ts, end);
    }

    /// Notes a sample of a chunk that lies elsewhere, `since` its start.
    pub(super) fn step_to(&mut self, since: u32) {
        self.count += 1;
        (self.delta, self.newest) = (since.saturating_sub(self.newest), since);
    }

    /// Notes the newest value of such a chunk.
    pub(super) fn set_value(&mut self, value: f64) {
        self.bits = value.to_bits();
        self.flags |= VALUED;
    }

    /// Takes over the state of the encoder.
    #[inline]
    pub(super) fn set(&mut self, state: &XorState, chain: Chain) {
        (self.bits, self.leading, self.trailing) =
            (state.value.bits, state.value.leading, state.value.trailing);
        self.pending = state.pending.bits;
        // Fewer than 64 bits are held back.
        self.held = state.pending.held.to_le_bytes()[0];
        (self.chain, self.words) = ((chain.first, chain.last), chain.words);
    }

    /// Begins a chunk of floats. `end` is where it has to be closed.
    pub(super) fn begin(&mut self, blocks: &mut Blocks, ts: Timestamp, value: f64, end: Timestamp) {
        let mut chain = Chain::EMPTY;
        let state = XorState::start(ts, value, &mut |word| blocks.push(&mut chain, word));
        self.set(&state, chain);
        (self.count, self.delta) = (1, 0);
        self.flags = self.flags & !BOXED | VALUED;
        self.begin_at(ts, end);
    }

    fn begin_at(&mut self, ts: Timestamp, end: Timestamp) {
        (self.start, self.newest) = (ts, 0);
        self.end = u32::try_from(end.saturating_sub(ts)).unwrap_or(u32::MAX);
        self.flags |= BEGUN;
    }

    /// Whether the next sample will come too late for the open chunk, if it keeps the pace.
    pub(super) fn is_about_to_end(&self) -> bool {
        self.count > 1 && self.newest.saturating_add(self.delta) >= self.end
    }

    /// What there is of the open chunk of floats.
    pub(super) fn floats(&self) -> (Chain, Pending) {
        let chain = Chain { first: self.chain.0, last: self.chain.1, words: self.words };
        (chain, Pending { bits: self.pending, held: u32::from(self.held) })
    }
}

/// Where a series' chunks end within the length of a chunk, in parts of 2^32: names are numbers in a row, whose
/// multiples of the golden ratio are spread evenly.
fn share_of(wal_ref: u64) -> u32 {
    u32::try_from(wal_ref.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).unwrap_or(0)
}

/// Foresees the end of a chunk after a quarter of it, which took `quarter`; a block ends at `block_end`. Both
/// are counted from the chunk's first sample.
///
/// A block of `range_ms` is divided into chunks of equal length, and their ends are moved by the `share` of a length,
/// which is another for each series. So at any time the open chunks of a head are half full on average: without
/// this, series that are sampled in step fill theirs at the same moment, when they need twice the memory and are all
/// written at once. A block has half a chunk more for it; it gets back what it had when it is written.
fn foreseen_end((quarter, block_end): (u32, u32), range_ms: i64, share: u32) -> u32 {
    let chunks = range_ms / (i64::from(quarter) + 1).saturating_mul(4);
    if chunks <= 1 {
        return block_end;
    }
    let length = range_ms / chunks;
    let shift = i64::try_from((i128::from(length) * i128::from(share)) >> 32).unwrap_or(0);
    // Counted from the start of the block.
    let start = range_ms - i64::from(block_end);
    let passed = (start + i64::from(quarter) - shift).div_euclid(length);
    let end = shift + (passed + 1) * length - start;
    // No chunk at the end of a block has less than an eighth.
    let left = i64::from(block_end) - end;
    if left < length / 8 { block_end } else { u32::try_from(end).unwrap_or(block_end) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: u32 = 7_200_000;

    /// The numbers of samples in the chunks of a block.
    fn chunks(interval: u32, name: u64) -> Vec<u32> {
        let (mut start, mut out) = (0, Vec::new());
        while start < RANGE {
            let (quarter, left) = (29 * interval, RANGE - start);
            let end = if quarter < left {
                foreseen_end((quarter, left), i64::from(RANGE), share_of(name))
            } else {
                left
            };
            let samples = end.div_ceil(interval);
            out.push(samples);
            start += samples * interval;
        }
        out
    }

    #[test]
    fn chunks_have_nearly_the_usual_size() {
        for interval in [1_000, 5_000, 7_000, 10_000, 15_000, 30_000, 60_000] {
            let all: Vec<_> = (0..1000).map(|name| chunks(interval, name)).collect();
            let samples = RANGE.div_ceil(interval);
            for chunks in &all {
                assert_eq!(chunks.iter().sum::<u32>(), samples, "{interval}");
                assert!(chunks.iter().all(|&chunk| (14..=240).contains(&chunk)), "{interval}: {chunks:?}");
            }
            let (count, usual) = (all.iter().map(Vec::len).sum::<usize>(), samples.div_ceil(120) as usize);
            assert!(count < 1050 * usual + 750, "{interval}: {count}");
        }
    }

    #[test]
    fn chunks_are_half_full_at_any_time() {
        let mut full = vec![0u32; 480];
        for name in 0..1000 {
            let filled = chunks(15_000, name).into_iter().flat_map(|samples| 1..=samples);
            full.iter_mut().zip(filled).for_each(|(full, samples)| *full += samples);
        }
        // The first chunks begin together.
        assert!(full.iter().all(|&full| full < 80_000));
        assert!(full[150..].iter().all(|full| (55_000..75_000).contains(full)));
    }
}
