//! From a request's bytes to the store.

use std::sync::Arc;

use hashbrown::HashMap;
use model::{Labels, METRIC_NAME, Timestamp};
use parking_lot::{Mutex, RwLock};
use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};
use tsdb::{AppendError, Appender, Db, Metadata, SeriesRef};

use super::request::{Fault, Item, Outline, Symbols, TimeSeries, Version, resolve_raw};
use super::{Encoding, Protocol, ReceiveError, histogram};
use crate::wire::WireError;

/// A decompressed request may have this many bytes.
const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// A buffer that has grown beyond this is not kept for the next request.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// Samples this far ahead of the clock are refused: they would make everything else too old.
const AHEAD_MS_MAX: i64 = 600_000;

/// So often a request is looked at again because others were quicker.
const ATTEMPTS_MAX: usize = 4;

/// What was stored of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Float samples.
    pub samples: u64,
    /// Histograms.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
}

impl std::ops::AddAssign for Written {
    fn add_assign(&mut self, other: Self) {
        self.samples += other.samples;
        self.histograms += other.histograms;
        self.exemplars += other.exemplars;
    }
}

impl Written {
    /// The headers that tell it to a sender.
    #[must_use]
    pub fn headers(self) -> [(&'static str, String); 3] {
        [
            ("x-prometheus-remote-write-samples-written", self.samples.to_string()),
            ("x-prometheus-remote-write-histograms-written", self.histograms.to_string()),
            ("x-prometheus-remote-write-exemplars-written", self.exemplars.to_string()),
        ]
    }

    /// The same as a receiver of 2.0 tells it; none if it does not. Only the first is always there.
    #[must_use]
    pub fn of_headers(headers: &reqwest::header::HeaderMap) -> Option<Self> {
        let count = |kind: &str| {
            let name = format!("x-prometheus-remote-write-{kind}-written");
            headers.get(name)?.to_str().ok()?.trim().parse().ok()
        };
        Some(Self {
            samples: count("samples")?,
            histograms: count("histograms").unwrap_or(0),
            exemplars: count("exemplars").unwrap_or(0),
        })
    }

    /// Samples of all kinds.
    #[must_use]
    pub fn all(self) -> u64 {
        self.samples + self.histograms + self.exemplars
    }
}

/// Takes remote-write requests into a store.
///
/// Known series are found by 128 bits of hash over their raw label bytes (1.0) or label texts (2.0).
/// A cache entry is 16 bytes of key, 8 of reference and one of control: 25 B at full load, 29 B on
/// average at hashbrown's load factor, so 29 MB at a million series. At that size the chance that any
/// two distinct series share a key is 1e12 / 2^129, about 1e-27. Hashing 300 bytes of labels twice
/// takes 40 ns. A look-up misses the processor's caches, 100 ns, so a request first computes all its
/// keys, then looks all of them up, where up to ten misses overlap, then appends.
pub struct Receiver {
    db: Arc<Db>,
    takes_late: bool,
    now: Option<fn() -> Timestamp>,
    accepted: Vec<Protocol>,
    known: RwLock<HashMap<u128, SeriesRef, KeyIsHash>>,
    /// Buffers for decompressed requests, which keep their length so that nothing is zeroed twice.
    buffers: Mutex<Vec<Vec<u8>>>,
    /// Two sets of secrets, so that nobody can craft two series that share a key.
    secrets: [RapidSecrets; 2],
}

/// A hasher for keys that are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct KeyIsHash;

#[derive(Default)]
struct LowBits(u64);

impl std::hash::BuildHasher for KeyIsHash {
    type Hasher = LowBits;

    fn build_hasher(&self) -> LowBits {
        LowBits::default()
    }
}

impl std::hash::Hasher for LowBits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half is as good a hash as the whole")]
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

/// The state of one request.
struct Batch<'r, 'd> {
    receiver: &'r Receiver,
    appender: Appender<'d>,
    written: Written,
    refused: u64,
    first: Option<String>,
    /// Series that were not known before.
    created: Vec<(u128, SeriesRef)>,
    /// Samples that are newer are refused.
    newest: Timestamp,
    /// What has been read of metrics, by its bytes: the series of a family say the same.
    metadata: HashMap<&'r [u8], Metadata>,
}

/// A series of a request with its key, if it has one, and its reference, if it is known.
struct Entry<'m> {
    series: TimeSeries<'m>,
    outline: Outline<'m>,
    key: Option<u128>,
    known: Option<SeriesRef>,
}

/// Why an item is not stored.
enum Refused {
    Sample(AppendError),
    Exemplar(AppendError),
    Future,
    Fault(String),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exemplar(AppendError::OutOfOrder) => out.write_str("out of order exemplar"),
            Self::Sample(error) | Self::Exemplar(error) => error.fmt(out),
            Self::Future => out.write_str("out of bounds: timestamp is too far in the future"),
            Self::Fault(what) => out.write_str(what),
        }
    }
}

impl Receiver {
    /// Writes into `db`. The seeds should be random and stay secret.
    #[must_use]
    pub fn new(db: Arc<Db>, seeds: [u64; 2]) -> Self {
        Self {
            db,
            takes_late: false,
            now: None,
            accepted: vec![Protocol::V1, Protocol::V2],
            known: RwLock::new(HashMap::with_hasher(KeyIsHash)),
            buffers: Mutex::default(),
            secrets: seeds.map(RapidSecrets::seed),
        }
    }

    /// For a store that takes samples out of order: one that comes out of order only because another request
    /// with a newer sample was quicker, between its check and its commit, is stored as a late one. (A store
    /// that takes none leaves it out, as Prometheus does.)
    #[must_use]
    pub fn taking_late(mut self) -> Self {
        self.takes_late = true;
        self
    }

    /// Refuses samples that are more than ten minutes ahead of this clock, as Prometheus does.
    #[must_use]
    pub fn by_clock(mut self, now: fn() -> Timestamp) -> Self {
        self.now = Some(now);
        self
    }

    /// Takes the messages of these versions from writers, and no others.
    #[must_use]
    pub fn accepting(mut self, protocols: Vec<Protocol>) -> Self {
        self.accepted = protocols;
        self
    }

    /// Whether a writer may send this.
    ///
    /// # Errors
    /// [`ReceiveError::Unsupported`]
    pub fn check(&self, encoding: Encoding) -> Result<(), ReceiveError> {
        if self.accepted.contains(&encoding.protocol) {
            return Ok(());
        }
        let accepted: Vec<&str> = self.accepted.iter().map(|protocol| protocol.message()).collect();
        let what =
            format!("{} is not accepted here, but {}", encoding.protocol.message(), accepted.join(", "));
        Err(ReceiveError::Unsupported(what))
    }

    /// Stores the samples of one request.
    ///
    /// # Errors
    /// See [`ReceiveError`]. After [`ReceiveError::Partial`] everything that could be stored is.
    pub fn receive(&self, encoding: Encoding, body: &[u8]) -> Result<Written, ReceiveError> {
        let mut buffer = self.buffers.lock().pop().unwrap_or_default();
        let outcome = match encoding.compression.decompress_into(body, MESSAGE_BYTES_MAX, &mut buffer) {
            Ok(length) => self.store(encoding, &buffer[..length]),
            Err(error) => Err(error),
        };
        if buffer.len() <= BUFFER_BYTES_KEPT {
            self.buffers.lock().push(buffer);
        }
        outcome
    }

    fn store(&self, encoding: Encoding, message: &[u8]) -> Result<Written, ReceiveError> {
        let (mut applied, mut outcome) = self.attempt(encoding, message)?;
        for _ in 0..ATTEMPTS_MAX {
            let taken = match &outcome {
                Ok(written) | Err(ReceiveError::Partial { written, .. }) => *written,
                Err(_) => break,
            };
            // What is there already does not count as applied, so a request that is repeated is looked at twice.
            if !self.takes_late || applied as u64 >= taken.samples + taken.histograms {
                break;
            }
            (applied, outcome) = self.attempt(encoding, message)?;
            if applied == 0 {
                break;
            }
        }
        outcome
    }

    /// Stores what it can; how many samples were not there before, and the answer.
    fn attempt(
        &self,
        encoding: Encoding,
        message: &[u8],
    ) -> Result<(usize, Result<Written, ReceiveError>), ReceiveError> {
        let symbols = Symbols::of(encoding.protocol, message)?;
        let entries = self.entries(encoding, message, &symbols)?;
        let mut batch = Batch {
            receiver: self,
            appender: self.db.appender(),
            written: Written::default(),
            refused: 0,
            first: None,
            created: Vec::new(),
            newest: self.now.map_or(Timestamp::MAX, |now| now().saturating_add(AHEAD_MS_MAX)),
            metadata: HashMap::new(),
        };
        for entry in &entries {
            batch.add(entry)?;
        }
        batch.finish()
    }

    /// The series of a request, each looked up.
    fn entries<'m>(
        &self,
        encoding: Encoding,
        message: &'m [u8],
        symbols: &'m Symbols<'m>,
    ) -> Result<Vec<Entry<'m>>, ReceiveError> {
        let mut entries = Vec::new();
        let mut texts = Vec::new();
        symbols.each_series(encoding.protocol, message, |series| {
            let outline = series.outline()?;
            let key = match self.key((&series, &outline), &mut texts) {
                // What is wrong with its labels is said when they are read.
                Err(Fault::Series(_)) => None,
                Err(Fault::Message(error)) => return Err(error),
                Ok(key) => key,
            };
            entries.push(Entry { series, outline, key, known: None });
            Ok(())
        })?;
        let known = self.known.read();
        for entry in &mut entries {
            entry.known = entry.key.and_then(|key| known.get(&key).copied());
        }
        Ok(entries)
    }

    /// Forgets all known series if there are many more than the store has.
    pub fn trim(&self) {
        let live = usize::try_from(self.db.stats().head_series).unwrap_or(usize::MAX);
        let mut known = self.known.write();
        if known.len() > live.saturating_mul(2).saturating_add(1024) {
            *known = HashMap::with_hasher(KeyIsHash);
        }
    }

    /// What identifies a series across requests; none if its labels do not stand together.
    fn key(
        &self,
        (series, outline): (&TimeSeries<'_>, &Outline<'_>),
        texts: &mut Vec<u8>,
    ) -> Result<Option<u128>, Fault> {
        let Some(raw) = outline.raw_labels else { return Ok(None) };
        let bytes = match series.version {
            Version::V1 => raw,
            Version::V2 { symbols } => {
                resolve_raw(raw, symbols, texts)?;
                texts
            }
        };
        let [low, high] = [0, 1].map(|at| u128::from(rapidhash_v3_seeded(bytes, &self.secrets[at])));
        Ok(Some(low | high << 64))
    }
}

impl<'r> Batch<'r, '_> {
    fn add(&mut self, entry: &Entry<'r>) -> Result<(), WireError> {
        let series = &entry.series;
        let mut reference = match entry.known {
            Some(reference) => reference,
            None => match self.resolve(entry)? {
                Some(reference) => reference,
                None => return Ok(()),
            },
        };
        series.visit(|item| {
            let mut outcome = self.append(reference, &item, entry)?;
            if let Err(Refused::Sample(AppendError::UnknownSeries)) = outcome {
                // The series has left the head since it was looked up.
                let Some(fresh) = self.resolve(entry)? else { return Ok(()) };
                reference = fresh;
                outcome = self.append(reference, &item, entry)?;
            }
            if let Err(refused) = outcome {
                self.refuse(series, &refused.to_string());
            }
            Ok(())
        })?;
        match entry.outline.metadata {
            Some(message) => self.describe(reference, message, series),
            None => Ok(()),
        }
    }

    /// Looks a series up by its labels, or creates it; none if its labels are not allowed, or nobody would see it.
    fn resolve(&mut self, entry: &Entry<'r>) -> Result<Option<SeriesRef>, WireError> {
        let series = &entry.series;
        let mut pairs = match series.labels() {
            Ok(pairs) => pairs,
            Err(Fault::Message(error)) => return Err(error),
            Err(Fault::Series(what)) => {
                self.refuse(series, &what);
                return Ok(None);
            }
        };
        // Nearly all writers sort them.
        if !pairs.is_sorted() {
            pairs.sort_unstable();
        }
        if let Some(fault) = label_fault(&pairs) {
            self.refuse(series, fault);
            return Ok(None);
        }
        if !entry.outline.has_items {
            return Ok(None);
        }
        let labels = Labels::from_sorted(pairs);
        match self.appender.series(&labels) {
            Ok(reference) => {
                self.created.extend(entry.key.map(|key| (key, reference)));
                Ok(Some(reference))
            }
            Err(error) => {
                self.refuse(series, &error.to_string());
                Ok(None)
            }
        }
    }

    /// Appends one item; the outer error ends the request, the inner refuses the item.
    fn append(
        &mut self,
        series: SeriesRef,
        item: &Item<'_>,
        entry: &Entry<'r>,
    ) -> Result<Result<(), Refused>, WireError> {
        let started = |own: Timestamp| if own == 0 { entry.outline.start_ts } else { own };
        Ok(match item {
            Item::Sample(sample) if sample.ts > self.newest => Err(Refused::Future),
            Item::Sample(sample) => {
                let times = (sample.ts, started(sample.start_ts));
                let outcome = self.appender.append_started(series, times, sample.value);
                self.written.samples += u64::from(outcome.is_ok());
                outcome.map_err(Refused::Sample)
            }
            Item::Histogram(message) => match histogram::read(message) {
                Err(Fault::Message(error)) => return Err(error),
                Err(Fault::Series(what)) => Err(Refused::Fault(what)),
                Ok(((ts, _), _)) if ts > self.newest => Err(Refused::Future),
                Ok(((ts, start_ts), value)) => {
                    let times = (ts, started(start_ts));
                    let outcome = self.appender.append_histogram_started(series, times, &value);
                    self.written.histograms += u64::from(outcome.is_ok());
                    outcome.map_err(Refused::Sample)
                }
            },
            Item::Exemplar(message) => match entry.series.version.exemplar(message) {
                Err(Fault::Message(error)) => return Err(error),
                Err(Fault::Series(what)) => Err(Refused::Fault(what)),
                Ok(exemplar) => {
                    let outcome = self.appender.append_exemplar(series, &exemplar);
                    self.written.exemplars += u64::from(outcome.is_ok());
                    match (outcome, entry.series.version) {
                        (Err(AppendError::UnknownSeries), _) => {
                            Err(Refused::Sample(AppendError::UnknownSeries))
                        }
                        (Err(error), Version::V2 { .. }) => Err(Refused::Exemplar(error)),
                        // 1.0 cannot say that the samples beside it were stored: it is dropped.
                        _ => Ok(()),
                    }
                }
            },
        })
    }

    /// Keeps what is said of a series' metric.
    fn describe(
        &mut self,
        reference: SeriesRef,
        message: &'r [u8],
        series: &TimeSeries<'r>,
    ) -> Result<(), WireError> {
        if !self.metadata.contains_key(message) {
            match series.version.metadata(message) {
                Ok(metadata) => {
                    self.metadata.insert(message, metadata);
                }
                Err(Fault::Message(error)) => return Err(error),
                Err(Fault::Series(what)) => {
                    self.refuse(series, &what);
                    return Ok(());
                }
            }
        }
        if let Some(metadata) = self.metadata.get(message).filter(|said| **said != Metadata::default()) {
            // The series may have left the head just now; its samples are stored all the same.
            let _ = self.appender.metadata(reference, metadata);
        }
        Ok(())
    }

    fn refuse(&mut self, series: &TimeSeries<'_>, why: &str) {
        self.refused += 1;
        if self.first.is_none() {
            let labels = series.labels().map(Labels::from_pairs).unwrap_or_default();
            self.first = Some(format!("{labels}: {why}"));
        }
    }

    fn finish(self) -> Result<(usize, Result<Written, ReceiveError>), ReceiveError> {
        if !self.created.is_empty() {
            self.receiver.known.write().extend(self.created);
        }
        let applied = self.appender.commit().map_err(|error| ReceiveError::Storage(error.to_string()))?;
        let outcome = match self.first {
            None => Ok(self.written),
            Some(first) => Err(ReceiveError::Partial { refused: self.refused, first, written: self.written }),
        };
        Ok((applied, outcome))
    }
}

/// What is wrong with a sorted label set, if anything is.
fn label_fault(pairs: &[(&str, &str)]) -> Option<&'static str> {
    if !pairs.iter().any(|(name, value)| *name == METRIC_NAME && !value.is_empty()) {
        return Some("there is no metric name");
    }
    if pairs.first().is_some_and(|(name, _)| name.is_empty()) {
        return Some("a label has no name");
    }
    pairs.windows(2).any(|pair| pair[0].0 == pair[1].0).then_some("a label name occurs twice")
}
