//! Sorting that can be given up.
//!
//! A hundred thousand label sets take 17 comparisons each, some 200 ms in all, in which a query that nobody waits for
//! any more would go on. So they are sorted in runs that take less than a millisecond, which are then merged; what is
//! moved about are numbers, 8 bytes an item, and the items follow once. What is in order already is left alone.

use std::cmp::Ordering;

use crate::engine::QueryError;
use crate::limits::Account;

/// Items that are sorted, or merged, between two looks at whether to go on.
const RUN: usize = 512;

/// Sorts `items`; equal ones stay in their order.
pub(crate) fn sort_by<T>(
    items: &mut Vec<T>,
    account: &Account<'_>,
    compare: impl Fn(&T, &T) -> Ordering,
) -> Result<(), QueryError> {
    if items.len() <= RUN {
        account.check()?;
        items.sort_by(compare);
        return Ok(());
    }
    if is_sorted(items, account, &compare)? {
        return Ok(());
    }
    let compare = |a: &usize, b: &usize| compare(&items[*a], &items[*b]);
    let mut order: Vec<usize> = (0..items.len()).collect();
    for run in account.watched(order.chunks_mut(RUN)) {
        run?.sort_by(compare);
    }
    let mut merged = Vec::with_capacity(order.len());
    let mut width = RUN;
    while width < order.len() {
        merged.clear();
        for pair in order.chunks(2 * width) {
            let (left, right) = pair.split_at(width.min(pair.len()));
            merge((left, right), &mut merged, account, compare)?;
        }
        std::mem::swap(&mut order, &mut merged);
        width *= 2;
    }
    let mut taken: Vec<Option<T>> = std::mem::take(items).into_iter().map(Some).collect();
    items.extend(order.into_iter().filter_map(|at| taken[at].take()));
    Ok(())
}

fn is_sorted<T>(
    items: &[T],
    account: &Account<'_>,
    compare: impl Fn(&T, &T) -> Ordering,
) -> Result<bool, QueryError> {
    // Runs overlap by one item, so that each is compared with its neighbour.
    for start in account.watched((0..items.len()).step_by(RUN)) {
        let start = start?;
        let run = &items[start..items.len().min(start + RUN + 1)];
        if !run.is_sorted_by(|a, b| compare(a, b) != Ordering::Greater) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Appends two sorted runs as one.
fn merge(
    (mut left, mut right): (&[usize], &[usize]),
    out: &mut Vec<usize>,
    account: &Account<'_>,
    compare: impl Fn(&usize, &usize) -> Ordering,
) -> Result<(), QueryError> {
    for at in 0.. {
        if usize::is_multiple_of(at, RUN) {
            account.check()?;
        }
        let (Some((l, after_left)), Some((r, after_right))) = (left.split_first(), right.split_first())
        else {
            break;
        };
        if compare(r, l) == Ordering::Less {
            out.push(*r);
            right = after_right;
        } else {
            out.push(*l);
            left = after_left;
        }
    }
    out.extend_from_slice(left);
    out.extend_from_slice(right);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use model::QueryCancelled;
    use proptest::prelude::*;

    use super::*;
    use crate::limits::Limits;

    proptest! {
        /// Keys are few, so that many are equal; positions show whether they stay in order.
        #[test]
        fn long_lists_are_sorted_as_short_ones_are(
            keys in prop::collection::vec(0u8..50, 0..4000),
            ascending in any::<bool>(),
        ) {
            let mut items: Vec<(u8, usize)> = keys.into_iter().enumerate().map(|(at, key)| (key, at)).collect();
            if ascending {
                items.sort_by_key(|(key, _)| *key);
            }
            let mut wanted = items.clone();
            wanted.sort_by_key(|(key, _)| *key);
            let (limits, flag) = (Limits::default(), QueryCancelled::new());
            let deadline = Instant::now() + Duration::from_secs(3600);
            let account = Account::new(&limits, Arc::default(), deadline, Some(&flag));
            sort_by(&mut items, &account, |a, b| a.0.cmp(&b.0)).unwrap();
            prop_assert_eq!(items, wanted);
        }

        /// A comparison that cancels the query is one of the last.
        #[test]
        fn sorting_ends_where_it_is_given_up(last in 1usize..30_000) {
            let mut items: Vec<usize> = (0..4000).rev().collect();
            let (limits, flag) = (Limits::default(), QueryCancelled::new());
            let deadline = Instant::now() + Duration::from_secs(3600);
            let account = Account::new(&limits, Arc::default(), deadline, Some(&flag));
            let compared = std::cell::Cell::new(0);
            let sorted = sort_by(&mut items, &account, |a, b| {
                compared.set(compared.get() + 1);
                if compared.get() == last {
                    flag.set();
                }
                (a * 7919 % 4001).cmp(&(b * 7919 % 4001))
            });
            prop_assert!(sorted.is_err() || compared.get() <= last + RUN);
            // Sorting a run takes some ten comparisons an item.
            prop_assert!(compared.get() <= last + 12 * RUN, "{} after {last}", compared.get() - last);
        }
    }
}
