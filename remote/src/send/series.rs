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

/// A series, and where it is named.
struct Known {
    number: u64,
    /// Where in [`Names::encoded`] or [`Names::numbers`] its name begins.
    start: usize,
    /// How long it is; 0 if relabelling drops the series.
    len: usize,
    /// The series that came after this one the last time.
    next: usize,
}

/// What a series is called in requests: in 1.0 by encoded fields, in 2.0 by names and values in turn.
#[derive(Clone, Copy)]
pub(super) struct Name<'n> {
    pub(super) encoded: &'n [u8],
    pub(super) numbers: &'n [u32],
    pub(super) about: Option<About>,
    pub(super) texts: &'n Texts,
}

/// The names of each series in the log.
///
/// A log has samples in the same order again and again, so a series is first looked for behind the one before it, and
/// names lie in the order in which they were learnt: what is needed next is nearly always on its way to the processor.
/// By a table alone, a sample would wait for memory twice, 100 ns each time. 32 bytes a series, its name, and 20 for the
/// table.
pub(super) struct Names {
    protocol: Protocol,
    external: Labels,
    relabel: Option<Relabel>,
    places: ByNumber<u64, usize>,
    known: Vec<Known>,
    /// The place of the series that was found last.
    last: usize,
    encoded: Vec<u8>,
    numbers: Vec<u32>,
    about: ByNumber<u64, About>,
    texts: Texts,
}

impl Names {
    pub(super) fn new(protocol: Protocol, external: Labels, relabel: Option<Relabel>) -> Self {
        Self {
            protocol,
            external,
            relabel,
            places: ByNumber::default(),
            known: Vec::new(),
            last: 0,
            encoded: Vec::new(),
            numbers: Vec::new(),
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
        *self = Self::new(self.protocol, self.external.clone(), self.relabel.clone());
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
        let (bytes, texts) = (self.encoded.len(), self.numbers.len());
        let (start, len) = match (self.protocol, outside) {
            (_, None) => (0, 0),
            (Protocol::V1, Some(labels)) => {
                let mut writer = Writer(std::mem::take(&mut self.encoded));
                push_labels(&mut writer, &labels);
                self.encoded = writer.0;
                (bytes, self.encoded.len() - bytes)
            }
            (Protocol::V2, Some(labels)) => {
                for text in labels.iter().flat_map(|(name, value)| [name, value]) {
                    let number = self.texts.number(text);
                    self.numbers.push(number);
                }
                (texts, self.numbers.len() - texts)
            }
        };
        let place = *self.places.entry(number).or_insert(self.known.len());
        let known = Known { number, start, len, next: place + 1 };
        match self.known.get_mut(place) {
            // It was named before; what it was called then stays unused until all is learnt anew.
            Some(before) => *before = known,
            None => self.known.push(known),
        }
    }

    /// Learns what is said of a series' metric; in 1.0 that is no part of a series.
    pub(super) fn describe(&mut self, number: u64, metadata: &Metadata) {
        if self.protocol == Protocol::V2 {
            let [help, unit] = [&metadata.help, &metadata.unit].map(|text| self.texts.number(text));
            self.about.insert(number, About { kind: metadata.kind, help, unit });
        }
    }

    /// What a series is called; none if it is not to be sent.
    pub(super) fn get(&mut self, number: u64) -> Option<Name<'_>> {
        let expected = self.known.get(self.last).map_or(0, |last| last.next);
        let place = match self.known.get(expected) {
            Some(known) if known.number == number => expected,
            _ => {
                let place = *self.places.get(&number)?;
                if let Some(last) = self.known.get_mut(self.last) {
                    last.next = place;
                }
                place
            }
        };
        self.last = place;
        let known = &self.known[place];
        let part = known.start..known.start + known.len;
        let (encoded, numbers) = match self.protocol {
            Protocol::V1 => (&self.encoded[part], &[][..]),
            Protocol::V2 => (&[][..], &self.numbers[part]),
        };
        (known.len > 0).then(|| Name {
            encoded,
            numbers,
            about: self.about.get(&number).copied(),
            texts: &self.texts,
        })
    }
}
