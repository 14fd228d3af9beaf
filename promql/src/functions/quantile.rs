//! Quantiles of plain values.

/// The value at rank `q * (n - 1)` of `values` sorted with NaN lowest, interpolated. Orders them only as far
/// as that needs.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 values")]
    let rank = q * (values.len() - 1) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= rank < len")]
    let lower = rank.floor() as usize;
    let weight = rank - rank.floor();
    let (_, low, above) = values.select_nth_unstable_by(lower, |a, b| nan_lowest(*a, *b));
    let high = above.iter().copied().min_by(|a, b| nan_lowest(*a, *b)).unwrap_or(*low);
    *low * (1.0 - weight) + high * weight
}

/// Ascending, with NaN below everything.
pub(crate) fn nan_lowest(a: f64, b: f64) -> std::cmp::Ordering {
    b.is_nan().cmp(&a.is_nan()).then_with(|| a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal))
}

/// Whether `q` is no quantile.
pub(crate) fn is_invalid(q: f64) -> bool {
    !(0.0..=1.0).contains(&q)
}

/// The warning about a quantile out of bounds.
pub(crate) fn invalid(q: f64) -> String {
    format!("quantile value should be between 0 and 1, got {}", model::float::format_general(q))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpolates_and_bounds() {
        assert_eq!(quantile(0.5, &mut [3.0, 1.0]), 2.0);
        assert_eq!(quantile(1.0, &mut [3.0, f64::NAN, 1.0]), 3.0);
        assert!(quantile(0.0, &mut [3.0, f64::NAN]).is_nan());
        assert_eq!(quantile(-1.0, &mut [1.0]), f64::NEG_INFINITY);
        assert_eq!(quantile(2.0, &mut [1.0]), f64::INFINITY);
    }
}
