//! One request to requests for each shard, in one walk over its bytes.
//!
//! Arithmetic, a series of eleven labels and one sample (370 bytes): finding its labels and their ends
//! 100 ns, its slot 15 to 40 ns, copying it 30 ns for each owner; decompressing what came and compressing what goes
//! another 2 * 150 ns. So a core splits two to five million series a second.
//!
//! A series of 1.0 is copied as it stands, without being read further than its labels. One of 2.0 refers to
//! the request's table of strings; it is written out as 1.0: labels, exemplars and metadata anew, samples and
//! histograms, whose messages are the same in both, as they stand. One that contradicts itself is left out and told.

use crate::message::ROUTED_METADATA;
use crate::receive::request::Fault;
use crate::receive::{Encoding, Protocol, ReceiveError, Written};
use crate::slots::{SlotMap, Slotter};
use crate::wire::{Content, Fields, WireError, Writer, packed};

/// What goes to one shard: `prometheus.WriteRequest`, not compressed.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub(super) message: Writer,
    pub(super) counts: Written,
}

/// A request, split.
#[derive(Debug, Default)]
pub(super) struct Split {
    /// By shard, as the map numbers them; empty for those that get nothing.
    pub(super) parts: Vec<Part>,
    /// All that could be read of the request.
    pub(super) total: Written,
    /// What of that was left out, because another replica of its writer is listened to.
    pub(super) duplicates: Written,
    /// What is wrong with the first series that was left out, because it cannot be read.
    pub(super) fault: Option<String>,
}

/// Says whether the samples of a replica of a cluster's pair of writers are wanted.
pub(super) type Elect<'e> = &'e dyn Fn(&str, &str) -> bool;

/// The labels by which the writers of a pair are told apart.
const CLUSTER: &[u8] = b"cluster";
const REPLICA: &[u8] = b"__replica__";

type Pair<'m> = (&'m [u8], &'m [u8]);

struct Splitter<'a, 'm> {
    map: &'a SlotMap,
    elect: Option<Elect<'a>>,
    /// The last question to `elect`, with its answer: nearly always the next one too.
    elected: Option<(Vec<u8>, Vec<u8>, bool)>,
    slotter: Slotter,
    pairs: Vec<Pair<'m>>,
    refs: Vec<u64>,
    symbols: Vec<&'m [u8]>,
    rewritten: Writer,
    split: Split,
}

/// Splits a decompressed message.
///
/// # Errors
/// It is no message of remote write.
pub(super) fn split(
    encoding: Encoding,
    message: &[u8],
    map: &SlotMap,
    elect: Option<Elect<'_>>,
) -> Result<Split, ReceiveError> {
    let parts = vec![Part::default(); map.shards().len()];
    let mut splitter = Splitter {
        map,
        elect,
        elected: None,
        slotter: Slotter::default(),
        pairs: Vec::new(),
        refs: Vec::new(),
        symbols: Vec::new(),
        rewritten: Writer::default(),
        split: Split { parts, ..Split::default() },
    };
    match encoding.protocol {
        Protocol::V1 => splitter.first(message)?,
        Protocol::V2 => splitter.second(message)?,
    }
    Ok(splitter.split)
}

impl<'m> Splitter<'_, 'm> {
    fn first(&mut self, message: &'m [u8]) -> Result<(), ReceiveError> {
        let mut fields = Fields::new(message);
        loop {
            let before = fields.rest();
            let Some((number, content)) = fields.next()? else { return Ok(()) };
            if number == 1 {
                let field = &before[..before.len() - fields.rest().len()];
                self.series_of_first(field, content.bytes()?)?;
            }
        }
    }

    /// A series of 1.0; `field` is the message with its key and length.
    fn series_of_first(&mut self, field: &'m [u8], series: &'m [u8]) -> Result<(), ReceiveError> {
        self.pairs.clear();
        let mut counts = Written::default();
        let mut fields = Fields::new(series);
        while let Some((number, content)) = fields.next()? {
            match number {
                1 => self.pairs.push(pair(content.bytes()?)?),
                2 => counts.samples += 1,
                3 => counts.exemplars += 1,
                4 => counts.histograms += 1,
                _ => {}
            }
        }
        match self.judge() {
            Verdict::Plain => self.deal(field, counts),
            Verdict::Unwanted => self.leave_out(counts),
            Verdict::Elected => {
                let mut rewritten = std::mem::take(&mut self.rewritten);
                rewritten.0.clear();
                rewrite_without_replica(series, &mut rewritten)?;
                self.deal(&rewritten.0, counts);
                self.rewritten = rewritten;
            }
        }
        Ok(())
    }

    fn second(&mut self, message: &'m [u8]) -> Result<(), ReceiveError> {
        let mut fields = Fields::new(message);
        while let Some((number, content)) = fields.next()? {
            if number == 4 {
                self.symbols.push(content.bytes()?);
            }
        }
        let mut fields = Fields::new(message);
        while let Some((number, content)) = fields.next()? {
            if number == 5 {
                self.series_of_second(content.bytes()?)?;
            }
        }
        Ok(())
    }

    fn series_of_second(&mut self, series: &'m [u8]) -> Result<(), ReceiveError> {
        self.refs.clear();
        let mut counts = Written::default();
        let mut fields = Fields::new(series);
        while let Some((number, content)) = fields.next()? {
            match number {
                1 => packed(content, &mut self.refs, |at| at)?,
                2 => counts.samples += 1,
                3 => counts.histograms += 1,
                4 => counts.exemplars += 1,
                _ => {}
            }
        }
        let mut rewritten = std::mem::take(&mut self.rewritten);
        let outcome = self.deal_second(series, counts, &mut rewritten);
        self.rewritten = rewritten;
        match outcome {
            Err(Fault::Series(what)) => {
                self.split.fault.get_or_insert(what);
                Ok(())
            }
            Err(Fault::Message(error)) => Err(error.into()),
            Ok(()) => Ok(()),
        }
    }

    fn deal_second(
        &mut self,
        series: &'m [u8],
        counts: Written,
        rewritten: &mut Writer,
    ) -> Result<(), Fault> {
        self.pairs = resolve(&self.symbols, &self.refs)?;
        let verdict = self.judge();
        if verdict == Verdict::Unwanted {
            self.leave_out(counts);
            return Ok(());
        }
        rewritten.0.clear();
        let mut outcome = Ok(());
        rewritten.message(1, |out| outcome = self.rewrite(series, out));
        outcome?;
        self.deal(&rewritten.0, counts);
        Ok(())
    }

    /// Writes a series of 2.0 as one of 1.0.
    fn rewrite(&self, series: &[u8], out: &mut Writer) -> Result<(), Fault> {
        push_pairs(out, &self.pairs);
        let (mut start_ts, mut fields) = (0, Fields::new(series));
        while let Some((number, content)) = fields.next()? {
            if number == 6 {
                start_ts = content.int64()?;
            }
        }
        let mut fields = Fields::new(series);
        while let Some((number, content)) = fields.next()? {
            match number {
                2 => push_started(out, (2, 3), content.bytes()?, start_ts),
                3 => push_started(out, (4, 17), content.bytes()?, start_ts),
                5 => {
                    let metadata = content.bytes()?;
                    let mut outcome = Ok(());
                    out.message(ROUTED_METADATA, |out| outcome = self.rewrite_metadata(metadata, out));
                    outcome?;
                }
                4 => {
                    let exemplar = content.bytes()?;
                    let mut outcome = Ok(());
                    out.message(3, |out| outcome = self.rewrite_exemplar(exemplar, out));
                    outcome?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// `{labels_refs = 1, value = 2, timestamp = 3}` as `{labels = 1, value = 2, timestamp = 3}`
    fn rewrite_exemplar(&self, exemplar: &[u8], out: &mut Writer) -> Result<(), Fault> {
        let mut refs = Vec::new();
        let (mut value, mut ts) = (0.0, 0);
        let mut fields = Fields::new(exemplar);
        while let Some((number, content)) = fields.next()? {
            match number {
                1 => packed(content, &mut refs, |at| at)?,
                2 => value = content.double()?,
                3 => ts = content.int64()?,
                _ => {}
            }
        }
        push_pairs(out, &resolve(&self.symbols, &refs)?);
        out.double(2, value);
        out.int64(3, ts);
        Ok(())
    }

    /// `{type = 1, help_ref = 3, unit_ref = 4}` with texts for references.
    fn rewrite_metadata(&self, metadata: &[u8], out: &mut Writer) -> Result<(), Fault> {
        let mut fields = Fields::new(metadata);
        while let Some((number, content)) = fields.next()? {
            match number {
                1 => out.uint64(1, content.uint64()?),
                3 | 4 => out.bytes(number, symbol(&self.symbols, content.uint64()?)?),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the series in `pairs` is wanted; takes the label of the replica out of them.
    fn judge(&mut self) -> Verdict {
        let Some(elect) = self.elect else { return Verdict::Plain };
        let value =
            |wanted: &[u8]| self.pairs.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        let (Some(cluster), Some(replica)) = (value(CLUSTER), value(REPLICA)) else { return Verdict::Plain };
        let wanted = match &self.elected {
            Some((c, r, wanted)) if c == cluster && r == replica => *wanted,
            _ => {
                let wanted = elect(&String::from_utf8_lossy(cluster), &String::from_utf8_lossy(replica));
                self.elected = Some((cluster.to_vec(), replica.to_vec(), wanted));
                wanted
            }
        };
        self.pairs.retain(|(name, _)| *name != REPLICA);
        if wanted { Verdict::Elected } else { Verdict::Unwanted }
    }

    fn leave_out(&mut self, counts: Written) {
        self.split.total += counts;
        self.split.duplicates += counts;
    }

    /// Copies a series, which stands in `field` with its key and length, for each owner of its slot.
    fn deal(&mut self, field: &[u8], counts: Written) {
        // Nearly all writers sort them.
        if !self.pairs.is_sorted() {
            self.pairs.sort_unstable();
        }
        let slot = self.slotter.slot_of(self.pairs.iter().copied());
        self.split.total += counts;
        for shard in self.map.writers(slot) {
            let part = &mut self.split.parts[*shard];
            part.message.0.extend_from_slice(field);
            part.counts += counts;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Not of a pair.
    Plain,
    /// Of the replica that is listened to.
    Elected,
    /// Of another one.
    Unwanted,
}

/// `Label{name = 1, value = 2}`
fn pair(label: &[u8]) -> Result<Pair<'_>, WireError> {
    let mut pair: Pair<'_> = (b"", b"");
    let mut fields = Fields::new(label);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => pair.0 = content.bytes()?,
            2 => pair.1 = content.bytes()?,
            _ => {}
        }
    }
    Ok(pair)
}

/// A sample or histogram as it stands, with the start that its series names for all of them, unless it names its own,
/// which counts for being the later one.
fn push_started(out: &mut Writer, (number, start_number): (u32, u32), item: &[u8], start_ts: i64) {
    if start_ts == 0 {
        out.present(number, item);
        return;
    }
    out.message(number, |out| {
        out.int64(start_number, start_ts);
        out.0.extend_from_slice(item);
    });
}

fn symbol<'m>(symbols: &[&'m [u8]], at: u64) -> Result<&'m [u8], Fault> {
    let found = usize::try_from(at).ok().and_then(|at| symbols.get(at)).copied();
    found.ok_or_else(|| Fault::Series(format!("symbol {at} of {} is referred to", symbols.len())))
}

fn resolve<'m>(symbols: &[&'m [u8]], refs: &[u64]) -> Result<Vec<Pair<'m>>, Fault> {
    if !refs.len().is_multiple_of(2) {
        return Err(Fault::Series("labels_refs has an odd length".to_owned()));
    }
    refs.chunks_exact(2).map(|pair| Ok((symbol(symbols, pair[0])?, symbol(symbols, pair[1])?))).collect()
}

fn push_pairs(out: &mut Writer, pairs: &[Pair<'_>]) {
    for (name, value) in pairs {
        out.message(1, |label| {
            label.bytes(1, name);
            label.bytes(2, value);
        });
    }
}

/// Writes a series of 1.0 with its key and length, without the label of its replica.
fn rewrite_without_replica(series: &[u8], out: &mut Writer) -> Result<(), WireError> {
    let mut outcome = Ok(());
    out.message(1, |out| {
        outcome = (|| {
            let mut fields = Fields::new(series);
            loop {
                let before = fields.rest();
                let Some((number, content)) = fields.next()? else { return Ok(()) };
                let is_replica = match (number, content) {
                    (1, Content::Bytes(label)) => pair(label)?.0 == REPLICA,
                    _ => false,
                };
                if !is_replica {
                    out.0.extend_from_slice(&before[..before.len() - fields.rest().len()]);
                }
            }
        })();
    });
    outcome
}
