//! What series are called on the other side.
//!
//! For 1.0 that is their labels as bytes of a request, about 300 a series. For 2.0 it is a list of numbers of texts, 4
//! bytes each and two a label, and each text once.

use std::sync::Arc;

use hashbrown::HashMap;
use model::Labels;
use tsdb::{Metadata, MetricKind};

use super::Relabel;
use crate::message::push_labels;
use crate::numbers::ByNumber;
use crate::receive::Protocol;
use crate::wire::Writer;

/// All texts of labels and metadata, each with a number.
#[derive(Default)]
pub(super) struct Texts {
    numbers: HashMap<Arc<str>, u32>,
    all: Vec<Arc<str>>,
}

impl Texts {
    /// The number of a text; the same for the same.
    pub(super) fn number(&mut self, text: &str) -> u32 {
        if let Some(known) = self.numbers.get(text) {
            return *known;
        }
        // Memory ends before numbers do.
        let number = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        let text: Arc<str> = text.into();
        self.all.push(Arc::clone(&text));
        self.numbers.insert(text, number);
        number
    }

    /// The text of a number.
    pub(super) fn text(&self, number: u32) -> &str {
        usize::try_from(number).ok().and_then(|at| self.all.get(at)).map_or("", |text| text)
    }
}

/// What is said of a metric, its texts by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct About {
    pub(super) kind: MetricKind,
    pub(super) help: u32,
    pub(super) unit: u32,
}

/// A series as requests name it: in 1.0 by encoded fields, in 2.0 by names and values in turn.
#[derive(Default)]
struct Known {
    encoded: Box<[u8]>,
    texts: Box<[u32]>,
}

/// The same, for one sample.
#[derive(Clone, Copy)]
pub(super) struct Name<'n> {
    pub(super) encoded: &'n [u8],
    pub(super) numbers: &'n [u32],
    pub(super) about: Option<About>,
    pub(super) texts: &'n Texts,
}

/// The names of each series in the log; none for those that relabelling drops.
pub(super) struct Names {
    protocol: Protocol,
    external: Labels,
    relabel: Option<Relabel>,
    known: ByNumber<u64, Option<Known>>,
    about: ByNumber<u64, About>,
    texts: Texts,
}

impl Names {
    pub(super) fn new(protocol: Protocol, external: Labels, relabel: Option<Relabel>) -> Self {
        Self {
            protocol,
            external,
            relabel,
            known: ByNumber::default(),
            about: ByNumber::default(),
            texts: Texts::default(),
        }
    }

    /// Series that are known, sent or not.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Forgets all; they are to be learnt anew.
    pub(super) fn clear(&mut self) {
        self.known = ByNumber::default();
        self.about = ByNumber::default();
        self.texts = Texts::default();
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
        let known = outside.map(|labels| match self.protocol {
            Protocol::V1 => {
                let mut writer = Writer::default();
                push_labels(&mut writer, &labels);
                Known { encoded: writer.0.into(), ..Known::default() }
            }
            Protocol::V2 => {
                let texts = labels.iter().flat_map(|(name, value)| [name, value]);
                Known { texts: texts.map(|text| self.texts.number(text)).collect(), ..Known::default() }
            }
        });
        self.known.insert(number, known);
    }

    /// Learns what is said of a series' metric; in 1.0 that is no part of a series.
    pub(super) fn describe(&mut self, number: u64, metadata: &Metadata) {
        if self.protocol == Protocol::V2 {
            let [help, unit] = [&metadata.help, &metadata.unit].map(|text| self.texts.number(text));
            self.about.insert(number, About { kind: metadata.kind, help, unit });
        }
    }

    /// What a series is called; none if it is not to be sent.
    pub(super) fn get(&self, number: u64) -> Option<Name<'_>> {
        let known = self.known.get(&number)?.as_ref()?;
        Some(Name {
            encoded: &known.encoded,
            numbers: &known.texts,
            about: self.about.get(&number).copied(),
            texts: &self.texts,
        })
    }
}
