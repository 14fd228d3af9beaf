//! XOR chunks of floats (encoding 1), after the Gorilla paper. Drawn in `docs/format.md`, section
//! "XOR chunk".

use model::{Samples, TimeRange, Timestamp};

use crate::codec::Malformed;
use crate::codec::bits::{BitReader, BitWriter, Pending};
use crate::codec::bytes::{Bytes, Put, zigzag};
use crate::samples::retain_from;

/// No window of significant bits has been written yet.
const NO_WINDOW: u8 = 0xff;

/// Where an encoder of values stands: the previous value and the window of its significant bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct XorValue {
    pub(crate) bits: u64,
    pub(crate) leading: u8,
    pub(crate) trailing: u8,
}

impl XorValue {
    pub(super) fn first(value: f64) -> Self {
        Self { bits: value.to_bits(), leading: NO_WINDOW, trailing: 0 }
    }

    pub(super) fn value(self) -> f64 {
        f64::from_bits(self.bits)
    }

    /// Appends `value` as its difference from the previous one, behind a head of so many bits (up to 16).
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "counts of bits are at most 64")]
    fn push(
        &mut self,
        pending: &mut Pending,
        (head, head_bits): (u64, u32),
        value: f64,
        full: &mut impl FnMut(u64),
    ) {
        let delta = value.to_bits() ^ self.bits;
        self.bits = value.to_bits();
        if delta == 0 {
            return pending.push(head << 1, head_bits + 1, full);
        }
        let leading = delta.leading_zeros().min(31) as u8;
        let trailing = delta.trailing_zeros() as u8;
        let (head, head_bits) = if leading >= self.leading && trailing >= self.trailing {
            (head << 2 | 0b10, head_bits + 2)
        } else {
            (self.leading, self.trailing) = (leading, trailing);
            let width = 64 - u64::from(leading) - u64::from(trailing);
            // A width of 64 does not fit six bits and is written as 0, which never occurs otherwise.
            (head << 13 | 0b11 << 11 | u64::from(leading) << 6 | width & 63, head_bits + 13)
        };
        let width = 64 - u32::from(self.leading) - u32::from(self.trailing);
        let bits = delta >> self.trailing;
        if head_bits + width <= 64 {
            pending.push(head << width | bits, head_bits + width, full);
        } else {
            pending.push(head, head_bits, full);
            pending.push(bits, width, full);
        }
    }

    /// Writes `value` as its difference from the previous one.
    #[expect(clippy::cast_possible_truncation, reason = "counts of bits are at most 64")]
    pub(super) fn write(&mut self, writer: &mut BitWriter, out: &mut Vec<u8>, value: f64) {
        let delta = value.to_bits() ^ self.bits;
        self.bits = value.to_bits();
        if delta == 0 {
            writer.bit(out, false);
            return;
        }
        // Five bits hold the number of leading zeros, so more than 31 count as 31.
        let leading = delta.leading_zeros().min(31) as u8;
        let trailing = delta.trailing_zeros() as u8;
        if self.leading != NO_WINDOW && leading >= self.leading && trailing >= self.trailing {
            let width = 64 - u32::from(self.leading) - u32::from(self.trailing);
            writer.bits(out, 0b10, 2);
            writer.bits(out, delta >> self.trailing, width);
            return;
        }
        (self.leading, self.trailing) = (leading, trailing);
        let width = 64 - u32::from(leading) - u32::from(trailing);
        // A width of 64 does not fit six bits and is written as 0, which never occurs otherwise.
        writer.bits(out, 0b11 << 11 | u64::from(leading) << 6 | u64::from(width & 63), 13);
        writer.bits(out, delta >> trailing, width);
    }

    /// Reads the next value.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "fields of five and six bits")]
    pub(super) fn read(&mut self, reader: &mut BitReader<'_>) -> Result<f64, Malformed> {
        match reader.ones(2)? {
            0 => return Ok(self.value()),
            1 => {}
            _ => {
                let header = reader.bits(11)?;
                let (leading, width) = ((header >> 6) as u8, (header & 63) as u8);
                let width = if width == 0 { 64 } else { width };
                (self.leading, self.trailing) = (leading, 64u8.wrapping_sub(leading).wrapping_sub(width));
            }
        }
        let width = 64u8.wrapping_sub(self.leading).wrapping_sub(self.trailing);
        if u16::from(width) + u16::from(self.leading) > 64 {
            return Err(NO_SUCH_WINDOW);
        }
        self.bits ^= reader.bits(u32::from(width))? << self.trailing;
        Ok(self.value())
    }
}

const NO_SUCH_WINDOW: Malformed = Malformed("XOR window is not within 64 bits, or was never set");

/// Where an encoder of samples stands, wherever their bits go: 40 bytes.
///
/// A sample is one or two pushes of up to 64 bits into a register; of a counter that grows slowly only
/// every fourth sample fills a word and touches the memory of its chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct XorState {
    /// The time between the last two samples.
    pub(crate) delta: u64,
    pub(crate) value: XorValue,
    pub(crate) pending: Pending,
}

impl XorState {
    /// Begins a chunk behind its count.
    pub(crate) fn start(ts: Timestamp, value: f64, full: &mut impl FnMut(u64)) -> Self {
        let mut pending = Pending::default();
        push_uvarint(&mut pending, zigzag(ts), full);
        pending.push(value.to_bits(), 64, full);
        Self { delta: 0, value: XorValue::first(value), pending }
    }

    /// Adds a sample `delta` after the last one; `second` if it is the second of its chunk.
    #[inline]
    pub(crate) fn append(&mut self, second: bool, delta: u64, value: f64, full: &mut impl FnMut(u64)) {
        let mut head = (0, 0);
        if second {
            push_uvarint(&mut self.pending, delta, full);
        } else {
            // Small changes go with the value, by one push.
            match delta.wrapping_sub(self.delta).cast_signed() {
                0 => head = (0, 1),
                change @ -8191..=8192 => head = (0b10 << 14 | change.cast_unsigned() & 0x3fff, 16),
                change => push_large_change(&mut self.pending, change, full),
            }
        }
        self.delta = delta;
        self.value.push(&mut self.pending, head, value, full);
    }
}

fn push_uvarint(pending: &mut Pending, mut value: u64, full: &mut impl FnMut(u64)) {
    while value >= 0x80 {
        pending.push(value & 0x7f | 0x80, 8, full);
        value >>= 7;
    }
    pending.push(value, 8, full);
}

/// Appends to an XOR chunk in a vector that the caller owns. Its bytes are complete after
/// [`XorAppender::finish`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct XorAppender {
    ts: Timestamp,
    state: XorState,
    count: u16,
}

impl XorAppender {
    /// Begins a chunk in `out`, which must be empty, with its first sample.
    pub(crate) fn start(out: &mut Vec<u8>, ts: Timestamp, value: f64) -> Self {
        debug_assert!(out.is_empty());
        out.put_u16(0);
        let state = XorState::start(ts, value, &mut |word| out.put_u64(word));
        Self { ts, state, count: 1 }
    }

    /// Appends a sample. `ts` should be later than the last one; any order round-trips.
    #[inline]
    pub(crate) fn append(&mut self, out: &mut Vec<u8>, ts: Timestamp, value: f64) {
        let delta = ts.wrapping_sub(self.ts).cast_unsigned();
        self.state.append(self.count == 1, delta, value, &mut |word| out.put_u64(word));
        self.ts = ts;
        self.count += 1;
    }

    /// Writes what is still held back, and the number of samples.
    pub(crate) fn finish(self, out: &mut Vec<u8>) {
        out.extend(self.state.pending.bytes());
        set_count(out, self.count);
    }

    /// The time of the last sample.
    pub(crate) fn last_ts(&self) -> Timestamp {
        self.ts
    }

    /// The number of samples.
    pub(crate) fn count(&self) -> u16 {
        self.count
    }
}

/// Writes the first two bytes: the number of samples.
pub(super) fn set_count(chunk: &mut [u8], count: u16) {
    if let Some(bytes) = chunk.first_chunk_mut::<2>() {
        *bytes = count.to_be_bytes();
    }
}

/// Whether `value` fits `width` bits in the encoding's lopsided range `-(2^(n-1)-1) ..= 2^(n-1)`.
fn fits(value: i64, width: u32) -> bool {
    -((1 << (width - 1)) - 1) <= value && value <= 1 << (width - 1)
}

/// Appends a change of the step that 14 bits do not hold.
#[cold]
fn push_large_change(pending: &mut Pending, value: i64, full: &mut impl FnMut(u64)) {
    let raw = value.cast_unsigned();
    let (prefix, prefix_bits, width) = match value {
        _ if fits(value, 17) => (0b110, 3, 17),
        _ if fits(value, 20) => (0b1110, 4, 20),
        _ => {
            pending.push(0b1111, 4, full);
            return pending.push(raw, 64, full);
        }
    };
    pending.push(prefix << width | raw & ((1 << width) - 1), prefix_bits + width, full);
}

/// Where a reader of samples is. All of it fits registers, as long as nobody asks for its address: so it is handed
/// around by value.
///
/// Between samples there is only a bit position: each is read from one or two unaligned loads at it. As long as values
/// differ within the window used last, which is nearly always after the first few, the position of the next sample
/// follows from what is known already; so the processor, which guesses the kind of a sample, is some samples ahead
/// with its loads.
#[derive(Clone, Copy)]
struct State {
    at: usize,
    ts: Timestamp,
    delta: u64,
    bits: u64,
    /// Of the window used last, 1 to 64; 0: there was none.
    width: u32,
    trailing: u32,
}

/// A position that no chunk has, with room behind it: there was no window where one was to be.
const NO_WINDOW_AT: usize = usize::MAX / 2;

/// The number of samples, the bits behind it, and where a reader is that has read the first sample, if there is one.
fn begin(chunk: &[u8]) -> Result<(usize, &[u8], State), Malformed> {
    let Some((head, data)) = chunk.split_first_chunk::<2>() else {
        return Err(Malformed("XOR chunk without a sample count"));
    };
    let count = usize::from(u16::from_be_bytes(*head));
    let mut bytes = Bytes::new(data);
    let (mut ts, mut bits) = (0, 0);
    if count > 0 {
        (ts, bits) = (bytes.varint()?, bytes.u64()?);
    }
    let at = (data.len() - bytes.rest().len()) * 8;
    Ok((count, data, State { at, ts, delta: 0, bits, width: 0, trailing: 0 }))
}

/// What [`load`] loads at least.
const LOADED: u32 = 57;

/// At least 57 bits from `at` on, left-aligned; zeros beyond the end.
#[inline(always)]
fn load(data: &[u8], at: usize) -> u64 {
    let rest = data.get(at / 8..).unwrap_or_default();
    let word = match rest.first_chunk::<8>() {
        Some(word) => u64::from_be_bytes(*word),
        None => load_end(rest),
    };
    word << (at % 8)
}

#[cold]
fn load_end(rest: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(word)
}

/// `width` bits at `at`, 1 to 64.
#[inline(always)]
fn field(data: &[u8], at: usize, width: u32) -> u64 {
    let high = load(data, at) >> (64 - width);
    if width <= 57 {
        return high;
    }
    // The last seven bits may be missing.
    high | load(data, at + 57) >> 57 >> (64 - width)
}

impl State {
    fn second(mut self, data: &[u8]) -> Result<Self, Malformed> {
        let mut bytes = Bytes::new(data.get(self.at / 8..).unwrap_or_default());
        self.delta = bytes.uvarint()?;
        self.at = (data.len() - bytes.rest().len()) * 8;
        self.ts = self.ts.wrapping_add(self.delta.cast_signed());
        let window = load(data, self.at);
        Ok(self.value(data, window, LOADED))
    }

    /// Reads the next sample. What is wrong with it is told by [`State::check`]: a result would have to go through
    /// memory.
    #[inline(always)]
    fn next(mut self, data: &[u8]) -> Self {
        let mut window = load(data, self.at);
        let mut left = LOADED;
        if window >> 63 == 0 {
            // Samples are evenly spaced as a rule,
            self.at += 1;
            left -= 1;
            window <<= 1;
        } else if window >> 62 == 0b10 {
            // or nearly so. What is left of the window is enough for the head of the value.
            let raw = (window << 2 >> 50).cast_signed();
            let change = raw - (i64::from(raw > 1 << 13) << 14);
            self.delta = self.delta.wrapping_add(change.cast_unsigned());
            self.at += 16;
            left -= 16;
            window <<= 16;
        } else {
            self = self.change(data, window);
            window = load(data, self.at);
        }
        self.ts = self.ts.wrapping_add(self.delta.cast_signed());
        self.value(data, window, left)
    }

    /// Takes over a large change of the step.
    #[cold]
    #[inline(never)]
    fn change(mut self, data: &[u8], window: u64) -> Self {
        let (prefix, width) = match (!window).leading_zeros() {
            2 => (3, 17),
            3 => (4, 20),
            _ => (4, 64),
        };
        let raw = field(data, self.at + prefix, width).cast_signed();
        let negative = width < 64 && raw > 1 << (width - 1);
        let change = if negative { raw - (1 << width) } else { raw };
        self.delta = self.delta.wrapping_add(change.cast_unsigned());
        self.at += prefix + width as usize;
        self
    }

    /// Reads the value at the position, where `window` begins, of which `left` bits were loaded.
    #[inline(always)]
    fn value(mut self, data: &[u8], window: u64, left: u32) -> Self {
        if window >> 63 == 0 {
            self.at += 1;
            return self;
        }
        if window >> 62 == 0b10 {
            if self.width.wrapping_sub(1) < left - 2 {
                // All of it is there.
                self.bits ^= window << 2 >> (64 - self.width) << self.trailing;
                self.at += 2 + self.width as usize;
                return self;
            }
            self.at += 2;
        } else {
            let leading = u32::from((window >> 57).to_le_bytes()[0] & 31);
            let width = u32::from((window >> 51).to_le_bytes()[0] & 63);
            self.width = if width == 0 { 64 } else { width };
            self.trailing = 64u32.wrapping_sub(leading).wrapping_sub(self.width);
            self.at += 13;
        }
        // A window that reaches beyond 64 bits leaves less than nothing behind it.
        if self.width == 0 || self.trailing >= 64 {
            self.at = NO_WINDOW_AT;
            return self;
        }
        self.bits ^= field(data, self.at, self.width) << self.trailing;
        self.at += self.width as usize;
        self
    }

    /// Whether all that was read was there: beyond the end there are zeros.
    fn check(self, data: &[u8]) -> Result<(), Malformed> {
        if self.at >= NO_WINDOW_AT {
            return Err(NO_SUCH_WINDOW);
        }
        if self.at > data.len() * 8 {
            return Err(Malformed("XOR chunk ends in the middle of a sample"));
        }
        Ok(())
    }
}

/// Passes over samples before `start`, of `count` that begin with the one `state` has read; how many that were.
/// What is passed over costs its bits and no memory.
fn skip(data: &[u8], state: State, count: usize, start: Timestamp) -> Result<(usize, State), Malformed> {
    if count == 0 || state.ts >= start {
        return Ok((0, state));
    }
    if count == 1 {
        return Ok((1, state));
    }
    let (mut state, mut skipped) = (state.second(data)?, 1);
    while state.ts < start {
        skipped += 1;
        if skipped == count {
            break;
        }
        state = state.next(data);
    }
    Ok((skipped, state))
}

/// Fills columns of equal length, the first cell with the sample that `state` has read, which is the first of the
/// chunk or a later one.
fn fill(
    data: &[u8],
    mut state: State,
    is_first: bool,
    (times, values): (&mut [Timestamp], &mut [f64]),
) -> Result<(), Malformed> {
    let mut columns = times.iter_mut().zip(values);
    if let Some((ts, value)) = columns.next() {
        (*ts, *value) = (state.ts, f64::from_bits(state.bits));
    }
    if is_first && let Some((ts, value)) = columns.next() {
        state = state.second(data)?;
        (*ts, *value) = (state.ts, f64::from_bits(state.bits));
    }
    for (ts, value) in columns {
        state = state.next(data);
        (*ts, *value) = (state.ts, f64::from_bits(state.bits));
    }
    state.check(data)
}

/// Calls `visit` with the first `limit` samples of the chunk.
#[inline]
pub(crate) fn for_each(
    chunk: &[u8],
    limit: usize,
    mut visit: impl FnMut(Timestamp, f64),
) -> Result<(), Malformed> {
    let (count, data, mut state) = begin(chunk)?;
    for index in 0..count.min(limit) {
        state = match index {
            0 => state,
            1 => state.second(data)?,
            _ => state.next(data),
        };
        state.check(data)?;
        visit(state.ts, f64::from_bits(state.bits));
    }
    Ok(())
}

/// Appends those of the first `limit` samples that lie in `range` to `into`; none if the chunk is malformed.
pub(crate) fn decode(
    chunk: &[u8],
    limit: usize,
    range: TimeRange,
    into: &mut Samples,
) -> Result<(), Malformed> {
    let (count, data, state) = begin(chunk)?;
    let count = count.min(limit);
    let (skipped, state) = skip(data, state, count, range.start)?;
    // A damaged count is at most 65,535.
    let (from, count) = (into.ts.len(), count - skipped);
    into.ts.resize(from + count, 0);
    into.values.resize(from + count, 0.0);
    let result = fill(data, state, skipped == 0, (&mut into.ts[from..], &mut into.values[from..]));
    if result.is_err() {
        into.ts.truncate(from);
        into.values.truncate(from);
    }
    if range != TimeRange::ALL && !into.ts[from..].iter().all(|&ts| range.contains(ts)) {
        let histograms = into.histogram_ts.len();
        retain_from(into, (from, histograms), |ts| range.contains(ts));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(samples: &[(i64, u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut appender: Option<XorAppender> = None;
        for &(ts, bits) in samples {
            match &mut appender {
                None => appender = Some(XorAppender::start(&mut out, ts, f64::from_bits(bits))),
                Some(appender) => appender.append(&mut out, ts, f64::from_bits(bits)),
            }
        }
        if let Some(appender) = appender {
            appender.finish(&mut out);
        }
        out
    }

    fn decode_all(chunk: &[u8]) -> Result<Vec<(i64, u64)>, Malformed> {
        let mut out = Vec::new();
        for_each(chunk, usize::MAX, |ts, value| out.push((ts, value.to_bits())))?;
        Ok(out)
    }

    #[test]
    fn steps_at_the_edges_of_every_width() {
        let mut samples = vec![(0i64, 0u64)];
        let mut delta = 0i64;
        for width in [14u32, 17, 20, 40] {
            for dod in
                [1i64 << (width - 1), (1 << (width - 1)) + 1, -((1 << (width - 1)) - 1), -(1 << (width - 1))]
            {
                delta += dod;
                let ts = samples.last().map_or(0, |last| last.0) + delta;
                samples.push((ts, samples.len() as u64));
            }
        }
        assert_eq!(decode_all(&encode(&samples)).unwrap(), samples);
    }

    #[test]
    fn a_known_chunk() {
        // Two samples one second apart of the same value: count, varint 1000, 1.0, uvarint 1000, bit 0.
        let chunk = encode(&[(1000, 1f64.to_bits()), (2000, 1f64.to_bits())]);
        assert_eq!(chunk, [0, 2, 0xd0, 0x0f, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0xe8, 0x07, 0]);
    }

    proptest! {
        #[test]
        fn every_bit_pattern_survives(samples in prop::collection::vec((any::<i64>(), any::<u64>()), 1..200)) {
            prop_assert_eq!(decode_all(&encode(&samples)).unwrap(), samples);
        }

        #[test]
        fn regular_series_survive(
            start in 0i64..2_000_000_000_000,
            steps in prop::collection::vec((14_990i64..15_010, prop_oneof![Just(0u64), 0..1000u64]), 1..240),
        ) {
            let (mut ts, mut value, mut samples) = (start, 0f64, Vec::new());
            for (step, increase) in steps {
                ts += step;
                value += increase as f64;
                samples.push((ts, value.to_bits()));
            }
            prop_assert_eq!(decode_all(&encode(&samples)).unwrap(), samples);
        }

        #[test]
        fn garbage_never_panics(chunk: Vec<u8>) {
            let _ = decode_all(&chunk);
        }
    }
}
