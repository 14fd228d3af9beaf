//! What series are called on the other side.

use std::collections::HashMap;
use std::sync::Arc;

use model::Labels;

use super::Relabel;
use crate::message::push_labels;
use crate::wire::Writer;

/// The encoded labels of each series in the log; none for those that relabelling drops.
pub(super) struct Names {
    external: Labels,
    relabel: Option<Relabel>,
    known: HashMap<u64, Option<Arc<[u8]>>>,
}

impl Names {
    pub(super) fn new(external: Labels, relabel: Option<Relabel>) -> Self {
        Self { external, relabel, known: HashMap::new() }
    }

    /// Series that are known, sent or not.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Forgets all; they are to be learnt anew.
    pub(super) fn clear(&mut self) {
        self.known = HashMap::new();
    }

    /// Learns what a number means.
    pub(super) fn learn(&mut self, number: u64, labels: &Labels) {
        let mut all = labels.to_builder();
        for (name, value) in &self.external {
            if labels.get(name).is_none() {
                all.set(name, value);
            }
        }
        let all = all.build();
        let outside = match &self.relabel {
            Some(relabel) => relabel(&all).filter(|labels| !labels.is_empty()),
            None => Some(all),
        };
        let encoded = outside.map(|labels| {
            let mut writer = Writer::default();
            push_labels(&mut writer, &labels);
            Arc::from(writer.0)
        });
        self.known.insert(number, encoded);
    }

    /// The labels of a series, encoded as fields of a `TimeSeries`; none if it is not to be sent.
    pub(super) fn get(&self, number: u64) -> Option<&Arc<[u8]>> {
        self.known.get(&number)?.as_ref()
    }
}
