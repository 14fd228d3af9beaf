//! Comparing answers of the HTTP API.

use serde_json::Value;

/// The first place where two answers differ, if there is one. Numbers may differ by `tolerance`,
/// relative to their size: what another order of additions costs. What is smaller than its square is zero.
pub(crate) fn difference(ours: &Value, theirs: &Value, tolerance: f64) -> Option<String> {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            a.keys().find_map(|key| Some(format!("{key}.{}", difference(&a[key], &b[key], tolerance)?)))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            (0..a.len()).find_map(|at| Some(format!("[{at}]{}", difference(&a[at], &b[at], tolerance)?)))
        }
        (Value::String(a), Value::String(b)) if a != b => {
            let close = |a: f64, b: f64| (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(tolerance);
            let same = a.parse().ok().zip(b.parse().ok()).is_some_and(|(a, b)| close(a, b));
            (!same).then(|| format!(" ours {a} theirs {b}"))
        }
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => None,
        _ if ours == theirs => None,
        _ => Some(format!(" ours {ours:.150} theirs {theirs:.150}")),
    }
}
