//! Request parameters: from the query string, from a form, or from both.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{Method, header};
use model::{Matcher, TimeRange, Timestamp, duration};

use crate::envelope::ApiError;

/// A form larger than this is refused.
const FORM_BYTES_MAX: usize = 16 << 20;

/// All parameters of a request in order, those of the form before those of the query string.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let mut pairs = Vec::new();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_form = content_type.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        if request.method() == Method::POST && is_form {
            let (parts, body) = request.into_parts();
            let limited = axum::body::Body::new(http_body_util::Limited::new(body, FORM_BYTES_MAX));
            let body = Bytes::from_request(Request::from_parts(parts, limited), state).await;
            let body =
                body.map_err(|error| ApiError::bad_data(format!("error parsing form values: {error}")))?;
            pairs.extend(decode(&body)?);
        }
        pairs.extend(decode(query.as_bytes())?);
        Ok(Self(pairs))
    }
}

/// Pairs of an `application/x-www-form-urlencoded` text.
fn decode(text: &[u8]) -> Result<Vec<(String, String)>, ApiError> {
    let pairs = text.split(|&b| b == b'&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let at = pair.iter().position(|&b| b == b'=');
            let (name, value) = at.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
            Ok((unescape(name)?, unescape(value)?))
        })
        .collect()
}

fn unescape(text: &[u8]) -> Result<String, ApiError> {
    let hex = |b: u8| char::from(b).to_digit(16);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let (high, low) = (rest.next().copied().and_then(hex), rest.next().copied().and_then(hex));
                let code = high.zip(low).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
                let bad = || {
                    ApiError::bad_data(format!("invalid URL escape in {:?}", String::from_utf8_lossy(text)))
                };
                out.push(code.ok_or_else(bad)?);
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).map_err(|_| ApiError::bad_data("a parameter is not valid UTF-8".to_owned()))
}

impl Params {
    /// The first value of `name`; an empty one counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of `name`.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A time: seconds with a fraction, or RFC 3339.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let unreadable =
            || format!("invalid time value for '{name}': cannot parse {text:?} to a valid timestamp");
        parse_time(text).map(Some).ok_or_else(|| invalid(name, &unreadable()))
    }

    /// A time that must be there.
    pub(crate) fn required_time(&self, name: &str) -> Result<Timestamp, ApiError> {
        let text = self.get(name).unwrap_or("");
        parse_time(text).ok_or_else(|| invalid(name, &format!("cannot parse {text:?} to a valid timestamp")))
    }

    /// A duration in milliseconds: seconds with a fraction, or `1h30m`.
    pub(crate) fn duration_ms(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.get(name).map(duration_of).transpose().map_err(|what| invalid(name, &what))
    }

    /// How far back a query looks, in milliseconds.
    pub(crate) fn lookback_ms(&self) -> Result<Option<i64>, ApiError> {
        let what = |what| ApiError::bad_data(format!("error parsing lookback delta duration: {what}"));
        self.get("lookback_delta").map(duration_of).transpose().map_err(what)
    }

    /// A count of results, 0 for all.
    pub(crate) fn limit(&self) -> Result<usize, ApiError> {
        let Some(text) = self.get("limit") else { return Ok(0) };
        let whole = text.trim_start_matches(['-', '+']);
        let is_number = !whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().map_err(|_| match is_number && text.starts_with('-') {
            true => invalid("limit", "limit must be non-negative"),
            false => invalid("limit", &format!("parsing {text:?}: invalid syntax")),
        })
    }

    /// The `start` and `end` parameters; all of time where one is absent. A range that ends before it starts
    /// holds nothing.
    pub(crate) fn range(&self) -> Result<TimeRange, ApiError> {
        let start = self.time("start")?.unwrap_or(TimeRange::ALL.start);
        let end = self.time("end")?.unwrap_or(TimeRange::ALL.end);
        Ok(TimeRange::new(start, end))
    }

    /// The selectors of all `match[]` parameters. The error is the text alone, as Prometheus has it for labels
    /// and rules.
    pub(crate) fn selectors(&self) -> Result<Vec<Vec<Matcher>>, ApiError> {
        let one = |text| {
            let matchers = promql::parse_selector(text).map_err(|error| error.to_string())?.matchers;
            if matchers.iter().all(Matcher::matches_empty) {
                return Err("match[] must contain at least one non-empty matcher".to_owned());
            }
            Ok(matchers)
        };
        self.all("match[]").map(|text| one(text).map_err(ApiError::bad_data)).collect()
    }

    /// The selectors of all `match[]` parameters, of which there must be one. The error names the parameter, as
    /// Prometheus has it for series.
    pub(crate) fn required_selectors(&self) -> Result<Vec<Vec<Matcher>>, ApiError> {
        let selectors = self.selectors().map_err(|error| error.of_parameter("match[]"))?;
        if selectors.is_empty() {
            return Err(ApiError::bad_data("no match[] parameter provided".to_owned()));
        }
        Ok(selectors)
    }
}

/// Reads one series selector; the error is the text for the user.
pub(crate) fn selector(text: &str) -> Result<Vec<Matcher>, String> {
    let expr = promql::parse(text, &promql::ParseOptions::default()).map_err(|error| error.to_string())?;
    match &expr.kind {
        promql::ExprKind::Vector(selector)
            if selector.offset.is_none() && selector.at.is_none() && selector.extension.is_none() =>
        {
            Ok(selector.matchers.clone())
        }
        _ => Err(format!("{text:?} is not a plain series selector")),
    }
}

pub(crate) fn invalid(name: &str, what: &str) -> ApiError {
    ApiError::bad_data(format!("invalid parameter {name:?}: {what}"))
}

fn duration_of(text: &str) -> Result<i64, String> {
    let parsed = match model::float::parse(text).map(|seconds| seconds * 1000.0) {
        Some(ms) => to_ms(ms),
        None => duration::parse_ms(text).ok(),
    };
    parsed.ok_or_else(|| format!("cannot parse {text:?} to a valid duration"))
}

/// Milliseconds that fit an `i64`, rounded.
#[expect(clippy::cast_possible_truncation, reason = "bounds are checked first")]
fn to_ms(ms: f64) -> Option<i64> {
    (ms.is_finite() && ms.abs() < 9.2e18).then(|| ms.round() as i64)
}

/// The earliest and the latest time that clients name where they mean none, as years beyond four digits.
const BOUNDS: [(&str, Timestamp); 2] = [
    ("-292273086-05-16T16:47:06Z", -9_223_309_901_257_974_000),
    ("292277025-08-18T07:12:54.999999999Z", 9_223_309_901_257_974_999),
];

fn parse_time(text: &str) -> Option<Timestamp> {
    if let Some(seconds) = model::float::parse(text) {
        // As Prometheus does: the fraction is rounded alone, to what is cut to nanoseconds and then to milliseconds.
        let rest_ns = to_ms(((seconds.fract() * 1000.0).round() / 1000.0 * 1e9).trunc())?;
        return to_ms(seconds.trunc() * 1000.0)?.checked_add(rest_ns.div_euclid(1_000_000));
    }
    let bound = BOUNDS.iter().find(|(bound, _)| *bound == text).map(|(_, ts)| *ts);
    bound.or_else(|| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond))
}

/// Undoes the escaping of label names in paths: `U__` marks it, `__` is an underscore, `_2e_` a
/// character by its code.
pub(crate) fn unescape_label_name(name: &str) -> String {
    let Some(escaped) = name.strip_prefix("U__") else { return name.to_owned() };
    let mut out = String::new();
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(end) = rest.find('_') else { return name.to_owned() };
        if end == 0 {
            out.push('_');
        } else {
            match u32::from_str_radix(&rest[..end], 16).ok().and_then(char::from_u32) {
                Some(c) => out.push(c),
                None => return name.to_owned(),
            }
        }
        rest = &rest[end + 1..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(text: &str) -> Params {
        Params(decode(text.as_bytes()).unwrap())
    }

    #[test]
    fn decodes_forms() {
        let params = params("a=1+2&b=%7B%22x%22%7D&match[]=up&match%5B%5D=down&empty=&flag");
        assert_eq!(params.get("a"), Some("1 2"));
        assert_eq!(params.get("b"), Some("{\"x\"}"));
        assert_eq!(params.get("empty"), None);
        assert_eq!(params.all("match[]").collect::<Vec<_>>(), ["up", "down"]);
        for bad in ["a=%", "a=%4", "a=%zz", "a=%ff"] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_and_durations() {
        assert_eq!(params("t=1.5").time("t").unwrap(), Some(1500));
        assert_eq!(params("t=2026-11-21T04:52:24Z").time("t").unwrap(), Some(1_795_236_744_000));
        assert_eq!(params("t=2026-11-21T04:52:24.5%2B01:00").time("t").unwrap(), Some(1_795_233_144_500));
        assert_eq!(params("t=1.0005").time("t").unwrap(), Some(1000));
        assert_eq!(params("t=1.0006").time("t").unwrap(), Some(1001));
        assert_eq!(params("t=-1.25").time("t").unwrap(), Some(-1250));
        assert_eq!(params("t=1795236744.123").time("t").unwrap(), Some(1_795_236_744_123));
        assert_eq!(params("t=-292273086-05-16T16:47:06Z").time("t").unwrap(), Some(BOUNDS[0].1));
        assert_eq!(params("t=292277025-08-18T07:12:54.999999999Z").time("t").unwrap(), Some(BOUNDS[1].1));
        assert_eq!(params("d=90").duration_ms("d").unwrap(), Some(90_000));
        assert_eq!(params("d=1m30s").duration_ms("d").unwrap(), Some(90_000));
        assert_eq!(params("d=0.25").duration_ms("d").unwrap(), Some(250));
        for bad in ["t=x", "t=NaN", "t=1e300", "t=Inf"] {
            assert!(params(bad).time("t").is_err(), "{bad}");
        }
        assert!(params("limit=-1").limit().is_err());
        assert_eq!(params("start=2&end=1").range().unwrap(), TimeRange::new(2000, 1000));
    }

    #[test]
    fn label_names_in_paths() {
        assert_eq!(unescape_label_name("job"), "job");
        assert_eq!(unescape_label_name("U__k8s_2e_pod"), "k8s.pod");
        assert_eq!(unescape_label_name("U__a__b"), "a_b");
        assert_eq!(unescape_label_name("U__a_zz_b"), "U__a_zz_b");
    }
}
