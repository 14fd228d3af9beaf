//! Functions of one number.

use super::Function;

/// The function on a float, for those that need nothing else.
pub(crate) fn unary(function: Function) -> Option<fn(f64) -> f64> {
    Some(match function {
        Function::Abs => f64::abs,
        Function::Ceil => f64::ceil,
        Function::Floor => f64::floor,
        Function::Exp => f64::exp,
        Function::Sqrt => f64::sqrt,
        Function::Ln => f64::ln,
        Function::Log2 => f64::log2,
        Function::Log10 => f64::log10,
        Function::Sgn => sign,
        Function::Acos => f64::acos,
        Function::Acosh => f64::acosh,
        Function::Asin => f64::asin,
        Function::Asinh => f64::asinh,
        Function::Atan => f64::atan,
        Function::Atanh => f64::atanh,
        Function::Cos => f64::cos,
        Function::Cosh => f64::cosh,
        Function::Sin => f64::sin,
        Function::Sinh => f64::sinh,
        Function::Tan => f64::tan,
        Function::Tanh => f64::tanh,
        Function::Deg => |value| value * 180.0 / std::f64::consts::PI,
        Function::Rad => |value| value * std::f64::consts::PI / 180.0,
        _ => return None,
    })
}

fn sign(value: f64) -> f64 {
    if value < 0.0 {
        -1.0
    } else if value > 0.0 {
        1.0
    } else {
        value
    }
}

/// `value` rounded to the nearest multiple of `to`, halves up. Works with the inverse of `to`, so
/// that `to = 0.1` is as exact as it can be.
pub(crate) fn round(value: f64, to: f64) -> f64 {
    let inverse = 1.0 / to;
    (value * inverse + 0.5).floor() / inverse
}

/// `value` brought between `min` and `max`; nothing if they are the wrong way round.
pub(crate) fn clamp(value: f64, min: f64, max: f64) -> Option<f64> {
    if max < min { None } else { Some(clamp_min(clamp_max(value, max), min)) }
}

/// The larger of two; infinity beats NaN, which beats all else, and zero is larger than its negative.
pub(crate) fn clamp_min(value: f64, min: f64) -> f64 {
    -clamp_max(-value, -min)
}

/// The smaller of two, by the same rules.
pub(crate) fn clamp_max(value: f64, max: f64) -> f64 {
    if value == f64::NEG_INFINITY || max == f64::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    if value.is_nan() || max.is_nan() {
        return f64::NAN;
    }
    if value == 0.0 && max == 0.0 {
        return if value.is_sign_negative() { value } else { max };
    }
    value.min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_up() {
        assert_eq!(round(-2.5, 1.0), -2.0);
        assert_eq!(round(2.5, 1.0), 3.0);
        assert_eq!(round(1.25, 0.5), 1.5);
    }

    #[test]
    fn clamping_the_wrong_way_round_yields_nothing() {
        assert_eq!(clamp(1.0, 5.0, 2.0), None);
        assert_eq!(clamp(1.0, 2.0, 5.0), Some(2.0));
        assert!(clamp(1.0, f64::NAN, 5.0).is_some_and(f64::is_nan));
    }

    #[test]
    fn infinity_beats_nan() {
        assert_eq!(clamp_max(f64::NAN, f64::NEG_INFINITY), f64::NEG_INFINITY);
        assert_eq!(clamp_min(f64::NAN, f64::INFINITY), f64::INFINITY);
        assert!(clamp_min(f64::NAN, f64::NEG_INFINITY).is_nan());
        assert!(clamp_min(-0.0, 0.0).is_sign_positive() && clamp_max(0.0, -0.0).is_sign_negative());
    }
}
