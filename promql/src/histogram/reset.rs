//! Counter resets between two histograms.

use model::{FloatHistogram, ResetHint};

use super::buckets::Entry;
use super::combine::{Layout, align};

/// Whether the counter was reset between `before` and `after`: the hint says so, or something that can
/// only grow has shrunk, or the layout has changed in a way that a running counter's cannot.
pub(crate) fn is_reset(before: &FloatHistogram, after: &FloatHistogram) -> bool {
    match after.reset_hint {
        ResetHint::Reset => return true,
        ResetHint::NotReset => return false,
        ResetHint::Unknown | ResetHint::Gauge => {}
    }
    if after.count < before.count || after.has_custom_buckets() != before.has_custom_buckets() {
        return true;
    }
    if !after.has_custom_buckets()
        && (after.schema > before.schema || after.zero_threshold < before.zero_threshold)
    {
        return true;
    }
    let (mut old, mut new) = (Layout::<f64>::of(before), Layout::<f64>::of(after));
    align(&mut old, &mut new);
    #[expect(clippy::float_cmp, reason = "thresholds are configured, not computed")]
    let cut = !after.has_custom_buckets() && new.zero_threshold != after.zero_threshold;
    cut || new.zero_count < old.zero_count
        || shrank(&old.positive, &new.positive)
        || shrank(&old.negative, &new.negative)
}

fn shrank(before: &[Entry], after: &[Entry]) -> bool {
    let mut after = after.iter().peekable();
    before.iter().any(|(index, count)| {
        while after.next_if(|(other, _)| other < index).is_some() {}
        let now = after.next_if(|(other, _)| other == index).map_or(0.0, |(_, count)| *count);
        now < *count
    })
}
