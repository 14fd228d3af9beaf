//! In which order series go out.
//!
//! The protocol wants them sorted by the labels that are sent: without those of replicas, and with the external ones.
//! The store has them sorted by the labels that it keeps, which is nearly the same, but not quite: `up` comes before
//! `up{a="b"}`, and behind it once both have got a `z="1"`. So the series are dealt to as few ascending runs as they
//! have (patience sorting), and the runs are merged. That takes 4 bytes a series and a label set a run; there are
//! about as many runs as there are sets of label *names*, or values of a replica label that is removed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use model::Labels;

/// An ascending run of series.
struct Run {
    last: Labels,
    members: Vec<u32>,
}

/// Gives each of `count` series with its labels in ascending order of those; stops when `visit` returns false.
/// `None` as labels of a series: it is left out.
pub(crate) fn visit_sorted(
    count: usize,
    labels: &dyn Fn(usize) -> Option<Labels>,
    visit: &mut dyn FnMut(usize, Labels) -> bool,
) {
    let mut runs: Vec<Run> = Vec::new();
    for (at, id) in (0..count).zip(0_u32..) {
        let Some(labels) = labels(at) else { continue };
        // The last ones descend from run to run: the first run that can take it is the fullest.
        let run = runs.partition_point(|run| run.last > labels);
        match runs.get_mut(run) {
            Some(run) => {
                run.last = labels;
                run.members.push(id);
            }
            None => runs.push(Run { last: labels, members: vec![id] }),
        }
    }
    let mut rest: Vec<_> = runs.into_iter().map(|run| run.members.into_iter()).collect();
    let next = |run: &mut std::vec::IntoIter<u32>| {
        run.find_map(|id| {
            let at = usize::try_from(id).ok()?;
            Some((labels(at)?, at))
        })
    };
    let mut heads = BinaryHeap::with_capacity(rest.len());
    for (number, run) in rest.iter_mut().enumerate() {
        heads.extend(next(run).map(|(labels, at)| Reverse((labels, number, at))));
    }
    while let Some(Reverse((labels, number, at))) = heads.pop() {
        if !visit(at, labels) {
            return;
        }
        heads.extend(next(&mut rest[number]).map(|(labels, at)| Reverse((labels, number, at))));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_series_comes_once_and_in_order(values in prop::collection::vec(prop::option::of(0_u8..20), 0..60)) {
            let all: Vec<Option<Labels>> = values
                .iter()
                .map(|value| value.map(|value| Labels::from_pairs([("a", value.to_string())])))
                .collect();
            let mut seen = Vec::new();
            visit_sorted(all.len(), &|at| all[at].clone(), &mut |at, labels| {
                seen.push((labels, at));
                true
            });
            prop_assert!(seen.is_sorted_by_key(|(labels, _)| labels.clone()));
            let mut expected: Vec<_> =
                all.iter().cloned().zip(0..).filter_map(|(labels, at)| Some((labels?, at))).collect();
            expected.sort();
            seen.sort();
            prop_assert_eq!(seen, expected);
        }
    }
}
