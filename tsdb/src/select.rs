//! From matchers to series, the same way for the head and for blocks.

use croaring::Bitmap;
use model::regex::AnchoredRegex;
use model::{MatchOp, Matcher, QueryCancelled};

/// What a label index must be able to tell. Series are numbers; what they mean is the index's affair.
pub(crate) trait LabelIndex {
    type Error;
    /// All series.
    fn all(&self) -> Result<Bitmap, Self::Error>;
    /// The series with label `name` = `value`.
    fn with_value(&self, name: &str, value: &str) -> Result<Bitmap, Self::Error>;
    /// The series with a label `name` whose value begins with `prefix` and is to be kept.
    fn with_values(
        &self,
        name: &str,
        prefix: &str,
        keep: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Bitmap, Self::Error>;
}

/// The series that fulfil all matchers.
///
/// A matcher that refuses the empty value selects postings, and those are intersected, smallest
/// first. A matcher that accepts it also accepts series without the label, so it is turned round: what
/// it refuses is taken away in the end.
///
/// Once `cancelled` is set, what is found is of no use: no further value is looked at.
pub(crate) fn series<I: LabelIndex>(
    index: &I,
    matchers: &[Matcher],
    cancelled: Option<&QueryCancelled>,
) -> Result<Bitmap, I::Error> {
    let wanted = |matcher: &Matcher, value: &str, sense: bool| {
        !cancelled.is_some_and(QueryCancelled::is_set) && matcher.matches(value) == sense
    };
    let mut required = Vec::new();
    for matcher in matchers.iter().filter(|matcher| !matcher.matches_empty()) {
        let found = accepted(index, matcher, &wanted)?;
        if found.is_empty() {
            return Ok(found);
        }
        required.push(found);
    }
    required.sort_unstable_by_key(Bitmap::cardinality);
    let mut required = required.into_iter();
    let mut found = match required.next() {
        Some(first) => first,
        None => index.all()?,
    };
    for other in required {
        found.and_inplace(&other);
    }
    for matcher in matchers.iter().filter(|matcher| matcher.matches_empty()) {
        if found.is_empty() {
            break;
        }
        if let Some(refused) = refused(index, matcher, &wanted)? {
            found.andnot_inplace(&refused);
        }
    }
    Ok(found)
}

/// Whether a matcher takes a value (or, with `false`, refuses it), as far as that is still of interest.
type Wanted<'a> = dyn Fn(&Matcher, &str, bool) -> bool + 'a;

fn accepted<I: LabelIndex>(index: &I, matcher: &Matcher, wanted: &Wanted<'_>) -> Result<Bitmap, I::Error> {
    let set = matcher.regex().and_then(|regex| regex.set());
    match (matcher.op, set) {
        (MatchOp::Equal, _) => index.with_value(&matcher.name, &matcher.value),
        (MatchOp::Regex, Some(set)) => {
            let mut found = Bitmap::new();
            for value in set {
                found.or_inplace(&index.with_value(&matcher.name, value)?);
            }
            Ok(found)
        }
        (MatchOp::Regex, None) => {
            let prefix = matcher.regex().map_or("", |regex| regex.prefix());
            index.with_values(&matcher.name, prefix, &mut |value| wanted(matcher, value, true))
        }
        _ => index.with_values(&matcher.name, "", &mut |value| wanted(matcher, value, true)),
    }
}

/// The series with a value that `matcher` refuses; `None` if there can be none.
fn refused<I: LabelIndex>(
    index: &I,
    matcher: &Matcher,
    wanted: &Wanted<'_>,
) -> Result<Option<Bitmap>, I::Error> {
    let regex = matcher.regex();
    if matcher.op == MatchOp::Regex && regex.is_some_and(AnchoredRegex::matches_everything) {
        return Ok(None);
    }
    Ok(Some(match (matcher.op, regex.and_then(|regex| regex.set())) {
        (MatchOp::NotEqual, _) => index.with_value(&matcher.name, &matcher.value)?,
        (MatchOp::NotRegex, Some(set)) => {
            let mut found = Bitmap::new();
            for value in set {
                found.or_inplace(&index.with_value(&matcher.name, value)?);
            }
            found
        }
        _ => index.with_values(&matcher.name, "", &mut |value| wanted(matcher, value, false))?,
    }))
}
