//! The bytes that name a series of a protobuf page: not in the text form, which would have to be rendered, but with the
//! label messages as they are.
//!
//! ```text
//! 0x00 | extra label: 0 none, 1 le, 2 quantile | its number, 8 B LE | length of the name, 4 B LE | name | labels
//! ```
//! Labels are the fields 1 of a message; fields with other numbers do not count. No text form begins with 0x00.

use std::borrow::Cow;

use super::super::wire::{Malformed, Reader};
use super::super::{MetricType, lexis::LabelPair};

const MARK: u8 = 0;
const HEAD_BYTES: usize = 14;

/// A label that stands elsewhere in the message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Extra {
    None,
    Le(f64),
    Quantile(f64),
}

/// Appends the name of a series, made of its family's and a suffix.
pub(super) fn push(out: &mut Vec<u8>, (family, suffix): (&str, &str), extra: Extra, labels: &[u8]) {
    let (kind, number) = match extra {
        Extra::None => (0, 0.0),
        Extra::Le(bound) => (1, bound),
        Extra::Quantile(quantile) => (2, quantile),
    };
    let length = u32::try_from(family.len() + suffix.len()).unwrap_or(u32::MAX);
    let mut head = [MARK; HEAD_BYTES];
    head[1] = kind;
    head[2..10].copy_from_slice(&number.to_le_bytes());
    head[10..].copy_from_slice(&length.to_le_bytes());
    for part in [&head, family.as_bytes(), suffix.as_bytes(), labels] {
        out.extend_from_slice(part);
    }
}

/// Whether `series` is of this form.
pub(in super::super) fn is_raw(series: &[u8]) -> bool {
    series.first() == Some(&MARK)
}

/// Takes such bytes apart.
pub(in super::super) fn labels<'a>(
    series: &'a [u8],
    metric_type: MetricType,
    out: &mut Vec<LabelPair<'a>>,
) -> Result<(), Malformed> {
    let (head, rest) = series.split_at_checked(HEAD_BYTES).ok_or(Malformed)?;
    let number = f64::from_le_bytes(head[2..10].try_into().map_err(|_| Malformed)?);
    let length = u32::from_le_bytes(head[10..].try_into().map_err(|_| Malformed)?);
    let (name, rest) = rest.split_at_checked(length as usize).ok_or(Malformed)?;
    if !name.is_empty() {
        let name = std::str::from_utf8(name).map_err(|_| Malformed)?;
        out.push((Cow::Borrowed(model::METRIC_NAME), Cow::Borrowed(name)));
    }
    let mut reader = Reader(rest);
    while let Some((field_number, field)) = reader.field()? {
        if field_number != 1 {
            continue;
        }
        let (mut name, mut value) = ("", "");
        let mut pair = Reader(field.bytes()?);
        while let Some((field_number, field)) = pair.field()? {
            match field_number {
                1 => name = field.text()?,
                2 => value = field.text()?,
                _ => {}
            }
        }
        let value = super::super::lexis::canonical(name, Cow::Borrowed(value), metric_type);
        out.push((Cow::Borrowed(name), value));
    }
    let name = match head[1] {
        0 => return Ok(()),
        1 => "le",
        _ => "quantile",
    };
    out.push((Cow::Borrowed(name), Cow::Owned(model::float::format_open_metrics(number))));
    Ok(())
}
