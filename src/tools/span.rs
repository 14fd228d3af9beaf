//! Times and durations on the command line and in files.

use anyhow::Context as _;

/// A time as seconds with a fraction or in RFC 3339; milliseconds since the epoch.
pub(crate) fn parse_time(text: &str) -> anyhow::Result<i64> {
    let seconds = model::float::parse(text).filter(|seconds| seconds.is_finite() && seconds.abs() < 9.2e15);
    if let Some(seconds) = seconds {
        #[expect(clippy::cast_possible_truncation, reason = "bounds are checked")]
        return Ok((seconds * 1000.0).round() as i64);
    }
    let time: jiff::Timestamp = text.parse().ok().with_context(|| {
        format!("cannot parse {text:?} to a valid timestamp: neither seconds nor RFC 3339")
    })?;
    Ok(time.as_millisecond())
}

/// A duration such as `1h30m`, or seconds; milliseconds.
pub(super) fn parse_duration_ms(text: &str) -> anyhow::Result<i64> {
    if let Some(seconds) = model::float::parse(text) {
        return parse_time(&seconds.to_string());
    }
    model::duration::parse_ms(text).with_context(|| format!("{text:?} is not a duration"))
}

/// Seconds with as many decimals as are needed.
pub(super) fn seconds(ms: i64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since the epoch are far below 2^53")]
    model::float::format_fixed(ms as f64 / 1000.0)
}
