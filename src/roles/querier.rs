//! The querier: knows the map, and reaches shards and routers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Cell, Http};
use remote::slots::SlotMap;
use scraper::Shutdown;

use super::map;

/// A shard that does not take a connection in this time is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts a querier.
pub(super) fn start(path: PathBuf, stop: &Shutdown) -> anyhow::Result<Arc<Cell>> {
    let transport = Http::new(super::client(CONNECT_TIMEOUT)?);
    let read_from = path.clone();
    let cell = Cell::new(Arc::new(move || SlotMap::read(&read_from)), Box::new(transport))?;
    let watching = Arc::downgrade(&cell);
    map::watch(path, stop.clone(), move |_| {
        if let Some(cell) = watching.upgrade() {
            cell.reload();
        }
    });
    Ok(cell)
}
