//! Where the shared test data lies.

use std::path::PathBuf;

/// The folder or file `name` of the shared data, or `None`, said loudly, if it is absent. Under
/// `CI=true` absence is a failure. `variable` may name another place.
pub fn shared(variable: &str, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map_or_else(
        || {
            let root = std::env::var_os("PYROMETER_SHARED").map_or_else(
                || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
                PathBuf::from,
            );
            root.join(name)
        },
        PathBuf::from,
    );
    if path.exists() {
        return Some(path);
    }
    let required = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!required, "{} is absent, and CI=true demands it", path.display());
    eprintln!("SKIPPED: {} is absent (set {variable} or PYROMETER_SHARED)", path.display());
    None
}
