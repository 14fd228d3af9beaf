//! Somebody who follows the log, as a sender of samples does, and remembers what he heard.

use std::collections::{BTreeMap, BTreeSet};

use model::{HistogramValue, Labels};
use tsdb::{Db, Logged, Position, Tail};

use super::reading::fingerprint;
use super::simulation::Wrong;

/// Series, time, bits.
pub(super) type Sample = (String, i64, u64);
pub(super) type Samples = BTreeSet<Sample>;

#[derive(Default)]
pub(super) struct Follower {
    tail: Option<Tail>,
    names: BTreeMap<u64, Labels>,
    pub(super) heard: Samples,
    /// Everything before is done.
    pub(super) done: Position,
    /// He was told that a part of the log is gone.
    pub(super) skipped: bool,
}

impl Follower {
    /// Goes on where he was done.
    pub(super) fn begin(&mut self, db: &Db) -> Result<(), Wrong> {
        self.names.clear();
        self.tail = Some(db.tail(Some(self.done)).map_err(|error| format!("cannot follow: {error}"))?);
        Ok(())
    }

    pub(super) fn end(&mut self) {
        self.tail = None;
    }

    /// Reads so many items, and is done with them. Returns the samples.
    pub(super) fn read(&mut self, items: u64) -> Result<Vec<Sample>, Wrong> {
        let Some(tail) = &mut self.tail else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for _ in 0..items {
            let Some(logged) = tail.read().map_err(|error| format!("cannot read: {error}"))? else { break };
            let mut heard: Vec<(u64, i64, u64)> = Vec::new();
            match logged {
                Logged::Series(entries) => self.names.extend(entries),
                Logged::Samples(entries) => {
                    heard.extend(entries.iter().map(|(n, (ts, _), value)| (*n, *ts, value.to_bits())));
                }
                Logged::Histograms(entries) => heard.extend(entries.iter().map(|(n, (ts, _), value)| {
                    let float = match value {
                        HistogramValue::Int(int) => int.to_float(),
                        HistogramValue::Float(float) => float.clone(),
                    };
                    (*n, *ts, fingerprint(&float))
                })),
                Logged::Skipped { .. } => self.skipped = true,
                Logged::Exemplars(_) | Logged::Metadata(_) => {}
            }
            for (name, ts, bits) in heard {
                let series = self.names.get(&name).map(Labels::to_string);
                let series = series.ok_or_else(|| format!("series {name} has no labels"))?;
                self.heard.insert((series.clone(), ts, bits));
                all.push((series, ts, bits));
            }
            self.done = tail.position();
        }
        Ok(all)
    }
}
