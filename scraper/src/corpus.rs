//! Where recorded cases lie. Tests only.

use std::path::PathBuf;

/// The file's bytes, or `None` where there is no corpus. In CI it must be there.
pub(crate) fn read(path: &str) -> Option<Vec<u8>> {
    let root = std::env::var_os("PYROMETER_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    match std::fs::read(root.join(path)) {
        Ok(bytes) => Some(bytes),
        Err(error) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("{path}: {error}"),
        Err(error) => {
            eprintln!("SKIPPED: {path} under {}: {error}", root.display());
            None
        }
    }
}
