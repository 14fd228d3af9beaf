//! The slot map's file, looked at again and again.

use std::path::PathBuf;
use std::time::Duration;

use remote::slots::{MapError, SlotMap};
use scraper::Shutdown;

/// How often the file is looked at. Moves begin later than this; see `slots add`.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// Calls `changed` whenever the file has, until the process ends.
pub(super) fn watch(
    path: PathBuf,
    stop: Shutdown,
    changed: impl Fn(Result<SlotMap, MapError>) + Send + 'static,
) {
    std::thread::spawn(move || {
        let stamp = || std::fs::metadata(&path).and_then(|meta| Ok((meta.modified()?, meta.len()))).ok();
        let mut seen = None;
        while !stop.is_cancelled() {
            let now = stamp();
            if now != seen {
                changed(SlotMap::read(&path));
                seen = now;
            }
            std::thread::sleep(EVERY);
        }
    });
}
