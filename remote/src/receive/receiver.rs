//! From a request's bytes to the store.

use std::sync::Arc;

use hashbrown::HashMap;
use model::{Labels, METRIC_NAME};
use parking_lot::Mutex;
use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};
use tsdb::{AppendError, Appender, Db, SeriesRef};

use super::request::{Item, TimeSeries, Version, resolve_raw, visit_v1, visit_v2};
use super::{Encoding, Protocol, ReceiveError, histogram};

/// Locks of the cache; a request holds one at a time.
const SHARDS: usize = 64;
/// A decompressed request may have this many bytes.
const MESSAGE_BYTES_MAX: usize = 128 << 20;

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

/// Takes remote-write requests into a store.
///
/// Known series are found by 128 bits of hash over their raw label bytes (1.0) or label texts (2.0).
/// A cache entry is 16 bytes of key, 8 of reference and one of control: 25 B at full load, 29 B on
/// average at hashbrown's load factor, so 29 MB at a million series. At that size the chance that any
/// two distinct series share a key is 1e12 / 2^129, about 1e-27. Hashing 190 bytes of labels twice
/// takes 20 ns.
pub struct Receiver {
    db: Arc<Db>,
    cache: Vec<Mutex<HashMap<u128, SeriesRef, KeyIsHash>>>,
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
    texts: Vec<u8>,
}

impl Receiver {
    /// Writes into `db`. The seeds should be random and stay secret.
    #[must_use]
    pub fn new(db: Arc<Db>, seeds: [u64; 2]) -> Self {
        let cache = (0..SHARDS).map(|_| Mutex::new(HashMap::with_hasher(KeyIsHash))).collect();
        Self { db, cache, secrets: seeds.map(RapidSecrets::seed) }
    }

    /// Stores the samples of one request.
    ///
    /// # Errors
    /// See [`ReceiveError`]. After [`ReceiveError::Partial`] everything that could be stored is.
    pub fn receive(&self, encoding: Encoding, body: &[u8]) -> Result<Written, ReceiveError> {
        let message = encoding.compression.decompress(body, MESSAGE_BYTES_MAX)?;
        let mut batch = Batch {
            receiver: self,
            appender: self.db.appender(),
            written: Written::default(),
            refused: 0,
            first: None,
            texts: Vec::new(),
        };
        match encoding.protocol {
            Protocol::V1 => visit_v1(&message, |series| batch.add(series))?,
            Protocol::V2 => visit_v2(&message, |series| batch.add(series))?,
        }
        batch.finish()
    }

    /// Forgets all known series if there are many more than the store has.
    pub fn trim(&self) {
        let known: usize = self.cache.iter().map(|shard| shard.lock().len()).sum();
        let live = usize::try_from(self.db.stats().head_series).unwrap_or(usize::MAX);
        if known > live.saturating_mul(2).saturating_add(1024) {
            for shard in &self.cache {
                *shard.lock() = HashMap::with_hasher(KeyIsHash);
            }
        }
    }

    fn key(&self, raw: &[u8]) -> u128 {
        let [low, high] = [0, 1].map(|at| u128::from(rapidhash_v3_seeded(raw, &self.secrets[at])));
        low | high << 64
    }

    #[expect(clippy::cast_possible_truncation, reason = "reduced modulo the number of shards")]
    fn shard(&self, key: u128) -> &Mutex<HashMap<u128, SeriesRef, KeyIsHash>> {
        &self.cache[(key >> 64) as usize % SHARDS]
    }
}

impl Batch<'_, '_> {
    fn add(&mut self, series: TimeSeries<'_>) -> Result<(), ReceiveError> {
        let key = self.key(&series)?;
        let known = key.and_then(|key| self.receiver.shard(key).lock().get(&key).copied());
        let mut reference = match known {
            Some(reference) => reference,
            None => match self.resolve(&series, key)? {
                Some(reference) => reference,
                None => return Ok(()),
            },
        };
        series.visit(|item| {
            let mut outcome = self.append(reference, &item, series.version)?;
            if outcome == Err(AppendError::UnknownSeries) {
                // The series has left the head since it was cached.
                let Some(fresh) = self.resolve(&series, key)? else { return Ok(()) };
                reference = fresh;
                outcome = self.append(reference, &item, series.version)?;
            }
            if let Err(error) = outcome {
                self.refuse(&series, &error.to_string());
            }
            Ok(())
        })
    }

    fn key(&mut self, series: &TimeSeries<'_>) -> Result<Option<u128>, ReceiveError> {
        let Some(raw) = series.raw_labels()? else { return Ok(None) };
        Ok(Some(match series.version {
            Version::V1 => self.receiver.key(raw),
            Version::V2 { symbols } => {
                let mut texts = std::mem::take(&mut self.texts);
                resolve_raw(raw, symbols, &mut texts)?;
                let key = self.receiver.key(&texts);
                self.texts = texts;
                key
            }
        }))
    }

    /// Looks a series up by its labels, or creates it; none if its labels are not allowed.
    fn resolve(
        &mut self,
        series: &TimeSeries<'_>,
        key: Option<u128>,
    ) -> Result<Option<SeriesRef>, ReceiveError> {
        let pairs = series.labels()?;
        if let Some(fault) = label_fault(&pairs) {
            self.refuse(series, fault);
            return Ok(None);
        }
        let labels = Labels::from_pairs(pairs);
        match self.appender.series(&labels) {
            Ok(reference) => {
                if let Some(key) = key {
                    self.receiver.shard(key).lock().insert(key, reference);
                }
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
        self.appender.commit().map_err(|error| ReceiveError::Storage(error.to_string()))?;
        match self.first {
            None => Ok(self.written),
            Some(first) => Err(ReceiveError::Partial { refused: self.refused, first, written: self.written }),
        }
    }
}

/// What is wrong with a label set, if anything is.
fn label_fault(pairs: &[(&str, &str)]) -> Option<&'static str> {
    if !pairs.iter().any(|(name, value)| *name == METRIC_NAME && !value.is_empty()) {
        return Some("there is no metric name");
    }
    if pairs.iter().any(|(name, _)| name.is_empty()) {
        return Some("a label has no name");
    }
    let mut names: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1]).then_some("a label name occurs twice")
}
