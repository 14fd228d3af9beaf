//! What a series had before the start, on its way to what it has since.

use model::{TimeRange, Timestamp};

use super::line::{BEGUN, LOGGED, Line, PENDING, SPARED, VALUED};
use super::mapped::{MappedChunks, MappedRef};
use super::series::{Chunks, Closed, ClosedBytes, Extent, Rest, Rules, Series, push_exact};
use crate::chunk::{self, Sample};
use crate::codec::Malformed;

impl Series<'_> {
    /// Takes over mapped chunks found at opening, where they do not overlap other mapped ones. A series may have
    /// had several names in the log, each with its chunks; and after a power cut the log may lack samples
    /// that chunks have.
    ///
    /// What the log had under an earlier name may be in the chunks of a later one: those have all samples of
    /// their time, so what is in memory of it goes.
    pub(crate) fn adopt(
        &mut self,
        chunks: &[MappedRef],
        rules: Rules,
        from: Timestamp,
        files: &MappedChunks,
    ) {
        let mut recent = chunks.iter().filter(|chunk| chunk.max() >= from);
        let Some(first) = recent.next() else { return };
        let last = recent.next_back().unwrap_or(first);
        let mut younger = Vec::new();
        let has_memory = self.has_open() || self.has_closed();
        if has_memory && self.max_ts().is_some_and(|newest| newest >= first.min()) {
            for sample in self.take_memory() {
                if sample.ts < first.min() {
                    self.append_sample(&sample, rules);
                } else if sample.ts > last.max() {
                    younger.push(sample);
                }
            }
            self.close();
        }
        self.adopt_disjoint(chunks, from, files);
        for sample in younger {
            self.append_sample(&sample, rules);
        }
    }

    /// Takes out the samples that are not in mapped chunks.
    fn take_memory(&mut self) -> Vec<Sample> {
        self.close();
        let mut samples = Vec::new();
        while let Some(chunk) = self.store.closed(self.rest.closed) {
            let (encoding, data) = self.store.closed_chunk(chunk);
            let mut take = |sample| samples.push(sample);
            // It was written a moment ago.
            let _ = chunk::for_each(encoding, &data, usize::MAX, &mut take);
            self.rest.closed = self.store.remove_closed(self.rest.closed);
        }
        let newest = self.rest.mapped.last().map(|chunk| chunk.max());
        self.line.flags &= !(BEGUN | VALUED);
        if let Some(newest) = newest {
            self.line.flags |= BEGUN;
            (self.line.start, self.line.newest) = (newest, 0);
        }
        samples
    }

    fn adopt_disjoint(&mut self, chunks: &[MappedRef], from: Timestamp, files: &MappedChunks) {
        for &chunk in chunks.iter().filter(|chunk| chunk.max() >= from) {
            let at = self.rest.mapped.partition_point(|other| other.min() < chunk.min());
            let follows = at == 0 || self.rest.mapped[at - 1].max() < chunk.min();
            let memory = self.closed().next().map(|closed| closed.min);
            let memory = memory.or_else(|| self.has_open().then_some(self.line.start));
            let next = self.rest.mapped.get(at).map(|next| next.min()).or(memory);
            if follows && next.is_none_or(|next| chunk.max() < next) {
                push_exact(&mut self.rest.mapped, at, chunk);
                if next.is_none() {
                    self.line.flags = self.line.flags & !VALUED | BEGUN;
                    (self.line.start, self.line.newest) = (chunk.max(), 0);
                }
            } else if self.max_ts().is_some_and(|newest| newest < chunk.min())
                && let Ok(found) = files.chunk(chunk)
            {
                // Mapped chunks must be older than those in memory, so this one joins the latter.
                self.close();
                let (min, max, data) = (chunk.min(), chunk.max(), found.data());
                let bytes = ClosedBytes::Other(found.encoding, data.into());
                let (count, wal_ref) = (chunk::count(found.encoding, data), self.line.wal_ref);
                self.push_closed(Closed { min, max, count, wal_ref, bytes, next: 0 });
                self.line.flags = self.line.flags & !VALUED | BEGUN;
                (self.line.start, self.line.newest) = (max, 0);
            }
        }
    }

    /// Puts history before what the series has. Samples that are not newer than the newest of history are taken out:
    /// had it been known, they would have come late. They go to `misplaced`, which is empty.
    pub(super) fn join(
        &mut self,
        (line, rest): (&mut Line, &mut Rest),
        rules: Rules,
        (misplaced, files): (&mut Vec<Sample>, &MappedChunks),
    ) -> Result<(), Malformed> {
        let past = Series::new(line, rest, self.store);
        let Some(newest) = past.max_ts() else { return Ok(()) };
        if rules.chunks == Chunks::None {
            let value = past.newest_float();
            if self.max_ts().is_none_or(|own| own < newest) {
                (self.line.start, self.line.newest) = (newest, 0);
                self.line.flags = self.line.flags & !VALUED | BEGUN;
                value.into_iter().for_each(|(_, value)| self.line.set_value(value));
            }
            return Ok(());
        }
        let young = self.min_ts();
        let mut kept = Vec::new();
        if young.is_some_and(|young| young <= newest) {
            for chunk in self.visible(TimeRange::ALL, Extent::ALL, files)? {
                chunk::for_each(chunk.bytes.encoding(), chunk.bytes.data(), chunk.limit, &mut |sample| {
                    if sample.ts > newest { &mut kept } else { &mut *misplaced }.push(sample);
                })?;
            }
            self.drop_open();
            while self.rest.closed != 0 {
                self.rest.closed = self.store.remove_closed(self.rest.closed);
            }
        }
        // As if they had never come: see [`Head::attach`](super::Head::attach), which corrects the marks.
        let appended = self.appended().wrapping_sub(u32::try_from(misplaced.len()).unwrap_or(u32::MAX));
        if self.is_empty() {
            // History goes on where it was, under its name.
            let own = self.line.flags & (PENDING | SPARED);
            let name = self.line.wal_ref;
            let renamed = self.line.flags & LOGGED != 0 && name > line.wal_ref;
            let flags = line.flags & !(PENDING | SPARED) | own | LOGGED;
            let generation = self.line.generation;
            *self.line = Line { generation, flags, ..std::mem::take(line) };
            let before = appended.wrapping_sub(u32::from(self.line.count));
            *self.rest = Rest { before, ..std::mem::take(rest) };
            if !kept.is_empty() {
                // Older snapshots tell by chunks what they know.
                self.close();
            }
            if renamed {
                // The log has samples under the newer name already.
                self.line.wal_ref = name;
            }
        } else {
            let mut past = Series::new(line, rest, self.store);
            past.close();
            let mut young = self.rest.closed;
            self.rest.closed = past.rest.closed;
            while young != 0 {
                let next = self.store.closed(young).map_or(0, |chunk| chunk.next);
                self.link_closed(young);
                young = next;
            }
            self.rest.mapped = std::mem::take(&mut rest.mapped);
        }
        for sample in kept {
            // They were counted when they came.
            self.rest.before = self.rest.before.wrapping_sub(1);
            self.append_sample(&sample, rules);
        }
        Ok(())
    }
}
