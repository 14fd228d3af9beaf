//! What a shard answers.

use std::collections::HashMap;

use model::{Exemplar, Labels, Samples};

use super::{ANSWER_BYTES_MAX, Reader, WireError, Writer, column, seal, unseal};

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Series.
    Table(Table),
    /// Names or values of labels.
    Texts(Vec<String>),
    /// Exemplars of series.
    Exemplars(Vec<(Labels, Vec<Exemplar>)>),
    /// The query has no answer, here as anywhere.
    QueryError(String),
    /// The shard's store failed; another owner may have the answer.
    StoreError(String),
}

/// What the samples of a row are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Values.
    #[default]
    Values,
    /// What rounding took from the values of the row before.
    Compensation,
    /// How many they are of.
    Counts,
}

/// A series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// What its samples are.
    pub part: Part,
    /// Which series.
    pub labels: Labels,
    /// Its samples.
    pub samples: Samples,
}

/// Series, with what is to be said of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// The series.
    pub rows: Vec<Row>,
    /// Warnings of the evaluation.
    pub warnings: Vec<String>,
    /// Remarks of the evaluation.
    pub infos: Vec<String>,
}

const PARTS: [Part; 3] = [Part::Values, Part::Compensation, Part::Counts];

/// A table that is written series by series, so that none is held.
#[derive(Default)]
pub(crate) struct TableWriter {
    strings: Vec<String>,
    numbers: HashMap<String, u64>,
    rows: Writer,
    count: u64,
}

impl TableWriter {
    /// Appends a row; false if the answer is too long then.
    pub(crate) fn push(&mut self, part: Part, labels: &Labels, samples: &Samples) -> bool {
        let part = PARTS.iter().position(|known| *known == part).unwrap_or(0);
        self.rows.byte(u8::try_from(part).unwrap_or(0));
        self.rows.varint(labels.len() as u64);
        for text in labels.iter().flat_map(|(name, value)| [name, value]) {
            let number = match self.numbers.get(text) {
                Some(number) => *number,
                None => {
                    let number = self.strings.len() as u64;
                    self.strings.push(text.to_owned());
                    self.numbers.insert(text.to_owned(), number);
                    number
                }
            };
            self.rows.varint(number);
        }
        column::push_samples(&mut self.rows, samples);
        self.count += 1;
        self.rows.0.len() <= ANSWER_BYTES_MAX / 2
    }

    /// The message.
    pub(crate) fn finish(self, warnings: &[String], infos: &[String]) -> Vec<u8> {
        let mut out = Writer::default();
        out.byte(0);
        out.list(&self.strings, |out, text| out.text(text));
        out.varint(self.count);
        out.0.extend_from_slice(&self.rows.0);
        out.list(warnings, |out, text| out.text(text));
        out.list(infos, |out, text| out.text(text));
        seal(&out.0)
    }
}

impl Answer {
    /// As a message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Self::Table(table) => {
                let mut writer = TableWriter::default();
                for row in &table.rows {
                    writer.push(row.part, &row.labels, &row.samples);
                }
                return writer.finish(&table.warnings, &table.infos);
            }
            Self::Texts(texts) => {
                out.byte(1);
                out.list(texts, |out, text| out.text(text));
            }
            Self::Exemplars(all) => {
                out.byte(3);
                out.list(all, |out, (series, exemplars)| {
                    push_labels(out, series);
                    out.list(exemplars, push_exemplar);
                });
            }
            Self::QueryError(text) | Self::StoreError(text) => {
                out.byte(2);
                out.byte(matches!(self, Self::StoreError(_)).into());
                out.text(text);
            }
        }
        seal(&out.0)
    }

    /// From a message.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(message: &[u8]) -> Result<Self, WireError> {
        let content = unseal(message, ANSWER_BYTES_MAX)?;
        let mut from = Reader(&content);
        let answer = match from.byte()? {
            0 => Self::Table(read_table(&mut from)?),
            1 => Self::Texts(from.list(|from| Ok(from.text()?.to_owned()))?),
            2 => match (from.byte()?, from.text()?.to_owned()) {
                (0, text) => Self::QueryError(text),
                (1, text) => Self::StoreError(text),
                _ => return Err(WireError("the kind of error is not known")),
            },
            3 => {
                let series = |from: &mut Reader<'_>| Ok((read_labels(from)?, from.list(read_exemplar)?));
                Self::Exemplars(from.list(series)?)
            }
            _ => return Err(WireError("the kind of answer is not known")),
        };
        from.end()?;
        Ok(answer)
    }
}

fn read_table(from: &mut Reader<'_>) -> Result<Table, WireError> {
    let strings = from.list(Reader::text)?;
    let rows = from.list(|from| {
        let part =
            *PARTS.get(usize::from(from.byte()?)).ok_or(WireError("the part of a row is not known"))?;
        let string = |number: u64| {
            let found = usize::try_from(number).ok().and_then(|at| strings.get(at)).copied();
            found.ok_or(WireError("a string is missing"))
        };
        let pairs = from.list(|from| Ok((string(from.varint()?)?, string(from.varint()?)?)))?;
        Ok(Row { part, labels: in_order(pairs)?, samples: column::read_samples(from)? })
    })?;
    let mut texts = || from.list(|from| Ok(from.text()?.to_owned()));
    Ok(Table { rows, warnings: texts()?, infos: texts()? })
}

fn in_order(pairs: Vec<(&str, &str)>) -> Result<Labels, WireError> {
    let ascends = pairs.is_sorted_by(|a, b| a.0 < b.0);
    ascends.then(|| Labels::from_sorted(pairs)).ok_or(WireError("labels do not ascend"))
}

fn push_labels(out: &mut Writer, labels: &Labels) {
    out.varint(labels.len() as u64);
    for (name, value) in labels {
        out.text(name);
        out.text(value);
    }
}

fn read_labels(from: &mut Reader<'_>) -> Result<Labels, WireError> {
    in_order(from.list(|from| Ok((from.text()?, from.text()?)))?)
}

fn push_exemplar(out: &mut Writer, exemplar: &Exemplar) {
    out.zigzag(exemplar.ts);
    out.double(exemplar.value);
    push_labels(out, &exemplar.labels);
}

fn read_exemplar(from: &mut Reader<'_>) -> Result<Exemplar, WireError> {
    let (ts, value) = (from.zigzag()?, from.double()?);
    Ok(Exemplar { labels: read_labels(from)?, ts, value })
}
