//! What a query reads: its selectors, how far back they look, and when the samples were taken.

use std::collections::HashMap;

use model::{Matcher, Querier, Samples, Selection, StorageError, TimeRange, Timestamp, is_stale_nan};
use promql::ast::{Duration, Selector};
use promql::{Expr, ExprKind};

/// A selector of a query with the time before the query's own that it reads.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) matchers: Vec<Matcher>,
    /// The range in brackets, those of subqueries around it included; 0 for none.
    pub(crate) range_ms: i64,
    offset_ms: i64,
}

/// All selectors of a query whose time moves with it.
pub(crate) fn readings(expr: &Expr) -> Vec<Reading> {
    let mut out = Vec::new();
    expr.with_stack(|| visit(expr, (0, 0), &mut out));
    out
}

fn ms(duration: &Duration) -> i64 {
    match duration {
        #[expect(clippy::cast_possible_truncation, reason = "`as` saturates, and durations are bounded")]
        Duration::Number(number) => (number.value * 1000.0) as i64,
        Duration::Negative(inner) => -ms(inner),
        Duration::Paren(inner) => ms(inner),
        // Computed ones are rare, and what they add to a time that is only reported is left out.
        _ => 0,
    }
}

fn visit(expr: &Expr, (range, offset): (i64, i64), out: &mut Vec<Reading>) {
    let mut add = |selector: &Selector, own: i64| {
        if selector.at.is_none() {
            let offset_ms = offset + selector.offset.as_ref().map_or(0, ms);
            out.push(Reading { matchers: selector.matchers.clone(), range_ms: range + own, offset_ms });
        }
    };
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => {}
        ExprKind::Vector(selector) => add(selector, 0),
        ExprKind::Matrix(matrix) => add(&matrix.selector, ms(&matrix.range)),
        ExprKind::Subquery(subquery) if subquery.at.is_some() => {}
        ExprKind::Subquery(subquery) => {
            let offset = offset + subquery.offset.as_ref().map_or(0, ms);
            visit(&subquery.expr, (range + ms(&subquery.range), offset), out);
        }
        ExprKind::Paren(inner) => visit(inner, (range, offset), out),
        ExprKind::Unary(unary) => visit(&unary.expr, (range, offset), out),
        ExprKind::Binary(binary) => {
            visit(&binary.left, (range, offset), out);
            visit(&binary.right, (range, offset), out);
        }
        ExprKind::Aggregate(aggregate) => {
            aggregate.param.iter().for_each(|param| visit(param, (range, offset), out));
            visit(&aggregate.expr, (range, offset), out);
        }
        ExprKind::Call(call) => call.args.iter().for_each(|arg| visit(arg, (range, offset), out)),
    }
}

/// The time that a value covers: the longest range of a query, none if it has no range.
pub(crate) fn window_ms(readings: &[Reading]) -> Option<i64> {
    readings.iter().map(|reading| reading.range_ms).max().filter(|ms| *ms > 0)
}

/// When values were measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moments {
    by_labels: HashMap<String, Timestamp>,
    oldest: Option<Timestamp>,
}

impl Moments {
    /// When the value with these values of the labels was measured: its series' newest samples, and of these the oldest,
    /// because a value is no newer than its oldest part. Where no series has such labels, those of all count.
    pub(crate) fn of<'a>(&self, values: impl IntoIterator<Item = &'a str>) -> Option<Timestamp> {
        let mut key = String::new();
        values.into_iter().for_each(|value| push_key(&mut key, value));
        self.by_labels.get(&key).copied().or(self.oldest)
    }
}

/// Values are kept apart by a byte that no label value needs.
fn push_key(key: &mut String, value: &str) {
    key.push_str(value);
    key.push('\u{1f}');
}

/// Looks up when the samples were taken that a query evaluated at `now` reads, by the values of `labels`, which ascend.
pub(crate) fn moments(
    querier: &dyn Querier,
    readings: &[Reading],
    labels: &[String],
    now: Timestamp,
    lookback_ms: i64,
) -> Result<Moments, StorageError> {
    let mut moments = Moments::default();
    let mut samples = Samples::default();
    let mut key = String::new();
    for reading in readings {
        let back = if reading.range_ms > 0 { reading.range_ms } else { lookback_ms };
        let end = now.saturating_sub(reading.offset_ms);
        let range = TimeRange::new(end.saturating_sub(back), end);
        let series = querier.select_unordered(&Selection::new(&reading.matchers, range))?;
        for index in 0..series.len() {
            let at_hand = series.newest_float(index).filter(|(ts, _)| range.contains(*ts));
            let newest = match at_hand {
                Some((ts, value)) => Some((ts, is_stale_nan(value))),
                None => {
                    series.samples(index, range, &mut samples)?;
                    samples.ts.last().map(|ts| (*ts, samples.values.last().is_some_and(|v| is_stale_nan(*v))))
                }
            };
            // What has ended takes no part in a value, unless a range still holds samples of it.
            let Some((ts, _)) = newest.filter(|(_, ended)| !ended || reading.range_ms > 0) else { continue };
            moments.oldest = Some(moments.oldest.map_or(ts, |oldest| oldest.min(ts)));
            key.clear();
            let mut missing = labels.iter().peekable();
            series.visit_some_labels(index, labels, &mut |name, value| {
                while missing.next_if(|label| label.as_str() != name).is_some() {
                    push_key(&mut key, "");
                }
                missing.next();
                push_key(&mut key, value);
            });
            missing.for_each(|_| push_key(&mut key, ""));
            match moments.by_labels.get_mut(&key) {
                Some(slot) => *slot = (*slot).min(ts),
                None => {
                    moments.by_labels.insert(key.clone(), ts);
                }
            }
        }
    }
    Ok(moments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_offsets_add_up() {
        let of = |text: &str| readings(&promql::parse(text, &promql::ParseOptions::default()).unwrap());
        let all = of(
            "sum(rate(a[2m])) / max_over_time(b[5m:1m] offset 1m) + c @ 5 + topk(scalar(d), e offset -1s)",
        );
        let found: Vec<_> =
            all.iter().map(|r| (r.matchers[0].value.to_string(), r.range_ms, r.offset_ms)).collect();
        let expected = [("a", 120_000, 0), ("b", 300_000, 60_000), ("d", 0, 0), ("e", 0, -1_000)];
        assert_eq!(found, expected.map(|(name, range, offset)| (name.to_owned(), range, offset)));
        assert_eq!(window_ms(&all), Some(300_000));
        assert_eq!(window_ms(&of("a + b")), None);
    }
}
