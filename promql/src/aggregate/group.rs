//! Which series belong together.
//!
//! Arithmetic: of a series of twelve labels, `by` looks at those it lists and no others; their text is put
//! together in a reused buffer (about 60 bytes), hashed and looked up: some 100 ns. A new group costs its
//! text twice, as a key and as a label set.

use hashbrown::HashMap;
use model::{Labels, METRIC_NAME};

use crate::ast::Aggregate;
use crate::eval::source::Source;

/// The groups seen so far. A group is found by the text of its labels; its label set is built once.
pub(super) struct Groups {
    without: bool,
    /// Ascending and unique.
    grouping: Vec<String>,
    index: HashMap<Box<str>, usize>,
    labels: Vec<(Labels, bool)>,
    key: Key,
}

/// Labels as text, each name and value followed by a separator that no label holds.
#[derive(Default)]
struct Key {
    text: String,
    /// Where the names and values end.
    ends: Vec<usize>,
}

impl Key {
    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    fn push(&mut self, name: &str, value: &str) {
        for text in [name, value] {
            self.text.push_str(text);
            self.ends.push(self.text.len());
            self.text.push('\0');
        }
    }

    fn labels(&self) -> Labels {
        let text = |at: usize| {
            let start = at.checked_sub(1).map_or(0, |before| self.ends[before] + 1);
            &self.text[start..self.ends[at]]
        };
        Labels::from_sorted((0..self.ends.len()).step_by(2).map(|at| (text(at), text(at + 1))))
    }
}

impl Groups {
    pub(super) fn new(aggregate: &Aggregate) -> Self {
        let mut grouping = aggregate.grouping.clone();
        if aggregate.without {
            grouping.push(METRIC_NAME.to_owned());
        }
        grouping.sort_unstable();
        grouping.dedup();
        Self {
            without: aggregate.without,
            grouping,
            index: HashMap::new(),
            labels: Vec::new(),
            key: Key::default(),
        }
    }

    /// Puts the labels of a series together that tell its group.
    fn read_key(&mut self, source: &dyn Source, series: usize) {
        self.key.clear();
        let mut listed = self.grouping.iter().map(String::as_str).peekable();
        if self.without {
            source.visit_labels(series, &mut |name, value| {
                while listed.next_if(|listed| *listed < name).is_some() {}
                if listed.peek() != Some(&name) {
                    self.key.push(name, value);
                }
            });
        } else if listed.peek().is_some() {
            source.visit_some_labels(series, &self.grouping, &mut |name, value| self.key.push(name, value));
        }
    }

    /// The group of a series; new groups are numbered in order of appearance.
    pub(super) fn of(&mut self, source: &dyn Source, series: usize) -> usize {
        self.read_key(source, series);
        if let Some(at) = self.index.get(self.key.text.as_str()).copied() {
            // One member that has lost its name is enough.
            let (labels, drop_name) = &mut self.labels[at];
            *drop_name = *drop_name || source.drop_name(series) && labels.metric_name().is_some();
            return at;
        }
        let labels = self.key.labels();
        // A name that is kept only to be removed at the end is still to be removed.
        let drop_name = source.drop_name(series) && labels.metric_name().is_some();
        self.labels.push((labels, drop_name));
        self.index.insert(self.key.text.as_str().into(), self.labels.len() - 1);
        self.labels.len() - 1
    }

    /// The labels of all groups, and whether their names are to be removed at the end.
    pub(super) fn into_labels(self) -> Vec<(Labels, bool)> {
        self.labels
    }
}
