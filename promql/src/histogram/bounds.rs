//! The bounds of exponential buckets, to the bit.
//!
//! Between 1/2 and 1 there are up to 256 bounds, 2^(i/256 - 1). Prometheus has them as a table whose digits
//! are not always those of the nearest float. Bounds are shown, compared and made label values, so the
//! same floats are needed: they are computed from square roots, which every machine rounds alike, and moved
//! by the few last places in which the table of the reference (`model/histogram/generic.go`) differs.

use std::sync::LazyLock;

/// By how many last places the reference lies below the roots, one character a bound; `x` is one above.
const BELOW: &[u8; 256] = b"\
    000x0010001000000011xx0000111111001000000000001100110x0000100011\
    000x0x0000110011001000100011000000000x00102211221121101111221112\
    1111112322332122223222333334324411110110112210222233223232322233\
    2132112221222222212222333233223311111121212210211122102222332233\
    ";

static BOUNDS: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let mut bounds = vec![0.5f64];
    while bounds.len() < BELOW.len() {
        let next = bounds.iter().skip(1).copied().chain([1.0]);
        bounds = bounds.iter().zip(next).flat_map(|(low, high)| [*low, (low * high).sqrt()]).collect();
    }
    let moved = bounds.iter().zip(BELOW).map(|(bound, below)| match below {
        b'x' => bound.next_up(),
        below => f64::from_bits(bound.to_bits() - u64::from(below - b'0')),
    });
    moved.collect()
});

/// The upper bound of bucket `index` of an exponential schema.
pub(super) fn upper_bound(schema: i32, index: i32) -> f64 {
    let index = i64::from(index);
    let (bound, exponent) = match u32::try_from(schema) {
        Ok(schema) => {
            let schema = schema.min(8);
            let fraction = (index & ((1 << schema) - 1)) << (8 - schema);
            (usize::try_from(fraction).map_or(0.5, |at| BOUNDS[at]), (index >> schema) + 1)
        }
        Err(_) => (0.5, (index << schema.unsigned_abs().min(32)) + 1),
    };
    if bound == 0.5 && exponent == 1025 {
        // The last regular bucket ends at the largest float.
        return f64::MAX;
    }
    scaled(bound, exponent)
}

/// `bound * 2^exponent`, exact where the result is a normal float.
fn scaled(bound: f64, exponent: i64) -> f64 {
    let power = |exponent: i64| f64::from(i32::try_from(exponent.clamp(-1000, 1000)).unwrap_or(0)).exp2();
    if exponent.abs() <= 1000 {
        return bound * power(exponent);
    }
    // In two steps, for powers beyond the largest and the smallest.
    bound * power(exponent) * power(exponent - exponent.clamp(-1000, 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_powers_of_two() {
        assert_eq!(upper_bound(0, 3), 8.0);
        assert_eq!(upper_bound(-1, 2), 16.0);
        assert_eq!(upper_bound(1, 2), 2.0);
        assert_eq!(upper_bound(0, 1024), f64::MAX);
        assert_eq!(upper_bound(0, 1025), f64::INFINITY);
        // The smallest float is 2^-1074.
        assert_eq!(upper_bound(-4, -67), f64::from_bits(4));
        assert_eq!(upper_bound(8, i32::MAX), f64::INFINITY);
        assert_eq!(upper_bound(0, i32::MIN), 0.0);
    }

    #[test]
    fn bounds_have_the_digits_of_the_reference() {
        // From answers of Prometheus.
        assert_eq!(upper_bound(1, 1).to_string(), "1.414213562373095");
        assert_eq!(upper_bound(2, 1).to_string(), "1.189207115002721");
        for (at, pair) in BOUNDS.windows(2).enumerate() {
            let exact = 2f64.powf((at as f64) / 256.0 - 1.0);
            assert!(pair[0] < pair[1] && (pair[0] - exact).abs() < 1e-15, "{at}");
        }
    }
}
