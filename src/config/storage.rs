//! The sections `storage` and `otlp`.

use serde::Deserialize;
use serde_saphyr::Spanned;
use tsdb::FloatChunks;

use super::resolve::{Fault, fault};
use super::scalars::{Duration, Size};

/// `storage`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Storage {
    tsdb: Tsdb,
    exemplars: Exemplars,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tsdb {
    out_of_order_time_window: Option<Duration>,
    stale_series_compaction_threshold: Option<Spanned<f64>>,
    retention: Retention,
    chunk_encoding: ChunkEncoding,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ChunkEncoding {
    floats: Option<Spanned<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Retention {
    time: Option<Duration>,
    size: Option<Size>,
    percentage: Option<Spanned<f64>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Exemplars {
    max_exemplars: Option<Spanned<i64>>,
}

/// What the file says of storage; flags decide where it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StorageOptions {
    /// How late a sample may be.
    pub(crate) out_of_order_window_ms: i64,
    /// How many exemplars are kept.
    pub(crate) exemplars_max: Option<usize>,
    /// How floats are encoded, and whether start times are kept.
    pub(crate) float_chunks: FloatChunks,
    /// How long samples are kept.
    pub(crate) retention_ms: Option<i64>,
    /// How much may be kept on disk.
    pub(crate) retention_bytes: Option<u64>,
}

impl Storage {
    pub(super) fn resolve(&self) -> Result<StorageOptions, Fault> {
        let tsdb = &self.tsdb;
        if let Some(threshold) = tsdb.stale_series_compaction_threshold.as_ref().filter(|t| t.value != 0.0) {
            let what = "storage.tsdb.stale_series_compaction_threshold is not supported";
            return fault(threshold.referenced, what);
        }
        if let Some(percentage) = tsdb.retention.percentage.as_ref().filter(|p| p.value != 0.0) {
            return fault(percentage.referenced, "storage.tsdb.retention.percentage is not supported");
        }
        let floats = tsdb.chunk_encoding.floats.as_ref();
        let float_chunks = match floats.map(|floats| (floats.value.as_str(), floats.referenced)) {
            None | Some(("" | "xor", _)) => FloatChunks::Xor,
            Some(("xor2", _)) => FloatChunks::Xor2,
            Some((other, at)) => {
                let what =
                    format!("storage.tsdb.chunk_encoding.floats must be 'xor' or 'xor2', got {other:?}");
                return fault(at, what);
            }
        };
        // As in Prometheus, a negative number is none.
        let exemplars_max = self.exemplars.max_exemplars.as_ref();
        let exemplars_max = exemplars_max.map(|max| usize::try_from(max.value).unwrap_or(0));
        Ok(StorageOptions {
            out_of_order_window_ms: tsdb.out_of_order_time_window.map_or(0, |window| window.0),
            exemplars_max,
            float_chunks,
            retention_ms: tsdb.retention.time.map(|time| time.0).filter(|ms| *ms > 0),
            retention_bytes: tsdb.retention.size.map(|size| size.0).filter(|bytes| *bytes > 0),
        })
    }
}

/// `otlp`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Otlp {
    promote_resource_attributes: Vec<String>,
    promote_all_resource_attributes: bool,
    ignore_resource_attributes: Vec<String>,
    translation_strategy: Option<Spanned<String>>,
    keep_identifying_resource_attributes: bool,
    convert_histograms_to_nhcb: bool,
    promote_scope_metadata: bool,
    label_name_underscore_sanitization: Option<Spanned<bool>>,
    label_name_preserve_multiple_underscores: Option<Spanned<bool>>,
}

impl Otlp {
    pub(super) fn resolve(self) -> Result<remote::otlp::Options, Fault> {
        use remote::otlp::{Promote, Translation};
        for (key, flag) in [
            ("label_name_underscore_sanitization", &self.label_name_underscore_sanitization),
            ("label_name_preserve_multiple_underscores", &self.label_name_preserve_multiple_underscores),
        ] {
            if let Some(flag) = flag.as_ref().filter(|flag| !flag.value) {
                return fault(flag.referenced, format!("otlp.{key}: false is not supported"));
            }
        }
        let promoted = attributes("promote_resource_attributes", &self.promote_resource_attributes)?;
        let ignored = attributes("ignore_resource_attributes", &self.ignore_resource_attributes)?;
        let promote = if self.promote_all_resource_attributes {
            if !promoted.is_empty() {
                let what = "'promote_all_resource_attributes' and 'promote_resource_attributes' cannot be configured simultaneously";
                return Err(Fault { location: None, what: what.to_owned() });
            }
            Promote::AllBut(ignored)
        } else {
            if !ignored.is_empty() {
                let what = "'ignore_resource_attributes' cannot be configured unless 'promote_all_resource_attributes' is true";
                return Err(Fault { location: None, what: what.to_owned() });
            }
            Promote::Only(promoted)
        };
        let translation = match &self.translation_strategy {
            None => Translation::default(),
            Some(text) => match text.value.as_str() {
                "" | "UnderscoreEscapingWithSuffixes" => Translation::UnderscoreWithSuffixes,
                "NoUTF8EscapingWithSuffixes" => Translation::Utf8WithSuffixes,
                "UnderscoreEscapingWithoutSuffixes" => Translation::UnderscoreWithoutSuffixes,
                "NoTranslation" => Translation::None,
                other => {
                    return fault(
                        text.referenced,
                        format!("unsupported otlp translation strategy {other:?}"),
                    );
                }
            },
        };
        Ok(remote::otlp::Options {
            promote,
            translation,
            keep_identifying: self.keep_identifying_resource_attributes,
            histograms_to_custom: self.convert_histograms_to_nhcb,
            promote_scope: self.promote_scope_metadata,
        })
    }
}

/// Names without blanks around them; none may be empty or occur twice.
fn attributes(key: &str, names: &[String]) -> Result<Vec<String>, Fault> {
    let mut out: Vec<String> = Vec::new();
    for name in names.iter().map(|name| name.trim()) {
        let what = if name.is_empty() {
            "an attribute without a name".to_owned()
        } else if out.iter().any(|other| other == name) {
            format!("duplicated resource attribute {name:?}")
        } else {
            out.push(name.to_owned());
            continue;
        };
        return Err(Fault { location: None, what: format!("otlp.{key}: {what}") });
    }
    Ok(out)
}
