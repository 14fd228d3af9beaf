//! From a request's bytes to the store.

use std::sync::Arc;

use hashbrown::HashMap;
use model::{Labels, METRIC_NAME};
use parking_lot::{Mutex, RwLock};
use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};
use tsdb::{AppendError, Appender, Db, SeriesRef};

use super::request::{Item, Symbols, TimeSeries, Version, resolve_raw};
use super::{Encoding, ReceiveError, histogram};

/// A decompressed request may have this many bytes.
const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// A buffer that has grown beyond this is not kept for the next request.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

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
}

/// A series of a request with its key, if it has one, and its reference, if it is known.
struct Entry<'m> {
    series: TimeSeries<'m>,
    key: Option<u128>,
    known: Option<SeriesRef>,
}

impl Receiver {
    /// Writes into `db`. The seeds should be random and stay secret.
    #[must_use]
    pub fn new(db: Arc<Db>, seeds: [u64; 2]) -> Self {
        Self {
            db,
            known: RwLock::new(HashMap::with_hasher(KeyIsHash)),
            buffers: Mutex::default(),
            secrets: seeds.map(RapidSecrets::seed),
        }
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
        let symbols = Symbols::of(encoding.protocol, message)?;
        let entries = self.entries(encoding, message, &symbols)?;
        let mut batch = Batch {
            receiver: self,
            appender: self.db.appender(),
            written: Written::default(),
            refused: 0,
            first: None,
            created: Vec::new(),
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
            let key = self.key(&series, &mut texts)?;
            entries.push(Entry { series, key, known: None });
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
    fn key(&self, series: &TimeSeries<'_>, texts: &mut Vec<u8>) -> Result<Option<u128>, ReceiveError> {
        let Some(raw) = series.raw_labels()? else { return Ok(None) };
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

impl Batch<'_, '_> {
    fn add(&mut self, entry: &Entry<'_>) -> Result<(), ReceiveError> {
        let series = &entry.series;
        let mut reference = match entry.known {
            Some(reference) => reference,
            None => match self.resolve(series, entry.key)? {
                Some(reference) => reference,
                None => return Ok(()),
            },
        };
        series.visit(|item| {
            let mut outcome = self.append(reference, &item, series.version)?;
            if outcome == Err(AppendError::UnknownSeries) {
                // The series has left the head since it was looked up.
                let Some(fresh) = self.resolve(series, entry.key)? else { return Ok(()) };
                reference = fresh;
                outcome = self.append(reference, &item, series.version)?;
            }
            if let Err(error) = outcome {
                self.refuse(series, &error.to_string());
            }
            Ok(())
        })
    }

    /// Looks a series up by its labels, or creates it; none if its labels are not allowed.
    fn resolve(
        &mut self,
        series: &TimeSeries<'_>,
        key: Option<u128>,
    ) -> Result<Option<SeriesRef>, ReceiveError> {
        let mut pairs = series.labels()?;
        // Nearly all writers sort them.
        if !pairs.is_sorted() {
            pairs.sort_unstable();
        }
        if let Some(fault) = label_fault(&pairs) {
            self.refuse(series, fault);
            return Ok(None);
        }
        let labels = Labels::from_sorted(pairs);
        match self.appender.series(&labels) {
            Ok(reference) => {
                self.created.extend(key.map(|key| (key, reference)));
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
        version: Version<'_>,
    ) -> Result<Result<(), AppendError>, ReceiveError> {
        Ok(match item {
            Item::Sample(sample) => {
                let outcome = self.appender.append(series, sample.ts, sample.value);
                self.written.samples += u64::from(outcome.is_ok());
                outcome
            }
            Item::Histogram(message) => {
                let (ts, value) = histogram::read(message)?;
                let outcome = self.appender.append_histogram(series, ts, &value);
                self.written.histograms += u64::from(outcome.is_ok());
                outcome
            }
            Item::Exemplar(message) => {
                let exemplar = version.exemplar(message)?;
                let outcome = self.appender.append_exemplar(series, &exemplar);
                self.written.exemplars += u64::from(outcome.is_ok());
                match outcome {
                    // An exemplar is no sample: one that is too late is dropped, and the samples stand.
                    Err(AppendError::UnknownSeries) => outcome,
                    _ => Ok(()),
                }
            }
        })
    }

    fn refuse(&mut self, series: &TimeSeries<'_>, why: &str) {
        self.refused += 1;
        if self.first.is_none() {
            let labels = series.labels().map(Labels::from_pairs).unwrap_or_default();
            self.first = Some(format!("{labels}: {why}"));
        }
    }

    fn finish(self) -> Result<Written, ReceiveError> {
        if !self.created.is_empty() {
            self.receiver.known.write().extend(self.created);
        }
        self.appender.commit().map_err(|error| ReceiveError::Storage(error.to_string()))?;
        match self.first {
            None => Ok(self.written),
            Some(first) => Err(ReceiveError::Partial { refused: self.refused, first, written: self.written }),
        }
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
