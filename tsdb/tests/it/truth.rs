//! Directories that Prometheus left behind, against what Prometheus says is in them.

use std::path::PathBuf;

/// The directory with recorded data. Skips loudly where it is absent, except in CI.
pub(crate) fn shared() -> Option<PathBuf> {
    let root = std::env::var_os("PYROMETER_SHARED")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")), PathBuf::from);
    let data = root.join("data");
    if data.is_dir() {
        return Some(data);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is absent; set PYROMETER_SHARED", data.display());
    eprintln!("SKIPPED: {} is absent; set PYROMETER_SHARED", data.display());
    None
}

#[test]
fn shared_data_is_found_or_skipped() {
    let _ = shared();
}
