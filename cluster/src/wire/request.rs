//! What a querier asks.

use model::{MatchOp, Matcher, TimeRange, Timestamp};
use remote::slots::SlotSet;

use super::{REQUEST_BYTES_MAX, Reader, WireError, Writer, seal, unseal};

/// A question to a shard.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The slot map by which it was made.
    pub epoch: u64,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Series with their samples.
    Select {
        /// The slots whose series count.
        slots: SlotSet,
        /// The times that count.
        range: TimeRange,
        /// What they fulfil.
        matchers: Vec<Matcher>,
    },
    /// Names of labels.
    Names {
        /// The times that count.
        range: TimeRange,
        /// At most so many; 0 for all.
        limit: usize,
        /// What the series fulfil.
        matchers: Vec<Matcher>,
    },
    /// Values of a label.
    Values {
        /// The label.
        name: String,
        /// The times that count.
        range: TimeRange,
        /// At most so many; 0 for all.
        limit: usize,
        /// What the series fulfil.
        matchers: Vec<Matcher>,
    },
    /// The values of an expression over some slots.
    Evaluate {
        /// The slots whose series count.
        slots: SlotSet,
        /// Whether the sums behind the expression are wanted instead of its value.
        sums: bool,
        /// The first and the last step.
        range: TimeRange,
        /// Milliseconds from step to step; 0 for the first alone.
        step_ms: i64,
        /// The look-back of selectors.
        lookback_ms: i64,
        /// How long it may take.
        timeout_ms: u64,
        /// The expression.
        text: String,
    },
    /// Exemplars.
    Exemplars {
        /// The times that count.
        range: TimeRange,
        /// Their series fulfil all of one of these.
        selectors: Vec<Vec<Matcher>>,
    },
}

const OPS: [MatchOp; 4] = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];

impl Request {
    /// As a message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.varint(self.epoch);
        match &self.ask {
            Ask::Select { slots, range, matchers } => {
                out.byte(0);
                out.0.extend(slots.to_bytes());
                push_range(&mut out, *range);
                push_matchers(&mut out, matchers);
            }
            Ask::Names { range, limit, matchers } => {
                out.byte(1);
                push_range(&mut out, *range);
                out.varint(*limit as u64);
                push_matchers(&mut out, matchers);
            }
            Ask::Values { name, range, limit, matchers } => {
                out.byte(2);
                out.text(name);
                push_range(&mut out, *range);
                out.varint(*limit as u64);
                push_matchers(&mut out, matchers);
            }
            Ask::Evaluate { slots, sums, range, step_ms, lookback_ms, timeout_ms, text } => {
                out.byte(3);
                out.0.extend(slots.to_bytes());
                out.byte((*sums).into());
                push_range(&mut out, *range);
                out.varint(step_ms.cast_unsigned());
                out.varint(lookback_ms.cast_unsigned());
                out.varint(*timeout_ms);
                out.text(text);
            }
            Ask::Exemplars { range, selectors } => {
                out.byte(4);
                push_range(&mut out, *range);
                out.list(selectors, |out, matchers| push_matchers(out, matchers));
            }
        }
        seal(&out.0)
    }

    /// From a message.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(message: &[u8]) -> Result<Self, WireError> {
        let content = unseal(message, REQUEST_BYTES_MAX)?;
        let mut from = Reader(&content);
        let epoch = from.varint()?;
        let ask = match from.byte()? {
            0 => Ask::Select {
                slots: read_slots(&mut from)?,
                range: read_range(&mut from)?,
                matchers: read_matchers(&mut from)?,
            },
            1 => Ask::Names {
                range: read_range(&mut from)?,
                limit: read_limit(&mut from)?,
                matchers: read_matchers(&mut from)?,
            },
            2 => Ask::Values {
                name: from.text()?.to_owned(),
                range: read_range(&mut from)?,
                limit: read_limit(&mut from)?,
                matchers: read_matchers(&mut from)?,
            },
            3 => Ask::Evaluate {
                slots: read_slots(&mut from)?,
                sums: match from.byte()? {
                    0 => false,
                    1 => true,
                    _ => return Err(WireError("neither a value nor sums are asked for")),
                },
                range: read_range(&mut from)?,
                step_ms: from.varint()?.cast_signed(),
                lookback_ms: from.varint()?.cast_signed(),
                timeout_ms: from.varint()?,
                text: from.text()?.to_owned(),
            },
            4 => Ask::Exemplars { range: read_range(&mut from)?, selectors: from.list(read_matchers)? },
            _ => return Err(WireError("the kind of request is not known")),
        };
        from.end()?;
        Ok(Self { epoch, ask })
    }
}

fn push_range(out: &mut Writer, range: TimeRange) {
    out.zigzag(range.start);
    out.zigzag(range.end);
}

fn push_matchers(out: &mut Writer, matchers: &[Matcher]) {
    out.list(matchers, |out, matcher| {
        let op = OPS.iter().position(|op| *op == matcher.op).unwrap_or(0);
        out.byte(u8::try_from(op).unwrap_or(0));
        out.text(&matcher.name);
        out.text(&matcher.value);
    });
}

fn read_range(from: &mut Reader<'_>) -> Result<TimeRange, WireError> {
    let (start, end): (Timestamp, Timestamp) = (from.zigzag()?, from.zigzag()?);
    Ok(TimeRange::new(start, end))
}

fn read_limit(from: &mut Reader<'_>) -> Result<usize, WireError> {
    usize::try_from(from.varint()?).map_err(|_| WireError("a limit is too large"))
}

fn read_slots(from: &mut Reader<'_>) -> Result<SlotSet, WireError> {
    SlotSet::from_bytes(from.bytes(SlotSet::BYTES)?).ok_or(WireError("it is cut off"))
}

fn read_matchers(from: &mut Reader<'_>) -> Result<Vec<Matcher>, WireError> {
    from.list(|from| {
        let op = OPS.get(usize::from(from.byte()?)).ok_or(WireError("a matcher's operator is not known"))?;
        let (name, value) = (from.text()?, from.text()?);
        Matcher::new(name, *op, value).map_err(|_| WireError("a matcher's pattern is not valid"))
    })
}
