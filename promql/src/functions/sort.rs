//! `sort`, `sort_desc`, `sort_by_label`, `sort_by_label_desc`: orders of an instant vector.

use std::cmp::Ordering;

use crate::engine::QueryError;
use crate::eval::column::{Column, is_absent};
use crate::eval::order;
use crate::eval::source::Series;
use crate::limits::Account;

/// Sorts by value, NaN last either way. Histograms have no order and are left out.
pub(crate) fn by_value(
    mut series: Vec<Series>,
    descending: bool,
    account: &Account<'_>,
) -> Result<Vec<Series>, QueryError> {
    let value = |column: &Column| column.floats()[0];
    series.retain(|series| !is_absent(value(&series.column)));
    order::sort_by(&mut series, account, |a, b| {
        let (a, b) = (value(&a.column), value(&b.column));
        let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
        let order = if descending { order.reverse() } else { order };
        a.is_nan().cmp(&b.is_nan()).then(order)
    })?;
    Ok(series)
}

/// Leaves histograms out, in their order as it is.
pub(crate) fn floats_only(mut series: Vec<Series>, account: &Account<'_>) -> Result<Vec<Series>, QueryError> {
    for series in account.watched(&mut series) {
        series?.column.map_floats(|_, value| Some(value));
    }
    series.retain(|series| !series.column.is_empty());
    Ok(series)
}

/// Sorts by the values of `names` in natural order, ties by all labels.
pub(crate) fn by_labels(
    mut series: Vec<Series>,
    names: &[&str],
    descending: bool,
    account: &Account<'_>,
) -> Result<Vec<Series>, QueryError> {
    order::sort_by(&mut series, account, |a, b| {
        let keyed = names
            .iter()
            .map(|name| natural(a.labels.get(name).unwrap_or(""), b.labels.get(name).unwrap_or("")));
        let order = keyed.fold(Ordering::Equal, Ordering::then).then_with(|| a.labels.cmp(&b.labels));
        if descending { order.reverse() } else { order }
    })?;
    Ok(series)
}

/// Compares texts so that runs of digits compare as numbers.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (a_run, a_rest) = run(a);
        let (b_run, b_rest) = run(b);
        let digits = |run: &str| run.starts_with(|c: char| c.is_ascii_digit());
        let order = if digits(a_run) && digits(b_run) {
            let trimmed = |run| str::trim_start_matches(run, '0');
            let (x, y) = (trimmed(a_run), trimmed(b_run));
            x.len().cmp(&y.len()).then_with(|| x.cmp(y)).then_with(|| a_run.len().cmp(&b_run.len()))
        } else {
            a_run.cmp(b_run)
        };
        if order != Ordering::Equal || a_run.is_empty() {
            return order;
        }
        (a, b) = (a_rest, b_rest);
    }
}

/// The leading run of digits or of other characters, and the rest.
fn run(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    text.split_at(text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count() {
        assert_eq!(natural("a9", "a10"), Ordering::Less);
        assert_eq!(natural("a10b", "a10"), Ordering::Greater);
        assert_eq!(natural("", "a"), Ordering::Less);
        assert_eq!(natural("1.2", "1.10"), Ordering::Less);
    }
}
